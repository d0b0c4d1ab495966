"""Continuous refill: many sequences through few rows; a finished row takes the next sequence."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PRNGKey, PyTree
from grnn_jax.model import Model
from grnn_jax.ops.entry import entry, vary_alike
from grnn_jax.sampling.settings import Settings, check_counts, make_settings
from grnn_jax.sampling.state import (
    SampleState,
    check_classes_left,
    draw_event,
    sequence_keys,
    start,
    with_settings,
)


class ManySamples(NamedTuple):
    """Sequences drawn through a fixed number of rows.

    Attributes:
        events: [N, T, ...]; after the end of a sequence, zeros.
        mask: [N, T], True for events of the sequence, its end included.
        log_probs: [N, T], as `Samples.log_probs`.
        done: [N], True where a sequence ended by itself, a stop or its own length, not by `length`.
        steps: steps of rows that were computed; `mask.sum()` of them were of use.
    """

    events: PyTree
    mask: Bool[Array, "N T"]
    log_probs: Float[Array, "N T"]
    done: Bool[Array, " N"]
    steps: Int[Array, ""]


def sample_many(
    model: Model,
    params: Params,
    key: PRNGKey,
    num_samples: int,
    length: int,
    *,
    num_rows: int,
    prefix: PyTree | None = None,
    conditioning: Float[AnyArray, "..."] | None = None,
    conditions: Float[AnyArray, "..."] | None = None,
    first_index: int | Int[AnyArray, ""] = 0,
    **settings: Any,
) -> ManySamples:
    """Draws the sequences that `sample` draws, `num_rows` of them side by side.

    As soon as a sequence ends its row takes up the next one, so that rows stand idle only when no
    sequence is left: at most about `num_rows` times the longest sequence in steps, however much
    lengths differ.

    Args:
        model: as `sample`, and so are the arguments not listed.
        params: its parameters.
        key: a typed key.
        num_samples: N, sequences to draw.
        length: most events drawn for each sequence, the end event included.
        num_rows: R, rows of the batch that draws them.
        prefix: events [P, ...] or [N, P, ...] that come before the samples.
        conditioning: vectors [N, C], if the model has conditioning.
        conditions: [N, C], or [C] for all, of a model with conditions, see `log_prob`.
        first_index: index of the first sequence.
        **settings: the settings of `sample`, each one number or [N].

    Returns:
        The samples in the order of their indices, whatever the order in which they ended.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3, end=0))
        >>> params = model.init(jax.random.key(0))
        >>> key = jax.random.key(1)
        >>> drawn = sampling.sample_many(model, params, key, num_samples=8, length=6, num_rows=2)
        >>> drawn.events.shape, bool(drawn.steps >= drawn.mask.sum())
        ((8, 6), True)
    """
    check_counts(num_samples=num_samples, length=length, num_rows=num_rows)
    made = make_settings(model, num_samples, **settings)
    # One start serves all where nothing tells them apart.
    shared = conditioning is None and (prefix is None or _is_shared(model, prefix))
    shared = shared and (conditions is None or np.ndim(conditions) == 1)
    starts = start(
        model,
        params,
        key,
        1 if shared else num_samples,
        prefix=prefix,
        conditioning=conditioning,
        conditions=conditions,
    )
    sizes = (num_samples, length, min(num_rows, num_samples))
    starts = with_settings(starts, made)
    samples: ManySamples = _draw_many(model, sizes, params, starts, made, key, first_index)
    check_classes_left(made, samples.events)
    return samples


def _is_shared(model: Model, prefix: PyTree) -> bool:
    leaf, spec = (jax.tree.leaves(tree)[0] for tree in (prefix, model.distribution.event))
    return jnp.ndim(leaf) == 1 + len(spec.shape)


@entry(num_static=2)
def _draw_many(
    model: Model,
    sizes: tuple[int, int, int],
    params: Params,
    starts: SampleState,
    settings: Settings,
    key: PRNGKey,
    first_index: int | Int[Array, ""],
) -> ManySamples:
    num_samples, length, num_rows = sizes
    step = model.make_step(params, num_events=num_samples * length)
    one_start = starts.done.shape[0] == 1

    def begin(index: Array) -> SampleState:
        """Rows in front of the first event of some sequences."""
        chosen = jnp.zeros_like(index) if one_start else jnp.minimum(index, num_samples - 1)
        state: SampleState = jax.tree.map(lambda leaf: leaf[chosen], starts)
        return state._replace(
            key=sequence_keys(key, first_index + index), done=index >= num_samples
        )

    def refill(
        finished: Array, following: Array, index: Array, state: SampleState
    ) -> tuple[Array, SampleState]:
        index = jnp.where(finished, following + jnp.cumsum(finished) - 1, index)
        index = jnp.minimum(index, num_samples)
        fresh = begin(index)

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(finished.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        return index, jax.tree.map(choose, fresh, state)

    Loop = tuple[Array, Array, SampleState, ManySamples]  # index, following, state, result

    def unfinished(loop: Loop) -> Array:
        return (loop[0] < num_samples).any()

    def draw(loop: Loop) -> Loop:
        index, following, state, result = loop
        own = settings.rows(jnp.minimum(index, num_samples - 1))
        # Rows without a sequence write outside, which is dropped.
        element = (index, state.position)
        state, event, nats = draw_event(model, step, params, state, own)
        events = jax.tree.map(
            lambda buffer, row: buffer.at[element].set(row.astype(buffer.dtype), mode="drop"),
            result.events,
            event,
        )
        result = ManySamples(
            events,
            result.mask.at[element].set(True, mode="drop"),
            result.log_probs.at[element].set(nats, mode="drop"),
            result.done.at[index].set(state.done, mode="drop"),
            result.steps + num_rows,
        )
        active = index < num_samples
        finished = active & (state.done | (state.position >= length))
        index, state = jax.lax.cond(
            finished.any(),
            refill,
            lambda finished, following, index, state: (index, state),
            finished, following, index, state,
        )  # fmt: skip
        return index, following + finished.sum(), state, result

    shape = (num_samples, length)
    events = jax.tree.map(
        lambda spec: jnp.zeros((*shape, *spec.shape), spec.dtype), model.distribution.event
    )
    nothing = ManySamples(
        events,
        jnp.zeros(shape, bool),
        jnp.zeros(shape, jnp.float32),
        jnp.zeros(num_samples, bool),
        jnp.int32(0),
    )
    index = jnp.arange(num_rows)
    loop = vary_alike((index, jnp.int32(num_rows), begin(index), nothing), params, starts, key)
    samples: ManySamples = jax.lax.while_loop(unfinished, draw, loop)[-1]
    return samples
