"""GRU with a diagonal recurrence, which can be run parallel in time (Danieli et al. 2025)."""

import functools

import jax.numpy as jnp

from grnn_jax.array_types import DType
from grnn_jax.cells.base import Cell
from grnn_jax.cells.diagonal import diagonal_cell
from grnn_jax.cells.gated import concatenate_biases
from grnn_jax.cells.gru import gru_pointwise
from grnn_jax.ops.factories import cached_factory


@cached_factory
def diagonal_gru(
    hidden_size: int, *, learned_initial_state: bool = False, dtype: DType = jnp.float32
) -> Cell:
    r"""GRU cell with diagonal V.

        r_t = σ(U_r x_t + v_r ⊙ h_{t-1} + b_r)      z_t = σ(U_z x_t + v_z ⊙ h_{t-1} + b_z)
        n_t = tanh(U_n x_t + b_n + r_t ⊙ (v_n ⊙ h_{t-1} + c_n))
        h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}

    Gates in the order r, z, n. 3·H·(X + 2) + H parameters. Equal to `gru` with num_heads = H.

    Args:
        hidden_size: H.
        learned_initial_state: whether h_0 is a parameter (else zeros).
        dtype: compute dtype of the matmul.

    Returns:
        The cell; its state is (h,).

    Raises:
        ValueError: if hidden_size is not positive.

    Reference: F. Danieli et al., "ParaRNN: unlocking parallel training of nonlinear RNNs for large
    language models", 2025.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells
        >>> cell = cells.diagonal_gru(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 3·H·(X + 2) + H
        64
        >>> "newton" in grnn_jax.supported_engines(cell)  # the Jacobian is one number a unit
        True
    """
    return diagonal_cell(
        hidden_size=hidden_size,
        num_gates=3,
        num_states=1,
        pointwise=gru_pointwise,
        bias=functools.partial(concatenate_biases, hidden_size, 0.0, 0.0, 0.0),
        pointwise_init=lambda: {"candidate_bias": jnp.zeros((hidden_size,), jnp.float32)},
        dtype=dtype,
        learned_initial_state=learned_initial_state,
    )
