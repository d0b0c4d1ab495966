"""Inputs that are rows of a table: project the table once, then gather."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Float, Int, Params, PyTree
from grnn_jax.cells.base import Cell
from grnn_jax.cells.products import split_gates

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
        # One axis of events: the transpose is then one plain matmul, without transposed copies.
        one_hot = jax.nn.one_hot(indices.reshape(-1), table.shape[0], dtype=d_table.dtype)
        d_rows = (one_hot @ d_table).reshape(*indices.shape, table.shape[1])
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


def lookup_inputs(inputs: Array | Tokens) -> Float[Array, "... X"]:
    """The inputs as an array: of tokens the rows themselves."""
    return lookup(inputs.table, inputs.indices) if isinstance(inputs, Tokens) else inputs


class Projected(NamedTuple):
    """A gated cell's projected inputs gate by gate, as whole arrays or as rows of tables.

    Attributes:
        tables: one [V, H] for each gate, or None.
        sequence: one array [T, B, H] for each gate, or with tables their rows [T, B].
    """

    tables: tuple[Float[Array, "V H"], ...] | None
    sequence: tuple[Float[Array, "T B H"], ...] | Int[Array, "T B"]


def project_gates(cell: Cell, params: Params, inputs: Array | Tokens) -> Projected:
    """The projected inputs of a gated cell, for inputs [T, B, X] or tokens.

    Rows of a table stay in the table: gathered step by step they never fill [T, B, G·H].
    """
    gated = cell.gated
    assert gated is not None
    if isinstance(inputs, Tokens) and inputs.table.shape[0] <= inputs.indices.size:
        table = cell.project(params, inputs.table)
        return Projected(split_gates(table, gated.num_inputs), inputs.indices)
    rows = lookup_inputs(inputs)
    if gated.project_gates is not None:
        return Projected(None, gated.project_gates(params, rows))
    return split_projected(cell, cell.project(params, rows))


def split_projected(cell: Cell, projected: Float[Array, "T B P"]) -> Projected:
    """The projected inputs of a gated cell, cut apart."""
    assert cell.gated is not None
    gates = split_gates(projected, cell.gated.num_inputs)
    return Projected(None, jax.lax.optimization_barrier(gates))


def gates_of(
    tables: tuple[Float[Array, "V H"], ...] | None, sequence: PyTree
) -> tuple[Float[Array, "... H"], ...]:
    """The gates of one step, or of all: gathered from the tables where there are some."""
    if tables is None:
        return sequence
    return tuple(lookup(table, sequence) for table in tables)
