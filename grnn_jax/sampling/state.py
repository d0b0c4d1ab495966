"""The state of sequences that are being drawn, and the one step that draws their next event."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PRNGKey, PyTree
from grnn_jax.checks import check_events
from grnn_jax.conditions import check_conditions
from grnn_jax.distributions.acceptance import accept
from grnn_jax.distributions.truncation import truncate
from grnn_jax.likelihood import event_log_probs
from grnn_jax.model import Carry, Model, check_params
from grnn_jax.ops.checks import check_key
from grnn_jax.ops.entry import entry
from grnn_jax.sampling.settings import Settings

NO_CLASS = -1
"""The event of a row whose every class a callback forbids: no class, with log-probability NaN."""


class SampleState(NamedTuple):
    """What a sample leaves behind for its continuation; every array is [B, ...].

    Attributes:
        carry: the network's carry.
        key: typed keys, one for each sequence.
        position: events drawn so far in each sequence.
        done: True where the sequence has ended.
        seen: [B, V], events that have occurred, where a repetition penalty needs them.
        stop: state of the stop automaton, where there is one.
    """

    carry: Carry
    key: Array
    position: Int[Array, " B"]
    done: Bool[Array, " B"]
    seen: Bool[Array, "B V"] | None = None
    stop: Int[Array, " B"] | None = None


def start(
    model: Model,
    params: Params,
    key: PRNGKey,
    num_samples: int,
    *,
    prefix: PyTree | None = None,
    conditioning: Float[AnyArray, "..."] | None = None,
    conditions: Float[AnyArray, "..."] | None = None,
    first_index: int | Int[AnyArray, ""] = 0,
) -> SampleState:
    """The state in front of the first event drawn; arguments as `sample`.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> prefix = jax.numpy.array([1, 2])
        >>> state = sampling.start(model, params, jax.random.key(1), 2, prefix=prefix)
        >>> state.carry.event.tolist(), state.position.tolist()  # what comes next depends on [1, 2]
        ([2, 2], [0, 0])
    """
    check_params(model.init, params)
    check_key("key", key)
    prefix = None if prefix is None else _batched_prefix(model, prefix, num_samples)
    check_conditions(model.conditions, conditions, num_samples)
    state: SampleState = _start(
        model, num_samples, params, key, prefix, conditioning, conditions, first_index
    )
    return state


@entry(num_static=2, rows=(4, 5, 6))
def _start(
    model: Model,
    num_samples: int,
    params: Params,
    key: PRNGKey,
    prefix: PyTree | None,
    conditioning: Float[Array, "..."] | None,
    conditions: Float[Array, "..."] | None,
    first_index: int | Int[Array, ""],
) -> SampleState:
    carry = model.initial_state(params, num_samples, conditioning, conditions)
    seen = None
    if model.distribution.num_tokens is not None:
        seen = jnp.zeros((num_samples, model.distribution.num_tokens), bool)
    if prefix is not None:
        shape = jax.tree.leaves(prefix)[0].shape[:2]
        batch = (prefix, jnp.ones(shape, bool), jnp.zeros(shape, bool))
        _, carry = event_log_probs(model, params, carry, batch, conditioning=conditioning)
        if seen is not None:
            seen = jax.vmap(lambda row, tokens: row.at[tokens].set(True))(seen, prefix)
    keys = sequence_keys(key, first_index + jnp.arange(num_samples))
    zeros = jnp.zeros((num_samples,), jnp.int32)
    return SampleState(carry, keys, zeros, zeros.astype(bool), seen)


def sequence_keys(key: PRNGKey, index: Int[Array, " B"]) -> Array:
    """The keys of sequences, folded from their indices."""
    return jax.vmap(lambda one: jax.random.fold_in(key, one))(index)


def with_settings(state: SampleState, settings: Settings) -> SampleState:
    """The state with what the settings need, and nothing else: loops carry it at every step."""
    classes = None if state.seen is None else state.seen.shape[1]
    if settings.repetition_penalty is None:
        state = state._replace(seen=None)
    elif state.seen is None:
        raise ValueError("repetition_penalty must be given from the start of the sequences on")
    if settings.stop is None:
        return state._replace(stop=None)
    if classes is not None and settings.stop.table.shape[1] != classes:
        given = settings.stop.table.shape[1]
        raise ValueError(f"stop must be over the {classes} tokens of the model, got {given}")
    return state if state.stop is not None else state._replace(stop=jnp.zeros_like(state.position))


def draw_event(
    model: Model,
    step: Callable[[Carry], tuple[Array, Carry]],
    params: Params,
    state: SampleState,
    settings: Settings,
) -> tuple[SampleState, PyTree, Float[Array, " B"]]:
    """Draws the next event of every row.

    Args:
        model: the model.
        step: `model.make_step(params)`.
        params: its parameters.
        state: the rows.
        settings: of the rows.

    Returns:
        The state after the event, the event [B, ...], and its nats under the model itself. Rows
        that were done before draw an event too, which is to be ignored. A row to which a callback
        leaves no class is done, with the event `NO_CLASS`.
    """
    distribution = model.distribution
    hidden, carry = step(state.carry)
    keys = jax.vmap(jax.random.fold_in)(state.key, state.position)
    if settings.needs_logits:
        assert distribution.logits is not None
        logits = jax.nn.log_softmax(distribution.logits(params["distribution"], hidden), -1)
        if settings.repetition_penalty is not None:
            assert state.seen is not None
            penalty = settings.repetition_penalty.reshape(-1, 1)
            logits = jnp.where(state.seen, penalty * logits, logits)
        if settings.logits_callback is not None:
            logits = settings.logits_callback(logits, state)
        scores = truncate(logits, **settings.family)
        event = jax.vmap(jax.random.categorical)(keys, scores).astype(jnp.int32)
        if settings.logits_callback is not None:
            event = jnp.where((logits > -jnp.inf).any(-1), event, NO_CLASS)
    else:
        event = distribution.sample(keys, params["distribution"], hidden, **settings.family)
    nats = distribution.log_prob(params["distribution"], hidden, event)
    position = state.position + 1
    done, seen, stop = state.done, state.seen, state.stop
    if settings.logits_callback is not None:
        done = done | (event == NO_CLASS)
    if distribution.is_end is not None:
        done = done | distribution.is_end(event)
    if settings.lengths is not None:
        done = done | (position >= settings.lengths)
    if seen is not None:
        seen = seen | jax.nn.one_hot(event, seen.shape[-1], dtype=bool)
    if settings.stop is not None:
        stop = jnp.asarray(settings.stop.table)[stop, event]
        done = done | jnp.asarray(settings.stop.accepting)[stop]
    state = SampleState(model.feed(carry, event), state.key, position, done, seen, stop)
    return state, event, nats


def check_classes_left(settings: Settings, events: PyTree) -> None:
    """Names the first event [B, T] that a callback left no class; inside jit passes."""
    if settings.logits_callback is None or isinstance(events, jax.core.Tracer):
        return
    rows, times = np.nonzero(jax.device_get(events) == NO_CLASS)
    if rows.size:
        raise ValueError(
            "logits_callback must leave at least one class a logit above -inf, got none for "
            f"sequence {rows[0]}, event {times[0]}"
        )


def zeros_unless(active: Bool[Array, " B"], event: PyTree) -> PyTree:
    """The event [B, ...], zeros in the rows that are not active."""
    return jax.tree.map(
        lambda leaf: jnp.where(active.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0), event
    )


def _batched_prefix(model: Model, prefix: PyTree, num_samples: int) -> PyTree:
    """The prefix as arrays [B, P, ...], or None if it is empty."""
    check_events(model, prefix, name="prefix")
    prefix, _ = accept(model.distribution, prefix)

    def batched(spec: jax.ShapeDtypeStruct, leaf: AnyArray) -> Array:
        leaf = jnp.asarray(leaf, spec.dtype)
        axes = "".join(f", {size}" for size in spec.shape)
        if leaf.ndim == 1 + len(spec.shape):
            leaf = jnp.broadcast_to(leaf, (num_samples, *leaf.shape))
        if leaf.shape[:1] != (num_samples,) or leaf.shape[2:] != spec.shape or leaf.ndim < 2:
            raise ValueError(
                f"prefix must be [P{axes}] or [{num_samples}, P{axes}], got shape {leaf.shape}"
            )
        return leaf

    prefix = jax.tree.map(batched, model.distribution.event, prefix)
    return prefix if jax.tree.leaves(prefix)[0].shape[1] else None
