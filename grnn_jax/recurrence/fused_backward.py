"""The backward pass of the fused engine: one reverse loop, in chunks of steps."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Float, PyTree, State
from grnn_jax.ops.chunks import concatenate_time, cut_time, join_time, split_time
from grnn_jax.ops.products import (
    cast_kernel,
    dense,
    heads_einsum,
    outer_sums,
    split_gates,
    transposed,
)
from grnn_jax.recurrence.base import where_reset
from grnn_jax.recurrence.fused_step import (
    Entering,
    FusedParams,
    FusedPlan,
    complete,
    enter,
    multiply,
    pointwise,
    read_gates,
)
from grnn_jax.recurrence.gates import Gates

CHUNK_ROWS = 512
"""Events whose gradients wait for one matmul into that of V, so that they stay in the cache.

With 1,024 a training step of an LSTM, H 256, took 133 in place of 125 ms, of a GRU 97 in place of
79 (benchmarks/RESULTS.md)."""


class Residuals(NamedTuple):
    """What the forward pass leaves for the backward pass.

    Attributes:
        params: see `FusedParams`.
        sequence: what is read step by step, see `gates.ProjectedGates`.
        state: the state before the first step.
        initial_state: what a reset restores.
        reset: [T, B], or None.
        states: s_1 … s_T, arrays [T, B, H].
        kept: what `fused_step.keep` kept at every step.
    """

    params: FusedParams
    sequence: PyTree
    state: State
    initial_state: State
    reset: Bool[Array, "T B"] | None
    states: State
    kept: PyTree


class _Kernels(NamedTuple):
    """V in the compute dtype, and of a single head also its transpose, as an array of its own."""

    plain: Float[Array, "heads D GD"]
    transpose: Float[Array, "GD D"] | None


class _StepCarry(NamedTuple):
    """What the reverse loop carries from step to step: gradients."""

    state: State
    initial_state: State
    weights: PyTree


class _ChunkCarry(NamedTuple):
    """What it carries from chunk to chunk; V's gradient gate by gate for a single head."""

    step: _StepCarry
    kernel: tuple[Array, ...] | None
    shared: PyTree


class _Steps(NamedTuple):
    """What comes at a step, [B, …], or at the steps of a chunk, [size, B, …].

    Attributes:
        d_output: gradient of the output.
        sequence: what x_t is read from; None where it is not read again.
        kept: what the forward pass kept.
        states: at a step the state in front of it, in a chunk those behind its steps.
        reset: rows that restart, or None.
    """

    d_output: Float[Array, "... B H"]
    sequence: PyTree
    kept: PyTree
    states: State
    reset: Bool[Array, "... B"] | None


def backward(
    plan: FusedPlan, residuals: Residuals, cotangents: tuple[Array, State]
) -> tuple[FusedParams, PyTree, State, State, None]:
    """From the gradients of outputs and final state to those of all arguments."""
    params, state, states = residuals.params, residuals.state, residuals.states
    d_outputs, d_final = cotangents
    kernels = None if params.kernel is None else _kernels(params.kernel, plan)
    chunk = functools.partial(_backward_chunk, plan, params, kernels, residuals.initial_state)

    carry = _ChunkCarry(
        _StepCarry(d_final, _zeros_like(residuals.initial_state), _zeros_like(params.weights)),
        None if kernels is None else _no_kernel_gradient(kernels.plain, plan.gated.num_gates),
        _zeros_like(params.shared),
    )
    # Where the sums of all gates were kept, x_t is not read again.
    only_sums = plan.save_recurrent and plan.gated.num_additive == plan.gated.num_inputs
    sequence = None if only_sums and plan.read is None else residuals.sequence
    window = _Steps(d_outputs, sequence, residuals.kept, states, residuals.reset)
    length = len(d_outputs)
    size, whole = chunk_size(d_outputs.shape[1], length)
    chunks, rest = split_time(window, whole)
    d_rest = None
    if whole < length:
        in_front = jax.tree.map(lambda array: array[whole - 1], states)
        carry, d_rest = chunk(carry, (in_front, rest))
    # The state in front of each chunk: not of each step, which would copy all states.
    in_front = jax.tree.map(
        lambda first, later: jnp.concatenate([first[None], later[size - 1 : whole - 1 : size]]),
        state,
        states,
    )
    carry, d_sequence = jax.lax.scan(chunk, carry, (in_front, cut_time(chunks, size)), reverse=True)
    d_sequence = join_time(d_sequence)
    if whole < length:
        d_sequence = concatenate_time(d_sequence, d_rest)
    d_kernel = None
    if carry.kernel is not None and params.kernel is not None:
        d_kernel = jnp.concatenate(carry.kernel, -1).astype(params.kernel.dtype)
    d_params = FusedParams(d_kernel, carry.step.weights, carry.shared)
    return d_params, d_sequence, carry.step.state, carry.step.initial_state, None


def _backward_chunk(
    plan: FusedPlan,
    params: FusedParams,
    kernels: _Kernels | None,
    initial_state: State,
    carry: _ChunkCarry,
    inputs: tuple[State, _Steps],
) -> tuple[_ChunkCarry, PyTree]:
    """Some steps in reverse, and what they give to the gradients of V, of tables and of U."""
    in_front, steps = inputs
    before = jax.tree.map(
        lambda first, later: jnp.concatenate([first[None], later[:-1]]), in_front, steps.states
    )
    if steps.reset is not None:
        before = where_reset(steps.reset, initial_state, before)
    kept = steps.kept
    if not plan.save_recurrent:
        projected = read_gates(plan, params.shared, steps.sequence)
        kept = enter(plan, projected, multiply(plan, params.kernel, before[0]))
    sequence = steps.sequence if plan.reads_projected_again else None
    step = functools.partial(_backward_step, plan, params, kernels)
    inner, d_entering = jax.lax.scan(
        step,
        carry.step,
        steps._replace(sequence=sequence, kept=kept, states=before),
        reverse=True,
    )
    d_projected = d_entering.sums + d_entering.projected
    d_kernel = carry.kernel
    if kernels is not None:
        # Σ_t h_{t-1} dr_tᵀ for the whole chunk: one product in place of one for each step.
        d_recurrent = d_entering.sums + d_entering.recurrent
        d_kernel = _add(d_kernel, _kernel_gradient(plan, kernels.plain, before[0], d_recurrent))
    d_sequence, d_shared = _read_gradient(plan, params.shared, steps.sequence, d_projected)
    if plan.read is not None:
        d_shared = _add(carry.shared, d_shared)
    return _ChunkCarry(inner, d_kernel, d_shared), d_sequence


def _backward_step(
    plan: FusedPlan,
    params: FusedParams,
    kernels: _Kernels | None,
    carry: _StepCarry,
    step: _Steps,
) -> tuple[_StepCarry, Entering]:
    """The state's gradient one step back, and the gradients of what entered."""
    entering = complete(plan, step.kept, params.shared, step.sequence)
    d_state = (carry.state[0] + step.d_output, *carry.state[1:])
    _, pullback = jax.vjp(functools.partial(pointwise, plan), params.weights, entering, step.states)
    d_weights, d_entering, d_before = pullback(d_state)
    if kernels is not None:
        d_recurrent = d_entering.sums + d_entering.recurrent
        d_hidden = d_before[0] + _transposed_product(plan, kernels, d_recurrent)
        d_before = (d_hidden, *d_before[1:])
    d_initial = carry.initial_state
    if step.reset is not None:
        # In rows that restart the gradient belongs to the initial state, and goes no further.
        nothing = _zeros_like(d_before)
        d_initial = _add(d_initial, where_reset(step.reset, d_before, nothing))
        d_before = where_reset(step.reset, nothing, d_before)
    return _StepCarry(d_before, d_initial, _add(carry.weights, d_weights)), d_entering


def _read_gradient(
    plan: FusedPlan, shared: PyTree, sequence: PyTree, d_projected: Gates
) -> tuple[PyTree, PyTree]:
    """Gradients of what x_t was read from, in a chunk: of the sequence, and of what is shared."""
    if plan.read is None:
        return d_projected, None
    if plan.by_chunk:
        _, pullback = jax.vjp(plan.read, shared, sequence)
        d_shared, d_sequence = pullback(d_projected)
        return d_sequence, d_shared
    # Rows of tables: the indices have no gradient.
    _, pullback = jax.vjp(lambda shared: read_gates(plan, shared, sequence), shared)
    return None, pullback(d_projected)[0]


def chunk_size(batch_size: int, length: int) -> tuple[int, int]:
    """Steps of a chunk of about `CHUNK_ROWS` rows, and of all whole chunks.

    A divisor of T is preferred; else the rest of T is a piece of its own.
    """
    limit = max(8, CHUNK_ROWS // batch_size)
    if length <= limit:
        return length, length
    sizes = [size for size in range(limit // 2, limit + 1) if length % size == 0]
    size = sizes[-1] if sizes else limit
    return size, length // size * size


def _kernels(kernel: Float[Array, "heads D GD"], plan: FusedPlan) -> _Kernels:
    """What the reverse loop multiplies by, made once in front of it.

    A product with a transpose folded into it is slower than one of plain operands: Vᵀ dr at B 32,
    H 256 ran at 75 against 98 GFLOP/s, in bfloat16 about half as fast (benchmarks/RESULTS.md).
    """
    plain = cast_kernel(kernel, plan.gated.dtype)
    return _Kernels(plain, transposed(plain[0]) if len(plain) == 1 else None)


def _transposed_product(
    plan: FusedPlan, kernels: _Kernels, d_recurrent: Gates
) -> Float[Array, "B H"]:
    """Dh = Vᵀ dr."""
    if kernels.transpose is not None:
        sides = jnp.concatenate(d_recurrent, -1)
        return dense(sides, kernels.transpose, plan.gated.dtype)
    heads = _split_heads(d_recurrent, len(kernels.plain)).astype(kernels.plain.dtype)
    product = heads_einsum("...nk,ndk->...nd", heads, kernels.plain, plan.gated.dtype)
    return product.reshape(*product.shape[:-2], -1)


def _kernel_gradient(
    plan: FusedPlan,
    kernel: Float[Array, "heads D GD"],
    before: Float[Array, "T B H"],
    d_recurrent: Gates,
) -> tuple[Float[Array, "heads D _"], ...]:
    """DV = Σ_{t,b} h_{t-1} dr_tᵀ in float32 or wider: of a single head gate by gate.

    Gate by gate the loop need not put the gates side by side, which would copy [T, B, G·H].
    """
    num_heads, width, _ = kernel.shape
    heads = before.reshape(-1, num_heads, width).astype(kernel.dtype)
    if num_heads == 1:
        rows = [gate.reshape(-1, width).astype(kernel.dtype) for gate in d_recurrent]
        return tuple(gate[None] for gate in outer_sums(heads[:, 0], rows, plan.gated.dtype))
    sides = _split_heads(d_recurrent, num_heads).reshape(len(heads), num_heads, -1)
    sides = sides.astype(kernel.dtype)
    return (heads_einsum("and,ank->ndk", heads, sides, plan.gated.dtype),)


def _no_kernel_gradient(
    kernel: Float[Array, "heads D GD"], num_gates: int
) -> tuple[Float[Array, "heads D _"], ...]:
    """Zeros as `_kernel_gradient` returns them."""
    wide = jnp.zeros_like(kernel, jnp.promote_types(kernel.dtype, jnp.float32))
    return split_gates(wide, num_gates) if len(kernel) == 1 else (wide,)


def _split_heads(gates: Gates, num_heads: int) -> Float[Array, "... heads GD"]:
    """Gates side by side for each head."""
    heads = [gate.reshape(*gate.shape[:-1], num_heads, -1) for gate in gates]
    return jnp.concatenate(heads, -1)


def _zeros_like(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, tree)


def _add(left: PyTree, right: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, left, right)
