"""Rematerialisation in time: memory that grows with the square root of T."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from grnn_jax.array_types import PyTree


def scan_chunks(
    function: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    carry: PyTree,
    window: PyTree,
    chunk_size: int | None,
) -> tuple[PyTree, PyTree]:
    """Applies `function` to consecutive pieces of a window, keeping only the carries between.

    The backward pass computes each piece anew from the carry in front of it (`jax.checkpoint`),
    so T / chunk_size carries and the inside of one chunk are alive at a time; chunk_size near
    √T makes the sum smallest.

    Args:
        function: (carry, window [B, chunk, ...]) -> (carry, outputs [B, chunk, ...]).
        carry: what passes from one piece to the next.
        window: arrays [B, T, ...].
        chunk_size: steps in a piece; None or at least T runs the window whole. T need not be
            a multiple of it.

    Returns:
        The last carry, and the outputs [B, T, ...].

    Reference: T. Chen et al., "Training deep nets with sublinear memory cost", 2016.
    """
    length = jax.tree.leaves(window)[0].shape[1]
    if chunk_size is None or chunk_size >= length:
        return function(carry, window)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    count = length // chunk_size
    whole = count * chunk_size

    def cut(array: jax.Array) -> jax.Array:
        pieces = array[:, :whole].reshape(array.shape[0], count, chunk_size, *array.shape[2:])
        return jnp.moveaxis(pieces, 1, 0)

    def join(array: jax.Array) -> jax.Array:
        pieces = jnp.moveaxis(array, 0, 1)
        return pieces.reshape(pieces.shape[0], whole, *pieces.shape[3:])

    # Inside a scan nothing is shared between the passes, so the barriers would only cost time.
    inside = jax.checkpoint(function, prevent_cse=False)
    carry, outputs = jax.lax.scan(inside, carry, jax.tree.map(cut, window))
    outputs = jax.tree.map(join, outputs)
    if whole < length:
        carry, rest = jax.checkpoint(function)(
            carry, jax.tree.map(lambda array: array[:, whole:], window)
        )
        outputs = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), outputs, rest)
    return carry, outputs


def split_time(window: PyTree, at: int) -> tuple[PyTree, PyTree]:
    """Time-major arrays [T, ...] as those of the first `at` steps and of the rest."""
    return (
        jax.tree.map(lambda array: array[:at], window),
        jax.tree.map(lambda array: array[at:], window),
    )


def cut_time(window: PyTree, size: int) -> PyTree:
    """Time-major arrays [T, ...] as [T / size, size, ...], for a scan over chunks of steps."""
    return jax.tree.map(lambda array: array.reshape(-1, size, *array.shape[1:]), window)


def join_time(window: PyTree) -> PyTree:
    """Arrays [chunks, size, ...] as [T, ...]: the inverse of `cut_time`."""
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), window)


def concatenate_time(first: PyTree, second: PyTree) -> PyTree:
    """Two parts of a time-major window, one after the other."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), first, second)
