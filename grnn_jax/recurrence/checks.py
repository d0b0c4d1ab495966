"""What a cell is run with is looked at first: a message then names the argument."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Params, PyTree
from grnn_jax.cells.base import Cell
from grnn_jax.ops.checks import check_array, check_tree, mismatches, shapes_of_init
from grnn_jax.recurrence.inputs import Inputs


def check_inputs(cell: Cell, params: Params, inputs: Inputs) -> tuple[int, int]:
    """Names inputs and parameters that do not fit the cell and each other.

    Args:
        cell: the cell.
        params: its parameters.
        inputs: batch-major.

    Returns:
        B and T.

    Raises:
        ValueError: by the name of the argument.
    """
    table = inputs.table
    if table is not None and table.ndim != 2:
        raise ValueError(f"inputs must have a table [V, X], got shape {table.shape}")
    if len(inputs.shape) != 2:
        wanted = "[B, T, X]" if table is None else "indices [B, T]"
        raise ValueError(f"inputs must be {wanted}, got shape {inputs.values.shape}")
    width = inputs.values.shape[-1] if table is None else table.shape[-1]
    expected = _shapes_of(cell, width)
    if mismatches(params, expected):
        own = _own_width(cell, params, width)
        if own is not None:
            raise ValueError(f"inputs must have width {own}, as params have, got {width}")
        check_tree("params", params, expected, f"those of the cell for inputs of width {width}")
    if inputs.started is not None:
        check_array("inputs.started", inputs.started, inputs.shape)
    batch_size, length = inputs.shape
    return batch_size, length


def check_state(name: str, cell: Cell, params: Params, state: PyTree, batch_size: int) -> PyTree:
    """The state, in dtypes no narrower than the cell's own; names one that does not fit.

    Args:
        name: of the argument.
        cell: the cell.
        params: its parameters.
        state: what came.
        batch_size: B.

    Returns:
        The state.

    Raises:
        ValueError: for another structure, batch or width.
    """
    expected = jax.eval_shape(lambda params: cell.initial_state(params, batch_size), params)
    check_tree(name, state, expected, f"a state of the cell for a batch of {batch_size}")

    def widened(leaf: Any, spec: jax.ShapeDtypeStruct) -> Any:
        dtype = jnp.promote_types(leaf.dtype, spec.dtype)
        return leaf if leaf.dtype == dtype else leaf.astype(dtype)

    return jax.tree.map(widened, state, expected)


def _own_width(cell: Cell, params: Params, width: int) -> int | None:
    """The width of inputs that these parameters are made for, if they are the cell's at all."""
    expected = _shapes_of(cell, width)
    try:
        wider = _shapes_of(cell, width + 1)
    except ValueError:
        return None
    for path, found, spec in mismatches(params, expected):
        leaf = dict(jax.tree_util.tree_leaves_with_path(wider)).get(path)
        if found is None or spec is None or leaf is None or len(found.shape) != len(spec.shape):
            return None
        for size, now, then in zip(found.shape, spec.shape, leaf.shape, strict=True):
            if now == then:
                continue
            own, rest = divmod(size - now, then - now)
            own += width
            fits = rest == 0 and own > 0 and not mismatches(params, _shapes_of(cell, own))
            return own if fits else None
    return None


def _shapes_of(cell: Cell, width: int) -> PyTree:
    """The shapes of the cell's parameters for inputs of a width."""
    try:
        return _cached_shapes_of(cell, width)
    except TypeError:  # A cell that holds a traced number has no hash.
        return shapes_of_init(cell.init, width)


@functools.lru_cache(maxsize=256)
def _cached_shapes_of(cell: Cell, width: int) -> PyTree:
    return shapes_of_init(cell.init, width)
