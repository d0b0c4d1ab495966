"""Random masks of events, the same in whatever pieces a window is computed."""

from typing import NamedTuple

import jax

from grnn_jax.array_types import Array, Bool, Float, Int, PRNGKey

Rate = float | Float[Array, ""]
"""A probability; it may be traced, as that of a search over rates which compiles once."""


class EventIndex(NamedTuple):
    """What the mask of an event is folded from, [T, B] each.

    Attributes:
        row: number of the row in the whole batch, the same for all steps.
        number: number of the event in the row; events of a row with equal numbers share a mask.
    """

    row: Int[Array, "T B"]
    number: Int[Array, "T B"]


def check_rate(name: str, rate: Rate) -> Rate:
    """A rate in [0, 1), as a Python number but where it is traced; names one outside of it."""
    if isinstance(rate, jax.core.Tracer):
        return rate
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"{name} must lie in [0, 1), got {rate}")
    return float(rate)


def is_zero(rate: Rate) -> bool:
    """Whether nothing is dropped, which of a traced rate is not known."""
    return not isinstance(rate, jax.core.Tracer) and bool(rate == 0)


def event_mask(
    key: PRNGKey, index: EventIndex, width: int, probability: Rate
) -> Bool[Array, "T B width"]:
    """True with a probability, drawn from the key and the event's index."""
    row_keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(index.row[0])

    def draw(row_key: PRNGKey, number: Int[Array, ""]) -> Bool[Array, " width"]:
        event_key = jax.random.fold_in(row_key, number)
        return jax.random.bernoulli(event_key, probability, (width,))

    return jax.vmap(jax.vmap(draw), in_axes=(None, 0))(row_keys, index.number)
