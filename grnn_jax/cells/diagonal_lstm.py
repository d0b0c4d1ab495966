"""LSTM with a diagonal recurrence, which can be run parallel in time (Danieli et al. 2025)."""

import functools

import jax.numpy as jnp

from grnn_jax.array_types import DType
from grnn_jax.cells.base import Cell
from grnn_jax.cells.diagonal import diagonal_cell
from grnn_jax.cells.gated import concatenate_biases
from grnn_jax.cells.lstm import lstm_pointwise
from grnn_jax.ops.factories import cached_factory


@cached_factory
def diagonal_lstm(
    hidden_size: int,
    *,
    forget_bias: float = 1.0,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""LSTM cell with diagonal V.

        i_t = σ(U_i x_t + v_i ⊙ h_{t-1} + b_i)      f_t = σ(U_f x_t + v_f ⊙ h_{t-1} + b_f)
        g_t = tanh(U_g x_t + v_g ⊙ h_{t-1} + b_g)   o_t = σ(U_o x_t + v_o ⊙ h_{t-1} + b_o)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t             h_t = o_t ⊙ tanh(c_t)

    Gates in the order i, f, g, o. 4·H·(X + 2) parameters. Equal to `lstm` with num_heads = H.

    Args:
        hidden_size: H.
        forget_bias: initial b_f; 1 lets the state persist early in training.
        learned_initial_state: whether h_0 and c_0 are parameters (else zeros).
        dtype: compute dtype of the matmul.

    Returns:
        The cell; its state is (h, c).

    Raises:
        ValueError: if hidden_size is not positive.

    Reference: F. Danieli et al., "ParaRNN: unlocking parallel training of nonlinear RNNs for large
    language models", 2025 (its cell has coupled gates and peepholes; this one is the plain LSTM).

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells
        >>> cell = cells.diagonal_lstm(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 4·H·(X + 2)
        80
        >>> "newton" in grnn_jax.supported_engines(cell)  # the Jacobian is one small block a unit
        True
    """
    return diagonal_cell(
        hidden_size=hidden_size,
        num_gates=4,
        num_states=2,
        pointwise=lstm_pointwise,
        bias=functools.partial(concatenate_biases, hidden_size, 0.0, forget_bias, 0.0, 0.0),
        dtype=dtype,
        learned_initial_state=learned_initial_state,
    )
