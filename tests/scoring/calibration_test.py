"""Calibration, entropy and positions against plain NumPy, and on a model that is exactly right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grnn_jax import cells, distributions, make_model
from grnn_jax.config import Config
from grnn_jax.data import Corpus
from grnn_jax.errors import InputError
from grnn_jax.scoring import calibration, make_score_events
from grnn_jax.scoring.classes import class_statistics, read_classes
from grnn_jax.sharding import make_mesh


def test_statistics_of_classes_equal_numpy():
    rng = np.random.default_rng(0)
    scores, events = rng.normal(size=(6, 5)) * 4, rng.integers(0, 5, 6)
    scores[0, 2] = -np.inf
    events[0] = 1
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    found = class_statistics(jnp.asarray(scores, jnp.float32), jnp.asarray(events))
    entropy = [-sum(q * np.log(q) for q in row if q > 0) for row in p]
    np.testing.assert_allclose(found["nats"], -np.log(p[np.arange(6), events]), rtol=1e-5)
    np.testing.assert_allclose(found["entropy"], entropy, rtol=1e-4)
    np.testing.assert_allclose(found["confidence"], p.max(1), rtol=1e-5)
    np.testing.assert_array_equal(found["correct"], p.argmax(1) == events)


def test_calibration_equals_a_loop_over_events(monkeypatch):
    monkeypatch.setattr(calibration, "BLOCK", 7)
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 100)
    confidence[:3] = 1.0, 0.5, 0.0
    correct = (rng.random(100) < confidence**2).astype(float)
    binned = calibration.reliability(confidence, correct, 10)
    error = 0.0
    for b in range(10):
        inside = [
            i for i in range(100) if b / 10 <= confidence[i] < (b + 1) / 10
            or (b == 9 and confidence[i] == 1)
        ]  # fmt: skip
        assert binned.num_events[b] == len(inside)
        if not inside:
            assert np.isnan(binned.means["correct"][b])
            continue
        accuracy, mean = correct[inside].mean(), confidence[inside].mean()
        assert binned.means["correct"][b] == pytest.approx(accuracy)
        error += len(inside) / 100 * abs(accuracy - mean)
    assert calibration.expected_calibration_error(binned) == pytest.approx(error)
    assert error > 0.05


@pytest.mark.parametrize("lengths", [[3, 0, 5, 1, 4], [500, 2, 3000]])
def test_means_by_position_equal_a_loop(lengths, monkeypatch):
    monkeypatch.setattr(calibration, "BLOCK", 100)
    offsets = np.cumsum([0, *lengths])
    values = np.random.default_rng(0).random(offsets[-1])
    binned = calibration.position_means(offsets, {"nats": values})
    positions = np.concatenate([np.arange(length) for length in lengths])
    assert binned.edges[0] == 0 and binned.edges[-1] == max(lengths)
    assert (np.diff(binned.edges) > 0).all() and len(binned.edges) <= 201
    assert binned.num_events.sum() == len(values)
    for i, (low, high) in enumerate(zip(binned.edges, binned.edges[1:], strict=False)):
        inside = (positions >= low) & (positions < high)
        assert binned.num_events[i] == inside.sum() > 0
        assert binned.means["nats"][i] == pytest.approx(values[inside].mean())
    if max(lengths) < 200:
        assert binned.num_events.tolist() == [4, 3, 3, 2, 1]


def test_a_model_with_exact_probabilities_is_calibrated():
    # p = (1/2, 1/4, 1/8, 1/8) at every step, and data with just these frequencies.
    model = make_model(cells.gru(2), distributions.categorical(4))
    params = model.init(jax.random.key(0))
    p = np.array([4, 2, 1, 1]) / 8
    output = {"kernel": jnp.zeros((2, 4)), "bias": jnp.log(jnp.asarray(p, jnp.float32))}
    params = params | {"distribution": params["distribution"] | output}
    events = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [32, 16, 8, 8]))
    corpus = Corpus(events, np.array([0, 20, 25, 64]))
    config = Config(eval_batch_size=2, sequence_length=8)
    read = read_classes(model, class_statistics)
    found = make_score_events(model, config, make_mesh(), read)(params, corpus)
    entropy = -(p * np.log(p)).sum()
    np.testing.assert_allclose(found["entropy"], entropy, rtol=1e-5)
    assert found["nats"].mean(dtype=float) == pytest.approx(entropy, rel=1e-5)
    binned = calibration.reliability(found["confidence"], found["correct"], 15)
    assert calibration.expected_calibration_error(binned) == pytest.approx(0, abs=1e-6)
    by_entropy = calibration.entropy_bins(found["entropy"], found["nats"])
    filled = by_entropy.num_events > 0
    np.testing.assert_allclose(
        by_entropy.means["nats"][filled], by_entropy.means["entropy"][filled], rtol=1e-5
    )
    # Sure of the same class in every event, it is wrong by what it adds to the probability.
    sure = calibration.reliability(np.full(64, 0.9), found["correct"])
    assert calibration.expected_calibration_error(sure) == pytest.approx(0.4)


def test_classes_are_needed():
    model = make_model(cells.gru(2), distributions.bernoulli(3))
    with pytest.raises(InputError, match="bernoulli, is no softmax over classes"):
        read_classes(model, class_statistics)
