"""Checksums: by their definition, under every sharding, on the host and on a device."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grnn_jax import checksum
from grnn_jax.checksum import add_up, checksums

ARRAYS = {
    "float32": np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 6),
    "bfloat16": jnp.bfloat16(np.linspace(-3, 3, 24).reshape(4, 3, 2)),
    "complex64": np.complex64(np.arange(8) * (1 - 2j)),
    "int8": np.arange(-4, 4, dtype=np.int8),
    "bool": np.array([[True], [False], [False], [True]]),
    "scalar": np.float32(0.1),
    "empty": np.zeros((4, 0), np.float32),
}


def by_definition(array):
    """The first sum in Python's integers."""
    array = np.asarray(array)
    if array.dtype == np.complex64:
        array = array.view(np.float32)
    words = np.ravel(array).view(f"u{array.dtype.itemsize}")
    return sum(int(word) * (2 * i + 1) for i, word in enumerate(words)) % 2**32


@pytest.mark.parametrize("name", ARRAYS)
def test_the_first_sum_is_the_one_defined_in_blocks_on_the_host_and_on_a_device(name, monkeypatch):
    array = jnp.asarray(ARRAYS[name])
    found = checksums(array)[""]
    assert found[0] == by_definition(array)
    monkeypatch.setattr(checksum, "_BLOCK", 7)
    assert checksums(array)[""] == found
    monkeypatch.setattr(checksum, "_sums_on_host", checksum._sums_on_device)
    assert checksums(array)[""] == found


@pytest.mark.parametrize(
    "cuts", [((0, 1, 4), (0, 6)), ((0, 4), (0, 2, 3, 6)), ((0, 3, 4), (0, 5, 6))]
)
def test_the_sharding_does_not_matter(cuts, monkeypatch):
    array = ARRAYS["float32"]
    edges = [list(itertools.pairwise(each)) for each in cuts]
    shards = [
        SimpleNamespace(
            data=array[a:b, c:d],
            index=(slice(a or None, b), slice(c, d)),
            replica_id=replica,
            device=jax.devices()[0],
        )
        for (a, b), (c, d) in itertools.product(*edges)
        for replica in (0, 1)
    ]
    expected = checksums(jnp.asarray(array))
    sharded = SimpleNamespace(shape=array.shape, ndim=2, addressable_shards=shards)
    monkeypatch.setattr(checksum, "_words", lambda _: sharded)
    assert checksums(jnp.asarray(array)) == expected


def test_parts_add_up_to_the_whole():
    assert add_up([{"a": [1, 2**32 - 1]}, {"a": [2, 3]}]) == {"a": [3, 2]}


def test_paths_name_the_leaves_and_keys_are_summed_by_their_data():
    key = jax.random.key(5)
    found = checksums({"cell": {"kernel": jnp.ones(2)}, "key": key, "none": None})
    assert list(found) == ["cell/kernel", "key"]
    assert found["key"] == checksums(jax.random.key_data(key))[""]


def test_every_flipped_bit_and_every_exchange_is_noticed():
    array = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    expected = checksums(jnp.asarray(array))
    for bit in range(array.nbytes * 8):
        changed = array.copy()
        changed.view(np.uint8).reshape(-1)[bit // 8] ^= 1 << bit % 8
        assert checksums(jnp.asarray(changed)) != expected, bit
    for i in range(12):
        for j in range(i):
            changed = array.ravel().copy()
            changed[[i, j]] = changed[[j, i]]
            assert checksums(jnp.asarray(changed.reshape(3, 4))) != expected
    # The signs of two words: each changes the first sum by 2^31, both by nothing.
    changed = array.copy()
    changed[0, :2] *= -1
    assert checksums(jnp.asarray(changed)) != expected
