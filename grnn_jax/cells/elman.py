"""The simple recurrent network of Elman (1990)."""

import functools

import jax
import jax.numpy as jnp

from grnn_jax.array_types import DType, PyTree, State
from grnn_jax.cells.base import Cell, Gates, PointwiseFn
from grnn_jax.cells.gated import concatenate_biases, gated_cell
from grnn_jax.ops.factories import cached_factory

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


@cached_factory
def elman(
    hidden_size: int,
    *,
    activation: str = "tanh",
    num_heads: int = 1,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""Elman cell.

        h_t = f(U x_t + V h_{t-1} + b_h)

    H·(X + H/heads + 1) parameters. Equal to `torch.nn.RNN` with b_h = b_ih + b_hh.

    Args:
        hidden_size: H.
        activation: f, "tanh" or "relu".
        num_heads: heads of a block-diagonal V; 1 is dense.
        learned_initial_state: whether h_0 is a parameter (else zeros).
        dtype: compute dtype of the matmuls.

    Returns:
        The cell; its state is (h,).

    Raises:
        ValueError: for an unknown activation or sizes that do not fit.

    Reference: J. L. Elman, "Finding structure in time", Cognitive Science 14, 1990.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.elman(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # H·(X + H + 1)
        32
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> outer = inputs @ params["input_kernel"] + params["bias"]  # V h is 0 at first
        >>> bool(jax.numpy.allclose(output, jax.numpy.tanh(outer), atol=1e-5))
        True
    """
    return gated_cell(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_gates=1,
        num_states=1,
        pointwise=elman_pointwise(activation),
        bias=functools.partial(concatenate_biases, hidden_size, 0.0),
        learned_initial_state=learned_initial_state,
        dtype=dtype,
        num_additive=1,
    )


def elman_pointwise(activation: str) -> PointwiseFn:
    """The elementwise step, for every product that can stand for V h.

    Raises:
        ValueError: for an unknown activation.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}")
    function = ACTIVATIONS[activation]

    def pointwise(weights: PyTree, projected: Gates, recurrent: Gates, state: State) -> State:
        return (function(projected[0] + recurrent[0]),)

    return pointwise
