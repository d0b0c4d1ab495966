"""The projected inputs of a gated cell as one array for all gates, as the packed engine reads them.

What can be gathered or added inside of the loop over time stays outside of memory: a GPU and a TPU
fuse a gather of rows into the elementwise step at no cost, where [T, B, G·H] of projected inputs
would be written and read again.
"""

from typing import NamedTuple

import jax.numpy as jnp

from grnn_jax.array_types import Array, Float, Int, Params
from grnn_jax.cells.base import Cell
from grnn_jax.ops.lookup import lookup, lookup_segments
from grnn_jax.recurrence.inputs import Inputs


class SharedInputs(NamedTuple):
    """What every step reads; None where there is none.

    Attributes:
        table: projected rows that tokens choose from, [V, P].
        segments: the projected parts of an `Addend` that segments choose from, [S, P].
        row: what is added to a row at all its steps, [B, P].
    """

    table: Float[Array, "V P"] | None = None
    segments: Float[Array, "S P"] | None = None
    row: Float[Array, "B P"] | None = None


class StepInputs(NamedTuple):
    """What is read step by step, [T, B], or at one step, [B]; None where there is none.

    Attributes:
        indices: rows of `SharedInputs.table`.
        segment: rows of `SharedInputs.segments`.
        values: projected inputs, [..., P].
    """

    indices: Int[Array, "..."] | None = None
    segment: Int[Array, "..."] | None = None
    values: Float[Array, "... P"] | None = None


class PackedInputs(NamedTuple):
    """U x_t + b, all gates side by side: `read(shared, steps)`."""

    shared: SharedInputs
    steps: StepInputs


def pack_inputs(cell: Cell, params: Params, inputs: Inputs) -> PackedInputs:
    """The projected inputs of a gated cell, of time-major inputs."""
    addend = inputs.addend
    table = indices = values = None
    if inputs.table_pays():
        rows, indices = inputs.rows()
        table, values = cell.project(params, rows), addend.step
    else:
        values = cell.project(params, inputs.lookup())
        if addend.step is not None:
            values = values + addend.step
    shared = SharedInputs(table, addend.table, addend.row)
    return PackedInputs(shared, StepInputs(indices, addend.segment, values))


def pack_projected(cell: Cell, projected: Float[Array, "T B P"]) -> PackedInputs:
    """Projected inputs that are whole already."""
    return PackedInputs(SharedInputs(), StepInputs(values=projected))


def read(shared: SharedInputs, steps: StepInputs) -> Float[Array, "... P"]:
    """The projected inputs of one step [B, P], or of all [T, B, P]; linear in all arrays."""
    parts = [] if steps.values is None else [steps.values]
    if shared.table is not None and steps.indices is not None:
        parts.append(lookup(shared.table, steps.indices))
    if shared.segments is not None and steps.segment is not None:
        parts.append(lookup_segments(shared.segments, steps.segment))
    if shared.row is not None:
        parts.append(shared.row)
    total = parts[0]
    for part in parts[1:]:
        total = jnp.add(total, part)
    return total
