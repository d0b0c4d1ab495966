"""From a corpus to batches of windows: training without end, evaluation once over."""

import functools
import sys
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from jaxtyping import Integer

from grnn_jax.array_types import Batch
from grnn_jax.data.augmentation import Augmentation
from grnn_jax.data.corpus import Corpus, map_events
from grnn_jax.data.streams import Stream, deal_sequences, sequence_stream, text_stream
from grnn_jax.errors import InputError

EVAL_CONTEXT = 256


class Windows:
    """Random access to the batches of one process, epoch after epoch: a grain data source.

    The corpus is dealt once to `num_streams` rows, about equally long: a stream is cut at
    `b * N // num_streams`, of any other corpus a row gets whole sequences (unless `cut_few` says
    otherwise). A stream is read in order in every epoch; sequences are shuffled inside their row,
    differently in each epoch (a row's share of them never changes, so that every epoch has as many
    windows).

    Args:
        corpus: the data.
        batch_size: rows of the batch over all processes.
        sequence_length: steps in a window.
        num_streams: rows that get data, the first ones; None for all.
        shuffle_seed: of the order of sequences; None keeps that of the corpus.
        context: events of a stream that each row but the first is fed before those it scores.
        cut_few: whether shuffled sequences are cut as a stream is where there are fewer of them
          than rows, or rows would have nothing to do.
        augmentation: how sequences are changed, anew in every epoch; then they are never cut.
        process_index: this process.
        process_count: number of processes.

    Attributes:
        windows_per_epoch: number of windows in which every event occurs exactly once.
    """

    def __init__(
        self,
        corpus: Corpus,
        batch_size: int,
        sequence_length: int,
        *,
        num_streams: int | None = None,
        shuffle_seed: int | None = None,
        context: int = 0,
        cut_few: bool = False,
        augmentation: Augmentation | None = None,
        process_index: int = 0,
        process_count: int = 1,
    ):
        _check(batch_size, sequence_length, process_index, process_count)
        # Still memory-mapped, without np.memmap's cost.
        self._events = map_events(np.asarray, corpus.events)
        self._length = sequence_length
        few = shuffle_seed is not None and corpus.num_sequences < (num_streams or batch_size)
        contiguous = corpus.is_stream or (few and cut_few and augmentation is None)
        self._seed = None if contiguous else shuffle_seed
        self._augmentation = augmentation
        count = num_streams or batch_size
        if contiguous:
            cuts = corpus.num_events * np.arange(count + 1, dtype=np.int64) // count
            starts = np.maximum(cuts[:-1] - context, 0)
            longest = int((cuts[1:] - starts).max())
        else:
            dealt = deal_sequences(corpus, count, in_order=self._seed is None)
            lengths = np.diff(corpus.offsets)
            longest = max(int(lengths[indices].sum()) for indices in dealt)
        self.windows_per_epoch = -(-longest // sequence_length)
        rows = batch_size // process_count
        self._first_row = process_index * rows
        self._streams = []
        for b in range(self._first_row, self._first_row + rows):
            if b >= count:
                self._streams.append(text_stream(corpus, 0, 0, 0))
            elif contiguous:
                self._streams.append(text_stream(corpus, int(cuts[b]), int(cuts[b + 1]), context))
            else:
                self._streams.append(sequence_stream(corpus, dealt[b]))
        self._offsets, self._conditions = corpus.offsets, corpus.conditions
        self._num_segments = 0
        if corpus.conditions is not None:
            # Equal in all windows, epochs and processes, so that one program serves them all.
            shortest = np.cumsum(np.sort(np.diff(corpus.offsets)))
            most = 1 + int(np.searchsorted(shortest, sequence_length - 1, "right"))
            self._num_segments = 1 + min(most, len(shortest)) + contiguous
        self._epoch_streams = functools.lru_cache(maxsize=2)(self._shuffled_streams)

    def _shuffled_streams(self, epoch: int) -> list[Stream]:
        if self._seed is None:
            return self._streams
        streams = []
        for row, stream in enumerate(self._streams):
            rng = np.random.default_rng((self._seed, epoch, self._first_row + row))
            stream = stream.shuffled(rng)
            if self._augmentation is not None:
                stream = stream._replace(numbers=self._augmentation.draw(rng, stream.starts))
            streams.append(stream)
        return streams

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> Batch:
        """Returns window `index % windows_per_epoch` of epoch `index // windows_per_epoch`."""
        epoch, window = divmod(int(index), self.windows_per_epoch)
        first = window * self._length
        streams = self._epoch_streams(epoch if self._seed is not None else 0)
        shape = (len(streams), self._length)
        mask = np.zeros(shape, bool)
        reset = np.zeros(shape, bool)
        conditions = None
        if self._conditions is not None:
            axes = len(streams), self._num_segments, self._conditions.shape[1]
            conditions = np.full(axes, np.nan, np.float32)
        events = map_events(
            lambda leaf: np.zeros((*shape, *leaf.shape[1:]), leaf.dtype), self._events
        )
        for row, (starts, bounds, context, numbers) in enumerate(streams):
            stop = min(first + self._length, int(bounds[-1]))
            n = stop - first
            if n <= 0:
                continue
            # The segments of this window, from the one in which it begins.
            low = int(np.searchsorted(bounds, first, "right")) - 1
            high = int(np.searchsorted(bounds, stop, "left"))
            pieces = np.diff(np.clip(bounds[low : high + 1], first, stop))
            where: Any
            if high == low + 1:
                begin = int(starts[low] + first - bounds[low])
                where = slice(begin, begin + n)
            else:
                shift = np.repeat(starts[low:high] - bounds[low:high], pieces)
                where = np.arange(first, stop) + shift
            read = map_events(lambda leaf: leaf[where], self._events)  # noqa: B023
            if numbers is not None:
                assert self._augmentation is not None
                read = self._augmentation.apply(read, np.repeat(numbers[low:high], pieces))

            def put(target: np.ndarray, leaf: np.ndarray) -> None:
                target[row, :n] = leaf  # noqa: B023

            map_events(put, events, read)
            mask[row, max(0, context - first) : n] = True
            heads = bounds[low:high] - first
            reset[row, heads[heads >= 0]] = True
            if conditions is not None and self._conditions is not None:
                goes_on = int(heads[0] < 0)  # Such a sequence has the first place.
                sequence = np.searchsorted(self._offsets, starts[low:high], "right") - 1
                places = slice(1 - goes_on, 1 - goes_on + high - low)
                conditions[row, places] = self._conditions[sequence]
        return Batch(events, mask, reset, conditions)

    def positions(self, index: int) -> Integer[np.ndarray, "B T"]:
        """Where the events of a window stand in the corpus.

        Args:
            index: of the window.

        Returns:
            For each event [B, T] its place, -1 for what is not scored.
        """
        epoch, window = divmod(int(index), self.windows_per_epoch)
        first = window * self._length
        streams = self._epoch_streams(epoch if self._seed is not None else 0)
        positions = np.full((len(streams), self._length), -1, np.int64)
        for row, (starts, bounds, context, _) in enumerate(streams):
            scored = np.arange(max(first, context), min(first + self._length, int(bounds[-1])))
            segment = np.searchsorted(bounds, scored, "right") - 1
            positions[row, scored - first] = starts[segment] + scored - bounds[segment]
        return positions


def windows_per_epoch(
    corpus: Corpus, batch_size: int, sequence_length: int, *, cut_few: bool = True
) -> int:
    """Number of batches of `train_iterator` in which every event occurs exactly once.

    Args:
        corpus: as for `train_iterator`, and so are the other arguments.
        batch_size: rows of the batch over all processes.
        sequence_length: steps in a window.
        cut_few: whether sequences are cut where there are fewer of them than rows.

    Returns:
        The windows of an epoch.
    """
    windows = Windows(corpus, batch_size, sequence_length, shuffle_seed=0, cut_few=cut_few)
    return windows.windows_per_epoch


def train_iterator(
    corpus: Corpus,
    batch_size: int,
    sequence_length: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    cut_few: bool = True,
    augmentation: Augmentation | None = None,
    num_threads: int = 1,
    prefetch: int = 8,
) -> grain.DatasetIterator:
    """Yields training batches without end.

    Row `b` is one stream: its windows follow each other, and the recurrent state is carried from
    one to the next. Every epoch begins with `reset`, uses each event once, and is padded only at
    the end of its streams. The state of the iterator (`get_state`, `set_state`, grain's checkpoint
    handlers) is one number, and a restored iterator goes on with the very batch that was next.

    Args:
        corpus: the training data; a stream is read in order, sequences are shuffled.
        batch_size: rows of the batch over all processes.
        sequence_length: steps in a window.
        seed: of the order of sequences, and of their augmentation; a stream has neither.
        process_index: this process, which gets rows `process_index * batch_size // process_count`
          and following.
        process_count: number of processes.
        cut_few: whether sequences are cut where there are fewer of them than rows, see `Windows`.
        augmentation: how sequences are changed, anew in every epoch; None leaves them alone.
        num_threads: threads that prepare batches ahead; 0 prepares each when it is asked for.
        prefetch: number of batches prepared ahead.

    Returns:
        A grain iterator over `Batch` of shape `[batch_size // process_count, sequence_length]`.

    Raises:
        InputError: a size is out of range, or a text is shorter than one window.
    """
    _check(batch_size, sequence_length, process_index, process_count)
    if corpus.num_events == 0:
        raise InputError("the training data has no events")
    if corpus.is_stream and corpus.num_events < sequence_length:
        raise InputError(
            f"the training text has {corpus.num_events} events, fewer than one window of "
            f"sequence_length={sequence_length}; give more text or a smaller sequence_length"
        )
    windows = Windows(
        corpus,
        batch_size,
        sequence_length,
        shuffle_seed=seed,
        cut_few=cut_few,
        augmentation=augmentation,
        process_index=process_index,
        process_count=process_count,
    )
    options = grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=max(prefetch, num_threads)
    )
    return iter(grain.MapDataset.source(windows).to_iter_dataset(options))


def eval_batches(
    corpus: Corpus,
    batch_size: int,
    sequence_length: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    context: int = EVAL_CONTEXT,
) -> Iterator[Batch]:
    """Yields the batches of one pass in which each event is scored exactly once.

    Args:
        corpus: the data.
        batch_size: rows of the batch over all processes.
        sequence_length: steps in a window.
        process_index: this process.
        process_count: number of processes.
        context: events that are fed before those a row scores, see `eval_windows`.

    Returns:
        Iterator over `Batch`; carry the recurrent state through all of it.

    Raises:
        InputError: a size is out of range, or there is nothing to score.
    """
    windows = eval_windows(
        corpus, batch_size, sequence_length, process_index, process_count, context=context
    )
    return (windows[i] for i in range(windows.windows_per_epoch))


def eval_windows(
    corpus: Corpus,
    batch_size: int,
    sequence_length: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    context: int = EVAL_CONTEXT,
) -> Windows:
    """The windows of one pass in which each event is scored exactly once.

    Args:
        corpus: the data; a stream is cut anywhere, sequences stay whole.
        batch_size: rows of the batch over all processes; rows that the data does not fill are
          padding.
        sequence_length: steps in a window.
        process_index: this process.
        process_count: number of processes, all of which get equally many batches.
        context: where the corpus is a stream, each row but the first is fed this many events
          before those it scores, so that the score is close to that of one uninterrupted stream.

    Returns:
        The windows; carry the recurrent state from one to the next.

    Raises:
        InputError: a size is out of range, or there is nothing to score.
    """
    _check(batch_size, sequence_length, process_index, process_count)
    if context < 0:
        raise InputError(f"context must be at least 0, got {context}")
    if corpus.num_events == 0:
        raise InputError("the data to evaluate has no events")
    # A stream pays for its context, so that short data gets fewer of them.
    fill = corpus.num_sequences
    if corpus.is_stream:
        fill = -(-corpus.num_events // max(sequence_length, context))
    return Windows(
        corpus,
        batch_size,
        sequence_length,
        num_streams=min(batch_size, fill),
        context=context if corpus.is_stream else 0,
        process_index=process_index,
        process_count=process_count,
    )


def _check(batch_size: int, sequence_length: int, process_index: int, process_count: int) -> None:
    """Raises InputError where a size is out of range."""
    for name, value in (
        ("batch_size", batch_size),
        ("sequence_length", sequence_length),
        ("process_count", process_count),
    ):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if not 0 <= process_index < process_count:
        raise InputError(f"process_index must be in 0 .. {process_count - 1}, got {process_index}")
    if batch_size % process_count:
        raise InputError(
            f"batch_size must be a multiple of the number of processes, got batch_size="
            f"{batch_size} for {process_count} processes"
        )
