"""Samples: their log-probabilities, frequencies, seeds, prefixes, ends, streams."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CELLS, perturb, random_like

import grnn_jax
from grnn_jax import cells, distributions, make_model


def small_model(name="lstm", num_classes=5, end=None, **settings):
    distribution = distributions.categorical(num_classes, embedding_size=4, end=end)
    model = make_model(CELLS[name](), distribution, **settings)
    return model, random_like(model.init, jax.random.key(0))


@pytest.mark.parametrize("engine", ["scan", "fused"])
@pytest.mark.parametrize("name", sorted(CELLS))
def test_log_probs_of_samples_equal_scoring_them(name, engine):
    model, params = small_model(name, end=4, engine=engine)
    prefix = np.array([1, 3, 0])
    samples = grnn_jax.sample(
        model, params, jax.random.key(0), 8, 12, prefix=prefix, temperature=0.7, top_k=4, top_p=0.9
    )
    whole = np.concatenate([np.tile(prefix, (8, 1)), samples.events], 1)
    mask = np.concatenate([np.ones((8, 3), bool), samples.mask], 1)
    score = jax.jit(grnn_jax.event_log_probs, static_argnums=0)
    batch = whole, mask, np.zeros(mask.shape, bool)
    scored, _ = score(model, params, model.initial_state(params, 8), batch)
    np.testing.assert_allclose(samples.log_probs, scored[:, 3:], rtol=1e-5, atol=1e-5)


def test_frequencies_equal_enumerated_probabilities():
    """Chi-square over all sequences of two events, and the truncated distribution's."""
    model, params = small_model("gru", num_classes=3)
    words = np.array(list(itertools.product(range(3), repeat=2)))
    probability = np.exp(np.asarray(grnn_jax.log_prob(model, params, words), np.float64))
    count = 20_000
    samples = grnn_jax.sample(model, params, jax.random.key(1), count, 2)
    observed = np.bincount(np.asarray(samples.events) @ [3, 1], minlength=9)
    statistic = ((observed - count * probability) ** 2 / (count * probability)).sum()
    assert statistic < 26.1  # 0.999 quantile of chi-square with 8 degrees of freedom

    truncated = grnn_jax.sample(model, params, jax.random.key(1), count, 2, top_k=2)
    first = np.array([probability.reshape(3, 3)[k].sum() for k in range(3)])
    kept = np.argsort(-first)[:2]
    observed = np.bincount(np.asarray(truncated.events[:, 0]), minlength=3)
    assert observed.sum() == observed[kept].sum() == count
    expected = count * first[kept] / first[kept].sum()
    assert ((observed[kept] - expected) ** 2 / expected).sum() < 10.9  # 1 degree of freedom


@pytest.mark.parametrize("name", ["lstm", "stack_residual_norm"])
@pytest.mark.optimized
def test_a_sample_does_not_depend_on_the_batch(name):
    model, params = small_model(name)
    key = jax.random.key(3)
    together = grnn_jax.sample(model, params, key, 16, 10)
    for first, count in ((0, 1), (5, 3), (15, 1)):
        alone = grnn_jax.sample(model, params, key, count, 10, first_index=first)
        np.testing.assert_array_equal(alone.events, together.events[first : first + count])
    assert len(np.unique(together.events, axis=0)) == 16
    other = grnn_jax.sample(model, params, jax.random.key(4), 16, 10)
    assert (np.asarray(other.events) != np.asarray(together.events)).any()


@pytest.mark.optimized
def test_longer_samples_begin_with_the_shorter_ones():
    model, params = small_model()
    short = grnn_jax.sample(model, params, jax.random.key(0), 4, 5)
    longer = grnn_jax.sample(model, params, jax.random.key(0), 4, 9)
    np.testing.assert_array_equal(longer.events[:, :5], short.events)


@pytest.mark.parametrize("chunk_length", [1, 4, 50])
def test_stream_equals_sample(chunk_length):
    model, params = small_model("stack", end=4)
    arguments = (model, params, jax.random.key(0), 6, 23)
    expected = grnn_jax.sample(*arguments, prefix=np.array([2, 1]), temperature=0.8)
    pieces = list(
        grnn_jax.stream(
            *arguments, prefix=np.array([2, 1]), temperature=0.8, chunk_length=chunk_length
        )
    )
    for field in ("events", "mask", "log_probs"):
        joined = np.concatenate([getattr(piece, field) for piece in pieces], 1)
        wanted = np.asarray(getattr(expected, field))
        np.testing.assert_allclose(joined, wanted[:, : joined.shape[1]], rtol=1e-5, atol=1e-6)
        assert not wanted[:, joined.shape[1] :].any()


def test_sequences_stop_at_their_end():
    model, params = small_model("lstm", num_classes=3, end=2)
    samples = grnn_jax.sample(model, params, jax.random.key(0), 64, 30)
    events, mask = np.asarray(samples.events), np.asarray(samples.mask)
    for row, row_mask in zip(events, mask, strict=True):
        ends = np.flatnonzero(row == 2)
        length = ends[0] + 1 if len(ends) else 30
        np.testing.assert_array_equal(row_mask, np.arange(30) < length)
        assert (row[length:] == 0).all()
    assert (np.asarray(samples.log_probs)[~mask] == 0).all()
    assert len(np.unique(mask.sum(1))) > 1


def test_mean_log_prob_of_samples_is_minus_the_entropy():
    """E log p of samples equals the enumerated Σ p log p."""
    model, params = small_model("elman", num_classes=3)
    words = np.array(list(itertools.product(range(3), repeat=3)))
    log_p = np.asarray(grnn_jax.log_prob(model, params, words), np.float64)
    expected = (np.exp(log_p) * log_p).sum()
    samples = grnn_jax.sample(model, params, jax.random.key(0), 20_000, 3)
    nats = np.asarray(samples.log_probs).sum(1)
    assert abs(nats.mean() - expected) < 4 * nats.std() / np.sqrt(len(nats))


@pytest.mark.optimized
def test_prefixes_may_differ_by_row_and_be_empty():
    model, params = small_model("gru")
    prefixes = np.array([[0, 1], [4, 4], [0, 1]])
    samples = grnn_jax.sample(model, params, jax.random.key(0), 3, 6, prefix=prefixes)
    for row in range(3):
        alone = grnn_jax.sample(
            model, params, jax.random.key(0), 1, 6, prefix=prefixes[row], first_index=row
        )
        np.testing.assert_array_equal(alone.events[0], samples.events[row])
    empty = grnn_jax.sample(model, params, jax.random.key(0), 3, 6, prefix=np.zeros(0, int))
    plain = grnn_jax.sample(model, params, jax.random.key(0), 3, 6)
    np.testing.assert_array_equal(empty.events, plain.events)


def test_conditioning_reaches_the_samples():
    model = make_model(cells.gru(4), distributions.categorical(5), conditioning_size=2)
    params = perturb(model.init(jax.random.key(0)))
    vectors = jnp.asarray([[3.0, 0.0], [0.0, -3.0]])
    samples = grnn_jax.sample(
        model, params, jax.random.key(0), 2, 6, conditioning=vectors, prefix=np.array([1])
    )
    whole = np.concatenate([np.ones((2, 1), int), samples.events], 1)
    nats = grnn_jax.log_prob(model, params, whole, conditioning=vectors)
    prefix_nats = grnn_jax.log_prob(model, params, whole[:, :1], conditioning=vectors)
    np.testing.assert_allclose(samples.log_probs.sum(1), nats - prefix_nats, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"length": -1}, "length must be at least 1, got -1"),
        ({"temperature": -0.5}, "temperature must be at least 0, got -0.5"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 1.5}, r"top_p must lie in \(0, 1\], got 1.5"),
        ({"prefix": np.zeros((3, 2), int)}, r"prefix must be .* got shape \(3, 2\)"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    model, params = small_model()
    settings = {"num_samples": 2, "length": 4} | arguments
    with pytest.raises(ValueError, match=message):
        grnn_jax.sample(model, params, jax.random.key(0), **settings)
