"""Random changes of training sequences, drawn anew in every epoch."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer

from grnn_jax.data.codec import Codec
from grnn_jax.data.corpus import Corpus, Events
from grnn_jax.errors import InputError


@runtime_checkable
class Augmentation(Protocol):
    """A change of a sequence that one number decides."""

    def draw(
        self, rng: np.random.Generator, starts: Integer[np.ndarray, " S"]
    ) -> Integer[np.ndarray, " S"]:
        """Draws a change of each sequence.

        Args:
            rng: random numbers of a row and an epoch.
            starts: where each sequence starts in the corpus.

        Returns:
            A number for each sequence.
        """

    def apply(self, events: Events, numbers: Integer[np.ndarray, " T"]) -> Events:
        """Changes events.

        Args:
            events: arrays [T, ...].
            numbers: for each event that of its sequence.

        Returns:
            Events of the same shapes and dtypes.
        """


class Transposition:
    """Moves whole tunes up or down by semitones, as far as all of their notes stay in range.

    Args:
        corpus: the training data, bits [N, pitches] or classes [N, voices] with 0 for silence.
        semitones: most semitones in either direction.
        num_pitches: pitches of the bits or classes.
    """

    def __init__(self, corpus: Corpus, semitones: int, num_pitches: int):
        events = corpus.events
        while isinstance(events, dict):
            events = events["event"]
        self._bits = events.ndim == 2 and events.shape[1] == num_pitches
        self._num_pitches = num_pitches
        self._starts = np.asarray(corpus.offsets[:-1])
        low, high = np.full(len(events), num_pitches), np.zeros(len(events), np.int64)
        if self._bits:
            sounds = events.any(1)
            low = np.where(sounds, events.argmax(1), low)
            high = np.where(sounds, num_pitches - 1 - events[:, ::-1].argmax(1), high)
        else:
            low = np.where(events > 0, events.astype(np.int64) - 1, num_pitches).min(1)
            high = np.where(events > 0, events.astype(np.int64) - 1, 0).max(1)
        lowest = np.minimum.reduceat(low, self._starts)
        highest = np.maximum.reduceat(high, self._starts)
        self._down = -np.minimum(semitones, lowest)
        self._up = np.clip(num_pitches - 1 - highest, 0, semitones)

    def draw(
        self, rng: np.random.Generator, starts: Integer[np.ndarray, " S"]
    ) -> Integer[np.ndarray, " S"]:
        index = np.searchsorted(self._starts, starts)
        return rng.integers(self._down[index], self._up[index] + 1)

    def apply(self, events: Events, numbers: Integer[np.ndarray, " T"]) -> Events:
        if isinstance(events, dict):
            return events | {"event": self.apply(events["event"], numbers)}
        if self._bits:
            source = np.arange(self._num_pitches) - numbers[:, None]
            inside = (source >= 0) & (source < self._num_pitches)
            moved = np.take_along_axis(events, np.clip(source, 0, self._num_pitches - 1), 1)
            return np.where(inside, moved, 0).astype(events.dtype)
        return np.where(events > 0, events + numbers[:, None], 0).astype(events.dtype)


def make_augmentation(codec: Codec, corpus: Corpus, *, transpose: int) -> Augmentation | None:
    """The augmentation that the settings of a run ask for, or None.

    Args:
        codec: the codec of the run.
        corpus: its training data.
        transpose: most semitones by which music is transposed; 0 for none.

    Returns:
        The augmentation, for `train_iterator`; None where none is asked for.

    Raises:
        InputError: the data are not music.
    """
    if not transpose:
        return None
    if codec.num_pitches is not None:
        return Transposition(corpus, transpose, codec.num_pitches)
    raise InputError(f"transpose={transpose} needs a format of music, got events of {codec.name}")
