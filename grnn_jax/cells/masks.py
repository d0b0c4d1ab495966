"""Random masks of events, the same in whatever pieces a window is computed."""

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Int, PRNGKey


def event_mask(
    key: PRNGKey, index: Int[Array, "T B"], width: int, probability: float
) -> Bool[Array, "T B width"]:
    """True with a probability, drawn from the key, the row b and the event's index."""
    row_keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(index.shape[1]))

    def draw(row_key: PRNGKey, number: Int[Array, ""]) -> Bool[Array, " width"]:
        event_key = jax.random.fold_in(row_key, number)
        return jax.random.bernoulli(event_key, probability, (width,))

    return jax.vmap(jax.vmap(draw), in_axes=(None, 0))(row_keys, index)
