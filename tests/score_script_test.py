"""score.py as a user runs it: its records, its orders, its pictures, how it fails."""

import csv
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from fork_server import ForkServer
from matplotlib.colors import to_hex
from pyarrow import parquet

import grnn_jax
from grnn_jax.cli import score
from grnn_jax.cli.writers import records as writing
from grnn_jax.cli.writers import surprise
from grnn_jax.data import Corpus
from grnn_jax.data.unseen import LeftOut
from grnn_jax.errors import InputError
from grnn_jax.scoring import ScoredFile, SequenceScores
from grnn_jax.workdir import load_run

SMALL = (
    "--data=lines.txt", "--format=lines", "--hidden_size=8", "--batch_size=4",
    "--eval_batch_size=4", "--sequence_length=16", "--schedule=constant", "--num_steps=4",
    "--eval_every=2", "--checkpoint_every=2", "--dropout=0.3", "--noshow_sample",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score")
    rng = np.random.default_rng(0)
    words = np.array(["an", "old", "cat", "sat", "there"])
    lines = [" ".join(rng.choice(words, rng.integers(1, 5))) + "\n" for _ in range(60)]
    (folder / "lines.txt").write_text("".join(lines))
    (folder / "few.txt").write_text("".join(lines[:7]))
    (folder / "strange.txt").write_text("an\nold Ж\n", encoding="utf-8")
    (folder / "empty.txt").write_text("")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    server = ForkServer(folder)
    for name, seed in (("a", 0), ("b", 1)):
        ended = server.run("train", f"--workdir={name}", f"--seed={seed}", *SMALL)
        assert ended.status == 0, ended.err
    return server.run


def nats_of(folder, name):
    """The nats of each line of few.txt, by `log_prob`."""
    found = load_run(folder / name)
    lines = (folder / "few.txt").read_text().splitlines()
    length = max(map(len, lines)) + 1
    mask = np.arange(length) < np.array([[len(line) + 1] for line in lines])
    rows = np.full(mask.shape, found.codec.end)
    for row, line in zip(rows, lines, strict=True):
        row[: len(line)] = found.codec.encode(line)
    return lines, -np.asarray(grnn_jax.log_prob(found.model, found.params, rows, mask), np.float64)


def test_records_ratio_and_rank(run, folder):
    flags = ["--workdir=a", "--data=few.txt", "--other_workdir=b", "--rank=log_ratio"]
    ended = run("score", *flags)
    assert ended.status == 0, ended.err
    records = [json.loads(line) for line in ended.out.splitlines()]
    lines, nats = nats_of(folder, "a")
    other = nats_of(folder, "b")[1]
    assert [r["rank"] for r in records] == [*range(1, 8)]
    ratios = [r["log_ratio"] for r in records]
    assert ratios == sorted(ratios, reverse=True)
    for record in records:
        index = record["sequence"]
        assert record["text"] == lines[index] and record["num_events"] == len(lines[index]) + 1
        assert record["nats"] == pytest.approx(nats[index], rel=1e-5)
        assert record["log_ratio"] == pytest.approx(other[index] - nats[index], abs=1e-4)
        assert record["bits"] == pytest.approx(record["nats"] / math.log(2))
        assert record["perplexity"] == pytest.approx(math.exp(record["nats_per_event"]))
    assert "7 sequences" in ended.err


def test_events_as_csv_and_parquet_sum_to_the_score_of_evaluate(run, folder):
    flags = ["--workdir=a", "--data=few.txt", "--per_event"]
    rows = {}
    for name in ("events.csv", "events.parquet"):
        ended = run("score", *flags, f"--output={name}")
        assert ended.status == 0, ended.err
    with open(folder / "events.csv", newline="") as file:
        rows["csv"] = list(csv.DictReader(file))
    rows["parquet"] = parquet.read_table(folder / "events.parquet").to_pylist()
    assert not list(folder.glob("*.tmp"))
    lines, nats = nats_of(folder, "a")
    for found in rows.values():
        texts, sums = [""] * 7, np.zeros(7)
        for row in found:
            index = int(row["sequence"])
            assert int(row["event"]) == len(texts[index])  # The end is empty, and the last one.
            texts[index] += row["symbol"]
            sums[index] += float(row["nats"])
        assert texts == lines
        np.testing.assert_allclose(sums, nats, rtol=1e-5)
    scored = json.loads(ended.out.splitlines()[-1])
    evaluated = json.loads(run("evaluate", "--workdir=a", "--data=few.txt").out.splitlines()[-1])
    assert scored["method"] == "static"
    for name in ("num_sequences", "num_events", "step", "is_density", "data"):
        assert scored[name] == evaluated[name]
    for name in ("nats_per_event", "bits_per_event", "perplexity", "nats_per_sequence"):
        assert scored[name] == pytest.approx(evaluated[name], rel=1e-6)


def test_other_methods_stand_beside_the_static_score(run, folder):
    static = json.loads(run("evaluate", "--workdir=a").out)
    assert static["method"] == "static" and not {"dynamic", "mc_dropout"} & set(static)
    found = {}
    for method, *flags in (
        ("dynamic", "--dynamic_learning_rate=0"),
        ("mc_dropout", "--num_draws=2", "--seed=7"),
        ("temperature",),
    ):
        ended = run("evaluate", "--workdir=a", f"--method={method}", *flags)
        assert ended.status == 0, ended.err
        values = json.loads(ended.out)
        found[method] = values.pop(method)
        assert values == static
        assert found[method]["method"] == method
        assert found[method]["num_events"] == static["num_events"]
    nats = {name: values["nats_per_event"] for name, values in found.items()}
    assert nats["dynamic"] == pytest.approx(static["nats_per_event"], rel=1e-5)
    assert nats["temperature"] <= static["nats_per_event"] * (1 + 1e-6)
    assert nats["mc_dropout"] != static["nats_per_event"]
    assert found["temperature"]["fitted_on"] == "valid" and found["temperature"]["temperature"] > 0
    assert (found["mc_dropout"]["num_draws"], found["mc_dropout"]["seed"]) == (2, 7)
    assert found["dynamic"]["rms"] is True and found["dynamic"]["segment_length"] == 20


def test_a_diagnosis_is_numbers_and_a_picture(run, folder):
    ended = run("diagnose", "--workdir=a", "--data=few.txt", "--output=diagnosis")
    assert ended.status == 0, ended.err
    values = json.loads(ended.out)
    _, nats = nats_of(folder, "a")
    assert values["nats_per_event"] == pytest.approx(nats.sum() / values["num_events"], rel=1e-5)
    assert values["nats_above_entropy"] == values["nats_per_event"] - values["entropy_rate"]
    whole = json.loads((folder / "diagnosis" / "diagnosis.json").read_text())
    lengths = [len(line) + 1 for line in (folder / "few.txt").read_text().splitlines()]
    counts = [bin["num_events"] for bin in whole["by_position"]]
    assert counts == [sum(length > t for length in lengths) for t in range(max(lengths))]
    for name in ("by_entropy", "by_reliability"):
        assert sum(bin["num_events"] for bin in whole[name]) == sum(lengths)
    error = sum(
        bin["num_events"] * abs(bin["confidence"] - bin["correct"])
        for bin in whole["by_reliability"]
    )
    assert values["expected_calibration_error"] == pytest.approx(error / sum(lengths))
    assert (folder / "diagnosis" / "diagnosis.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["evaluate", "--method=dinamic"], ["--method=dinamic", "static|dynamic"]),
        (["evaluate", "--num_draws=3"], ["--num_draws", "--method=mc_dropout", "static"]),
        (["evaluate", "--seed=0"], ["--seed", "--method=mc_dropout", "static"]),
        (["evaluate", "--split=test", "--data=few.txt"], ["--split", "--data=few.txt"]),
        (["diagnose", "--split=valid", "--data=few.txt"], ["--split", "--data=few.txt"]),
        (
            ["evaluate", "--method=dynamic", "--nodynamic_rms", "--dynamic_statistics=9"],
            ["--dynamic_statistics", "--nodynamic_rms"],
        ),
        (["evaluate", "--method=mc_dropout", "--num_draws=0"], ["--num_draws", "at least 1", "0"]),
        (["evaluate", "--method=dynamic", "--dynamic_decay=2"], ["--dynamic_decay", "2.0"]),
        (["diagnose", "--data=none.txt"], ["none.txt"]),
        (["diagnose", "--output=few.txt/x"], ["--output", "few.txt/x"]),
    ],
)
def test_mistakes_of_the_other_scripts(run, flags, words):
    script, *flags = flags
    ended = run(script, "--workdir=a", *flags)
    assert (ended.status, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ["--data", "none"]),
        (["--data=none.txt"], ["none.txt"]),
        (["--data=empty.txt"], ["empty.txt", "empty"]),
        (["--data=strange.txt"], ["strange.txt", "line 2", "'Ж'"]),
        (["--data=few.txt", "--output=a.txt"], ["--output", ".parquet", "a.txt"]),
        (["--data=few.txt", "--output=no/a.csv"], ["--output", "no/a.csv"]),
        (["--data=few.txt", "--rank=log_ratio"], ["--other_workdir"]),
        (["--data=few.txt", "--other_workdir=no"], ["--other_workdir: ", "no", "train first"]),
        (["--data=few.txt", "--plot=p.png", "--plot_sequence=7"], ["--plot_sequence", "7"]),
        (["--data=few.txt", "--plot_sequence=0"], ["--plot_sequence", "--plot"]),
        (["--data=few.txt", "--each_line"], ["--each_line", "--format=text"]),
    ],
)
def test_mistakes_are_one_sentence(run, flags, words):
    ended = run("score", "--workdir=a", *flags)
    assert (ended.status, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line


def test_symbols_that_training_never_saw(run, folder):
    asked = ("--workdir=a", "--data=strange.txt")
    ended = run("score", *asked, "--unseen=skip", "--other_workdir=b")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["sequence"] == 0
    assert "1 of 2 sequences have no score" in ended.err and "'Ж' (1)" in ended.err
    assert "1 sequences, 3 events, their ends included: " in ended.err
    ended = run("score", *asked, "--unseen=rank_first", "--rank=nats", "--output=unseen.csv")
    assert ended.status == 0 and json.loads(ended.out)["num_left_out"] == 1, ended.err
    first, second = csv.DictReader((folder / "unseen.csv").read_text("utf-8").splitlines())
    assert (first["text"], first["nats"], first["unseen"]) == ("old Ж", "", "'Ж' (1)")
    assert (second["text"], second["rank"], second["unseen"]) == ("an", "2", "")
    ended = run("score", *asked, "--unseen=rank_first")
    assert ended.status == 1 and "--unseen=rank_first needs --rank" in ended.err


@pytest.mark.parametrize(("rank", "asked", "drawn"), [("", None, 0), ("nats", None, 1), ("", 3, 2)])
def test_the_most_surprising_sequence_is_drawn(monkeypatch, rank, asked, drawn):
    scores = SequenceScores(np.array([1, 2, 1]), np.array([3.0, 9.0, 1.0]))
    corpus = Corpus(np.zeros(4, np.uint8), np.array([0, 1, 3, 4]))
    nats = np.array([3.0, 4.0, 5.0, 1.0], np.float32)
    codec = SimpleNamespace(is_text=False, unit="")
    left_out = {2: LeftOut({"Z": 1}, "Z")}
    scored = ScoredFile(codec, corpus, nats, scores, np.array([0, 1, 3]), left_out)
    flags = SimpleNamespace(plot="a.png", plot_sequence=asked, rank=rank)
    seen = []
    monkeypatch.setattr(score, "FLAGS", flags)
    monkeypatch.setattr(score, "plot_line_surprise", lambda path, bits, **_: seen.append(bits))
    score.plot(scored, None, scores)
    assert seen[0].tolist() == score.event_bits(scored, drawn).tolist()
    for flags.plot_sequence, words in ((2, "'Z' (1)"), (4, "below the 4 sequences")):
        with pytest.raises(InputError, match=re.escape(words)):
            score.plot(scored, None, scores)


def test_a_file_that_fails_leaves_nothing(tmp_path):
    def broken():
        yield {"a": 1}
        raise InputError("broken")

    for suffix in writing.SUFFIXES:
        with pytest.raises(InputError, match="broken"):
            writing.write_records(broken(), tmp_path / f"x{suffix}")
    assert not list(tmp_path.iterdir())
    writing.write_records([{"a": math.inf, "b": "ü"}], tmp_path / "x.jsonl")
    assert (tmp_path / "x.jsonl").read_text("utf-8") == '{"a": null, "b": "ü"}\n'


def test_pictures_of_surprise(run, tmp_path, monkeypatch, folder):
    ended = run("score", "--workdir=a", "--data=few.txt", "--plot=surprise.png")
    assert ended.status == 0, ended.err
    assert (folder / "surprise.png").read_bytes().startswith(b"\x89PNG")
    figures, save = [], surprise.save
    monkeypatch.setattr(surprise, "save", lambda f, p: (figures.append(f), save(f, p))[1])
    symbols = ["a", "\n", "b", "$", "a", ""]
    surprise.plot_text_surprise(tmp_path / "t.png", symbols, np.array([1, 4, 1, 2, 0.5, 0]))
    axes = figures[0].axes[0]
    texts = [(text.get_text(), text.get_position()[1]) for text in axes.texts]
    assert [t for t, _ in texts] == ["a", "⏎", "b", "$", "a", "■"]
    rows = [int(y) for _, y in texts]
    assert rows == [0, 0, 1, 1, 1, 1]
    colors = [to_hex(patch.get_facecolor()) for patch in axes.patches]
    assert colors[0] == colors[2] and len(set(colors)) == 5
    darkness = [sum(patch.get_facecolor()[:3]) for patch in axes.patches]
    assert np.argsort(darkness, kind="stable").tolist() == [1, 3, 0, 2, 4, 5]
    surprise.plot_line_surprise(tmp_path / "l.png", np.arange(5.0), other=np.ones(5))
    lines = figures[1].axes[0].lines
    np.testing.assert_array_equal(lines[0].get_ydata(), np.arange(5.0))
    np.testing.assert_array_equal(lines[2].get_ydata(), np.ones(5))
