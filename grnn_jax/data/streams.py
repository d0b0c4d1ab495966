"""How a corpus is dealt to the rows of the batch: segments in the order they are read."""

import heapq
import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from grnn_jax.data.corpus import Corpus

SEQUENCES_PER_STREAM = 100
"""With more sequences a stream than this they are not dealt one by one."""


class Stream(NamedTuple):
    """What one row of the batch reads in an epoch: segments of the corpus, one after the other.

    Attributes:
        starts: `[S]` where each segment starts in the corpus.
        bounds: `[S + 1]` where each segment starts in the stream, and at last the stream's length.
        context: number of events at the beginning that are fed but not scored.
        numbers: `[S]` how each segment is augmented, or None.
    """

    starts: Integer[np.ndarray, " S"]
    bounds: Integer[np.ndarray, " S+1"]
    context: int
    numbers: Integer[np.ndarray, " S"] | None = None

    def shuffled(self, rng: np.random.Generator) -> "Stream":
        """The same segments in a random order."""
        order = rng.permutation(len(self.starts))
        bounds = np.zeros_like(self.bounds)
        np.cumsum(np.diff(self.bounds)[order], out=bounds[1:])
        return self._replace(starts=self.starts[order], bounds=bounds)


def text_stream(corpus: Corpus, start: int, stop: int, context: int) -> Stream:
    """A part of a corpus in order.

    Args:
        corpus: the data.
        start: the first event that is scored.
        stop: the event after the last one.
        context: most events before `start` that are fed and not scored.

    Returns:
        The stream; a sequence starts where one starts in the corpus, and at its beginning.
    """
    first = max(0, start - context)
    inner = slice(
        np.searchsorted(corpus.offsets, first, "right"), np.searchsorted(corpus.offsets, stop)
    )
    starts = np.concatenate([[first], corpus.offsets[inner]]).astype(np.int64)
    return Stream(starts, np.append(starts, stop) - first, start - first)


def sequence_stream(corpus: Corpus, indices: Integer[np.ndarray, " S"]) -> Stream:
    """Whole sequences of a corpus, one after the other.

    Args:
        corpus: the data.
        indices: of the sequences.

    Returns:
        The stream.
    """
    starts = np.asarray(corpus.offsets)[indices]
    lengths = np.asarray(corpus.offsets)[indices + 1] - starts
    return Stream(starts, np.concatenate([[0], np.cumsum(lengths)]), 0)


def deal_sequences(
    corpus: Corpus, num_streams: int, in_order: bool
) -> list[Integer[np.ndarray, " S"]]:
    """Which sequences each stream gets, so that all streams are about equally long.

    Many sequences are cut into contiguous parts; few of them, where their order does not matter,
    are dealt one by one, the longest first, each to the stream that is shortest so far.

    Args:
        corpus: the data.
        num_streams: number of streams.
        in_order: whether streams one after the other are the corpus in order.

    Returns:
        Indices of the sequences of each stream, which may be none.
    """
    if in_order or corpus.num_sequences > SEQUENCES_PER_STREAM * num_streams:
        cuts = corpus.num_events * np.arange(num_streams + 1, dtype=np.int64) // num_streams
        firsts = np.searchsorted(corpus.offsets, cuts)
        firsts[-1] = corpus.num_sequences
        return [np.arange(a, b) for a, b in itertools.pairwise(firsts)]
    lengths = np.diff(corpus.offsets)
    streams: list[list[int]] = [[] for _ in range(num_streams)]
    shortest = [(0, b) for b in range(num_streams)]
    for index in np.argsort(-lengths, kind="stable"):
        length, b = heapq.heappop(shortest)
        streams[b].append(int(index))
        heapq.heappush(shortest, (length + int(lengths[index]), b))
    return [np.sort(np.asarray(stream, np.int64)) for stream in streams]
