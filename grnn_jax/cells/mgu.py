"""MGU: the gated unit with one gate (Zhou et al. 2016)."""

import functools

import jax
import jax.numpy as jnp

from grnn_jax.array_types import DType, PyTree, State
from grnn_jax.cells.base import Cell, Gates
from grnn_jax.cells.gated import concatenate_biases, gated_cell
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.ranks import align


@cached_factory
def mgu(
    hidden_size: int,
    *,
    num_heads: int = 1,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""Minimal gated unit, in the form with the gate after the matmul.

        f_t = σ(U_f x_t + V_f h_{t-1} + b_f)
        n_t = tanh(U_n x_t + b_n + f_t ⊙ (V_n h_{t-1} + c_n))
        h_t = (1 - f_t) ⊙ h_{t-1} + f_t ⊙ n_t

    Gates in the order f, n. 2·H·(X + H/heads + 1) + H parameters. The paper has V_n (f_t ⊙ h_{t-1})
    in place of f_t ⊙ (V_n h_{t-1} + c_n): two products one after the other in each step. This is
    to it as `gru` is to the GRU of Cho et al., and one product is enough.

    Args:
        hidden_size: H.
        num_heads: heads of a block-diagonal V; 1 is dense.
        learned_initial_state: whether h_0 is a parameter (else zeros).
        dtype: compute dtype of the matmuls.

    Returns:
        The cell; its state is (h,).

    Raises:
        ValueError: for sizes that do not fit.

    Reference: G.-B. Zhou et al., "Minimal gated unit for recurrent neural networks", International
    Journal of Automation and Computing 13, 2016.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.mgu(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 2·H·(X + H + 1) + H
        68
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> output.shape, len(state)
        ((2, 4), 1)
    """

    def pointwise(weights: PyTree, projected: Gates, recurrent: Gates, state: State) -> State:
        (hidden,) = state
        forget_gate = jax.nn.sigmoid(projected[0] + recurrent[0])
        candidate = recurrent[1] + align(weights["candidate_bias"], recurrent[1])
        candidate = jnp.tanh(projected[1] + forget_gate * candidate)
        return ((1 - forget_gate) * hidden + forget_gate * candidate,)

    return gated_cell(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_gates=2,
        num_additive=1,
        num_states=1,
        pointwise=pointwise,
        bias=functools.partial(concatenate_biases, hidden_size, 0.0, 0.0),
        pointwise_init=lambda: {"candidate_bias": jnp.zeros((hidden_size,), jnp.float32)},
        learned_initial_state=learned_initial_state,
        dtype=dtype,
    )
