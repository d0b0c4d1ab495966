"""The model: what the output layer sees, and that scoring and sampling see the same."""

import jax
import numpy as np
import pytest
from helpers import random_like, to_numpy
from oracles import gru_step, sigmoid

import grnn_jax
from grnn_jax import cells, distributions

B, T, H = 3, 7, 6

score = jax.jit(grnn_jax.log_prob, static_argnums=0)


def numpy_log_prob(params, events, encode, event_log_prob):
    """Scores one sequence step by step, with [h_t, encode(x_t)] in front of the output layer."""
    p, total = to_numpy(params), 0.0
    state, x = (np.zeros(H),), p["start"]
    for event in events:
        state = gru_step(p["cell"], state, x)
        total += event_log_prob(p["distribution"], np.concatenate([state[0], x]), event)
        x = encode(p["distribution"], event)
    return total


def categorical_log_prob(p, hidden, event):
    logits = hidden @ p["kernel"] + p["bias"]
    return logits[event] - np.log(np.exp(logits).sum())


def bernoulli_log_prob(p, hidden, event):
    logits = hidden @ p["kernel"] + p["bias"]
    return np.log(np.where(event, sigmoid(logits), sigmoid(-logits))).sum()


FAMILIES = {
    "one_hot": (
        lambda: distributions.categorical(5), (), lambda p, e: np.eye(5)[e], categorical_log_prob
    ),
    "embedding": (
        lambda: distributions.categorical(5, embedding_size=4), (),
        lambda p, e: p["embedding"][e], categorical_log_prob,
    ),
    "bits": (
        lambda: distributions.bernoulli(4), (4,), lambda p, e: np.float64(e), bernoulli_log_prob
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_skip_input_equals_a_loop_in_numpy(name, chunk_size):
    make, shape, encode, event_log_prob = FAMILIES[name]
    model = grnn_jax.make_model(cells.gru(H), make(), skip_input=True, chunk_size=chunk_size)
    params = random_like(model.init, jax.random.key(0))
    high = 2 if shape else 5
    events = np.random.default_rng(0).integers(0, high, (B, T, *shape))
    events = events.astype(np.uint8 if shape else np.int32)
    expected = [numpy_log_prob(params, row, encode, event_log_prob) for row in events]
    found = score(model, params, events)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("length", [1, T])  # One step projects events, more look them up.
def test_sampling_sees_what_scoring_sees(name, length):
    model = grnn_jax.make_model(cells.gru(H), FAMILIES[name][0](), skip_input=True)
    params = random_like(model.init, jax.random.key(0))
    samples = grnn_jax.sample(model, params, jax.random.key(1), 1, length)
    rescored = score(model, params, samples.events)
    np.testing.assert_allclose(samples.log_probs.sum(1), rescored, rtol=1e-5)


def test_without_it_the_output_layer_has_no_such_rows():
    plain = grnn_jax.make_model(cells.gru(H), distributions.bernoulli(4))
    skip = grnn_jax.make_model(cells.gru(H), distributions.bernoulli(4), skip_input=True)
    params = [jax.eval_shape(m.init, jax.random.key(0)) for m in (plain, skip)]
    shapes = [each["distribution"]["kernel"].shape for each in params]
    assert shapes == [(H, 4), (H + 4, 4)]


@pytest.mark.parametrize(("num_events", "pays"), [(1, False), (9, False), (10, True), (50, True)])
def test_a_table_of_tokens_is_projected_where_a_loop_has_as_many_events(num_events, pays):
    """Nine tokens and the start input; a step by itself projects its own rows alone."""
    model = grnn_jax.make_model(cells.gru(4), distributions.categorical(9, embedding_size=3))
    params = random_like(model.init, jax.random.key(0))
    carry = model.initial_state(params, 2)
    step = jax.jit(lambda carry: model.make_step(params, num_events)(carry))
    products = [line for line in step.lower(carry).as_text().splitlines() if "dot_general" in line]
    assert any("-> tensor<10x12xf32>" in line for line in products) == pays
    assert len(products) == 2  # With U, of the table or of the rows, and with V.
