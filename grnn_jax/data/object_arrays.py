"""Object arrays of numeric arrays, read from the pickles that NumPy writes, without unpickling.

A pickle is a program, which may run code or break memory. What NumPy writes for an object array of
arrays takes some of its instructions and seven names. They are followed here on plain values: every
array is made by this file, from bytes that were counted, and no instruction sets anything on an
object of a library.
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from grnn_jax.data.declared import GIB, check_expanded, check_shape
from grnn_jax.data.pickled_values import (
    MAX_NAME,
    NAMES,
    Items,
    Keys,
    Name,
    NoNumbers,
    NotAnArrayError,
    Unbuilt,
    dtype_code,
    from_buffer,
    make_array,
    make_dtype,
    sizes_of,
    what_is,
)

_BYTES_OF_OBJECT = 100
"""So many bytes, or about, does an object of a pickle take in memory."""

_BYTES_OF_NUMBER = 16
_MAX_INTEGER_BYTES = 9
"""Those of a number of 64 bits, with its sign."""


def parse_object_array(data: bytes | memoryview, path: str, max_gib: float) -> np.ndarray:
    """Reads a pickle of one object array, of protocols 2 to 5.

    Its elements are arrays of numbers or text, and numbers. Lists of numbers, of any depth, become
    arrays. For an element that is something else, as None or a dict, there is a `NoNumbers`.

    >>> import pickle
    >>> array = np.array([np.arange(2), [1.5]], object)
    >>> parse_object_array(pickle.dumps(array), "a.npy", 1.0)
    array([array([0, 1]), array([1.5])], dtype=object)

    Args:
        data: the pickle, and nothing after it.
        path: the file, for messages.
        max_gib: what its objects may take in memory beside the bytes that are there.

    Returns:
        The array; its elements are views of `data`.

    Raises:
        NotAnArrayError: it names something else than arrays.
        ValueError: it is damaged; an InputError where it is too large.
    """
    array = _Parser(memoryview(data), path, max_gib).run()
    if not isinstance(array, np.ndarray) or array.dtype != object:
        raise NotAnArrayError(f"{what_is(array)} in place of an object array")
    return array


class _Parser:
    """Follows the instructions of one pickle; methods without an underscore are instructions."""

    def __init__(self, data: memoryview, path: str, max_gib: float):
        self._data, self._length = data, len(data)
        self._position = 0
        self._path, self._max_gib = path, max_gib
        self._taken, self._most = 0, max_gib * GIB
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The one object of the pickle."""
        while (code := self._number(1)) != _STOP:
            self._take(_BYTES_OF_OBJECT)
            if code not in _INSTRUCTIONS:
                raise NotAnArrayError(f"the instruction 0x{code:02x} at byte {self._position - 1}")
            method, arguments = _INSTRUCTIONS[code]
            method(self, *arguments)
        value = self._pop()
        if self._stack or self._marked:
            raise ValueError("its pickle leaves more than one object")
        if self._position != len(self._data):
            raise ValueError(f"{len(self._data) - self._position} bytes follow its pickle")
        return value

    def _take(self, num_bytes: int) -> None:
        """Counts memory, before it is taken for more than the bytes that are there."""
        self._taken += num_bytes
        if self._taken > self._most:
            check_expanded(self._path, self._taken, self._max_gib)

    def _read(self, count: int) -> memoryview:
        """The next bytes, no copy of them."""
        start, stop = self._position, self._position + count
        if stop > self._length:
            left = self._length - start
            raise ValueError(f"its pickle declares {count} bytes where {left} are left")
        self._position = stop
        return self._data[start:stop]

    def _number(self, width: int, signed: bool = False) -> int:
        if width == 1 and self._position < self._length:  # Most of them, and so quickly.
            self._position += 1
            return self._data[self._position - 1]
        return int.from_bytes(self._read(width), "little", signed=signed)

    def _pop(self) -> Any:
        if not self._stack:
            raise ValueError("its pickle takes an object where there is none")
        return self._stack.pop()

    def _pop_marked(self) -> list[Any]:
        """What stands after the last mark."""
        if not self._marked:
            raise ValueError("its pickle takes objects from a mark that is not there")
        items, self._stack = self._stack, self._marked.pop()
        return items

    def protocol(self) -> None:
        if (version := self._number(1)) not in range(2, 6):
            raise ValueError(f"its pickle is of protocol {version}, expected 2 to 5")

    def frame(self) -> None:
        size, left = self._number(8), len(self._data) - self._position
        if size > left:
            raise ValueError(f"its pickle declares {size} bytes where {left} are left")

    def mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def push_integer(self, width: int, signed: bool) -> None:
        self.push(self._number(width, signed))

    def push_long(self) -> None:
        if (size := self._number(1)) > _MAX_INTEGER_BYTES:
            raise ValueError(f"it holds an integer of {size} bytes, too large for an array")
        self.push(self._number(size, True))

    def push_float(self) -> None:
        self.push(struct.unpack(">d", self._read(8))[0])

    def push_text(self, width: int) -> None:
        self.push(str(self._read(self._number(width)), "utf-8"))

    def push_bytes(self, width: int) -> None:
        self.push(self._read(self._number(width)))

    def put(self, width: int) -> None:
        self._put(self._number(width))

    def memoize(self) -> None:
        self._put(len(self._memo))

    def _put(self, index: int) -> None:
        value = self._pop()
        self._memo[index] = value
        self.push(value)

    def get(self, width: int) -> None:
        index = self._number(width)
        if index not in self._memo:
            raise ValueError(f"its pickle takes object {index}, which it has not kept")
        value = self._memo[index]
        if isinstance(value, Unbuilt):
            if value.built is None:
                raise NotAnArrayError("an array that holds itself")
            value = value.built
        self.push(value)

    def make_tuple(self, count: int) -> None:
        self.push(Items([self._pop() for _ in range(count)][::-1], is_whole=True))

    def make_marked_tuple(self) -> None:
        self.push(Items(self._pop_marked(), is_whole=True))

    def make_list(self) -> None:
        self.push(Items([], is_whole=False))

    def append(self) -> None:
        self._append([self._pop()])

    def appends(self) -> None:
        self._append(self._pop_marked())

    def _append(self, items: list[Any]) -> None:
        target = self._pop()
        if not isinstance(target, Items):
            raise ValueError("its pickle appends to what is no list")
        target.add(items)
        self.push(target)

    def make_dict(self) -> None:
        self.push(Keys())

    def set_item(self) -> None:
        self._set_items([self._pop(), self._pop()][::-1])

    def set_items(self) -> None:
        self._set_items(self._pop_marked())

    def _set_items(self, items: list[Any]) -> None:
        target = self._pop()
        if not isinstance(target, Keys) or len(items) % 2:
            raise ValueError("its pickle sets keys of what is no dict")
        shown = (key[:40] if isinstance(key, str) else key for key in items[::2])
        target += [repr(key) if isinstance(key, str | int) else "…" for key in shown]
        self.push(target)

    def name(self) -> None:
        rest = bytes(self._data[self._position : self._position + 2 * MAX_NAME])
        lines = rest.split(b"\n", 2)
        if len(lines) < 3:
            raise ValueError("its pickle has a name without an end")
        self._position += len(lines[0]) + len(lines[1]) + 2
        self._push_name(lines[0].decode("latin1"), lines[1].decode("latin1"))

    def name_from_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("its pickle has a name that is no text")
        self._push_name(module[:MAX_NAME], name[:MAX_NAME])

    def _push_name(self, module: str, name: str) -> None:
        found = NAMES.get(f"{module} {name}")
        if found is None:
            raise NotAnArrayError(f"it wants {f'{module}.{name}'!r:.200}, which is not an array")
        self.push(found)

    def call(self) -> None:
        arguments, name = self._pop(), self._pop()
        match name, arguments:
            case Name.RECONSTRUCT, [Name.NDARRAY, [0], memoryview()]:
                self.push(Unbuilt())
            case Name.DTYPE, [str() | memoryview() as code, 0, 1]:
                self.push(Unbuilt(dtype_code(code)))
            case Name.ENCODE, [str() as text, "latin1"]:
                self._take(len(text))
                self.push(memoryview(text.encode("latin1")))
            case Name.BYTES, []:
                self.push(memoryview(b""))
            case Name.SCALAR, [np.dtype() as dtype, memoryview() as data]:
                self._take(len(data))
                self.push(make_array(data, dtype, (), "C")[()])
            case (
                Name.FROM_BUFFER,
                [
                    memoryview() as data,
                    np.dtype() as dtype,
                    Items() as shape,
                    str() as order,
                    *more,
                ],
            ):
                self.push(from_buffer(data, dtype, sizes_of(shape), order, more))
            case _:
                raise NotAnArrayError(f"{what_is(name)} called with what NumPy never gives")

    def build(self) -> None:
        state, target = self._pop(), self._pop()
        if not isinstance(target, Unbuilt):
            raise NotAnArrayError(f"the state of {what_is(target)}")
        match target.code, state:
            case str() as code, [3, order, None, None, None, int() as size, int(), int()]:
                target.built = make_dtype(code, order, size)
            case None, [1, Items() as shape, np.dtype() as dtype, int() as fortran, data]:
                if isinstance(data, Items) and dtype.hasobject:
                    target.built = self._object_array(data, sizes_of(shape))
                elif isinstance(data, memoryview):
                    target.built = make_array(data, dtype, sizes_of(shape), "F" if fortran else "C")
        if target.built is None:
            raise NotAnArrayError("an array or a type with a state that NumPy never gives")
        self.push(target.built)

    def _object_array(self, items: Items, shape: tuple[int, ...]) -> np.ndarray:
        """An array of objects, whose list is in the order of its indices."""
        check_shape(shape, 1, len(items))
        self._take(len(items) * _BYTES_OF_OBJECT)
        array = np.empty(len(items), object)
        for index, item in enumerate(items):
            array[index] = self._element(item)
        return array.reshape(shape)

    def _element(self, item: Any) -> Any:
        """What stands in an object array for an item of its list."""
        if not isinstance(item, Items):
            is_usable = isinstance(item, np.ndarray | np.generic | int | float | str)
            return item if is_usable else NoNumbers(what_is(item))
        if not item.is_numbers:
            return NoNumbers("a list of something else than numbers")
        if item.array is None:
            self._take(item.size * _BYTES_OF_NUMBER)
            try:
                array = np.array(item)
            except (ValueError, OverflowError):
                array = np.empty(0, object)
            is_array = array.dtype.kind in "biufc"
            item.array = array if is_array else NoNumbers("lists of different lengths")
        return item.array


_STOP = ord(".")
_P = _Parser
_INSTRUCTIONS: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {
    # Names of the module pickletools.
    0x80: (_P.protocol, ()),
    0x95: (_P.frame, ()),
    ord("("): (_P.mark, ()),
    ord("q"): (_P.put, (1,)),  # BINPUT
    ord("r"): (_P.put, (4,)),  # LONG_BINPUT
    0x94: (_P.memoize, ()),
    ord("h"): (_P.get, (1,)),  # BINGET
    ord("j"): (_P.get, (4,)),  # LONG_BINGET
    ord("N"): (_P.push, (None,)),
    0x88: (_P.push, (True,)),
    0x89: (_P.push, (False,)),
    ord("K"): (_P.push_integer, (1, False)),  # BININT1
    ord("M"): (_P.push_integer, (2, False)),  # BININT2
    ord("J"): (_P.push_integer, (4, True)),  # BININT
    0x8A: (_P.push_long, ()),  # LONG1
    ord("G"): (_P.push_float, ()),  # BINFLOAT
    0x8C: (_P.push_text, (1,)),  # SHORT_BINUNICODE
    ord("X"): (_P.push_text, (4,)),  # BINUNICODE
    0x8D: (_P.push_text, (8,)),  # BINUNICODE8
    ord("U"): (_P.push_bytes, (1,)),  # SHORT_BINSTRING, of Python 2
    ord("T"): (_P.push_bytes, (4,)),  # BINSTRING, of Python 2
    ord("C"): (_P.push_bytes, (1,)),  # SHORT_BINBYTES
    ord("B"): (_P.push_bytes, (4,)),  # BINBYTES
    0x8E: (_P.push_bytes, (8,)),  # BINBYTES8
    0x96: (_P.push_bytes, (8,)),  # BYTEARRAY8
    ord(")"): (_P.make_tuple, (0,)),
    0x85: (_P.make_tuple, (1,)),
    0x86: (_P.make_tuple, (2,)),
    0x87: (_P.make_tuple, (3,)),
    ord("t"): (_P.make_marked_tuple, ()),
    ord("]"): (_P.make_list, ()),
    ord("a"): (_P.append, ()),
    ord("e"): (_P.appends, ()),
    ord("}"): (_P.make_dict, ()),
    ord("s"): (_P.set_item, ()),
    ord("u"): (_P.set_items, ()),
    ord("c"): (_P.name, ()),  # GLOBAL
    0x93: (_P.name_from_stack, ()),  # STACK_GLOBAL
    ord("R"): (_P.call, ()),  # REDUCE
    ord("b"): (_P.build, ()),  # BUILD, of what only this file has made
}
