"""What the pickles of arrays name and build, as plain values and as arrays made from them."""

import enum
import re
from typing import Any, NamedTuple

import numpy as np

from grnn_jax.data.declared import array_of_bytes

MAX_NAME = 256
MAX_AXES = 32
"""Most axes of an array, and lists within lists, in all versions of NumPy."""

_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|f16|c(8|16|32)|[SU]\d{1,6}|O8?")


class NotAnArrayError(ValueError):
    """A pickle holds something else than what NumPy writes for an array of numeric arrays."""


class NoNumbers(NamedTuple):
    """Stands in an object array for an element that is no array of numbers.

    Attributes:
        what: a word for it.
    """

    what: str


class Name(enum.Enum):
    """What a pickle may name; nothing is imported for it."""

    RECONSTRUCT = enum.auto()
    SCALAR = enum.auto()
    FROM_BUFFER = enum.auto()
    NDARRAY = enum.auto()
    DTYPE = enum.auto()
    ENCODE = enum.auto()
    BYTES = enum.auto()


NAMES = {
    **{f"numpy.{core}.multiarray _reconstruct": Name.RECONSTRUCT for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray scalar": Name.SCALAR for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": Name.FROM_BUFFER for core in ("core", "_core")},
    "numpy ndarray": Name.NDARRAY,
    "numpy dtype": Name.DTYPE,
    "_codecs encode": Name.ENCODE,
    **{f"{builtins} bytes": Name.BYTES for builtins in ("__builtin__", "builtins")},
}


class Items(list):
    """A list or tuple of a pickle.

    Attributes:
        size: numbers in it, those of lists and arrays in it among them.
        depth: how many lists lie within each other.
        is_numbers: whether it holds nothing else.
        is_whole: whether it stands in another one, and so cannot grow: no list holds itself.
        array: what it is as an element of an array, once that is known.
    """

    def __init__(self, items: list[Any], is_whole: bool):
        super().__init__()
        self.size, self.depth, self.is_numbers, self.is_whole = 0, 1, True, False
        self.array: Any = None
        self.add(items)
        self.is_whole = is_whole

    def add(self, items: list[Any]) -> None:
        """Appends items."""
        if self.is_whole or any(item is self for item in items):
            raise NotAnArrayError("a list that holds itself")
        for item in items:
            if isinstance(item, Items):
                item.is_whole = True
                self.size += item.size
                self.depth = max(self.depth, item.depth + 1)
                self.is_numbers &= item.is_numbers
            elif isinstance(item, np.ndarray):
                self.size += item.size
                self.is_numbers &= item.dtype.kind in "biufc"
            else:
                self.size += 1
                self.is_numbers &= isinstance(item, int | float | np.number | np.bool_)
        if self.depth > MAX_AXES:
            raise NotAnArrayError(f"lists within lists, more than {MAX_AXES} of them")
        self.extend(items)


class Keys(list):
    """The keys of a dict, as they are shown; its values are not kept."""


class Unbuilt:
    """An array or type that was named, and is made when its contents come.

    Attributes:
        code: of a type; None for an array.
        built: the array or type, once it is made.
    """

    def __init__(self, code: str | None = None):
        self.code = code
        self.built: Any = None


def dtype_code(code: str | memoryview) -> str:
    """The code of a type as text.

    Raises:
        NotAnArrayError: the type is none of numbers, text or objects.
    """
    text = _short_text(code)
    if not _DTYPE.fullmatch(text):
        raise NotAnArrayError(f"the type {text!r}, which is none of numbers")
    return text


def _short_text(text: Any) -> str:
    """Text of a few characters; that of Python 2 is bytes."""
    if isinstance(text, memoryview):
        text = str(text[:MAX_NAME], "latin1")
    if not isinstance(text, str):
        raise NotAnArrayError(f"{what_is(text)} in place of text")
    return text[:MAX_NAME]


def make_dtype(code: str, order: Any, size: int) -> np.dtype:
    """The type of a code.

    Args:
        code: as `dtype_code` gives it.
        order: the character of its order of bytes.
        size: its bytes, or -1.

    Raises:
        ValueError: there is no such type.
    """
    order = _short_text(order)
    if order not in ("<", ">", "|", "="):
        raise NotAnArrayError(f"the byte order {order!r}")
    try:
        dtype = np.dtype(order + code)
    except TypeError as error:  # Long floats differ from machine to machine.
        raise ValueError(f"its type {code} is not known here") from error
    if size not in (-1, dtype.itemsize):
        raise NotAnArrayError(f"the type {code} of {size} bytes")
    return dtype


def sizes_of(shape: Any) -> tuple[int, ...]:
    """The shape of an array, or the order of its axes.

    Raises:
        NotAnArrayError: it is none.
    """
    if (
        not isinstance(shape, Items)
        or any(type(size) is not int for size in shape)
        or len(shape) > MAX_AXES
    ):
        raise NotAnArrayError("a shape that is none")
    return tuple(shape)


def make_array(data: memoryview, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """An array of numbers or text that views bytes of the pickle.

    Args:
        data: its bytes.
        dtype: the type of its elements.
        shape: its shape.
        order: "C", or "F" where the first axis runs fastest.

    Raises:
        ValueError: the bytes are more or fewer, or are to be objects.
    """
    if dtype.hasobject:
        raise NotAnArrayError("bytes in place of objects")
    return array_of_bytes(data, dtype, shape, order == "F")


def from_buffer(
    data: memoryview, dtype: np.dtype, shape: tuple[int, ...], order: Any, more: list[Any]
) -> np.ndarray:
    """An array as protocol 5 has it.

    Args:
        data: its bytes.
        dtype: the type of its elements.
        shape: the shape in which they are stored.
        order: "C", "F" or "K".
        more: with "K" the order of its axes.

    Raises:
        ValueError: as `make_array`.
    """
    if order in ("C", "F") and more in ([], [None]):
        return make_array(data, dtype, shape, order)
    if order != "K" or len(more) != 1 or not isinstance(more[0], Items):
        raise NotAnArrayError(f"the order {order!r:.20} of an array")
    axes = sizes_of(more[0])
    if sorted(axes) != list(range(len(shape))):
        raise NotAnArrayError("an order of axes that is none")
    return make_array(data, dtype, shape, "C").transpose(axes)


def what_is(value: Any) -> str:
    """A word for an object of a pickle."""
    if isinstance(value, Keys):
        keys = ", ".join(value[:20]) + (", …" if len(value) > 20 else "")
        return f"a dict with the keys {keys}; save its arrays by savez"
    names = {memoryview: "bytes", Items: "a list", Unbuilt: "an array without contents"}
    return names.get(type(value), str(value) if isinstance(value, Name) else type(value).__name__)
