"""GRU with layer normalisation (Ba et al. 2016)."""

import functools

import jax.numpy as jnp

from grnn_jax.array_types import DType, Params, PyTree, State
from grnn_jax.cells.base import Cell, Gates
from grnn_jax.cells.gated import concatenate_biases, gated_cell
from grnn_jax.cells.gru import gru_pointwise
from grnn_jax.cells.layer_norm import layer_norm_projection, layer_norm_recurrent, recurrent_scales
from grnn_jax.ops.factories import cached_factory

GROUPS = (2, 1)
"""The two gates are normalised together, the candidate by itself."""


@cached_factory
def layer_norm_gru(
    hidden_size: int,
    *,
    num_heads: int = 1,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""GRU cell with layer normalisation.

        (r, z) = σ(LN(V_rz h_{t-1}) ⊙ α_1 + LN(U_rz x_t) ⊙ α_2 + b_rz)
        n_t = tanh(LN(U_n x_t) ⊙ α_3 + b_n + r ⊙ (LN(V_n h_{t-1}) ⊙ α_4 + c_n))
        h_t = (1 - z) ⊙ n_t + z ⊙ h_{t-1}

    LN subtracts the mean and divides by the standard deviation: over the units of r and z together
    and over those of n, as in the paper, whose z is 1 - z here, as in `gru`. Its two biases of r
    and z enter as their sum, b_rz. 3·H·(X + H/heads + 3) + H parameters.

    Args:
        hidden_size: H.
        num_heads: heads of a block-diagonal V; 1 is dense. LN is over all heads.
        learned_initial_state: whether h_0 is a parameter (else zeros).
        dtype: compute dtype of the matmuls.

    Returns:
        The cell; its state is (h,).

    Raises:
        ValueError: for sizes that do not fit.

    Reference: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.layer_norm_gru(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 3·H·(X + H + 3) + H
        124
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> output.shape, len(state)
        ((2, 4), 1)
    """

    def pointwise(weights: PyTree, projected: Gates, recurrent: Gates, state: State) -> State:
        recurrent = layer_norm_recurrent(weights, recurrent, GROUPS)
        return gru_pointwise(weights, projected, recurrent, state)

    def pointwise_init() -> Params:
        candidate_bias = jnp.zeros((hidden_size,), jnp.float32)
        return recurrent_scales(hidden_size, 3) | {"candidate_bias": candidate_bias}

    cell = gated_cell(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_gates=3,
        num_states=1,
        pointwise=pointwise,
        bias=functools.partial(concatenate_biases, hidden_size, 0.0, 0.0, 0.0),
        pointwise_init=pointwise_init,
        learned_initial_state=learned_initial_state,
        dtype=dtype,
        elementwise=False,
    )
    return layer_norm_projection(cell, GROUPS, dtype)
