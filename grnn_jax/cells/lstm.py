"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate, Gers et al. 2000)."""

import functools

import jax
import jax.numpy as jnp

from grnn_jax.array_types import DType, PyTree, State
from grnn_jax.cells.base import Cell, Gates
from grnn_jax.cells.gated import concatenate_biases, gated_cell
from grnn_jax.ops.factories import cached_factory


@cached_factory
def lstm(
    hidden_size: int,
    *,
    num_heads: int = 1,
    forget_bias: float = 1.0,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""LSTM cell.

        i_t = σ(U_i x_t + V_i h_{t-1} + b_i)        f_t = σ(U_f x_t + V_f h_{t-1} + b_f)
        g_t = tanh(U_g x_t + V_g h_{t-1} + b_g)     o_t = σ(U_o x_t + V_o h_{t-1} + b_o)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t             h_t = o_t ⊙ tanh(c_t)

    Gates in the order i, f, g, o, as in PyTorch and cuDNN. 4·H·(X + H/heads + 1) parameters.
    Equal to `torch.nn.LSTM` with b = b_ih + b_hh.

    Args:
        hidden_size: H.
        num_heads: heads of a block-diagonal V; 1 is dense.
        forget_bias: initial b_f; 1 lets the state persist early in training
            (Jozefowicz et al. 2015).
        learned_initial_state: whether h_0 and c_0 are parameters (else zeros).
        dtype: compute dtype of the matmuls.

    Returns:
        The cell; its state is (h, c).

    Raises:
        ValueError: for sizes that do not fit.

    Reference: S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9,
    1997; F. A. Gers et al., "Learning to forget", Neural Computation 12, 2000.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.lstm(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 4·H·(X + H + 1)
        128
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> output.shape, len(state)  # the state is (h, c), the output h
        ((2, 4), 2)
    """
    return gated_cell(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_gates=4,
        num_states=2,
        pointwise=lstm_pointwise,
        bias=functools.partial(concatenate_biases, hidden_size, 0.0, forget_bias, 0.0, 0.0),
        learned_initial_state=learned_initial_state,
        dtype=dtype,
        num_additive=4,
    )


def lstm_pointwise(weights: PyTree, projected: Gates, recurrent: Gates, state: State) -> State:
    """The elementwise step, for every product that can stand for V h."""
    _, memory = state
    input_gate = jax.nn.sigmoid(projected[0] + recurrent[0])
    forget_gate = jax.nn.sigmoid(projected[1] + recurrent[1])
    candidate = jnp.tanh(projected[2] + recurrent[2])
    output_gate = jax.nn.sigmoid(projected[3] + recurrent[3])
    memory = forget_gate * memory + input_gate * candidate
    return output_gate * jnp.tanh(memory), memory
