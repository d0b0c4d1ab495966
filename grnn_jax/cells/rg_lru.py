"""RG-LRU: the real-gated linear recurrent unit of Griffin (De et al. 2024)."""

import functools
import math

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey
from grnn_jax.cells.base import Cell
from grnn_jax.cells.gated import concatenate_biases
from grnn_jax.cells.linear import linear_cell
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.ranks import align

EXPONENT = 8.0
"""The paper's c."""


@cached_factory
def rg_lru(
    hidden_size: int, *, learned_initial_state: bool = False, dtype: DType = jnp.float32
) -> Cell:
    r"""RG-LRU cell.

        r_t = σ(U_r x_t + b_r)      i_t = σ(U_i x_t + b_i)      v_t = U_v x_t + b_v
        log a_t = -8 softplus(Λ) ⊙ r_t
        h_t = a_t ⊙ h_{t-1} + √(1 - a_t²) ⊙ (i_t ⊙ v_t)

    Gates in the order r, i, v. 3·H·(X + 1) + H parameters. Λ begins such that a at r = 1 is
    uniform in [0.9, 0.999). In the paper v_t is the cell's input itself, of width H, and the
    matrices of the gates are block-diagonal; here they are dense and the input has any width.

    Args:
        hidden_size: H.
        learned_initial_state: whether h_0 is a parameter (else zeros).
        dtype: compute dtype of the matmul.

    Returns:
        The cell; its state is (h,).

    Raises:
        ValueError: if hidden_size is not positive.

    Reference: S. De et al., "Griffin: mixing gated linear recurrences with local attention for
    efficient language models", 2024.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.rg_lru(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # 3·H·(X + 1) + H
        52
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> output.shape, len(state)
        ((2, 4), 1)
    """

    def coefficients(
        params: Params, recurrence_gate: Array, input_gate: Array, value: Array
    ) -> tuple[Array, Array]:
        log_rate = _log_softplus(align(params["decay"], recurrence_gate))
        log_rate = log_rate + jax.nn.log_sigmoid(recurrence_gate)
        log_rate = log_rate + math.log(EXPONENT)
        update = sqrt_complement(log_rate) * jax.nn.sigmoid(input_gate) * value
        return jnp.exp(-jnp.exp(log_rate)), update

    def weights_init(key: PRNGKey) -> Params:
        largest = jax.random.uniform(key, (hidden_size,), jnp.float32, 0.9, 0.999)
        return {"decay": jnp.log(jnp.expm1(-jnp.log(largest) / EXPONENT))}

    return linear_cell(
        hidden_size=hidden_size,
        num_gates=3,
        coefficients=coefficients,
        bias=functools.partial(concatenate_biases, hidden_size, 0.0, 0.0, 0.0),
        weights_init=weights_init,
        dtype=dtype,
        learned_initial_state=learned_initial_state,
    )


@jax.custom_jvp
def sqrt_complement(log_rate: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""√(1 - a²) for a = exp(-e^l), with a gradient that is finite everywhere.

        d/dl √(1 - a²) = a² e^l / √(1 - a²)   →   0  as  l → -∞  (a → 1)

    As a function of a, or of log a, the root has an infinite slope at a = 1.
    """
    return jnp.sqrt(-jnp.expm1(-2 * jnp.exp(log_rate)))


@sqrt_complement.defjvp
def _sqrt_complement_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (log_rate,), (d_log_rate,) = primals, tangents
    root, rate = sqrt_complement(log_rate), jnp.exp(log_rate)
    # Where e^l underflows both are 0, and so is the slope.
    slope = jnp.exp(-2 * rate) * rate / jnp.where(root > 0, root, 1)
    return root, slope * d_log_rate


def _log_softplus(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Log(softplus(x)), which is x where softplus(x) would underflow."""
    smallest = -40.0
    return jnp.where(x < smallest, x, jnp.log(jax.nn.softplus(jnp.maximum(x, smallest))))
