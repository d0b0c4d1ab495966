"""Records of a file that cannot be used: all of them are named at once, or skipped and counted."""

import contextlib
import logging
from collections.abc import Iterator

from grnn_jax.errors import InputError

_MOST_SHOWN = 20


class BadRecords:
    """Collects what is wrong with the records of a file, so that no bad one hides the others.

    Args:
        skip: whether bad records are left out, with a warning; else they are an error.
    """

    def __init__(self, skip: bool):
        self._skip = skip
        self._errors: list[InputError] = []
        self._num_errors = self._total = 0

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        """What raises InputError inside is a bad record."""
        self._total += 1
        try:
            yield
        except InputError as error:
            self._note(error)

    def add(self, error: InputError) -> None:
        """Counts a bad record where records that are good are not counted."""
        self._note(error)

    def _note(self, error: InputError) -> None:
        self._num_errors += 1
        if len(self._errors) < _MOST_SHOWN:
            self._errors.append(error)

    def finish(self, what: str) -> None:
        """Raises InputError that lists the bad records, or warns of them.

        Args:
            what: what the records are called.
        """
        count = self._num_errors
        if not count:
            return
        if count == 1 and not self._skip:
            raise self._errors[0]
        shown = "".join(f"\n  {error}" for error in self._errors)
        if count > _MOST_SHOWN:
            shown += f"\n  and {count - _MOST_SHOWN} more"
        counted = f"{count} of {self._total} {what}" if self._total else f"{count} {what}"
        if not self._skip:
            raise InputError(f"{counted} cannot be used; skip_bad=true leaves them out:{shown}")
        logging.getLogger(__name__).warning("skipped %s, which cannot be used:%s", counted, shown)


def report(error: InputError, bad: BadRecords | None) -> None:
    """Adds a bad record to those of a file, or raises it where nothing collects them."""
    if bad is None:
        raise error
    bad.add(error)
