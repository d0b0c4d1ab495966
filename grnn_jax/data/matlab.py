"""Arrays and cells of arrays in MATLAB files of version 5 to 7.

scipy reads them too, but damaged ones stop its process (SIGSEGV in 1.17); here every size is
checked against the bytes that are there.
"""

import math
import pathlib
import struct
import zlib
from typing import NamedTuple

import numpy as np

from grnn_jax.data.declared import GIB, MAX_FILE_GIB, array_of_bytes, check_expanded, check_shape
from grnn_jax.data.pickled_values import NoNumbers
from grnn_jax.errors import InputError

_HEADER_BYTES = 128
_TYPES = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
"""Of the elements of a file: the numbers of its format, the types of NumPy."""

_MATRIX, _COMPRESSED = 14, 15
_CELL = 1
_NUMBERS = range(6, 16)
"""Classes of arrays of numbers."""

_OTHERS = {
    2: "a structure", 3: "an object", 4: "text", 5: "a sparse array", 16: "a function",
    17: "an object", 18: "an object",
}  # fmt: skip
_COMPLEX = 1 << 11


class _Element(NamedTuple):
    """A part of a file.

    Attributes:
        kind: the number of its type.
        data: its bytes.
        end: where the next one begins.
    """

    kind: int
    data: memoryview
    end: int


def load_mat(
    path: str, names: tuple[str, ...], max_gib: float = MAX_FILE_GIB
) -> dict[str, np.ndarray]:
    """Reads variables of a MATLAB file; cells become object arrays.

    Args:
        path: the file.
        names: of the variables.
        max_gib: the GiB that it may expand to.

    Returns:
        The variables by name, in the types in which their numbers are stored. What is no array of
        numbers is a `NoNumbers`, in an object array.

    Raises:
        InputError: the file is not a MATLAB file, lacks one of the names, or expands to more.
    """
    try:
        found = parse_mat(pathlib.Path(path).read_bytes(), path, names, max_gib)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, zlib.error, struct.error) as error:
        raise InputError(f"{path} is not a readable MATLAB file: {error}") from error
    for name in names:
        if name not in found:
            raise InputError(
                f"{path}: expected the variables {', '.join(names)}, {name} is missing"
            )
    return {name: found[name] for name in names}


def parse_mat(
    data: bytes, path: str, names: tuple[str, ...], max_gib: float = MAX_FILE_GIB
) -> dict[str, np.ndarray]:
    """Reads what stands in a MATLAB file.

    Args:
        data: all of its bytes.
        path: the file, for messages.
        names: of the variables.
        max_gib: the GiB that it may expand to.

    Returns:
        The variables by name, see `load_mat`; some may be missing.

    Raises:
        ValueError: it is damaged, or none; or zlib.error or struct.error.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER_BYTES])
    if data.startswith(b"\x89HDF") or data[512:516] == b"\x89HDF":
        raise ValueError("it is of version 7.3; save it with -v7")
    if order is None:
        raise ValueError("it does not begin as files of version 5 to 7 do")
    contents, start, expanded = memoryview(data), _HEADER_BYTES, 0
    found = {}
    while start < len(data):
        element = _element(contents, start, order)
        start = element.end
        if element.kind == _COMPRESSED:
            unpacked = _decompress(element.data, path, expanded, max_gib)
            expanded += len(unpacked)
            element = _element(memoryview(unpacked), 0, order)
        if element.kind == _MATRIX:
            name, array = _matrix(element.data, order, names)
            if name in names:
                found[name] = array
    return found


def _decompress(data: memoryview, path: str, expanded: int, max_gib: float) -> bytes:
    """The bytes of a variable, after those of others."""
    most = max(int(max_gib * GIB) - expanded, 0)
    decompressor = zlib.decompressobj()
    unpacked = decompressor.decompress(data, most + 1)
    check_expanded(path, expanded + len(unpacked), max_gib)
    if not decompressor.eof:
        raise ValueError("a compressed variable is not complete")
    return unpacked


def _element(data: memoryview, start: int, order: str) -> _Element:
    """The element that begins somewhere."""
    (kind,) = struct.unpack_from(f"{order}I", data, start)
    if kind >> 16:  # A small one has its size beside its type, and its data at once.
        size, kind, begin, end = kind >> 16, kind & 0xFFFF, start + 4, start + 8
        if size > 4:
            raise ValueError(f"a small element of {size} bytes")
    else:
        (size,) = struct.unpack_from(f"{order}I", data, start + 4)
        begin = start + 8
        end = begin + size + (0 if kind == _COMPRESSED else -size % 8)
    if begin + size > len(data):
        raise ValueError(f"it declares {size} bytes where {len(data) - begin} are left")
    return _Element(kind, data[begin : begin + size], end)


def _matrix(data: memoryview, order: str, names: tuple[str, ...] | None) -> tuple[str, np.ndarray]:
    """Name and value of an array; without `names` it stands in a cell."""
    if not len(data):  # An empty array in a cell.
        return "", np.empty((0, 0))
    parts = _Parts(data, order)
    flags, sizes, name = parts.integers(), parts.integers(), parts.text()
    if not len(flags) or len(sizes) < 2:
        raise ValueError("an array without its class or its shape")
    if names is not None and name not in names:
        return name, np.empty(0)
    shape = tuple(sizes.tolist())
    number = int(flags[0]) & 0xFF
    if number in _NUMBERS and not int(flags[0]) & _COMPLEX:
        if not math.prod(shape):
            check_shape(shape, 1, 0)
            return name, np.empty(shape)
        values, dtype = parts.numbers()
        return name, array_of_bytes(values, dtype, shape, fortran_order=True)
    array = np.empty(1, object)
    if number != _CELL or names is None:
        is_complex = number in _NUMBERS
        what = "complex numbers" if is_complex else _OTHERS.get(number, "a cell in a cell")
        array[0] = NoNumbers(what)
        return name, array
    check_shape(shape, 1, math.prod(shape))  # Neither negative nor empty and huge.
    if math.prod(shape) * 8 > len(data):
        raise ValueError(f"it declares {math.prod(shape)} cells in {len(data)} bytes")
    array = np.empty(math.prod(shape), object)
    for index in range(len(array)):
        _, cell = _matrix(parts.matrix(), order, None)
        array[index] = cell[0] if cell.dtype == object else cell
    return name, array.reshape(shape, order="F")


class _Parts:
    """The elements of an array, one after the other."""

    def __init__(self, data: memoryview, order: str):
        self._data, self._order, self._start = data, order, 0

    def _next(self) -> _Element:
        element = _element(self._data, self._start, self._order)
        self._start = element.end
        return element

    def matrix(self) -> memoryview:
        """The bytes of an array in a cell."""
        element = self._next()
        if element.kind != _MATRIX:
            raise ValueError(f"an element of type {element.kind} in place of an array in a cell")
        return element.data

    def numbers(self) -> tuple[memoryview, np.dtype]:
        """The bytes of numbers, and their type."""
        element = self._next()
        if element.kind not in _TYPES:
            raise ValueError(f"an element of type {element.kind} in place of numbers")
        return element.data, np.dtype(self._order + _TYPES[element.kind])

    def integers(self) -> np.ndarray:
        """Whole numbers in a row."""
        data, dtype = self.numbers()
        if dtype.kind not in "iu":
            raise ValueError(f"numbers of type {dtype} in place of whole ones")
        return array_of_bytes(data, dtype, (len(data) // dtype.itemsize,))

    def text(self) -> str:
        """A name."""
        return str(self._next().data[:64], "latin1").rstrip("\0")
