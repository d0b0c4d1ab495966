"""Samples written to a file one after the other: any number of them, and on after a kill.

Beside FILE, while it is unfinished, lie FILE.progress (JSON: what was asked for, and how much of
FILE is complete) and FILE.hashes (8 bytes a sample). The same command finds them, drops what was
written after them and goes on; sample i depends on the seed and on i alone, so that the file is,
byte for byte, the one of an uninterrupted request.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from countdown import Countdown

from grnn_jax.errors import InputError

COMMIT_EVERY = 256
"""Samples between two notes of progress."""
HASH_BYTES = 8


class Record(NamedTuple):
    """One sample.

    Attributes:
        text: what is written.
        content: what two equal samples have in common.
    """

    text: str
    content: bytes


def content_hash(content: bytes) -> bytes:
    """A hash of a sample: of a million different ones two agree with probability 3e-8."""
    return hashlib.blake2b(content, digest_size=HASH_BYTES).digest()


def report_duplicates(hashes: bytes) -> None:
    """Tells how many of the samples are different, from their hashes."""
    numbers = np.frombuffer(hashes, np.uint64)
    unique = len(np.unique(numbers))
    logging.info(
        "%s samples, %s different ones, %s duplicates",
        f"{len(numbers):,}", f"{unique:,}", f"{len(numbers) - unique:,}",
    )  # fmt: skip


class _Unfinished:
    """The two files beside an unfinished one."""

    def __init__(self, path: Path, settings: dict[str, Any]):
        self._path = path
        self._progress = path.with_name(path.name + ".progress")
        self.hashes = path.with_name(path.name + ".hashes")
        self._settings = json.loads(json.dumps(settings))

    def read(self) -> tuple[int, int]:
        """The samples and the bytes that are complete; zeros where nothing is."""
        if not self._progress.exists():
            return 0, 0
        again = f"give the same flags again, another --output, or remove {self._progress}"
        try:
            found = json.loads(self._progress.read_text())
            settings, samples, size = found["settings"], int(found["samples"]), int(found["bytes"])
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
                f"--output: {self._path} is unfinished, and was asked for with other settings "
                f"({was}; {now}); {again}"
            )
        for path, least in ((self._path, size), (self.hashes, samples * HASH_BYTES)):
            if not path.exists() or path.stat().st_size < least:
                raise InputError(
                    f"--output: {path} is shorter than {self._progress} says; remove the latter "
                    "to begin anew"
                )
        return samples, size

    def write(self, samples: int, size: int) -> None:
        """Notes what is complete."""
        temporary = self._progress.with_name(self._progress.name + ".tmp")
        record = {"settings": self._settings, "samples": samples, "bytes": size}
        temporary.write_text(json.dumps(record))
        os.replace(temporary, self._progress)

    def remove(self) -> None:
        """The file is complete."""
        self._progress.unlink()
        self.hashes.unlink()


def forget_request(path: str | Path) -> None:
    """Removes what an unfinished request left beside a file that is written anew."""
    for suffix in (".progress", ".hashes"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def write_request(
    path: str | Path,
    num_samples: int,
    settings: dict[str, Any],
    records: Callable[[int], Iterator[Record]],
    *,
    header: str = "",
) -> None:
    """Writes samples to a file, or goes on where an earlier call was killed.

    Args:
        path: the file; a finished one of that name is overwritten.
        num_samples: number of samples.
        settings: JSON that decides what the samples are; a request goes on only with the same.
        records: number of the first sample -> that one and all after it.
        header: what the file begins with.

    Raises:
        InputError: the file cannot be written, or an unfinished one is of another request.
    """
    path = Path(path)
    unfinished = _Unfinished(path, settings | {"num_samples": num_samples})
    done, size = unfinished.read()
    countdown = Countdown(num_samples, "samples", done)
    if size:
        logging.info("going on after %s samples in %s", f"{done:,}", path)
    try:
        if not size:
            path.write_bytes(header.encode())
            unfinished.hashes.write_bytes(b"")
            size = len(header.encode())
            unfinished.write(0, size)
        with open(path, "r+b") as file, open(unfinished.hashes, "r+b") as hashes:
            for each, length in ((file, size), (hashes, done * HASH_BYTES)):
                each.truncate(length)
                each.seek(length)
            for record in records(done) if done < num_samples else ():
                size += file.write(record.text.encode())
                hashes.write(content_hash(record.content))
                done += 1
                if done % COMMIT_EVERY == 0 or done == num_samples:
                    file.flush()
                    hashes.flush()
                    unfinished.write(done, size)
                    countdown(done)
        report_duplicates(unfinished.hashes.read_bytes())
        unfinished.remove()
    except OSError as error:
        raise InputError(
            f"--output: cannot write {path}: {error.strerror or error}"
            + ("; what is complete stays, the same command goes on from there" if done else "")
        ) from error
    except KeyboardInterrupt:
        logging.info("stopped after %s samples; the same command goes on from there", f"{done:,}")
        raise
    finally:
        countdown.close()
