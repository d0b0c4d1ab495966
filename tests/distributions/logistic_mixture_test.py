"""The discretised mixture of logistics: SciPy, sums over all levels, samples, extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import perturb, to_numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from grnn_jax.distributions.logistic_mixture import MIN_SCALE, logistic_mixture

H, K = 5, 3


def jitted(distribution):
    functions = ("log_prob", "sample", "mode", "encode")
    return distribution._replace(
        **{name: jax.jit(getattr(distribution, name)) for name in functions}
    )


def make(num_levels, dtype=None, scale=0.3):
    distribution = jitted(logistic_mixture(num_levels, num_components=K))
    params = perturb(distribution.init(jax.random.key(0), H), scale=scale, dtype=dtype)
    return distribution, params, np.random.default_rng(0)


def all_log_probs(distribution, params, hidden, num_levels):
    """[N], one row's pmf."""
    rows = jnp.broadcast_to(hidden, (num_levels, H))
    return np.asarray(jax.jit(distribution.log_prob)(params, rows, jnp.arange(num_levels)))


def components(params, hidden, num_levels):
    """π logits, and location and scale in levels, of one row."""
    layer = to_numpy(params)
    out = np.asarray(hidden, np.float64) @ layer["kernel"] + layer["bias"]
    logits, location, scale = np.split(out, 3)
    half = (num_levels - 1) / 2
    low, high = np.log(MIN_SCALE), np.log(num_levels)
    raw = scale + np.log(half)
    log_scale = high - np.logaddexp(0, high - (low + np.logaddexp(0, raw - low)))
    return logits, half * (location + 1), np.exp(log_scale)


def expected_pmf(weights, location, scale, num_levels):
    """Differences of SciPy's distribution function at the edges; ±inf at the ends."""
    edges = np.concatenate([[-np.inf], np.arange(num_levels - 1) + 0.5, [np.inf]])
    cdf = scipy.stats.logistic.cdf(edges[:, None], location, scale)
    survival = scipy.stats.logistic.sf(edges[:, None], location, scale)
    # Of two differences the one without cancellation.
    difference = np.where(cdf[1:] < 0.5, np.diff(cdf, axis=0), -np.diff(survival, axis=0))
    return difference @ weights


@settings(deadline=None, max_examples=8)
@given(bits=st.integers(1, 9), seed=st.integers(0, 2**16), size=st.sampled_from([0.1, 1.0, 3.0]))
def test_log_prob_equals_scipy(bits, seed, size):
    num_levels = 2**bits
    distribution, params, _ = make(num_levels)
    hidden = jnp.float32(size * np.random.default_rng(seed).normal(size=H))
    logits, location, scale = components(params, hidden, num_levels)
    expected = expected_pmf(scipy.special.softmax(logits), location, scale, num_levels)
    actual = all_log_probs(distribution, params, hidden, num_levels)
    kept = expected > 1e-10
    np.testing.assert_allclose(actual[kept], np.log(expected[kept]), rtol=1e-4, atol=2e-4)
    assert (actual[~kept] < np.log(2e-10)).all()


@pytest.mark.parametrize("bits", range(1, 17))
def test_probabilities_sum_to_one(bits):
    distribution, params, rng = make(2**bits)
    hidden = rng.normal(size=H)
    nats = all_log_probs(distribution, params, jnp.float32(hidden), 2**bits)
    np.testing.assert_allclose(np.exp(nats.astype(np.float64)).sum(), 1, atol=1e-5)
    if bits % 5 == 1:
        with jax.enable_x64(True):
            distribution, params, _ = make(2**bits, jnp.float64)
            nats = all_log_probs(distribution, params, jnp.asarray(hidden), 2**bits)
        np.testing.assert_allclose(np.exp(nats).sum(), 1, atol=1e-10)


@pytest.mark.parametrize("num_levels", [2, 256, 65536])
@pytest.mark.parametrize("scale", [-1e6, -5.0, 5.0, 1e6])
@pytest.mark.parametrize("location", [-1e4, -1.0, 0.0, 1.0, 1e4])
@pytest.mark.optimized
def test_sum_is_one_at_extreme_components(num_levels, scale, location):
    distribution, params, _ = make(num_levels)
    bias = jnp.concatenate([jnp.zeros(K), jnp.full((K,), location), jnp.full((K,), scale)])
    params = {"kernel": jnp.zeros_like(params["kernel"]), "bias": bias}
    nats = all_log_probs(distribution, params, jnp.ones(H), num_levels)
    assert np.isfinite(nats).all()
    np.testing.assert_allclose(np.exp(nats.astype(np.float64)).sum(), 1, atol=1e-5)


@pytest.mark.parametrize("num_levels", [2, 256, 65536])
@pytest.mark.optimized
def test_extremes_stay_finite(num_levels):
    distribution, params, rng = make(num_levels)
    hidden = jnp.float32(rng.normal(size=(2, 4, H)))
    events = jnp.asarray([[0, 1, num_levels - 2, num_levels - 1]] * 2)

    @jax.jit
    def value_and_gradient(params, hidden):
        def loss(params, hidden):
            return distribution.log_prob(params, hidden, events).sum()

        return jax.value_and_grad(loss, argnums=(0, 1))(params, hidden)

    for size in (1.0, 1e4, 1e30):
        for leaf in jax.tree.leaves(value_and_gradient(params, size * hidden)):
            assert np.isfinite(leaf).all(), size
    nats = distribution.log_prob(params, hidden.astype(jnp.bfloat16), events)
    assert nats.dtype == jnp.float32
    assert np.isfinite(nats).all()


@pytest.mark.parametrize("num_levels", [2, 256])
def test_gradients_equal_finite_differences(num_levels):
    with jax.enable_x64(True):
        distribution, params, rng = make(num_levels, jnp.float64)
        events = jnp.asarray([0, 1, num_levels // 2, num_levels - 1])
        check_grads(
            jax.jit(lambda *arguments: distribution.log_prob(*arguments, events).sum()),
            (params, jnp.asarray(rng.normal(size=(4, H)))),
            order=1,
            modes=["rev"],
        )


def test_other_levels_have_no_probability():
    distribution, params, _ = make(16)
    nats = distribution.log_prob(params, jnp.ones((4, H)), jnp.asarray([-1, 16, 0, 15]))
    assert np.isnan(nats).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("num_levels", "temperature"), [(2, 1.0), (8, 1.0), (64, 1.0), (64, 0.5)])
def test_samples_have_the_distribution(num_levels, temperature):
    distribution, params, rng = make(num_levels)
    hidden, count = jnp.float32(rng.normal(size=H)), 6000
    drawn = distribution.sample(
        jax.random.split(jax.random.key(1), count),
        params,
        jnp.tile(hidden, (count, 1)),
        temperature=temperature,
    )
    assert drawn.dtype == jnp.int32
    logits, location, scale = components(params, hidden, num_levels)
    weights = scipy.special.softmax(logits / temperature)
    expected = count * expected_pmf(weights, location, temperature * scale, num_levels)
    counts = np.bincount(drawn, minlength=num_levels)
    # Rare levels together, so that every cell expects at least 5.
    rare = expected < 5
    cells = [np.append(values[~rare], values[rare].sum()) for values in (counts, expected)]
    cells = [cell[cells[1] > 0] for cell in cells]
    assert len(cells[0]) > 1
    assert scipy.stats.chisquare(*cells, sum_check=False).pvalue > 1e-3


@pytest.mark.optimized
def test_samples_of_a_row_depend_on_its_key_and_hidden_only():
    distribution, params, rng = make(256)
    hidden = jnp.float32(rng.normal(size=(8, H)))
    keys = jax.random.split(jax.random.key(2), 16)
    together = distribution.sample(keys[:8], params, hidden)
    for row in range(8):
        own = jnp.arange(8) == row
        others = distribution.sample(
            jnp.where(own, keys[:8], keys[8:]), params, jnp.where(own[:, None], hidden, 9.0)
        )
        assert others[row] == together[row]


def test_temperature_zero_is_the_mode_and_rows_may_differ():
    distribution, params, rng = make(256)
    hidden = jnp.float32(rng.normal(size=(40, H)))
    keys = jax.random.split(jax.random.key(3), 40)
    mode = distribution.mode(params, hidden)
    for row in range(40):
        logits, location, _ = components(params, hidden[row], 256)
        assert abs(mode[row] - np.clip(location[logits.argmax()], 0, 255)) < 0.501
    np.testing.assert_array_equal(distribution.sample(keys, params, hidden, temperature=0.0), mode)
    temperature = jnp.where(jnp.arange(40) < 20, 0.0, 1.0)
    mixed = distribution.sample(keys, params, hidden, temperature=temperature)
    np.testing.assert_array_equal(mixed[:20], mode[:20])
    np.testing.assert_array_equal(mixed[20:], distribution.sample(keys, params, hidden)[20:])


@pytest.mark.parametrize("num_levels", [2, 4, 256, 65536])
def test_encoding_tells_every_level(num_levels):
    distribution, params, _ = make(num_levels)
    encoded = np.asarray(distribution.encode(params, jnp.arange(num_levels)))
    assert encoded.shape == (num_levels, distribution.encoding_size)
    np.testing.assert_allclose(encoded[:, 0], np.linspace(-1, 1, num_levels), atol=1e-6)
    assert np.abs(encoded).max() <= 1 + 1e-6
    # Neighbours differ by more than rounding, through the finest phases.
    assert np.linalg.norm(np.diff(encoded, axis=0), axis=-1).min() > 1
    outside = distribution.encode(params, jnp.asarray([-(2**31), 2**31 - 1]))
    np.testing.assert_array_equal(outside, encoded[[0, -1]])


@pytest.mark.parametrize("num_levels", [2, 256, 65536])
def test_starts_with_every_level_probable(num_levels):
    distribution = logistic_mixture(num_levels)
    params = distribution.init(jax.random.key(0), H)
    nats = all_log_probs(distribution, params, jnp.zeros(H), num_levels)
    assert nats.min() > -np.log(num_levels) - 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, {}), "num_levels must be a power of two from 2 to 65536, got 1"),
        ((100, {}), "num_levels must be a power of two from 2 to 65536, got 100"),
        ((2**17, {}), "num_levels must be a power of two from 2 to 65536, got 131072"),
        ((256, {"num_components": 0}), "num_components must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    num_levels, options = arguments
    with pytest.raises(ValueError, match=message):
        logistic_mixture(num_levels, **options)
