"""The Gaussian: SciPy, the curvature of its log density, its samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import perturb, to_numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from grnn_jax.distributions.gaussian import MAX_SCALE, gaussian, triangle

H = 5


def jitted(distribution):
    functions = ("log_prob", "sample", "mode", "encode")
    return distribution._replace(
        **{name: jax.jit(getattr(distribution, name)) for name in functions}
    )


def make(size, **options):
    distribution = jitted(gaussian(size, **options))
    params = perturb(distribution.init(jax.random.key(0), H))
    return distribution, params, np.random.default_rng(0)


def numpy_bounded(x, low, high):
    return high - np.logaddexp(0, high - (low + np.logaddexp(0, x - low)))


def outputs(params, hidden, min_scale=1e-4):
    """The linear layer, its scales bounded: mean, s and the rest of one row."""
    params, hidden = to_numpy(params), np.asarray(hidden, np.float64)
    size = 4
    out = hidden @ params["kernel"] + params["bias"]
    log_scale = numpy_bounded(out[size : 2 * size], np.log(min_scale), np.log(MAX_SCALE))
    return out[:size], np.exp(log_scale), out[2 * size :]


def test_diagonal_equals_scipy():
    distribution, params, rng = make(4)
    hidden, events = rng.normal(size=(6, H)), 3 * rng.normal(size=(6, 4))
    nats = distribution.log_prob(params, jnp.float32(hidden), jnp.float32(events))
    for row in range(6):
        mean, scale, _ = outputs(params, np.float32(hidden[row]))
        expected = scipy.stats.norm.logpdf(events[row], mean, scale).sum()
        np.testing.assert_allclose(nats[row], expected, rtol=1e-5, atol=1e-5)


def covariance_of(distribution, params, hidden):
    """From the second derivative of the log density, whatever its parameters are."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        hidden = jnp.asarray(hidden, jnp.float64)
        curvature = jax.jit(jax.hessian(lambda x: distribution.log_prob(params, hidden, x)))
        return np.linalg.inv(-np.asarray(curvature(jnp.zeros(4, jnp.float64))))


def test_full_equals_scipy():
    distribution, params, rng = make(4, covariance="full")
    hidden, events = jnp.float32(rng.normal(size=H)), 3 * rng.normal(size=(6, 4))
    mean, scale, _ = outputs(params, hidden)
    covariance = covariance_of(distribution, params, hidden)
    nats = distribution.log_prob(params, jnp.tile(hidden, (6, 1)), jnp.float32(events))
    expected = scipy.stats.multivariate_normal.logpdf(events, mean, covariance)
    np.testing.assert_allclose(nats, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(np.corrcoef(covariance)[np.triu_indices(4, 1)]).min() > 0.01
    # s_d is the standard deviation of element d given those before it.
    for d in range(4):
        before = covariance[:d, :d], covariance[d, :d]
        variance = (
            covariance[d, d] - before[1] @ np.linalg.solve(*before) if d else covariance[0, 0]
        )
        np.testing.assert_allclose(scale[d], np.sqrt(variance), rtol=1e-6)


def test_full_is_diagonal_where_the_factor_is():
    full, params, rng = make(4, covariance="full")
    params = {"kernel": params["kernel"].at[:, 8:].set(0), "bias": params["bias"].at[8:].set(0)}
    hidden, events = jnp.float32(rng.normal(size=(6, H))), jnp.float32(rng.normal(size=(6, 4)))
    expected = gaussian(4).log_prob(
        jax.tree.map(lambda leaf: leaf[..., :8], params), hidden, events
    )
    np.testing.assert_allclose(full.log_prob(params, hidden, events), expected, rtol=1e-6)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_samples_have_the_distribution(covariance, temperature):
    distribution, params, rng = make(4, covariance=covariance)
    hidden, count = jnp.float32(rng.normal(size=H)), 4000
    drawn = np.asarray(
        distribution.sample(
            jax.random.split(jax.random.key(1), count),
            params,
            jnp.tile(hidden, (count, 1)),
            temperature=temperature,
        ),
        np.float64,
    )
    mean, _, _ = outputs(params, hidden)
    expected = temperature * covariance_of(distribution, params, hidden)
    # Independent standard normal numbers, if and only if the covariance is the expected one.
    white = np.linalg.solve(np.linalg.cholesky(expected), (drawn - mean).T).T
    for d in range(4):
        assert scipy.stats.kstest(white[:, d], "norm").pvalue > 1e-3
    assert scipy.stats.kstest((white**2).sum(-1), "chi2", args=(4,)).pvalue > 1e-3
    correlations = np.corrcoef(white.T)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(count)


def test_mode_is_the_most_probable_event():
    distribution, params, rng = make(
        4, covariance="full", shift=np.arange(4.0), scale=(1.0, 2.0, 3.0, 4.0)
    )
    hidden = jnp.float32(rng.normal(size=(3, H)))
    mode = distribution.mode(params, hidden)
    slope = jax.grad(lambda x: distribution.log_prob(params, hidden, x).sum())(mode)
    np.testing.assert_allclose(slope, 0, atol=1e-4)


def test_one_element_has_no_covariance_to_learn():
    full, params, rng = make(1, covariance="full")
    hidden, events = jnp.float32(rng.normal(size=(6, H))), jnp.float32(rng.normal(size=(6, 1)))
    np.testing.assert_allclose(
        full.log_prob(params, hidden, events),
        gaussian(1).log_prob(params, hidden, events),
        rtol=1e-6,
    )
    keys = jax.random.split(jax.random.key(0), 6)
    np.testing.assert_allclose(
        full.sample(keys, params, hidden), gaussian(1).sample(keys, params, hidden), rtol=1e-5
    )


@settings(deadline=None, max_examples=10)
@given(n=st.integers(1, 9))
def test_triangle_holds_every_element_once(n):
    elements = 1 + jnp.arange(n * (n + 1) // 2, dtype=jnp.float32)
    matrix = np.asarray(triangle(elements, n))
    np.testing.assert_array_equal(matrix, np.tril(matrix))
    np.testing.assert_array_equal(np.sort(matrix[np.tril_indices(n)]), elements)


def test_starts_near_the_standardised_data():
    size = 40
    distribution = jitted(gaussian(size, covariance="full"))
    params = distribution.init(jax.random.key(0), 16)
    hidden = jnp.tanh(jax.random.normal(jax.random.key(1), (300, 16)))
    drawn = distribution.sample(jax.random.split(jax.random.key(2), 300), params, hidden)
    assert 0.5 < np.abs(drawn).mean() < 3
