"""The packed engine: what a GPU and a TPU want a gated cell to be.

An accelerator pays for every kernel that it launches, and for every array that goes out to memory.
So a step is one product and one elementwise function that reads and writes whole arrays
[B, G·H], several steps stand in the body of a loop, and the gradients of V, of U and of the biases
are products over all steps behind it. The fused engine has the opposite structure, gate by gate
and in chunks that stay in the cache, as a CPU wants it.

Counted, not timed: ahead of time compiled for an H200 and a TPU v5e (benchmarks/RESULTS.md).
"""

import functools

import jax

from grnn_jax.array_types import Array, Bool, Float, Params, State
from grnn_jax.cells.base import Cell
from grnn_jax.ops.products import cast_kernel
from grnn_jax.recurrence.base import where_reset
from grnn_jax.recurrence.packed_backward import PackedResiduals, backward
from grnn_jax.recurrence.packed_inputs import PackedInputs, SharedInputs, StepInputs, read
from grnn_jax.recurrence.packed_step import (
    PackedParams,
    PackedPlan,
    enter,
    multiply,
    pointwise,
)

UNROLL = 8
"""Steps in the body of the loop: what a loop costs at each turn is then shared by so many, and the
state goes from one to the next without a copy."""

Outputs = tuple[Float[Array, "T B H"], State]


def packed_engine(
    cell: Cell,
    params: Params,
    projected: PackedInputs,
    state: State,
    reset: Bool[Array, "T B"] | None,
    initial_state: State,
    *,
    save_recurrent: bool = True,
) -> Outputs:
    r"""Runs a gated cell with its own backward pass, all gates in one array.

        forward   g_t = x_t + V h_{t-1},  s_t = pointwise(g_t, s_{t-1})
        backward  (dg_t, ds_{t-1}) = pointwise_vjp(ds_t + dy_t),  dh_{t-1} += Vᵀ dg_t
        after     dV = Σ_t h_{t-1} dg_tᵀ,  dU = Σ_t x_t dg_tᵀ      one product each

    Reverse mode only, to any order, and `vmap`, as the fused engine.

    Args:
        cell: a cell with `gated` structure.
        params: the cell's parameters.
        projected: U x_t + b.
        state: the state before the first step.
        reset: rows that restart from `initial_state` before a step.
        initial_state: what they restart from.
        save_recurrent: keeps g_t [T, B, G·H] for the backward pass; if False it is recomputed
            there by one product, for less memory.

    Returns:
        outputs and the final state, as the scan engine.

    Raises:
        ValueError: if the cell has no gated structure.
    """
    gated = cell.gated
    if gated is None:
        raise ValueError("the packed engine needs a cell with gated structure; use 'scan'")
    plan = PackedPlan(gated, save_recurrent, UNROLL)
    packed_params = PackedParams(
        gated.recurrent_kernel(params) if gated.num_gates else None,
        gated.pointwise_weights(params),
        projected.shared,
    )
    return _run(plan, packed_params, projected.steps, state, initial_state, reset)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    plan: PackedPlan,
    params: PackedParams,
    steps: StepInputs,
    state: State,
    initial_state: State,
    reset: Bool[Array, "T B"] | None,
) -> Outputs:
    # Without a gradient nothing is kept: g_t never leaves the step.
    return _forward(
        plan._replace(save_recurrent=False), params, steps, state, initial_state, reset
    )[0]


def _forward(
    plan: PackedPlan,
    params: PackedParams,
    steps: StepInputs,
    state: State,
    initial_state: State,
    reset: Bool[Array, "T B"] | None,
) -> tuple[Outputs, PackedResiduals]:
    """The outputs, and what the backward pass reads."""
    kernel = None if params.kernel is None else cast_kernel(params.kernel, plan.gated.dtype)

    def loop(
        gather_in_front: bool, inputs: SharedInputs, steps: StepInputs, state: State
    ) -> tuple[State, tuple[State, Array | None]]:
        def step(
            state: State, step: tuple[StepInputs, Array | None]
        ) -> tuple[State, tuple[State, Array | None]]:
            step_inputs, reset_t = step
            before = state if reset_t is None else where_reset(reset_t, initial_state, state)
            recurrent = multiply(kernel, before[0], plan)
            entering = enter(plan, read(inputs, step_inputs), recurrent)
            state = pointwise(plan, params.weights, entering, before)
            return state, (state, entering.gates if plan.save_recurrent else None)

        if gather_in_front:
            inputs, steps = SharedInputs(), StepInputs(values=read(inputs, steps))
        return jax.lax.scan(step, state, (steps, reset), unroll=plan.unroll)

    in_front, inside = (functools.partial(loop, in_front) for in_front in (True, False))
    if steps.indices is None and steps.segment is None:
        run = inside
    else:
        # A gather is no kernel of its own on a GPU. A TPU takes 2,300 of the 8,200 cycles of a step
        # for it (LSTM, B 64, H 512, bfloat16), and less than 200 where it is one for all steps.
        run = functools.partial(jax.lax.platform_dependent, tpu=in_front, default=inside)
    final_state, (states, gates) = run(params.inputs, steps, state)
    residuals = PackedResiduals(params, steps, state, initial_state, reset, states, gates)
    return (states[0], final_state), residuals


_run.defvjp(_forward, backward)
