"""Student's t: SciPy, numpyro, its samples, its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
import scipy.stats
from helpers import perturb, to_numpy

from grnn_jax.distributions.gaussian import gaussian
from grnn_jax.distributions.student_t import MAX_DEGREES, MIN_DEGREES, student_t

H, D = 5, 3


def jitted(distribution):
    functions = ("log_prob", "sample", "mode", "encode")
    return distribution._replace(
        **{name: jax.jit(getattr(distribution, name)) for name in functions}
    )


def make(covariance):
    distribution = jitted(student_t(D, covariance=covariance))
    params = perturb(distribution.init(jax.random.key(0), H))
    hidden = jnp.float32(np.random.default_rng(0).normal(size=H))
    return distribution, params, hidden


def degrees_of(params, hidden):
    layer = to_numpy(params["degrees"])
    raw = np.asarray(hidden, np.float64) @ layer["kernel"] + layer["bias"]
    low, high = np.log(MIN_DEGREES - 2), np.log(MAX_DEGREES - 2)
    return 2 + np.exp(high - np.logaddexp(0, high - (low + np.logaddexp(0, raw - low))))


def location_and_shape(params, hidden, covariance):
    """Of the Gaussian with the same affine layer, whose own test compares it to SciPy."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params["affine"])
        hidden, origin = jnp.asarray(hidden, jnp.float64), jnp.zeros(D, jnp.float64)

        @jax.jit
        def log_prob(x):
            return gaussian(D, covariance=covariance).log_prob(params, hidden, x)

        shape = np.linalg.inv(-np.asarray(jax.jit(jax.hessian(log_prob))(origin)))
        return shape @ np.asarray(jax.grad(log_prob)(origin)), shape


def test_independent_elements_equal_scipy():
    distribution, params, hidden = make("diagonal")
    location, shape = location_and_shape(params, hidden, "diagonal")
    degrees = degrees_of(params, hidden)
    assert len(np.unique(degrees)) == D
    events = np.float32(location + 4 * np.random.default_rng(1).standard_t(2, size=(20, D)))
    nats = distribution.log_prob(params, jnp.tile(hidden, (20, 1)), jnp.asarray(events))
    expected = scipy.stats.t.logpdf(events, degrees, location, np.sqrt(np.diag(shape))).sum(-1)
    np.testing.assert_allclose(nats, expected, rtol=1e-5, atol=1e-4)


def test_full_equals_scipy_and_numpyro():
    distribution, params, hidden = make("full")
    location, shape = location_and_shape(params, hidden, "full")
    degrees = degrees_of(params, hidden)
    assert degrees.shape == (1,)
    events = np.float32(location + 4 * np.random.default_rng(1).standard_t(2, size=(20, D)))
    nats = distribution.log_prob(params, jnp.tile(hidden, (20, 1)), jnp.asarray(events))
    expected = scipy.stats.multivariate_t.logpdf(events, location, shape, df=degrees[0])
    np.testing.assert_allclose(nats, expected, rtol=1e-5, atol=1e-4)
    oracle = numpyro.distributions.MultivariateStudentT(
        degrees[0], jnp.float32(location), jnp.linalg.cholesky(jnp.float32(shape))
    )
    np.testing.assert_allclose(nats, oracle.log_prob(events), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_samples_have_the_distribution(covariance):
    distribution, params, hidden = make(covariance)
    # Few degrees of freedom, so that a Gaussian would be told apart.
    params["degrees"]["bias"] -= 2
    location, shape = location_and_shape(params, hidden, covariance)
    degrees, count = degrees_of(params, hidden), 4000
    keys = jax.random.split(jax.random.key(1), count)
    rows = jnp.tile(hidden, (count, 1))
    drawn = np.asarray(distribution.sample(keys, params, rows), np.float64)
    white = np.linalg.solve(np.linalg.cholesky(shape), (drawn - location).T).T
    assert scipy.stats.kstest(white[:, 0], "norm").pvalue < 1e-3
    for d in range(D):
        own = degrees[d % len(degrees)]
        assert scipy.stats.kstest(white[:, d], "t", args=(own,)).pvalue > 1e-3
    if covariance == "full":  # one scale for all elements
        squares = (white**2).sum(-1) / D
        assert scipy.stats.kstest(squares, "f", args=(D, degrees[0])).pvalue > 1e-3
    else:
        dependence = scipy.stats.spearmanr(white[:, 0] ** 2, white[:, 1] ** 2)
        assert dependence.pvalue > 1e-3
    hotter = np.asarray(distribution.sample(keys, params, rows, temperature=4.0), np.float64)
    np.testing.assert_allclose(hotter - location, 2 * (drawn - location), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("bias", "degrees"), [(-1e6, MIN_DEGREES), (1e6, MAX_DEGREES)])
def test_degrees_of_freedom_are_bounded(bias, degrees):
    distribution, params, hidden = make("full")
    params["degrees"]["bias"] = jnp.full((1,), bias)
    location, shape = location_and_shape(params, hidden, "full")
    events = np.float32(location + np.array([[0, 0, 0], [3, 0, -9], [1e6, 0, 0]]))
    nats = distribution.log_prob(params, jnp.tile(hidden, (3, 1)), jnp.asarray(events))
    expected = scipy.stats.multivariate_t.logpdf(events, location, shape, df=degrees)
    np.testing.assert_allclose(nats, expected, rtol=1e-4, atol=1e-3)
