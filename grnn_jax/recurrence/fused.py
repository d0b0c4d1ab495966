"""The fused engine: a custom gradient for every gated cell.

Plain autodiff of a scan accumulates the gradient of V in the loop, one small matmul and one
[H, G·H] addition for each step. Here the reverse loop only carries the state's gradient
backwards; the gradient of V is one large matmul for a chunk of steps.

Gates are separate arrays throughout: XLA's CPU backend vectorises an elementwise step that reads
whole arrays, and does not when it reads several slices of one array.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Float, Params, PyTree, State
from grnn_jax.cells.base import Cell, Gated
from grnn_jax.ops.products import (
    cast_kernel,
    dense,
    heads_einsum,
    outer_sums,
    recurrent_product,
    split_gates,
    transposed,
)
from grnn_jax.recurrence.base import where_reset
from grnn_jax.recurrence.tokens import Projected

CHUNK_ROWS = 512
"""Events whose gradients wait for one matmul into that of V, so that they stay in the cache."""


def fused_engine(
    cell: Cell,
    params: Params,
    projected: Projected,
    state: State,
    reset: Bool[Array, "T B"] | None,
    initial_state: State,
    *,
    save_recurrent: bool = True,
) -> tuple[Float[Array, "T B H"], State]:
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
    kernel = gated.recurrent_kernel(params) if gated.num_gates else None
    weights = gated.pointwise_weights(params)
    # What is not gathered step by step is projected in chunks, which stay in the cache.
    by_chunk = projected.read is not None and not projected.is_gather
    run = _fused(gated, save_recurrent, projected.read, by_chunk)
    return run(kernel, weights, *projected[1:3], state, initial_state, reset)


@functools.lru_cache(maxsize=64)
def _fused(gated: Gated, save_recurrent: bool, read: Callable | None, by_chunk: bool) -> Callable:
    """The function of one cell that carries its own gradient."""
    num_gates, additive = gated.num_gates, gated.num_additive

    def gates_of(source: PyTree, sequence: PyTree) -> tuple[Array, ...]:
        return sequence if read is None else read(source, sequence)

    def multiply(kernel: Array | None, hidden: Array) -> tuple[Array, ...]:
        if kernel is None:
            return ()
        gates = recurrent_product(kernel, hidden, num_gates, gated.dtype)
        return jax.lax.optimization_barrier(gates)

    def enter(projected: tuple, recurrent: tuple) -> tuple[tuple, tuple, tuple]:
        """What the elementwise step reads besides the state: sums, and x and r of other gates."""
        sums = tuple(map(jnp.add, projected[:additive], recurrent[:additive]))
        if additive:
            sums = jax.lax.optimization_barrier(sums)
        return sums, projected[additive:], recurrent[additive:]

    def keep(entering: tuple[tuple, tuple, tuple]) -> tuple:
        """What the backward pass reads of it; x is there already, but where it came in chunks."""
        sums, projected, recurrent = entering
        if not save_recurrent:
            return ()
        return (sums, projected, recurrent) if by_chunk else (sums, recurrent)

    def complete(kept: tuple, source: PyTree, sequence: PyTree) -> tuple[tuple, tuple, tuple]:
        """What was kept without x, as `enter` gave it."""
        sums, recurrent = kept
        needed = additive < gated.num_inputs
        return sums, gates_of(source, sequence)[additive:] if needed else (), recurrent

    def pointwise(weights, entering, state):
        sums, projected, recurrent = entering
        zeros = (0.0,) * len(sums)
        return gated.pointwise(weights, sums + projected, zeros + recurrent, state)

    def forward(kernel, weights, source, sequence, state, initial_state, reset):
        def step(state: State, inputs: tuple):
            gates, reset_t = inputs
            gates = gates if by_chunk else gates_of(source, gates)
            before = state if reset_t is None else where_reset(reset_t, initial_state, state)
            entering = enter(gates, multiply(kernel, before[0]))
            state = pointwise(weights, entering, before)
            return state, (state, keep(entering))

        def chunk(state: State, inputs: tuple):
            sequence, reset = inputs
            return jax.lax.scan(step, state, (gates_of(source, sequence), reset))

        if by_chunk:
            size, whole = _chunk_size(state[0].shape[0], len(sequence))
            window, rest = _split((sequence, reset), whole)
            final_state, kept = jax.lax.scan(chunk, state, _cut(window, size))
            states, kept = _join(kept)
            if whole < len(sequence):
                final_state, last = chunk(final_state, rest)
                states, kept = _concatenate((states, kept), last)
        else:
            final_state, (states, kept) = jax.lax.scan(step, state, (sequence, reset))
        residuals = (kernel, weights, source, sequence, state, initial_state, reset, states, kept)
        return (states[0], final_state), residuals

    def backward(residuals, cotangents):
        kernel, weights, source, sequence, state, initial_state, reset, states, kept = residuals
        d_outputs, d_final = cotangents
        narrow = None if kernel is None else cast_kernel(kernel, gated.dtype)
        entered = by_chunk or not save_recurrent
        turned = transposed(narrow[0]) if narrow is not None and len(narrow) == 1 else None

        def step(carry: tuple, inputs: tuple):
            d_state, d_initial, d_weights = carry
            d_output, sequence_t, kept_t, before_t, reset_t = inputs
            entering_t = kept_t if entered else complete(kept_t, source, sequence_t)
            d_state = (d_state[0] + d_output, *d_state[1:])
            _, pullback = jax.vjp(pointwise, weights, entering_t, before_t)
            d_weights_t, d_entering, d_before = pullback(d_state)
            d_sums, _, d_others = d_entering
            if narrow is not None:
                d_hidden = d_before[0] + _transposed_product(narrow, turned, d_sums + d_others)
                d_before = (d_hidden, *d_before[1:])
            d_weights = jax.tree.map(jnp.add, d_weights, d_weights_t)
            if reset_t is not None:
                zeros = jax.tree.map(jnp.zeros_like, d_before)
                restarted = where_reset(reset_t, d_before, zeros)
                d_initial = jax.tree.map(jnp.add, d_initial, restarted)
                d_before = where_reset(reset_t, zeros, d_before)
            return (d_before, d_initial, d_weights), d_entering

        def chunk(carry: tuple, inputs: tuple):
            """Some steps, and what they give to the gradients of V and of the tables."""
            inner, d_kernel, d_source = carry
            first, (d_outputs, sequence, kept, states, reset) = inputs
            before = jax.tree.map(
                lambda first, later: jnp.concatenate([first[None], later[:-1]]), first, states
            )
            if reset is not None:
                before = where_reset(reset, initial_state, before)
            if not save_recurrent:
                kept = enter(gates_of(source, sequence), multiply(kernel, before[0]))
            inputs = (d_outputs, None if entered else sequence, kept, before, reset)
            inner, d_entering = jax.lax.scan(step, inner, inputs, reverse=True)
            d_projected, d_recurrent = d_entering[0] + d_entering[1], d_entering[0] + d_entering[2]
            if narrow is not None:
                more = _kernel_gradient(narrow, before[0], d_recurrent)
                d_kernel = jax.tree.map(jnp.add, d_kernel, more)
            if read is None:
                return (inner, d_kernel, d_source), d_projected
            if by_chunk:
                _, pullback = jax.vjp(read, source, sequence)
                d_more, d_sequence = pullback(d_projected)
            else:
                _, pullback = jax.vjp(lambda source: read(source, sequence), source)
                (d_more,), d_sequence = pullback(d_projected), None
            d_source = jax.tree.map(jnp.add, d_source, d_more)
            return (inner, d_kernel, d_source), d_sequence

        def zeros_like(tree: PyTree) -> PyTree:
            return jax.tree.map(jnp.zeros_like, tree)

        start = (d_final, zeros_like(initial_state), zeros_like(weights))
        carry = (
            start,
            None if narrow is None else _no_gradient(narrow, num_gates),
            zeros_like(source),
        )
        if save_recurrent and read is None and additive == gated.num_inputs:
            sequence = None
        window = (d_outputs, sequence, kept, states, reset)
        size, whole = _chunk_size(d_outputs.shape[1], len(d_outputs))
        window, rest = _split(window, whole)
        d_rest = None
        if whole < len(d_outputs):
            first = jax.tree.map(lambda array: array[whole - 1], states)
            carry, d_rest = chunk(carry, (first, rest))
        firsts = jax.tree.map(
            lambda first, later: jnp.concatenate([first[None], later[size - 1 : whole - 1 : size]]),
            state,
            states,
        )
        carry, d_sequence = jax.lax.scan(chunk, carry, (firsts, _cut(window, size)), reverse=True)
        d_sequence = _join(d_sequence)
        if whole < len(d_outputs):
            d_sequence = _concatenate(d_sequence, d_rest)
        (d_state, d_initial, d_weights), d_gates, d_source = carry
        d_kernel = None
        if d_gates is not None:
            d_kernel = jnp.concatenate(d_gates, -1).astype(kernel.dtype)
        return d_kernel, d_weights, d_source, d_sequence, d_state, d_initial, None

    @jax.custom_vjp
    def run(kernel, weights, source, sequence, state, initial_state, reset):
        return forward(kernel, weights, source, sequence, state, initial_state, reset)[0]

    run.defvjp(forward, backward)
    return run


def _chunk_size(batch_size: int, length: int) -> tuple[int, int]:
    """Steps of a chunk, on a CPU about `CHUNK_ROWS` rows, else T; and of all whole chunks.

    A divisor of T is preferred; else the rest of T is a piece of its own.
    """
    limit = max(8, CHUNK_ROWS // batch_size)
    if jax.default_backend() != "cpu" or length <= limit:
        return length, length
    sizes = [size for size in range(limit // 2, limit + 1) if length % size == 0]
    size = sizes[-1] if sizes else limit
    return size, length // size * size


def _split(window: PyTree, whole: int) -> tuple[PyTree, PyTree]:
    """The first `whole` steps, and the rest."""
    return (
        jax.tree.map(lambda array: array[:whole], window),
        jax.tree.map(lambda array: array[whole:], window),
    )


def _concatenate(first: PyTree, second: PyTree) -> PyTree:
    """Two parts of a window, one after the other."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), first, second)


def _cut(window: PyTree, size: int) -> PyTree:
    """Arrays [T, ...] as [T / size, size, ...]."""
    return jax.tree.map(lambda array: array.reshape(-1, size, *array.shape[1:]), window)


def _join(window: PyTree) -> PyTree:
    """Arrays [chunks, size, ...] as [T, ...]."""
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), window)


def _transposed_product(
    kernel: Float[Array, "heads D GD"],
    turned: Float[Array, "GD D"] | None,
    d_recurrent: tuple[Float[Array, "B H"], ...],
) -> Float[Array, "B H"]:
    """Dh = Vᵀ dr; of a single head Vᵀ is given."""
    if turned is not None:
        return dense(jnp.concatenate(d_recurrent, -1), turned, turned.dtype)
    heads = _split_heads(d_recurrent, len(kernel))
    product = heads_einsum("...nk,ndk->...nd", heads.astype(kernel.dtype), kernel)
    return product.reshape(*product.shape[:-2], -1)


def _kernel_gradient(
    kernel: Float[Array, "heads D GD"],
    before: Float[Array, "T B H"],
    d_recurrent: tuple[Float[Array, "T B H"], ...],
) -> tuple[Float[Array, "heads D _"], ...]:
    """DV = Σ_{t,b} h_{t-1} dr_tᵀ in float32 or wider: of a single head gate by gate."""
    num_heads, width, _ = kernel.shape
    heads = before.reshape(-1, num_heads, width).astype(kernel.dtype)
    if num_heads == 1:
        rows = [gate.reshape(-1, width).astype(kernel.dtype) for gate in d_recurrent]
        return tuple(gate[None] for gate in outer_sums(heads[:, 0], rows))
    sides = _split_heads(d_recurrent, num_heads).reshape(len(heads), num_heads, -1)
    return (heads_einsum("and,ank->ndk", heads, sides.astype(kernel.dtype)),)


def _no_gradient(
    kernel: Float[Array, "heads D GD"], num_gates: int
) -> tuple[Float[Array, "heads D _"], ...]:
    """Zeros as `_kernel_gradient` returns them."""
    wide = jnp.zeros(kernel.shape, jnp.promote_types(kernel.dtype, jnp.float32))
    return split_gates(wide, num_gates) if len(kernel) == 1 else (wide,)


def _split_heads(gates: tuple[Float[Array, "... H"], ...], num_heads: int) -> Array:
    """Gates side by side for each head, [..., heads, G·D]."""
    heads = [gate.reshape(*gate.shape[:-1], num_heads, -1) for gate in gates]
    return jnp.concatenate(heads, -1)
