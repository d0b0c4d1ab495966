"""Dynamic evaluation against a NumPy loop with its own gradients; nothing is scored by itself."""

import jax
import numpy as np
import pytest
from helpers import perturb, to_numpy

from grnn_jax import cells, distributions, make_model
from grnn_jax.config import Config
from grnn_jax.data import Corpus, eval_windows
from grnn_jax.scoring import make_score_events
from grnn_jax.scoring.dynamic import (
    DynamicSettings,
    dynamic_nats,
    gradient_rms,
    make_dynamic_step,
)
from grnn_jax.sharding import make_mesh

K, H, LENGTH = 4, 3, 5
MODEL = make_model(cells.elman(H), distributions.categorical(K))
PARAMS = perturb(MODEL.init(jax.random.key(0)))
LENGTHS = [7, 1, 3, 9, 4]
CORPUS = Corpus(np.random.default_rng(0).integers(0, K, 24), np.cumsum([0, *LENGTHS]))


def loop_gradient(params, events, starts, state):
    """Nats of a segment, the gradient of their mean, and (h, last event) after it; all by hand."""
    cell, output = params["cell"], params["distribution"]
    u, v, b = cell["input_kernel"], cell["recurrent_kernel"][0], cell["bias"]
    kept, nats = [], []
    h, last = state
    for event, fresh in zip(events, starts, strict=True):
        before = np.zeros(H) if fresh else h
        x = params["start"] if fresh else np.eye(K)[last]
        h = np.tanh(x @ u + before @ v + b)
        scores = h @ output["kernel"] + output["bias"]
        p = np.exp(scores) / np.exp(scores).sum()
        nats.append(-np.log(p[event]))
        kept.append((before, x, h, (p - np.eye(K)[event]) / len(events), fresh))
        last = event
    g = jax.tree.map(np.zeros_like, params)
    back = np.zeros(H)
    for before, x, after, d_scores, fresh in reversed(kept):
        g["distribution"]["kernel"] += np.outer(after, d_scores)
        g["distribution"]["bias"] += d_scores
        d = (output["kernel"] @ d_scores + back) * (1 - after**2)
        g["cell"]["input_kernel"] += np.outer(x, d)
        g["cell"]["recurrent_kernel"][0] += np.outer(before, d)
        g["cell"]["bias"] += d
        if fresh:
            g["start"] += u @ d
        back = np.zeros(H) if fresh else v @ d
    return np.array(nats), g, (h, last)


def segments(corpus):
    starts = np.isin(np.arange(corpus.num_events), corpus.offsets[:-1])
    for begin in range(0, corpus.num_events, LENGTH):
        part = slice(begin, begin + LENGTH)
        yield corpus.events[part], starts[part]


def loop_nats(corpus, settings, rms):
    """Every event's nats, with θ and θ_0 in plain NumPy float64."""
    trained = to_numpy(PARAMS)
    params, state, found = trained, (np.zeros(H), 0), []
    if rms is not None:
        leaves = [leaf.ravel() for leaf in jax.tree.leaves(rms)]
        mean = np.concatenate(leaves).mean()
    for events, starts in segments(corpus):
        nats, gradient, state = loop_gradient(params, events, starts, state)
        found.extend(nats)
        if rms is None:
            params = jax.tree.map(
                lambda p, g, first: (
                    p - settings.learning_rate * g + settings.decay * (first - p)
                ),
                params, gradient, trained,
            )  # fmt: skip
        else:
            params = jax.tree.map(
                lambda p, g, first, r: (
                    p
                    - settings.learning_rate * g / (r + settings.epsilon)
                    + np.minimum(settings.decay * r / mean, 1) * (first - p)
                ),
                params, gradient, trained, rms,
            )  # fmt: skip
    return np.array(found)


def package_nats(corpus, settings, rms):
    windows = eval_windows(corpus, 1, settings.segment_length)
    step = jax.jit(make_dynamic_step(MODEL, settings))
    params, carry, found = PARAMS, MODEL.initial_state(PARAMS, 1), []
    for index in range(windows.windows_per_epoch):
        params, carry, nats = step(PARAMS, rms, params, carry, windows[index])
        found.extend(np.asarray(nats)[windows[index].mask])
    return np.array(found)


@pytest.mark.parametrize("rms", [True, False])
def test_dynamic_evaluation_equals_a_numpy_loop(rms):
    scale = None
    settings = DynamicSettings(0.3, 0.4, LENGTH, rms, 0.01)
    if rms:
        scale = gradient_rms(MODEL, PARAMS, CORPUS, LENGTH, 1000)
        assert all((np.asarray(leaf) >= 0).all() for leaf in jax.tree.leaves(scale))
    expected = loop_nats(CORPUS, settings, None if scale is None else to_numpy(scale))
    np.testing.assert_allclose(package_nats(CORPUS, settings, scale), expected, rtol=1e-4)
    total, count = dynamic_nats(MODEL, PARAMS, CORPUS, settings, rms=scale)
    assert count == 24 and total == pytest.approx(expected.sum(), rel=1e-4)


def test_the_scale_is_the_root_mean_square_of_all_segments():
    squares, count = jax.tree.map(np.zeros_like, to_numpy(PARAMS)), 0
    # Streams are about equally long, so that the two short sequences share one.
    for first, last in ((0, 0), (1, 2), (3, 3), (4, 4)):
        start, stop = CORPUS.offsets[first], CORPUS.offsets[last + 1]
        state = (np.zeros(H), 0)
        for begin in range(start, stop, LENGTH):
            places = np.arange(begin, min(begin + LENGTH, stop))
            fresh = np.isin(places, CORPUS.offsets)
            _, gradient, state = loop_gradient(
                to_numpy(PARAMS), CORPUS.events[places], fresh, state
            )
            squares = jax.tree.map(lambda s, g: s + g**2, squares, gradient)
            count += 1
    found = gradient_rms(MODEL, PARAMS, CORPUS, LENGTH, 1000)
    jax.tree.map(
        lambda a, s: np.testing.assert_allclose(a, np.sqrt(s / count), rtol=1e-4, atol=1e-6),
        found,
        squares,
    )


def test_without_a_learning_rate_it_is_static():
    config = Config(format="lines", eval_batch_size=2, sequence_length=8)
    static = make_score_events(MODEL, config, make_mesh())(PARAMS, CORPUS)["nats"]
    settings = DynamicSettings(0.0, 0.5, LENGTH, False)
    np.testing.assert_allclose(package_nats(CORPUS, settings, None), static, rtol=1e-5)


def test_no_event_is_scored_with_parameters_that_have_seen_it():
    settings = DynamicSettings(0.3, 0.1, LENGTH, False)
    before = package_nats(CORPUS, settings, None)
    for position in (12, 14, 15):
        events = CORPUS.events.copy()
        events[position] = (events[position] + 1) % K
        after = package_nats(CORPUS._replace(events=events), settings, None)
        np.testing.assert_array_equal(after[:position], before[:position])
        assert (after[position:20] != before[position:20]).all()


def test_a_segment_longer_than_the_data_is_not_padded():
    rms = [gradient_rms(MODEL, PARAMS, CORPUS, length, 16) for length in (24, 2**40)]
    jax.tree.map(np.testing.assert_array_equal, *rms)
    found = [
        dynamic_nats(MODEL, PARAMS, CORPUS, DynamicSettings(segment_length=length), rms=rms[0])
        for length in (24, 2**40)
    ]
    assert found[0] == found[1] and found[0][1] == 24
