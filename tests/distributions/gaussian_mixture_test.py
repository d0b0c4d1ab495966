"""The Gaussian mixture: SciPy on components read by hand, its samples, its options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import perturb, to_numpy

from grnn_jax.distributions.gaussian import gaussian
from grnn_jax.distributions.gaussian_mixture import gaussian_mixture

H, D, K = 5, 3, 4


def jitted(distribution):
    functions = ("log_prob", "sample", "mode", "encode")
    return distribution._replace(
        **{name: jax.jit(getattr(distribution, name)) for name in functions}
    )


def make(covariance, seed=0):
    distribution = jitted(gaussian_mixture(D, num_components=K, covariance=covariance))
    params = perturb(distribution.init(jax.random.key(0), H), scale=0.5)
    hidden = jnp.float32(np.random.default_rng(seed).normal(size=H))
    return distribution, params, hidden


def components(params, hidden, covariance):
    """log π [K], means [K, D] and covariances [K, D, D]; a component is a `gaussian`."""
    layer, hidden = to_numpy(params), np.asarray(hidden, np.float64)
    logits = (hidden @ layer["kernel"] + layer["bias"])[:K]
    width = (layer["bias"].size - K) // K
    rows = np.arange(K)[:, None] * width + np.arange(K, K + width)
    component = gaussian(D, covariance=covariance)
    with jax.enable_x64(True):

        @jax.jit
        @jax.vmap
        def slope_and_curvature(kernel, bias):
            def log_prob(x):
                return component.log_prob({"kernel": kernel, "bias": bias}, jnp.asarray(hidden), x)

            origin = jnp.zeros(D, jnp.float64)
            return jax.grad(log_prob)(origin), jax.hessian(log_prob)(origin)

        own = jnp.asarray(layer["kernel"][:, rows].swapaxes(0, 1)), jnp.asarray(layer["bias"][rows])
        slopes, curvatures = map(np.asarray, slope_and_curvature(*own))
    covariances = np.linalg.inv(-curvatures)
    means = np.einsum("kij,kj->ki", covariances, slopes)
    return scipy.special.log_softmax(logits), means, covariances


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_log_prob_equals_scipy(covariance):
    distribution, params, hidden = make(covariance)
    log_weights, means, covariances = components(params, hidden, covariance)
    events = 3 * np.random.default_rng(1).normal(size=(20, D))
    nats = distribution.log_prob(params, jnp.tile(hidden, (20, 1)), jnp.float32(events))
    by_component = [
        scipy.stats.multivariate_normal.logpdf(events, mean, cov)
        for mean, cov in zip(means, covariances, strict=True)
    ]
    expected = scipy.special.logsumexp(log_weights[:, None] + by_component, 0)
    np.testing.assert_allclose(nats, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5}, {"bias": 1.0}, {"bias": 0.5, "temperature": 2.0}]
)
def test_samples_have_the_distribution(covariance, options):
    distribution, params, hidden = make(covariance)
    log_weights, means, covariances = components(params, hidden, covariance)
    count = 4000
    drawn = distribution.sample(
        jax.random.split(jax.random.key(1), count), params, jnp.tile(hidden, (count, 1)), **options
    )
    temperature, bias = options.get("temperature", 1), options.get("bias", 0)
    weights = scipy.special.softmax(log_weights * (1 + bias) / temperature)
    factor = temperature * np.exp(-2 * bias)
    # A projection of a mixture of Gaussians is a mixture of Gaussians on the line.
    directions = np.concatenate([np.eye(D), np.random.default_rng(2).normal(size=(3, D))])
    for direction in directions:
        centre = means @ direction
        spread = np.sqrt(factor * np.einsum("i,kij,j->k", direction, covariances, direction))

        def cdf(x, centre=centre, spread=spread):
            return scipy.stats.norm.cdf(x[:, None], centre, spread) @ weights

        assert scipy.stats.kstest(np.asarray(drawn) @ direction, cdf).pvalue > 1e-3


def test_options_may_differ_between_rows():
    distribution, params, hidden = make("full")
    keys, rows = jax.random.split(jax.random.key(3), 6), jnp.tile(hidden, (6, 1))
    bias = jnp.asarray([0, 0, 0, 50, 50, 50], jnp.float32)
    drawn = distribution.sample(keys, params, rows, bias=bias)
    np.testing.assert_allclose(drawn[3:], distribution.mode(params, rows)[3:], rtol=1e-5)
    np.testing.assert_allclose(drawn[:3], distribution.sample(keys, params, rows)[:3], rtol=1e-5)


def test_mode_is_the_mean_of_the_heaviest_component():
    for seed in range(4):
        distribution, params, hidden = make("full", seed)
        log_weights, means, _ = components(params, hidden, "full")
        expected = means[log_weights.argmax()]
        np.testing.assert_allclose(distribution.mode(params, hidden), expected, rtol=1e-4)


def test_components_start_apart():
    distribution = gaussian_mixture(2, num_components=6)
    params = distribution.init(jax.random.key(0), H)
    means = np.asarray(params["bias"][6:]).reshape(6, 4)[:, :2]
    distances = np.linalg.norm(means[:, None] - means, axis=-1)[np.triu_indices(6, 1)]
    assert distances.min() > 0.05


def test_num_components_is_checked():
    with pytest.raises(ValueError, match="num_components must be at least 1, got 0"):
        gaussian_mixture(2, num_components=0)
