"""How to build a cell whose units see of the state only themselves: V is diagonal."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey, PyTree, State
from grnn_jax.cells.base import Cell, Gates, PointwiseFn
from grnn_jax.cells.gated import gated_cell
from grnn_jax.ops.ranks import align


def diagonal_cell(
    *,
    hidden_size: int,
    num_gates: int,
    num_states: int,
    pointwise: PointwiseFn,
    bias: Callable[[], Float[Array, " GH"]],
    pointwise_init: Callable[[], Params] = dict,
    smallest: float = -1.0,
    dtype: DType = jnp.float32,
    learned_initial_state: bool = False,
) -> Cell:
    """A gated cell with v_k ⊙ h_{t-1} in place of V_k h_{t-1} for each gate k.

    It equals the cell with V in blocks of one unit (num_heads = H), and multiplies no matrices in
    the loop: the v_k, "recurrent_weight_k" [H], are among the weights that `pointwise` reads, and
    the cell is declared gated with num_gates = 0.

    Args:
        hidden_size: H.
        num_gates: G.
        num_states: arrays in the recurrent state, the output first.
        pointwise: see `Gated`; its `recurrent` are the G products v_k ⊙ h_{t-1}.
        bias: makes the initial b.
        pointwise_init: makes the parameters that `pointwise` reads besides its inputs.
        smallest: the v_k begin uniform in [smallest, 1).
        dtype: compute dtype of the input's matmul.
        learned_initial_state: whether the initial state is a parameter (else zeros).

    Returns:
        The cell, with its `gated` structure declared.

    Raises:
        ValueError: if hidden_size is not positive.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import cells
        >>> cell = cells.diagonal_cell(
        ...     hidden_size=4, num_gates=1, num_states=1, bias=lambda: jnp.zeros(4),
        ...     pointwise=lambda weights, x, v, state: (jnp.tanh(x[0] + v[0]),),
        ... )
        >>> params = cell.init(jax.random.key(0), 3)
        >>> {name: params[name].shape for name in sorted(params)}
        {'bias': (4,), 'input_kernel': (3, 4), 'recurrent_weight_0': (4,)}
    """
    names = tuple(f"recurrent_weight_{gate}" for gate in range(num_gates))

    def diagonal_pointwise(
        weights: PyTree, projected: Gates, recurrent: Gates, state: State
    ) -> State:
        products = tuple(align(weights[name], state[0]) * state[0] for name in names)
        return pointwise(weights, projected, products, state)

    def weights_init() -> Params:
        return pointwise_init() | {name: jnp.zeros((hidden_size,), jnp.float32) for name in names}

    cell = gated_cell(
        hidden_size=hidden_size,
        num_heads=1,
        num_gates=num_gates,
        num_states=num_states,
        pointwise=diagonal_pointwise,
        bias=bias,
        pointwise_init=weights_init,
        num_recurrent_gates=0,
        dtype=dtype,
        learned_initial_state=learned_initial_state,
    )

    def init(key: PRNGKey, input_size: int) -> Params:
        cell_key, *keys = jax.random.split(key, 1 + num_gates)
        drawn = {
            name: jax.random.uniform(key, (hidden_size,), jnp.float32, smallest, 1.0)
            for name, key in zip(names, keys, strict=True)
        }
        return cell.init(cell_key, input_size) | drawn

    return cell._replace(init=init)
