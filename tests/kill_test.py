"""A run killed at ten random moments ends with the parameters of the run that was not."""

import os
import random
import signal
import time

import jax
import numpy as np
import pytest
from fork_server import ForkServer

from grnn_jax import training_loop
from grnn_jax.config import from_json
from grnn_jax.monitor import read_metrics
from grnn_jax.signals import Signals
from grnn_jax.workdir import load_run

NUM_STEPS = 60
FLAGS = (
    "--data=lines.txt", "--format=lines", "--hidden_size=8", "--batch_size=4",
    "--eval_batch_size=4", "--sequence_length=12", "--schedule=constant",
    f"--num_steps={NUM_STEPS}", "--log_every=1", "--eval_every=3", "--checkpoint_every=1",
    "--valid_fraction=0.1", "--dropout=0.2", "--noshow_sample",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    words = np.array(["an", "old", "cat", "sat", "there"])
    lines = [" ".join(rng.choice(words, 4)) + "\n" for _ in range(100)]
    (tmp_path / "lines.txt").write_text("".join(lines))
    return tmp_path


def writing(workdir) -> bool:
    """Whether a checkpoint is being written at this moment."""
    checkpoints = workdir / "checkpoints"
    return any("tmp" in name for kind in ("latest", "best") for name in listing(checkpoints / kind))


def listing(path) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def newest(workdir) -> int:
    steps = [int(n) for n in listing(workdir / "checkpoints" / "latest") if n.isdigit()]
    return max(steps, default=-1)


def kill_at_random(server, workdir, rng, kind: str) -> tuple[int, bool]:
    """Starts the run and kills it: while it starts, between steps, or in the middle of a write."""
    before = newest(workdir)
    started = server.start("train", f"--workdir={workdir.name}", *FLAGS)
    deadline = time.monotonic() + 60
    if kind == "start":
        time.sleep(rng.uniform(0.2, 1.2))
    else:
        while newest(workdir) <= before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.2))
    while kind == "write" and not writing(workdir) and time.monotonic() < deadline:
        pass
    os.kill(started.process, signal.SIGKILL)
    return server.wait(started).status, writing(workdir)


def whole_state(workdir) -> dict:
    """What the run would go on from: every array, the data position and the counters."""
    loop = training_loop.TrainingLoop(
        from_json((workdir / "config.json").read_text()), workdir, Signals()
    )
    state = loop.state.replace(key=jax.random.key_data(loop.state.key))
    found = {"data": loop.iterator.get_state(), "progress": vars(loop.progress)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        found[jax.tree_util.keystr(path)] = np.asarray(leaf)
    loop.close()
    return found


def assert_same_state(a: dict, b: dict):
    assert a.keys() == b.keys() and any(".opt_state" in name for name in a)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_killed_run_equals_the_uninterrupted_one(folder, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # the same bits in the code that users get
    rng = random.Random(0)
    server = ForkServer(folder)
    reference, workdir = folder / "reference", folder / "killed"
    assert server.run("train", "--workdir=reference", *FLAGS).status == 0
    cut_short, steps = 0, []
    for kind in ("step", "write", "start", "write", "step") * 2:
        status, was_writing = kill_at_random(server, workdir, rng, kind)
        assert status == -signal.SIGKILL
        cut_short += was_writing
        steps.append(newest(workdir))
    ended = server.run("train", "--workdir=killed", *FLAGS)
    assert ended.status == 0, ended.err
    # The kills hit the run before its end, at several steps; how many fell into the middle of a
    # write depends on the machine.
    assert min(steps) < NUM_STEPS and len(set(steps)) >= 3, (steps, cut_short)
    assert_same_state(whole_state(workdir), whole_state(reference))
    for checkpoint in ("latest", "best"):
        a, b = load_run(workdir, checkpoint), load_run(reference, checkpoint)
        assert a.step == b.step
        for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
            np.testing.assert_array_equal(x, y)
    clocks = ("events_per_second", "seconds_per_step")
    records = [
        [{k: v for k, v in r.items() if k not in clocks} for r in read_metrics(path)]
        for path in (workdir, reference)
    ]
    assert records[0] == records[1]
    assert not any("tmp" in name for name in listing(workdir / "checkpoints" / "latest"))
