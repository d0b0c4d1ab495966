"""sLSTM: the LSTM with exponential gates of xLSTM (Beck et al. 2024)."""

import functools

import jax
import jax.numpy as jnp

from grnn_jax.array_types import DType, PyTree, State
from grnn_jax.cells.base import Cell, Gates
from grnn_jax.cells.gated import concatenate_biases, gated_cell
from grnn_jax.ops.factories import cached_factory

LOG_NOTHING = -1e30
"""Stands for log 0, without its infinite differences."""


@cached_factory
def slstm(
    hidden_size: int,
    *,
    num_heads: int = 1,
    forget_bias: float = 1.0,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""SLSTM cell, stabilised, with heads that do not see each other.

        i_t = exp(ĩ_t)              ĩ_t = U_i x_t + V_i h_{t-1} + b_i
        f_t = σ(f̃_t)                f̃_t = U_f x_t + V_f h_{t-1} + b_f
        g_t = tanh(U_g x_t + V_g h_{t-1} + b_g)     o_t = σ(U_o x_t + V_o h_{t-1} + b_o)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t             n_t = f_t ⊙ n_{t-1} + i_t
        h_t = o_t ⊙ c_t / n_t

    The state holds c and n divided by exp(m), with m_t = max(log f_t + m_{t-1}, ĩ_t), so that no
    gate overflows; where n_{t-1} is 0 nothing is stored yet, and m_t = ĩ_t. Of the paper's two
    forget gates, σ and exp, this is the first, as in its authors' code. The norm over a head's
    outputs belongs to the paper's block and is not part of the cell.

    Gates in the order i, f, g, o. 4·H·(X + H/heads + 1) parameters.

    Args:
        hidden_size: H.
        num_heads: heads of a block-diagonal V; 1 is dense.
        forget_bias: initial b_f; 1 lets the state persist early in training.
        learned_initial_state: whether the state's four rows are parameters (else zeros); while
            n_0 is 0 only h_0 acts and learns.
        dtype: compute dtype of the matmuls.

    Returns:
        The cell; its state is (h, c, n, m).

    Raises:
        ValueError: for sizes that do not fit.

    Reference: M. Beck et al., "xLSTM: extended long short-term memory", NeurIPS 2024.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.slstm(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 4·H·(X + H + 1)
        128
        >>> inputs = jax.numpy.full((2, 3), 1e4)  # exponential gates that do not overflow
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> bool(jax.numpy.isfinite(output).all()), len(state)
        (True, 4)
    """

    def pointwise(weights: PyTree, projected: Gates, recurrent: Gates, state: State) -> State:
        _, memory, normaliser, log_scale = state
        log_input = projected[0] + recurrent[0]
        log_forget = jax.nn.log_sigmoid(projected[1] + recurrent[1])
        candidate = jnp.tanh(projected[2] + recurrent[2])
        output_gate = jax.nn.sigmoid(projected[3] + recurrent[3])
        log_kept = jnp.where(normaliser > 0, log_forget + log_scale, LOG_NOTHING)
        log_scale = jnp.maximum(log_kept, log_input)
        kept, entering = jnp.exp(log_kept - log_scale), jnp.exp(log_input - log_scale)
        # One of the two factors is 1, so the normaliser is never below 1.
        memory = kept * memory + entering * candidate
        normaliser = kept * normaliser + entering
        return output_gate * memory / normaliser, memory, normaliser, log_scale

    return gated_cell(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_gates=4,
        num_states=4,
        pointwise=pointwise,
        bias=functools.partial(concatenate_biases, hidden_size, 0.0, forget_bias, 0.0, 0.0),
        learned_initial_state=learned_initial_state,
        dtype=dtype,
        num_additive=4,
    )
