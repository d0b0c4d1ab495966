"""Runs with --condition_on: exact scores, resumed bit for bit, and what belongs together."""

import dataclasses

import jax
import numpy as np
import pytest
from absl import flags

import grnn_jax
from grnn_jax import drawing
from grnn_jax.config import Config
from grnn_jax.errors import InputError
from grnn_jax.evaluation import evaluate
from grnn_jax.runner import train
from grnn_jax.workdir import load_run, load_run_data

flags.FLAGS.mark_as_parsed()

CONFIG = Config(
    format="lines",
    column="name",
    condition_on="nation,age",
    condition_enters="both",
    hidden_size=6,
    batch_size=4,
    sequence_length=12,
    eval_batch_size=8,
    num_steps=6,
    schedule="constant",
    valid_fraction=0.2,
    eval_every=0,
    checkpoint_every=0,
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Irish names are of a and b, Greek ones of b and c; some ages are missing."""
    path = tmp_path_factory.mktemp("data") / "names.csv"
    rng = np.random.default_rng(0)
    rows = ["name,nation,age"]
    for i in range(120):
        name = "".join(rng.choice(list(["ab", "bc"][i % 2]), rng.integers(1, 6)))
        rows.append(f"{name},{['Irish', 'Greek'][i % 2]},{'' if i % 9 == 0 else i / 7}")
    path.write_text("\n".join(rows))
    return dataclasses.replace(CONFIG, data=str(path))


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    train(config, workdir)
    return workdir


def test_a_resumed_run_is_the_same_bit_for_bit(config, workdir, tmp_path):
    train(dataclasses.replace(config, num_steps=3), tmp_path)
    train(config, tmp_path)
    runs = [load_run(each, "latest").params for each in (workdir, tmp_path)]
    jax.tree.map(np.testing.assert_array_equal, *runs)


def test_the_score_is_that_of_each_line_given_its_row(config, workdir):
    """Windows pack lines and cut them; here each is scored by itself."""
    run = load_run(workdir)
    corpus = load_run_data(run.config, workdir, run.codec).valid
    longest = int(np.diff(corpus.offsets).max())
    events = np.zeros((corpus.num_sequences, longest), np.int32)
    mask = np.arange(longest) < np.diff(corpus.offsets)[:, None]
    events[mask] = corpus.events
    assert np.isnan(corpus.conditions).any()
    nats = grnn_jax.log_prob(run.model, run.params, events, mask, conditions=corpus.conditions)
    score = evaluate(workdir, split="valid")
    np.testing.assert_allclose(score["nats_per_sequence"], -nats.mean(), rtol=1e-5)
    # A file of the same columns is read as the run's own data.
    whole = evaluate(workdir, data=config.data)
    assert whole["num_sequences"] == 120


def test_conditions_of_a_run_are_part_of_it(config, workdir, tmp_path):
    with pytest.raises(InputError, match="condition_on was 'nation,age', is 'nation'"):
        train(dataclasses.replace(config, condition_on="nation"), workdir)
    with pytest.raises(InputError, match="condition_enters=start needs condition_on=COLUMNS"):
        other = dataclasses.replace(config, condition_on="", condition_enters="start")
        train(other, tmp_path)
    with pytest.raises(
        InputError, match="condition_on=nation needs format=lines, .*got format=text"
    ):
        train(
            dataclasses.replace(config, format="text", column="", condition_on="nation"), tmp_path
        )
    without = tmp_path / "names.csv"
    without.write_text("name,nation\nab,Irish\n")
    with pytest.raises(InputError, match="has no column 'age'"):
        evaluate(workdir, data=str(without))


def test_a_loaded_run_scores_and_draws_given_conditions(workdir):
    run = grnn_jax.load(workdir)
    given = [{"nation": "Irish", "age": 3.0}, {"nation": "Greek", "age": None}]
    both = run.log_prob(["ab", "cb"], condition=given)
    each = [run.log_prob(t, condition=c) for t, c in zip(["ab", "cb"], given, strict=True)]
    np.testing.assert_allclose(both, each, rtol=1e-5)
    drawn = run.draw(2, condition=given, length=6)
    events = np.zeros((2, 6), np.int32)
    mask = np.arange(6) < np.array([[one.num_events] for one in drawn])
    events[mask] = np.concatenate([one.events for one in drawn])
    nats = -run.log_prob(events, mask, condition=given)
    np.testing.assert_allclose([one.nats for one in drawn], nats, rtol=1e-5)
    assert len(run.sample(3, condition=given[0])) == 3
    hidden = run.hidden(["ab", "ab"], condition=given)
    assert (hidden[0] != hidden[1]).any()
    with pytest.raises(InputError, match="condition must have a value for each of nation, age"):
        run.log_prob("ab")
    with pytest.raises(InputError, match="a list of 1, one for each sequence, got 2"):
        run.log_prob("ab", condition=given)
    with pytest.raises(InputError, match=r"condition\[1\], 'nation': expected one of the classes"):
        run.draw(2, condition=[given[0], {"nation": "Norse", "age": 1}])


def test_blocks_of_a_large_request_take_their_own_rows(workdir, monkeypatch):
    monkeypatch.setattr(drawing, "BATCH_SIZE", 4)
    monkeypatch.setattr(drawing, "BLOCK_BATCHES", 1)
    run = grnn_jax.load(workdir)
    given = [{"nation": ["Irish", "Greek"][i % 3 % 2], "age": 3 * i - 9} for i in range(10)]
    drawn = run.draw(10, condition=given, length=4, seed=2)
    events = [one.events for one in drawn]
    nats = [-run.log_prob(one, condition=c) for one, c in zip(events, given, strict=True)]
    np.testing.assert_allclose([one.nats for one in drawn], nats, rtol=1e-4)
