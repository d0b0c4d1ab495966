"""LRU: the linear recurrent unit, complex and diagonal (Orvieto et al. 2023)."""

import math

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Inexact, Params, PRNGKey, State
from grnn_jax.cells.base import Cell, Linear
from grnn_jax.cells.linear import linear_step
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.products import dense
from grnn_jax.ops.ranks import align

SMALLEST_DRAW = 1e-6
"""Random numbers whose logarithm is taken keep away from 0."""


@cached_factory
def lru(
    hidden_size: int,
    *,
    smallest_radius: float = 0.0,
    largest_radius: float = 1.0,
    largest_phase: float = 2 * math.pi,
    learned_initial_state: bool = False,
    dtype: DType = jnp.float32,
) -> Cell:
    r"""LRU cell.

        λ = exp(-e^ν + i e^θ)
        s_t = λ ⊙ s_{t-1} + γ ⊙ (B x_t)         complex, of width H
        h_t = Re(C s_t) + D x_t

    B [X, 2H] and C [2H, H] hold real and imaginary parts side by side; every parameter is real.
    H·(2·H + 3·X + 3) parameters. |λ|² begins uniform in [smallest², largest²), the phase uniform
    in [0, largest_phase), and γ = e^(log γ) as √(1 - |λ|²). |λ| < 1 whatever is learned. In the
    paper D is diagonal (the input has width H), and non-linear layers stand between these; the
    cell has no non-linearity, and a `stack` of it only that of its `layer_norm`.

    Args:
        hidden_size: H.
        smallest_radius: smallest |λ| at the beginning.
        largest_radius: largest |λ| at the beginning.
        largest_phase: largest phase of λ at the beginning, in radians.
        learned_initial_state: whether s_0 is a parameter (else zeros).
        dtype: compute dtype of the matmuls with B, C and D.

    Returns:
        The cell; its state is (s,), complex64.

    Raises:
        ValueError: if hidden_size is not positive, or the radii are not 0 <= smallest < largest
            <= 1.

    Reference: A. Orvieto et al., "Resurrecting recurrent neural networks for long sequences",
    ICML 2023.

    Example:
        >>> import jax
        >>> from grnn_jax import cells
        >>> cell = cells.lru(4)
        >>> params = cell.init(jax.random.key(0), 3)
        >>> cells.count_parameters(params)  # H·(2·H + 3·X + 3)
        80
        >>> inputs = jax.random.normal(jax.random.key(1), (2, 3))  # [B, X]
        >>> state = cell.initial_state(params, 2)
        >>> state, output = cell.step(params, state, cell.project(params, inputs))
        >>> output.dtype.name, state[0].dtype.name
        ('float32', 'complex64')
    """
    if hidden_size < 1:
        raise ValueError(f"hidden_size must be at least 1, got {hidden_size}")
    if not 0 <= smallest_radius < largest_radius <= 1:
        raise ValueError(
            "smallest_radius and largest_radius must be 0 <= smallest < largest <= 1, got "
            f"{smallest_radius} and {largest_radius}"
        )

    def init(key: PRNGKey, input_size: int) -> Params:
        radius_key, phase_key, input_key, output_key, skip_key = jax.random.split(key, 5)
        shape, low = (hidden_size,), SMALLEST_DRAW
        drawn = jax.random.uniform(radius_key, shape, jnp.float32, low, 1.0)
        # 1 - |λ|², and -2 log |λ| from it: exact for |λ| near 1 too.
        gap = (1 - largest_radius**2) + drawn * (largest_radius**2 - smallest_radius**2)
        rate = -jnp.log1p(-gap)
        phase = largest_phase * jax.random.uniform(phase_key, shape, jnp.float32, low, 1.0)
        lecun_normal = jax.nn.initializers.lecun_normal()
        # B and C of independent real and imaginary parts, together of the usual variance.
        kernel = lecun_normal(input_key, (input_size, 2 * hidden_size), jnp.float32)
        params = {
            "log_rate": jnp.log(rate / 2),
            "log_phase": jnp.log(phase),
            "log_scale": jnp.log(-jnp.expm1(-rate)) / 2,
            "input_kernel": kernel / math.sqrt(2),
            "output_kernel": lecun_normal(output_key, (2 * hidden_size, hidden_size), jnp.float32),
            "skip_kernel": lecun_normal(skip_key, (input_size, hidden_size), jnp.float32),
        }
        if learned_initial_state:
            params["initial_state"] = jnp.zeros((2, hidden_size), jnp.float32)
        return params

    def initial_state(params: Params, batch_size: int) -> State:
        if learned_initial_state:
            parts = params["initial_state"]
            row = jax.lax.complex(*parts.astype(jnp.promote_types(parts.dtype, jnp.float32)))
        else:
            dtype = jnp.promote_types(params["log_rate"].dtype, jnp.complex64)
            row = jnp.zeros((hidden_size,), dtype)
        return (jnp.broadcast_to(row, (batch_size, hidden_size)),)

    def project(params: Params, inputs: Float[Array, "... X"]) -> Float[Array, "... P"]:
        kernel = jnp.concatenate([params["input_kernel"], params["skip_kernel"]], 1)
        return dense(inputs, kernel, dtype)

    def coefficients(params: Params, projected: Array) -> tuple[Array, Array]:
        entering = jax.lax.complex(*jnp.split(projected[..., : 2 * hidden_size], 2, -1))
        decay = jnp.exp(jax.lax.complex(-jnp.exp(params["log_rate"]), jnp.exp(params["log_phase"])))
        scale = jnp.exp(params["log_scale"])
        return jnp.broadcast_to(decay, entering.shape), align(scale, entering) * entering

    def readout(
        params: Params, hidden: Inexact[Array, "... H"], projected: Float[Array, "... P"]
    ) -> Float[Array, "... H"]:
        parts = jnp.concatenate([hidden.real, -hidden.imag], -1)
        return dense(parts, params["output_kernel"], dtype) + projected[..., 2 * hidden_size :]

    linear = Linear(coefficients, readout)
    return Cell(init, initial_state, project, linear_step(linear), hidden_size, linear=linear)
