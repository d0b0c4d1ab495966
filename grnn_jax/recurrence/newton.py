"""The newton engine: non-linear cells, all steps of a window at once.

Newton's method on the equations s_t = f(s_{t-1}, x_t) of all steps: each iteration is one
evaluation of f and its Jacobian at all steps side by side, and one linear scan. It pays where many
steps can be computed at once; what does not converge is computed step by step.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Float, Int, Params, PyTree, State
from grnn_jax.cells.base import Cell, Gated
from grnn_jax.ops.entry import vary_alike
from grnn_jax.recurrence.base import where_reset
from grnn_jax.recurrence.devices import is_first_device, scan_over_devices, shift
from grnn_jax.recurrence.jacobian import (
    block_size,
    from_blocks,
    gated_step,
    number_of_blocks,
    step_jacobian,
    to_blocks,
)
from grnn_jax.recurrence.linear_scan import block_linear_scan

BLOCK_LIMIT = 8
"""Largest block of the Jacobian, states · head width; the work of an iteration grows as N³."""

MAX_ITERATIONS = 50

FIXED_POINT_STEPS = 3
"""Evaluations of f alone that make the first guess; a cell that forgets is then near."""


class NewtonReport(NamedTuple):
    """How the iteration went for each sequence.

    Attributes:
        iterations: Newton iterations until the slowest unit had converged.
        residual: the largest |f(s_{t-1}) - s_t| / max(1, |s_t|) where the iteration ended.
        converged: whether all units had a residual within the tolerance; the others were
            computed step by step.
    """

    iterations: Int[Array, " B"]
    residual: Float[Array, " B"]
    converged: Bool[Array, " B"]


class Settings(NamedTuple):
    """How the equations are solved.

    Attributes:
        max_iterations: Newton iterations before what is left is computed step by step.
        tolerance: residual at which a unit counts as converged; None is 8 roundings of the
            state's dtype, 1e-6 in float32.
        method: see `linear_scan`.
        axis_name: axis of a mesh over which the steps are split, see `linear_scan`.
    """

    max_iterations: int = MAX_ITERATIONS
    tolerance: float | None = None
    method: str = "chunked"
    axis_name: str | None = None


def supports(cell: Cell) -> bool:
    """Whether the Jacobian of the cell's step has blocks that are small enough."""
    size = block_size(cell)
    return size is not None and size <= BLOCK_LIMIT


def newton_engine(
    cell: Cell,
    params: Params,
    projected: Float[Array, "T B P"],
    state: State,
    reset: Bool[Array, "T B"] | None,
    initial_state: State,
    *,
    axis_name: str | None = None,
) -> tuple[Float[Array, "T B H"], State]:
    """Runs a gated cell over all steps of a window at once, see `newton`, without its report."""
    settings = Settings(axis_name=axis_name)
    return newton(cell, params, projected, state, reset, initial_state, settings)[:2]


def newton(
    cell: Cell,
    params: Params,
    projected: Float[Array, "T B P"],
    state: State,
    reset: Bool[Array, "T B"] | None,
    initial_state: State,
    settings: Settings,
) -> tuple[Float[Array, "T B H"], State, NewtonReport]:
    r"""Solves the equations of all steps by Newton's method.

        residual    r_t = f(s_{t-1}, x_t) - s_t
        correction  d_t = J_t d_{t-1} + r_t,  J_t = ∂f/∂s_{t-1}      one linear scan
        iteration   s_t ← s_t + clip(d_t, ± max(1, |s_t|))

        gradient    g_t = ds_t + J_{t+1}ᵀ g_{t+1}                    one linear scan in reverse
                    dθ = Σ_t (∂f/∂θ)ᵀ g_t                            all steps at once

    The blocks of the Jacobian (units, or heads) are problems of their own: each stops by itself
    once its residual is within the tolerance, at the level of rounding. Its states then solve a
    recurrence perturbed by no more than the rounding of `scan`. Large weights make far-away
    Jacobians explode; the correction is therefore clipped, and where it is no number the
    residual takes its place. Blocks that have not converged after `max_iterations`, among them
    all with NaN, are computed step by step.

    The gradient is that of the equations at the solution (implicit function theorem), the same
    numbers as backpropagation through the steps: it depends neither on the path of the iteration
    nor on whether the states came from it. The reverse scan is checked by its own residual, and
    replaced by one step by step where it overflows or cancels. Reverse mode, to any order, and
    `vmap` (where both branches of the fallback are computed).

    Args:
        cell: a gated cell whose Jacobian has blocks of at most `BLOCK_LIMIT` rows.
        params: the cell's parameters.
        projected: U x_t + b.
        state: the state before the first step.
        reset: rows that restart from `initial_state` before a step.
        initial_state: what they restart from.
        settings: see `Settings`.

    Returns:
        outputs and final state, as the scan engine (on split steps, the state after this
        device's steps), and the report.

    Raises:
        ValueError: if the cell does not qualify.

    Reference: Y. H. Lim et al., "Parallelizing non-linear sequential models over the sequence
    length", ICLR 2024; F. Danieli et al., "ParaRNN: unlocking parallel training of nonlinear RNNs
    for large language models", 2025; X. Gonzalez et al., "Towards scalable and stable
    parallelization of nonlinear RNNs", NeurIPS 2024.
    """
    gated = cell.gated
    if gated is None or not supports(cell):
        raise ValueError(
            f"the newton engine needs a gated cell of blocks of at most {BLOCK_LIMIT}, got "
            f"{block_size(cell)}; use 'scan'"
        )
    kernel = gated.recurrent_kernel(params) if gated.num_gates else None
    weights = gated.pointwise_weights(params)
    states, report = _solver(gated, settings)(
        kernel, weights, projected, state, initial_state, reset
    )
    return states[0], tuple(array[-1] for array in states), jax.lax.stop_gradient(report)


@functools.lru_cache(maxsize=64)
def _solver(gated: Gated, settings: Settings) -> Callable[..., tuple[State, NewtonReport]]:
    """The function of one cell that carries its own gradient."""
    axis_name = settings.axis_name
    scan = functools.partial(block_linear_scan, axis_name=axis_name)

    def in_front(states: State, state: State, initial_state: State, reset: Array | None) -> State:
        before = tuple(
            shift(later, first, axis_name=axis_name)
            for later, first in zip(states, state, strict=True)
        )
        return before if reset is None else where_reset(reset, initial_state, before)

    def jacobian(
        kernel: Array | None,
        weights: PyTree,
        projected: Array,
        before: State,
        reset: Array | None,
    ) -> Float[Array, "T N N U"]:
        blocks = step_jacobian(gated, kernel, weights, projected, before)
        if reset is None:
            return blocks
        restarts = jnp.repeat(reset, blocks.shape[-1] // reset.shape[1], 1)
        return jnp.where(restarts[:, None, None], 0, blocks)

    @jax.custom_vjp
    def solve(
        kernel: Array | None,
        weights: PyTree,
        projected: Array,
        state: State,
        initial_state: State,
        reset: Array | None,
    ) -> tuple[State, NewtonReport]:
        length, (batch_size, hidden_size) = projected.shape[0], state[0].shape
        num_states, num_blocks = len(state), number_of_blocks(gated, hidden_size)

        def advance(states: State) -> State:
            before = in_front(states, state, initial_state, reset)
            return gated_step(gated, kernel, weights, projected, before)

        def residual_of(states: Array) -> tuple[Array, Array]:
            after = advance(from_blocks(states, num_states, num_blocks))
            residual = to_blocks(after, num_blocks) - states
            size = (jnp.abs(residual) / jnp.maximum(1, jnp.abs(states))).max((0, 1))
            return residual, size if axis_name is None else _largest(size, axis_name)

        def unfinished(carry: tuple[Any, ...]) -> Array:
            _, _, size, _, number = carry
            more: Array = (number < settings.max_iterations) & ~(size <= tolerance).all()
            return more

        def iterate(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            states, residual, size, iterations, number = carry
            before = in_front(
                from_blocks(states, num_states, num_blocks), state, initial_state, reset
            )
            blocks = jacobian(kernel, weights, projected, before, reset)
            # The state in front of the window is given, so its correction is zero.
            zeros = jnp.zeros_like(residual[0])
            correction = scan(blocks, residual, zeros, method=settings.method)
            # Far from the solution a product of many Jacobians overflows; the residual by itself is
            # one more fixed-point step, which needs no product.
            correction = jnp.where(jnp.isnan(correction), residual, correction)
            # And what is finite may point far away: no unit moves by more than its own size.
            limit = jnp.maximum(1, jnp.abs(states))
            # Written so that a NaN stays active; what has converged keeps its bits, whatever its
            # neighbours in the batch still need.
            active = ~(size <= tolerance)
            states = jnp.where(active, states + jnp.clip(correction, -limit, limit), states)
            residual, size = residual_of(states)
            return states, residual, size, iterations + active, number + 1

        # Without a linear scan these steps are cheap, and bring cells that forget near at once.
        guess = tuple(jnp.broadcast_to(array, (length, *array.shape)) for array in state)
        guess = jax.lax.fori_loop(0, FIXED_POINT_STEPS, lambda _, states: advance(states), guess)
        start = to_blocks(guess, num_blocks)
        tolerance = settings.tolerance
        if tolerance is None:
            tolerance = 8 * float(jnp.finfo(start.dtype).eps)
        count = jnp.zeros((batch_size * num_blocks,), jnp.int32)
        carry = vary_alike((start, *residual_of(start), count, jnp.int32(0)))
        blocks, _, size, iterations, _ = jax.lax.while_loop(unfinished, iterate, carry)
        done = (size <= tolerance).reshape(batch_size, num_blocks)

        def step_by_step(solved: State) -> State:
            def step(state: State, inputs: tuple[Any, ...]) -> tuple[State, State]:
                projected_t, reset_t = inputs
                if reset_t is not None:
                    state = where_reset(reset_t, initial_state, state)
                state = gated_step(gated, kernel, weights, projected_t, state)
                return state, state

            def run(state: State) -> tuple[State, State]:
                return jax.lax.scan(step, state, (projected, reset))

            states = scan_over_devices(run, state, axis_name=axis_name)
            keep = jnp.repeat(done, hidden_size // num_blocks, 1)
            return tuple(
                jnp.where(keep, ours, theirs) for ours, theirs in zip(solved, states, strict=True)
            )

        solved = from_blocks(blocks, num_states, num_blocks)
        states = jax.lax.cond(done.all(), lambda solved: solved, step_by_step, solved)
        report = NewtonReport(
            iterations.reshape(batch_size, num_blocks).max(1),
            size.reshape(batch_size, num_blocks).max(1),
            done.all(1),
        )
        return states, report

    def forward(*arguments: Any) -> tuple[tuple[State, NewtonReport], tuple[Any, ...]]:
        states, report = solve(*arguments)
        return (states, report), (*arguments, states)

    def backward(residuals: tuple[Any, ...], cotangents: tuple[State, Any]) -> tuple[Any, ...]:
        kernel, weights, projected, state, initial_state, reset, states = residuals
        d_states, _ = cotangents
        num_blocks = number_of_blocks(gated, state[0].shape[1])
        before = in_front(states, state, initial_state, reset)
        blocks = jacobian(kernel, weights, projected, before, reset).swapaxes(1, 2)
        # The gradient at step t meets the Jacobian of step t + 1; behind the last step is none.
        zeros = jnp.zeros_like(blocks[0])
        following = shift(blocks, zeros, reverse=True, axis_name=axis_name)
        total = _checked_reverse_scan(settings, following, to_blocks(d_states, num_blocks))

        def step(kernel: Array | None, weights: PyTree, projected: Array, before: State) -> State:
            return gated_step(gated, kernel, weights, projected, before)

        _, pullback = jax.vjp(step, kernel, weights, projected, before)
        d_kernel, d_weights, d_projected, d_before = pullback(
            from_blocks(total, len(state), num_blocks)
        )
        nothing = jax.tree.map(jnp.zeros_like, d_before)
        restarted = nothing
        if reset is not None:
            restarted = where_reset(reset, d_before, nothing)
            d_before = where_reset(reset, nothing, d_before)
        d_initial = tuple(array.sum(0) for array in restarted)
        d_state = tuple(array[0] for array in d_before)
        if axis_name is not None:
            d_state = tuple(jnp.where(is_first_device(axis_name), array, 0) for array in d_state)
        return d_kernel, d_weights, d_projected, d_state, d_initial, None

    solve.defvjp(forward, backward)
    return solve


def _largest(values: Array, axis_name: str) -> Array:
    """The largest over devices, NaN where one is NaN."""
    largest: Array = jax.lax.all_gather(values, axis_name).max(0)
    return largest


def _checked_reverse_scan(
    settings: Settings, matrices: Float[Array, "T N N U"], update: Float[Array, "T N U"]
) -> Float[Array, "T N U"]:
    """g_t = b_t + A_t g_{t+1}, by the settings' method where that is as good as step by step.

    Products of many matrices overflow where the recurrence itself does not, as behind the last
    step that has a loss, and cancel; what is no solution up to rounding is computed again.
    """
    zeros, axis_name = jnp.zeros_like(update[0]), settings.axis_name
    scan = functools.partial(
        block_linear_scan, initial=zeros, reverse=True, axis_name=settings.axis_name
    )
    total = scan(matrices, update, method=settings.method)
    following = shift(total, zeros, reverse=True, axis_name=axis_name)[:, None]
    error = update + (matrices * following).sum(2) - total
    scale = jnp.abs(update) + (jnp.abs(matrices) * jnp.abs(following)).sum(2)
    error, scale = jnp.abs(error).max((0, 1)), scale.max((0, 1))
    if axis_name is not None:
        error, scale = _largest(error, axis_name), _largest(scale, axis_name)
    fine = error <= 64 * jnp.finfo(total.dtype).eps * scale

    def step_by_step(total: Array) -> Array:
        return jnp.where(fine, total, scan(matrices, update, method="sequential"))

    checked: Array = jax.lax.cond(fine.all(), lambda total: total, step_by_step, total)
    return checked
