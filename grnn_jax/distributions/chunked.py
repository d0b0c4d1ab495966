"""Losses over large windows, cut in time so that they never hold too much at once."""

import math
from collections.abc import Callable
from typing import TypeVar

from grnn_jax.array_types import Array, Params, PyTree
from grnn_jax.ops.chunks import scan_chunks

Numbers = TypeVar("Numbers")
"""What a function gives for each event: nats, or several numbers by name."""

NUMBERS_LIMIT = 2**25
"""Numbers held at once by a `log_prob` in each of its arrays; above it the window is cut."""


def cut_in_time(
    event_log_prob: Callable[[Params, Array, PyTree], Numbers],
    numbers: int,
    limit: int = NUMBERS_LIMIT,
) -> Callable[[Params, Array, PyTree], Numbers]:
    """The same log-probabilities, in chunks over time where a window [B, T] is large.

    Args:
        event_log_prob: (params, hidden [..., H], event [...]) -> nats [...], or any other numbers
            of each event.
        numbers: that it holds for each event.
        limit: numbers to hold at once.

    Returns:
        The function; each chunk is computed again in the backward pass.
    """

    def log_prob(params: Params, hidden: Array, event: PyTree) -> Numbers:
        events = math.prod(hidden.shape[:-1])
        if hidden.ndim != 3 or events * numbers <= limit:
            return event_log_prob(params, hidden, event)

        def chunk(carry: None, window: tuple[Array, PyTree]) -> tuple[None, Numbers]:
            return carry, event_log_prob(params, *window)

        chunk_size = max(1, limit // (hidden.shape[0] * numbers))
        nats: Numbers = scan_chunks(chunk, None, (hidden, event), chunk_size)[1]
        return nats

    return log_prob
