"""Dynamic evaluation: the parameters follow the history while it is scored."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from grnn_jax.array_types import Batch
from grnn_jax.compiler import outermost_jit
from grnn_jax.data import Corpus, eval_windows
from grnn_jax.likelihood import event_log_probs
from grnn_jax.model import Model
from grnn_jax.scoring.events import Report, sum_windows

STATISTICS_STREAMS = 16


class DynamicSettings(NamedTuple):
    """How the parameters follow.

    Attributes:
        learning_rate: η, size of a gradient step; 0 leaves the parameters alone.
        decay: λ, pull back to the trained parameters, in [0, 1].
        segment_length: events that are scored together, before the step that they cause.
        rms: whether steps are scaled, by the root mean square of each parameter's gradients on
            training data; else they are plain gradient descent.
        epsilon: ε, added to the root mean square.
    """

    learning_rate: float = 1e-4
    decay: float = 1e-3
    segment_length: int = 20
    rms: bool = True
    epsilon: float = 1e-5


def make_dynamic_step(
    model: Model, settings: DynamicSettings
) -> Callable[..., tuple[PyTree, PyTree, Array]]:
    r"""Makes the step that scores a segment, and then learns from it.

        g = ∇ (mean nats of the segment),  R = root mean square of g on training data
        θ ← θ − η g / (R + ε) + min(λ R / mean(R), 1) (θ_0 − θ)      with `rms`
        θ ← θ − η g + λ (θ_0 − θ)                                    without

    The segment is scored by the parameters in front of the step, which have seen the segments
    before it and nothing of it. The recurrent state goes on from the one that they left.

    Args:
        model: the model.
        settings: η, λ, ε.

    Returns:
        Pure function (trained θ_0, R or None, θ, carry, batch) -> (θ, carry, nats [B, T]).

    Reference: B. Krause, E. Kahembwe, I. Murray, S. Renals, "Dynamic evaluation of neural sequence
    models", ICML 2018.
    """

    def step(
        trained: PyTree, rms: PyTree | None, params: PyTree, carry: PyTree, batch: Batch
    ) -> tuple[PyTree, PyTree, Array]:
        gradient, (nats, carry) = _gradient(model, params, carry, batch)
        if rms is None:
            scaled, pull = gradient, jax.tree.map(lambda g: settings.decay, gradient)
        else:
            leaves = jax.tree.leaves(rms)
            mean = sum(jnp.sum(leaf) for leaf in leaves) / sum(leaf.size for leaf in leaves)
            scaled = jax.tree.map(lambda g, r: g / (r + settings.epsilon), gradient, rms)
            pull = jax.tree.map(lambda r: jnp.minimum(settings.decay * r / mean, 1), rms)
        params = jax.tree.map(
            lambda p, g, d, first: p - settings.learning_rate * g + d * (first - p),
            params,
            scaled,
            pull,
            trained,
        )
        return params, carry, nats

    return step


def gradient_rms(
    model: Model, params: PyTree, corpus: Corpus, segment_length: int, segments: int
) -> PyTree:
    r"""The root mean square of the gradient of a segment's mean nats, over training data.

    Args:
        model: the model.
        params: its parameters.
        corpus: the training data.
        segment_length: events in a segment.
        segments: about how many to look at, from all over the corpus.

    Returns:
        R, the structure of the parameters.
    """
    length = min(segment_length, corpus.num_events)  # The rest would be padding.
    windows = eval_windows(corpus, STATISTICS_STREAMS, length, context=0)

    @outermost_jit
    def add(
        squares: PyTree, count: Array, carry: PyTree, batch: Batch
    ) -> tuple[PyTree, Array, PyTree]:
        def one(state: tuple, row: tuple) -> tuple[tuple, PyTree]:
            squares, count = state
            carry, batch = jax.tree.map(lambda leaf: leaf[None], row)
            gradient, (_, carry) = _gradient(model, params, carry, batch)
            squares = jax.tree.map(lambda s, g: s + jnp.square(g), squares, gradient)
            after = jax.tree.map(lambda leaf: leaf[0], carry)
            return (squares, count + jnp.any(batch.mask)), after

        (squares, count), carry = jax.lax.scan(one, (squares, count), (carry, batch))
        return squares, count, carry

    squares = jax.tree.map(jnp.zeros_like, params)
    count, carry = jnp.zeros((), jnp.int32), model.initial_state(params, STATISTICS_STREAMS)
    for index in range(min(windows.windows_per_epoch, -(-segments // STATISTICS_STREAMS))):
        batch = jax.tree.map(jnp.asarray, windows[index])
        squares, count, carry = add(squares, count, carry, batch)
    return jax.tree.map(lambda leaf: jnp.sqrt(leaf / jnp.maximum(count, 1)), squares)


def dynamic_nats(
    model: Model,
    params: PyTree,
    corpus: Corpus,
    settings: DynamicSettings,
    *,
    rms: PyTree | None = None,
    report: Report | None = None,
) -> tuple[float, int]:
    """The nats of a corpus under dynamic evaluation, in its order, as one stream.

    Args:
        model: the model.
        params: the trained parameters.
        corpus: what to score.
        settings: how the parameters follow.
        rms: of `gradient_rms`; None for plain gradient descent.
        report: is told how many events are done.

    Returns:
        The sum of the nats, and the number of events.
    """
    windows = eval_windows(corpus, 1, min(settings.segment_length, corpus.num_events))
    dynamic_step = outermost_jit(make_dynamic_step(model, settings), donate_argnums=(2, 3))

    def step(state: PyTree, batch: Batch) -> tuple[PyTree, dict[str, Any]]:
        followed, carry, nats = dynamic_step(params, rms, *state, batch)
        return (followed, carry), {"nats": jnp.sum(nats), "num_events": batch.mask.sum()}

    start = jax.tree.map(jnp.copy, params), model.initial_state(params, 1)
    sums = sum_windows(step, start, windows, report)
    return sums["nats"], int(sums["num_events"])


def _gradient(
    model: Model, params: PyTree, carry: PyTree, batch: Batch
) -> tuple[PyTree, tuple[Array, PyTree]]:
    """The gradient of the mean nats of a segment; its nats and the carry after it."""

    def loss(params: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
        log_probs, after = event_log_probs(model, params, carry, batch)
        mean = -jnp.sum(log_probs) / jnp.maximum(jnp.sum(batch.mask), 1)
        return mean, (-log_probs, jax.lax.stop_gradient(after))

    return jax.grad(loss, has_aux=True)(params)
