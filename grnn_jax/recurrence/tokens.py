"""Inputs that are rows of a table: project the table once, then gather."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Float, Int, Params
from grnn_jax.cells.base import Cell

ONE_HOT_LIMIT = 2**22
"""Largest one-hot matrix (events · V) for which a lookup's gradient is a matmul."""


class Tokens(NamedTuple):
    """Inputs [B, T, X] given as `table[indices]`.

    Attributes:
        indices: rows of the table, [..., B, T].
        table: encodings of all tokens, [V, X].
    """

    indices: Int[Array, "..."]
    table: Float[Array, "V X"]


@jax.custom_jvp
def lookup(table: Float[Array, "V X"], indices: Int[Array, "..."]) -> Float[Array, "... X"]:
    """`table[indices]`; its gradient for a small table is one matmul, else a scatter-add."""
    return jnp.take(table, indices, axis=0, mode="clip")


@lookup.defjvp
def _lookup_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    table, indices = primals
    d_table, _ = tangents
    if indices.size * table.shape[0] <= ONE_HOT_LIMIT:
        d_rows = jax.nn.one_hot(indices, table.shape[0], dtype=d_table.dtype) @ d_table
    else:
        d_rows = jnp.take(d_table, indices, axis=0, mode="clip")
    return lookup(table, indices), d_rows


def project_inputs(cell: Cell, params: Params, inputs: Array | Tokens) -> Array:
    """The cell's projected inputs, [..., P], for inputs [..., X] or tokens.

    `Cell.project` acts row by row, so for tokens the table's V rows are projected and gathered
    where that is cheaper than projecting every event.
    """
    if not isinstance(inputs, Tokens):
        return cell.project(params, inputs)
    if inputs.table.shape[0] <= inputs.indices.size:
        return lookup(cell.project(params, inputs.table), inputs.indices)
    return cell.project(params, lookup(inputs.table, inputs.indices))
