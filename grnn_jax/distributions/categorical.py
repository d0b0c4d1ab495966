"""A softmax over K classes: characters, bytes, words, tokens of any kind."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, DType, Float, Int, Params, PRNGKey
from grnn_jax.distributions.acceptance import accept_numbers, within
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.chunked import cut_in_time
from grnn_jax.distributions.softmax import class_log_prob
from grnn_jax.distributions.truncation import TRUNCATION_OPTIONS, truncate
from grnn_jax.ops.factories import cached_factory
from grnn_jax.ops.lookup import lookup
from grnn_jax.ops.products import dense
from grnn_jax.ops.ranks import align

ONE_HOT_CLASSES = 4096
"""Most classes that enter the network as one-hot vectors; more need an embedding."""

LOGITS_LIMIT = 2**25
"""Logits held at once by `log_prob`; above it the loss is computed in chunks over time."""


@cached_factory
def categorical(
    num_classes: int,
    *,
    embedding_size: int = 0,
    tied: bool = False,
    end: int | None = None,
    dtype: DType = jnp.float32,
    logits_limit: int = LOGITS_LIMIT,
) -> Distribution:
    r"""Categorical distribution.

        log p(x = k | h) = o_k - log Σ_j exp(o_j),     o = W h + b_o

    The loss over [B, T] events never holds more than about `logits_limit` logits: above it the
    window is cut in time, and each piece's logits are computed again in the backward pass. The
    gradient stays exact.

    Args:
        num_classes: K, the end class included.
        embedding_size: X of a learned embedding E [K, X] of the inputs; 0 for one-hot.
        tied: output weights W = E, so that hidden_size must equal embedding_size
            (Press & Wolf 2017).
        end: the class that ends a sequence; None if the end is not modelled.
        dtype: compute dtype of the output matmul; logits and log-probabilities are float32.
        logits_limit: see above.

    Returns:
        The distribution; events are integers in [0, K), any other has log-probability NaN.

    Raises:
        ValueError: for sizes that do not fit.

    Reference: O. Press, L. Wolf, "Using the output embedding to improve language models",
    EACL 2017.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> family = distributions.categorical(5)
        >>> params = family.init(jax.random.key(0), 4)
        >>> hidden = jnp.ones((5, 4))
        >>> nats = jax.jit(family.log_prob)(params, hidden, jnp.arange(5))
        >>> float(jnp.exp(nats).sum().round(3))  # over all events
        1.0
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if embedding_size < 0:
        raise ValueError(f"embedding_size must not be negative, got {embedding_size}")
    if tied and not embedding_size:
        raise ValueError("tied needs an embedding: embedding_size is 0")
    if not embedding_size and num_classes > ONE_HOT_CLASSES:
        raise ValueError(
            f"{num_classes} classes are too many for one-hot inputs (at most {ONE_HOT_CLASSES}); "
            "set embedding_size"
        )
    if end is not None and not 0 <= end < num_classes:
        raise ValueError(f"end must be a class in [0, {num_classes}), got {end}")

    spec = jax.ShapeDtypeStruct((), jnp.int32)
    accept = accept_numbers(spec, within(0, num_classes))

    def init(key: PRNGKey, hidden_size: int) -> Params:
        if tied and hidden_size != embedding_size:
            raise ValueError(
                "tied embeddings need embedding_size equal to the cell's output size "
                f"{hidden_size}, got {embedding_size}"
            )
        embedding_key, kernel_key = jax.random.split(key)
        params = {"bias": jnp.zeros((num_classes,), jnp.float32)}
        if embedding_size:
            scale = embedding_size**-0.5 if tied else 1.0
            params["embedding"] = scale * jax.random.normal(
                embedding_key, (num_classes, embedding_size), jnp.float32
            )
        if not tied:
            params["kernel"] = jax.nn.initializers.lecun_normal()(
                kernel_key, (hidden_size, num_classes), jnp.float32
            )
        return params

    def logits(params: Params, hidden: Float[Array, "... H"]) -> Float[Array, "... V"]:
        kernel = params["embedding"].T if tied else params["kernel"]
        scores = dense(hidden, kernel, dtype)
        return scores + align(params["bias"], scores)

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: Int[Array, "..."]
    ) -> Float[Array, "..."]:
        event, valid = accept(event)
        return jnp.where(valid, class_log_prob(logits(params, hidden), event), jnp.nan)

    def sample(
        key: Array,
        params: Params,
        hidden: Float[Array, "B H"],
        *,
        temperature: float | Array = 1.0,
        top_k: int | Array | None = None,
        top_p: float | Array | None = None,
        min_p: float | Array | None = None,
        typical_p: float | Array | None = None,
    ) -> Int[Array, " B"]:
        scores = truncate(logits(params, hidden), temperature, top_k, top_p, min_p, typical_p)
        return jax.vmap(jax.random.categorical)(key, scores).astype(jnp.int32)

    def mode(params: Params, hidden: Float[Array, "... H"]) -> Int[Array, "..."]:
        return logits(params, hidden).argmax(-1).astype(jnp.int32)

    def token_table(params: Params) -> Float[Array, "V X"]:
        if not embedding_size:
            return jnp.eye(num_classes, dtype=params["bias"].dtype)
        table: Array = params["embedding"]
        return table

    def encode(params: Params, event: Int[Array, "..."]) -> Float[Array, "... X"]:
        return lookup(token_table(params), event)

    def is_end(event: Int[Array, "..."]) -> Bool[Array, "..."]:
        assert end is not None
        return jnp.equal(event, end)

    return Distribution(
        init=init,
        log_prob=cut_in_time(log_prob, num_classes, logits_limit),
        sample=sample,
        mode=mode,
        encode=encode,
        encoding_size=embedding_size or num_classes,
        event=spec,
        token_table=token_table,
        is_end=None if end is None else is_end,
        logits=logits,
        name="categorical",
        num_tokens=num_classes,
        options=TRUNCATION_OPTIONS,
        accept=accept,
    )
