"""What files declare is checked before memory is taken; damaged ones are refused."""

import gzip
import io
import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from grnn_jax.data.arrays import load_npz
from grnn_jax.data.declared import check_shape, open_expanded
from grnn_jax.data.formats import load_file, load_splits
from grnn_jax.data.matlab import load_mat
from grnn_jax.errors import InputError

SMALL = 0.001  # GiB, about a megabyte.
MUCH = 3 << 20


def npy(header, contents=b""):
    text = header.encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + contents


def header(shape, descr="'<f8'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(header((10**12, 2)), b"\0" * 64), r"declares an array \[1000000000000, 2\] of 16000"),
        (npy(header((10**12, 2))), "bytes, and holds 0"),
        (npy(header((10**12, 0, 2))), r"\[1000000000000, 0, 2\] without an element"),
        (npy(header((0, 10**12))), "without an element"),
        (npy(header((10**12,), "'|V0'")), "without an element"),
        (npy(header((10**400,))), "of far too many bytes"),
        (npy(header((2**62, 2**62, 0))), "without an element"),
        (npy(header((-1, 8)), b"\0" * 8), "expected sizes of at least 0"),
        (npy(header((2,)), b"\0" * 24), "of 16 bytes, and holds 24"),
        (npy(header((2,), "'<f8x'"), b"\0" * 16), "header"),
        (npy(header((2,), "'|O'"), b"\x80\x04N."), "something else than arrays: NoneType"),
        (npy(header((2,), "[('a', '|O')]"), b"\x80\x04N."), "something else than arrays"),
        (npy(header("(" * 5000)), "header cannot be read"),
        (npy("-" * 9000 + "1"), "header cannot be read"),
        (npy("{'descr': '<f8', 'fort\x00b\xf1\xe9"), "header cannot be read"),
        (npy("{}"), "header cannot be read"),
        (b"\x93NUMPY\x01\x00\xff", "header cannot be read"),
        (b"\x93NUMPY\x09\x00\xff", "version"),
    ],
)
def test_a_bad_npy_header_or_shape(tmp_path, content, message):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    tracemalloc.start()
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=rf"^\S*a\.np[yz] .*{message}") as error:
            load_npz(str(tmp_path / name))
        assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_headers(tmp_path_factory, data):
    content = bytearray(npy(header((2, 3)), b"\0" * 48))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(start + 6, len(content))))
        content[start:stop] = data.draw(st.binary(max_size=4) | st.sampled_from([b"9", b"L", b"0"]))
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    path.write_bytes(content)
    try:
        array = load_npz(str(path))[""]
    except InputError as error:
        assert str(error).startswith(str(path))
    else:
        assert array.nbytes <= len(content)


def test_archives(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros(MUCH, np.uint8))  # Nothing expands here.
    assert load_npz(str(path), SMALL)["x"].size == MUCH
    np.savez_compressed(path, x=np.zeros(MUCH // 8, np.uint8))  # They become as many floats.
    with pytest.raises(InputError, match=r"a\.npz expands to .* max_file_gib=0.001"):
        load_npz(str(path), SMALL)
    np.savez_compressed(path, x=np.zeros(MUCH, np.uint8), y=np.ones(3))
    with pytest.raises(
        InputError, match=r"a\.npz expands to .* expected at most max_file_gib=0.001"
    ):
        load_npz(str(path), SMALL)
    assert load_npz(str(path))["x"].size == MUCH
    # The directory declares fewer bytes than there are.
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", 200)
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a\.npz is not a valid"):
        load_npz(str(path), SMALL)
    assert tracemalloc.get_traced_memory()[1] < MUCH
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(8, 1, "encrypted"), (10, 99, "method 99"), (10, zipfile.ZIP_BZIP2, "method 12")],
)
def test_unusual_archives(tmp_path, offset, value, message):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros(9))
    content = bytearray(path.read_bytes())
    for magic, shift in ((b"PK\x03\x04", -2), (b"PK\x01\x02", 0)):
        struct.pack_into("<H", content, content.index(magic) + offset + shift, value)
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^\S*a\.npz is not a valid .*{message}"):
        load_npz(str(path))
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            archive.writestr("x.npy", npy(header((0,))))
    with pytest.raises(InputError, match="two arrays 'x'"):
        load_npz(str(path))


def much_text(line):
    return (line * (MUCH // len(line) + 1)).encode()


def drawings():
    return json.dumps([[[0, 1, 0], [1, 2, 1]]] * 90_000).encode()


@pytest.mark.parametrize(
    ("name", "format", "content", "options"),
    [
        ("a.txt.gz", "text", much_text("an old cat\n"), {}),
        ("a.txt", "lines", much_text("an old cat\n"), {}),
        ("a.csv.gz", "lines", b"x\n" + much_text("old\n"), {"column": "x"}),
        ("a.parquet.gz", "lines", b"PAR1" + bytes(MUCH), {"column": "x"}),
        ("a.csv.gz", "events", b"sequence,time,mark\n" + much_text(f"a,1,{'x' * 400}\n"), {}),
        ("a.csv.gz", "series", b"sequence,x,z\n" + much_text(f"a,1,{'x' * 400}\n"), {}),
        ("a.json", "strokes", drawings(), {}),
    ],
)
def test_gzipped_files_expand_to_a_limit(tmp_path, name, format, content, options):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content, 1))
    arguments = {"data": str(path), "format": format, "codec": "words"}
    with pytest.raises(InputError, match=rf"^\S*{name} expands to .* most max_file_gib=0\.001;"):
        load_splits(**arguments, options=options | {"max_file_gib": SMALL})


def test_the_limit_can_be_raised(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(much_text("a" * 999 + "\n")))
    splits = load_splits(data=str(path), options={"max_file_gib": 0.01})
    with pytest.raises(InputError, match="max_file_gib=0.001"):
        load_file(str(path), "text", splits.codec, max_file_gib=SMALL)
    assert load_file(str(path), "text", splits.codec).num_events > MUCH
    with open_expanded(path, 0.01) as file:
        assert len(file.read()) > MUCH


def test_matlab_variables(tmp_path):
    path = str(tmp_path / "a.mat")
    scipy.io.savemat(path, {"x": np.zeros((1 << 18, 1)), "y": np.zeros(2)}, do_compression=True)
    with pytest.raises(InputError, match=r"a\.mat expands to .* max_file_gib=0\.001"):
        load_mat(path, ("x",), SMALL)
    assert load_mat(path, ("x", "y"))["y"].size == 2


def test_a_table_of_one_cell_repeated(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    names = pyarrow.DictionaryArray.from_arrays(np.zeros(1 << 18, np.int8), ["a"])
    table = {"sequence": names, "x": pyarrow.array(np.zeros(1 << 18))}
    parquet.write_table(pyarrow.table(table), path)
    with pytest.raises(InputError, match=r"a\.parquet expands to .* max_file_gib=0\.001"):
        load_splits(data=str(path), format="series", options={"max_file_gib": SMALL})


@pytest.mark.parametrize("format", ["voices", "strokes"])
@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "[" * 950 + "]" * 950,
        "[[[" + "9" * 400 + "]]]",
        "[[[" + "9" * 9999 + ", 1]]]",
        "[[[1e999, 0, 0]]]",
    ],
)
def test_json(tmp_path, format, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"a\.json") as error:
        load_splits(data=str(path), format=format, valid_fraction=0, test_fraction=0)
    assert "\n" not in str(error.value) and "batch_size" not in str(error.value)


def test_memory_that_runs_out_is_the_fault_of_the_file(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise MemoryError("Unable to allocate 7 TiB")

    path = tmp_path / "a.json"
    path.write_text("[]")
    monkeypatch.setattr("grnn_jax.data.voices.json.load", fails)
    with pytest.raises(InputError, match=r"data: \S*a\.json needs more memory than .* 7 TiB"):
        load_splits(data=str(path), format="voices")


def test_shapes():
    for shape, item_size, num_bytes in (
        ((), 8, 8),
        ((0, 88), 1, 0),
        ((3, 0), 8, 0),
        ((2, 3), 4, 24),
    ):
        check_shape(shape, item_size, num_bytes)
    file = io.BytesIO()
    for array in (np.zeros((0, 88)), np.zeros(()), np.zeros((2, 0, 3), ">i2"), np.zeros(0, "U0")):
        file.seek(0)
        file.truncate()
        np.save(file, array)
        check_shape(array.shape, array.itemsize, array.nbytes)
