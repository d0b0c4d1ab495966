"""The fused engine: a custom gradient for every gated cell.

Plain autodiff of a scan accumulates the gradient of V in the loop, one small matmul and one
[H, G·H] addition for each step. Here the reverse loop only carries the state's gradient
backwards; the gradient of V is one large matmul for a chunk of steps. Forward and backward take
0.6 to 0.85 of the time of the scan engine (LSTM, GRU; B 64, T 128, H 64 to 1024, two CPU cores;
benchmarks/RESULTS.md).
"""

import functools
from typing import Any

import jax

from grnn_jax.array_types import Array, Bool, Float, Params, PyTree, State
from grnn_jax.cells.base import Cell
from grnn_jax.ops.chunks import concatenate_time, cut_time, join_time, split_time
from grnn_jax.recurrence.base import where_reset
from grnn_jax.recurrence.fused_backward import Residuals, backward, chunk_size
from grnn_jax.recurrence.fused_step import (
    FusedParams,
    FusedPlan,
    enter,
    keep,
    multiply,
    pointwise,
    read_gates,
)
from grnn_jax.recurrence.gates import ProjectedGates

Outputs = tuple[Float[Array, "T B H"], State]


def fused_engine(
    cell: Cell,
    params: Params,
    projected: ProjectedGates,
    state: State,
    reset: Bool[Array, "T B"] | None,
    initial_state: State,
    *,
    save_recurrent: bool = True,
) -> Outputs:
    r"""Runs a gated cell with its own backward pass.

        forward   r_t = V h_{t-1},  s_t = pointwise(x_t, r_t, s_{t-1})
        backward  (dx_t, dr_t, ds_{t-1}) = pointwise_vjp(ds_t + dy_t),  dh_{t-1} += Vᵀ dr_t
        after     dV = Σ_t h_{t-1} dr_tᵀ                  one matmul for a chunk of steps

    Reverse mode only, to any order, and `vmap`; forward mode (`jvp`, `jacfwd`, `hessian`) is
    not defined for a custom gradient: use the scan engine there.

    Args:
        cell: a cell with `gated` structure.
        params: the cell's parameters.
        projected: U x_t + b, gate by gate.
        state: the state before the first step.
        reset: rows that restart from `initial_state` before a step.
        initial_state: what they restart from.
        save_recurrent: keeps r_t [T, B, G·H] for the backward pass; if False it is recomputed
            there by one matmul for a chunk of steps, for less memory. Of additive gates
            x_t + r_t is kept in its place.

    Returns:
        outputs and the final state, as the scan engine.

    Raises:
        ValueError: if the cell has no gated structure.
    """
    gated = cell.gated
    if gated is None:
        raise ValueError("the fused engine needs a cell with gated structure; use 'scan'")
    # What is not gathered step by step is projected in chunks, which stay in the cache.
    by_chunk = projected.read is not None and not projected.is_gather
    plan = FusedPlan(gated, save_recurrent, projected.read, by_chunk)
    fused_params = FusedParams(
        gated.recurrent_kernel(params) if gated.num_gates else None,
        gated.pointwise_weights(params),
        projected.shared,
    )
    return _run(plan, fused_params, projected.sequence, state, initial_state, reset)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    plan: FusedPlan,
    params: FusedParams,
    sequence: PyTree,
    state: State,
    initial_state: State,
    reset: Bool[Array, "T B"] | None,
) -> Outputs:
    return _forward(plan, params, sequence, state, initial_state, reset)[0]


def _forward(
    plan: FusedPlan,
    params: FusedParams,
    sequence: PyTree,
    state: State,
    initial_state: State,
    reset: Bool[Array, "T B"] | None,
) -> tuple[Outputs, Residuals]:
    """The outputs, and what the backward pass reads."""

    def step(state: State, inputs: tuple[PyTree, Array | None]) -> tuple[State, tuple[Any, ...]]:
        sequence_t, reset_t = inputs
        projected = sequence_t if plan.by_chunk else read_gates(plan, params.shared, sequence_t)
        before = state if reset_t is None else where_reset(reset_t, initial_state, state)
        entering = enter(plan, projected, multiply(plan, params.kernel, before[0]))
        state = pointwise(plan, params.weights, entering, before)
        return state, (state, keep(plan, entering))

    # Projected for some steps at once, gates are read while they are in the cache: [T, B, G·H] of
    # all steps would go out to memory and come back.
    def chunk(state: State, window: tuple[PyTree, Array | None]) -> tuple[State, tuple[Any, ...]]:
        sequence, reset = window
        return jax.lax.scan(step, state, (read_gates(plan, params.shared, sequence), reset))

    window = sequence, reset
    if not plan.by_chunk:
        final_state, (states, kept) = jax.lax.scan(step, state, window)
    else:
        length = jax.tree.leaves(sequence)[0].shape[0]
        size, whole = chunk_size(state[0].shape[0], length)
        chunks, rest = split_time(window, whole)
        final_state, steps = jax.lax.scan(chunk, state, cut_time(chunks, size))
        states, kept = join_time(steps)
        if whole < length:
            final_state, last = chunk(final_state, rest)
            states, kept = concatenate_time((states, kept), last)
    residuals = Residuals(params, sequence, state, initial_state, reset, states, kept)
    return (states[0], final_state), residuals


_run.defvjp(_forward, backward)
