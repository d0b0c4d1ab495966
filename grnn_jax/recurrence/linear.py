"""The linear engine: cells that are linear in their state, all steps of a window at once."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Float, Params, State
from grnn_jax.cells.base import Cell
from grnn_jax.recurrence.linear_scan import linear_scan


def linear_engine(
    cell: Cell,
    params: Params,
    projected: Float[Array, "T B P"],
    state: State,
    reset: Bool[Array, "T B"] | None,
    initial_state: State,
    *,
    method: str | None = None,
    axis_name: str | None = None,
) -> tuple[Float[Array, "T B H"], State]:
    r"""Runs a linear cell over all steps of a window at once.

        a, b = coefficients(x)                                       all steps at once
        s_t = a_t ⊙ s_{t-1} + b_t,   where reset_t: s_t = a_t ⊙ s_0 + b_t
        h = readout(s, x)                                            all steps at once

    Reverse mode and `vmap`; for forward mode use the scan engine.

    Args:
        cell: a cell with `linear` structure.
        params: the cell's parameters.
        projected: the cell's projected inputs.
        state: the state before the first step, (s,).
        reset: rows that restart from `initial_state` before a step.
        initial_state: what they restart from.
        method: see `linear_scan`; None is "sequential" on a CPU, where it was measured fastest
            (benchmarks/RESULTS.md), and "chunked" on other platforms, where nothing was measured,
            and on split steps.
        axis_name: axis of a mesh over which the steps are split, see `linear_scan`.

    Returns:
        outputs and the final state, as the scan engine.

    Raises:
        ValueError: if the cell has no linear structure.
    """
    if cell.linear is None:
        raise ValueError("the linear engine needs a cell with linear structure; use 'scan'")
    decay, update = cell.linear.coefficients(params, projected)
    if reset is not None:
        restarts = reset[:, :, None]
        update = jnp.where(restarts, update + decay * initial_state[0], update)
        decay = jnp.where(restarts, 0, decay)
    if method is None:
        one_cpu = axis_name is None and jax.default_backend() == "cpu"
        method = "sequential" if one_cpu else "chunked"
    states = linear_scan(decay, update, state[0], method=method, axis_name=axis_name)
    return cell.linear.readout(params, states, projected), (states[-1],)
