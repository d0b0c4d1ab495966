"""LSTM whose gates see the memory too (Gers & Schmidhuber 2000)."""

import functools

import jax
import jax.numpy as jnp

from grnn_jax.array_types import DType, Params, PyTree, State
from grnn_jax.cells.base import Cell, Gates
from grnn_jax.cells.gated import concatenate_biases, gated_cell
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.ranks import align


@cached_factory
def peephole_lstm(
    hidden_size: int,
    *,
    num_heads: int = 1,
    forget_bias: float = 1.0,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""LSTM cell with peepholes.

        i_t = σ(U_i x_t + V_i h_{t-1} + p_i ⊙ c_{t-1} + b_i)
        f_t = σ(U_f x_t + V_f h_{t-1} + p_f ⊙ c_{t-1} + b_f)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ tanh(U_g x_t + V_g h_{t-1} + b_g)
        o_t = σ(U_o x_t + V_o h_{t-1} + p_o ⊙ c_t + b_o)
        h_t = o_t ⊙ tanh(c_t)

    Gates in the order i, f, g, o. 4·H·(X + H/heads + 1) + 3·H parameters. The p begin at 0, where
    the cell is `lstm`.

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

    Reference: F. A. Gers, J. Schmidhuber, "Recurrent nets that time and count", IJCNN 2000;
    A. Graves, "Generating sequences with recurrent neural networks", 2013.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.peephole_lstm(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 4·H·(X + H + 1) + 3·H
        140
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> before = cell.initial_state(params, 2)
        >>> _, plain = cells.lstm(4).step(params, before, cell.project(params, inputs))
        >>> bool(jax.numpy.allclose(output, plain, atol=1e-5))  # while all p are 0
        True
    """

    def pointwise(weights: PyTree, projected: Gates, recurrent: Gates, state: State) -> State:
        _, memory = state
        peeped = projected[0] + recurrent[0] + align(weights["input_peephole"], memory) * memory
        input_gate = jax.nn.sigmoid(peeped)
        peeped = projected[1] + recurrent[1] + align(weights["forget_peephole"], memory) * memory
        forget_gate = jax.nn.sigmoid(peeped)
        candidate = jnp.tanh(projected[2] + recurrent[2])
        memory = forget_gate * memory + input_gate * candidate
        peeped = projected[3] + recurrent[3] + align(weights["output_peephole"], memory) * memory
        return jax.nn.sigmoid(peeped) * jnp.tanh(memory), memory

    def pointwise_init() -> Params:
        names = ("input_peephole", "forget_peephole", "output_peephole")
        return {name: jnp.zeros((hidden_size,), jnp.float32) for name in names}

    return gated_cell(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_gates=4,
        num_states=2,
        pointwise=pointwise,
        bias=functools.partial(concatenate_biases, hidden_size, 0.0, forget_bias, 0.0, 0.0),
        pointwise_init=pointwise_init,
        learned_initial_state=learned_initial_state,
        dtype=dtype,
        num_additive=4,
    )
