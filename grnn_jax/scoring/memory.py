"""Sequences that a caller has in memory, as a corpus."""

from typing import Any

import jax
import numpy as np

from grnn_jax.array_types import AnyArray, Bool
from grnn_jax.checks import check_events
from grnn_jax.data import Corpus, TextCodec
from grnn_jax.data.corpus import Events
from grnn_jax.distributions.acceptance import accept
from grnn_jax.errors import InputError
from grnn_jax.workdir import Run


def corpus_in_memory(
    run: Run, data: Any, mask: Bool[AnyArray, "B T"] | None = None, *, repeat_last: bool = False
) -> tuple[Corpus, bool]:
    """A corpus in which every sequence stays whole, a text too.

    Args:
        run: a trained run.
        data: a string, events [T, ...] (an array, or a dict of them where an event has fields), a
            list of such, or a batch of events [B, T, ...].
        mask: of a batch, True for events, then False for padding; None if all rows have full
            length.
        repeat_last: whether the last event of each sequence comes once more, so that there is a
            state that has read all of them.

    Returns:
        The corpus, and whether `data` was one sequence, not several.

    Raises:
        InputError: they are no sequences of this run.
    """
    sequences, is_one = _sequences(run, data, mask)
    if repeat_last:
        sequences = [
            jax.tree.map(lambda leaf: np.concatenate([leaf, leaf[-1:]]), events)
            for events in sequences
        ]
    lengths = [len(jax.tree.leaves(events)[0]) for events in sequences]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Corpus(jax.tree.map(lambda *leaves: np.concatenate(leaves), *sequences), offsets), is_one


def encode_text(run: Run, text: str, argument: str) -> np.ndarray:
    """The tokens of a text, without the end of a sequence.

    Args:
        run: a trained run.
        text: the text.
        argument: what it is called in messages.

    Returns:
        Tokens [T].

    Raises:
        InputError: the sequences of the run are no text, or it has a symbol that they have not.
    """
    if not isinstance(run.codec, TextCodec):
        raise InputError(
            f"{argument} must be events, as the sequences of this run are {run.codec.name}, "
            "got a string"
        )
    return run.codec.encode(text, argument)


def _sequences(
    run: Run, data: Any, mask: Bool[AnyArray, "B T"] | None
) -> tuple[list[Events], bool]:
    """The events of each sequence, and whether `data` was one sequence."""
    if isinstance(data, str):
        tokens = encode_text(run, data, "data")
        end = run.codec.end if isinstance(run.codec, TextCodec) else None
        return [tokens if end is None else np.append(tokens, np.int32(end))], True
    if isinstance(data, list) and not (data and isinstance(data[0], (int, float, np.generic))):
        parts = [_sequences(run, item, None) for item in data]
        if not parts or not all(is_one for _, is_one in parts):
            raise InputError("data must be a list of sequences, got no sequence or a batch in it")
        return [sequences[0] for sequences, _ in parts], False
    events, leading = _events(run, data)
    if len(leading) == 1 and mask is None:
        return [_accepted(run, events)], True
    if mask is None:
        lengths = np.full(leading[0], leading[1])
    else:
        mask = np.asarray(mask, bool)
        if mask.shape != leading or (np.diff(mask.astype(int), axis=-1) > 0).any():
            raise InputError(
                f"mask must be {list(leading)} as data, in each row True for events and then False "
                f"for padding, got shape {list(mask.shape)}"
            )
        lengths = mask.sum(-1)
    events = _accepted(run, events, mask)
    rows = enumerate(lengths.tolist())
    return [jax.tree.map(lambda leaf: leaf[b, :n], events) for b, n in rows], False  # noqa: B023


def _events(run: Run, data: Any) -> tuple[Events, tuple[int, ...]]:
    """Events as arrays, and the axes before those of an event: [T] or [B, T]."""
    specs = run.model.distribution.event
    try:
        events = jax.tree.map(lambda spec, leaf: np.asarray(leaf), specs, data)
        shapes = jax.tree.map(lambda spec, leaf: _leading(spec.shape, leaf.shape), specs, events)
        (leading,) = set(jax.tree.leaves(shapes, is_leaf=lambda x: isinstance(x, tuple)))
    except (ValueError, TypeError, KeyError) as error:
        what = jax.tree.map(lambda spec: f"[T{''.join(f', {n}' for n in spec.shape)}]", specs)
        raise InputError(
            f"data must be events {what} or a batch of them, got {_shapes(data)}"
        ) from error
    return events, leading


def _accepted(run: Run, events: Events, mask: AnyArray | None = None) -> Events:
    """The events in the dtypes of the model, which are checked where mask is True."""
    check_events(run.model, events, mask, "data")
    return jax.tree.map(np.asarray, accept(run.model.distribution, events)[0])


def _leading(event: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes before those of one event."""
    leading = shape[: len(shape) - len(event)]
    if len(leading) not in (1, 2) or leading + event != shape:
        raise ValueError(f"{shape} does not end in {event}")
    return leading


def _shapes(data: Any) -> Any:
    return jax.tree.map(lambda leaf: list(np.shape(leaf)), data)
