"""`newton_unroll`: the newton engine with its report and its settings."""

import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Params, State
from grnn_jax.cells.base import Cell
from grnn_jax.ops.checks import check_array
from grnn_jax.ops.entry import entry
from grnn_jax.recurrence.checks import check_inputs, check_state
from grnn_jax.recurrence.inputs import Inputs, Tokens, as_inputs
from grnn_jax.recurrence.newton import MAX_ITERATIONS, NewtonReport, Settings, newton


def newton_unroll(
    cell: Cell,
    params: Params,
    inputs: Float[AnyArray, "B T X"] | Tokens | Inputs,
    state: State,
    *,
    reset: Bool[AnyArray, "B T"] | None = None,
    initial_state: State | None = None,
    max_iterations: int = MAX_ITERATIONS,
    tolerance: float | None = None,
) -> tuple[Float[Array, "B T H"], State, NewtonReport]:
    """Runs a cell with the newton engine, and says how each sequence converged.

    Args:
        cell: a gated cell whose Jacobian has small blocks, not a stack.
        params: its parameters.
        inputs: x, or `Tokens(indices [B, T], table [V, X])`, or `Inputs`.
        state: the state before the first step, every array [B, H].
        reset: True where a row restarts from `initial_state` before the step.
        initial_state: what a reset restores; the cell's own initial state by default.
        max_iterations: Newton iterations before what is left is computed step by step.
        tolerance: largest |f(s_{t-1}) - s_t| / max(1, |s_t|) that counts as solved; None is
            rounding, 8 times the epsilon of the state's dtype. With a larger one, outputs and
            gradients are approximate.

    Returns:
        outputs h [B, T, H], the state after the last step, and the report.

    Raises:
        ValueError: if the cell does not qualify, max_iterations is negative, tolerance is not
            positive, or arrays do not fit.

    Reference: see `grnn_jax.recurrence.newton.newton`.

    Example:
        >>> import jax, grnn_jax
        >>> from grnn_jax import cells
        >>> cell = cells.diagonal_gru(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 50, 3))  # [B, T, X]
        >>> state = cell.initial_state(params, 2)
        >>> outputs, state, report = grnn_jax.newton_unroll(cell, params, inputs, state)
        >>> outputs.shape, report.converged.tolist()  # all 50 steps at once, each sequence solved
        ((2, 50, 4), [True, True])
    """
    if max_iterations < 0:
        raise ValueError(f"max_iterations must be at least 0, got {max_iterations}")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    inputs = as_inputs(inputs)
    batch_size, length = check_inputs(cell, params, inputs)
    if reset is not None:
        check_array("reset", reset, (batch_size, length))
    if initial_state is None:
        initial_state = cell.initial_state(params, batch_size)
    state, initial_state = (
        check_state(name, cell, params, value, batch_size)
        for name, value in (("state", state), ("initial_state", initial_state))
    )
    settings = Settings(max_iterations, tolerance)
    outputs: tuple[Array, State, NewtonReport] = _unroll(
        cell, settings, params, inputs, reset, state, initial_state
    )
    return outputs


@entry(num_static=2, rows=(3, 4, 5), inline=True)
def _unroll(
    cell: Cell,
    settings: Settings,
    params: Params,
    inputs: Inputs,
    reset: Bool[Array, "B T"] | None,
    state: State,
    initial_state: State,
) -> tuple[Float[Array, "B T H"], State, NewtonReport]:
    reset = None if reset is None else reset.T
    projected = inputs.time_major().project(cell, params)
    outputs, state, report = newton(cell, params, projected, state, reset, initial_state, settings)
    return jnp.swapaxes(outputs, 0, 1), state, report
