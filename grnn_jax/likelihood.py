"""Exact log-probabilities of events and sequences, and their units.

    log p(x_1..x_T) = Σ_{t=0}^{T-1} log p(x_{t+1} | x_≤t)

Every event is predicted, the first one too, and none from itself.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Array, Batch, Bool, Float, Int, Params, PRNGKey, PyTree
from grnn_jax.checks import check_carry, check_events, check_shapes
from grnn_jax.conditions import (
    NO_CONDITIONS,
    SegmentedConditions,
    check_conditions,
    of_rows,
    of_segments,
)
from grnn_jax.distributions.acceptance import accept, fill
from grnn_jax.model import Carry, Model, check_params, make_encoder
from grnn_jax.ops.checks import check_array, check_key
from grnn_jax.ops.chunks import scan_chunks
from grnn_jax.ops.entry import entry, vary_alike
from grnn_jax.recurrence.base import RunOptions, Window
from grnn_jax.recurrence.dropout import dropout_index
from grnn_jax.recurrence.inputs import Addend
from grnn_jax.recurrence.unroll import run_window


def event_log_probs(
    model: Model,
    params: Params,
    carry: Carry,
    batch: Any,
    *,
    key: PRNGKey | None = None,
    first_row: int | Int[Array, ""] = 0,
    conditioning: Float[AnyArray, "..."] | None = None,
) -> tuple[Float[Array, "B T"], Carry]:
    r"""Log-probability of every event of a window, given all events before it.

        log p(x_{t+1} | x_≤t) = distribution.log_prob(h_t, x_{t+1}),   0 where not mask

    The window continues the sequences of `carry`, as truncated BPTT does; at a reset the
    network restarts from its initial state and the start input, so nothing crosses it. With
    `model.chunk_size` the whole way from events to log-probabilities is rematerialised in
    chunks, so that memory grows with √T.

    Args:
        model: the model.
        params: its parameters.
        carry: `model.initial_state(...)`, or the carry of the window before.
        batch: events [B, T, ...], mask [B, T] (events that count; the others are padding or
            context) and reset [B, T], as a `grnn_jax.data.Batch`; with its conditions [B, S, C], if
            the model has conditions and rows change them at their resets.
        key: switches dropout on, and seeds it.
        first_row: number of the first row in the whole batch, where these rows are a part of it:
            dropout draws by the row's number.
        conditioning: vectors that move the initial state, if the model has conditioning.

    Returns:
        Log-probabilities in nats, exactly 0 where mask is False, NaN where it is True of what is
        no event, and the carry after the window. No gradient depends on what mask leaves out,
        but through what enters the network: events that are context.

    Example:
        >>> import grnn_jax
        >>> from grnn_jax import cells, distributions
        >>> model = grnn_jax.make_model(cells.gru(8), distributions.categorical(5))
        >>> params = model.init(jax.random.key(0))
        >>> events = jnp.arange(12).reshape(2, 6) % 5  # [B, T]
        >>> mask, reset = jnp.ones((2, 6), bool), jnp.zeros((2, 6), bool)
        >>> carry = model.initial_state(params, 2)
        >>> log_probs, carry = grnn_jax.event_log_probs(
        ...     model, params, carry, grnn_jax.Batch(events, mask, reset)
        ... )
        >>> log_probs.shape
        (2, 6)
        >>> bool(jnp.allclose(log_probs.sum(1), grnn_jax.log_prob(model, params, events)))
        True
    """
    read = model.distribution.log_prob
    return event_statistics(
        model,
        params,
        carry,
        batch,
        read,
        key=key,
        first_row=first_row,
        conditioning=conditioning,
    )


def event_statistics(
    model: Model,
    params: Params,
    carry: Carry,
    batch: Any,
    read: Callable[[Params, Array, PyTree], PyTree],
    *,
    key: PRNGKey | None = None,
    first_row: int | Int[Array, ""] = 0,
    conditioning: Float[AnyArray, "..."] | None = None,
) -> tuple[PyTree, Carry]:
    r"""What the model says of every event of a window, given all events before it.

        read(h_t, x_{t+1}),   0 where not mask

    Args:
        model: the model.
        params: its parameters.
        carry: as `event_log_probs`, and so are the other arguments.
        batch: events, mask and reset.
        read: (params of the distribution, hidden [T, B, H], events [T, B, ...]) -> arrays [T, B]:
            the log_prob of the distribution, its entropy, …; or arrays [T, B, ...].
        key: switches dropout on, and seeds it.
        first_row: number of the first row in the whole batch.
        conditioning: vectors that move the initial state.

    Returns:
        What `read` returned, batch-major [B, T, ...], exactly 0 where mask is False and NaN where
        a value is no event of the family, and the carry after the window. `read` sees events
        alone; so does the network, of what mask leaves out too.
    """
    events, mask, reset, conditions = Batch(*batch)
    shape = check_shapes(model, events)
    check_array("mask", mask, shape)
    check_array("reset", reset, shape)
    check_params(model.init, params)
    check_carry(model, params, carry, shape[0])
    if key is not None:
        check_key("key", key)
    if conditions is not None:
        name = "batch.conditions"
        check_conditions(model.conditions, conditions, shape[0], name, by_segment=True)
        if carry.conditions is not None:
            raise ValueError("conditions must be those of the carry or of the batch, got both")
    # On the host values are looked at as they came: compiled, 64 bits would be cut to 32.
    events, valid = accept(model.distribution, events)
    statistics: tuple[PyTree, Carry] = _event_statistics(
        model, read, params, carry, events, valid, mask, reset, key, first_row, conditioning,
        conditions,
    )  # fmt: skip
    return statistics


@entry(num_static=2, rows=(4, 6, 7, 3), inline=True)
def _event_statistics(
    model: Model,
    read: Callable[[Params, Array, PyTree], PyTree],
    params: Params,
    carry: Carry,
    events: PyTree,
    valid: Bool[Array, "B T"],
    mask: Bool[Array, "B T"],
    reset: Bool[Array, "B T"],
    key: PRNGKey | None,
    first_row: int | Int[Array, ""],
    conditioning: Float[Array, "..."] | None,
    conditions: Float[Array, "B S C"] | None = None,
) -> tuple[PyTree, Carry]:
    mask, reset = jnp.asarray(mask, bool), jnp.asarray(reset, bool)
    events, valid = jax.tree.map(jnp.asarray, (events, valid))
    # Nothing but events reaches the maths: NaN would come back through the gradient of a `where`.
    scored = fill(model.distribution, events, mask & valid)
    events = fill(model.distribution, events, valid)
    batch_size, length = mask.shape
    if not mask.size:
        return _no_statistics(model, params, mask.shape, read), carry
    initial = model.initial_state(params, batch_size, conditioning)
    previous, started = shift_right(carry, events, reset)
    addend, segment, unknown = _condition(model, params, carry, started, reset, conditions)
    wrong = mask & (~valid if unknown is None else ~valid | unknown)
    encode = make_encoder(model.distribution, params)
    index = None if key is None else dropout_index(batch_size, length, reset, first_row)
    options = RunOptions(model.engine, key)

    def chunk(state: PyTree, steps: tuple[Any, ...]) -> tuple[PyTree, PyTree]:
        events, previous, started, mask, wrong, reset, index, segment = steps
        inputs = encode(previous, started)._replace(addend=addend._replace(segment=segment))
        hidden, state = run_window(
            model.cell,
            params["cell"],
            Window(inputs, reset, index),
            state,
            initial.cell_state,
            options,
        )
        if model.skip_input:
            hidden = jnp.concatenate([hidden, jnp.swapaxes(inputs.lookup(), 0, 1)], -1)
        # Time-major to the end: the events are small, and `hidden` is not.
        events = jax.tree.map(lambda array: jnp.swapaxes(array, 0, 1), events)
        statistics = read(params["distribution"], hidden, events)
        return state, jax.tree.map(
            lambda values: _masked_batch_major(values, mask, wrong), statistics
        )

    steps = (scored, previous, started, mask, wrong, reset, index, segment)
    state = vary_alike(carry.cell_state, params, steps)
    state, statistics = scan_chunks(chunk, state, steps, model.chunk_size)
    last = jax.tree.map(lambda array: array[:, -1], events)
    return statistics, model.feed(carry._replace(cell_state=state), last)


def _condition(
    model: Model,
    params: Params,
    carry: Carry,
    started: Bool[Array, "B T"],
    reset: Bool[Array, "B T"],
    conditions: Float[Array, "B S C"] | None,
) -> SegmentedConditions:
    """What the conditions of the carry or of the batch add in a window."""
    if not model.conditions.sizes:
        return SegmentedConditions(Addend(), None)
    if conditions is not None:
        return of_segments(params["conditions"], model.conditions, conditions, started, reset)
    if carry.conditions is None:
        raise ValueError(NO_CONDITIONS)
    return of_rows(carry.conditions, started)


def _no_statistics(
    model: Model, params: Params, shape: tuple[int, ...], read: Callable[..., PyTree]
) -> PyTree:
    """What `read` would return of a window [B, T] without rows or without steps."""
    batch_size, length = shape
    width = model.cell.hidden_size + model.skip_input * model.distribution.encoding_size
    hidden = jax.ShapeDtypeStruct((length, batch_size, width), jnp.float32)
    events = jax.tree.map(
        lambda spec: jax.ShapeDtypeStruct((length, batch_size, *spec.shape), spec.dtype),
        model.distribution.event,
    )
    statistics = jax.eval_shape(read, params["distribution"], hidden, events)
    return jax.tree.map(lambda spec: jnp.zeros((*shape, *spec.shape[2:]), spec.dtype), statistics)


def _masked_batch_major(
    values: Array, mask: Bool[Array, "B T"], wrong: Bool[Array, "B T"]
) -> Array:
    """Values [T, B, ...] as [B, T, ...], 0 where not mask, NaN where the event is none."""
    values = jnp.swapaxes(values, 0, 1)
    axes = mask.shape + (1,) * (values.ndim - 2)
    if jnp.issubdtype(values.dtype, jnp.inexact):
        values = jnp.where(wrong.reshape(axes), jnp.nan, values)
    return jnp.where(mask.reshape(axes), values, 0)


def shift_right(
    carry: Carry, events: PyTree, reset: Bool[Array, "B T"]
) -> tuple[PyTree, Bool[Array, "B T"]]:
    """The event that enters the network before each event, and whether there is one.

    Args:
        carry: holds the last event of the window before.
        events: the window's events, arrays [B, T, ...].
        reset: True where a sequence starts.

    Returns:
        previous events [B, T, ...], and False where the start input enters instead.
    """
    previous = jax.tree.map(
        lambda last, array: jnp.concatenate([last[:, None].astype(array.dtype), array[:, :-1]], 1),
        carry.event,
        events,
    )
    follows = jnp.ones_like(reset[:, 1:])
    started = jnp.concatenate([carry.started[:, None], follows], 1) & ~reset
    return previous, started


def log_prob(
    model: Model,
    params: Params,
    events: PyTree,
    mask: Bool[AnyArray, "..."] | None = None,
    *,
    key: PRNGKey | None = None,
    conditioning: Float[AnyArray, "..."] | None = None,
    conditions: Float[AnyArray, "..."] | None = None,
) -> Float[Array, " B"]:
    r"""Exact log-probability of whole sequences.

        log p(x_1..x_T) = Σ_t log p(x_{t+1} | x_≤t)

    Where the end of a sequence is an event it must stand in `events` to be counted. Compiled once
    for each model and shapes; equal models, made apart, share that.

    Args:
        model: the model.
        params: its parameters.
        events: arrays [B, T, ...]; each row is one sequence from its first event on. What stands
            in the padding has no effect, whatever it is.
        mask: True for real events, then False for padding; None if all rows have full length.
        key: switches dropout on, and seeds it: the result is then that of a network with units
            left out, as in training. None is exact.
        conditioning: vectors [B, C], if the model has conditioning.
        conditions: what each sequence is given, [B, C], or [C] for all, if the model has
            conditions: class indices and numbers, NaN where they are missing. The result is then
            log p(x | c).

    Returns:
        One number of nats for each sequence: 0 where T is 0, none where B is 0.

    Raises:
        ValueError: by the name of the argument: for arrays that do not fit the model or each
            other, a value that is no event of the distribution, or padding before an event. Under
            jit values cannot be looked at: there what is no event has log-probability NaN.

    Example:
        >>> import grnn_jax
        >>> from grnn_jax import cells, distributions
        >>> model = grnn_jax.make_model(cells.lstm(8), distributions.categorical(2))
        >>> params = model.init(jax.random.key(0))
        >>> words = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]])  # all of two events
        >>> float(jnp.exp(grnn_jax.log_prob(model, params, words)).sum().round(5))
        1.0
        >>> padded, mask = jnp.array([[1, 0, 0]]), jnp.array([[True, True, False]])
        >>> longer = grnn_jax.log_prob(model, params, padded, mask)
        >>> bool(jnp.allclose(longer, grnn_jax.log_prob(model, params, words[2:3])))
        True
    """
    shape = check_shapes(model, events)
    check_params(model.init, params)
    if mask is None:
        mask = np.ones(shape, bool)
    check_array("mask", mask)
    if mask.shape != shape:
        raise ValueError(f"mask must have the shape {shape} of events, got {mask.shape}")
    check_events(model, events, mask)
    if not isinstance(mask, jax.core.Tracer) and (np.diff(np.asarray(mask, int), axis=1) > 0).any():
        raise ValueError("mask must be True for the first events of each row and False after them")
    if key is not None:
        check_key("key", key)
    events, valid = accept(model.distribution, events)
    check_conditions(model.conditions, conditions, shape[0])
    nats: Array = _log_prob(model, params, events, valid, mask, key, conditioning, conditions)
    return nats


@entry(num_static=1, rows=(2, 4), inline=True)
def _log_prob(
    model: Model,
    params: Params,
    events: PyTree,
    valid: Bool[Array, "B T"],
    mask: Bool[Array, "B T"],
    key: PRNGKey | None,
    conditioning: Float[Array, "..."] | None,
    conditions: Float[Array, "..."] | None,
) -> Float[Array, " B"]:
    carry = model.initial_state(params, mask.shape[0], conditioning, conditions)
    reset = jnp.zeros(mask.shape, bool)
    log_probs, _ = _event_statistics(
        model, model.distribution.log_prob, params, carry, events, valid, mask, reset, key, 0,
        conditioning,
    )  # fmt: skip
    total: Array = log_probs.sum(1)
    return total


Nats = TypeVar("Nats", float, np.ndarray)


def bits(nats: Nats) -> Nats:
    """Nats in bits: nats / ln 2, of a number or of each in an array."""
    return nats / math.log(2.0)


def perplexity(nats_per_event: float) -> float:
    """Exp of the mean negative log-probability; inf where that overflows."""
    try:
        return math.exp(nats_per_event)
    except OverflowError:
        return math.inf


def per_event(nats: float, num_events: int) -> dict[str, float]:
    """The mean negative log-probability of an event in the units in which scores are told.

    Args:
        nats: the sum over events.
        num_events: how many there are; the mean over none is 0.

    Returns:
        nats_per_event, bits_per_event and perplexity.
    """
    mean = nats / max(num_events, 1)
    return {
        "nats_per_event": mean,
        "bits_per_event": bits(mean),
        "perplexity": perplexity(mean),
    }
