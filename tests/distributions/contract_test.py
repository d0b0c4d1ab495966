"""What every output distribution promises: shapes, rows, extremes, gradients, options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import perturb

from grnn_jax.distributions.categorical import categorical
from grnn_jax.distributions.counts import (
    negative_binomial,
    poisson,
    zero_inflated_negative_binomial,
)
from grnn_jax.distributions.ended import with_end
from grnn_jax.distributions.factored_categorical import factored_categorical
from grnn_jax.distributions.lognormal_mixture import lognormal_mixture
from grnn_jax.distributions.product import product
from grnn_jax.distributions.softmax_mixture import mixture_of_softmaxes
from grnn_jax.distributions.waits import weibull

B, H = 8, 5

COUNTS = np.int32([[0, 0], [0, 10**6], [1, 2 * 10**9], [7, 8]] * 2)
WAITS = {
    "wait": np.float32([0, 1e-30, 1e6, 3e38, 0, 1e-30, 1e6, 3e38]),
    "censored": np.repeat([False, True], 4),
}


def marked(dtype):
    return product(
        {
            "wait": lognormal_mixture(num_components=3, scale=2.0, dtype=dtype),
            "mark": categorical(3),
        },
        present={"mark": lambda earlier: ~earlier["wait"]["censored"]},
    )


FAMILIES = {
    "mixture_of_softmaxes": (
        lambda dtype: mixture_of_softmaxes(5, embedding_size=3, dtype=dtype),
        np.int32([0, 1, 2, 3, 4, 0, 0, 4]),
    ),
    "factored_categorical": (
        lambda dtype: factored_categorical((3, 1, 5), num_units=6, dtype=dtype),
        np.int32([[0, 0, 0], [2, 0, 4], [1, 0, 2], [2, 0, 0]] * 2),
    ),
    "poisson": (lambda dtype: poisson(2, mean=3.0, dtype=dtype), COUNTS),
    "negative_binomial": (
        lambda dtype: negative_binomial(2, mean=[0.5, 40.0], dtype=dtype),
        COUNTS,
    ),
    "zero_inflated_negative_binomial": (
        lambda dtype: zero_inflated_negative_binomial(2, dtype=dtype),
        COUNTS,
    ),
    "lognormal_mixture": (lambda dtype: lognormal_mixture(scale=60.0, dtype=dtype), WAITS),
    "weibull": (lambda dtype: weibull(scale=0.1, dtype=dtype), WAITS),
    "product": (marked, {"wait": WAITS, "mark": np.int32([0, 1, 2, 0, 0, -1, 9, 0])}),
    "with_end": (
        lambda dtype: with_end(weibull(dtype=dtype)._replace(is_end=None), dtype=dtype),
        {"event": WAITS, "end": np.arange(8) % 2 == 1},
    ),
}
"""One of each kind of code, with events at the ends of its range; a new family adds a line."""

families = pytest.mark.parametrize("name", FAMILIES)


@functools.cache
def build(name, dtype):
    """The distribution with its functions compiled, and parameters."""
    distribution = FAMILIES[name][0](jnp.dtype(dtype))
    params = perturb(distribution.init(jax.random.key(0), H))
    sample = jax.jit(distribution.sample)
    if "temperature" in distribution.options:
        # An array, so that all temperatures share one compilation.
        def sample(keys, params, hidden, temperature=1.0, jitted=sample):
            rows = jnp.broadcast_to(jnp.float32(temperature), (B,))
            return jitted(keys, params, hidden, temperature=rows)

    compiled = distribution._replace(
        sample=sample,
        log_prob=jax.jit(distribution.log_prob),
        mode=jax.jit(distribution.mode),
        encode=jax.jit(distribution.encode),
    )
    return compiled, params


def hidden_rows(seed=0):
    return jnp.float32(np.random.default_rng(seed).normal(size=(B, H)))


def row_keys(seed=1):
    return jax.random.split(jax.random.key(seed), B)


def equal(actual, expected, rows=slice(None)):
    pairs = zip(*map(jax.tree.leaves, (actual, expected)), strict=True)
    return all(np.array_equal(a[rows], b[rows]) for a, b in pairs)


@families
@pytest.mark.parametrize("axes", [(), (B,), (2, 4), (2, 2, 2)])
def test_shapes_and_dtypes(name, axes):
    distribution = FAMILIES[name][0](jnp.float32)
    params = jax.eval_shape(lambda key: distribution.init(key, H), jax.random.key(0))
    hidden = jax.ShapeDtypeStruct((*axes, H), jnp.float32)
    event = jax.tree.map(
        lambda spec: jax.ShapeDtypeStruct((*axes, *spec.shape), spec.dtype), distribution.event
    )

    def shapes(function, *arguments):
        return jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), jax.eval_shape(function, *arguments)
        )

    expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), event)
    assert shapes(distribution.mode, params, hidden) == expected
    if axes == (B,):
        assert shapes(distribution.sample, row_keys(), params, hidden) == expected
    assert shapes(distribution.log_prob, params, hidden, event) == (axes, jnp.float32)
    encoding = shapes(distribution.encode, params, event)
    assert encoding == ((*axes, distribution.encoding_size), jnp.float32)
    if distribution.is_end is not None:
        assert shapes(distribution.is_end, event) == (axes, bool)


@families
@pytest.mark.optimized
def test_a_row_depends_on_its_own_key_and_hidden_state_only(name):
    distribution, params = build(name, "float32")
    drawn = distribution.sample(row_keys(), params, hidden_rows())
    chosen = np.arange(B) % 2 == 0
    other_keys = jnp.where(chosen, row_keys(), row_keys(2))
    other_hidden = jnp.where(chosen[:, None], hidden_rows(), hidden_rows(3))
    other = distribution.sample(other_keys, params, other_hidden)
    assert equal(other, drawn, rows=chosen)
    assert not equal(distribution.sample(row_keys(2), params, hidden_rows()), drawn)


@families
@pytest.mark.optimized
def test_temperature_is_one_for_each_row_and_0_is_the_mode(name):
    distribution, params = build(name, "float32")
    made = FAMILIES[name][0](jnp.float32)
    hidden, warm = hidden_rows(), np.arange(B) < 4
    if "temperature" not in made.options:
        with pytest.raises(TypeError):
            made.sample(row_keys(), params, hidden, temperature=1.0)
        return
    drawn = distribution.sample(row_keys(), params, hidden)
    greedy = distribution.sample(row_keys(), params, hidden, temperature=0.0)
    mixed = distribution.sample(row_keys(), params, hidden, temperature=np.float32(warm))
    assert equal(mixed, drawn, rows=warm)
    assert equal(mixed, greedy, rows=~warm)
    mode = distribution.mode(params, hidden)
    for cold, likely in zip(*map(jax.tree.leaves, (greedy, mode)), strict=True):
        np.testing.assert_allclose(cold, likely, rtol=1e-5)
    assert not equal(drawn, greedy)
    with pytest.raises(TypeError):
        made.sample(row_keys(), params, hidden, no_such_option=1)


@pytest.mark.parametrize("make", [categorical, mixture_of_softmaxes])
def test_logits_are_the_log_probabilities_of_all_tokens(make):
    distribution = make(4)
    params = perturb(distribution.init(jax.random.key(0), H))
    hidden = jnp.float32(np.random.default_rng(0).normal(size=(B, H)))
    nats = [distribution.log_prob(params, hidden, jnp.full(B, k)) for k in range(4)]
    logits = distribution.logits(params, hidden)
    np.testing.assert_allclose(
        jax.nn.log_softmax(logits, -1), np.stack(nats, -1), rtol=1e-5, atol=1e-6
    )


@families
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.optimized
def test_extremes_have_finite_values_and_gradients(name, dtype):
    distribution, params = build(name, dtype)
    events = jax.tree.map(jnp.asarray, FAMILIES[name][1])

    @jax.jit
    def value_and_gradient(params, hidden):
        def loss(params, hidden):
            nats = distribution.log_prob(params, hidden, events)
            return nats.sum() + distribution.encode(params, events).sum(), nats

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, hidden)

    assert np.abs(distribution.encode(params, events)).max() < 50
    for scale in (0.0, 1.0, 1e4, -1e4):
        hidden = (hidden_rows() * scale).astype(dtype)
        (_, nats), gradient = value_and_gradient(params, hidden)
        for leaf in jax.tree.leaves((nats, gradient)):
            assert np.isfinite(np.asarray(leaf, np.float32)).all(), scale
        if dtype == "float32":
            drawn = distribution.sample(row_keys(), params, hidden)
            for event in (distribution.mode(params, hidden), drawn):
                assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(event))
                assert np.isfinite(distribution.log_prob(params, hidden, event)).all()


@families
def test_gradient_equals_a_finite_difference(name):
    distribution, params = build(name, "float32")
    event = distribution.sample(row_keys(), params, hidden_rows())
    step = 1e-5
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        point = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, hidden_rows()))
        direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), point)

        @jax.jit
        def value_and_slope(position):
            def nats(position):
                moved = jax.tree.map(lambda a, b: a + position * b, point, direction)
                return FAMILIES[name][0](jnp.float32).log_prob(*moved, event)

            value, pullback = jax.vjp(nats, position)
            return value, pullback(jnp.linspace(0.5, 1.5, B))[0]

        _, slope = value_and_slope(jnp.float64(0))
        above, below = (np.asarray(value_and_slope(jnp.float64(s))[0]) for s in (step, -step))
    assert above.dtype == np.float64
    difference = ((above - below) * np.linspace(0.5, 1.5, B)).sum() / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)
