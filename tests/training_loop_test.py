"""Calls of several training steps, and what is on its way while they run."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest

from grnn_jax import device_prefetch, training_loop
from grnn_jax.config import Config
from grnn_jax.monitor import read_metrics
from grnn_jax.runner import RunError, train
from grnn_jax.signals import Signals

# Everything that a step carries to the next, and periods that no call of 7 or 8 steps divides.
CONFIG = Config(
    format="lines", cell="gru", hidden_size=6, batch_size=2, sequence_length=8, eval_batch_size=2,
    num_steps=50, learning_rate=0.02, dropout=0.2, accumulate_steps=3, ema_decay=0.9,
    plateau_patience=1, valid_fraction=0.1, log_every=5, eval_every=20, checkpoint_every=18,
)  # fmt: skip
CLOCKS = ("events_per_second", "seconds_per_step")


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing more is written."""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "lines.txt"
    rng = np.random.default_rng(0)
    words = np.array(["an", "old", "cat", "sat"])
    path.write_text("".join(" ".join(rng.choice(words, 3)) + "\n" for _ in range(40)))
    return dataclasses.replace(CONFIG, data=str(path))


@pytest.fixture(scope="module")
def runs(config, tmp_path_factory):
    """The workdir of an uninterrupted run with so many steps a call."""
    folder, done = tmp_path_factory.mktemp("runs"), {}

    def run(steps):
        if steps not in done:
            done[steps] = folder / str(steps)
            train(dataclasses.replace(config, steps_per_call=steps), done[steps])
        return done[steps]

    return run


def loop_of(config, workdir):
    return training_loop.TrainingLoop(config, workdir, Signals())


def state_of(config, workdir):
    loop = loop_of(config, workdir)
    state = loop.state.replace(key=jax.random.key_data(loop.state.key))
    found = {jax.tree_util.keystr(p): np.asarray(x) for p, x in jax.tree.leaves_with_path(state)}
    found |= {"data": loop.iterator.get_state(), "progress": dataclasses.asdict(loop.progress)}
    loop.close()
    return found


def records(workdir):
    return [{k: v for k, v in r.items() if k not in CLOCKS} for r in read_metrics(workdir)]


def assert_equal(config, workdir, reference):
    found, expected = (state_of(config, path) for path in (workdir, reference))
    assert found.keys() == expected.keys() and found[".step"] == 50
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert records(workdir) == records(reference)


@pytest.mark.optimized
@pytest.mark.parametrize("steps", [8, 7])
def test_calls_of_several_steps_compute_what_single_steps_do(config, runs, steps):
    found, expected = records(runs(steps)), records(runs(1))
    assert [r["step"] for r in expected if r["kind"] == "train"] == list(range(5, 51, 5))
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys() and a["kind"] == b["kind"]
        for name in a.keys() - {"kind"}:
            assert a[name] == pytest.approx(b[name], rel=1e-5), (a["step"], name)
    assert all(r["seconds_per_step"] > 0 for r in read_metrics(runs(steps)) if r["kind"] == "train")
    states = [state_of(config, runs(number)) for number in (steps, 1)]
    assert states[0]["data"] == states[1]["data"]
    for name in states[1]:
        if name.startswith("."):
            np.testing.assert_allclose(states[0][name], states[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.optimized
def test_stopped_and_killed_in_the_middle_of_calls_it_resumes_bit_for_bit(
    config, runs, tmp_path, monkeypatch
):
    config = dataclasses.replace(config, steps_per_call=7)
    for number, sent, expected in ((signal.SIGUSR1, 7, 7), (signal.SIGTERM, 18, 18)):
        with monkeypatch.context() as patch:
            prepare = training_loop.DevicePrefetch.prepare

            def prepare_and_signal(self, steps, number=number, sent=sent, prepare=prepare):
                if self.position["next_index"] == sent:  # The call before was sent off, and runs.
                    os.kill(os.getpid(), number)
                prepare(self, steps)

            patch.setattr(training_loop.DevicePrefetch, "prepare", prepare_and_signal)
            result = train(config, tmp_path)
        assert (result.step, result.signal, result.is_done) == (expected, number, False)
    with monkeypatch.context() as patch:
        read = training_loop.TrainingLoop._absorb

        def read_or_die(self, pending):
            if self.step > 40:  # Steps that were sent off; the last checkpoint is that of step 36.
                raise Killed
            read(self, pending)

        patch.setattr(training_loop.TrainingLoop, "_absorb", read_or_die)
        with pytest.raises(Killed):
            train(config, tmp_path)
    assert train(config, tmp_path).step == 50
    assert_equal(config, tmp_path, runs(7))


def test_a_step_that_is_not_finite_is_named_in_the_middle_of_a_call(config, tmp_path):
    wild = dataclasses.replace(
        config, optimizer="sgd", learning_rate=1e37, clip_norm=0.0, momentum=0.0, log_every=1,
        accumulate_steps=1, plateau_patience=0, eval_every=0, checkpoint_every=0, steps_per_call=8,
    )  # fmt: skip
    with pytest.raises(RunError, match=r"^step [2-7] is not finite \(loss (inf|nan)") as caught:
        train(wild, tmp_path)
    # Every step before it has its line, with a number; none after it has.
    nats = [record["nats_per_event"] for record in records(tmp_path)]
    assert len(nats) == int(str(caught.value)[5]) - 1 and None not in nats


def test_max_minutes_counts_the_calls_that_are_yet_to_run(config, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(training_loop.time, "perf_counter", lambda: now[0])
    read = training_loop.jax.device_get

    def slow(values):
        now[0] += 60.0
        return read(values)

    monkeypatch.setattr(training_loop.jax, "device_get", slow)
    limited = dataclasses.replace(
        config, steps_per_call=7, max_minutes=10.0, plateau_patience=0, eval_every=0,
        valid_fraction=0.0,
    )  # fmt: skip
    result = train(limited, tmp_path)
    assert 7 <= result.step < 50 and "stopped by max_minutes=10" in result.reason
    assert now[0] <= 600


@pytest.mark.parametrize("steps", [1, 4])
def test_the_next_batches_are_sent_before_the_host_waits(config, tmp_path, monkeypatch, steps):
    config = dataclasses.replace(
        config, steps_per_call=steps, log_every=1, eval_every=0, checkpoint_every=0,
        plateau_patience=0,
    )  # fmt: skip
    loop = loop_of(config, tmp_path)
    order = []

    def recorded(name, function):
        def call(*arguments, **options):
            order.append(name)
            return function(*arguments, **options)

        return call

    put = recorded("put", device_prefetch.shard_batch)
    monkeypatch.setattr(device_prefetch, "shard_batch", put)
    monkeypatch.setattr(training_loop.jax, "device_get", recorded("wait", jax.device_get))
    loop.run_steps = recorded("run", loop.run_steps)
    loop.advance()
    assert order == ["put", "run", "put"]
    order.clear()
    # Nothing goes to the devices but what is put there, and no step waits for a line of metrics.
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            loop.advance()
    assert order == ["run", "put", "wait"] * 3
    assert loop.prefetch.position["next_index"] == loop.step == 4 * steps
    assert loop.iterator.get_state()["next_index"] == 5 * steps
    loop.flush()
    assert order[9:] == ["wait"]
    loop.close()
