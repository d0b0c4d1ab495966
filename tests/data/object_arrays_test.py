"""Object arrays without unpickling: as NumPy reads them, or refused, and never executed."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from grnn_jax.data.arrays import load_npz
from grnn_jax.data.object_arrays import parse_object_array
from grnn_jax.data.pickled_values import NoNumbers, NotAnArrayError
from grnn_jax.errors import InputError

NUMBERS = st_np.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc") | st.sampled_from(
    ["<U3", ">U2", "S4"]
).map(np.dtype)


@st.composite
def numeric_arrays(draw):
    """Arrays of any type and byte order, 0 to 4 axes, which may be empty or not contiguous."""
    shape = draw(st_np.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    dtype = draw(NUMBERS)
    count = int(np.prod(shape)) * dtype.itemsize
    seed = draw(st.integers(0, 2**32 - 1))
    bits = np.random.default_rng(seed).integers(0, 256, count, np.uint8).tobytes()
    if dtype.kind in "bSU":
        array = np.zeros(shape, dtype)
        array.reshape(-1)[::2] = True if dtype.kind == "b" else "x"
    else:
        array = np.frombuffer(bits, dtype).reshape(shape) if count else np.empty(shape, dtype)
    order = draw(st.permutations(range(array.ndim)))
    array = array.transpose(order)
    return array[::-1] if array.ndim and draw(st.booleans()) else array


@st.composite
def object_arrays(draw):
    """Object arrays [N] or [N, M] of such arrays, some of which are one object, and of scalars."""
    shape = draw(st_np.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
    numbers = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.booleans()
    scalars = numbers.filter(lambda x: not isinstance(x, int)).map(np.asarray).map(lambda x: x[()])
    items = draw(st.lists(numeric_arrays() | numbers | scalars, min_size=1, max_size=5))
    array = np.empty(shape, object)
    flat = array.reshape(-1)
    for index in range(flat.size):
        flat[index] = draw(st.sampled_from(items))
    return np.asfortranarray(array) if draw(st.booleans()) else array


def assert_same(found, expected):
    assert type(found) is type(expected), (found, expected)
    if not isinstance(expected, np.ndarray):
        assert found == expected or (found != found and expected != expected)
        return
    # NumPy turns what it unpickles into the order of bytes of the machine.
    found, expected = (array.astype(array.dtype.newbyteorder("=")) for array in (found, expected))
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if expected.dtype == object:
        for pair in zip(found.reshape(-1), expected.reshape(-1), strict=True):
            assert_same(*pair)
    else:
        assert found.tobytes() == expected.tobytes()


@settings(max_examples=40, deadline=None)
@given(object_arrays(), st.integers(2, 5))
def test_as_numpy_reads_them(array, protocol):
    found = parse_object_array(pickle.dumps(array, protocol=protocol), "a.npy", 0.01)
    assert_same(found, array)
    shared = [[a is b for b in array.reshape(-1)] for a in array.reshape(-1)]
    flat = found.reshape(-1)
    for i, j in np.argwhere(np.array(shared, bool).reshape(flat.size, flat.size)):
        if isinstance(flat[i], np.ndarray) and flat[i].size:
            assert np.shares_memory(flat[i], flat[j])


@settings(max_examples=15, deadline=None)
@given(object_arrays())
def test_as_numpy_loads_files(tmp_path_factory, array):
    folder = tmp_path_factory.mktemp("arrays")
    np.save(folder / "a.npy", array)
    np.savez_compressed(folder / "a.npz", x=array, y=np.arange(3))
    expected = np.load(folder / "a.npy", allow_pickle=True)
    assert_same(load_npz(str(folder / "a.npy"))[""], expected)
    assert_same(load_npz(str(folder / "a.npz"))["x"], expected)


nested = st.recursive(
    st.integers(-5, 5) | st.floats(-1, 1) | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(nested, min_size=1, max_size=4), st.integers(2, 5))
def test_lists_become_arrays(items, protocol):
    array = np.empty(len(items), object)
    for index, item in enumerate(items):
        array[index] = item
    found = parse_object_array(pickle.dumps(array, protocol=protocol), "a.npy", 0.01)
    for item, got in zip(items, found, strict=True):
        if not isinstance(item, list | tuple):
            assert_same(got, item)
            continue
        try:
            expected = np.array(item)
        except ValueError:
            assert isinstance(got, NoNumbers) and got.what == "lists of different lengths"
        else:
            assert_same(got, expected)


@pytest.mark.parametrize(
    ("item", "what"),
    [(None, "NoneType"), ([1, "a"], "a list of something else"), ({"a": 1}, "with the keys 'a'"),
     ([[1, 2], [3]], "lists of different lengths"), ([np.ones(2), np.ones(3)], "different lengths")]
)  # fmt: skip
def test_what_is_no_array_of_numbers_is_named(item, what):
    array = np.empty(2, object)
    array[0], array[1] = item, np.ones(2)
    found = parse_object_array(pickle.dumps(array), "a.npy", 0.01)
    assert what in found[0].what and found[1].tolist() == [1, 1]


def test_arrays_of_python_2():
    """As NumPy wrote them under Python 2: text, bytes and names are those of its strings."""
    data = np.arange(3, dtype="<i2")
    inner = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x03t"
        b"cnumpy\ndtype\n(U\x02i2K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x06" + data.tobytes() + b"tb"
    )
    outer = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x01t"
        b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
        b"\x89](" + inner + b"etb."
    )
    expected = pickle.loads(outer, encoding="latin1")
    assert_same(parse_object_array(outer, "a.npy", 0.01), expected)


PICKLES = [
    pickle.dumps(np.array([np.arange(3), [[1.5, 2]], {"a": 1}, "b"], object), protocol=protocol)
    for protocol in (2, 4, 5)
]


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(PICKLES), st.data())
def test_damaged_ones_are_refused_or_read(data, draw):
    mutated = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        start = draw.draw(st.integers(0, len(mutated)))
        stop = draw.draw(st.integers(start, min(start + 8, len(mutated))))
        bits = st.binary(max_size=8) | st.sampled_from(
            [b"\xff" * 4, b"b", b"R", b"h\0", b"q\0", b"0"]
        )
        mutated[start:stop] = draw.draw(bits)
    try:
        found = parse_object_array(bytes(mutated), "a.npy", 0.01)
    except ValueError as error:
        assert len(str(error)) < 500
    else:
        repr(found)


RECONSTRUCT = np.empty(0).__reduce__()[0]


class Calls:
    """A pickle that calls something."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def dtype_state(*state):
    return Calls(np.dtype, ("f8", False, True), state)


def array_state(*state):
    return Calls(RECONSTRUCT, (np.ndarray, (0,), b"b"), state)


# The flags of this type say that it holds no objects.
NO_OBJECTS = Calls(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))


@pytest.mark.parametrize(
    "item",
    [
        dtype_state(3, "<", None, None, None, -(2**31), -1, 0),  # A size that is negative,
        dtype_state(3, "<", None, None, None, 4096, -1, 0),  # or not that of the type,
        dtype_state(3, "|", None, ("a",), {"a": (np.dtype(object), 0)}, 8, 1, 63),  # fields.
        array_state(1, (1,), NO_OBJECTS, False, b"\0" * 8),  # Bytes as pointers.
        Calls(np.dtype, ("f8", False, True, {"a": 1})),
        Calls(np.dtype, ("V8", False, True)),
        Calls(np.dtype, ("M8[s]", False, True)),
        Calls(np.ndarray, ((4,),)),
        Calls(RECONSTRUCT, (int, (0,), b"b")),
        array_state(1, (1 << 40,), np.dtype("f8"), False, b"\0" * 8),
        array_state(1, (1,), np.dtype(object), False, b"\0" * 8),
        array_state(1, (-1, -1), np.dtype("f8"), False, b"\0" * 8),
        array_state(1, (0, 10**12), np.dtype("f8"), False, b""),
        array_state(1, (3,), np.dtype(object), False, [1]),
        array_state(1, (1,), "f8", False, b"\0" * 8),
        Calls(os.system, ("true",)),
        Calls(getattr, ("a", "upper")),
        Calls(eval, ("1",)),
        memoryview,
        np.float64,
        np.datetime64(1, "s"),
        np.zeros(2, "M8[s]"),
        np.zeros(2, [("a", "f8"), ("b", object)]),
        np.ma.masked_array([1, 2], [True, False]),
        1 << 80,
        frozenset([1]),
    ],
)
def test_what_numpy_never_writes_is_refused(tmp_path, item):
    array = np.empty(2, object)
    array[0], array[1] = item, np.ones(2)
    np.savez(tmp_path / "a.npz", x=array)
    with pytest.raises(InputError, match=r"^\S*a\.npz (holds a pickle of|is not a valid)") as error:
        load_npz(str(tmp_path / "a.npz"))
    assert "\n" not in str(error.value)


def test_little_that_stands_for_much_is_not_built():
    ten = [0.5] * 10
    for _ in range(8):
        ten = [ten] * 10
    array = np.empty(1, object)
    array[0] = ten
    with pytest.raises(InputError, match=r"^a\.npy expands to 14.9 GiB or more, .*max_file_gib=4;"):
        parse_object_array(pickle.dumps(array), "a.npy", 4.0)
    for _ in range(40):
        ten = [ten]
    array[0] = ten
    with pytest.raises(NotAnArrayError, match="lists within lists"):
        parse_object_array(pickle.dumps(array), "a.npy", 4.0)
    holds_itself = []
    holds_itself.append(holds_itself)
    array[0] = holds_itself
    with pytest.raises(NotAnArrayError, match="holds itself"):
        parse_object_array(pickle.dumps(array), "a.npy", 4.0)
    array[0] = array
    with pytest.raises(NotAnArrayError, match="holds itself"):
        parse_object_array(pickle.dumps(array), "a.npy", 4.0)
