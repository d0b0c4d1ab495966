"""Bits that depend on each other within an event: NADE, conditioned on the hidden state."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey, UInt8
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.bits import bit_log_probs, bits_distribution, draw_bits, initial_bias
from grnn_jax.distributions.chunked import cut_in_time
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.products import dense
from grnn_jax.ops.ranks import align

ACTIVATIONS_LIMIT = 2**22
"""Hidden activations held at once by `log_prob`; above it the window is cut in time."""


@cached_factory
def nade(
    size: int,
    *,
    mean: float = 0.5,
    nade_hidden_size: int = 128,
    dtype: DType = jnp.float32,
    activations_limit: int = ACTIVATIONS_LIMIT,
) -> Distribution:
    r"""Neural autoregressive distribution over D bits; with a recurrent cell, RNN-NADE.

        log p(x | h) = Σ_d log p(x_d | x_<d, h),       p(x_d = 1 | x_<d, h) = σ(o_d)
        o_d = b_d + B_d h + V_d tanh(a_d),             a_d = c + C h + Σ_{i<d} x_i W_i

    Bits are taken from the first to the last. The log-probability is exact and costs D·U per
    event, because a_d follows from a_{d-1} by one addition. The gradient is exact; at most about
    `activations_limit` activations are held at a time, the rest are computed again.

    Args:
        size: D.
        mean: part of all bits that is set in the training data; the biases start there.
        nade_hidden_size: U, units that the bits share.
        dtype: compute dtype of the matmuls with h; everything else is float32.
        activations_limit: see above.

    Returns:
        The distribution; events are arrays [D] of zeros and ones, any other number counts as one.
        `sample` takes `temperature`, which divides the logits; `mode` takes the likelier value of
        each bit in turn, which need not be the likeliest event.

    Raises:
        ValueError: for a size below 1, or a mean that is not inside (0, 1).

    References: H. Larochelle, I. Murray, "The neural autoregressive distribution estimator",
    AISTATS 2011; N. Boulanger-Lewandowski et al., "Modeling temporal dependencies in
    high-dimensional sequences", ICML 2012 (there with a sigmoid in place of tanh).

    Example:
        >>> import itertools
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.nade(3, nade_hidden_size=8)
        >>> params = family.init(jax.random.key(0), 4)
        >>> events = jnp.array(list(itertools.product((0, 1), repeat=3)), jnp.uint8)
        >>> hidden = jnp.ones((8, 4))
        >>> nats = jax.jit(family.log_prob)(params, hidden, events)
        >>> float(jnp.exp(nats).sum().round(3))  # over all events
        1.0
    """
    initial = initial_bias(size, mean)
    if nade_hidden_size < 1:
        raise ValueError(f"nade_hidden_size must be at least 1, got {nade_hidden_size}")
    num_units = nade_hidden_size

    def init(key: PRNGKey, hidden_size: int) -> Params:
        keys = jax.random.split(key, 4)
        lecun_normal = jax.nn.initializers.lecun_normal()
        return {
            "kernel": lecun_normal(keys[0], (hidden_size, size), jnp.float32),
            "bias": jnp.full((size,), initial, jnp.float32),
            "unit_kernel": lecun_normal(keys[1], (hidden_size, num_units), jnp.float32),
            "unit_bias": jnp.zeros((num_units,), jnp.float32),
            # Few bits of an event are set, so that a sum over them stays of order one.
            "bit_kernel": 0.5 * jax.random.normal(keys[2], (size, num_units), jnp.float32),
            "output_kernel": num_units**-0.5
            * jax.random.normal(keys[3], (size, num_units), jnp.float32),
        }

    def project(params: Params, hidden: Float[Array, "... H"]) -> tuple[Array, Array]:
        """What h alone contributes: b + B h [..., D] and c + C h [..., U]."""
        kernel = jnp.concatenate([params["kernel"], params["unit_kernel"]], 1)
        both = dense(hidden, kernel, dtype)
        bias, unit_bias = (align(params[name], both) for name in ("bias", "unit_bias"))
        return both[..., :size] + bias, both[..., size:] + unit_bias

    def bit_logits(units: Array, bias: Array, output_kernel: Array) -> Array:
        return bias + jnp.sum(jnp.tanh(units) * align(output_kernel, units), -1)

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: UInt8[Array, "... D"]
    ) -> Float[Array, "..."]:
        biases, units = project(params, hidden)
        bits = (event != 0).astype(jnp.float32)

        def body(units: Array, row: tuple[Array, ...]) -> tuple[Array, Array]:
            bit, bias, bit_kernel, output_kernel = row
            return units + bit[..., None] * align(bit_kernel, units), bit_logits(
                units, bias, output_kernel
            )

        rows = (
            jnp.moveaxis(bits, -1, 0),
            jnp.moveaxis(biases, -1, 0),
            params["bit_kernel"],
            params["output_kernel"],
        )
        logits = jax.lax.scan(jax.checkpoint(body, prevent_cse=False), units, rows)[1]
        return bit_log_probs(jnp.moveaxis(logits, 0, -1), event).sum(-1)

    def draw(
        params: Params,
        hidden: Array,
        noise: Float[Array, "... D"],
        temperature: float | Array,
    ) -> UInt8[Array, "... D"]:
        biases, units = project(params, hidden)

        def body(units: Array, row: tuple[Array, ...]) -> tuple[Array, Array]:
            noise, bias, bit_kernel, output_kernel = row
            bit = draw_bits(bit_logits(units, bias, output_kernel), noise, temperature)
            return units + bit[..., None] * align(bit_kernel, units), bit

        rows = (
            jnp.moveaxis(noise, -1, 0),
            jnp.moveaxis(biases, -1, 0),
            params["bit_kernel"],
            params["output_kernel"],
        )
        return jnp.moveaxis(jax.lax.scan(body, units, rows)[1], 0, -1)

    return bits_distribution(
        "nade", size, init, cut_in_time(log_prob, size * num_units, activations_limit), draw
    )
