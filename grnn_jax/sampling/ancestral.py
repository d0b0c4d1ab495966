"""Ancestral sampling: draw x_{t+1} from p(· | x_≤t), feed it back, repeat."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Int, Params, PRNGKey, PyTree
from grnn_jax.checks import check_carry
from grnn_jax.model import Model, check_params
from grnn_jax.ops.ahead import one_ahead
from grnn_jax.ops.entry import entry, vary_alike
from grnn_jax.sampling.automaton import Automaton
from grnn_jax.sampling.settings import Setting, Settings, check_counts, make_settings
from grnn_jax.sampling.state import (
    SampleState,
    check_classes_left,
    draw_event,
    start,
    with_settings,
    zeros_unless,
)


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
    temperature: Setting = 1.0,
    top_k: Setting | None = None,
    top_p: Setting | None = None,
    min_p: Setting | None = None,
    typical_p: Setting | None = None,
    repetition_penalty: Setting | None = None,
    logits_callback: Callable[..., Array] | None = None,
    stop: Automaton | None = None,
    lengths: Setting | None = None,
    conditioning: Float[AnyArray, "..."] | None = None,
    conditions: Float[AnyArray, "..."] | None = None,
    first_index: int | Int[AnyArray, ""] = 0,
    **options: float | AnyArray,
) -> Samples:
    r"""Draws sequences from the model.

        x_{t+1} ~ p(· | x_≤t),  t = 0, 1, …, until the end event or `length`

    The key of an event is folded from the sequence's index and the time step, so sequence i of
    a key is the same whatever the number of sequences, the engine, the devices, or those drawn
    beside it (up to the rounding of the logits, which may differ with the shape of a matmul).
    Compiled once for each model and shape, whatever the settings' values; the loop stops when
    every sequence has ended. Where lengths differ widely, `sample_many` wastes less.

    Every setting is one number, or one for each sequence [B]. They act in the order: repetition
    penalty, callback, temperature, top_k, top_p, min_p, typical_p (see `truncate`).

    Args:
        model: the model.
        params: its parameters.
        key: a typed key, `jax.random.key(seed)`.
        num_samples: B, sequences drawn side by side.
        length: most events drawn for each sequence, the end event included.
        prefix: events [P, ...], the same for all, or [B, P, ...], that come before the sample.
        temperature: divides the logits; 0 takes the mode. Families that are no softmax say what
            they make of it; some have none.
        top_k: keeps the k most probable classes; None keeps all.
        top_p: keeps the most probable classes up to this probability; None keeps all.
        min_p: keeps classes of at least this share of the largest probability; None keeps all.
        typical_p: keeps the locally typical classes up to this probability; None keeps all.
        repetition_penalty: exponent of the probability of every class that has occurred before,
            in the prefix or the sample; above 1 it makes repetitions rarer (Keskar's rule
            applied to log-probabilities, so that no constant in the logits matters).
        logits_callback: a pure function (log-probabilities [B, V], `SampleState`) -> logits
            [B, V]. Compiled once for each function; values that change from call to call belong
            into a `jax.tree_util.Partial(function, *arrays)`, called as
            function(*arrays, logits, state). It must leave every sequence a class; under jit one
            without any ends in the event -1, with log-probability NaN.
        stop: a sequence ends after the event by which this automaton accepts, as that of
            `stop_sequences`; it reads the events drawn, not the prefix.
        lengths: most events of each sequence, where they differ; at most `length`.
        conditioning: vectors [B, C], if the model has conditioning.
        conditions: [B, C], or [C] for all, of a model with conditions, see `log_prob`.
        first_index: index of the first sequence, for drawing a large set in parts.
        **options: further options of the family's `sample`, as `bias` of `pen`.

    Returns:
        The samples, without the prefix.

    Raises:
        ValueError: for a setting outside its range or unknown to the family, a prefix of a
            shape that does not fit, or a callback that forbids every class.

    References: A. Graves, "Generating sequences with recurrent neural networks", 2013;
    N. S. Keskar et al., "CTRL: a conditional transformer language model", 2019 (the penalty).

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3, end=0))
        >>> params = model.init(jax.random.key(0))
        >>> samples = sampling.sample(model, params, jax.random.key(1), num_samples=2, length=5)
        >>> samples.events.shape, samples.log_probs.shape
        ((2, 5), (2, 5))
        >>> scored = grnn_jax.log_prob(model, params, samples.events, samples.mask)
        >>> bool(jax.numpy.allclose(scored, samples.log_probs.sum(1), atol=1e-4))
        True
    """
    check_counts(num_samples=num_samples, length=length)
    settings = make_settings(
        model,
        num_samples,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical_p,
        repetition_penalty=repetition_penalty,
        logits_callback=logits_callback,
        stop=stop,
        lengths=lengths,
        **options,
    )
    state = start(
        model,
        params,
        key,
        num_samples,
        prefix=prefix,
        conditioning=conditioning,
        conditions=conditions,
        first_index=first_index,
    )
    samples: Samples = _draw(model, length, params, with_settings(state, settings), settings)
    check_classes_left(settings, samples.events)
    return samples


def extend(
    model: Model, params: Params, state: SampleState, length: int, **settings: Any
) -> Samples:
    """Draws up to `length` events more for sequences that were begun.

    Args:
        model: the model.
        params: its parameters.
        state: `Samples.state`, or `start(...)`.
        length: most events drawn for each sequence.
        **settings: the settings of `sample`: temperature, …, lengths (counted from the start of
            the sequences), **options.

    Returns:
        The samples, without what came before.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> key = jax.random.key(1)
        >>> first = sampling.sample(model, params, key, num_samples=2, length=2)
        >>> rest = sampling.extend(model, params, first.state, length=2)
        >>> whole = sampling.sample(model, params, key, num_samples=2, length=4)
        >>> bool((whole.events[:, 2:] == rest.events).all())
        True
    """
    check_counts(length=length)
    check_params(model.init, params)
    check_carry(model, params, state.carry, state.done.shape[0], "state.carry")
    made = make_settings(model, state.done.shape[0], **settings)
    samples: Samples = _draw(model, length, params, with_settings(state, made), made)
    check_classes_left(made, samples.events)
    return samples


def stream(
    model: Model,
    params: Params,
    key: PRNGKey,
    num_samples: int,
    length: int,
    *,
    chunk_length: int = 32,
    prefix: PyTree | None = None,
    conditioning: Float[AnyArray, "..."] | None = None,
    conditions: Float[AnyArray, "..."] | None = None,
    first_index: int | Int[AnyArray, ""] = 0,
    **settings: Any,
) -> Iterator[Samples]:
    """Draws the same sequences as `sample`, and yields them piece by piece as they are drawn.

    While the caller looks at a piece the next one is being drawn.

    Args:
        model: as `sample`, and so are the other arguments.
        params: its parameters.
        key: a typed key.
        num_samples: B.
        length: most events drawn for each sequence.
        chunk_length: events in a piece; the last one may be shorter.
        prefix: events that come before the sample.
        conditioning: vectors [B, C].
        conditions: [B, C], or [C] for all, of a model with conditions, see `log_prob`.
        first_index: index of the first sequence.
        **settings: the settings of `sample`: temperature, …, lengths, **options.

    Yields:
        Samples of `chunk_length` events; stops early when every sequence has ended.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells, distributions, sampling
        >>> model = grnn_jax.make_model(cells.gru(4), distributions.categorical(3))
        >>> params = model.init(jax.random.key(0))
        >>> key = jax.random.key(1)
        >>> pieces = sampling.stream(model, params, key, num_samples=2, length=6, chunk_length=4)
        >>> [piece.events.shape for piece in pieces]
        [(2, 4), (2, 2)]
    """
    check_counts(num_samples=num_samples, length=length, chunk_length=chunk_length)
    made = make_settings(model, num_samples, **settings)
    state = start(
        model,
        params,
        key,
        num_samples,
        prefix=prefix,
        conditioning=conditioning,
        conditions=conditions,
        first_index=first_index,
    )

    def draw_pieces(state: SampleState) -> Iterator[Samples]:
        for begin in range(0, length, chunk_length):
            piece = _draw(model, min(chunk_length, length - begin), params, state, made)
            state = piece.state
            yield piece

    can_end = model.distribution.is_end is not None or made.stop is not None
    # What follows the last end is drawn too, but is no work: the loop stops before its first step.
    for piece in one_ahead(draw_pieces(with_settings(state, made))):
        check_classes_left(made, piece.events)
        yield piece
        if (can_end or made.lengths is not None) and bool(piece.state.done.all()):
            return


@entry(num_static=2, rows=(3,))
def _draw(
    model: Model, length: int, params: Params, state: SampleState, settings: Settings
) -> Samples:
    """Draws up to `length` events more."""
    num_samples = state.done.shape[0]
    step = model.make_step(params, num_events=num_samples * length)
    events = jax.tree.map(
        lambda spec: jnp.zeros((length, num_samples, *spec.shape), spec.dtype),
        model.distribution.event,
    )
    mask = jnp.zeros((length, num_samples), bool)
    log_probs = jnp.zeros((length, num_samples), jnp.float32)

    def write(buffer: Array, row: Array, time: Array) -> Array:
        written: Array = jax.lax.dynamic_update_index_in_dim(
            buffer, row.astype(buffer.dtype), time, 0
        )
        return written

    Loop = tuple[Array, SampleState, PyTree, Array, Array]  # time, state, what Samples holds

    def unfinished(loop: Loop) -> Array:
        time, state, *_ = loop
        return (time < length) & ~state.done.all()

    def draw(loop: Loop) -> Loop:
        time, before, events, mask, log_probs = loop
        state, event, nats = draw_event(model, step, params, before, settings)
        active = ~before.done
        shown = zeros_unless(active, event)
        events = jax.tree.map(lambda buffer, row: write(buffer, row, time), events, shown)
        mask = write(mask, active, time)
        log_probs = write(log_probs, jnp.where(active, nats, 0), time)
        return time + 1, state, events, mask, log_probs

    loop = vary_alike((jnp.int32(0), state, events, mask, log_probs), params, settings)
    _, state, events, mask, log_probs = jax.lax.while_loop(unfinished, draw, loop)
    events = jax.tree.map(lambda buffer: jnp.swapaxes(buffer, 0, 1), events)
    return Samples(events, mask.T, log_probs.T, state)
