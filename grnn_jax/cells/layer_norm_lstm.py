"""LSTM with layer normalisation (Ba et al. 2016)."""

import functools

import jax
import jax.numpy as jnp

from grnn_jax.array_types import DType, Params, PyTree, State
from grnn_jax.cells.base import Cell, Gates
from grnn_jax.cells.gated import concatenate_biases, gated_cell
from grnn_jax.cells.layer_norm import (
    layer_norm_groups,
    layer_norm_projection,
    layer_norm_recurrent,
    recurrent_scales,
)
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.ranks import align

GROUPS = (4,)
"""All gates are normalised together."""


@cached_factory
def layer_norm_lstm(
    hidden_size: int,
    *,
    num_heads: int = 1,
    forget_bias: float = 1.0,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""LSTM cell with layer normalisation.

        (i, f, g, o) = LN(V h_{t-1}) ⊙ α_1 + LN(U x_t) ⊙ α_2 + b
        c_t = σ(f) ⊙ c_{t-1} + σ(i) ⊙ tanh(g)
        h_t = σ(o) ⊙ tanh(LN(c_t) ⊙ α_3 + β_3)

    LN subtracts the mean and divides by the standard deviation: over the units of all four gates
    together, as in the paper (not gate by gate), and over those of c. The paper's β_1, β_2 and b
    enter as their sum; b is that sum. 4·H·(X + H/heads + 3) + 2·H parameters.

    Args:
        hidden_size: H.
        num_heads: heads of a block-diagonal V; 1 is dense. LN is over all heads.
        forget_bias: initial b_f; 1 lets the state persist early in training.
        learned_initial_state: whether h_0 and c_0 are parameters (else zeros).
        dtype: compute dtype of the matmuls.

    Returns:
        The cell; its state is (h, c).

    Raises:
        ValueError: for sizes that do not fit.

    Reference: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.layer_norm_lstm(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 4·H·(X + H + 3) + 2·H
        168
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> scaled = cell.project(params, 100 * inputs)  # the layer norm takes the scale away
        >>> bool(jax.numpy.allclose(scaled, cell.project(params, inputs), atol=1e-2))
        True
    """

    def pointwise(weights: PyTree, projected: Gates, recurrent: Gates, state: State) -> State:
        _, memory = state
        recurrent = layer_norm_recurrent(weights, recurrent, GROUPS)
        input_gate = jax.nn.sigmoid(projected[0] + recurrent[0])
        forget_gate = jax.nn.sigmoid(projected[1] + recurrent[1])
        candidate = jnp.tanh(projected[2] + recurrent[2])
        output_gate = jax.nn.sigmoid(projected[3] + recurrent[3])
        memory = forget_gate * memory + input_gate * candidate
        (normalised,) = layer_norm_groups((memory,), (1,))
        scale, bias = (align(weights[f"memory_{kind}"], memory) for kind in ("scale", "bias"))
        shown = normalised * scale + bias
        return output_gate * jnp.tanh(shown), memory

    def pointwise_init() -> Params:
        return recurrent_scales(hidden_size, 4) | {
            "memory_scale": jnp.ones((hidden_size,), jnp.float32),
            "memory_bias": jnp.zeros((hidden_size,), jnp.float32),
        }

    cell = gated_cell(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_gates=4,
        num_states=2,
        pointwise=pointwise,
        bias=functools.partial(concatenate_biases, hidden_size, 0.0, forget_bias, 0.0, 0.0),
        pointwise_init=pointwise_init,
        learned_initial_state=learned_initial_state,
        dtype=dtype,
        elementwise=False,
    )
    return layer_norm_projection(cell, GROUPS, dtype)
