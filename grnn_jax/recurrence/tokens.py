"""Inputs that are rows of a table: project the table once, then gather."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from grnn_jax.array_types import Array, Float, Int, Params, PyTree
from grnn_jax.cells.base import PROJECTION, Cell
from grnn_jax.ops.lookup import ONE_HOT_LIMIT, lookup
from grnn_jax.ops.products import split_gates


class Tokens(NamedTuple):
    """Inputs [B, T, X] given as `table[indices]`.

    Attributes:
        indices: rows of the table, [..., B, T].
        table: encodings of all tokens, [V, X].
    """

    indices: Int[Array, "..."]
    table: Float[Array, "V X"]


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
    """A gated cell's projected inputs gate by gate, and how they are read.

    Attributes:
        read: (source, a part of `sequence`) -> one array [..., H] for each gate; None where
            `sequence` is these arrays.
        source: what every step reads: tables [V, H] of the gates, or U and b gate by gate.
        sequence: what is read step by step: rows [T, B] of the tables, inputs [T, B, X], or the
            gates [T, B, H].
        is_gather: whether `read` gathers rows, which costs nothing in the loop over time.
    """

    read: Callable[[PyTree, PyTree], tuple[Array, ...]] | None
    source: PyTree
    sequence: PyTree
    is_gather: bool = False


def project_gates(cell: Cell, params: Params, inputs: Array | Tokens) -> Projected:
    """The projected inputs of a gated cell, for inputs [T, B, X] or tokens.

    Rows of a small table stay in the table: gathered step by step they never fill [T, B, G·H].
    """
    gated = cell.gated
    assert gated is not None
    if isinstance(inputs, Tokens) and inputs.table.shape[0] <= inputs.indices.size:
        tables = split_gates(cell.project(params, inputs.table), gated.num_inputs)
        if inputs.indices.size * inputs.table.shape[0] <= ONE_HOT_LIMIT:
            return Projected(gather_gates, tables, inputs.indices, is_gather=True)
        # The gradient of a large table is one scatter for the window, not one for each chunk.
        return Projected(None, None, gather_gates(tables, inputs.indices))
    rows = lookup_inputs(inputs)
    if gated.project_gates is not None:
        source = tuple(split_gates(params[name], gated.num_inputs) for name in PROJECTION)
        return Projected(gated.project_gates, source, rows)
    return split_projected(cell, cell.project(params, rows))


def split_projected(cell: Cell, projected: Float[Array, "T B P"]) -> Projected:
    """The projected inputs of a gated cell, cut apart."""
    assert cell.gated is not None
    gates = split_gates(projected, cell.gated.num_inputs)
    return Projected(None, None, jax.lax.optimization_barrier(gates))


def gather_gates(
    tables: tuple[Float[Array, "V H"], ...], indices: Int[Array, "..."]
) -> tuple[Float[Array, "... H"], ...]:
    """Rows of one table for each gate."""
    return tuple(lookup(table, indices) for table in tables)
