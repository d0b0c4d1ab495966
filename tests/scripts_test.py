"""The scripts as a user runs them: what they print, how they fail, how they stop and go on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from fork_server import SCRIPTS, ForkServer, environment

from grnn_jax.monitor import read_metrics

SMALL = (
    "--hidden_size=8", "--batch_size=4", "--eval_batch_size=4", "--sequence_length=16",
    "--schedule=constant", "--num_steps=4", "--log_every=2", "--eval_every=2",
    "--checkpoint_every=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    rng = np.random.default_rng(0)
    words = np.array(["an", "old", "cat", "säße", "there"])
    lines = [" ".join(rng.choice(words, 4)) + "\n" for _ in range(100)]
    (folder / "text.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "short.txt").write_text("an old cat\n")
    (folder / "empty.txt").write_text("")
    (folder / "latin.txt").write_bytes("ein\nsäße\n".encode("latin-1"))
    (folder / "strange.txt").write_text("an old Ж cat\n" * 9, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    server = ForkServer(folder)
    return server.run


@pytest.fixture(scope="module")
def text_run(run, folder):
    ended = run("train", "--workdir=text", "--data=text.txt", *SMALL)
    assert ended.status == 0, ended.err
    return ended


@pytest.fixture(scope="module")
def lines_run(run, folder):
    ended = run("train", "--workdir=lines", "--data=text.txt", "--format=lines", *SMALL)
    assert ended.status == 0, ended.err
    return ended


def test_train_prints_a_sample_and_leaves_everything_in_the_workdir(text_run, folder):
    assert len(text_run.out) == 601
    assert "step 4/4" in text_run.err and "nats" in text_run.err and "best" in text_run.err
    assert "orbax" not in text_run.err
    names = {path.name for path in (folder / "text").iterdir()}
    assert names == {
        "checkpoints", "codec.json", "config.json", "data.json", "flags.txt",
        "learning_curve.png", "metrics.jsonl", "tensorboard", "tokens",
    }  # fmt: skip
    assert (folder / "text" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    # A path given on the command line holds from everywhere.
    config = json.loads((folder / "text" / "config.json").read_text())
    assert config["data"] == str(folder / "text.txt")


def test_train_again_has_nothing_to_do(run, text_run):
    ended = run("train", "--workdir=text", "--data=text.txt", "--noshow_sample", *SMALL)
    assert (ended.status, ended.out) == (0, "")
    assert "going on after step 4" in ended.err


def test_the_last_line_of_evaluate_is_json(run, text_run, folder):
    for flags, split in ((["--split=test"], "test"), ([f"--data={folder}/short.txt"], "data")):
        ended = run("evaluate", "--workdir=text", *flags)
        assert ended.status == 0, ended.err
        values = json.loads(ended.out.splitlines()[-1])
        assert values["split"] == split and values["step"] == 4
        assert {"num_sequences", "nats_per_event", "bits_per_event", "nats_per_sequence"} <= set(
            values
        )
        assert values["dtype"] == "float32" and "were computed in float32\n" in ended.err
    assert values["num_events"] == len("an old cat\n")


def test_sample_writes_samples_and_nothing_else(run, text_run, folder):
    ended = run("sample", "--workdir=text", "--length=40", "--prefix=säße ", "--seed=3")
    assert (ended.status, len(ended.out)) == (0, 45)
    assert ended.out.startswith("säße ")
    # The first of three samples is the one sample, streamed or not.
    flags = ["--workdir=text", "--length=40", "--prefix=säße ", "--seed=3", "--num_samples=3"]
    three = run("sample", *flags, "--output=out_file.txt")
    assert (three.status, three.out) == (0, "")
    text = (folder / "out_file.txt").read_text(encoding="utf-8")
    assert text.startswith(ended.out + "\n\nsäße ")
    greedy = run("sample", "--workdir=text", "--length=9", "--temperature=0")
    flags = ["--top_k=1", "--seed=8", "--dtype=tensorfloat32"]  # On a CPU the same.
    top = run("sample", "--workdir=text", "--length=9", *flags)
    assert "computed in tensorfloat32; the run was trained in float32" in top.err
    nucleus = run("sample", "--workdir=text", "--length=9", "--top_p=1e-6", "--seed=9")
    assert greedy.out == top.out == nucleus.out


def test_samples_of_lines_and_their_log_probabilities(run, lines_run):
    ended = run("sample", "--workdir=lines", "--num_samples=4", "--length=30")
    assert ended.status == 0 and ended.out.count("\n") == 4
    flags = ["--workdir=lines", "--num_samples=4", "--length=30", "--log_probs"]
    records = [json.loads(line) for line in run("sample", *flags).out.splitlines()]
    assert [record["text"] for record in records] == ended.out.splitlines()
    assert all(r["nats"] > 0 and 0 < r["num_events"] <= 30 for r in records)
    one = run("sample", "--workdir=lines", "--length=30")
    assert one.out == ended.out.splitlines()[0] + "\n"
    assert len(lines_run.out.splitlines()) == 5


def test_a_killed_request_equals_the_uninterrupted_one(folder, lines_run):
    server = ForkServer(folder)
    flags = ["--workdir=lines", "--num_samples=30000", "--length=5", "--log_probs"]
    whole = server.run("sample", *flags, "--output=whole.jsonl")
    assert whole.status == 0, whole.err
    lines = (folder / "whole.jsonl").read_text(encoding="utf-8").splitlines()
    different = len({json.loads(line)["text"] for line in lines})
    assert len(lines) == 30000 and 1 < different < 30000
    counts = f"30,000 samples, {different:,} different ones, {30000 - different:,} duplicates"
    assert counts in whole.err
    progress = folder / "killed.jsonl.progress"
    done = server.kill_partway(progress, "sample", *flags, "--output=killed.jsonl")
    assert 0 < done < 30000
    other = server.run("sample", *flags, "--output=killed.jsonl", "--seed=1")
    assert other.status == 1 and "seed was 0; is 1" in other.err
    ended = server.run("sample", *flags, "--output=killed.jsonl")
    assert ended.status == 0 and "going on after" in ended.err and counts in ended.err
    assert (folder / "killed.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
    assert not list(folder.glob("killed.jsonl.*"))


def test_bytes_stream_as_whole_characters(run, folder):
    flags = ["--workdir=bytes", "--data=text.txt", "--codec=bytes", *SMALL]
    assert run("train", *flags, "--noshow_sample").status == 0
    ended = run("sample", "--workdir=bytes", "--prefix=säße", "--length=5")
    assert ended.status == 0 and ended.out.startswith("säße")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--data=none.txt"], ["none.txt"]),
        (["train", "--data=empty.txt"], ["empty.txt", "empty"]),
        (["train", "--data=latin.txt"], ["latin.txt", "line 2", "UTF-8"]),
        (["train", "--data=short.txt", "--sequence_length=64"], ["sequence_length=64"]),
        (["train", "--data=text.txt", "--hidden_size=-3"], ["--hidden_size", "at least 1", "-3"]),
        (["train", "--cell=transformer"], ["--cell=transformer", "elman|gru|lstm"]),
        (["train", "--format=csv"], ["--format=csv", "text|lines"]),
        (["train", "--hiden_size=3"], ["hiden_size", "hidden_size"]),
        (["train", "train.txt"], ["'train.txt'"]),
        (["train", "--num_processes=2"], ["--coordinator_address"]),
        (["train", "--coordinator_address=foo"], ["--coordinator_address", "host:port", "'foo'"]),
        (["train", "--seed=9223372036854775808"], ["--seed", "4294967295"]),
        (["sample", "--workdir=text", "--seed=9223372036854775808"], ["--seed", "4294967295"]),
        (["train", "--num_cpu_devices=-1"], ["--num_cpu_devices", "-1"]),
        (["train", "--data=text.txt", "--num_cpu_devices=3", *SMALL], ["--batch_size", "3", "4"]),
        (["train", "--workdir=text", "--data=text.txt", *SMALL, "--cell=gru"],
         ["--cell was 'lstm', is 'gru'"]),
        (["train", "--flagfile=none.flags"], ["none.flags"]),
        (["evaluate", "--workdir=nowhere"], ["nowhere", "train first"]),
        (["evaluate", "--workdir=text", "--data=none.txt"], ["none.txt"]),
        (["evaluate", "--workdir=text", "--data=strange.txt"], ["strange.txt", "line 1", "'Ж'"]),
        (["evaluate", "--workdir=text", "--data=empty.txt"], ["empty.txt"]),
        (["evaluate", "--workdir=text", "--split=dev"], ["--split=dev", "train|valid|test"]),
        (["sample", "--workdir=text", "--prefix=Ж"], ["--prefix", "'Ж'"]),
        (["sample", "--workdir=text", "--length=-1"], ["--length", "at least 1", "-1"]),
        (["sample", "--workdir=text", "--temperature=-1"], ["--temperature", "-1"]),
        (["sample", "--workdir=text", "--top_p=0"], ["--top_p", "0"]),
        (["sample", "--workdir=text", "--top_k=-2"], ["--top_k", "-2"]),
        (["sample", "--workdir=text", "--num_samples=0"], ["--num_samples", "0"]),
        (["sample", "--workdir=text", "--output=no/such/file"], ["--output", "no/such/file"]),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(run, text_run, arguments, words, request):
    script, *flags = arguments
    if script == "train" and not any(flag.startswith("--workdir") for flag in flags):
        flags.append("--workdir=mistake")
    ended = run(script, *flags)
    assert ended.status == 1
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), ended.err
    for word in words:
        assert word in lines[0]


def test_a_workdir_alone_goes_on_and_its_flags_make_the_same_run(run, lines_run, folder):
    shutil.copytree(folder / "lines", folder / "longer")
    ended = run("train", "--workdir=longer", "--extend_to=5", "--noshow_sample", "--seed=0")
    assert ended.status == 0, ended.err
    assert "going on after step 4" in ended.err and "from step 4 on a new schedule" in ended.err
    config = json.loads((folder / "longer" / "config.json").read_text())
    assert (config["num_steps"], config["extend_to"], config["format"]) == (4, 5, "lines")
    ended = run("train", "--workdir=longer", "--hidden_size=16", "--noshow_sample")
    assert ended.status == 1 and "--hidden_size was 8, is 16)" in ended.err
    ended = run("train", "--flagfile=longer/flags.txt", "--workdir=again", "--noshow_sample")
    assert ended.status == 0, ended.err
    curves = [
        [(r["kind"], r["step"], r["nats_per_event"]) for r in read_metrics(folder / name)]
        for name in ("lines", "again")
    ]
    assert curves[0] == curves[1]


def test_help_can_be_read(run):
    ended = run("train", "--help")
    assert ended.status == 0
    assert "--hidden_size=integer\n        Units of a recurrent layer" in ended.out
    assert "--cell=elman|gru|lstm" in ended.out
    assert all(len(line) <= 120 for line in ended.out.splitlines())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(folder, text_run, run, number):
    flags = ["--data=text.txt", *SMALL, "--num_steps=100000", "--checkpoint_every=0"]
    flags += ["--eval_every=0", f"--workdir=signal{number}"]
    server = ForkServer(folder)
    started = server.start("train", *flags)
    metrics = folder / f"signal{number}" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(started.process, number)
    status, out, err = server.wait(started)
    assert status == 128 + number, err
    assert "Traceback" not in err and out == ""
    assert f"stopped by {signal.Signals(number).name}" in err and "same command" in err
    assert (folder / f"signal{number}" / "learning_curve.png").exists()
    step = int(err.rsplit("after step ", 1)[1].split(";")[0])
    last = [*flags, f"--num_steps={step + 2}", "--noshow_sample"]
    ended = run("train", *last)
    assert ended.status == 0, ended.err
    assert f"going on after step {step}" in ended.err


def test_a_disk_without_room_ends_the_run_with_one_sentence(folder, text_run):
    flags = ["--data=text.txt", "--workdir=full", *SMALL, "--hidden_size=64"]
    command = " ".join([sys.executable, str(SCRIPTS / "train.py"), *flags])
    ended = subprocess.run(
        ["bash", "-c", f"ulimit -f 16; exec {command}"],  # No file may grow beyond 16 KiB.
        capture_output=True,
        text=True,
        env=environment(folder / "cache") | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        cwd=folder,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: could not write a checkpoint") and "File too large" in last
    assert "make room" in last and "same command" in last


def test_help_without_a_reader(folder):
    command = f"{sys.executable} {SCRIPTS / 'train.py'} --help | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment(folder / "cache")
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_unreadable_checkpoint_costs_steps(run, folder, text_run):
    flags = ["--workdir=unreadable", "--data=text.txt", "--noshow_sample", *SMALL]
    assert run("train", *flags).status == 0
    latest = folder / "unreadable" / "checkpoints" / "latest"
    assert sorted(path.name for path in latest.iterdir()) == ["2", "4"]
    shutil.rmtree(latest / "4" / "state")
    ended = run("train", *flags)
    assert ended.status == 0, ended.err
    assert "step 4" in ended.err and "unreadable" in ended.err
    assert "going on after step 2" in ended.err and "step 4/4" in ended.err


def test_evaluate_needs_the_workdir_alone(run, folder, text_run):
    data = folder / "moved.txt"
    shutil.copy(folder / "text.txt", data)
    flags = ["--workdir=alone", f"--data={data}", "--noshow_sample", *SMALL]
    assert run("train", *flags).status == 0
    data.unlink()
    assert run("evaluate", "--workdir=alone", "--split=test").status == 0
    shutil.rmtree(folder / "alone" / "tokens")
    ended = run("evaluate", "--workdir=alone", "--split=test")
    assert ended.status == 1 and ended.err.startswith("error: --data: there is no file")


@pytest.mark.parametrize(
    ("raised", "words"),
    [("MemoryError()", "--batch_size"), ("InputError('no')", "error: no"), ("", "matplotlib")],
)
def test_how_train_ends(run, folder, text_run, raised, words):
    # matplotlib cannot be imported, and training fails.
    picture = folder / "text" / "learning_curve.png"
    before = picture.stat().st_mtime_ns
    lines = ["import runpy, sys", "from grnn_jax import runner", "from grnn_jax.errors import *"]
    if raised:
        lines += ["def train(*_):", f"  raise {raised}", "runner.train = train"]
    lines += ["for name in [n for n in sys.modules if n.split('.')[0] == 'matplotlib']:"]
    lines += ["  del sys.modules[name]", "sys.modules['matplotlib'] = None"]
    script = str(SCRIPTS / "train.py")
    lines += [f"sys.argv[0] = {script!r}", f"runpy.run_path({script!r}, None, '__main__')"]
    (folder / "without_matplotlib.py").write_text("\n".join(lines))
    flags = ["--workdir=text", "--data=text.txt", "--noshow_sample", *SMALL]
    ended = run(str(folder / "without_matplotlib"), *flags)
    assert ended.status == (1 if raised else 0), ended.err
    assert "Traceback" not in ended.err and words in ended.err
    assert ("learning curve" in ended.err) == ("InputError" not in raised)
    assert picture.stat().st_mtime_ns == before
