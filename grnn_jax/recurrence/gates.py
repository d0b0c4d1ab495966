"""The projected inputs of a gated cell, gate by gate, as the fused engine reads them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Float, Params, PyTree
from grnn_jax.cells.base import PROJECTION, Cell
from grnn_jax.ops.lookup import ONE_HOT_LIMIT, lookup, lookup_segments
from grnn_jax.ops.products import split_gates
from grnn_jax.recurrence.inputs import Inputs

Gates = tuple[Float[Array, "... H"], ...]
"""One array for each gate: XLA's CPU backend vectorises an elementwise step that reads whole
arrays, and does not when it reads slices of one (LSTM H 128 forward: 14 in place of 29 ms)."""

ReadGates = Callable[[PyTree, PyTree], Gates]
"""(what every step reads, what is read step by step) -> the projected inputs of these steps."""


class ProjectedGates(NamedTuple):
    """Projected inputs gate by gate, and how they are read.

    Attributes:
        read: how; None where `sequence` is the gates [T, B, H] themselves.
        shared: what every step reads: tables [V, H] of the gates, or U and b gate by gate.
        sequence: what is read step by step: rows [T, B] of the tables, inputs [T, B, X], or gates.
        is_gather: whether `read` gathers rows, which costs nothing in the loop over time; else it
            multiplies, and is called for some hundred events at once.
    """

    read: ReadGates | None
    shared: PyTree
    sequence: PyTree
    is_gather: bool = False


class _GatheredTables(NamedTuple):
    """What `gather_gates` reads at every step, gate by gate: tables, and parts of an `Addend`."""

    tables: Gates
    row: Gates | None = None
    segments: Gates | None = None


def project_gates(cell: Cell, params: Params, inputs: Inputs) -> ProjectedGates:
    """The projected inputs of a gated cell, of time-major inputs.

    Rows of a small table stay in the table: gathered step by step they never fill [T, B, G·H].
    """
    gated, addend = cell.gated, inputs.addend
    assert gated is not None

    def split(projected: Array | None) -> Gates | None:
        return None if projected is None else split_gates(projected, gated.num_inputs)

    if inputs.table_pays() and addend.step is None:
        table, indices = inputs.rows()
        shared = _GatheredTables(
            split_gates(cell.project(params, table), gated.num_inputs),
            split(addend.row),
            split(addend.table),
        )
        sequence = indices, addend.segment
        # The loop reads a few tables that stay in the cache, and not [T, B, G·H] of gates.
        if indices.size * table.shape[0] <= ONE_HOT_LIMIT:
            return ProjectedGates(gather_gates, shared, sequence, is_gather=True)
        # The gradient of a large table is one scatter for the window, not one for each chunk.
        return ProjectedGates(None, None, gather_gates(shared, sequence))
    if inputs.table_pays() or gated.project_gates is None:
        return split_projected(cell, inputs.project(cell, params))
    kernels = tuple(split_gates(params[name], gated.num_inputs) for name in PROJECTION)
    vectors, by_step = inputs.lookup(), addend.by_step()
    if addend.row is None and by_step is None:
        return ProjectedGates(gated.project_gates, kernels, vectors)
    read = _project_and_add(gated.project_gates)
    return ProjectedGates(read, (kernels, split(addend.row)), (vectors, split(by_step)))


def split_projected(cell: Cell, projected: Float[Array, "T B P"]) -> ProjectedGates:
    """The projected inputs of a gated cell, cut apart."""
    assert cell.gated is not None
    gates = split_gates(projected, cell.gated.num_inputs)
    # Without the barrier XLA would read slices of the one array inside of the loop again.
    return ProjectedGates(None, None, jax.lax.optimization_barrier(gates))


def gather_gates(shared: _GatheredTables, sequence: tuple[Any, ...]) -> Gates:
    """Rows of one table for each gate, and the parts of an addend."""
    indices, segment = sequence
    gates = tuple(lookup(table, indices) for table in shared.tables)
    if shared.segments is not None:
        gates = _add(gates, tuple(lookup_segments(table, segment) for table in shared.segments))
    return _add(gates, shared.row)


@functools.lru_cache(maxsize=64)
def _project_and_add(project: Callable[[tuple[Any, ...], Array], Gates]) -> ReadGates:
    """Reads products with U, and adds; one function for each cell, as the engine caches by it."""

    def read(shared: tuple[Any, ...], sequence: tuple[Any, ...]) -> Gates:
        (kernels, row), (vectors, by_step) = shared, sequence
        return _add(_add(project(kernels, vectors), row), by_step)

    return read


def _add(gates: Gates, more: Gates | None) -> Gates:
    return gates if more is None else tuple(map(jnp.add, gates, more))
