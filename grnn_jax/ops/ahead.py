"""One result ahead: a device is at work on the next while the caller reads the last."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

Result = TypeVar("Result")


def one_ahead(results: Iterable[Result]) -> Iterator[Result]:
    """Yields what an iterable does, each only when the one after it was asked for too.

    Arrays are computed in the background: asking for the next sends its computation off, so that it
    runs while the caller waits for the numbers of this one.

        >>> order = []
        >>> begun = (order.append(f"begin {n}") or n for n in range(3))
        >>> for n in one_ahead(begun):
        ...     order.append(f"read {n}")
        >>> order
        ['begin 0', 'begin 1', 'read 0', 'begin 2', 'read 1', 'read 2']

    Args:
        results: begins each when it is asked for.

    Yields:
        The same.
    """
    pending: list[Result] = []
    for result in results:
        yield from pending
        pending = [result]
    yield from pending
