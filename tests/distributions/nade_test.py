"""NADE: a loop in NumPy float64, enumeration, chunks, exact samples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_trees_close, perturb

from grnn_jax import distributions

H, D, U = 5, 4, 3


def make(**settings):
    distribution = distributions.nade(D, nade_hidden_size=U, **settings)
    return distribution, perturb(distribution.init(jax.random.key(0), H))


def all_events():
    return np.asarray(list(itertools.product([0, 1], repeat=D)), np.uint8)


def oracle(params, hidden, event):
    """log p of one event, bit by bit as the definition says."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    units = p["unit_bias"] + hidden @ p["unit_kernel"]
    total = 0.0
    for d in range(D):
        logit = p["bias"][d] + hidden @ p["kernel"][:, d] + np.tanh(units) @ p["output_kernel"][d]
        total -= np.log1p(np.exp(-logit if event[d] else logit))
        units = units + event[d] * p["bit_kernel"][d]
    return total


def test_log_prob_equals_the_loop():
    distribution, params = make()
    rng = np.random.default_rng(0)
    hidden, events = rng.normal(size=(3, 6, H)), rng.integers(0, 2, (3, 6, D)).astype(np.uint8)
    expected = [[oracle(params, hidden[b, t], events[b, t]) for t in range(6)] for b in range(3)]
    found = distribution.log_prob(params, jnp.float32(hidden), jnp.asarray(events))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_probabilities_sum_to_one():
    distribution, params = make()
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(np.float64(leaf)), params)
        hidden = jnp.broadcast_to(jnp.asarray(np.linspace(-1, 1, H)), (2**D, H))
        total = jnp.exp(distribution.log_prob(params, hidden, jnp.asarray(all_events()))).sum()
        np.testing.assert_allclose(total, 1, rtol=1e-12)


@pytest.mark.parametrize("limit", [1, 2 * 3 * D * U, 7 * 3 * D * U])
def test_chunked_loss_has_the_exact_value_and_gradient(limit):
    whole, params = make()
    chunked, _ = make(activations_limit=limit)
    rng = np.random.default_rng(1)
    hidden = jnp.float32(rng.normal(size=(3, 8, H)))
    events = jnp.asarray(rng.integers(0, 2, (3, 8, D)), jnp.uint8)
    weights = jnp.float32(rng.normal(size=(3, 8)))

    def value_and_gradient(distribution):
        def loss(params, hidden):
            return (distribution.log_prob(params, hidden, events) * weights).sum()

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, hidden)

    assert_trees_close(value_and_gradient(chunked), value_and_gradient(whole), 1e-5, 1e-6)


def test_gradient_equals_finite_differences():
    distribution, params = make()
    rng = np.random.default_rng(2)
    hidden, event = rng.normal(size=H), np.array([1, 0, 1, 1], np.uint8)

    def nats(params):
        return distribution.log_prob(params, jnp.float32(hidden), jnp.asarray(event))

    gradient = jax.grad(nats)(params)
    for name in params:
        direction = rng.normal(size=params[name].shape)
        moved = [
            oracle(params | {name: np.float64(params[name]) + e * direction}, hidden, event)
            for e in (1e-5, -1e-5)
        ]
        np.testing.assert_allclose(
            (np.float64(gradient[name]) * direction).sum(), (moved[0] - moved[1]) / 2e-5, rtol=1e-4
        )


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_samples_have_the_enumerated_frequencies(temperature):
    distribution, params = make()
    count = 20_000
    hidden = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (H,)), (count, H))
    keys = jax.random.split(jax.random.key(2), count)
    events = np.asarray(distribution.sample(keys, params, hidden, temperature=temperature))
    found = np.bincount(events @ (2 ** np.arange(D)[::-1]), minlength=2**D)
    expected = []
    for event in all_events():  # Each bit's odds are tempered in turn.
        nats = 0.0
        for d in range(D):
            flipped = event.copy()
            flipped[d + 1 :] = 0
            other = flipped.copy()
            other[d] = 1 - other[d]
            given = [conditional(params, np.float64(hidden[0]), e, d) for e in (flipped, other)]
            powers = np.exp(np.array(given) / temperature)
            nats += np.log(powers[0] / powers.sum())
        expected.append(count * np.exp(nats))
    assert scipy.stats.chisquare(found, expected).pvalue > 1e-3
    alone = distribution.sample(keys[3:5], params, hidden[3:5], temperature=temperature)
    np.testing.assert_array_equal(alone, events[3:5])


def conditional(params, hidden, event, d):
    """log p(x_d | x_<d, h), as a difference of enumerated marginals."""
    after = [np.r_[event[: d + 1], rest] for rest in itertools.product([0, 1], repeat=D - d - 1)]
    before = [np.r_[event[:d], rest] for rest in itertools.product([0, 1], repeat=D - d)]
    return np.logaddexp.reduce([oracle(params, hidden, e) for e in after]) - np.logaddexp.reduce(
        [oracle(params, hidden, e) for e in before]
    )


def test_mode_takes_the_likelier_bit_in_turn():
    distribution, params = make()
    hidden = np.random.default_rng(3).normal(size=(5, H))
    found = np.asarray(distribution.mode(params, jnp.float32(hidden)))
    for row, event in zip(hidden, found, strict=True):
        for d in range(D):
            other = event.copy()
            other[d] = 1 - other[d]
            assert conditional(params, row, event, d) > conditional(params, row, other, d)
    alone = distribution.mode(params, jnp.float32(hidden[0]))
    np.testing.assert_array_equal(alone, found[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.optimized
def test_extreme_parameters_are_finite(dtype):
    distribution, params = make()
    params = jax.tree.map(lambda leaf: 1e3 * leaf, params)
    hidden = jnp.full((2, 3, H), 1e3, dtype)
    events = jnp.ones((2, 3, D), jnp.uint8)

    def nats(params, hidden):
        return distribution.log_prob(params, hidden, events).sum()

    value, gradients = jax.value_and_grad(nats, argnums=(0, 1))(params, hidden)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_bad_sizes():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        distributions.nade(0)
    with pytest.raises(ValueError, match="nade_hidden_size must be at least 1, got 0"):
        distributions.nade(3, nade_hidden_size=0)
