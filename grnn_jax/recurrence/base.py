"""What every engine receives and returns, and the reset of a state."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, PyTree, State

Engine = Callable[..., tuple[Array, State]]
"""An engine runs one cell (not a stack) over a window:

    engine(cell, params, projected, state, reset, initial_state) -> (outputs, final_state)

`projected` [T, B, P] and `outputs` [T, B, H] are time-major, `reset` is [T, B] or None.
"""


def where_reset(reset: Bool[Array, "... B"], initial: PyTree, state: PyTree) -> PyTree:
    """The initial state [B, ...] in the rows that restart, the given state in the others."""

    def choose(fresh: Array, old: Array) -> Array:
        return jnp.where(jnp.expand_dims(reset, tuple(range(reset.ndim, old.ndim))), fresh, old)

    return jax.tree.map(choose, initial, state)
