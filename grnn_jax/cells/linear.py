"""How to build a cell that is linear in its state from its coefficients."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey, State
from grnn_jax.cells.base import Cell, Linear, StepFn
from grnn_jax.ops.products import dense, split_gates
from grnn_jax.ops.ranks import align


def linear_cell(
    *,
    hidden_size: int,
    num_gates: int,
    coefficients: Callable[..., tuple[Array, Array]],
    bias: Callable[[], Float[Array, " GH"]],
    weights_init: Callable[[PRNGKey], Params] | None = None,
    dtype: DType = jnp.float32,
    learned_initial_state: bool = False,
) -> Cell:
    """A `Cell` whose gates see the input alone, and whose output is its state.

        a_t, b_t = coefficients(params, x_t),   h_t = a_t ⊙ h_{t-1} + b_t

    The projected input is U x_t + b; gates are stored side by side in U [X, G·H] and b [G·H].

    Args:
        hidden_size: H.
        num_gates: G.
        coefficients: from the parameters and G arrays [..., H] to a and b [..., H].
        bias: makes the initial b.
        weights_init: makes the parameters that `coefficients` reads besides its inputs.
        dtype: compute dtype of the matmul.
        learned_initial_state: whether the initial state is a parameter (else zeros).

    Returns:
        The cell, with its `linear` structure declared.

    Raises:
        ValueError: if hidden_size is not positive.

    Example:
        >>> import grnn_jax, jax, jax.numpy as jnp
        >>> from grnn_jax import cells
        >>> def leaky(params, gate, update):
        ...     decay = jax.nn.sigmoid(gate)
        ...     return decay, (1 - decay) * update
        >>> cell = cells.linear_cell(
        ...     hidden_size=4, num_gates=2, coefficients=leaky, bias=lambda: jnp.zeros(8)
        ... )
        >>> grnn_jax.explain_engine(cell).engine
        'linear'
    """
    if hidden_size < 1:
        raise ValueError(f"hidden_size must be at least 1, got {hidden_size}")

    def init(key: PRNGKey, input_size: int) -> Params:
        kernel = jax.nn.initializers.lecun_normal()(
            key, (input_size, num_gates * hidden_size), jnp.float32
        )
        params = {"input_kernel": kernel, "bias": bias()}
        if weights_init is not None:
            params |= weights_init(jax.random.fold_in(key, 1))
        if learned_initial_state:
            params["initial_state"] = jnp.zeros((1, hidden_size), jnp.float32)
        return params

    def initial_state(params: Params, batch_size: int) -> State:
        if learned_initial_state:
            row = params["initial_state"][0]
        else:
            row = jnp.zeros((hidden_size,), params["bias"].dtype)
        row = row.astype(jnp.promote_types(row.dtype, jnp.float32))
        return (jnp.broadcast_to(row, (batch_size, hidden_size)),)

    def project(params: Params, inputs: Float[Array, "... X"]) -> Float[Array, "... GH"]:
        projected = dense(inputs, params["input_kernel"], dtype)
        return projected + align(params["bias"], projected)

    def coefficients_of(params: Params, projected: Array) -> tuple[Array, Array]:
        return coefficients(params, *split_gates(projected, num_gates))

    def readout(params: Params, hidden: Array, projected: Array) -> Array:
        return hidden

    linear = Linear(coefficients_of, readout)
    return Cell(init, initial_state, project, linear_step(linear), hidden_size, linear=linear)


def linear_step(linear: Linear) -> StepFn:
    """The step that a linear structure defines."""

    def step(params: Params, state: State, projected_t: Array) -> tuple[State, Array]:
        decay, update = linear.coefficients(params, projected_t)
        hidden = decay * state[0] + update
        return (hidden,), linear.readout(params, hidden, projected_t)

    return step
