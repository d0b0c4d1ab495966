"""Gated recurrent unit, the variant of cuDNN and PyTorch (reset gate after the matmul)."""

import functools

import jax
import jax.numpy as jnp

from grnn_jax.array_types import DType, PyTree, State
from grnn_jax.cells.base import Cell, Gates
from grnn_jax.cells.gated import concatenate_biases, gated_cell
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.ranks import align


@cached_factory
def gru(
    hidden_size: int,
    *,
    num_heads: int = 1,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""GRU cell.

        r_t = σ(U_r x_t + V_r h_{t-1} + b_r)        z_t = σ(U_z x_t + V_z h_{t-1} + b_z)
        n_t = tanh(U_n x_t + b_n + r_t ⊙ (V_n h_{t-1} + c_n))
        h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}

    Gates in the order r, z, n, as in PyTorch and cuDNN. 3·H·(X + H/heads + 1) + H parameters.
    Equal to `torch.nn.GRU` with b_r, b_z the sums of its two biases, b_n = b_in, c_n = b_hn.

    Args:
        hidden_size: H.
        num_heads: heads of a block-diagonal V; 1 is dense.
        learned_initial_state: whether h_0 is a parameter (else zeros).
        dtype: compute dtype of the matmuls.

    Returns:
        The cell; its state is (h,).

    Raises:
        ValueError: for sizes that do not fit.

    Reference: K. Cho et al., "Learning phrase representations using RNN encoder-decoder for
    statistical machine translation", EMNLP 2014.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.gru(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 3·H·(X + H + 1) + H
        100
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> output.shape, len(state)
        ((2, 4), 1)
    """
    return gated_cell(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_gates=3,
        num_additive=2,
        num_states=1,
        pointwise=gru_pointwise,
        bias=functools.partial(concatenate_biases, hidden_size, 0.0, 0.0, 0.0),
        pointwise_init=lambda: {"candidate_bias": jnp.zeros((hidden_size,), jnp.float32)},
        learned_initial_state=learned_initial_state,
        dtype=dtype,
    )


def gru_pointwise(weights: PyTree, projected: Gates, recurrent: Gates, state: State) -> State:
    """The elementwise step, for every product that can stand for V h."""
    (hidden,) = state
    reset_gate = jax.nn.sigmoid(projected[0] + recurrent[0])
    update_gate = jax.nn.sigmoid(projected[1] + recurrent[1])
    recurrent_candidate = recurrent[2] + align(weights["candidate_bias"], recurrent[2])
    candidate = jnp.tanh(projected[2] + reset_gate * recurrent_candidate)
    return ((1 - update_gate) * candidate + update_gate * hidden,)
