"""What every engine receives and returns, and the reset of a state."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, PyTree, State
from grnn_jax.cells.base import Cell


class Engine(NamedTuple):
    """How one cell (not a stack) is run over a window.

    Attributes:
        run: (cell, params, projected, state, reset, initial_state) -> (outputs, final_state);
            `projected` [T, B, P] and `outputs` [T, B, H] are time-major, `reset` is [T, B] or None.
        supports: whether the engine can run this cell.
        needs: what it needs of a cell, in words that end "the engine needs a cell …".
        by_gates: whether `projected` comes gate by gate, as `tokens.Projected`.
        splits_time: whether `run` takes `axis_name`, the axis of a mesh over whose devices the
            steps are split.
    """

    run: Callable[..., tuple[Array, State]]
    supports: Callable[[Cell], bool]
    needs: str
    by_gates: bool = False
    splits_time: bool = False


def where_reset(reset: Bool[Array, "... B"], initial: PyTree, state: PyTree) -> PyTree:
    """The initial state [B, ...] in the rows that restart, the given state in the others."""

    def choose(fresh: Array, old: Array) -> Array:
        return jnp.where(jnp.expand_dims(reset, tuple(range(reset.ndim, old.ndim))), fresh, old)

    return jax.tree.map(choose, initial, state)
