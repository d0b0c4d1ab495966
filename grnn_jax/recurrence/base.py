"""What every engine receives and returns, and the reset of a state."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Float, Params, PRNGKey, PyTree, State
from grnn_jax.cells.base import Cell
from grnn_jax.recurrence.dropout import DropoutIndex
from grnn_jax.recurrence.inputs import Inputs


class Window(NamedTuple):
    """What comes from outside at the steps of a window, batch-major [B, T] or time-major [T, B].

    Attributes:
        inputs: what enters the cell.
        reset: True where a row restarts before the step; None where none does.
        dropout_index: what dropout masks are drawn by, always [B, T]; None draws none.
    """

    inputs: Inputs
    reset: Bool[Array, "..."] | None = None
    dropout_index: DropoutIndex | None = None


class RunOptions(NamedTuple):
    """How a window is run.

    Attributes:
        engine: a name in `engines.ENGINES`, or "auto".
        key: seeds dropout and zoneout; None is deterministic.
        axis_name: the axis of a mesh over whose devices the steps are split, or None.
    """

    engine: str = "auto"
    key: PRNGKey | None = None
    axis_name: str | None = None


class RunEngine(Protocol):
    """Runs one cell (not a stack) over a window, time-major."""

    def __call__(
        self,
        cell: Cell,
        params: Params,
        projected: Any,
        state: State,
        reset: Bool[Array, "T B"] | None,
        initial_state: State,
        /,
    ) -> tuple[Float[Array, "T B H"], State]:
        """The outputs of all steps and the state after the last one.

        Args:
            cell: the cell.
            params: its parameters.
            projected: its projected inputs, [T, B, P] or in the engine's form.
            state: the state before the first step, arrays [B, H].
            reset: rows that restart from `initial_state` before a step.
            initial_state: what they restart from.

        Returns:
            outputs [T, B, H] and the final state.
        """
        ...


class RunSplitEngine(Protocol):
    """Runs one cell over steps that are split over the devices of a mesh axis."""

    def __call__(
        self,
        cell: Cell,
        params: Params,
        projected: Any,
        state: State,
        reset: Bool[Array, "T B"] | None,
        initial_state: State,
        /,
        *,
        axis_name: str | None,
    ) -> tuple[Float[Array, "T B H"], State]:
        """The outputs of this device's steps and the state after them; arguments as `RunEngine`.

        Args:
            cell: the cell.
            params: its parameters.
            projected: the projected inputs of this device's steps.
            state: the state before the first step of all.
            reset: rows that restart before one of this device's steps.
            initial_state: what they restart from.
            axis_name: the axis of the mesh.

        Returns:
            outputs and final state of this device's steps.
        """
        ...


class InputsForm(NamedTuple):
    """How an engine receives projected inputs, where not as one array [T, B, P].

    Attributes:
        project: (cell, params, time-major inputs) -> the projected inputs in this form.
        convert: (cell, projected [T, B, P]) -> the same of inputs that are projected already.
    """

    project: Callable[[Cell, Params, Inputs], Any]
    convert: Callable[[Cell, Array], Any]


class Engine(NamedTuple):
    """How one cell (not a stack) is run over a window.

    Attributes:
        run: see `RunEngine`.
        supports: whether the engine can run this cell.
        needs: what it needs of a cell, in words that end "the engine needs a cell …".
        form: how `projected` comes; None is one array [T, B, P].
        run_split: the same for steps that are split over devices, or None.
    """

    run: RunEngine
    supports: Callable[[Cell], bool]
    needs: str
    form: InputsForm | None = None
    run_split: RunSplitEngine | None = None


def where_reset(reset: Bool[Array, "... B"], initial: PyTree, state: PyTree) -> PyTree:
    """The initial state [B, ...] in the rows that restart, the given state in the others."""

    def choose(fresh: Array, old: Array) -> Array:
        return jnp.where(jnp.expand_dims(reset, tuple(range(reset.ndim, old.ndim))), fresh, old)

    return jax.tree.map(choose, initial, state)
