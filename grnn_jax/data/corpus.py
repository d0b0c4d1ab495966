"""Text files of any size, and their tokens on disk, opened memory-mapped."""

import array
import codecs
import dataclasses
import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer

from grnn_jax.data.codec import Codec, complete_pieces
from grnn_jax.errors import InputError

CHUNK_BYTES = 1 << 22
_CACHE_VERSION = 1
_GZIP_MAGIC = b"\x1f\x8b"


class Corpus(NamedTuple):
    """Sequences of tokens, one after the other.

    Attributes:
      tokens: `[num_events]`, uint8, uint16 or int32; memory-mapped where a cache folder was given.
      offsets: `[num_sequences + 1]` int64; sequence `i` is `tokens[offsets[i]:offsets[i + 1]]`.
        A sequence is a document of a text, or a line together with its end token.
    """

    tokens: Integer[np.ndarray, " N"]
    offsets: Integer[np.ndarray, " S"]

    @property
    def num_events(self) -> int:
        """Number of tokens, each of them predicted once."""
        return len(self.tokens)

    @property
    def num_sequences(self) -> int:
        """Number of documents or lines."""
        return len(self.offsets) - 1

    def part(self, start: int, stop: int) -> "Corpus":
        """The tokens from `start` to `stop`; a sequence that is cut becomes two."""
        inside = self.offsets[(self.offsets > start) & (self.offsets < stop)]
        ends = np.array([start, stop] if stop > start else [start], np.int64)
        offsets = np.union1d(inside, ends) - start
        return Corpus(self.tokens[start:stop], offsets)


@runtime_checkable
class TextSource(Protocol):
    """Where text comes from: documents, each a stream of chunks that need not fit in memory."""

    def documents(self, errors: str = "strict") -> Iterator[tuple[str, Iterator[str]]]:
        """Yields each document's name and its text in chunks."""

    def fingerprint(self) -> Any:
        """JSON that changes whenever the text does."""


@dataclasses.dataclass(frozen=True)
class FileSource:
    """One UTF-8 text file, plain or gzip-compressed, as a single document.

    Line ends are kept, a byte order mark is dropped. `argument` names the path in messages.
    """

    path: str | os.PathLike[str]
    argument: str = "data"

    def documents(self, errors: str = "strict") -> Iterator[tuple[str, Iterator[str]]]:
        yield str(self.path), self._chunks(errors)

    def fingerprint(self) -> Any:
        """Path, size and time of the last change."""
        self._check()
        status = os.stat(self.path)
        return [os.path.abspath(self.path), status.st_size, status.st_mtime_ns]

    def _check(self) -> None:
        if os.path.isdir(self.path):
            raise InputError(f"{self.argument}: {self.path} is a directory, expected a text file")
        if not os.path.exists(self.path):
            raise InputError(f"{self.argument}: there is no file {self.path}")

    def _chunks(self, errors: str) -> Iterator[str]:
        self._check()
        empty = True
        try:
            with open(self.path, "rb") as file:
                compressed = file.read(2) == _GZIP_MAGIC
            with gzip.open(self.path) if compressed else open(self.path, "rb") as file:
                for text in self._decoded(file, errors):
                    empty = False
                    yield text
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{self.path} is not a complete gzip file: {error}") from error
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror or error}") from error
        if empty:
            raise InputError(f"{self.argument}: {self.path} is empty, expected text")

    def _decoded(self, file: io.BufferedIOBase, errors: str) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors)
        consumed, line, start = 0, 1, True
        while True:
            data = file.read(CHUNK_BYTES)
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                # The decoder looked at bytes kept from the chunk before, followed by this one.
                offset = consumed + len(data) - len(error.object) + error.start
                line += error.object.count(b"\n", 0, error.start)
                raise InputError(
                    f"{self.path}, line {line}, byte offset {offset}: byte "
                    f"0x{error.object[error.start]:02x} is not valid UTF-8 ({error.reason}); "
                    "convert the file to UTF-8 or use codec bytes"
                ) from error
            consumed += len(data)
            line += text.count("\n")
            if start and errors == "strict":
                text = text.removeprefix("\ufeff")
            start = start and not text
            if text:
                yield text
            if not data:
                return


def text_pieces(source: TextSource, codec: Codec) -> Iterator[str]:
    """Yields the text of a source in pieces that `codec` can encode one by one."""
    for _, chunks in source.documents(codec.decode_errors):
        yield from complete_pieces(chunks, codec)


def iter_lines(source: TextSource, errors: str = "strict") -> Iterator[tuple[str, int, str]]:
    r"""Yields the lines of a source that are not empty.

    Lines end with `\n` or `\r\n`, which is not part of them.

    Returns:
      Iterator over (document name, line number from 1, line).
    """
    for name, chunks in source.documents(errors):
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


class CorpusWriter:
    """Appends sequences to a corpus, on disk or in memory."""

    def __init__(self, path: pathlib.Path | None, dtype: np.dtype):
        self._path = path
        self._dtype = dtype
        self._file: IO[bytes] = io.BytesIO() if path is None else open(path, "wb")  # noqa: SIM115
        self._offsets = array.array("q")
        self._length = 0

    def start_sequence(self) -> None:
        """The next token begins a sequence."""
        self._offsets.append(self._length)

    def append(self, ids: Integer[np.ndarray, " T"]) -> None:
        """Appends tokens to the present sequence."""
        self._file.write(ids.astype(self._dtype).data)
        self._length += len(ids)

    def close(self) -> None:
        """Ends the corpus on disk: the tokens in `path`, the offsets in a file beside it."""
        self._file.close()
        if self._path is not None:
            self._all_offsets().tofile(self._path.with_suffix(".offsets"))

    def to_memory(self) -> Corpus:
        """Ends the corpus in memory."""
        assert isinstance(self._file, io.BytesIO)
        return Corpus(np.frombuffer(self._file.getbuffer(), self._dtype), self._all_offsets())

    def _all_offsets(self) -> Integer[np.ndarray, " S"]:
        self._offsets.append(self._length)
        return np.frombuffer(self._offsets, np.int64)


def write_text(source: TextSource, codec: Codec, writer: CorpusWriter) -> None:
    """Encodes a source as text: each document one sequence, without an end token."""
    for name, chunks in source.documents(codec.decode_errors):
        writer.start_sequence()
        line, column = 1, 1
        for piece in complete_pieces(chunks, codec):
            writer.append(codec.encode(piece, name, line=line, column=column))
            newlines = piece.count("\n")
            line += newlines
            column = len(piece) - piece.rfind("\n") if newlines else column + len(piece)


def write_line(codec: Codec, name: str, number: int, line: str, writer: CorpusWriter) -> None:
    """Encodes a line as one sequence that ends with the end token."""
    assert codec.end is not None
    ids = codec.encode(line, name, line=number)
    writer.start_sequence()
    writer.append(np.append(ids, np.int32(codec.end)))


def store(
    names: Sequence[str],
    dtype: np.dtype,
    fill: Callable[[Mapping[str, CorpusWriter]], Any],
    cache_dir: str | os.PathLike | None,
    key: Any,
) -> tuple[dict[str, Corpus], Any]:
    """Writes corpora once, and opens them memory-mapped ever after.

    Args:
      names: the names of the corpora.
      dtype: storage type of the tokens.
      fill: writes the corpora, and returns JSON that is kept with them.
      cache_dir: folder for the token files; None keeps the tokens in memory.
      key: JSON that identifies the content; files with the same key are used again.

    Returns:
      The corpora by name, and what `fill` returned.

    Raises:
      InputError: the folder cannot be written.
    """
    if cache_dir is None:
        writers = {name: CorpusWriter(None, dtype) for name in names}
        info = fill(writers)
        return {name: writer.to_memory() for name, writer in writers.items()}, info
    identity = json.dumps([_CACHE_VERSION, list(names), str(dtype), key], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:20]
    folder = pathlib.Path(cache_dir) / f"tokens-{digest}"
    if not folder.is_dir():
        try:
            _write_folder(folder, names, dtype, fill)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"cannot write encoded data to {cache_dir}: {reason}") from error
    corpora = {
        name: Corpus(
            _memory_map(folder / f"{name}.tokens", dtype),
            _memory_map(folder / f"{name}.offsets", np.dtype(np.int64)),
        )
        for name in names
    }
    return corpora, json.loads((folder / "info.json").read_text())


def _write_folder(
    folder: pathlib.Path,
    names: Sequence[str],
    dtype: np.dtype,
    fill: Callable[[Mapping[str, CorpusWriter]], Any],
) -> None:
    """Writes to a temporary folder, then renames it: a folder with its final name is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    try:
        writers = {name: CorpusWriter(temporary / f"{name}.tokens", dtype) for name in names}
        try:
            info = fill(writers)
        finally:
            for writer in writers.values():
                writer.close()
        (temporary / "info.json").write_text(json.dumps(info))
        try:
            os.replace(temporary, folder)
        except OSError:
            if not folder.is_dir():  # Otherwise another process has just written the same.
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _memory_map(path: pathlib.Path, dtype: np.dtype) -> np.ndarray:
    if path.stat().st_size == 0:  # An empty file cannot be mapped.
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="r")
