"""What a file declares about its size, checked before memory is taken for it."""

import gzip
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grnn_jax.errors import InputError

MAX_FILE_GIB = 4.0
"""GiB that a compressed file may expand to, where no setting says otherwise."""

GIB = 1 << 30
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_EMPTY = 1 << 20
"""Greatest product of the other axes of an array that has no elements, and so no bytes."""


def check_expanded(path: str | os.PathLike[str], size: int, max_gib: float) -> None:
    """Checks what a file expands to.

    Args:
        path: the file.
        size: bytes that it takes in memory, so far or as it declares.
        max_gib: the limit.

    Raises:
        InputError: it is more.
    """
    if size > max_gib * GIB:
        raise InputError(
            f"{path} expands to {size / GIB:.3g} GiB or more, expected at most "
            f"max_file_gib={max_gib:g}; a greater one reads it, if it is what it should be"
        )


def check_shape(shape: Sequence[int], item_size: int, num_bytes: int) -> None:
    """Checks that an array is as large as the bytes that are there for it.

    >>> check_shape([2, 3], 8, 48)
    >>> check_shape([10**12, 3], 8, 48)
    Traceback (most recent call last):
    ValueError: it declares an array [1000000000000, 3] of 24000000000000 bytes, and holds 48

    Args:
        shape: of the array.
        item_size: bytes of an element.
        num_bytes: the bytes that the file has for it.

    Raises:
        ValueError: they are more or fewer, or it has no elements along one axis and very many along
            others.
    """
    declared = f"it declares an array {list(shape)!s:.80}"
    if any(n < 0 for n in shape):
        raise ValueError(f"{declared}, expected sizes of at least 0")
    size = math.prod(shape) * item_size
    if size != num_bytes:
        bytes_declared = size if size < 1 << 64 else "far too many"
        raise ValueError(f"{declared} of {bytes_declared} bytes, and holds {num_bytes}")
    if not size and math.prod(n for n in shape if n) > _MOST_EMPTY:
        raise ValueError(f"{declared} without an element")


def array_of_bytes(
    data: memoryview, dtype: np.dtype, shape: Sequence[int], fortran_order: bool = False
) -> np.ndarray:
    """An array that views bytes and cannot be written.

    Args:
        data: its elements and nothing else.
        dtype: their type, without objects.
        shape: its shape.
        fortran_order: whether the first axis runs fastest.

    Raises:
        ValueError: its size is another, see `check_shape`.
    """
    assert not dtype.hasobject, dtype  # Bytes of a file are no pointers.
    check_shape(shape, dtype.itemsize, len(data))
    if not len(data):  # Which NumPy views as no array.
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")


def gib_limit(options: Mapping[str, Any]) -> float:
    """The setting max_file_gib among others, which may lack it."""
    return float(options.get("max_file_gib", MAX_FILE_GIB))


class _Counted(io.RawIOBase):
    """What a gzipped file expands to, as long as it is not too much."""

    def __init__(self, path: str | os.PathLike[str], max_gib: float, per_byte: int):
        self._file = gzip.open(path)  # noqa: SIM115
        self._path, self._max_gib, self._per_byte, self._count = path, max_gib, per_byte, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._count += count
        check_expanded(self._path, self._count * self._per_byte, self._max_gib)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def is_gzip(path: str | os.PathLike[str]) -> bool:
    """Whether the first bytes of a file say that it is gzipped."""
    with open(path, "rb") as file:
        return file.read(2) == _GZIP_MAGIC


def open_expanded(
    path: str | os.PathLike[str], max_gib: float, per_byte: int = 1
) -> io.BufferedReader:
    """Opens a file that may be gzipped.

    Args:
        path: the file.
        max_gib: the GiB that it may expand to; a file that is not gzipped may have any size.
        per_byte: bytes that are needed for each byte of the contents.

    Returns:
        Its contents; reading raises InputError beyond the limit, and what the module gzip raises
        where the file is damaged.
    """
    if is_gzip(path):
        return io.BufferedReader(_Counted(path, max_gib, per_byte), io.DEFAULT_BUFFER_SIZE)
    return open(path, "rb")
