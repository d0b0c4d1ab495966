"""Waits: scipy, integrals to one, censoring, waits near 0, far tails, samples, temperature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import perturb

from grnn_jax.distributions.lognormal_mixture import lognormal_mixture
from grnn_jax.distributions.waits import exponential, weibull

H = 4
FAMILIES = {
    "lognormal_mixture": functools.partial(lognormal_mixture, num_components=3),
    "weibull": weibull,
    "exponential": exponential,
}
families = pytest.mark.parametrize("name", FAMILIES)


def make(name, **settings):
    distribution = FAMILIES[name](**settings)
    params = perturb(distribution.init(jax.random.key(0), H), scale=0.5)
    return distribution, params, jnp.float32(np.random.default_rng(0).normal(size=H))


def score(distribution, params, hidden, waits, censored):
    """log_prob of many waits given one hidden state."""
    waits = jnp.asarray(waits, params["bias"].dtype)
    event = {"wait": waits, "censored": jnp.full(waits.shape, censored)}
    rows = jnp.broadcast_to(hidden, (waits.size, hidden.size))
    return np.asarray(jax.jit(distribution.log_prob)(params, rows, event))


def bounded(x, limit):
    return limit * np.tanh(x / limit)


def oracle(name, params, hidden):
    """The scipy distributions of wait / scale, and their weights."""
    outputs = np.float64(hidden) @ np.float64(params["kernel"]) + np.float64(params["bias"])
    if name == "lognormal_mixture":
        logits, median, width = outputs.reshape(3, -1)
        width = np.exp(np.where(width < 0, bounded(width, 6), bounded(width, 2)))
        weights = scipy.special.softmax(logits)
        parts = [
            scipy.stats.lognorm(s, scale=np.exp(m))
            for s, m in zip(width, bounded(median, 20), strict=True)
        ]
        return weights, parts
    shape = np.exp(bounded(outputs[1], 2.5)) if name == "weibull" else 1.0
    return [1.0], [scipy.stats.weibull_min(shape, scale=np.exp(bounded(outputs[0], 20)))]


def mixed(weights, parts, function, points):
    return sum(w * getattr(part, function)(points) for w, part in zip(weights, parts, strict=True))


@families
def test_density_and_survival_equal_scipy_in_the_units_of_the_data(name):
    scale = 60.0
    distribution, params, hidden = make(name, scale=scale)
    weights, parts = oracle(name, params, hidden)
    waits = scale * np.geomspace(1e-3, 20, 30)
    density = mixed(weights, parts, "pdf", waits / scale) / scale
    nats = score(distribution, params, hidden, waits, False)
    np.testing.assert_allclose(nats, np.log(density), rtol=1e-4, atol=1e-4)
    survival = mixed(weights, parts, "sf", waits / scale)
    nats = score(distribution, params, hidden, waits, True)
    np.testing.assert_allclose(nats, np.log(survival), rtol=1e-4, atol=1e-6)


@families
def test_the_density_integrates_to_one_and_survival_is_the_integral_of_the_rest(name):
    """Also below min_wait, which is large here."""
    min_wait, scale = 0.2, 3.0
    with jax.enable_x64(True):
        distribution, params, hidden = make(name, scale=scale, min_wait=min_wait)
        params, hidden = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, hidden))
        short = np.linspace(0, min_wait * scale, 9)[:-1]
        log_waits = np.linspace(np.log(min_wait * scale), np.log(1e5), 20_001)
        waits = np.exp(log_waits)
        density = np.exp(score(distribution, params, hidden, waits, False))
        survival = np.exp(score(distribution, params, hidden, waits, True))
        short_density = np.exp(score(distribution, params, hidden, short, False))
        short_survival = np.exp(score(distribution, params, hidden, short, True))
    steps = 0.5 * (density * waits)[1:] + 0.5 * (density * waits)[:-1]
    rest = np.append((steps * np.diff(log_waits))[::-1].cumsum()[::-1], 0)
    np.testing.assert_allclose(survival, rest, atol=1e-6)
    assert (short_density == short_density[0]).all()
    assert short_density[0] > 0.01
    np.testing.assert_allclose(
        short_survival, rest[0] + short_density[0] * (min_wait * scale - short), atol=1e-6
    )
    np.testing.assert_allclose(short_survival[0], 1, rtol=1e-12)


@families
@pytest.mark.optimized
def test_a_wait_of_zero_is_finite_and_a_wait_that_cannot_be_is_nan(name):
    distribution, params, hidden = make(name)
    waits = [0.0, 1e-30, 3e38, -1.0, np.inf, -np.inf, np.nan]
    for censored in (False, True):
        nats = score(distribution, params, hidden, waits, censored)
        assert np.isfinite(nats[:3]).all()
        assert np.isnan(nats[3:]).all()
    np.testing.assert_allclose(nats[0], 0, atol=1e-6)  # censored at 0: nothing is known
    event = {"wait": jnp.float32(waits), "censored": jnp.zeros(7, bool)}
    assert np.isfinite(distribution.encode(params, event)).all()


@families
def test_samples_follow_the_distribution(name):
    """Its distribution function is 1 - S, and min_wait is large enough to matter."""
    distribution, params, hidden = make(name, scale=10.0, min_wait=0.5)
    count = 5_000
    keys = jax.random.split(jax.random.key(1), count)
    rows = jnp.tile(hidden, (count, 1))
    drawn = jax.jit(distribution.sample)(keys, params, rows)
    assert (drawn["wait"] > 0).all()
    assert not drawn["censored"].any()
    assert 100 < (drawn["wait"] < 5.0).sum() < count - 100
    position = 1 - np.exp(score(distribution, params, hidden, drawn["wait"], True))
    assert scipy.stats.kstest(position, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("temperature", [0.25, 3.0])
def test_temperature_tempers_the_density_of_the_logarithm(temperature):
    for name in ("weibull", "exponential"):
        distribution, params, hidden = make(name)
        _, (part,) = oracle(name, params, hidden)
        count = 3_000
        keys = jax.random.split(jax.random.key(2), count)
        rows = jnp.tile(hidden, (count, 1))
        drawn = jax.jit(distribution.sample)(keys, params, rows, temperature=temperature)
        y = np.linspace(-30, 10, 40_001) + np.log(part.kwds["scale"])
        tempered = np.exp((part.logpdf(np.exp(y)) + y) / temperature)
        cdf = tempered.cumsum() / tempered.sum()
        position = np.interp(np.log(np.float64(drawn["wait"])), y, cdf)
        assert scipy.stats.kstest(position, "uniform").pvalue > 1e-3


def test_temperature_of_the_mixture_tempers_weights_and_widths():
    distribution = lognormal_mixture(num_components=2)
    weights, medians, sigmas = np.array([0.7, 0.3]), np.array([-4.0, 4.0]), np.array([0.3, 0.5])
    outputs = [
        *np.log(weights),
        *20 * np.arctanh(medians / 20),
        *6 * np.arctanh(np.log(sigmas) / 6),
    ]
    params = {"kernel": jnp.zeros((1, 6)), "bias": jnp.float32(outputs)}
    count = 5_000
    keys = jax.random.split(jax.random.key(0), count)
    sample = functools.partial(distribution.sample, temperature=0.5)
    drawn = np.log(np.float64(jax.jit(sample)(keys, params, jnp.zeros((count, 1)))["wait"]))
    tempered = weights**2 / (weights**2).sum()
    below = drawn < 0
    assert scipy.stats.binomtest(int(below.sum()), count, tempered[0]).pvalue > 1e-3
    for k, part in enumerate((drawn[below], drawn[~below])):
        standard = (part - medians[k]) / (np.sqrt(0.5) * sigmas[k])
        assert scipy.stats.kstest(standard, "norm").pvalue > 1e-3
    mode = distribution.mode(params, jnp.zeros(1))
    np.testing.assert_allclose(mode["wait"], np.exp(-4.0), rtol=1e-5)


def test_mode_is_the_mode_of_the_density_of_the_logarithm():
    for name in ("weibull", "exponential"):
        distribution, params, hidden = make(name, scale=5.0)
        log_waits = np.linspace(-6, 6, 6001)
        nats = score(distribution, params, hidden, np.exp(log_waits), False) + log_waits
        mode = distribution.mode(params, hidden)
        np.testing.assert_allclose(np.log(mode["wait"]), log_waits[nats.argmax()], atol=0.02)
        assert not mode["censored"]


@pytest.mark.optimized
def test_far_tails_of_the_normal_keep_the_digits_of_value_and_gradient():
    """Censored after z standard deviations: log Φ(-z) and its slope φ(z) / Φ(-z)."""
    distribution = lognormal_mixture(num_components=1, min_wait=1e-30)
    sigma = np.exp(-6 * np.tanh(5 / 6))
    params = {"kernel": jnp.zeros((1, 3)), "bias": jnp.float32([0, 0, -5])}

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    @jax.value_and_grad
    def survival(params, wait):
        event = {"wait": wait, "censored": jnp.bool_(True)}
        return distribution.log_prob(params, jnp.zeros(1), event)

    waits = np.exp(np.float64([-0.5, -0.05, 0.01, 0.04, 0.2, 1.0, 10.0, 60.0]))
    waits = np.float64(np.float32(waits))
    z = np.log(waits) / sigma
    assert z[-1] > 3_000
    nats, gradient = survival(params, jnp.float32(waits))
    np.testing.assert_allclose(nats, scipy.stats.norm.logsf(z), rtol=1e-4, atol=1e-7)
    # d log Φ((μ - y) / σ) / dμ; erfcx is exp(x²) erfc(x).
    hazard = np.sqrt(2 / np.pi) / scipy.special.erfcx(z / np.sqrt(2))
    np.testing.assert_allclose(gradient["bias"][:, 1], hazard / sigma, rtol=1e-4, atol=1e-7)


@families
def test_scale_is_a_change_of_units(name):
    unit, params, hidden = make(name)
    scaled, _, _ = make(name, scale=250.0)
    waits = np.geomspace(1e-2, 10, 7)
    for censored, shift in ((False, np.log(250.0)), (True, 0.0)):
        expected = score(unit, params, hidden, waits, censored) - shift
        actual = score(scaled, params, hidden, 250.0 * waits, censored)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    event = {"wait": jnp.float32(waits), "censored": jnp.zeros(7, bool)}
    in_units = {"wait": jnp.float32(250 * waits), "censored": jnp.ones(7, bool)}
    encoding, other = unit.encode(params, event), scaled.encode(params, in_units)
    np.testing.assert_allclose(encoding[:, 0], other[:, 0], atol=1e-5)
    np.testing.assert_allclose(encoding[:, 0], 10 * np.tanh(np.log(waits) / 10), atol=1e-5)
    np.testing.assert_array_equal(encoding[:, 1], np.zeros(7))
    np.testing.assert_array_equal(other[:, 1], np.ones(7))
    assert unit.is_density
    np.testing.assert_array_equal(unit.is_end(in_units), np.ones(7, bool))


@families
@pytest.mark.parametrize("setting", ["scale", "min_wait"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
def test_wrong_settings_are_named(name, setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be positive, got {value}"):
        FAMILIES[name](**{setting: value})


def test_the_number_of_components_is_checked():
    with pytest.raises(ValueError, match="num_components must be at least 1, got 0"):
        lognormal_mixture(num_components=0)
