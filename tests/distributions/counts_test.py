"""Counts: numpyro, float64 at a million, Poisson limit, samples, exact modes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
import scipy.stats
from helpers import perturb, to_numpy

from grnn_jax.distributions.counts import (
    negative_binomial,
    poisson,
    zero_inflated_negative_binomial,
    zero_inflated_poisson,
)

H, D = 4, 3
MEAN = np.array([0.5, 3.0, 40.0])
FAMILIES = {
    "poisson": poisson,
    "negative_binomial": negative_binomial,
    "zero_inflated_poisson": zero_inflated_poisson,
    "zero_inflated_negative_binomial": zero_inflated_negative_binomial,
}
families = pytest.mark.parametrize("name", FAMILIES)


def make(name):
    distribution = FAMILIES[name](D, mean=MEAN)
    params = perturb(distribution.init(jax.random.key(0), H), scale=0.5)
    hidden = jnp.float32(np.random.default_rng(0).normal(size=(30, H)))
    return distribution, params, hidden


def constant(name, rate, dispersion=None, zero=None):
    """One count with the given parameters, whatever the hidden state is."""
    distribution = FAMILIES[name](1, mean=rate)
    params = jax.tree.map(jnp.zeros_like, distribution.init(jax.random.key(0), 1))
    if dispersion is not None:
        params["bias_dispersion"] += 12 * np.arctanh(np.log(dispersion) / 12)
    if zero is not None:
        params["bias_zero"] += np.log(zero / (1 - zero))
    return distribution, params


def score(distribution, params, counts):
    counts = jnp.asarray(counts, jnp.int32)[:, None]
    return np.float64(jax.jit(distribution.log_prob)(params, jnp.zeros((len(counts), 1)), counts))


def numpyro_distribution(params, hidden):
    params, hidden = to_numpy(params), np.float64(hidden)

    def output(name):
        return hidden @ params[f"kernel_{name}"] + params[f"bias_{name}"]

    rate = MEAN * np.exp(20 * np.tanh(output("rate") / 20))
    if "bias_dispersion" in params:
        concentration = np.exp(-12 * np.tanh(output("dispersion") / 12))
        base = numpyro.distributions.NegativeBinomial2(rate, concentration)
    else:
        base = numpyro.distributions.Poisson(rate)
    if "bias_zero" not in params:
        return base
    return numpyro.distributions.ZeroInflatedDistribution(base, gate_logits=output("zero"))


@families
def test_log_prob_equals_numpyro(name):
    distribution, params, hidden = make(name)
    events = jnp.int32(np.random.default_rng(1).poisson(MEAN, (30, D)))
    assert (events == 0).any()
    nats = jax.jit(distribution.log_prob)(params, hidden, events)
    with jax.enable_x64(True):
        oracle = numpyro_distribution(params, hidden).log_prob(np.asarray(events))
        expected = np.asarray(oracle.sum(-1))
    np.testing.assert_allclose(nats, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1_000, 10**6])
@pytest.mark.optimized
def test_large_counts_keep_their_digits(count):
    """The terms of the sum are as large as 1.4e7, the sum is about -8."""
    rate = np.float32(count)
    counts = count + np.int64(np.sqrt(count) * np.arange(-3, 4))
    nats = score(*constant("poisson", rate), counts)
    np.testing.assert_allclose(nats, scipy.stats.poisson.logpmf(counts, rate), atol=2e-3)
    for dispersion in (1e-3, 1.0, 30.0):
        nats = score(*constant("negative_binomial", rate, dispersion), counts)
        r = 1 / dispersion
        expected = scipy.stats.nbinom.logpmf(counts, r, r / (r + float(rate)))
        np.testing.assert_allclose(nats, expected, atol=2e-3)


@pytest.mark.optimized
def test_the_gradient_at_a_million_is_the_residual():
    """d log p / d log λ = x - λ."""
    distribution, params = constant("poisson", 1e6)

    def nats(params, count):
        return distribution.log_prob(params, jnp.zeros(1), count[None])

    counts = jnp.int32([10**6 - 5000, 10**6 + 100, 2 * 10**6])
    gradient = jax.jit(jax.vmap(jax.grad(nats), (None, 0)))(params, counts)["bias_rate"][:, 0]
    np.testing.assert_allclose(gradient, np.float64(counts) - 1e6, rtol=1e-3, atol=1)


def test_a_small_dispersion_is_the_poisson_distribution():
    counts = np.arange(40)
    nats = score(*constant("negative_binomial", 12.0, 7e-6), counts)
    expected = scipy.stats.poisson.logpmf(counts, 12.0)
    # The variance is larger by a factor 1 + 12 · 7e-6.
    np.testing.assert_allclose(nats, expected, atol=1e-2)


def test_probabilities_sum_to_one_with_the_given_mean():
    counts = np.arange(3000)
    cases = {
        "poisson": (1.0, None, None),
        "negative_binomial": (5.0, 2.0, None),
        "zero_inflated_poisson": (7.0, None, 0.3),
        "zero_inflated_negative_binomial": (5.0, 1.5, 0.3),
    }
    for name, (rate, dispersion, zero) in cases.items():
        p = np.exp(score(*constant(name, rate, dispersion, zero), counts))
        np.testing.assert_allclose(p.sum(), 1, rtol=1e-5)
        np.testing.assert_allclose((p * counts).sum(), rate * (1 - (zero or 0)), rtol=1e-4)
        if zero is None:
            variance = rate + (dispersion or 0) * rate**2
            np.testing.assert_allclose((p * (counts - rate) ** 2).sum(), variance, rtol=1e-3)


def test_the_initial_mean_is_the_mean_of_the_data():
    for make_family in FAMILIES.values():
        distribution = make_family(1, mean=6.0)
        params = distribution.init(jax.random.key(0), 1)
        p = np.exp(score(distribution, params, np.arange(500)))
        np.testing.assert_allclose((p * np.arange(500)).sum(), 6.0, rtol=1e-3)


CASES = [
    ("poisson", 0.4, None, None),
    ("poisson", 30.0, None, None),
    ("poisson", 2e4, None, None),
    ("poisson", 1e8, None, None),
    ("negative_binomial", 5.0, 0.5, None),
    ("negative_binomial", 1e6, 20.0, None),
    ("zero_inflated_poisson", 4.0, None, 0.3),
    ("zero_inflated_negative_binomial", 8.0, 2.0, 0.6),
]


@pytest.mark.parametrize(("name", "rate", "dispersion", "zero"), CASES)
def test_samples_follow_the_distribution(name, rate, dispersion, zero):
    distribution, params = constant(name, rate, dispersion, zero)
    count = 20_000
    keys = jax.random.split(jax.random.key(3), count)
    drawn = jax.jit(distribution.sample)(keys, params, jnp.zeros((count, 1)))
    drawn = np.asarray(drawn[:, 0], np.float64)
    rate = np.float64(np.float32(rate))
    if dispersion is None:
        oracle = scipy.stats.poisson(rate)
    else:
        oracle = scipy.stats.nbinom(1 / dispersion, 1 / (1 + dispersion * rate))
    # A uniform number between F(x - 1) and F(x) is uniform on [0, 1].
    uniform = np.random.default_rng(0).random(count)
    position = oracle.cdf(drawn - 1) + uniform * oracle.pmf(drawn)
    if zero is not None:
        position = (1 - zero) * position + zero * np.where(drawn == 0, uniform, 1)
    assert scipy.stats.kstest(position, "uniform").pvalue > 1e-3


@families
def test_the_mode_is_the_most_probable_count(name):
    distribution, params, hidden = make(name)
    # Fewer zeros and less dispersion, so that the modes are not all 0.
    shifts = {"bias_zero": -3.0, "bias_dispersion": -2.0}
    params = {key: leaf + shifts.get(key, 0) for key, leaf in params.items()}
    mode = np.asarray(distribution.mode(params, hidden))
    counts = np.arange(mode.max() + 200)
    nats = numpyro_distribution(params, hidden).log_prob(counts[:, None, None])
    np.testing.assert_array_equal(mode, np.asarray(nats).argmax(0))
    assert len(np.unique(mode)) > 10
    assert mode.min() == 0


def test_negative_counts_are_nan_and_encode_as_zero():
    for name in FAMILIES:
        distribution, params, hidden = make(name)
        events = jnp.int32([[0, 0, 0], [0, -1, 2]])
        nats = distribution.log_prob(params, hidden[:2], events)
        np.testing.assert_array_equal(np.isnan(nats), [False, True])
        assert distribution.encode(params, events)[1, 1] == 0


def test_encoding_is_logarithmic():
    distribution = poisson(2, mean=[1.0, 100.0])
    params = distribution.init(jax.random.key(0), H)
    encoding = distribution.encode(params, jnp.int32([0, 10**6]))
    np.testing.assert_allclose(encoding, [0, np.log1p(1e6) / (1 + np.log1p(100))], rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "mean", "message"),
    [
        (0, 1.0, "size must be at least 1, got 0"),
        (2, 0.0, "mean must be positive, one number or 2 of them, got 0.0"),
        (2, [1.0, np.inf], r"mean must be positive, one number or 2 of them, got \[1.0, inf\]"),
        (2, [1.0, 2.0, 3.0], "mean must be positive, one number or 2 of them"),
    ],
)
def test_wrong_settings_are_named(size, mean, message):
    for make_family in FAMILIES.values():
        with pytest.raises(ValueError, match=message):
            make_family(size, mean=mean)


@pytest.mark.parametrize("rate", [2e4, 1e6, 3e7, 2e9])
@pytest.mark.optimized
def test_large_samples_have_the_right_distribution_function(rate, monkeypatch):
    """From equally probable normal numbers; those drawn could not tell 1e-5 from chance."""
    count = 2**18
    grid = jnp.float32(scipy.stats.norm.ppf((np.arange(count) + 0.5) / count))
    monkeypatch.setattr(jax.random, "normal", lambda *_: grid)
    distribution = poisson(count, mean=rate)
    params = {"kernel_rate": jnp.zeros((1, count)), "bias_rate": jnp.zeros(count)}
    drawn = distribution.sample(jax.random.key(0)[None], params, jnp.zeros((1, 1)))[0]
    assert abs(np.mean(np.asarray(drawn) % 2) - 0.5) < 0.01
    values, counts = np.unique(np.asarray(drawn, np.float64), return_counts=True)
    expected = scipy.stats.poisson.cdf(values, np.float64(np.float32(rate)))
    np.testing.assert_allclose(counts.cumsum() / count, expected, rtol=0, atol=1.2e-5)
