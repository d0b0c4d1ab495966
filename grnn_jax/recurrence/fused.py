"""The fused engine: a custom gradient for every gated cell.

Plain autodiff of a scan accumulates the gradient of V in the loop, one small matmul and one
[H, G·H] addition for each step. Here the reverse loop only carries the state's gradient
backwards; the gradient of V is one large matmul after it.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Float, Params, State
from grnn_jax.cells.base import Cell, Gated
from grnn_jax.cells.products import (
    cast_kernel,
    dense,
    heads_einsum,
    recurrent_product,
    split_gates,
)
from grnn_jax.recurrence.base import where_reset


def fused_engine(
    cell: Cell,
    params: Params,
    projected: Float[Array, "T B P"],
    state: State,
    reset: Bool[Array, "T B"] | None,
    initial_state: State,
    *,
    save_recurrent: bool = True,
) -> tuple[Float[Array, "T B H"], State]:
    r"""Runs a gated cell with its own backward pass.

        forward   r_t = V h_{t-1},  s_t = pointwise(x_t, r_t, s_{t-1})
        backward  (dx_t, dr_t, ds_{t-1}) = pointwise_vjp(ds_t + dy_t),  dh_{t-1} += Vᵀ dr_t
        after     dV = Σ_t h_{t-1} dr_tᵀ

    Reverse mode only, to any order, and `vmap`; forward mode (`jvp`, `jacfwd`, `hessian`) is
    not defined for a custom gradient: use the scan engine there.

    Args:
        cell: a cell with `gated` structure.
        params: the cell's parameters.
        projected: U x_t + b.
        state: the state before the first step.
        reset: rows that restart from `initial_state` before a step.
        initial_state: what they restart from.
        save_recurrent: keeps r_t [T, B, G·H] for the backward pass; if False it is recomputed
            there by one matmul over all steps, for less memory between the passes.

    Returns:
        outputs and the final state, as the scan engine.

    Raises:
        ValueError: if the cell has no gated structure.
    """
    gated = cell.gated
    if gated is None:
        raise ValueError("the fused engine needs a cell with gated structure; use 'scan'")
    kernel = gated.recurrent_kernel(params) if gated.num_gates else None
    weights = gated.pointwise_weights(params)
    run = _fused(gated, save_recurrent)
    return run(kernel, weights, projected, state, initial_state, reset)


@functools.lru_cache(maxsize=64)
def _fused(gated: Gated, save_recurrent: bool) -> Callable:
    """The function of one cell that carries its own gradient."""
    pointwise, num_gates = gated.pointwise, gated.num_gates

    def multiply(kernel: Array | None, hidden: Array) -> tuple[Array, ...]:
        if kernel is None:
            return ()
        return recurrent_product(kernel, hidden, num_gates, gated.dtype)

    def forward(kernel, weights, projected, state, initial_state, reset):
        def step(state: State, inputs: tuple):
            projected_t, reset_t = inputs
            if reset_t is not None:
                state = where_reset(reset_t, initial_state, state)
            recurrent = multiply(kernel, state[0])
            state = pointwise(weights, split_gates(projected_t, gated.num_inputs), recurrent, state)
            return state, (state, recurrent if save_recurrent else None)

        final_state, (states, recurrent) = jax.lax.scan(step, state, (projected, reset))
        residuals = (kernel, weights, projected, state, initial_state, reset, states, recurrent)
        return (states[0], final_state), residuals

    def backward(residuals, cotangents):
        kernel, weights, projected, state, initial_state, reset, states, recurrent = residuals
        d_outputs, d_final = cotangents
        narrow = None if kernel is None else cast_kernel(kernel, gated.dtype)
        before = tuple(
            jnp.concatenate([first[None].astype(later.dtype), later[:-1]])
            for first, later in zip(state, states, strict=True)
        )
        if reset is not None:
            before = where_reset(reset, initial_state, before)
        if recurrent is None:
            recurrent = multiply(kernel, before[0])

        def step(carry: tuple, inputs: tuple):
            d_state, d_initial, d_weights = carry
            d_output, projected_t, recurrent_t, before_t, reset_t = inputs
            d_state = (d_state[0] + d_output, *d_state[1:])
            gates = split_gates(projected_t, gated.num_inputs)
            _, pullback = jax.vjp(pointwise, weights, gates, recurrent_t, before_t)
            d_weights_t, d_gates, d_recurrent, d_before = pullback(d_state)
            # Where x and r only enter as x + r their gradients are one array: keep it once.
            shared = len(d_gates) == len(d_recurrent) and all(
                map(operator.is_, d_gates, d_recurrent)
            )
            d_projected = None if shared and gated.num_heads == 1 else jnp.concatenate(d_gates, -1)
            if narrow is not None:
                d_recurrent = _merge_gates(d_recurrent, gated.num_heads)
                d_hidden = d_before[0] + _transposed_product(narrow, d_recurrent)
                d_before = (d_hidden, *d_before[1:])
            d_weights = jax.tree.map(jnp.add, d_weights, d_weights_t)
            if reset_t is not None:
                zeros = jax.tree.map(jnp.zeros_like, d_before)
                restarted = where_reset(reset_t, d_before, zeros)
                d_initial = jax.tree.map(jnp.add, d_initial, restarted)
                d_before = where_reset(reset_t, zeros, d_before)
            return (d_before, d_initial, d_weights), (d_projected, d_recurrent)

        start = (
            d_final,
            jax.tree.map(jnp.zeros_like, initial_state),
            jax.tree.map(jnp.zeros_like, weights),
        )
        inputs = (d_outputs, projected, recurrent, before, reset)
        (d_state, d_initial, d_weights), (d_projected, d_recurrent) = jax.lax.scan(
            step, start, inputs, reverse=True
        )
        if d_projected is None:
            d_projected = d_recurrent
        d_kernel = None
        if narrow is not None:
            d_kernel = _kernel_gradient(narrow, before[0], d_recurrent).astype(kernel.dtype)
        return d_kernel, d_weights, d_projected, d_state, d_initial, None

    @jax.custom_vjp
    def run(kernel, weights, projected, state, initial_state, reset):
        return forward(kernel, weights, projected, state, initial_state, reset)[0]

    run.defvjp(forward, backward)
    return run


def _merge_gates(gates: tuple[Array, ...], num_heads: int) -> Array:
    """Gates [..., H] side by side: [..., G·H], or [..., heads, G·D] for several heads."""
    if num_heads == 1:
        return jnp.concatenate(gates, -1)
    heads = [gate.reshape(*gate.shape[:-1], num_heads, -1) for gate in gates]
    return jnp.concatenate(heads, -1)


def _transposed_product(kernel: Float[Array, "heads D GD"], d_recurrent: Array) -> Array:
    """Dh = Vᵀ dr, [..., H]."""
    if kernel.shape[0] == 1:
        return dense(d_recurrent, kernel[0].T, kernel.dtype)
    product = heads_einsum("...nk,ndk->...nd", d_recurrent.astype(kernel.dtype), kernel)
    return product.reshape(*product.shape[:-2], -1)


def _kernel_gradient(
    kernel: Float[Array, "heads D GD"], before: Float[Array, "T B H"], d_recurrent: Array
) -> Float[Array, "heads D GD"]:
    """DV = Σ_{t,b} h_{t-1} dr_tᵀ as one matmul, accumulated in float32 or wider."""
    num_heads, width, _ = kernel.shape
    heads = before.reshape(-1, num_heads, width).astype(kernel.dtype)
    gates = d_recurrent.reshape(heads.shape[0], num_heads, -1).astype(kernel.dtype)
    if num_heads == 1:
        accumulate = jnp.promote_types(kernel.dtype, jnp.float32)
        return jnp.matmul(heads[:, 0].T, gates[:, 0], preferred_element_type=accumulate)[None]
    return heads_einsum("and,ank->ndk", heads, gates)
