"""What is no event: where it is masked nothing of it reaches the maths, elsewhere it is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, random_like

import grnn_jax
from grnn_jax import cells, distributions, event_log_probs, make_model, sampling
from grnn_jax.distributions import Distribution

NAN = np.nan


def marked():
    fields = {"wait": distributions.weibull(), "mark": distributions.gaussian(1)}
    return distributions.product(
        fields, present={"mark": lambda earlier: ~earlier["wait"]["censored"]}
    )


def log_normal():
    """Positive numbers, as a caller may write them: without a word on events but its filler."""
    normal = distributions.gaussian(1)
    return Distribution(
        init=normal.init,
        log_prob=lambda params, hidden, x: (
            normal.log_prob(params, hidden, jnp.log(x)) - jnp.log(x)[..., 0]
        ),
        sample=lambda keys, params, hidden: jnp.exp(normal.sample(keys, params, hidden)),
        mode=lambda params, hidden: jnp.exp(normal.mode(params, hidden)),
        encode=lambda params, x: jnp.log(x) * params["bias"][:1],
        encoding_size=1,
        event=normal.event,
        name="log_normal",
        accept=lambda x: (jnp.asarray(x), ((x > 0) & (x < np.inf)).all(-1)),
        filler=1.0,
    )


REALS, COUNTS = (
    lambda rng, *shape: rng.normal(size=shape),
    lambda rng, *shape: rng.poisson(2, shape),
)


def waits(rng, *shape):
    return {"wait": rng.exponential(size=shape), "censored": rng.random(shape) < 0.3}


FAMILIES = {
    "gaussian": (
        lambda: distributions.gaussian(2, shift=[1e6, 0.0]),
        lambda rng, *s: REALS(rng, *s, 2),
    ),
    "full": (
        lambda: distributions.gaussian(2, covariance="full"),
        lambda rng, *s: REALS(rng, *s, 2),
    ),
    "student_t": (lambda: distributions.student_t(2), lambda rng, *s: REALS(rng, *s, 2)),
    "mixture": (
        lambda: distributions.gaussian_mixture(2, num_components=2),
        lambda rng, *s: REALS(rng, *s, 2),
    ),
    "pen": (
        lambda: distributions.pen(num_components=2),
        lambda rng, *s: {"offset": REALS(rng, *s, 2), "pen": rng.integers(0, 3, s)},
    ),
    "with_end": (
        lambda: distributions.with_end(distributions.gaussian(1)),
        lambda rng, *s: {"event": REALS(rng, *s, 1), "end": rng.random(s) < 0.3},
    ),
    "product": (marked, lambda rng, *s: {"wait": waits(rng, *s), "mark": REALS(rng, *s, 1)}),
    "lognormal_mixture": (lambda: distributions.lognormal_mixture(num_components=2), waits),
    "poisson": (lambda: distributions.poisson(2), lambda rng, *s: COUNTS(rng, *s, 2)),
    "bernoulli": (lambda: distributions.bernoulli(3), lambda rng, *s: rng.integers(0, 2, (*s, 3))),
    "factored_categorical": (
        lambda: distributions.factored_categorical((2, 3), num_units=3),
        lambda rng, *s: rng.integers(0, 2, (*s, 2)),
    ),
    "logistic_mixture": (
        lambda: distributions.logistic_mixture(8, num_components=2),
        lambda rng, *s: rng.integers(0, 8, s),
    ),
    "categorical": (
        lambda: distributions.categorical(3, embedding_size=2),
        lambda rng, *s: rng.integers(0, 3, s),
    ),
    "log_normal": (log_normal, lambda rng, *s: np.exp(REALS(rng, *s, 1))),
    "product_of_log_normal": (
        lambda: distributions.product(
            {"a": distributions.bernoulli(1), "b": log_normal()},
            present={"b": lambda earlier: earlier["a"][..., 0] == 1},
        ),
        lambda rng, *s: {"a": rng.integers(0, 2, (*s, 1)), "b": np.exp(REALS(rng, *s, 1))},
    ),
}


def build(name):
    make, draw = FAMILIES[name]
    model = make_model(cells.gru(3), make(), chunk_size=2 if name == "gaussian" else None)
    params = random_like(model.init, jax.random.key(0))
    events = draw(np.random.default_rng(0), 3, 5)
    # As float32, so that every number can be NaN.
    return model, params, jax.tree.map(np.float32, events)


def put(events, where, value):
    """The events with a value in place of all numbers of those at `where` [B, T]."""

    def place(leaf):
        leaf = leaf.copy()
        leaf[where] = value
        return leaf

    return jax.tree.map(place, events)


def marks(name):
    """Three families run as users get them; what is not optimized drops no NaN on its own."""
    return [pytest.mark.optimized] * (name in ("gaussian", "poisson", "product"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in FAMILIES])
def test_nan_under_the_mask_reaches_neither_value_nor_gradient(name):
    """Against each sequence alone: packed rows, context that enters, padding on both sides."""
    model, params, events = build(name)
    mask = np.array([[1, 1, 1, 0, 1], [1, 1, 1, 0, 0], [0, 1, 1, 1, 1]], bool)
    reset = np.array([[1, 0, 0, 1, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]], bool)
    nothing = ~mask
    nothing[0, 3] = False  # context

    @jax.jit
    def packed(params, events):
        def total(params):
            carry = model.initial_state(params, 3)
            nats, carry = event_log_probs(model, params, carry, (events, mask, reset))
            return nats.sum(), carry

        return jax.value_and_grad(total, has_aux=True)(params)

    (value, carry), gradient = packed(params, put(events, nothing, NAN))
    for leaf in jax.tree.leaves((carry, gradient)):
        assert np.isfinite(leaf).all()

    # Row, first step, length and sign of each sequence: context counts in front of the rest.
    parts = [(0, 0, 3, 1), (0, 3, 2, 1), (0, 3, 1, -1), (1, 0, 3, 1), (2, 1, 4, 1)]
    index = np.array([[(row, min(first + t, 4)) for t in range(4)] for row, first, *_ in parts])
    sequences = jax.tree.map(
        lambda spec, leaf: leaf[index[..., 0], index[..., 1]].astype(spec.dtype),
        model.distribution.event,
        events,
    )
    real = np.arange(4) < np.array([[length] for _, _, length, _ in parts])
    signs = np.array([sign for *_, sign in parts])

    def total(params):
        return (grnn_jax.log_prob(model, params, sequences, real) * signs).sum()

    expected, slope = jax.jit(jax.value_and_grad(total))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    assert_trees_close(gradient, slope, rtol=1e-4, atol=1e-5)
    other, _ = packed(params, put(events, nothing, 1))
    assert other[0] == value


WRONG = {
    "gaussian": [NAN, np.inf, 1e300],
    "with_end": [NAN],
    "lognormal_mixture": [-1.0, NAN, np.inf],
    "poisson": [-1, 2.9, 2**32 + 3, NAN],
    "bernoulli": [NAN],
    "categorical": [3, -1, 2**32 + 1],
    "factored_categorical": [2.5, -1, 7],
    "logistic_mixture": [8, 0.5],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_event_is_named_and_under_jit_nan(name):
    model, params, events = build(name)
    events = jax.tree.map(lambda leaf: leaf.astype(np.float64), events)
    if name == "categorical":
        events = events.astype(np.int64)
    mask, reset = np.ones((3, 5), bool), np.zeros((3, 5), bool)
    where = np.zeros((3, 5), bool)
    where[1, 2] = True
    carry = model.initial_state(params, 3)
    for value in WRONG[name]:
        wrong = put(events, where, value)
        if name == "with_end":
            wrong["end"] = events["end"] * 0
        with pytest.raises(ValueError, match=r"events must be .* at events\[1, 2\]"):
            grnn_jax.log_prob(model, params, wrong)
        # NumPy's 64-bit numbers, which a cast would wrap, as constants of the compiled function.
        nats, after = jax.jit(
            lambda params, wrong=wrong: event_log_probs(model, params, carry, (wrong, mask, reset))
        )(params)
        np.testing.assert_array_equal(np.isnan(nats), where)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


def test_bits_that_are_not_zero_are_one():
    """A cast to uint8 in front of the test for 0 makes 0.5 and 256 silence."""
    model, params, events = build("bernoulli")
    expected = grnn_jax.log_prob(model, params, events)
    for value in (0.5, 256, -1, 255):
        nats = grnn_jax.log_prob(model, params, events * value)
        np.testing.assert_array_equal(nats, expected)
    for value in (256, 2**40):
        nats = grnn_jax.log_prob(model, params, events.astype(np.int64) * value)
        np.testing.assert_array_equal(nats, expected)


def test_padding_may_hold_anything_and_a_prefix_may_not():
    model, params, events = build("categorical")
    tokens = events.astype(np.int32)
    mask = np.arange(5) < np.array([[5], [3], [1]])
    expected = grnn_jax.log_prob(model, params, tokens, mask)
    actual = grnn_jax.log_prob(model, params, np.where(mask, tokens, -1), mask)
    np.testing.assert_array_equal(actual, expected)
    with pytest.raises(
        ValueError, match=r"prefix must be classes in \[0, 3\), got 7 at prefix\[1\]"
    ):
        sampling.start(model, params, jax.random.key(0), 2, prefix=np.array([0, 7]))


def test_an_event_fed_by_hand_is_one():
    model, params, _ = build("gaussian")
    carry = model.initial_state(params, 2)
    fed = model.feed(carry, np.array([[NAN, 1.0], [2.0, 3.0]]))
    np.testing.assert_array_equal(fed.event, [[0, 0], [2, 3]])
    assert np.isfinite(model.step(params, fed)[0]).all()
