"""Random masks of events, the same in whatever pieces a window is computed."""

from typing import NamedTuple

import jax

from grnn_jax.array_types import Array, Bool, Int, PRNGKey


class EventIndex(NamedTuple):
    """What the mask of an event is folded from, [T, B] each.

    Attributes:
        row: number of the row in the whole batch, the same for all steps.
        number: number of the event in the row; events of a row with equal numbers share a mask.
    """

    row: Int[Array, "T B"]
    number: Int[Array, "T B"]


def event_mask(
    key: PRNGKey, index: EventIndex, width: int, probability: float
) -> Bool[Array, "T B width"]:
    """True with a probability, drawn from the key and the event's index."""
    row_keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(index.row[0])

    def draw(row_key: PRNGKey, number: Int[Array, ""]) -> Bool[Array, " width"]:
        event_key = jax.random.fold_in(row_key, number)
        return jax.random.bernoulli(event_key, probability, (width,))

    return jax.vmap(jax.vmap(draw), in_axes=(None, 0))(row_keys, index.number)
