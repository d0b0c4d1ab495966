"""LSTM that writes as much as it forgets (Greff et al. 2017)."""

import functools

import jax
import jax.numpy as jnp

from grnn_jax.array_types import DType, PyTree, State
from grnn_jax.cells.base import Cell, Gates
from grnn_jax.cells.gated import concatenate_biases, gated_cell
from grnn_jax.ops.factories import cached_factory


@cached_factory
def coupled_lstm(
    hidden_size: int,
    *,
    num_heads: int = 1,
    forget_bias: float = 1.0,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""LSTM cell with coupled input and forget gates.

        f_t = σ(U_f x_t + V_f h_{t-1} + b_f)        g_t = tanh(U_g x_t + V_g h_{t-1} + b_g)
        o_t = σ(U_o x_t + V_o h_{t-1} + b_o)
        c_t = f_t ⊙ c_{t-1} + (1 - f_t) ⊙ g_t       h_t = o_t ⊙ tanh(c_t)

    Gates in the order f, g, o. 3·H·(X + H/heads + 1) parameters.

    Args:
        hidden_size: H.
        num_heads: heads of a block-diagonal V; 1 is dense.
        forget_bias: initial b_f; 1 lets the state persist early in training.
        learned_initial_state: whether h_0 and c_0 are parameters (else zeros).
        dtype: compute dtype of the matmuls.

    Returns:
        The cell; its state is (h, c).

    Raises:
        ValueError: for sizes that do not fit.

    Reference: K. Greff et al., "LSTM: a search space odyssey", IEEE TNNLS 28, 2017 (CIFG).

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.coupled_lstm(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 3·H·(X + H + 1), three quarters of an LSTM
        96
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> output.shape, len(state)
        ((2, 4), 2)
    """

    def pointwise(weights: PyTree, projected: Gates, recurrent: Gates, state: State) -> State:
        _, memory = state
        forget_gate = jax.nn.sigmoid(projected[0] + recurrent[0])
        candidate = jnp.tanh(projected[1] + recurrent[1])
        output_gate = jax.nn.sigmoid(projected[2] + recurrent[2])
        memory = forget_gate * memory + (1 - forget_gate) * candidate
        return output_gate * jnp.tanh(memory), memory

    return gated_cell(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_gates=3,
        num_states=2,
        pointwise=pointwise,
        bias=functools.partial(concatenate_biases, hidden_size, forget_bias, 0.0, 0.0),
        learned_initial_state=learned_initial_state,
        dtype=dtype,
        num_additive=3,
    )
