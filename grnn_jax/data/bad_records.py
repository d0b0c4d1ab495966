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
        self._total = 0

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        """What raises InputError inside is a bad record."""
        self._total += 1
        try:
            yield
        except InputError as error:
            self._errors.append(error)

    def finish(self, what: str) -> None:
        """Raises InputError that lists the bad records, or warns of them.

        Args:
            what: what the records are called.
        """
        errors, total = self._errors, self._total
        if not errors:
            return
        if len(errors) == 1 and not self._skip:
            raise errors[0]
        shown = "".join(f"\n  {error}" for error in errors[:_MOST_SHOWN])
        if len(errors) > _MOST_SHOWN:
            shown += f"\n  and {len(errors) - _MOST_SHOWN} more"
        if not self._skip:
            raise InputError(
                f"{len(errors)} of {total} {what} cannot be used; skip_bad=true leaves them out:"
                + shown
            )
        logging.getLogger(__name__).warning(
            "skipped %d of %d %s, which cannot be used:%s", len(errors), total, what, shown
        )
