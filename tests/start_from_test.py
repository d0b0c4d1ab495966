"""Runs that begin with the parameters and the codec of another: fine-tuning."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from grnn_jax.config import Config
from grnn_jax.errors import InputError
from grnn_jax.evaluation import evaluate
from grnn_jax.monitor import Monitor, read_metrics
from grnn_jax.runner import train
from grnn_jax.workdir import load_run, read_config

CONFIG = Config(
    format="lines",
    hidden_size=8,
    batch_size=4,
    sequence_length=16,
    eval_batch_size=4,
    num_steps=40,
    learning_rate=0.01,
    ema_decay=0.5,
    learned_initial_state=True,
    eval_every=20,
    log_every=1,
    checkpoint_every=0,
)


def write_lines(path, words):
    rng = np.random.default_rng(0)
    path.write_text("".join(" ".join(rng.choice(words, 4)) + "\n" for _ in range(60)))
    return str(path)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A run, and data for another one that lack some of its characters."""
    folder = tmp_path_factory.mktemp("parent")
    config = dataclasses.replace(
        CONFIG, data=write_lines(folder / "broad.txt", ["an", "old", "cat", "sat", "there"])
    )
    train(config, folder / "run")
    narrow = write_lines(folder / "narrow.txt", ["an", "old", "sat"])
    return folder / "run", dataclasses.replace(
        config, data=narrow, start_from=str(folder / "run"), dropout=0.1, learning_rate=0.003
    )


def test_it_begins_as_the_other_run_ended(parent, tmp_path):
    workdir, config = parent
    train(dataclasses.replace(config, num_steps=0), tmp_path)
    old, new = load_run(workdir), load_run(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, new.params, old.params)
    assert new.codec.to_dict() == old.codec.to_dict()  # That of its own data would lack letters.
    tokens = new.codec.encode("an old sat")
    assert new.codec.size == old.codec.size > max(tokens)
    own = tmp_path / "own"
    train(dataclasses.replace(config, num_steps=0, start_from=""), own)
    assert load_run(own).codec.size < old.codec.size


def test_training_goes_on_from_there_with_settings_of_its_own(parent, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(Monitor, "say", lambda self, text: told.append(text))
    workdir, config = parent
    before = evaluate(workdir)["nats_per_event"]
    config = dataclasses.replace(config, data=read_config(workdir).data, num_steps=20)
    train(config, tmp_path)
    assert any(f"starting from step 40 of {workdir}" in text for text in told)
    first = next(row for row in read_metrics(tmp_path) if row["kind"] == "train")
    assert first["step"] == 1
    parent_first, *_, parent_last = (r for r in read_metrics(workdir) if r["kind"] == "train")
    halfway = (parent_first["nats_per_event"] + parent_last["nats_per_event"]) / 2
    assert first["nats_per_event"] < halfway
    assert evaluate(tmp_path)["nats_per_event"] < before


def test_a_stopped_one_goes_on_without_the_other_run(parent, tmp_path):
    workdir, config = parent
    moved = tmp_path / "moved"
    shutil.copytree(workdir, moved)
    config = dataclasses.replace(config, start_from=str(moved), schedule="constant")
    train(config, tmp_path / "whole")
    train(dataclasses.replace(config, num_steps=20), tmp_path / "parts")
    shutil.rmtree(moved)
    train(config, tmp_path / "parts")
    for checkpoint in ("best", "latest"):
        a, b = (load_run(tmp_path / name, checkpoint) for name in ("whole", "parts"))
        assert a.step == b.step
        jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 16}, "start_from: .*hidden_size is 8 there, 16 here"),
        ({"cell": "gru"}, "cell is 'lstm' there, 'gru' here"),
        ({"codec": "bytes"}, "codec is 'chars' there, 'bytes' here"),
        ({"format": "text"}, "format is 'lines' there, 'text' here"),
        ({"start_from": "nowhere"}, "start_from: there is no run in nowhere"),
    ],
)
def test_what_does_not_fit_is_told(parent, tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        train(dataclasses.replace(parent[1], **change), tmp_path / "new")
    assert not (tmp_path / "new" / "config.json").exists()


def test_characters_that_the_other_run_does_not_know(parent, tmp_path):
    path = tmp_path / "strange.txt"
    path.write_text("an old cat\nan ox\n" * 20)
    with pytest.raises(InputError, match=r"strange\.txt.*line 2.*'x'"):
        train(dataclasses.replace(parent[1], data=str(path)), tmp_path / "new")


def test_a_run_without_a_checkpoint(parent, tmp_path):
    workdir, config = parent
    shutil.copytree(workdir, tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "checkpoints")
    with pytest.raises(InputError, match=r"start_from: the run in .* has no checkpoint yet"):
        train(dataclasses.replace(config, start_from=str(tmp_path / "old")), tmp_path / "new")
    assert not (tmp_path / "new" / "config.json").exists()
    train(config, tmp_path / "new")
