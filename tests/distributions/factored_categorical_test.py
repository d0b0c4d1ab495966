"""Factored categorical: a plain loop, all events sum to 1, samples, chunked loss."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.stats
from helpers import assert_trees_close, perturb, to_numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from grnn_jax.distributions.factored_categorical import factored_categorical

H, U, SIZES = 4, 6, (3, 1, 4, 2)
EVENTS = np.int32(list(itertools.product(*map(range, SIZES))))


def make(sizes=SIZES, **options):
    distribution = factored_categorical(sizes, num_units=U, **options)
    params = perturb(distribution.init(jax.random.key(0), H), scale=0.7)
    hidden = jnp.float32(np.random.default_rng(0).normal(size=(H,)))
    return distribution, params, hidden


def field_log_probs(params, hidden, event):
    """log p(x_f = · | h, x_<f) for each field of one event."""
    params, result = to_numpy(params), []
    for f in range(len(event)):
        units = hidden @ params["kernel"][:, f * U : (f + 1) * U]
        units = units + params["bias"][f * U : (f + 1) * U]
        for g in range(f):
            row = params[f"field_{g}"]["embedding"][event[g]]
            units = units + row[(f - g - 1) * U : (f - g) * U]
        own = params[f"field_{f}"]
        logits = np.maximum(units, 0) @ own["kernel"] + own["bias"]
        result.append(oracles.log_softmax(logits))
    return result


def test_log_prob_equals_a_plain_loop_and_depends_on_every_earlier_field():
    distribution, params, hidden = make()
    nats = jax.jit(distribution.log_prob)(params, jnp.tile(hidden, (len(EVENTS), 1)), EVENTS)
    for event, value in zip(EVENTS, nats, strict=True):
        fields = field_log_probs(params, np.float64(hidden), event)
        expected = sum(log_p[x] for log_p, x in zip(fields, event, strict=True))
        np.testing.assert_allclose(value, expected, rtol=1e-5)


@settings(max_examples=4, deadline=None, derandomize=True)
@example(sizes=[1])
@example(sizes=[5])
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_probabilities_of_all_events_sum_to_one(sizes):
    distribution, params, hidden = make(sizes)
    events = jnp.int32(list(itertools.product(*map(range, sizes))))
    rows = jnp.tile(hidden, (len(events), 1))
    nats = jax.jit(distribution.log_prob)(params, rows, events)
    np.testing.assert_allclose(np.exp(np.float64(nats)).sum(), 1, rtol=1e-5)


def test_mode_is_greedy_and_equals_temperature_0_and_top_k_1():
    distribution, params, _ = make()
    hidden = jnp.float32(np.random.default_rng(1).normal(size=(20, H)))
    mode = np.asarray(jax.jit(distribution.mode)(params, hidden))
    for row in range(20):
        fields = field_log_probs(params, np.float64(hidden[row]), mode[row])
        assert [log_p.argmax() for log_p in fields] == mode[row].tolist()
    keys = jax.random.split(jax.random.key(0), 20)
    for options in ({"temperature": 0.0}, {"top_k": 1}):
        sample = jax.jit(functools.partial(distribution.sample, **options))
        np.testing.assert_array_equal(sample(keys, params, hidden), mode)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_joint_distribution(temperature):
    distribution, params, hidden = make()
    count = 20_000
    keys = jax.random.split(jax.random.key(0), count)
    rows = jnp.tile(hidden, (count, 1))
    drawn = jax.jit(lambda keys: distribution.sample(keys, params, rows, temperature=temperature))(
        keys
    )
    expected = np.zeros(SIZES)
    for event in EVENTS:
        fields = field_log_probs(params, np.float64(hidden), event)
        tempered = [oracles.log_softmax(log_p / temperature) for log_p in fields]
        expected[tuple(event)] = np.exp(sum(q[x] for q, x in zip(tempered, event, strict=True)))
    observed = np.zeros(SIZES)
    np.add.at(observed, tuple(np.asarray(drawn).T), 1)
    # Rare events are counted together, as the test needs at least 5 of each kind.
    rank = np.argsort(expected, axis=None)[::-1]
    common = rank[count * expected.ravel()[rank] > 5][:-1]
    groups = [
        np.append(table.ravel()[common], table.sum() - table.ravel()[common].sum())
        for table in (observed, count * expected)
    ]
    assert scipy.stats.chisquare(*groups).pvalue > 1e-3


def test_events_outside_the_range_are_nan_and_their_encoding_is_finite():
    distribution, params, hidden = make()
    events = jnp.int32([[0, 0, 0, 0], [3, 0, 0, 0], [0, 0, -1, 0], [2, 0, 3, 2]])
    nats = jax.jit(distribution.log_prob)(params, jnp.tile(hidden, (4, 1)), events)
    np.testing.assert_array_equal(np.isnan(nats), [False, True, True, True])
    assert np.isfinite(distribution.encode(params, events)).all()


def test_encoding_is_one_hot_vectors_side_by_side():
    distribution, params, _ = make()
    encoding = distribution.encode(params, jnp.int32([[2, 0, 1, 1]]))
    np.testing.assert_array_equal(encoding, [[0, 0, 1, 1, 0, 1, 0, 0, 0, 1]])
    assert distribution.encoding_size == 10


def test_chunked_loss_has_the_exact_value_and_gradient():
    batch_size, length = 2, 7
    rng = np.random.default_rng(0)
    hidden = jnp.float32(rng.normal(size=(batch_size, length, H)))
    events = jnp.int32(rng.integers(0, SIZES, (batch_size, length, 4)))
    weights = jnp.float32(rng.normal(size=(batch_size, length)))
    limit = 3 * batch_size * (sum(SIZES) + 4 * U)

    def value_and_gradient(**options):
        distribution, params, _ = make(**options)

        def loss(params, hidden):
            return (distribution.log_prob(params, hidden, events) * weights).sum()

        function = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        text = function.lower(params, hidden).as_text()
        return function(params, hidden), "while" in text

    chunked, has_loop = value_and_gradient(logits_limit=limit)
    whole, whole_has_loop = value_and_gradient()
    assert has_loop
    assert not whole_has_loop
    assert_trees_close(chunked, whole, 1e-5, 1e-6)


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((), {}, r"sizes must be one or more numbers of at least 1, got \(\)"),
        ((3, 0), {}, r"sizes must be one or more numbers of at least 1, got \(3, 0\)"),
        ((3, 2), {"num_units": 0}, "num_units must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_named(sizes, options, message):
    with pytest.raises(ValueError, match=message):
        factored_categorical(sizes, **options)
