r"""Checksums of arrays: the same under every sharding, another one where a single bit differs.

With the bits of an array as words $b_i$ of 32 bits and $i$ the index in row-major order of the
whole array,

$$ s = \sum_i b_i (2i + 1) \mod 2^{32} , \qquad s' = \sum_i f(b_i w_i) \mod 2^{32} , $$

where $w_i$ is odd and without a pattern and $f$ is a bijection that mixes bits. Integer sums do not
depend on their order, so that each device sums its own part. Multiplication by an odd number is
a bijection too, so that any change within one word changes both sums; the weights tell places
apart. Larger damage goes unnoticed with a chance of about $2^{-64}$.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from grnn_jax.array_types import AnyArray, Array

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}
_BLOCK = 2**16
"""Words that a core sums at a time, so that what lies between the two stays in its cache."""


def _mix(words: AnyArray) -> AnyArray:
    """A bijection of uint32, after the finaliser of MurmurHash3."""
    words = words * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> np.uint32(15))) * np.uint32(0xC2B2AE35)
    return words ^ (words >> np.uint32(13))


def _weighted_sums(
    bits: AnyArray, starts: Sequence[Any], strides: Sequence[Any], xp: Any
) -> AnyArray:
    """Both sums over a block of words that begins at `starts` of its array, uint32 [2]."""
    index = xp.zeros((1,) * bits.ndim, xp.uint32)
    for axis, size in enumerate(bits.shape):
        places = (xp.arange(size, dtype=xp.uint32) + starts[axis]) * strides[axis]
        index = index + xp.expand_dims(places, [a for a in range(bits.ndim) if a != axis])
    ones = np.uint32(1)
    linear = bits * (index * np.uint32(2) + ones)
    # f: in a sum that is linear in the bits, the signs of two words that change would cancel.
    mixed = _mix(bits * (_mix(index) | ones))
    return xp.stack([each.sum(dtype=xp.uint32) for each in (linear, mixed)])


def _words(leaf: Array) -> Array:
    """An array of numbers of 8, 16 or 32 bits with at least one axis, and the same bits."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], -1)
    if leaf.dtype == bool:
        leaf = leaf.astype(jnp.uint8)
    if leaf.dtype.itemsize == 8:  # Two words of 32 bits, along a new axis.
        leaf = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    return leaf.reshape(1) if leaf.ndim == 0 else leaf


@jax.jit
def _sums_on_device(block: Array, starts: Sequence[Any], strides: Sequence[Any]) -> AnyArray:
    bits = jax.lax.bitcast_convert_type(block, _UNSIGNED[block.dtype.itemsize])
    return _weighted_sums(bits.astype(jnp.uint32), starts, strides, jnp)


def _sums_on_host(block: np.ndarray, starts: Sequence[Any], strides: Sequence[Any]) -> np.ndarray:
    bits = block.view(_UNSIGNED[block.dtype.itemsize])
    rows = max(1, _BLOCK * len(bits) // max(bits.size, 1))
    total = np.zeros(2, np.uint32)
    for first in range(0, len(bits), rows):
        part = bits[first : first + rows].astype(np.uint32)
        begins = [starts[0] + np.uint32(first), *starts[1:]]
        total = total + _weighted_sums(part, begins, strides, np)
    return total


def _sums(leaf: Array) -> list[AnyArray]:
    """Both sums over each part that this process holds of an array; each part once."""
    words = _words(leaf)
    strides = [np.uint32(math.prod(words.shape[a + 1 :]) % 2**32) for a in range(words.ndim)]
    sums = []
    for shard in words.addressable_shards:
        if shard.replica_id == 0:
            starts = [np.uint32((part.start or 0) % 2**32) for part in shard.index]
            on_host = shard.device.platform == "cpu"  # Nothing to copy, nothing to compile.
            block = np.asarray(shard.data) if on_host else shard.data
            sums.append((_sums_on_host if on_host else _sums_on_device)(block, starts, strides))
    return sums


def checksums(tree: PyTree) -> dict[str, list[int]]:
    """The checksums of all arrays of a tree, over the parts of them that this process holds.

    Args:
        tree: arrays and typed keys, on whatever devices.

    Returns:
        For the path of each leaf ("cell/kernel") two integers below 2^32. Of several processes
        `add_up` makes one.

    Example:
        >>> checksums({"cell": {"kernel": jnp.float32([[0, 2]])}})
        {'cell/kernel': [3221225472, 2535340244]}
    """
    parts = {
        jax.tree_util.keystr(path, simple=True, separator="/"): _sums(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
    # Fetched together: a device that sums one array need not wait for the host to read another.
    return {
        name: [sum(int(part[number]) for part in sums) % 2**32 for number in range(2)]
        for name, sums in jax.device_get(parts).items()
    }


def add_up(parts: Sequence[dict[str, list[int]]]) -> dict[str, list[int]]:
    """The checksums of whole arrays, from those of the parts that each process holds.

    Args:
        parts: what `checksums` returned in each process.

    Returns:
        The same for the whole.
    """
    return {
        name: [sum(each) % 2**32 for each in zip(*(part[name] for part in parts), strict=True)]
        for name in parts[0]
    }
