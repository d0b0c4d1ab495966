"""Several devices, and several processes, compute what one does."""

import json
import os
import signal
import socket
import time

import jax
import numpy as np
import pytest
from fork_server import ForkServer, Started

from grnn_jax.monitor import read_metrics
from grnn_jax.workdir import load_run

FLAGS = (
    "--data=lines.txt", "--format=lines", "--hidden_size=8", "--batch_size=8",
    "--eval_batch_size=8", "--sequence_length=12", "--schedule=constant", "--num_steps=6",
    "--optimizer=sgd", "--learning_rate=0.5", "--log_every=1", "--eval_every=3",
    "--checkpoint_every=3", "--valid_fraction=0.1", "--ema_decay=0.9", "--dropout=0.2",
    "--noshow_sample",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    rng = np.random.default_rng(0)
    words = np.array(["an", "old", "cat", "sat", "there"])
    lines = [" ".join(rng.choice(words, rng.integers(1, 6))) + "\n" for _ in range(150)]
    (folder / "lines.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    return ForkServer(folder)


@pytest.fixture(scope="module")
def run(server):
    return server.run


@pytest.fixture(scope="module")
def one(run, folder):
    ended = run("train", "--workdir=one", *FLAGS)
    assert ended.status == 0, ended.err
    return folder / "one"


def assert_same_run(workdir, reference):
    for found, expected in zip(read_metrics(workdir), read_metrics(reference), strict=True):
        for name in ("kind", "step", "num_events"):
            assert found[name] == expected[name]
        assert found["nats_per_event"] == pytest.approx(expected["nats_per_event"], rel=1e-5)
    a, b = load_run(workdir, "latest").params, load_run(reference, "latest").params
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_eight_devices_equal_one(run, one, folder):
    ended = run("train", "--workdir=eight", "--num_cpu_devices=8", "--steps_per_call=4", *FLAGS)
    assert ended.status == 0, ended.err
    assert "on 8 cpu device(s)" in ended.err
    assert_same_run(folder / "eight", one)
    # What eight devices wrote, two can evaluate, and one can sample from.
    both = [
        run("evaluate", f"--workdir={name}", f"--num_cpu_devices={devices}", "--split=test")
        for name, devices in (("eight", 2), ("one", 1))
    ]
    scores = [json.loads(ended.out)["nats_per_event"] for ended in both]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    assert run("sample", "--workdir=eight", "--length=9").status == 0
    flags = ["--workdir=eight", "--num_samples=7", "--length=9", "--seed=3"]
    many, alone = (run("sample", *flags, f"--num_cpu_devices={n}") for n in (4, 1))
    assert many.status == 0 and many.out.count("\n") == 7, many.err
    assert many.out == alone.out


@pytest.mark.parametrize("devices", [2, 8])
def test_an_orthogonal_matrix_of_ordinary_size_on_several_devices(run, devices):
    # Batched decompositions waited for ever, on several devices from 64 units on.
    flags = [f for f in FLAGS if "hidden_size" not in f and "num_steps" not in f]
    ended = run(
        "train", f"--workdir=wide{devices}", f"--num_cpu_devices={devices}", "--hidden_size=128",
        "--num_heads=2", "--num_steps=1", *flags,
    )  # fmt: skip
    assert ended.status == 0, ended.err


def test_a_run_goes_on_with_another_number_of_devices(run, one, folder):
    flags = [flag for flag in FLAGS if "num_steps" not in flag]
    ended = run("train", "--workdir=moved", "--num_cpu_devices=4", "--num_steps=4", *flags)
    assert ended.status == 0, ended.err
    ended = run("train", "--workdir=moved", *FLAGS)
    assert ended.status == 0 and "going on after step 4" in ended.err, ended.err
    moved = [r for r in read_metrics(folder / "moved") if r["kind"] == "train"]
    expected = [r for r in read_metrics(one) if r["kind"] == "train"]
    for a, b in zip(moved, expected, strict=True):
        assert a["nats_per_event"] == pytest.approx(b["nats_per_event"], rel=1e-5)


def start_processes(server, *flags: str) -> list[Started]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags += (f"--coordinator_address=localhost:{port}", "--num_processes=2")
    return [server.start("train", *FLAGS, *flags, f"--process_id={i}") for i in range(2)]


def finish(server, processes: list[Started], status: int) -> list[str]:
    ended = [server.wait(process) for process in processes]
    assert [process.status for process in ended] == [status, status], ended
    return [process.err for process in ended]


def test_two_processes_equal_one(folder, one, server):
    processes = start_processes(server, "--workdir=two", "--steps_per_call=4")
    first, second = finish(server, processes, 0)
    assert "step 6/6" in first and "step 6/6" not in second
    assert_same_run(folder / "two", one)
    alone = server.run("train", "--workdir=two", *FLAGS)
    assert alone.status == 1 and "--num_processes must be 2" in alone.err


def test_a_signal_to_one_process_stops_both_and_both_go_on(folder, server):
    flags = ["--workdir=signalled", "--eval_every=0", "--checkpoint_every=0"]
    processes = start_processes(server, *flags, "--num_steps=100000")
    metrics = folder / "signalled" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(processes[1].process, signal.SIGTERM)
    err = finish(server, processes, 128 + signal.SIGTERM)[0]
    step = int(err.rsplit("after step ", 1)[1].split(";")[0])
    processes = start_processes(server, *flags, f"--num_steps={step + 2}")
    err = finish(server, processes, 0)[0]
    assert f"going on after step {step}" in err
