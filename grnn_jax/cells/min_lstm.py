"""minLSTM: a long short-term memory whose gates see the input alone (Feng et al. 2024)."""

import functools

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Params
from grnn_jax.cells.base import Cell
from grnn_jax.cells.gated import concatenate_biases
from grnn_jax.cells.linear import linear_cell
from grnn_jax.ops.factories import cached_factory


@cached_factory
def min_lstm(
    hidden_size: int,
    *,
    forget_bias: float = 1.0,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""The minLSTM cell, with gates that sum to one.

        i_t = σ(U_i x_t + b_i)      f_t = σ(U_f x_t + b_f)      g_t = U_g x_t + b_g
        h_t = f_t / (f_t + i_t) ⊙ h_{t-1} + i_t / (f_t + i_t) ⊙ g_t

    Gates in the order i, f, g. 3·H·(X + 1) parameters.

    Args:
        hidden_size: H.
        forget_bias: initial b_f; 1 lets the state persist early in training.
        learned_initial_state: whether h_0 is a parameter (else zeros).
        dtype: compute dtype of the matmul.

    Returns:
        The cell; its state is (h,).

    Raises:
        ValueError: if hidden_size is not positive.

    Reference: L. Feng et al., "Were RNNs all we needed?", 2024.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.min_lstm(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 3·H·(X + 1)
        48
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> output.shape, len(state)  # h alone: the output is the state
        ((2, 4), 1)
    """

    def coefficients(
        params: Params, input_gate: Array, forget_gate: Array, candidate: Array
    ) -> tuple[Array, Array]:
        # log (f / i): both gates may underflow, their ratio may not.
        ratio = jax.nn.log_sigmoid(forget_gate) - jax.nn.log_sigmoid(input_gate)
        return jax.nn.sigmoid(ratio), jax.nn.sigmoid(-ratio) * candidate

    return linear_cell(
        hidden_size=hidden_size,
        num_gates=3,
        coefficients=coefficients,
        bias=functools.partial(concatenate_biases, hidden_size, 0.0, forget_bias, 0.0),
        dtype=dtype,
        learned_initial_state=learned_initial_state,
    )
