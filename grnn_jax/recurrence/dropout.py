"""Dropout over a window, drawn so that chunks and packed sequences see the right masks."""

from typing import NamedTuple

import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Float, Int, PRNGKey
from grnn_jax.ops.masks import EventIndex, Rate, event_mask


class DropoutIndex(NamedTuple):
    """What the masks of an event are folded from, [B, T] each.

    Attributes:
        row: number of the row in the whole batch.
        step: number of the step in the window.
        sequence: number of the sequence in the row: grows by one at each reset.
    """

    row: Int[Array, "B T"]
    step: Int[Array, "B T"]
    sequence: Int[Array, "B T"]

    def of_steps(self) -> EventIndex:
        """Every event has masks of its own."""
        return EventIndex(self.row.T, self.step.T)

    def of_sequences(self) -> EventIndex:
        """All events of a sequence in the window share their masks."""
        return EventIndex(self.row.T, self.sequence.T)

    def of_sites(self, num_sites: int) -> "DropoutIndex":
        """The indices where every row is that of many sites, [B·N, T] each."""
        row, step, sequence = (jnp.repeat(numbers, num_sites, axis=0) for numbers in self)
        site = jnp.tile(jnp.arange(num_sites, dtype=row.dtype), len(self.row))
        return DropoutIndex(row * num_sites + site[:, None], step, sequence)


def dropout_index(
    batch_size: int,
    length: int,
    reset: Bool[Array, "B T"] | None,
    first_row: int | Int[Array, ""] = 0,
) -> DropoutIndex:
    """The indices of a whole window; slices of them serve its chunks.

    Args:
        batch_size: B.
        length: T.
        reset: where sequences start.
        first_row: number of the first row, where the rows are a part of a batch.

    Returns:
        The indices.
    """
    step = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch_size, length))
    row = jnp.broadcast_to(jnp.arange(batch_size, dtype=jnp.int32)[:, None], step.shape) + first_row
    sequence = jnp.zeros_like(step) if reset is None else jnp.cumsum(reset, 1, dtype=jnp.int32)
    return DropoutIndex(row, step, sequence)


def dropout(
    key: PRNGKey, hidden: Float[Array, "T B H"], rate: Rate, index: EventIndex
) -> Float[Array, "T B H"]:
    """Zeroes elements with probability `rate`, divides the others by 1 - rate.

    Events of one row with equal numbers in `index` share their mask.

    Reference: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15, 2014.
    """
    keep = event_mask(key, index, hidden.shape[-1], 1 - rate)
    return jnp.where(keep, hidden / (1 - rate), 0)
