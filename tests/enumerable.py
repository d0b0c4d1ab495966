"""Models small enough to enumerate all their sequences."""

import itertools

import jax
import numpy as np
import scipy.stats
from helpers import perturb

import grnn_jax
from grnn_jax import cells, distributions


def make(num_classes=3, end=None, seed=0, scale=0.7):
    """A model and its parameters."""
    distribution = distributions.categorical(num_classes, embedding_size=4, end=end)
    model = grnn_jax.make_model(cells.gru(5), distribution)
    return model, perturb(model.init(jax.random.key(0)), seed, scale)


def sequences(num_classes, length, end=None):
    """Every sequence that ends, or reaches `length`: a list of tuples."""
    if end is None:
        return list(itertools.product(range(num_classes), repeat=length))
    others = [k for k in range(num_classes) if k != end]
    found = [(*w, end) for t in range(length) for w in itertools.product(others, repeat=t)]
    return found + list(itertools.product(others, repeat=length))


def padded(words, length):
    """Events and mask [N, length]."""
    mask = np.array([[t < len(word) for t in range(length)] for word in words])
    events = np.array([[*word, *[0] * (length - len(word))] for word in words])
    return events, mask


_log_prob = jax.jit(grnn_jax.log_prob, static_argnums=0)


def nats(model, params, words, length, prefix=()):
    """Log-probability of each sequence given a prefix, float64."""
    events, mask = padded(words, length)
    head = np.tile(np.array(prefix, int), (len(words), 1))
    whole = np.concatenate([head, events], 1)
    both = np.concatenate([np.ones_like(head, bool), mask], 1)
    # Rows up to a power of two, so that few shapes are compiled.
    more = ((0, (1 << (len(words) - 1).bit_length()) - len(words)), (0, 0))
    scored = _log_prob(model, params, np.pad(whole, more), np.pad(both, more))[: len(words)]
    scored = np.asarray(scored, np.float64)
    if len(prefix):
        scored = scored - np.float64(_log_prob(model, params, head[:1])[0])
    return scored


def words_of(samples):
    """Sampled sequences as tuples."""
    pairs = zip(np.asarray(samples.events), np.asarray(samples.mask), strict=True)
    return [tuple(events[mask].tolist()) for events, mask in pairs]


def assert_frequencies(drawn, words, probability):
    """Chi-square of drawn sequences against the probabilities of all sequences."""
    index = {word: i for i, word in enumerate(words)}
    observed = np.bincount([index[word] for word in drawn], minlength=len(words))
    probability = np.asarray(probability) / np.sum(probability)
    assert observed[probability == 0].sum() == 0
    expected = len(drawn) * probability
    large = expected >= 5
    rest = (observed[~large].sum(), expected[~large].sum())
    observed = np.append(observed[large], [rest[0]] if rest[1] > 0 else [])
    expected = np.append(expected[large], [rest[1]] if rest[1] > 0 else [])
    if len(observed) > 1:
        assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3
