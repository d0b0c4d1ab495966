"""Arrays from files: object arrays without executing anything, broken files."""

import os
import pickle

import numpy as np
import pytest

from grnn_jax.data.arrays import load_npz
from grnn_jax.errors import InputError


def ragged(rng, lengths):
    array = np.empty(len(lengths), object)
    for i, n in enumerate(lengths):
        array[i] = rng.normal(size=(n, 3)).astype(np.float32)
    return array


def test_plain_and_object_arrays_are_read(tmp_path):
    rng = np.random.default_rng(0)
    plain, objects = rng.integers(0, 9, (4, 5)), ragged(rng, [2, 5, 0])
    np.savez_compressed(tmp_path / "a.npz", plain=plain, objects=objects)
    found = load_npz(str(tmp_path / "a.npz"))
    assert set(found) == {"plain", "objects"}
    np.testing.assert_array_equal(found["plain"], plain)
    for a, b in zip(found["objects"], objects, strict=True):
        np.testing.assert_array_equal(a, b)
    np.save(tmp_path / "b.npy", np.asfortranarray(plain))
    np.testing.assert_array_equal(load_npz(str(tmp_path / "b.npy"))[""], plain)


class Attack:
    """A pickle that would make a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_is_never_executed(tmp_path):
    trap = tmp_path / "trap"
    array = np.empty(1, object)
    array[0] = Attack(str(trap))
    np.savez(tmp_path / "a.npz", train=array)
    with pytest.raises(InputError, match=r"a\.npz holds a pickle of something else .*mkdir"):
        load_npz(str(tmp_path / "a.npz"))
    assert not trap.exists()
    pickle.loads(pickle.dumps(array))  # The trap works where pickles are executed.
    assert trap.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"text"])
def test_broken_files(tmp_path, content):
    for name in ("a.npz", "a.npy"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.np[zy] is not a valid .npz or .npy file"):
            load_npz(str(path))
    with pytest.raises(InputError, match="cannot read"):
        load_npz(str(tmp_path / "none.npz"))


def test_truncated_archive(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(1000))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is not a valid"):
        load_npz(str(tmp_path / "a.npz"))
