"""How far a long request is, and how long it will take: a bar on a terminal, else log lines."""

import sys
import time

import tqdm
from absl import logging

SECONDS_BETWEEN_LINES = 10


def clock(seconds: float) -> str:
    """Seconds as 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


class Countdown:
    """Tells on standard error what is done and what is left.

    Args:
        total: how many there are to do, or None where that is not known.
        unit: of what, in the plural.
        done: how many were done before.
    """

    def __init__(self, total: int | None, unit: str, done: int = 0):
        self._total, self._unit, self._first = total, unit, done
        self._start = self._told = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(total=total, initial=done, unit=f" {unit}", dynamic_ncols=True)

    def __call__(self, done: int) -> None:
        """Notes how many are done, and says so now and then."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN_LINES and done != self._total:
            return
        quick = done == self._total and now - self._start < SECONDS_BETWEEN_LINES
        if quick or done <= self._first:
            return
        self._told = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        if self._total is None:
            logging.info("%s %s, %s a second", f"{done:,}", self._unit, f"{rate:,.0f}")
            return
        logging.info(
            "%s of %s %s, %s a second, left %s", f"{done:,}", f"{self._total:,}", self._unit,
            f"{rate:,.0f}", clock((self._total - done) / rate),
        )  # fmt: skip

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
