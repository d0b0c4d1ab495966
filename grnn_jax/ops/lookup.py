"""Rows of a table, with a gradient that suits the table's size."""

from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Float, Int
from grnn_jax.ops.compute_type import EXACT

ONE_HOT_LIMIT = 2**22
"""Largest one-hot matrix (events · V) for which a lookup's gradient is a matmul."""


FEW_ROWS = 64
"""Most rows of a table of segments for which the gradient of a lookup is a matmul."""


def lookup_segments(
    table: Float[Array, "S P"], segments: Int[Array, "..."]
) -> Float[Array, "... P"]:
    """`table[segments]` of a table with a row for each segment; few events share one.

    Against one-hot vectors of all segments the gradient would be a larger product than the
    recurrence itself: training steps took 338 ms of CPU in place of 155 (LSTM, H 256, B 32, T 128,
    1,440 segments), and 138 without any.
    """
    if table.shape[0] <= FEW_ROWS:
        return lookup(table, segments)
    return jnp.take(table, segments, axis=0, mode="clip")


@jax.custom_jvp
def lookup(table: Float[Array, "V X"], indices: Int[Array, "..."]) -> Float[Array, "... X"]:
    """`table[indices]`; its gradient for a small table is one matmul, else a scatter-add."""
    return jnp.take(table, indices, axis=0, mode="clip")


@lookup.defjvp
def _lookup_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    table, indices = primals
    d_table, _ = tangents
    if indices.size * table.shape[0] <= ONE_HOT_LIMIT:
        # One axis of events: the transpose is then one plain matmul, without transposed copies.
        rows = jnp.clip(indices.reshape(-1), 0, table.shape[0] - 1)
        one_hot = jax.nn.one_hot(rows, table.shape[0], dtype=d_table.dtype)
        # Rows and their sums, of which a TPU would round every addend; so in any compute type.
        d_rows = jnp.matmul(one_hot, d_table, precision=EXACT)
        d_rows = d_rows.reshape(*indices.shape, table.shape[1])
    else:
        d_rows = jnp.take(d_table, indices, axis=0, mode="clip")
    return lookup(table, indices), d_rows
