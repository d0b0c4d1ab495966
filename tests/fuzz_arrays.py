"""Coverage-guided fuzzing of the readers of .npy, object arrays and .mat, by atheris.

What it looks for: anything but an array or a ValueError, an array that cannot be read to its last
byte, an input that takes more than ten seconds or 2 GiB. Arguments are those of libFuzzer:

    pip install -e '.[fuzzing]'
    python tests/fuzz_arrays.py -max_total_time=3600 runs/fuzz/
"""

import contextlib
import io
import pathlib
import pickle
import struct
import sys
import zlib

import atheris
import numpy as np
import scipy.io

READERS = [
    f"grnn_jax.data.{name}" for name in ("object_arrays", "pickled_values", "arrays", "matlab")
]
with atheris.instrument_imports(include=READERS):
    from grnn_jax.data.arrays import parse_npy
    from grnn_jax.data.matlab import parse_mat
    from grnn_jax.data.object_arrays import parse_object_array
    from grnn_jax.data.pickled_values import NoNumbers

MAX_GIB = 0.01


def seeds() -> list[bytes]:
    """Pickles and .npy files of object arrays of many kinds, and .mat files."""
    a = np.empty((2, 3), object)
    a[0, 0] = np.zeros((2, 3), ">f4", order="F")
    a[0, 1], a[0, 2] = a[0, 0], np.arange(6).reshape(1, 2, 3).transpose(2, 0, 1)
    a[1, 0], a[1, 1], a[1, 2] = np.float32(3), np.array(["ab"]), np.empty((0, 3), bool)
    ragged = np.empty(2, object)
    ragged[:] = [np.ones((2, 2)), np.ones((3, 2))]
    others = [
        a,
        ragged,
        np.array([[1, 2], [3.5]], object),
        np.array({"a": np.ones(1)}, object),
        np.array([None, True, -(1 << 40), 0.5, "text", (1, 2)], object),
        np.array(7, object),
    ]
    found = [pickle.dumps(other, protocol=p) for other in others for p in (2, 3, 4, 5)]
    for other in (*others, np.ones((2, 3)), np.asfortranarray(np.ones((2, 3), "u1"))):
        file = io.BytesIO()
        np.save(file, other)
        found.append(file.getvalue())
    for compressed in (False, True):
        file = io.BytesIO()
        variables = {"x": ragged, "y": np.eye(3, dtype="u1"), "z": "text"}
        scipy.io.savemat(file, variables, do_compression=compressed)
        found.append(file.getvalue())
    return found


def touch(array: np.ndarray) -> None:
    """Reads all of an array and of those in it."""
    if array.dtype != object:
        array.tobytes()
        return
    for item in array.reshape(-1):
        if isinstance(item, np.ndarray):
            touch(item)
        else:
            assert isinstance(item, np.generic | int | float | str | NoNumbers), item


def test_one_input(data: bytes) -> None:
    """Reads some bytes as a pickle, or as another file where they begin like one."""
    with contextlib.suppress(ValueError, zlib.error, struct.error):
        if data.startswith(b"MATLAB"):
            for array in parse_mat(data, "fuzz", ("x", "y"), MAX_GIB).values():
                touch(array)
        elif data.startswith(b"\x93NUMPY"):
            touch(parse_npy(data, "fuzz", MAX_GIB))
        else:
            touch(parse_object_array(data, "fuzz", MAX_GIB))


if __name__ == "__main__":
    corpus = pathlib.Path(next(arg for arg in sys.argv[1:] if not arg.startswith("-")))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed{number}").write_bytes(seed)
    atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=2048", "-max_len=4096"], test_one_input)
    atheris.Fuzz()
