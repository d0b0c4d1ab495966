"""The fitted temperature is the minimiser, and tempered nats are those of a scaled output layer."""

import jax
import numpy as np
import pytest
from helpers import perturb

from grnn_jax import cells, distributions, make_model
from grnn_jax.config import Config
from grnn_jax.data import Corpus
from grnn_jax.errors import InputError
from grnn_jax.scoring import make_score_events
from grnn_jax.scoring.temperature import fit_temperature, make_tempered_sums
from grnn_jax.sharding import make_mesh

CORPUS = Corpus(np.random.default_rng(0).integers(0, 4, 30), np.array([0, 7, 9, 21, 30]))
CONFIG = Config(eval_batch_size=2, sequence_length=8)


def numpy_sums(scores, events, temperature):
    beta = 1 / temperature
    chosen = scores[np.arange(len(events)), events]
    weights = np.exp(beta * scores)
    p = weights / weights.sum(1, keepdims=True)
    mean = (p * scores).sum(1)
    return {
        "nats": (np.log(weights.sum(1)) - beta * chosen).sum(),
        "slope": (mean - chosen).sum(),
        "curvature": (p * scores**2).sum() - (mean**2).sum(),
    }


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_the_fitted_temperature_is_the_best_on_a_grid(true):
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(4000, 5)) * 3
    p = np.exp(scores / true)
    events = (rng.random((4000, 1)) > (p / p.sum(1, keepdims=True)).cumsum(1)).sum(1)
    fitted = fit_temperature(lambda t: numpy_sums(scores, events, t))
    assert fitted == pytest.approx(true, rel=0.1)
    grid = fitted * np.array([0.5, 0.9, 0.99, 0.999, 1.001, 1.01, 1.1, 2.0])
    best = numpy_sums(scores, events, fitted)["nats"]
    assert all(best < numpy_sums(scores, events, t)["nats"] for t in grid)


def test_a_fit_without_a_minimum_ends():
    scores = np.eye(3) * 2
    assert fit_temperature(lambda t: numpy_sums(scores, np.arange(3), t)) < 0.1
    assert fit_temperature(lambda t: numpy_sums(scores, np.array([1, 2, 0]), t)) > 100


def test_tempered_nats_are_those_of_a_scaled_output_layer():
    model = make_model(cells.gru(5), distributions.categorical(4, embedding_size=3))
    params = perturb(model.init(jax.random.key(0)), scale=1.0)
    sums = make_tempered_sums(model, CONFIG, make_mesh())
    static = make_score_events(model, CONFIG, make_mesh())
    found = {t: sums(params, CORPUS, t) for t in (0.7, 1.0, 1 / 0.99, 1 / 1.01)}
    for temperature in (0.7, 1.0):
        output = params["distribution"]
        scaled = output | {n: output[n] / temperature for n in ("kernel", "bias")}
        nats = static(params | {"distribution": scaled}, CORPUS)["nats"].sum(dtype=np.float64)
        assert found[temperature]["nats"] == pytest.approx(nats, rel=1e-5)
    assert found[1.0]["num_events"] == 30
    rise = found[1 / 1.01]["nats"] - found[1 / 0.99]["nats"]
    assert found[1.0]["slope"] == pytest.approx(rise / 0.02, rel=1e-2)
    bend = found[1 / 1.01]["slope"] - found[1 / 0.99]["slope"]
    assert found[1.0]["curvature"] == pytest.approx(bend / 0.02, rel=1e-2)


def test_a_temperature_needs_classes():
    model = make_model(cells.gru(2), distributions.bernoulli(3))
    with pytest.raises(InputError, match="no softmax over classes"):
        make_tempered_sums(model, CONFIG, make_mesh())
