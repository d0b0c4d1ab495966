"""The mean probability over draws of dropout, draw by draw."""

import jax
import numpy as np
import pytest
from helpers import perturb

from grnn_jax import cells, distributions, event_log_probs, make_model
from grnn_jax.config import Config
from grnn_jax.data import Corpus, eval_windows
from grnn_jax.scoring import make_score_events
from grnn_jax.scoring.mc_dropout import make_mc_dropout_step, mc_dropout_nats
from grnn_jax.sharding import make_mesh

LENGTHS = [7, 2, 3, 9, 3]
CORPUS = Corpus(np.random.default_rng(0).integers(0, 3, 24), np.cumsum([0, *LENGTHS]))
CONFIG = Config(eval_batch_size=2, sequence_length=8)


def dropped(rate):
    cell = cells.stack([cells.gru(4)], dropout=rate)
    model = make_model(cell, distributions.categorical(3, embedding_size=4))
    return model, perturb(model.init(jax.random.key(0)))


def test_the_mean_over_draws_equals_a_loop_over_them():
    model, params = dropped(0.5)
    windows = eval_windows(CORPUS, 2, 8)
    step, key = jax.jit(make_mc_dropout_step(model, 3)), jax.random.key(5)
    one = jax.jit(lambda carry, batch, key: event_log_probs(model, params, carry, batch, key=key))
    start = model.initial_state(params, 2)
    carries, states = jax.tree.map(lambda leaf: np.stack([leaf] * 3), start), [start] * 3
    expected_sum = 0.0
    for index in range(windows.windows_per_epoch):
        folded, batch = jax.random.fold_in(key, index), windows[index]
        carries, nats = step(params, carries, batch, folded)
        draws = []
        for draw in range(3):
            log_probs, states[draw] = one(states[draw], batch, jax.random.fold_in(folded, draw))
            draws.append(np.asarray(log_probs, np.float64))
        assert np.ptp(draws, axis=0)[batch.mask].min() > 0
        expected = -np.log(np.exp(draws).mean(0))
        np.testing.assert_allclose(nats, np.where(batch.mask, expected, 0), rtol=1e-4, atol=1e-6)
        expected_sum += expected[batch.mask].sum()
    found = mc_dropout_nats(model, params, CORPUS, CONFIG, make_mesh(), num_draws=3, seed=5)
    assert found == (pytest.approx(expected_sum, rel=1e-5), 24)


def test_without_dropout_it_is_static():
    model, params = dropped(0.0)
    static = make_score_events(model, CONFIG, make_mesh())(params, CORPUS)["nats"]
    nats, count = mc_dropout_nats(model, params, CORPUS, CONFIG, make_mesh(), num_draws=3)
    assert (nats, count) == (pytest.approx(static.sum(dtype=np.float64), rel=1e-5), 24)
