"""Bits of which each depends on those below it, with weights shared across sites."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, DType, Float, Params, PRNGKey, UInt8
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.bits import (
    bit_log_probs,
    bits_distribution,
    draw_bits,
    encode_bits,
    initial_bias,
)
from grnn_jax.distributions.chunked import cut_in_time
from grnn_jax.distributions.layer import apply_layer
from grnn_jax.distributions.sitewise_bernoulli import PERIOD, site_units, split_sites, window_kernel
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.products import dense
from grnn_jax.ops.ranks import align
from grnn_jax.ops.sites import neighbour_kernel, see_neighbours


@cached_factory
def sitewise_nade(
    size: int,
    *,
    mean: float = 0.5,
    nade_hidden_size: int = 128,
    window: int = 24,
    site_bias: bool = False,
    with_input: bool = False,
    dtype: DType = jnp.float32,
) -> Distribution:
    r"""N bits from the lowest to the highest, each given its site of h and the bits below it.

        log p(x | h) = Σ_n log p(x_n | x_<n, h),      p(x_n = 1 | x_<n, h) = σ(o_n)
        o_n = b + w · h[n] + v · tanh(a_n)  (+ b_n)
        a_n = c + C h[n] + W y[n]           (+ R z[n] + W' y'[n])

    with the same weights for all sites. y[n] is what site n sees of the bits below it: those at
    most `window` below, and the numbers of bits set at each distance modulo 12. With the last event
    beside h (`with_input`), z[n] is what site n sees of it, and y'[n] what it sees of the bits
    below it that were set in the last event too. The log-probability is exact, and one pass for all
    sites.

    Args:
        size: N.
        mean: part of all bits that is set in the training data; the bias starts there.
        nade_hidden_size: U, units of each site.
        window: see above.
        site_bias: learns a bias b_n of each site.
        with_input: see above, and `sitewise_bernoulli`.
        dtype: compute dtype of the products; logits and log-probabilities are float32.

    Returns:
        The distribution; events are arrays [N] of zeros and ones, any other number counts as one.
        `sample` takes `temperature`, which divides the logits; `mode` takes the likelier value of
        each bit in turn, which need not be the likeliest event.

    Raises:
        ValueError: as `sitewise_bernoulli`.

    References: D. D. Johnson, "Generating polyphonic music using tied parallel networks",
    EvoMUSART 2017; H. Larochelle, I. Murray, "The neural autoregressive distribution estimator",
    AISTATS 2011.

    Example:
        >>> import itertools
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.sitewise_nade(3, nade_hidden_size=8)
        >>> params = family.init(jax.random.key(0), 6)
        >>> events = jnp.array(list(itertools.product((0, 1), repeat=3)), jnp.uint8)
        >>> nats = jax.jit(family.log_prob)(params, jnp.ones((8, 6)), events)  # two units a site
        >>> float(jnp.exp(nats).sum().round(3))  # over all events
        1.0
    """
    initial = initial_bias(size, mean)
    if nade_hidden_size < 1:
        raise ValueError(f"nade_hidden_size must be at least 1, got {nade_hidden_size}")
    num_units = nade_hidden_size
    split = split_sites(size, with_input)
    around = window_kernel(size, window)
    below = neighbour_kernel(size, range(-window, 0), PERIOD, below=True)
    # The columns of one site after another, for sampling.
    below_sites = below.reshape(size, size, -1).transpose(1, 0, 2)

    def init(key: PRNGKey, hidden_size: int) -> Params:
        units = site_units(hidden_size, size, with_input)
        keys = jax.random.split(key, 4)
        lecun_normal = jax.nn.initializers.lecun_normal()
        num_below = (window + PERIOD) * (1 + with_input)
        params = {
            "kernel": lecun_normal(keys[0], (units, 1), jnp.float32),
            "bias": jnp.full((1,), initial, jnp.float32),
            "unit_kernel": lecun_normal(keys[1], (units, num_units), jnp.float32),
            "unit_bias": jnp.zeros((num_units,), jnp.float32),
            # Few bits are set, so that a sum over them stays of order one.
            "bit_kernel": 0.3 * jax.random.normal(keys[2], (num_below, num_units), jnp.float32),
            "output_kernel": lecun_normal(keys[3], (num_units, 1), jnp.float32),
        }
        if site_bias:
            params["site_bias"] = jnp.zeros((size,), jnp.float32)
        if with_input:
            seen = around.shape[-1] // size
            params["input_kernel"] = jnp.zeros((seen, num_units), jnp.float32)
        return params

    def project(params: Params, hidden: Float[Array, "... H"]) -> tuple[Array, Array, Array | None]:
        """What the past alone contributes: to o [..., N] and to a [..., N, U]; the last event."""
        sites, before = split(hidden)
        scores = apply_layer(params, sites, dtype)[..., 0]
        units = dense(sites, params["unit_kernel"], dtype)
        units += align(params["unit_bias"], units)
        if before is not None:
            seen = see_neighbours(before, around, dtype)
            units += dense(seen, params["input_kernel"], dtype)
        if site_bias:
            scores += align(params["site_bias"], scores)
        return scores, units, before

    def bit_logits(params: Params, scores: Array, units: Array, seen: Array) -> Array:
        units = units + dense(seen, params["bit_kernel"], dtype)
        return scores + dense(jnp.tanh(units), params["output_kernel"], dtype)[..., 0]

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: UInt8[Array, "... N"]
    ) -> Float[Array, "..."]:
        scores, units, before = project(params, hidden)
        bits = encode_bits(params, event)
        seen = see_neighbours(bits, below, dtype)
        if before is not None:
            held = see_neighbours(bits * before, below, dtype)
            seen = jnp.concatenate([seen, held], -1)
        return bit_log_probs(bit_logits(params, scores, units, seen), event).sum(-1)

    def draw(
        params: Params,
        hidden: Array,
        noise: Float[Array, "... N"],
        temperature: float | Array,
    ) -> UInt8[Array, "... N"]:
        scores, units, before = project(params, hidden)

        def body(bits: Array, site: tuple[Array, ...]) -> tuple[Array, Array]:
            number, scores, units, noise, columns = site
            seen = dense(bits, columns, dtype)
            if before is not None:
                seen = jnp.concatenate([seen, dense(bits * before, columns, dtype)], -1)
            logits = bit_logits(params, scores, units, seen)
            bit = draw_bits(logits[..., None], noise[..., None], temperature)[..., 0]
            return bits.at[..., number].set(bit.astype(bits.dtype)), bit

        rows = (
            jnp.arange(size),
            jnp.moveaxis(scores, -1, 0),
            jnp.moveaxis(units, -2, 0),
            jnp.moveaxis(noise, -1, 0),
            jnp.asarray(below_sites),
        )
        bits = jax.lax.scan(body, jnp.zeros(noise.shape, jnp.float32), rows)[1]
        return jnp.moveaxis(bits, 0, -1)

    return bits_distribution(
        "sitewise_nade",
        size,
        init,
        cut_in_time(log_prob, size * max(num_units, below.shape[-1] // size)),
        draw,
        num_sites=size,
    )
