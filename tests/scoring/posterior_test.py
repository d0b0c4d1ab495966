"""Bayes' rule against its definition, and what is told of it."""

import jax
import numpy as np
import pytest
from helpers import random_like

import grnn_jax
from grnn_jax import cells, distributions
from grnn_jax.config import Config
from grnn_jax.data import Codec, Corpus
from grnn_jax.data.conditions import Condition, ConditionCodec
from grnn_jax.errors import InputError
from grnn_jax.scoring import Posterior, find_class, log_prior, posterior
from grnn_jax.workdir import Run

LENGTHS = [3, 1, 5, 2, 4, 1]
CONDITIONS = (
    Condition("weight", "number", may_be_missing=True),
    Condition("kind", "class", ("a", "b", "c"), may_be_missing=True),
)
GIVEN = np.float32(
    [[0.5, 0], [np.nan, 2], [1, np.nan], [-1, 1], [0, 2], [2, 0]]
)  # fmt: skip


@pytest.fixture(scope="module")
def run():
    model = grnn_jax.make_model(
        cells.gru(5), distributions.categorical(4, embedding_size=3), conditions=(0, 3)
    )
    params = random_like(model.init, jax.random.key(0), scale=1.0)
    codec = Codec(conditions=ConditionCodec(CONDITIONS))
    config = Config(eval_batch_size=2, sequence_length=4, hidden_size=5)
    return Run(model, params, codec, config, 0)


def corpus():
    events = np.random.default_rng(0).integers(0, 4, sum(LENGTHS))
    return Corpus(events, np.cumsum([0, *LENGTHS]), conditions=GIVEN)


@pytest.mark.parametrize("kind", ["train", "uniform"])
def test_posterior_is_bayes_rule_for_each_sequence(run, kind, tmp_path):
    data = corpus()
    prior = log_prior(kind, CONDITIONS[1], 1, data)
    expected_prior = [0.4, 0.2, 0.4] if kind == "train" else [1 / 3] * 3
    np.testing.assert_allclose(np.exp(prior), expected_prior)
    found = posterior(run, data, "kind", prior, tmp_path)
    for row in range(len(LENGTHS)):
        events = data.events[None, data.offsets[row] : data.offsets[row + 1]]
        joint = []
        for number, share in enumerate(expected_prior):
            given = np.float32([GIVEN[row, 0], number])
            nats = grnn_jax.log_prob(run.model, run.params, events, conditions=given)
            joint.append(share * np.exp(np.float64(nats[0])))
        np.testing.assert_allclose(np.exp(found.log_marginal[row]), sum(joint), rtol=1e-4)
        expected = np.array(joint) / sum(joint)
        np.testing.assert_allclose(np.exp(found.log_probs[row]), expected, rtol=1e-4)
    assert found.labels.tolist() == [0, 2, -1, 1, 2, 0]
    assert found.record(2)["label"] is None and found.record(1)["label"] == "c"


def test_summary_counts_what_is_labelled():
    probs = np.array([[0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]])
    found = Posterior(
        Condition("k", "class", ("x", "y")), np.log([0.75, 0.25]), np.log(probs),
        np.zeros(4), np.array([0, 0, 1, -1]),
    )  # fmt: skip
    summary = found.summary()
    assert summary["num_labelled"] == 3
    np.testing.assert_allclose(summary["accuracy"], 2 / 3)
    np.testing.assert_allclose(summary["log_loss"], -np.log([0.8, 0.4, 0.7]).mean())
    # Three bins of one sequence each.
    np.testing.assert_allclose(summary["calibration_error"], np.mean([0.2, 0.6, 0.3]))
    np.testing.assert_allclose(summary["prior_accuracy"], 2 / 3)
    np.testing.assert_allclose(summary["prior_log_loss"], -np.log([0.75, 0.75, 0.25]).mean())
    record = found.record(1)
    assert (record["label"], record["predicted"]) == ("x", "y")
    np.testing.assert_allclose([record["p_x"], record["p_y"]], [0.4, 0.6])
    assert found._replace(labels=np.full(4, -1)).summary() == {"num_labelled": 0}


def test_only_classes_have_a_posterior(run):
    with pytest.raises(InputError, match="posterior=weight needs a condition of classes"):
        find_class(run, "weight")
    with pytest.raises(InputError, match=r"posterior must be a condition of classes .* \(kind\)"):
        find_class(run, "size")
