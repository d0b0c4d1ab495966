"""Sequences of events, and the text files of any size that they may come from."""

import dataclasses
import gzip
import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer

from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.column import column_text, fasta_text, parquet_column_text
from grnn_jax.data.declared import MAX_FILE_GIB, open_expanded
from grnn_jax.data.decoding import decoded
from grnn_jax.data.file_kinds import (
    COLUMN_FILES,
    COLUMN_KINDS,
    HEAD_CHARACTERS,
    check_characters,
    check_lines,
    kind_of,
)
from grnn_jax.data.text_codec import TextCodec, complete_pieces
from grnn_jax.errors import InputError

Events = Any
"""An array with a leading axis of events, or a (nested) dict of such arrays."""


def map_events(function: Callable[..., Any], events: Events, *more: Events) -> Events:
    """Applies a function to every array of events.

    >>> map_events(len, {"wait": np.zeros(3), "mark": np.zeros(3)})
    {'wait': 3, 'mark': 3}

    Args:
        function: of an array, and of those in the same place of `more`.
        events: an array, or a dict of them.
        *more: others of the same structure.

    Returns:
        What the function returned, in the same structure.
    """
    if isinstance(events, dict):
        return {
            name: map_events(function, leaf, *(other[name] for other in more))
            for name, leaf in events.items()
        }
    return function(events, *more)


def event_arrays(events: Events, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of events.

    >>> [path for path, _ in event_arrays({"event": {"wait": np.zeros(3)}, "end": np.zeros(3)})]
    ['event.wait', 'end']

    Args:
        events: an array, or a dict of them.
        path: what comes before the path of each.

    Yields:
        The path of an array, "" of a bare one, and the array.
    """
    if isinstance(events, dict):
        for name, leaf in events.items():
            yield from event_arrays(leaf, f"{path}.{name}" if path else name)
    else:
        yield path, events


class Corpus(NamedTuple):
    """Sequences of events, one after the other.

    Attributes:
        events: an array `[num_events, ...]`, or a dict of them where an event has fields; tokens
          are `[num_events]`, uint8, uint16 or int32. Memory-mapped where a cache folder was given.
        offsets: `[num_sequences + 1]` int64; sequence `i` is `events[offsets[i]:offsets[i + 1]]`.
          A sequence is a document of a text, or a line together with its end token.
        is_stream: whether it may be cut anywhere, as a text: it is read in order and scored in
          streams, each of which first reads some events before its own. The sequences of any
          other corpus stay whole.
        conditions: what is known of each sequence beside its events, `[num_sequences, C]` float32,
          NaN where a value is missing; None where nothing is.
    """

    events: Events
    offsets: Integer[np.ndarray, " S"]
    is_stream: bool = False
    conditions: Float[np.ndarray, "S C"] | None = None

    @property
    def num_events(self) -> int:
        """Number of events, each of them predicted once."""
        return len(next(event_arrays(self.events))[1])

    @property
    def num_sequences(self) -> int:
        """Number of sequences."""
        return len(self.offsets) - 1

    def part(self, start: int, stop: int) -> "Corpus":
        """A part of the corpus; a sequence that is cut becomes two.

        Args:
            start: the first event.
            stop: the event after the last one.

        Returns:
            The events from `start` to `stop`.
        """
        inside = self.offsets[(self.offsets > start) & (self.offsets < stop)]
        ends = np.array([start, stop] if stop > start else [start], np.int64)
        offsets = np.union1d(inside, ends) - start
        events = map_events(lambda leaf: leaf[start:stop], self.events)
        return self._replace(events=events, offsets=offsets)


def file_identity(path: str | os.PathLike[str]) -> list[Any]:
    """What identifies a file as long as nobody writes to it.

    Programs can set the time of the last change back; that of the last change of its inode they
    cannot, and whoever writes sets it.

    Args:
        path: the file.

    Returns:
        Its path, its size and both times, as JSON.
    """
    status = os.stat(path)
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns]


@runtime_checkable
class TextSource(Protocol):
    """Where text comes from: documents, each a stream of chunks that need not fit in memory."""

    def documents(
        self, errors: str = "strict", bad: BadRecords | None = None
    ) -> Iterator[tuple[str, Iterator[str]]]:
        """Yields each document's name and its text in chunks; bad lines are told and empty."""

    def fingerprint(self) -> Any:
        """JSON that changes whenever the text does."""


@dataclasses.dataclass(frozen=True)
class FileSource:
    """One UTF-8 text file, plain or gzip-compressed, as a single document.

    Line ends are kept, a byte order mark is dropped.

    Attributes:
        path: the file.
        argument: the argument that named it, for messages.
        column: the column whose values are the lines of the text, of a file that has columns.
        by_line: whether each line is to be a sequence: FASTA is then read, a record a line, and
          what does not hold lines is refused.
        as_is: whether nothing is refused for what its name or its first lines show it to be, and
          nothing but the lines of FASTA is read.
        max_gib: the GiB that the file may expand to, if it is compressed.
    """

    path: str | os.PathLike[str]
    argument: str = "data"
    column: str = ""
    by_line: bool = False
    as_is: bool = True
    max_gib: float = MAX_FILE_GIB

    def documents(
        self, errors: str = "strict", bad: BadRecords | None = None
    ) -> Iterator[tuple[str, Iterator[str]]]:
        self._check()
        if self.column and kind_of(self.path) == "parquet":
            chunks = parquet_column_text(self.path, self.column, bad, self.max_gib)
        elif self.column:
            chunks = column_text(self._chunks(errors, bad), self.path, self.column, bad)
        elif self._is_fasta:
            # A line that is no UTF-8 is a part of a record, not one of them.
            chunks = fasta_text(self._chunks(errors, None), self.path, bad)
        else:
            chunks = self._checked(self._chunks(errors, bad), errors)
        name = f"{self.path}, text of {self.column!r}" if self.column else str(self.path)
        yield name, chunks

    @property
    def _is_fasta(self) -> bool:
        return self.by_line and not self.as_is and kind_of(self.path) == "fasta"

    def _checked(self, chunks: Iterator[str], errors: str) -> Iterator[str]:
        """The text, of which the beginning shows nothing else."""
        if self.as_is:
            return chunks
        first, length = [], 0
        for chunk in chunks:
            first.append(chunk)
            length += len(chunk)
            if length >= HEAD_CHARACTERS:
                break
        head = "".join(first)[:HEAD_CHARACTERS]
        if self.by_line or errors == "strict":
            check_characters(self.path, self.argument, head)
        if self.by_line:
            check_lines(self.path, self.argument, head)
        return itertools.chain(first, chunks)

    def fingerprint(self) -> Any:
        """Path, size and times of the last change, and the column where there is one."""
        self._check()
        identity = file_identity(self.path)
        if self._is_fasta:
            return [*identity, {"records": "fasta"}]
        return [*identity, self.column] if self.column else identity

    def _check(self) -> None:
        if self.column and kind_of(self.path) not in COLUMN_KINDS:
            raise InputError(
                f"{self.argument}: column={self.column} needs a {COLUMN_FILES}, got {self.path}"
            )
        if os.path.isdir(self.path):
            raise InputError(f"{self.argument}: {self.path} is a directory, expected a text file")
        if not os.path.exists(self.path):
            raise InputError(f"{self.argument}: there is no file {self.path}")

    def _chunks(self, errors: str, bad: BadRecords | None) -> Iterator[str]:
        self._check()
        empty = True
        try:
            with open_expanded(self.path, self.max_gib) as file:
                for text in decoded(file, self.path, errors, bad):
                    empty = False
                    yield text
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{self.path} is not a complete gzip file: {error}") from error
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror or error}") from error
        if empty:
            raise InputError(f"{self.argument}: {self.path} is empty, expected text")


def text_pieces(
    source: TextSource, codec: type[TextCodec], bad: BadRecords | None = None
) -> Iterator[str]:
    """The text of a source in pieces that a codec can encode one by one.

    Args:
        source: where the text comes from.
        codec: what it is to be encoded by.
        bad: is told which lines cannot be used; without it they are errors.

    Yields:
        Pieces, none of which cuts a symbol.
    """
    for _, chunks in source.documents(codec.decode_errors, bad):
        yield from complete_pieces(chunks, codec)


def iter_lines(
    source: TextSource, errors: str = "strict", bad: BadRecords | None = None
) -> Iterator[tuple[str, int, str]]:
    r"""The lines of a source that are not empty.

    Lines end with `\n` or `\r\n`, which is not part of them.

    Args:
        source: where the text comes from.
        errors: how bytes that are not UTF-8 are treated, as in `bytes.decode`.
        bad: is told which lines cannot be used; without it they are errors.

    Yields:
        Name of the document, number of the line from 1, line.
    """
    for name, chunks in source.documents(errors, bad):
        number, rest = 0, [""]
        for chunk in chunks:
            lines = chunk.split("\n")
            rest.append(lines[0])
            if len(lines) == 1:
                continue
            for line in ("".join(rest), *lines[1:-1]):
                number += 1
                line = line.removesuffix("\r")
                if line:
                    yield name, number, line
            rest = [lines[-1]]
        last = "".join(rest).removesuffix("\r")
        if last:
            yield name, number + 1, last
