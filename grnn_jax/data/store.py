"""Events on disk: written once, opened memory-mapped ever after."""

import array
import hashlib
import io
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from grnn_jax.checked_json import parse, with_digest, without_digest
from grnn_jax.data.corpus import Corpus, Events, event_arrays, map_events
from grnn_jax.errors import InputError

_CACHE_VERSION = 3


class Stored(NamedTuple):
    """Corpora, and what identifies them.

    Attributes:
        corpora: by name.
        info: JSON that came with them.
        contents: for each name num_events and sha256 of its tokens and offsets.
        folder: where they lie, or None for memory.
    """

    corpora: dict[str, Corpus]
    info: Any
    contents: dict[str, Any]
    folder: pathlib.Path | None


class CorpusWriter:
    """Appends sequences to a corpus, on disk or in memory: one file for each array of an event.

    Args:
        path: where the files go, without a suffix; None keeps them in memory.
        like: events whose dtypes and shapes all others have, as in an empty corpus.
        num_conditions: C, values that are known of each sequence beside its events.
    """

    def __init__(self, path: pathlib.Path | None, like: Events, num_conditions: int = 0):
        self._path = path
        self._num_conditions = num_conditions
        self._conditions = array.array("f")
        self._like = like
        self._files: dict[str, IO[bytes]] = {
            name: io.BytesIO() if path is None else open(_file(path, name), "wb")  # noqa: SIM115
            for name, _ in event_arrays(like)
        }
        self._offsets = array.array("q")
        self._length = 0
        self._hashes = {name: hashlib.sha256() for name in self._files}

    def start_sequence(self) -> None:
        """The next event begins a sequence."""
        self._offsets.append(self._length)

    def give(self, conditions: Float[np.ndarray, " C"]) -> None:
        """What is known of the present sequence."""
        assert conditions.shape == (self._num_conditions,)
        self._conditions.frombytes(np.asarray(conditions, np.float32).tobytes())

    def append(self, events: Events) -> None:
        """Appends events to the present sequence."""
        length = 0
        pairs = zip(event_arrays(events), event_arrays(self._like), strict=True)
        for (name, leaf), (_, like) in pairs:
            data = np.ascontiguousarray(leaf, like.dtype)
            assert data.shape[1:] == like.shape[1:], (name, data.shape, like.shape)
            self._files[name].write(data.data)
            self._hashes[name].update(data.data)
            length = len(data)
        self._length += length

    def contents(self) -> dict[str, Any]:
        """What identifies the events and where sequences start."""
        parts = [each.digest() for each in self._hashes.values()]
        parts.append(hashlib.sha256(self._offsets).digest())
        if self._num_conditions:
            parts.append(hashlib.sha256(self._conditions).digest())
        return {"num_events": self._length, "sha256": _joint_digest(parts)}

    def close(self) -> None:
        """Ends the corpus on disk: a file for each array, and the offsets in a file beside it."""
        for file in self._files.values():
            file.close()
        if self._path is not None:
            self._all_offsets().tofile(self._path.with_suffix(".offsets"))
            if self._num_conditions:
                self._all_conditions().tofile(self._path.with_suffix(".conditions"))

    def to_memory(self) -> Corpus:
        """Ends the corpus in memory."""
        buffers = iter(self._files.values())

        def read(like: np.ndarray) -> np.ndarray:
            file = next(buffers)
            assert isinstance(file, io.BytesIO)
            return np.frombuffer(file.getbuffer(), like.dtype).reshape(-1, *like.shape[1:])

        conditions = self._all_conditions() if self._num_conditions else None
        return Corpus(map_events(read, self._like), self._all_offsets(), conditions=conditions)

    def _all_conditions(self) -> Float[np.ndarray, "S C"]:
        return np.frombuffer(self._conditions, np.float32).reshape(-1, self._num_conditions)

    def _all_offsets(self) -> Integer[np.ndarray, " S"]:
        return np.append(np.frombuffer(self._offsets, np.int64), np.int64(self._length))


def _file(path: pathlib.Path, name: str) -> pathlib.Path:
    """The file of one array of the events: train.events, train.wait.events."""
    return path.with_suffix(f".{name}.events" if name else ".events")


def _file_digest(path: pathlib.Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _joint_digest(digests: Sequence[bytes]) -> str:
    """The digest of a corpus, from those of its arrays and of where its sequences start."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def store(
    names: Sequence[str],
    like: Events,
    fill: Callable[[Mapping[str, CorpusWriter]], Any],
    cache_dir: str | os.PathLike | None,
    key: Any,
    num_conditions: int = 0,
) -> Stored:
    """Writes corpora once, and opens them memory-mapped ever after.

    Args:
        names: the names of the corpora.
        like: events whose dtypes and shapes all others have, as in an empty corpus.
        fill: writes the corpora, and returns JSON that is kept with them.
        cache_dir: folder for the token files; None keeps the tokens in memory.
        key: JSON that identifies the content; files with the same key are used again, unless they
          are damaged.
        num_conditions: C, values that are known of each sequence beside its events.

    Returns:
        The corpora by name, what `fill` returned, and what identifies them.

    Raises:
        InputError: the folder cannot be written.
    """
    if cache_dir is None:
        writers = {name: CorpusWriter(None, like, num_conditions) for name in names}
        info = fill(writers)
        contents = {name: writer.contents() for name, writer in writers.items()}
        return Stored({n: w.to_memory() for n, w in writers.items()}, info, contents, None)
    types = [(name, str(leaf.dtype), leaf.shape[1:]) for name, leaf in event_arrays(like)]
    identity = json.dumps([_CACHE_VERSION, list(names), types, key], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:20]
    folder = pathlib.Path(cache_dir) / f"tokens-{digest}"
    stored = open_stored(folder, names, like, num_conditions)
    if stored is None:
        try:
            if folder.exists():
                shutil.rmtree(folder)
            _write_folder(folder, names, like, fill, num_conditions)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"cannot write encoded data to {cache_dir}: {reason}") from error
        stored = open_stored(folder, names, like, num_conditions)
    if stored is None:
        raise InputError(f"cannot read back the encoded data in {folder}")
    return stored


def open_stored(
    folder: pathlib.Path, names: Sequence[str], like: Events, num_conditions: int = 0
) -> Stored | None:
    """Opens what `store` wrote, without looking at where it came from; reads it whole once.

    Args:
        folder: the folder of the token files.
        names: the names of the corpora.
        like: events whose dtypes and shapes all others have, as in an empty corpus.
        num_conditions: C, values that are known of each sequence beside its events.

    Returns:
        The corpora; None where the folder is missing, or other than it was written.
    """
    try:
        saved = without_digest(parse((folder / "info.json").read_text()))
        contents = {name: saved["contents"][name] for name in names}
        corpora = {}
        for name in names:
            files = [_file(folder / name, path) for path, _ in event_arrays(like)]
            paths = iter(files)
            events = map_events(lambda leaf: _memory_map(next(paths), leaf), like)  # noqa: B023
            offsets = _memory_map(folder / f"{name}.offsets", np.empty(0, np.int64))
            lengths = {len(leaf) for _, leaf in event_arrays(events)}
            if not lengths == {int(offsets[-1])} == {contents[name]["num_events"]}:
                return None
            digests = [_file_digest(file) for file in files]
            digests.append(hashlib.sha256(np.ascontiguousarray(offsets[:-1]).data).digest())
            conditions = None
            if num_conditions:
                file = folder / f"{name}.conditions"
                conditions = _memory_map(file, np.empty((0, num_conditions), np.float32))
                digests.append(_file_digest(file))
            if _joint_digest(digests) != contents[name]["sha256"]:
                return None
            corpora[name] = Corpus(events, offsets, conditions=conditions)
        return Stored(corpora, saved["info"], contents, folder)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def remove_others(folder: pathlib.Path, unfinished: bool) -> None:
    """Removes the encoded data that lie beside a folder of `store`.

    Args:
        folder: the one to keep.
        unfinished: whether no other process may be writing there, so that what a killed one left
          goes too.
    """
    for other in folder.parent.glob("tokens-*"):
        if other.name != folder.name and (unfinished or ".tmp-" not in other.name):
            shutil.rmtree(other, ignore_errors=True)


def _write_folder(
    folder: pathlib.Path,
    names: Sequence[str],
    like: Events,
    fill: Callable[[Mapping[str, CorpusWriter]], Any],
    num_conditions: int,
) -> None:
    """Writes to a temporary folder, then renames it: a folder with its final name is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    try:
        writers = {name: CorpusWriter(temporary / name, like, num_conditions) for name in names}
        try:
            info = fill(writers)
        finally:
            for writer in writers.values():
                writer.close()
        contents = {name: writer.contents() for name, writer in writers.items()}
        saved = with_digest({"info": info, "contents": contents})
        (temporary / "info.json").write_text(json.dumps(saved))
        try:
            os.replace(temporary, folder)
        except OSError:
            if not folder.is_dir():  # Otherwise another process has just written the same.
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _memory_map(path: pathlib.Path, like: np.ndarray) -> np.ndarray:
    if path.stat().st_size == 0:  # An empty file cannot be mapped.
        return np.empty((0, *like.shape[1:]), like.dtype)
    return np.memmap(path, like.dtype, mode="r").reshape(-1, *like.shape[1:])
