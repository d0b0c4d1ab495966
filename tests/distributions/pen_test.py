"""Pen movements: the equations of Graves 2013 written out, the end of a drawing, samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import perturb, to_numpy

from grnn_jax.distributions.pen import pen

H, K, SCALE = 5, 3, 20.0


def jitted(distribution):
    functions = ("log_prob", "sample", "mode", "encode")
    return distribution._replace(
        **{name: jax.jit(getattr(distribution, name)) for name in functions}
    )


def make(dtype=None, **options):
    distribution = jitted(pen(num_components=K, scale=SCALE, **options))
    params = perturb(distribution.init(jax.random.key(0), H), dtype=dtype)
    return distribution, params, np.random.default_rng(0)


def event(offset, state):
    return {"offset": jnp.float32(offset), "pen": jnp.asarray(state, jnp.int32)}


def parts(params, hidden):
    """Pen logits, then π logits, μ, conditional s and regression of each component, one row."""
    params, hidden = to_numpy(params), np.asarray(hidden, np.float64)
    logits, out = (hidden @ params[k]["kernel"] + params[k]["bias"] for k in ("pen", "offset"))
    rows = out[K:].reshape(K, 5)
    low, high = np.log(1e-4), np.log(1e6)
    log_s = high - np.logaddexp(0, high - (low + np.logaddexp(0, rows[:, 2:4] - low)))
    return logits, out[:K], rows[:, :2], np.exp(log_s), -rows[:, 4]


def bivariate(params, hidden):
    """log π, means, σ [K, 2] and ρ [K], in units of the data."""
    _, weights, mean, s, slope = parts(params, hidden)
    # z_2 = slope z_1 + s_2 ε_2
    sigma = np.stack([s[:, 0], np.hypot(slope * s[:, 0], s[:, 1])], -1)
    rho = slope * s[:, 0] / sigma[:, 1]
    return scipy.special.log_softmax(weights), SCALE * mean, SCALE * sigma, rho


def graves_log_density(offset, log_weights, mean, sigma, rho):
    """Equations 24 and 25 of Graves 2013, for one offset [2]."""
    (x1, x2), (m1, m2), (s1, s2) = offset, mean.T, sigma.T
    z = ((x1 - m1) / s1) ** 2 + ((x2 - m2) / s2) ** 2
    z = z - 2 * rho * (x1 - m1) * (x2 - m2) / (s1 * s2)
    density = np.exp(-z / (2 * (1 - rho**2))) / (2 * np.pi * s1 * s2 * np.sqrt(1 - rho**2))
    return np.log(np.sum(np.exp(log_weights) * density))


def test_log_prob_equals_the_equations():
    distribution, params, rng = make()
    hidden = jnp.float32(rng.normal(size=(4, 3, H)))
    events = event(SCALE * rng.normal(size=(4, 3, 2)), [[0, 1, 2]] * 4)
    nats = distribution.log_prob(params, hidden, events)
    for index in np.ndindex(4, 3):
        state = int(events["pen"][index])
        expected = scipy.special.log_softmax(parts(params, hidden[index])[0])[state]
        if state != 2:
            mixture = bivariate(params, hidden[index])
            assert np.abs(mixture[-1]).max() > 0.05
            expected += graves_log_density(np.asarray(events["offset"][index]), *mixture)
        np.testing.assert_allclose(nats[index], expected, rtol=1e-5, atol=1e-5)


def test_probabilities_sum_to_one():
    with jax.enable_x64(True):
        distribution, params, rng = make(jnp.float64)
        hidden = rng.normal(size=H)
        u = np.linspace(-7, 7, 301)
        offsets = np.stack(np.meshgrid(SCALE * np.sinh(u), SCALE * np.sinh(u)), -1).reshape(-1, 2)
        area = np.outer(np.cosh(u), np.cosh(u)).ravel() * (SCALE * (u[1] - u[0])) ** 2
        total = 0.0
        for state in (0, 1):
            events = {"offset": jnp.asarray(offsets), "pen": jnp.full((len(offsets),), state)}
            nats = distribution.log_prob(params, jnp.tile(hidden, (len(offsets), 1)), events)
            total += (np.exp(nats) * area).sum()
        end = {"offset": jnp.zeros(2), "pen": jnp.asarray(2)}
        total += np.exp(distribution.log_prob(params, jnp.asarray(hidden), end))
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e30, np.inf, np.nan])
@pytest.mark.optimized
def test_offset_of_the_end_is_ignored(offset):
    distribution, params, rng = make()
    hidden = jnp.float32(rng.normal(size=(2, H)))
    events, zeros = (event(np.full((2, 2), value), [2, 2]) for value in (offset, 0.0))

    def value_and_gradient(events):
        def loss(params):
            return distribution.log_prob(params, hidden, events).sum()

        return jax.jit(jax.value_and_grad(loss))(params)

    value, gradient = value_and_gradient(events)
    assert value == value_and_gradient(zeros)[0]
    for leaf in jax.tree.leaves(gradient["offset"]):
        np.testing.assert_array_equal(leaf, 0)
    assert np.abs(gradient["pen"]["bias"]).max() > 0
    np.testing.assert_array_equal(
        distribution.encode(params, events), distribution.encode(params, zeros)
    )


def test_other_events_are_not_valid():
    distribution, params, _ = make()
    events = event(np.zeros((4, 2)), [-1, 3, 0, 2])
    events["offset"] = events["offset"].at[2, 0].set(jnp.nan)
    nats = distribution.log_prob(params, jnp.ones((4, H)), events)
    assert np.isnan(nats).tolist() == [True, True, True, False]
    assert np.isfinite(distribution.encode(params, events)).all()


def test_encoding_and_end():
    distribution, params, _ = make()
    events = event([[20.0, -40.0], [1.0, 2.0], [3.0, 4.0]], [0, 1, 2])
    np.testing.assert_allclose(
        distribution.encode(params, events),
        [[1, -2, 1, 0, 0], [0.05, 0.1, 0, 1, 0], [0, 0, 0, 0, 1]],
        rtol=1e-6,
    )
    assert distribution.encoding_size == 5
    assert distribution.is_end(events).tolist() == [False, False, True]
    assert distribution.is_density


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"bias": 1.0}])
def test_samples_have_the_distribution(options):
    distribution, params, rng = make()
    hidden, count = jnp.float32(rng.normal(size=H)), 6000
    drawn = distribution.sample(
        jax.random.split(jax.random.key(1), count), params, jnp.tile(hidden, (count, 1)), **options
    )
    temperature, bias = options.get("temperature", 1), options.get("bias", 0)
    state, offset = np.asarray(drawn["pen"]), np.asarray(drawn["offset"], np.float64)
    probabilities = scipy.special.softmax(parts(params, hidden)[0] / temperature)
    counts = np.bincount(state, minlength=3)
    assert scipy.stats.chisquare(counts, count * probabilities).pvalue > 1e-3
    np.testing.assert_array_equal(offset[state == 2], 0)

    log_weights, mean, sigma, rho = bivariate(params, hidden)
    weights = scipy.special.softmax(log_weights * (1 + bias) / temperature)
    sigma = sigma * np.exp(-bias) * np.sqrt(temperature)
    for a, b in ((1, 0), (0, 1), (1, 1), (1, -1)):
        variance = (a * sigma[:, 0]) ** 2 + (b * sigma[:, 1]) ** 2
        variance = variance + 2 * a * b * rho * sigma[:, 0] * sigma[:, 1]

        def cdf(x, centre=mean @ (a, b), variance=variance):
            return scipy.stats.norm.cdf(x[:, None], centre, np.sqrt(variance)) @ weights

        for pen_state in (0, 1):  # the offset does not depend on it
            projected = offset[state == pen_state] @ (a, b)
            assert scipy.stats.kstest(projected, cdf).pvalue > 1e-3


@pytest.mark.optimized
def test_samples_of_a_row_depend_on_its_key_and_hidden_only():
    distribution, params, rng = make()
    hidden = jnp.float32(rng.normal(size=(8, H)))
    keys = jax.random.split(jax.random.key(2), 16)
    together = distribution.sample(keys[:8], params, hidden)
    for row in range(8):
        own = jnp.arange(8) == row
        others = distribution.sample(
            jnp.where(own, keys[:8], keys[8:]), params, jnp.where(own[:, None], hidden, 9.0)
        )
        np.testing.assert_allclose(others["offset"][row], together["offset"][row], rtol=1e-6)
        assert others["pen"][row] == together["pen"][row]


def test_temperature_zero_is_the_mode():
    distribution, params, rng = make()
    hidden = jnp.float32(3 * rng.normal(size=(40, H)))
    keys = jax.random.split(jax.random.key(3), 40)
    greedy = distribution.sample(keys, params, hidden, temperature=0.0)
    mode = distribution.mode(params, hidden)
    np.testing.assert_array_equal(greedy["pen"], mode["pen"])
    np.testing.assert_allclose(greedy["offset"], mode["offset"], rtol=1e-6)
    assert set(np.asarray(mode["pen"])) == {0, 1, 2}
    np.testing.assert_array_equal(mode["offset"][mode["pen"] == 2], 0)
    for row in range(40):
        logits, weights, mean, *_ = parts(params, hidden[row])
        assert mode["pen"][row] == logits.argmax()
        if mode["pen"][row] != 2:
            expected = SCALE * mean[weights.argmax()]
            np.testing.assert_allclose(mode["offset"][row], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.optimized
def test_extremes_stay_finite():
    distribution, params, rng = make()
    hidden = jnp.float32(rng.normal(size=(2, 3, H)))

    @jax.jit
    def value_and_gradient(params, hidden, events):
        def loss(params, hidden):
            return distribution.log_prob(params, hidden, events).mean()

        return jax.value_and_grad(loss, argnums=(0, 1))(params, hidden)

    for size in (1.0, 1e4, 1e30):
        for offset in (1e6, float(np.finfo(np.float32).max)):
            events = event(np.full((2, 3, 2), offset), [[0, 1, 2], [2, 1, 0]])
            for leaf in jax.tree.leaves(value_and_gradient(params, size * hidden, events)):
                assert np.isfinite(leaf).all(), (size, offset)
    nats = distribution.log_prob(params, hidden.astype(jnp.bfloat16), events)
    assert nats.dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "scale must be positive and finite, got 0.0"),
        ({"scale": float("inf")}, "scale must be positive and finite, got inf"),
        ({"num_components": 0}, "num_components must be at least 1, got 0"),
        ({"min_scale": 2.0}, r"min_scale must lie in \(0, 1\), got 2.0"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        pen(**options)
