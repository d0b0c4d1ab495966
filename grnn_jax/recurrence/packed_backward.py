"""The backward pass of the packed engine: one reverse loop, and products behind it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Float, PyTree, State
from grnn_jax.ops.products import cast_kernel
from grnn_jax.recurrence.base import where_reset
from grnn_jax.recurrence.packed_inputs import SharedInputs, StepInputs, read
from grnn_jax.recurrence.packed_step import (
    Entering,
    PackedParams,
    PackedPlan,
    enter,
    kernel_gradient,
    multiply,
    multiply_transposed,
    pointwise,
    split_additive,
)


class PackedResiduals(NamedTuple):
    """What the forward pass leaves for the backward pass.

    Attributes:
        params: see `PackedParams`.
        steps: what is read step by step.
        state: the state before the first step.
        initial_state: what a reset restores.
        reset: [T, B], or None.
        states: s_1 … s_T, arrays [T, B, H].
        gates: `Entering.gates` of all steps, [T, B, G·H], or None where they are computed again.
    """

    params: PackedParams
    steps: StepInputs
    state: State
    initial_state: State
    reset: Bool[Array, "T B"] | None
    states: State
    gates: Float[Array, "T B GH"] | None


class _Carry(NamedTuple):
    """Gradients that go from step to step."""

    state: State
    initial_state: State


class _Step(NamedTuple):
    """What comes at a step, [B, …], or at all, [T, B, …]."""

    d_output: Float[Array, "... B H"]
    entering: Entering
    before: State
    reset: Bool[Array, "... B"] | None


def backward(
    plan: PackedPlan, residuals: PackedResiduals, cotangents: tuple[Array, State]
) -> tuple[PackedParams, StepInputs, State, State, None]:
    """From the gradients of outputs and final state to those of all arguments."""
    params, initial_state, reset = residuals.params, residuals.initial_state, residuals.reset
    d_outputs, d_final = cotangents
    kernel = None if params.kernel is None else cast_kernel(params.kernel, plan.gated.dtype)
    before = jax.tree.map(
        lambda first, later: jnp.concatenate([first[None], later[:-1]]),
        residuals.state,
        residuals.states,
    )
    if reset is not None:
        before = where_reset(reset, initial_state, before)
    entering = _entering(plan, residuals, kernel, before[0])

    step = functools.partial(_backward_step, plan, params.weights, kernel)
    carry, (d_entering, d_states) = jax.lax.scan(
        step,
        _Carry(d_final, jax.tree.map(jnp.zeros_like, initial_state)),
        _Step(d_outputs, entering, before, reset),
        reverse=True,
        unroll=plan.unroll,
    )
    d_kernel = None
    if kernel is not None and params.kernel is not None:
        d_kernel = kernel_gradient(kernel, before[0], d_entering.gates, plan)
        d_kernel = d_kernel.astype(params.kernel.dtype)
    d_shared, d_steps = _inputs_gradient(plan, residuals, d_entering)
    d_weights = _weights_gradient(plan, params.weights, entering, before, d_states)
    return PackedParams(d_kernel, d_weights, d_shared), d_steps, *carry, None


def _entering(
    plan: PackedPlan, residuals: PackedResiduals, kernel: Array | None, hidden: Array
) -> Entering:
    """What entered the elementwise step, of all steps at once."""
    projected = read(residuals.params.inputs, residuals.steps)
    if residuals.gates is None:
        return enter(plan, projected, multiply(kernel, hidden, plan))
    return Entering(residuals.gates, split_additive(plan, projected)[1])


def _backward_step(
    plan: PackedPlan, weights: PyTree, kernel: Array | None, carry: _Carry, step: _Step
) -> tuple[_Carry, tuple[Entering, State]]:
    """The state's gradient one step back, and the gradients of what entered and of s_t."""
    d_state = (carry.state[0] + step.d_output, *carry.state[1:])
    run = functools.partial(pointwise, plan, weights)
    _, pullback = jax.vjp(run, step.entering, step.before)
    d_entering, d_before = pullback(d_state)
    if kernel is not None:
        # In the dtype of the products that read it, here and behind the loop, it goes out to memory
        # in half of the bytes where that is bfloat16, and is not cast there once more.
        d_entering = d_entering._replace(gates=d_entering.gates.astype(kernel.dtype))
        d_hidden = d_before[0] + multiply_transposed(kernel, d_entering.gates, plan)
        d_before = (d_hidden, *d_before[1:])
    d_initial = carry.initial_state
    if step.reset is not None:
        # In rows that restart the gradient belongs to the initial state, and goes no further.
        nothing = jax.tree.map(jnp.zeros_like, d_before)
        at_reset = where_reset(step.reset, d_before, nothing)
        d_initial = jax.tree.map(jnp.add, d_initial, at_reset)
        d_before = where_reset(step.reset, nothing, d_before)
    # Only where weights have a gradient, which one elementwise pass behind the loop forms.
    kept = d_state if jax.tree.leaves(weights) else ()
    return _Carry(d_before, d_initial), (d_entering, kept)


def _inputs_gradient(
    plan: PackedPlan, residuals: PackedResiduals, d_entering: Entering
) -> tuple[SharedInputs, StepInputs]:
    """Gradients of what x_t was read from; indices have none."""
    shared, steps = residuals.params.inputs, residuals.steps
    width = d_entering.gates.shape[-1]
    additive = width // max(plan.gated.num_gates, 1) * plan.gated.num_additive
    d_projected = d_entering.gates[..., :additive].astype(d_entering.projected.dtype)
    if d_entering.projected.shape[-1]:
        d_projected = jnp.concatenate([d_projected, d_entering.projected], -1)

    def read_floats(shared: SharedInputs, values: Array | None) -> Array:
        return read(shared, steps._replace(values=values))

    _, pullback = jax.vjp(read_floats, shared, steps.values)
    d_shared, d_values = pullback(d_projected)
    return d_shared, StepInputs(values=d_values)


def _weights_gradient(
    plan: PackedPlan, weights: PyTree, entering: Entering, before: State, d_states: State
) -> PyTree:
    """Of the parameters of the elementwise step: all steps at once, where states have gradients.

    In the loop each step would add to it by a reduction of its own.
    """
    if not jax.tree.leaves(weights):
        return weights
    _, pullback = jax.vjp(lambda weights: pointwise(plan, weights, entering, before), weights)
    return pullback(d_states)[0]
