"""The multiplicative LSTM (Krause et al. 2016)."""

import jax.numpy as jnp

from grnn_jax.array_types import DType
from grnn_jax.cells.base import Cell
from grnn_jax.cells.lstm import lstm
from grnn_jax.cells.multiplicative import multiplicative
from grnn_jax.ops.factories import cached_factory


@cached_factory
def multiplicative_lstm(
    hidden_size: int,
    *,
    forget_bias: float = 1.0,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""Multiplicative LSTM cell.

        m_t = (U_m x_t) ⊙ (V_m h_{t-1})
        i_t = σ(U_i x_t + V_i m_t + b_i)            f_t = σ(U_f x_t + V_f m_t + b_f)
        g_t = tanh(U_g x_t + V_g m_t + b_g)         o_t = σ(U_o x_t + V_o m_t + b_o)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t             h_t = o_t ⊙ tanh(c_t)

    Gates in the order i, f, g, o. H·(5·X + 5·H + 4) parameters: m has as many units as h. No
    structure: runs by "scan".

    Args:
        hidden_size: H.
        forget_bias: initial b_f; 1 lets the state persist early in training.
        learned_initial_state: whether h_0 and c_0 are parameters (else zeros).
        dtype: compute dtype of the matmuls.

    Returns:
        The cell; its state is (h, c).

    Raises:
        ValueError: if hidden_size is not positive.

    Reference: B. Krause et al., "Multiplicative LSTM for sequence modelling", 2016.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.multiplicative_lstm(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # H·(5·X + 5·H + 4)
        156
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> output.shape, len(state)
        ((2, 4), 2)
    """
    cell = lstm(
        hidden_size,
        forget_bias=forget_bias,
        learned_initial_state=learned_initial_state,
        dtype=dtype,
    )
    return multiplicative(cell, dtype)
