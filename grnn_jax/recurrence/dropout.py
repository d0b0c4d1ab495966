"""Dropout over a window, drawn so that chunks and packed sequences see the right masks."""

from typing import NamedTuple

import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Float, Int, PRNGKey
from grnn_jax.cells.masks import event_mask


class DropoutIndex(NamedTuple):
    """What the masks of an event are folded from, [B, T] each.

    Attributes:
        step: number of the step in the window.
        sequence: number of the sequence in the row: grows by one at each reset.
    """

    step: Int[Array, "B T"]
    sequence: Int[Array, "B T"]


def dropout_index(batch_size: int, length: int, reset: Bool[Array, "B T"] | None) -> DropoutIndex:
    """The indices of a whole window; slices of them serve its chunks."""
    step = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch_size, length))
    sequence = jnp.zeros_like(step) if reset is None else jnp.cumsum(reset, 1, dtype=jnp.int32)
    return DropoutIndex(step, sequence)


def dropout(
    key: PRNGKey, hidden: Float[Array, "T B H"], rate: float, index: Int[Array, "T B"]
) -> Float[Array, "T B H"]:
    """Zeroes elements with probability `rate`, divides the others by 1 - rate.

    Events of one row b with equal `index` share their mask.

    Reference: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15, 2014.
    """
    keep = event_mask(key, index, hidden.shape[-1], 1 - rate)
    return jnp.where(keep, hidden / (1 - rate), 0)
