"""The scripts with data that are no plain text: what they write, and what they refuse."""

import csv
import gzip
import json
import re

import numpy as np
import pytest
from fork_server import ForkServer, contents

SMALL = (
    "--hidden_size=8", "--batch_size=4", "--eval_batch_size=4", "--sequence_length=16",
    "--schedule=constant", "--num_steps=4", "--log_every=2", "--eval_every=2",
    "--checkpoint_every=2",
)  # fmt: skip
MOLECULES = ("CCl", "c1cc[nH]c1", "BrCBr", "C%10CC%10", "N[C@@H](C)O")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    rng = np.random.default_rng(0)
    rolls = {f"tune{i}": (rng.random((20, 88)) < 0.05).astype(np.uint8) for i in range(20)}
    np.savez(folder / "rolls.npz", **rolls)
    np.savez(folder / "digits.npz", images=rng.random((40, 4, 3)) < 0.3)
    with gzip.open(folder / "molecules.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "SMILES", "note"])
        writer.writerows([i, MOLECULES[i % 5], "two\nlines"] for i in range(60))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    return ForkServer(folder)


@pytest.fixture(scope="module")
def run(server):
    return server.run


@pytest.fixture(scope="module")
def rolls_run(run):
    ended = run("train", "--workdir=rolls", "--data=rolls.npz", "--format=pianoroll", *SMALL)
    assert ended.status == 0, ended.err
    return ended


@pytest.fixture(scope="module")
def molecules_run(run):
    flags = ["--format=lines", "--codec=smiles", "--column=SMILES", *SMALL]
    ended = run("train", "--workdir=molecules", "--data=molecules.csv.gz", *flags)
    assert ended.status == 0, ended.err
    return ended


def test_train_leaves_samples_in_the_workdir(rolls_run, folder):
    assert rolls_run.out == "" and "wrote 9 samples to rolls/samples" in rolls_run.err
    names = sorted(path.name for path in (folder / "rolls" / "samples").iterdir())
    assert names == ["pianorolls.png", *[f"sample_{i}.mid" for i in range(9)]]


def test_sample_writes_where_it_is_told(run, rolls_run, folder):
    flags = ["--workdir=rolls", "--length=12", "--num_samples=2", "--seed=4"]
    ended = run("sample", *flags, "--output=tunes")
    assert (ended.status, ended.out) == (0, ""), ended.err
    names = sorted(path.name for path in (folder / "tunes").iterdir())
    assert names == ["pianorolls.png", "sample_0.mid", "sample_1.mid"]
    one = run("sample", "--workdir=rolls", "--length=12", "--seed=4", "--output=tune")
    assert one.status == 0, one.err
    contents = [(folder / name / "sample_0.mid").read_bytes() for name in ("tunes", "tune")]
    assert contents[0] == contents[1]
    greedy = run("sample", *flags, "--temperature=0", "--output=greedy")
    assert greedy.status == 0, greedy.err
    assert (folder / "greedy" / "sample_0.mid").read_bytes() != contents[0]


def test_log_probabilities_go_to_a_file_or_to_standard_output(run, rolls_run, folder):
    flags = ["--workdir=rolls", "--length=12", "--num_samples=3", "--log_probs"]
    shown = run("sample", *flags)
    records = [json.loads(line) for line in shown.out.splitlines()]
    assert len(records) == 3 and all(r["nats"] > 0 and r["num_events"] == 12 for r in records)
    assert run("sample", *flags, "--output=nats.jsonl").status == 0
    assert (folder / "nats.jsonl").read_text() == shown.out


@pytest.fixture(scope="module")
def digits_run(run):
    flags = ["--workdir=digits", "--data=digits.npz", "--format=images", *SMALL]
    ended = run("train", *flags, "--noshow_sample")
    assert ended.status == 0, ended.err
    return ended


@pytest.mark.parametrize(("workdir", "count"), [("rolls", 1000), ("digits", 20000)])
def test_a_killed_folder_equals_the_uninterrupted_one(
    server, rolls_run, digits_run, folder, workdir, count
):
    flags = [f"--workdir={workdir}", f"--num_samples={count}", "--length=12"]
    whole = server.run("sample", *flags, f"--output=whole_{workdir}")
    assert whole.status == 0 and f"{count:,} samples, " in whole.err, whole.err
    expected = contents(folder / f"whole_{workdir}")
    killed = folder / f"killed_{workdir}"
    done = server.kill_partway(
        killed / "samples.npz.progress" if workdir == "digits" else killed / "samples.progress",
        "sample", *flags, f"--output={killed.name}",
    )  # fmt: skip
    assert 0 < done < count and contents(killed).keys() != expected.keys()
    # What is complete is not touched again.
    first = killed / ("images.png" if workdir == "digits" else "sample_000.mid")
    before = first.stat().st_mtime_ns
    ended = server.run("sample", *flags, f"--output={killed.name}")
    assert ended.status == 0 and f"going on after {done:,} samples" in ended.err, ended.err
    assert first.stat().st_mtime_ns == before
    assert contents(killed) == expected
    counts = [re.search(r".* samples, .* duplicates", x.err).group()[9:] for x in (whole, ended)]
    assert counts[0] == counts[1]


def test_an_image_has_all_its_pixels(run, digits_run, folder):
    ended = run("sample", "--workdir=digits", "--num_samples=3", "--temperature=0")
    assert ended.status == 0, ended.err
    with np.load(folder / "digits" / "samples" / "samples.npz") as arrays:
        samples = arrays["samples"]
    assert samples.shape == (3, 4, 3) and samples.dtype == bool
    # Each is the most probable image.
    assert (samples == samples[0]).all()


def test_molecules_from_a_column(run, molecules_run, folder):
    assert len(molecules_run.out.splitlines()) == 5
    codec = json.loads((folder / "molecules" / "codec.json").read_text())
    assert codec["vocabulary"] == sorted(
        ["Br", "C", "Cl", "N", "O", "(", ")", "1", "%10", "[C@@H]", "[nH]", "c"]
    )
    ended = run("sample", "--workdir=molecules", "--prefix=C%10[nH]", "--num_samples=2")
    assert ended.status == 0 and all(x.startswith("C%10[nH]") for x in ended.out.splitlines())
    assert run("evaluate", "--workdir=molecules", "--split=test").status == 0


def test_learning_curves_of_two_runs(run, rolls_run, molecules_run, folder):
    ended = run("plots", "--workdirs=rolls, molecules", "--output=curves.png")
    assert (ended.status, ended.out) == (0, "curves.png\n"), ended.err
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "--workdir=rolls", "--prefix=do"], ["--prefix", "pianoroll"]),
        (["sample", "--workdir=rolls", "--top_k=3"], ["--top_k", "it has --temperature"]),
        (["sample", "--workdir=rolls", "--bias=1"], ["--bias", "it has --temperature"]),
        (["sample", "--workdir=molecules", "--bias=1"], ["--bias", "--top_k", "--top_p"]),
        (["sample", "--workdir=rolls", "--bias=-1"], ["--bias", "at least 0", "-1"]),
        (["sample", "--workdir=rolls", "--until=3"], ["--until", "--format=events"]),
        (["sample", "--workdir=molecules", "--until=3"], ["--until", "--format=events"]),
        (["sample", "--workdir=rolls", "--output=x.mid"], ["--output", "a folder", "x.mid"]),
        (["sample", "--workdir=rolls", "--output=x.parquet"],
         ["need a .npz file or a folder", "x.parquet"]),
        (["sample", "--workdir=rolls", "--output=x.wav"], ["need a .npz file", "x.wav"]),
        (["sample", "--workdir=molecules", "--output=x.npz"], [".csv", "FASTA", ".smi", "x.npz"]),
        (["sample", "--workdir=molecules", "--output=x.csv", "--log_probs"], [".jsonl", "x.csv"]),
        (["sample", "--workdir=rolls", "--length=2", "--output=rolls.npz/x"], ["rolls.npz/x"]),
        (["sample", "--workdir=molecules", "--prefix=C[Xe]"], ["column 2", "'[Xe]'"]),
        (["train", "--workdir=no", "--data=molecules.csv.gz", "--format=lines", "--column=smiles"],
         ["no column 'smiles'", "'SMILES'"]),
        (["train", "--workdir=no", "--data=molecules.csv.gz", "--column=SMILES"],
         ["column=SMILES", "lines"]),
        (["plots"], ["--workdirs"]),
        (["plots", "--workdirs=nowhere"], ["nowhere", "train first"]),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(run, rolls_run, molecules_run, arguments, words):
    ended = run(*arguments)
    assert (ended.status, ended.out) == (1, "")
    lines = ended.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), ended.err
    for word in words:
        assert word in lines[0]
