"""Sequences that end, for distributions whose events have no end of their own."""

from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, DType, Float, Params, PRNGKey, PyTree
from grnn_jax.distributions.acceptance import accept, cast, fill
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.composition import check_options, sample_part
from grnn_jax.distributions.layer import apply_layer
from grnn_jax.distributions.truncation import truncate
from grnn_jax.ops.factories import cached_factory


@cached_factory
def with_end(distribution: Distribution, *, dtype: DType = jnp.float32) -> Distribution:
    r"""Puts the end of a sequence beside the events of a distribution.

        log p(end | h) = log sigmoid(e),     e = w h + b
        log p(x | h)   = log sigmoid(-e) + log p_inner(x | h)

    In the end event the inner event is ignored exactly and taken as zeros (as the `filler` of a
    family that has one).

    Args:
        distribution: the inner distribution, without an end.
        dtype: compute dtype of the matmul.

    Returns:
        The distribution; an event is dict(event=inner event, end bool). `sample` has the inner
        options and temperature, which divides e too. `mode` is the end where it has
        probability above 1/2, else the inner mode. The encoding is the inner one and the end
        bit.

    Raises:
        ValueError: for a distribution whose sequences end already.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.with_end(distributions.categorical(3))
        >>> params = family.init(jax.random.key(0), 4)
        >>> event = {"event": jnp.array([0, 1, 2, 0]), "end": jnp.arange(4) == 3}
        >>> nats = jax.jit(family.log_prob)(params, jnp.ones((4, 4)), event)
        >>> float(jnp.exp(nats).sum().round(3)), family.name
        (1.0, 'with_end(categorical)')
    """
    inner = distribution
    if inner.is_end is not None:
        raise ValueError("distribution must not have an end of its own, got one with is_end")
    name = f"with_end({inner.name})"
    known = tuple(dict.fromkeys(("temperature", *inner.options)))

    def init(key: PRNGKey, hidden_size: int) -> Params:
        end_key, inner_key = jax.random.split(key)
        return {
            "kernel": jax.nn.initializers.lecun_normal()(end_key, (hidden_size, 1), jnp.float32),
            "bias": jnp.zeros((1,), jnp.float32),
            "event": inner.init(inner_key, hidden_size),
        }

    def accept_ended(event: PyTree) -> tuple[PyTree, Bool[AnyArray, "..."]]:
        end, kept = cast(event["end"], jnp.bool_)
        value, valid = accept(inner, event["event"])
        return {"event": value, "end": end}, kept & (end | valid)

    def end_logit(params: Params, hidden: Array) -> Array:
        return apply_layer(params, hidden, dtype)[..., 0]

    def ended(event: PyTree, end: Array) -> PyTree:
        return {"event": fill(inner, event, ~end), "end": end}

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: PyTree
    ) -> Float[Array, "..."]:
        logit, end = end_logit(params, hidden), jnp.asarray(event["end"], bool)
        # An event outside the inner range would be NaN, also behind the `where`.
        nats = inner.log_prob(params["event"], hidden, fill(inner, event["event"], ~end))
        return jax.nn.log_sigmoid(jnp.where(end, logit, -logit)) + jnp.where(end, 0, nats)

    def sample(
        key: Array,
        params: Params,
        hidden: Float[Array, "B H"],
        *,
        temperature: float | Array = 1.0,
        **options: Any,
    ) -> PyTree:
        check_options(name, options, known)
        keys = jax.vmap(jax.random.split)(key)
        logit = end_logit(params, hidden)
        scores = truncate(jnp.stack([jnp.zeros_like(logit), logit], -1), temperature)
        end = jax.vmap(jax.random.categorical)(keys[:, 0], scores) == 1
        options["temperature"] = temperature
        return ended(sample_part(inner, keys[:, 1], params["event"], hidden, options), end)

    def mode(params: Params, hidden: Float[Array, "... H"]) -> PyTree:
        return ended(inner.mode(params["event"], hidden), end_logit(params, hidden) > 0)

    def encode(params: Params, event: PyTree) -> Float[Array, "... X"]:
        end = jnp.asarray(event["end"], bool)
        encoding = inner.encode(params["event"], fill(inner, event["event"], ~end))
        return jnp.concatenate([encoding, end[..., None].astype(encoding.dtype)], -1)

    def is_end(event: PyTree) -> Bool[Array, "..."]:
        return jnp.asarray(event["end"], bool)

    return Distribution(
        init=init,
        log_prob=log_prob,
        sample=sample,
        mode=mode,
        encode=encode,
        encoding_size=inner.encoding_size + 1,
        event={"event": inner.event, "end": jax.ShapeDtypeStruct((), jnp.bool_)},
        is_end=is_end,
        is_density=inner.is_density,
        name=name,
        options=known,
        accept=accept_ended,
        filler=None if inner.filler is None else {"event": inner.filler, "end": False},
    )
