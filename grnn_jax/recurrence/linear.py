"""The linear engine: cells that are linear in their state, all steps of a window at once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Float, Params, State
from grnn_jax.cells.base import Cell, Linear
from grnn_jax.ops.ranks import align
from grnn_jax.recurrence.linear_scan import linear_scan, linear_scan_gradient

METHOD_OF_PLATFORM = {"cpu": "sequential", "cuda": "parallel", "default": "chunked"}
"""The method of `linear_scan` on each platform (benchmarks/RESULTS.md).

On a CPU measured fastest. On a GPU, where every kernel is a launch, counted: at T 1,024 parallel
has 11 kernels forward and 28 in training, chunked 139 and 280, in fewer bytes. On a TPU estimated:
chunked takes 0.47M and 1.79M cycles, parallel 1.20M and 3.35M (H 512, B 8)."""


def linear_engine(
    cell: Cell,
    params: Params,
    projected: Float[Array, "T B P"],
    state: State,
    reset: Bool[Array, "T B"] | None,
    initial_state: State,
    *,
    method: str | None = None,
    axis_name: str | None = None,
) -> tuple[Float[Array, "T B H"], State]:
    r"""Runs a linear cell over all steps of a window at once.

        a, b = coefficients(x)                                       all steps at once
        s_t = a_t ⊙ s_{t-1} + b_t,   where reset_t: s_t = a_t ⊙ s_0 + b_t
        h = readout(s, x)                                            all steps at once

    The gradient is one scan in reverse. Between the passes only x and s are kept; a, b and all that
    the coefficients' derivative needs are computed again. Reverse mode, to any order, and `vmap`;
    for forward mode use the scan engine.

    Args:
        cell: a cell with `linear` structure.
        params: the cell's parameters.
        projected: the cell's projected inputs.
        state: the state before the first step, (s,).
        reset: rows that restart from `initial_state` before a step.
        initial_state: what they restart from.
        method: see `linear_scan`; None is what `METHOD_OF_PLATFORM` says of the platform that the
            program is lowered for, and "chunked" on split steps.
        axis_name: axis of a mesh over which the steps are split, see `linear_scan`.

    Returns:
        outputs and the final state, as the scan engine.

    Raises:
        ValueError: if the cell has no linear structure.
    """
    if cell.linear is None:
        raise ValueError("the linear engine needs a cell with linear structure; use 'scan'")
    if method is None and axis_name is not None:
        method = "chunked"
    run = _states(cell.linear, method, axis_name)
    states = run(params, projected, state[0], initial_state[0], reset)
    return cell.linear.readout(params, states, projected), (states[-1],)


@functools.lru_cache(maxsize=64)
def _states(linear: Linear, method: str | None, axis_name: str | None) -> Callable[..., Array]:
    """The function from projected inputs to all states that carries its own gradient."""

    def coefficients(
        params: Params, projected: Array, fresh: Array, reset: Array | None
    ) -> tuple[Array, Array]:
        decay, update = linear.coefficients(params, projected)
        if reset is None:
            return decay, update
        # s_t = a ⊙ s_0 + b needs no state before it: a decay of 0 cuts the scan there exactly.
        restarts = reset[:, :, None]
        update = jnp.where(restarts, update + decay * align(fresh, decay), update)
        return jnp.where(restarts, 0, decay), update

    @jax.custom_vjp
    def run(
        params: Params, projected: Array, state: Array, fresh: Array, reset: Array | None
    ) -> Array:
        decay, update = coefficients(params, projected, fresh, reset)
        scan = functools.partial(linear_scan, axis_name=axis_name)
        states: Array = _by_platform(scan, method, decay, update, state)
        return states

    def forward(
        params: Params, projected: Array, state: Array, fresh: Array, reset: Array | None
    ) -> tuple[Array, tuple[Any, ...]]:
        states = run(params, projected, state, fresh, reset)
        return states, (params, projected, state, fresh, reset, states)

    def backward(residuals: tuple[Any, ...], d_states: Array) -> tuple[Any, ...]:
        params, projected, state, fresh, reset, states = residuals
        # Without the barrier XLA finds the forward pass's values, and keeps them all.
        projected = jax.lax.optimization_barrier(projected)

        def restarted(params: Params, projected: Array, fresh: Array) -> tuple[Array, Array]:
            return coefficients(params, projected, fresh, reset)

        # Computed again: a, b and what their derivative needs would be several [T, B, S] arrays
        # kept between the passes, and they are elementwise.
        (decay, update), pullback = jax.vjp(restarted, params, projected, fresh)
        gradient = functools.partial(linear_scan_gradient, axis_name=axis_name)
        d_decay, d_update, d_state = _by_platform(gradient, method, decay, state, states, d_states)
        d_coefficients = _as_type_of(decay, d_decay), _as_type_of(update, d_update)
        d_params, d_projected, d_fresh = pullback(d_coefficients)
        return d_params, d_projected, _as_type_of(state, d_state), d_fresh, None

    run.defvjp(forward, backward)
    return run


def _by_platform(run: Callable[..., Any], method: str | None, *arrays: Array) -> Any:
    """A scan by the method that was asked for, or by that of the platform it is lowered for."""
    if method is not None:
        return run(*arrays, method=method)
    methods = {
        platform: functools.partial(run, method=method)
        for platform, method in METHOD_OF_PLATFORM.items()
    }
    return jax.lax.platform_dependent(*arrays, **methods)


def _as_type_of(value: Array, gradient: Array) -> Array:
    """The gradient in the dtype of its value: its real part for a real one."""
    if jnp.iscomplexobj(gradient) and not jnp.iscomplexobj(value):
        gradient = gradient.real
    return gradient.astype(value.dtype)
