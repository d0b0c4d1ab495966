"""Independent bits: numpyro, enumeration, extreme logits, samples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
from helpers import perturb

from grnn_jax import distributions

H, D = 6, 4


def make():
    distribution = distributions.bernoulli(D)
    return distribution, perturb(distribution.init(jax.random.key(0), H))


def all_events():
    return jnp.asarray(list(itertools.product([0, 1], repeat=D)), jnp.uint8)


def test_log_prob_and_mode_equal_numpyro():
    distribution, params = make()
    rng = np.random.default_rng(0)
    hidden = jnp.float32(rng.normal(size=(3, 5, H)))
    events = jnp.asarray(rng.integers(0, 2, (3, 5, D)), jnp.uint8)
    logits = hidden @ params["kernel"] + params["bias"]
    oracle = numpyro.distributions.Bernoulli(logits=logits).to_event(1)
    np.testing.assert_allclose(
        distribution.log_prob(params, hidden, events),
        oracle.log_prob(events.astype(jnp.float32)),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_array_equal(distribution.mode(params, hidden), np.asarray(logits) > 0)


def test_probabilities_sum_to_one():
    distribution, params = make()
    hidden = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (H,)), (2**D, H))
    total = jnp.exp(distribution.log_prob(params, hidden, all_events())).sum()
    np.testing.assert_allclose(total, 1, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.optimized
def test_extreme_logits_are_finite(dtype):
    distribution, params = make()
    hidden = jnp.full((1, 2, H), 1e4, dtype)
    events = jnp.asarray([[[0] * D, [1] * D]], jnp.uint8)

    def nats(params, hidden):
        return distribution.log_prob(params, hidden, events).sum()

    value, gradients = jax.value_and_grad(nats, argnums=(0, 1))(params, hidden)
    assert jnp.isfinite(value) and value < -1e3
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_frequencies_and_independence_of_rows():
    distribution, params = make()
    count = 20_000
    hidden = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (H,)), (count, H))
    keys = jax.random.split(jax.random.key(2), count)
    for temperature in (1.0, 0.5):
        events = distribution.sample(keys, params, hidden, temperature=temperature)
        logits = np.float64(hidden[0] @ params["kernel"] + params["bias"])
        expected = 1 / (1 + np.exp(-logits / temperature))
        error = np.sqrt(expected * (1 - expected) / count)
        assert (abs(np.asarray(events).mean(0) - expected) < 4 * error).all()
    alone = distribution.sample(keys[7:9], params, hidden[7:9], temperature=0.5)
    np.testing.assert_array_equal(alone, events[7:9])
    greedy = distribution.sample(keys, params, hidden, temperature=0.0)
    np.testing.assert_array_equal(greedy, distribution.mode(params, hidden))


def test_bad_size():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        distributions.bernoulli(0)
    with pytest.raises(ValueError, match="mean must be greater than 0 and less than 1, got 1.0"):
        distributions.bernoulli(3, mean=1.0)


def test_biases_start_at_the_mean():
    distribution = distributions.bernoulli(D, mean=0.05)
    params = distribution.init(jax.random.key(0), H)
    nats = distribution.log_prob(params, jnp.zeros(H), jnp.asarray([1, 0, 0, 0], jnp.uint8))
    np.testing.assert_allclose(nats, np.log(0.05) + 3 * np.log(0.95), rtol=1e-5)
