"""IndRNN: a simple recurrent network of independent units (Li et al. 2018)."""

import functools

import jax.numpy as jnp

from grnn_jax.array_types import DType
from grnn_jax.cells.base import Cell
from grnn_jax.cells.diagonal import diagonal_cell
from grnn_jax.cells.elman import elman_pointwise
from grnn_jax.cells.gated import concatenate_biases
from grnn_jax.ops.factories import cached_factory


@cached_factory
def ind_rnn(
    hidden_size: int,
    *,
    activation: str = "tanh",
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""IndRNN cell.

        h_t = f(U x_t + v ⊙ h_{t-1} + b)

    H·(X + 2) parameters. The v begin uniform in [0, 1). The paper's f is "relu"; it also keeps
    |v| below a bound that depends on T, which is left to the gradient's clipping here.

    Args:
        hidden_size: H.
        activation: f, "tanh" or "relu".
        learned_initial_state: whether h_0 is a parameter (else zeros).
        dtype: compute dtype of the matmul.

    Returns:
        The cell; its state is (h,).

    Raises:
        ValueError: for an unknown activation or if hidden_size is not positive.

    Reference: S. Li et al., "Independently recurrent neural network (IndRNN): building a longer
    and deeper RNN", CVPR 2018.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.ind_rnn(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # H·(X + 2)
        20
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> output.shape, len(state)
        ((2, 4), 1)
    """
    return diagonal_cell(
        hidden_size=hidden_size,
        num_gates=1,
        num_states=1,
        pointwise=elman_pointwise(activation),
        bias=functools.partial(concatenate_biases, hidden_size, 0.0),
        smallest=0.0,
        dtype=dtype,
        learned_initial_state=learned_initial_state,
    )
