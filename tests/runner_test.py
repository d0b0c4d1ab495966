"""The loop: resumed runs, signals, what stops a run, and exact evaluation."""

import dataclasses
import functools
import json
import math
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

import grnn_jax
from grnn_jax import training_loop
from grnn_jax.config import Config
from grnn_jax.data import load_splits
from grnn_jax.errors import InputError
from grnn_jax.evaluation import evaluate
from grnn_jax.monitor import Monitor, read_metrics
from grnn_jax.optimizer import make_schedule
from grnn_jax.runner import RunError, train
from grnn_jax.signals import Signals
from grnn_jax.workdir import data_settings, load_run, workdir_lock

# A bit of everything that has a state.
CONFIG = Config(
    format="lines",
    hidden_size=8,
    num_layers=2,
    batch_size=4,
    sequence_length=16,
    eval_batch_size=4,
    num_steps=12,
    schedule="constant",
    learning_rate=0.01,
    dropout=0.2,
    recurrent_dropout=0.1,
    accumulate_steps=2,
    ema_decay=0.9,
    plateau_patience=1,
    valid_fraction=0.1,
    log_every=2,
    eval_every=3,
    checkpoint_every=4,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "lines.txt"
    rng = np.random.default_rng(0)
    words = np.array(["an", "old", "cat", "sat", "there"])
    path.write_text("".join(" ".join(rng.choice(words, 4)) + "\n" for _ in range(120)))
    return str(path)


@pytest.fixture(scope="module")
def config(data):
    return dataclasses.replace(CONFIG, data=data)


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return train(config, workdir), workdir


def stop_at(monkeypatch, step: int, number: int = signal.SIGTERM):
    """Sends a signal to this process when a step is done."""
    advance = Monitor.advance

    def advance_and_kill(self, done):
        advance(self, done)
        if done == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Monitor, "advance", advance_and_kill)


def everything(config: Config, workdir: Path) -> dict:
    """What a resumed process would go on from, as NumPy and JSON values."""
    loop = training_loop.TrainingLoop(config, Path(workdir), Signals())
    state = loop.state.replace(key=jax.random.key_data(loop.state.key))
    leaves = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
    found = {"progress": dataclasses.asdict(loop.progress), "data": loop.iterator.get_state()}
    loop.close()
    return found | leaves


def metrics(workdir) -> list[dict]:
    clocks = ("events_per_second", "seconds_per_step")
    return [{k: v for k, v in r.items() if k not in clocks} for r in read_metrics(workdir)]


def assert_same(a: dict, b: dict):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.optimized
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    config, uninterrupted, tmp_path, monkeypatch
):
    expected, reference = uninterrupted
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        first = train(config, tmp_path)
    assert (first.step, first.signal) == (5, signal.SIGTERM)
    assert "SIGTERM" in first.reason and "same command" in first.reason
    with monkeypatch.context() as patch:
        stop_at(patch, 9, signal.SIGINT)
        second = train(config, tmp_path)
    assert (second.step, second.signal) == (9, signal.SIGINT)
    third = train(config, tmp_path)
    assert third == expected
    assert_same(everything(config, tmp_path), everything(config, reference))
    assert metrics(tmp_path) == metrics(reference)
    assert evaluate(tmp_path)["nats_per_event"] == evaluate(reference)["nats_per_event"]
    # The handlers of this process are back.
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


def test_a_complex_state_and_zoneout_resume_bit_for_bit(config, tmp_path):
    config = dataclasses.replace(
        config, cell="lru", num_layers=1, recurrent_dropout=0.0, zoneout=0.2, num_steps=6,
        eval_every=6, checkpoint_every=3, plateau_patience=0,
    )  # fmt: skip
    stopped = tmp_path / "q[lr=3]" / "a[x]*"  # A path that reads as a pattern.
    train(dataclasses.replace(config, num_steps=3), stopped)
    train(config, stopped)
    train(config, tmp_path / "b")
    found, expected = everything(config, stopped), everything(config, tmp_path / "b")
    found.pop("progress"), expected.pop("progress")  # One was evaluated after step 3 too.
    assert_same(found, expected)
    (carry,) = [leaf for leaf in found.values() if getattr(leaf, "dtype", None) == np.complex64]
    assert (carry.imag != 0).all()
    run = load_run(stopped)
    samples = grnn_jax.sample(run.model, run.params, jax.random.key(0), 2, 5)
    assert np.isfinite(samples.log_probs).all()


def test_a_signal_during_an_evaluation_gives_it_up_and_it_is_made_up_for(
    config, uninterrupted, tmp_path, monkeypatch
):
    expected, reference = uninterrupted
    for step in (6, 12):
        with monkeypatch.context() as patch:
            make_evaluate = training_loop.make_evaluate

            def spoiled(*args, step=step, make=make_evaluate):
                evaluate, calls = make(*args), []

                def evaluate_and_stop(params, corpus, stop):
                    calls.append(stop)
                    if len(calls) == (2 if step == 6 else 3):
                        os.kill(os.getpid(), signal.SIGTERM)
                    return evaluate(params, corpus, stop)

                return evaluate_and_stop

            patch.setattr(training_loop, "make_evaluate", spoiled)
            assert train(config, tmp_path)[0::4] == (step, signal.SIGTERM)
    assert train(config, tmp_path) == train(config, tmp_path) == expected
    assert metrics(tmp_path) == metrics(reference)
    final, target = (everything(config, path) for path in (tmp_path, reference))
    final.pop("progress"), target.pop("progress")
    assert_same(final, target)
    assert load_run(tmp_path).step == expected.best_step


@pytest.mark.optimized
def test_a_damaged_checkpoint_costs_steps_but_changes_nothing(config, uninterrupted, tmp_path):
    expected, reference = uninterrupted
    shutil.copytree(reference, tmp_path / "w")
    latest = tmp_path / "w" / "checkpoints" / "latest"
    assert sorted(path.name for path in latest.iterdir()) == ["12", "9"]
    shutil.rmtree(latest / "12" / "state")
    assert train(config, tmp_path / "w") == expected
    assert_same(everything(config, tmp_path / "w"), everything(config, reference))
    assert metrics(tmp_path / "w") == metrics(reference)


def test_a_best_checkpoint_that_was_not_written_is_made_good(
    config, uninterrupted, tmp_path, monkeypatch
):
    result, reference = uninterrupted
    shutil.copytree(reference, tmp_path / "w")
    best = tmp_path / "w" / "checkpoints" / "best"
    assert [path.name for path in best.iterdir()] == [str(result.best_step)] == ["12"]
    shutil.rmtree(best / "12")
    stop_at(monkeypatch, 13)
    train(dataclasses.replace(config, num_steps=20), tmp_path / "w")
    assert [path.name for path in best.iterdir()] == ["12"]
    assert load_run(tmp_path / "w").step == 12


def test_more_steps_go_on_and_other_settings_do_not(config, uninterrupted, tmp_path):
    _, reference = uninterrupted
    shutil.copytree(reference, tmp_path / "w")
    longer = dataclasses.replace(config, num_steps=14, log_every=1)
    assert train(longer, tmp_path / "w").step == 14
    assert json.loads((tmp_path / "w" / "config.json").read_text())["num_steps"] == 14
    other = dataclasses.replace(config, hidden_size=16, seed=3)
    with pytest.raises(InputError) as caught:
        train(other, tmp_path / "w")
    assert "hidden_size was 8, is 16; seed was 0, is 3" in str(caught.value)


def test_extend_to_goes_on_under_the_schedule_of_a_longer_run(config, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(Monitor, "say", lambda self, line: said.append(line))
    short = dataclasses.replace(
        config, schedule="cosine", num_steps=4, eval_every=0, checkpoint_every=0, log_every=1,
        plateau_patience=0,
    )  # fmt: skip
    with pytest.raises(InputError, match="extend_to=6 needs a run to continue"):
        train(dataclasses.replace(short, extend_to=6), tmp_path / "w")
    with pytest.raises(InputError, match="extend_to must be greater than num_steps=4, got 4"):
        train(dataclasses.replace(short, extend_to=4), tmp_path / "w")
    train(short, tmp_path / "w")
    with pytest.raises(InputError, match=r"num_steps was 4, is 6.*extend_to=N gives more"):
        train(dataclasses.replace(short, num_steps=6), tmp_path / "w")
    longer = dataclasses.replace(short, extend_to=7)
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        assert train(longer, tmp_path / "w").step == 6
    assert any("from step 4 on a new schedule, cosine to 7 steps (the run began with 4)" in line
               for line in said)  # fmt: skip
    with pytest.raises(InputError, match="extend_to was 7, is 0"):  # Its end would come at once.
        train(short, tmp_path / "w")
    assert train(longer, tmp_path / "w").reason == "all 7 steps are done"
    rates = [r["learning_rate"] for r in metrics(tmp_path / "w") if r["kind"] == "train"]
    cosines = [make_schedule(short), make_schedule(dataclasses.replace(short, num_steps=7))]
    expected = [float(cosines[step >= 4](step)) for step in range(7)]
    assert rates == pytest.approx(expected, rel=1e-6)
    assert json.loads((tmp_path / "w" / "config.json").read_text())["extend_to"] == 7


def test_max_minutes_ends_evaluated_and_saved(config, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(training_loop.time, "perf_counter", lambda: now[0])
    advance = Monitor.advance

    def slow(self, step):
        advance(self, step)
        now[0] += 30.0

    monkeypatch.setattr(Monitor, "advance", slow)
    limited = dataclasses.replace(config, eval_every=100, plateau_patience=0, max_minutes=2.0)
    result = train(limited, tmp_path)
    # The validation split, once more as large as a batch, is read in the time of a few steps.
    assert 0 < result.step < 4 and not result.is_done and result.signal == 0
    assert "stopped by max_minutes=2 after step" in result.reason
    assert result.nats_per_event == result.best_nats_per_event is not None
    assert load_run(tmp_path).step == result.step
    again = train(dataclasses.replace(limited, max_minutes=0.0), tmp_path)
    assert (again.step, again.is_done) == (12, True)


@pytest.mark.parametrize("change", ["removed", "renamed", "replaced"])
def test_a_workdir_that_is_gone_under_way_is_an_error(config, tmp_path, monkeypatch, change):
    workdir, elsewhere = tmp_path / "w", tmp_path / "elsewhere"
    advance = Monitor.advance

    def advance_and_lose(self, step):
        advance(self, step)
        if step == 6:
            if change == "removed":
                while workdir.exists():  # While a checkpoint is written there.
                    shutil.rmtree(workdir, ignore_errors=True)
            else:
                workdir.rename(elsewhere)
            if change == "replaced":
                workdir.mkdir(exist_ok=True)  # A checkpoint under way may have made it.

    monkeypatch.setattr(Monitor, "advance", advance_and_lose)
    with pytest.raises(RunError, match="workdir: .*w was removed, renamed or replaced"):
        train(config, workdir)
    if change != "removed":
        assert load_run(elsewhere, "latest").step >= 3


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_lost_terminal_and_the_warning_of_a_batch_system_save(
    config, tmp_path, monkeypatch, number
):
    stop_at(monkeypatch, 1, number)
    result = train(config, tmp_path)
    assert (result.step, result.signal, result.is_done) == (1, number, False)
    assert load_run(tmp_path, "latest").step == 1


def test_a_run_that_diverged_is_an_error_though_it_is_finite(config, tmp_path):
    wild = dataclasses.replace(
        config, optimizer="sgd", learning_rate=1e9, clip_norm=1.0, accumulate_steps=1,
        momentum=0.0, dropout=0.0, recurrent_dropout=0.0, ema_decay=0.0, num_steps=3,
        plateau_patience=0,
    )  # fmt: skip
    with pytest.raises(RunError, match=r"the run has diverged: .* nats per event after step 3"):
        train(wild, tmp_path)
    assert load_run(tmp_path, "latest").step == 3  # Saved all the same.


def test_not_finite_before_any_checkpoint_offers_none(config, tmp_path):
    wild = dataclasses.replace(
        config, optimizer="sgd", learning_rate=1e37, clip_norm=0.0, accumulate_steps=1,
        checkpoint_every=0, eval_every=0, plateau_patience=0, momentum=0.0, log_every=1,
    )  # fmt: skip
    with pytest.raises(RunError, match="there is no checkpoint yet: start with") as caught:
        train(wild, tmp_path)
    assert "evaluate" not in str(caught.value)


def test_a_damaged_position_or_counter_of_an_old_checkpoint_is_one_sentence(
    config, uninterrupted, tmp_path
):
    for number, (item, old, new) in enumerate(
        [("progress", "last_step", "lost_step"), ("progress", "12", '"12"'),
         ("data", "processes", "p")]
    ):  # fmt: skip
        workdir = tmp_path / str(number)
        shutil.copytree(uninterrupted[1], workdir)
        for step in (workdir / "checkpoints" / "latest").iterdir():
            shutil.rmtree(step / "checksums")  # As before there were any.
            path = step / item / "metadata"
            path.write_text(path.read_text().replace(old, new, 1))
        with pytest.raises(InputError, match="workdir: the checkpoint of step 12 .* is damaged"):
            train(config, workdir)


def test_metrics_and_files_of_a_run(config, uninterrupted):
    result, workdir = uninterrupted
    records = metrics(workdir)
    assert [r["step"] for r in records if r["kind"] == "train"] == [2, 4, 6, 8, 10, 12]
    valid = [r for r in records if r["kind"] == "valid"]
    assert [r["step"] for r in valid] == [3, 6, 9, 12]
    assert result.best_nats_per_event == min(r["nats_per_event"] for r in valid)
    names = {path.name for path in workdir.iterdir()}
    assert {"config.json", "codec.json", "metrics.jsonl", "tensorboard", "checkpoints"} <= names
    splits = load_splits(**data_settings(config))
    assert {r["num_events"] for r in valid} == {splits.valid.num_events}
    # Embedding and output of V classes, the start input, two LSTM layers of 8 units.
    size = load_run(workdir).codec.size
    num_params = sum(leaf.size for leaf in jax.tree.leaves(load_run(workdir).params))
    assert num_params == size * 8 + (8 * size + size) + 8 + 2 * (4 * 8 * (8 + 8 + 1))
    assert "data.json" in names


def test_evaluation_is_the_sum_over_the_sequences(config, uninterrupted, data):
    _, workdir = uninterrupted
    run = load_run(workdir)
    lines = Path(data).read_text().splitlines()
    lengths = np.array([len(line) + 1 for line in lines])
    mask = np.arange(lengths.max()) < lengths[:, None]
    events = np.zeros(mask.shape, np.int32)
    for row, line in zip(events, lines, strict=True):
        row[: len(line) + 1] = [*run.codec.encode(line), run.codec.end]
    total = -float(grnn_jax.log_prob(run.model, run.params, events, mask).sum())
    count = int(mask.sum())
    for size in (4, 32):
        values = evaluate(workdir, data=data, eval_batch_size=size)
        assert (values["num_events"], values["num_sequences"]) == (count, len(lines))
        assert values["nats_per_event"] == pytest.approx(total / count, rel=1e-6)
    assert values["bits_per_event"] == pytest.approx(total / count / math.log(2), rel=1e-6)
    assert values["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)
    assert values["nats_per_sequence"] == pytest.approx(total / len(lines), rel=1e-6)
    assert values["step"] == 12 and values["checkpoint"] == "best"


def test_text_is_scored_as_one_stream(data, tmp_path):
    config = dataclasses.replace(
        CONFIG, data=data, format="text", num_steps=2, ema_decay=0.0, plateau_patience=0
    )
    train(config, tmp_path)
    run = load_run(tmp_path)
    splits = load_splits(**data_settings(config))
    events = np.asarray(splits.test.events, np.int32)[None]
    log_prob = jax.jit(functools.partial(grnn_jax.log_prob, run.model))
    expected = -float(log_prob(run.params, events)[0]) / events.size
    values = evaluate(tmp_path, split="test", eval_batch_size=1)
    assert values["num_events"] == events.size
    assert values["nats_per_event"] == pytest.approx(expected, rel=1e-5)


def test_averaged_parameters_are_the_ones_evaluated(config, uninterrupted):
    _, workdir = uninterrupted
    final = everything(config, workdir)
    best = load_run(workdir, "latest").params
    for path, leaf in jax.tree_util.tree_leaves_with_path(best):
        name = jax.tree_util.keystr(path)
        np.testing.assert_array_equal(leaf, final[".averaged_params" + name])
    assert any(
        (final[".averaged_params" + name] != final[".params" + name]).any()
        for name in [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(best)]
    )


def test_early_stopping_and_plateau(config, tmp_path):
    still = dataclasses.replace(
        config,
        learning_rate=1e-30,
        ema_decay=0.0,  # An average of equal parameters still moves by rounding.
        eval_every=1,
        early_stopping_patience=5,
        plateau_patience=2,
        plateau_factor=0.5,
    )
    result = train(still, tmp_path)
    # The first evaluation is the best one; five that are no better follow.
    assert (result.step, result.best_step, result.signal) == (6, 1, 0)
    assert "5 evaluations" in result.reason
    assert everything(still, tmp_path)[".learning_rate_scale"] == 0.25
    assert load_run(tmp_path).step == 1
    assert train(still, tmp_path).step == 6


def test_not_finite_stops_and_keeps_the_last_good_checkpoint(config, tmp_path):
    wild = dataclasses.replace(
        config, optimizer="sgd", learning_rate=1e37, clip_norm=0.0, accumulate_steps=1,
        checkpoint_every=1, momentum=0.0, log_every=1,
    )  # fmt: skip
    with pytest.raises(RunError) as caught:
        train(wild, tmp_path)
    for words in ("is not finite", "kept: ", "learning_rate", "workdir"):
        assert words in str(caught.value)
    kept = [int(p.name) for p in (tmp_path / "checkpoints" / "latest").iterdir()]
    for name, value in everything(wild, tmp_path).items():
        if isinstance(value, np.ndarray):
            assert np.isfinite(value).all(), name
    assert f"step {max(kept) + 1} is not finite" in str(caught.value)
    assert f"kept: the checkpoint of step {max(kept)};" in str(caught.value)
    assert all(math.isfinite(r["nats_per_event"]) for r in read_metrics(tmp_path))


def test_a_full_disk_stops_with_a_message(config, tmp_path, monkeypatch):
    loop_save = training_loop.CheckpointStore.save_latest
    calls = []

    def full(self, step, *rest):
        calls.append(step)
        if step == 8:
            self._latest.save = lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left"))
        loop_save(self, step, *rest)

    monkeypatch.setattr(training_loop.CheckpointStore, "save_latest", full)
    with pytest.raises(RunError, match="No space left.*step 6 is kept.*go on"):
        train(config, tmp_path)
    monkeypatch.undo()
    assert train(config, tmp_path).step == 12


def test_profile(config, tmp_path):
    train(dataclasses.replace(config, profile=True, num_steps=17), tmp_path)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_the_last_steps_are_logged_too(config, tmp_path, monkeypatch):
    odd = dataclasses.replace(config, log_every=5, checkpoint_every=12)
    train(odd, tmp_path / "a")
    steps = [r["step"] for r in metrics(tmp_path / "a") if r["kind"] == "train"]
    assert steps == [5, 10, 12]
    with monkeypatch.context() as patch:
        stop_at(patch, 11)
        train(odd, tmp_path / "b")
    train(odd, tmp_path / "b")
    train(odd, tmp_path / "b")
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")


def test_early_stopping_between_two_lines_logs_the_last_steps(config, tmp_path):
    still = dataclasses.replace(
        config, learning_rate=1e-30, ema_decay=0.0, eval_every=1, early_stopping_patience=2,
        log_every=2,
    )  # fmt: skip
    assert train(still, tmp_path).step == 3
    before = metrics(tmp_path)
    assert [r["step"] for r in before if r["kind"] == "train"] == [2, 3]
    train(still, tmp_path)
    assert sorted(map(str, metrics(tmp_path))) == sorted(map(str, before))


def test_wrong_workdirs(config, tmp_path):
    with pytest.raises(InputError, match="there is no run in .*; train first"):
        load_run(tmp_path / "none")
    with pytest.raises(InputError, match="there is no run"):
        evaluate(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="workdir: cannot make"):
        train(config, tmp_path / "file")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json: not valid JSON"):
        train(config, tmp_path / "damaged")


def test_two_processes_do_not_train_in_one_workdir(config, tmp_path):
    workdir = tmp_path / "run"
    with (
        workdir_lock(workdir),
        pytest.raises(InputError, match="another process trains in .*run already"),
    ):
        train(config, workdir)
    assert not (workdir / "config.json").exists()
    with workdir_lock(workdir):  # Whoever held it has let go.
        pass


def test_a_run_that_never_began_does_not_own_the_workdir(config, tmp_path):
    missing = dataclasses.replace(config, data=config.data + ".missing")
    with pytest.raises(InputError, match="missing"):
        train(missing, tmp_path)
    with pytest.raises(InputError, match="hidden_size must be a multiple of num_heads=3"):
        train(dataclasses.replace(config, num_heads=3), tmp_path)
    assert train(config, tmp_path).step == 12


def test_split_without_data(config, tmp_path):
    bare = dataclasses.replace(config, valid_fraction=0.0, num_steps=1, plateau_patience=0)
    assert train(bare, tmp_path).nats_per_event is None
    with pytest.raises(InputError, match="split=valid.*holds out nothing"):
        evaluate(tmp_path)
    with pytest.raises(InputError, match="split must be one of"):
        evaluate(tmp_path, split="dev")
    # Without a validation split there is no best checkpoint: the latest one is taken.
    assert evaluate(tmp_path, split="test")["step"] == 1
