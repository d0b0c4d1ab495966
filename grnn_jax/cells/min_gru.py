"""minGRU: a gated recurrent unit whose gates see the input alone (Feng et al. 2024)."""

import functools

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Params
from grnn_jax.cells.base import Cell
from grnn_jax.cells.gated import concatenate_biases
from grnn_jax.cells.linear import linear_cell
from grnn_jax.ops.factories import cached_factory


@cached_factory
def min_gru(
    hidden_size: int, *, learned_initial_state: bool = False, dtype: DType = jnp.float32
) -> Cell:
    r"""The minGRU cell.

        z_t = σ(U_z x_t + b_z)        n_t = U_n x_t + b_n
        h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ n_t

    Gates in the order z, n. 2·H·(X + 1) parameters.

    Args:
        hidden_size: H.
        learned_initial_state: whether h_0 is a parameter (else zeros).
        dtype: compute dtype of the matmul.

    Returns:
        The cell; its state is (h,).

    Raises:
        ValueError: if hidden_size is not positive.

    Reference: L. Feng et al., "Were RNNs all we needed?", 2024.

    Example:
        >>> import grnn_jax, jax
        >>> from grnn_jax import cells
        >>> cell = cells.min_gru(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 2·H·(X + 1)
        32
        >>> grnn_jax.explain_engine(cell).engine  # all steps at once
        'linear'
    """

    def coefficients(params: Params, update_gate: Array, candidate: Array) -> tuple[Array, Array]:
        return jax.nn.sigmoid(-update_gate), jax.nn.sigmoid(update_gate) * candidate

    return linear_cell(
        hidden_size=hidden_size,
        num_gates=2,
        coefficients=coefficients,
        bias=functools.partial(concatenate_biases, hidden_size, 0.0, 0.0),
        dtype=dtype,
        learned_initial_state=learned_initial_state,
    )
