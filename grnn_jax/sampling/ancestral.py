"""Ancestral sampling: draw x_{t+1} from p(· | x_≤t), feed it back, repeat."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PRNGKey, PyTree
from grnn_jax.distributions.composition import sample_options
from grnn_jax.likelihood import check_tokens, event_log_probs
from grnn_jax.model import Carry, Model


class SampleState(NamedTuple):
    """What a sample leaves behind for its continuation; every array is [B, ...].

    Attributes:
        carry: the network's carry.
        key: typed keys, one for each sequence.
        position: events drawn so far in each sequence.
        done: True where the sequence has ended.
    """

    carry: Carry
    key: Array
    position: Int[Array, " B"]
    done: Bool[Array, " B"]


class Samples(NamedTuple):
    """Sampled sequences.

    Attributes:
        events: [B, T, ...]; after the end of a sequence, zeros.
        mask: [B, T], True for events of the sequence, its end included.
        log_probs: [B, T], nats under the model itself (temperature 1, not truncated), 0 where
            not mask; they equal the log-probabilities of scoring the sample.
        state: for continuing.
    """

    events: PyTree
    mask: Bool[Array, "B T"]
    log_probs: Float[Array, "B T"]
    state: SampleState


def sample(
    model: Model,
    params: Params,
    key: PRNGKey,
    num_samples: int,
    length: int,
    *,
    prefix: PyTree | None = None,
    temperature: float | Float[AnyArray, "..."] = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    conditioning: Float[AnyArray, "..."] | None = None,
    first_index: int | Int[AnyArray, ""] = 0,
    **options: float | AnyArray,
) -> Samples:
    r"""Draws sequences from the model.

        x_{t+1} ~ p(· | x_≤t),  t = 0, 1, …, until the end event or `length`

    The key of an event is folded from the sequence's index and the time step, so a sequence
    does not depend on how many are drawn beside it (up to the rounding of the logits, which may
    differ with the shape of a matmul). Compiled once for each model and shape;
    the loop stops when every sequence has ended.

    Args:
        model: the model.
        params: its parameters.
        key: a typed key, `jax.random.key(seed)`.
        num_samples: B, sequences drawn side by side.
        length: most events drawn for each sequence, the end event included.
        prefix: events [P, ...], the same for all, or [B, P, ...], that come before the sample.
        temperature: divides the logits; 0 takes the mode. A number, or one for each sequence.
            Families that are no softmax say what they make of it; some have none.
        top_k: keeps the k most probable classes; None keeps all.
        top_p: keeps the most probable classes up to this probability; None keeps all.
        conditioning: vectors [B, C], if the model has conditioning.
        first_index: index of the first sequence, for drawing a large set in parts.
        **options: further options of the family's `sample`, as `bias` of `pen`.

    Returns:
        The samples, without the prefix.

    Raises:
        ValueError: for a setting outside its range or unknown to the family, or a prefix of a
            shape that does not fit.

    Reference: A. Graves, "Generating sequences with recurrent neural networks", 2013.
    """
    _check_settings(num_samples, length, temperature, top_k, top_p)
    options |= {"temperature": temperature} | ({} if top_p is None else {"top_p": top_p})
    static = {} if top_k is None else {"top_k": top_k}
    options = _family_options(model, static, options)
    state = start(
        model,
        params,
        key,
        num_samples,
        prefix=prefix,
        conditioning=conditioning,
        first_index=first_index,
    )
    return _draw(model, length, tuple(static.items()), params, state, options)


def stream(
    model: Model,
    params: Params,
    key: PRNGKey,
    num_samples: int,
    length: int,
    *,
    chunk_length: int = 32,
    prefix: PyTree | None = None,
    temperature: float | Float[AnyArray, "..."] = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    conditioning: Float[AnyArray, "..."] | None = None,
    first_index: int = 0,
    **options: float | AnyArray,
) -> Iterator[Samples]:
    """Draws the same sequences as `sample`, and yields them piece by piece as they are drawn.

    Args:
        model: as `sample`, and so are the other arguments.
        params: its parameters.
        key: a typed key.
        num_samples: B.
        length: most events drawn for each sequence.
        chunk_length: events in a piece; the last one may be shorter.
        prefix: events that come before the sample.
        temperature: divides the logits.
        top_k: keeps the k most probable classes.
        top_p: keeps the most probable classes up to this probability.
        conditioning: vectors [B, C].
        first_index: index of the first sequence.
        **options: further options of the family's `sample`.

    Yields:
        Samples of `chunk_length` events; stops early when every sequence has ended.
    """
    _check_settings(num_samples, length, temperature, top_k, top_p)
    if chunk_length < 1:
        raise ValueError(f"chunk_length must be at least 1, got {chunk_length}")
    options |= {"temperature": temperature} | ({} if top_p is None else {"top_p": top_p})
    static = {} if top_k is None else {"top_k": top_k}
    options = _family_options(model, static, options)
    state = start(
        model,
        params,
        key,
        num_samples,
        prefix=prefix,
        conditioning=conditioning,
        first_index=first_index,
    )
    for begin in range(0, length, chunk_length):
        size = min(chunk_length, length - begin)
        piece = _draw(model, size, tuple(static.items()), params, state, options)
        yield piece
        state = piece.state
        if model.distribution.is_end is not None and bool(state.done.all()):
            return


def start(
    model: Model,
    params: Params,
    key: PRNGKey,
    num_samples: int,
    *,
    prefix: PyTree | None = None,
    conditioning: Float[AnyArray, "..."] | None = None,
    first_index: int | Int[AnyArray, ""] = 0,
) -> SampleState:
    """The state in front of the first event drawn; arguments as `sample`."""
    prefix = None if prefix is None else _batched_prefix(model, prefix, num_samples)
    return _start(model, num_samples, params, key, prefix, conditioning, first_index)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _start(model, num_samples, params, key, prefix, conditioning, first_index) -> SampleState:
    carry = model.initial_state(params, num_samples, conditioning)
    if prefix is not None:
        shape = jax.tree.leaves(prefix)[0].shape[:2]
        batch = (prefix, jnp.ones(shape, bool), jnp.zeros(shape, bool))
        _, carry = event_log_probs(model, params, carry, batch, conditioning=conditioning)
    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(
        first_index + jnp.arange(num_samples)
    )
    zeros = jnp.zeros((num_samples,), jnp.int32)
    return SampleState(carry, keys, zeros, zeros.astype(bool))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _draw(model, length, static, params, state, options) -> Samples:
    """Draws up to `length` events more."""
    distribution = model.distribution
    num_samples = state.done.shape[0]
    step = model.make_step(params, num_events=num_samples * length)
    events = jax.tree.map(
        lambda spec: jnp.zeros((length, num_samples, *spec.shape), spec.dtype), distribution.event
    )
    mask = jnp.zeros((length, num_samples), bool)
    log_probs = jnp.zeros((length, num_samples), jnp.float32)

    def write(buffer: Array, row: Array, time: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(buffer, row.astype(buffer.dtype), time, 0)

    def unfinished(loop: tuple) -> Array:
        time, state, *_ = loop
        return (time < length) & ~state.done.all()

    def draw_event(loop: tuple) -> tuple:
        time, state, events, mask, log_probs = loop
        hidden, carry = step(state.carry)
        keys = jax.vmap(jax.random.fold_in)(state.key, state.position)
        event = distribution.sample(keys, params["distribution"], hidden, **dict(static), **options)
        nats = distribution.log_prob(params["distribution"], hidden, event)
        active = ~state.done
        shown = jax.tree.map(
            lambda leaf: jnp.where(active.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0), event
        )
        done = state.done
        if distribution.is_end is not None:
            done = done | distribution.is_end(event)
        state = SampleState(model.feed(carry, event), state.key, state.position + 1, done)
        events = jax.tree.map(lambda buffer, row: write(buffer, row, time), events, shown)
        mask = write(mask, active, time)
        log_probs = write(log_probs, jnp.where(active, nats, 0), time)
        return time + 1, state, events, mask, log_probs

    loop = (jnp.int32(0), state, events, mask, log_probs)
    _, state, events, mask, log_probs = jax.lax.while_loop(unfinished, draw_event, loop)
    events = jax.tree.map(lambda buffer: jnp.swapaxes(buffer, 0, 1), events)
    return Samples(events, mask.T, log_probs.T, state)


def _batched_prefix(model: Model, prefix: PyTree, num_samples: int) -> PyTree:
    """The prefix as arrays [B, P, ...], or None if it is empty."""
    check_tokens(model, prefix, "prefix")

    def batched(spec: jax.ShapeDtypeStruct, leaf: AnyArray) -> Array:
        leaf = jnp.asarray(leaf, spec.dtype)
        if leaf.ndim == 1 + len(spec.shape):
            leaf = jnp.broadcast_to(leaf, (num_samples, *leaf.shape))
        if leaf.ndim != 2 + len(spec.shape) or leaf.shape[0] != num_samples:
            raise ValueError(
                f"prefix must be [P, ...] or [{num_samples}, P, ...], got shape {leaf.shape}"
            )
        return leaf

    prefix = jax.tree.map(batched, model.distribution.event, prefix)
    return prefix if jax.tree.leaves(prefix)[0].shape[1] else None


def _family_options(
    model: Model, static: dict[str, int], options: dict[str, Any]
) -> dict[str, Any]:
    """The options that the family takes; names one that it does not, unless it changes nothing."""
    known = sample_options(model.distribution.sample)
    for name in (*static, *options):
        if name not in known and not (name == "temperature" and np.all(options[name] == 1)):
            listed = ", ".join(known) or "none"
            raise ValueError(
                f"{name} is not an option of this output distribution (it has {listed})"
            )
    return {name: value for name, value in options.items() if name in known}


def _check_settings(num_samples, length, temperature, top_k, top_p) -> None:
    """Names a setting outside its range; traced values pass."""
    for name, value in (("num_samples", num_samples), ("length", length)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not isinstance(temperature, jax.core.Tracer) and (np.asarray(temperature) < 0).any():
        raise ValueError(f"temperature must not be negative, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_p is not None and not isinstance(top_p, jax.core.Tracer) and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p}")
