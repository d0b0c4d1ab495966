"""The multiplicative recurrent network (Sutskever et al. 2011)."""

import jax.numpy as jnp

from grnn_jax.array_types import DType
from grnn_jax.cells.base import Cell
from grnn_jax.cells.elman import elman
from grnn_jax.cells.multiplicative import multiplicative
from grnn_jax.ops.factories import cached_factory


@cached_factory
def multiplicative_rnn(
    hidden_size: int, *, learned_initial_state: bool = False, dtype: DType = jnp.float32
) -> Cell:
    r"""Multiplicative RNN cell.

        m_t = (U_m x_t) ⊙ (V_m h_{t-1})
        h_t = tanh(U x_t + V m_t + b)

    H·(2·X + 2·H + 1) parameters: m has as many units as h. No structure: runs by "scan".

    Args:
        hidden_size: H.
        learned_initial_state: whether h_0 is a parameter (else zeros).
        dtype: compute dtype of the matmuls.

    Returns:
        The cell; its state is (h,).

    Raises:
        ValueError: if hidden_size is not positive.

    Reference: I. Sutskever, J. Martens, G. Hinton, "Generating text with recurrent neural
    networks", ICML 2011.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.multiplicative_rnn(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # H·(2·X + 2·H + 1)
        60
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> output.shape, len(state)
        ((2, 4), 1)
    """
    cell = elman(hidden_size, learned_initial_state=learned_initial_state, dtype=dtype)
    return multiplicative(cell, dtype)
