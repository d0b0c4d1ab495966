"""Samples written one after the other: any number of them, and on after a kill.

Beside the output, while it is unfinished, lie OUTPUT.progress (JSON: what was asked for, and how
much is complete) and OUTPUT.hashes (8 bytes a sample); in a folder they are called samples. The
same command finds them, drops what was written after them and goes on; sample i depends on the seed
and on i alone, so that the output is, byte for byte, that of an uninterrupted request.
"""

import contextlib
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO, cast

import numpy as np
from absl import logging

from grnn_jax.cli.countdown import Countdown
from grnn_jax.cli.targets import Target, beside, read_blocks
from grnn_jax.errors import InputError

COMMIT_EVERY = 256
"""Samples between two notes of progress, and most samples in a picture."""
HASH_BYTES = 8
COUNTED_AT_ONCE = 1 << 19
"""About so many hashes, at most, are in memory while different ones are counted."""


class Record(NamedTuple):
    """One sample.

    Attributes:
        value: the sample, as the target takes it.
        content: what two equal samples have in common.
    """

    value: Any
    content: bytes


def content_hash(content: bytes) -> bytes:
    """A hash of a sample: of a million different ones two agree with probability 3e-8."""
    return hashlib.blake2b(content, digest_size=HASH_BYTES).digest()


def count_different(hashes: BinaryIO) -> tuple[int, int]:
    """How many hashes a file has, and how many different ones.

    Those that end in the same bits are counted together, in as many parts as make each small, so
    that memory does not grow with the file; it is read once for each part.
    """
    total = hashes.seek(0, os.SEEK_END) // HASH_BYTES
    parts, different = 1 << (total // COUNTED_AT_ONCE).bit_length(), 0
    for part in range(parts):
        hashes.seek(0)
        blocks = (np.frombuffer(block, np.uint64) for block in read_blocks(hashes))
        chosen = [block[block & np.uint64(parts - 1) == part] for block in blocks]
        hashed = np.concatenate([np.zeros(0, np.uint64), *chosen])
        hashed.sort()
        different += int((hashed[1:] != hashed[:-1]).sum()) + bool(len(hashed))
    return total, different


def report_duplicates(hashes: BinaryIO) -> None:
    """Tells how many of the samples are different, from a file of their hashes."""
    total, different = count_different(hashes)
    logging.info(
        "%s samples, %s different ones, %s duplicates",
        f"{total:,}", f"{different:,}", f"{total - different:,}",
    )  # fmt: skip


class _Unfinished:
    """What is known of a request that is not complete, and the files that grow with it."""

    def __init__(self, target: Target, settings: dict[str, Any]):
        self._target = target
        self._progress = beside(target.path, ".progress")
        self.hashes = beside(target.path, ".hashes")
        self._paths = (*target.files, self.hashes)
        self._settings = json.loads(json.dumps(settings))

    def read(self) -> tuple[int, list[int]]:
        """How many samples, and how many bytes of each file that grows, are complete."""
        nothing = [0] * len(self._paths)
        if not self._progress.exists():
            return 0, nothing
        again = f"give the same flags again, another --output, or remove {self._progress}"
        try:
            record = json.loads(self._progress.read_text())
            settings, samples = record["settings"], int(record["samples"])
            sizes = [int(size) for size in record["bytes"]]
            if len(sizes) != len(self._paths):
                raise ValueError(f"expected {len(self._paths)} sizes, got {len(sizes)}")
            differing = sorted(
                name
                for name in settings.keys() | self._settings.keys()
                if settings.get(name) != self._settings.get(name)
            )
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"--output: {self._progress} is damaged: {error}; {again}") from error
        if differing:
            was = ", ".join(f"{n} was {settings.get(n)!r}" for n in differing)
            now = ", ".join(f"is {self._settings.get(n)!r}" for n in differing)
            raise InputError(
                f"--output: {self._target.folder or self._target.path} is unfinished, and was "
                f"asked for with other settings ({was}; {now}); {again}"
            )
        if not samples:
            return 0, nothing
        for path, least in zip(self._paths, sizes, strict=True):
            if not path.exists() or path.stat().st_size < least:
                raise InputError(
                    f"--output: {path} is shorter than {self._progress} says; remove the latter "
                    "to begin anew"
                )
        return samples, sizes

    def open(self, stack: contextlib.ExitStack, sizes: list[int] | None) -> list[BinaryIO]:
        """Opens the files that grow, cut back to some sizes, or None: anew."""
        mode = "wb" if sizes is None else "r+b"
        opened = [stack.enter_context(path.open(mode)) for path in self._paths]
        files = cast(list[BinaryIO], opened)
        if sizes is None:
            if self._target.files:
                files[0].write(self._target.header)
            return files
        for file, size in zip(files, sizes, strict=True):
            file.truncate(size)
            file.seek(size)
        return files

    def write(self, samples: int, files: list[BinaryIO]) -> None:
        """Notes what is complete."""
        for file in files:
            file.flush()
        sizes = [file.tell() for file in files]
        temporary = beside(self._progress, ".tmp")
        record = {"settings": self._settings, "samples": samples, "bytes": sizes}
        temporary.write_text(json.dumps(record))
        os.replace(temporary, self._progress)

    def remove(self) -> None:
        """The request is complete."""
        self._progress.unlink()
        for path in (*(self._target.files if self._target.is_scratch else ()), self.hashes):
            path.unlink()


def forget_request(path: str | Path) -> None:
    """Removes what an unfinished request left beside an output that is written anew."""
    for suffix in (".progress", ".hashes"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(itertools.islice(records, COMMIT_EVERY)):
        yield batch


def write_request(
    target: Target,
    num_samples: int,
    settings: dict[str, Any],
    records: Callable[[int], Iterator[Record]],
    *,
    count_duplicates: bool = True,
) -> None:
    """Writes samples, or goes on where an earlier call was killed.

    Args:
        target: where they go; a finished output of that name is overwritten.
        num_samples: number of samples.
        settings: JSON that decides what the samples are; a request goes on only with the same.
        records: number of the first sample -> that one and all after it.
        count_duplicates: tell how many are different, in the log.

    Raises:
        InputError: a file cannot be written, or an unfinished one is of another request.
    """
    output = target.folder or target.path
    if output.exists() and not output.is_file() and not output.is_dir():
        _write_device(target, records(0), count_duplicates)
        return
    unfinished = _Unfinished(target, settings | {"num_samples": num_samples})
    done, sizes = unfinished.read()
    countdown = Countdown(num_samples, "samples", done)
    if done:
        logging.info("going on after %s samples in %s", f"{done:,}", output)
    try:
        if target.folder is not None:
            target.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            files = unfinished.open(stack, sizes if done else None)
            unfinished.write(done, files)
            for batch in _batches(records(done)) if done < num_samples else ():
                for number, record in enumerate(batch, start=done):
                    pieces = (*target.write(number, record.value), content_hash(record.content))
                    for file, piece in zip(files, pieces, strict=True):
                        file.write(piece)
                if not done and target.picture is not None:
                    target.picture([record.value for record in batch])
                done += len(batch)
                unfinished.write(done, files)
                countdown(done)
        target.finish()
        if count_duplicates:
            with open(unfinished.hashes, "rb") as hashes:
                report_duplicates(hashes)
        unfinished.remove()
    except OSError as error:
        where = "cannot write to" if target.folder else "--output: cannot write"
        raise InputError(
            f"{where} {output}: {error.strerror or error}"
            + ("; what is complete stays, the same command goes on from there" if done else "")
        ) from error
    except ImportError as error:
        raise InputError(f"cannot write such samples: {error}; pip install {error.name}") from error
    except KeyboardInterrupt:
        logging.info("stopped after %s samples; the same command goes on from there", f"{done:,}")
        raise
    finally:
        countdown.close()


def _write_device(target: Target, records: Iterator[Record], count_duplicates: bool) -> None:
    """Writes samples to a device or a pipe, as /dev/null, beside which nothing may lie."""
    if target.files != (target.path,):
        raise InputError(f"--output must be a file or a folder for such samples, got {target.path}")
    try:
        with open(target.path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            write_stream(target, file, records, count_duplicates)
    except OSError as error:
        raise InputError(
            f"--output: cannot write {target.path}: {error.strerror or error}"
        ) from error


def write_stream(
    target: Target, file: TextIO, records: Iterator[Record], count_duplicates: bool
) -> None:
    """Writes samples of text to an open file as they come.

    Args:
        target: of the kind `text_file`; its path is not used.
        file: where they go.
        records: the samples.
        count_duplicates: tell how many are different, in the log.
    """
    errors = "surrogateescape" if file.errors == "surrogateescape" else "replace"
    file.write(target.header.decode())
    with tempfile.TemporaryFile() as hashes:
        for number, record in enumerate(records, start=1):
            (piece,) = target.write(number - 1, record.value)
            file.write(piece.decode("utf-8", errors))
            hashes.write(content_hash(record.content))
            if number % COMMIT_EVERY == 0:
                file.flush()
        file.flush()
        if count_duplicates:
            report_duplicates(hashes)
