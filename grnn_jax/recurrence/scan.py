"""The reference engine: `lax.scan` over the cell's step, differentiated by JAX."""

from typing import Any

import jax

from grnn_jax.array_types import Array, Bool, Float, Params, State
from grnn_jax.cells.base import Cell
from grnn_jax.recurrence.base import where_reset


def scan_engine(
    cell: Cell,
    params: Params,
    projected: Float[Array, "T B P"],
    state: State,
    reset: Bool[Array, "T B"] | None,
    initial_state: State,
) -> tuple[Float[Array, "T B H"], State]:
    """Runs any cell, one step after another.

        s_t, h_t = step(s_{t-1}, x_t),  s_{t-1} = s_0 where reset_t

    Works under every JAX transformation: jvp, vjp, vmap, and their compositions.
    """

    def step(state: State, inputs: tuple[Any, ...]) -> tuple[State, Array]:
        projected_t, reset_t = inputs
        if reset_t is not None:
            state = where_reset(reset_t, initial_state, state)
        return cell.step(params, state, projected_t)

    final_state, outputs = jax.lax.scan(step, state, (projected, reset))
    return outputs, final_state
