"""MATLAB files: read as scipy reads them; damaged ones are refused, and never stop the process."""

import struct

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from grnn_jax.data.formats import load_splits
from grnn_jax.data.matlab import load_mat
from grnn_jax.data.pickled_values import NoNumbers
from grnn_jax.errors import InputError

DTYPES = [np.dtype(code) for code in ("f8", "f4", "u1", "i1", "i2", "u2", "i4", "u4", "i8", "?")]
arrays = st_np.arrays(
    st.sampled_from(DTYPES), st_np.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=4)
)


def cells(items):
    found = np.empty(len(items), object)
    for index, item in enumerate(items):
        found[index] = item
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(arrays, min_size=1, max_size=4), arrays, st.booleans())
def test_as_scipy_reads_them(tmp_path_factory, items, plain, compressed):
    path = str(tmp_path_factory.mktemp("mat") / "a.mat")
    variables = {"cells": cells(items), "other": "text", "plain": plain}
    scipy.io.savemat(path, variables, do_compression=compressed)
    found, expected = load_mat(path, ("cells", "plain")), scipy.io.loadmat(path)
    pairs = [(found["plain"], expected["plain"])]
    assert found["cells"].shape == expected["cells"].shape
    pairs += zip(found["cells"].reshape(-1), expected["cells"].reshape(-1), strict=True)
    for got, want in pairs:
        assert got.shape == want.shape and (got.size == 0 or got.dtype == want.dtype)
        np.testing.assert_array_equal(got, want)


def test_big_endian(tmp_path):
    def element(kind, data):
        return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    values = np.arange(6, dtype=">f8").reshape(2, 3)
    matrix = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 2, 3))
    matrix += struct.pack(">HH4s", 1, 1, b"x") + element(9, values.tobytes("F"))
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB".ljust(124) + b"\x01\x00MI" + element(14, matrix))
    np.testing.assert_array_equal(load_mat(str(path), ("x",))["x"], values)
    np.testing.assert_array_equal(scipy.io.loadmat(path)["x"], values)


def test_what_is_no_array_of_numbers(tmp_path, caplog):
    path, good = str(tmp_path / "a.mat"), np.eye(4, 88)
    bad = cells([good, "text", {"a": 1}, cells([good]), good + 1j, good])
    scipy.io.savemat(path, {"traindata": bad, "validdata": good, "testdata": good})
    found = load_mat(path, ("traindata",))["traindata"].reshape(-1)
    assert [item.what for item in found if isinstance(item, NoNumbers)] == [
        "text", "a structure", "a cell in a cell", "complex numbers",
    ]  # fmt: skip
    arguments = {"data": path, "format": "pianoroll"}
    with pytest.raises(InputError, match=r"(?s)4 of 8 rolls .*traindata\[1\]: .* got text"):
        load_splits(**arguments)
    splits = load_splits(**arguments, options={"skip_bad": True})
    assert splits.train.num_sequences == 2 and splits.valid.num_sequences == 1
    assert "skipped 4 of 8 rolls" in caplog.text


def test_a_name_that_is_missing(tmp_path):
    path = str(tmp_path / "a.mat")
    scipy.io.savemat(path, {"traindata": np.eye(2)})
    with pytest.raises(InputError, match="expected the variables traindata, testdata, testdata is"):
        load_mat(path, ("traindata", "testdata"))
    with pytest.raises(InputError, match="cannot read"):
        load_mat(str(tmp_path / "none.mat"), ("x",))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text" * 99, b"\x89HDF\r\n\x1a\n" * 99])
def test_other_files(tmp_path, content):
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mat is not a readable MATLAB file: it"):
        load_mat(str(path), ("x",))


@pytest.fixture(scope="module", params=[False, True])
def whole(tmp_path_factory, request):
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    scipy.io.savemat(path, {"x": cells([np.eye(3), np.ones((2, 2))])}, do_compression=request.param)
    return path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files(tmp_path_factory, whole, data):
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(120, len(content)))
        stop = data.draw(st.integers(start, min(start + 8, len(content))))
        content[start:stop] = data.draw(st.binary(max_size=8) | st.just(b"\xff" * 4))
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    path.write_bytes(content)
    try:
        load_mat(str(path), ("x",), 0.001)
    except InputError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
