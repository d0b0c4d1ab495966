"""Ctrl-C ends a command without a traceback, and is never lost."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

SECONDS = 1.0
"""Between two looks at whether an interrupt was lost."""
_UNTOUCHED = (signal.default_int_handler, signal.SIG_DFL)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """SIGINT as KeyboardInterrupt; the second one ends the process at once.

    Python may be interrupted where an exception goes nowhere (a callback of a library, the end of
    an object), which prints it and goes on. It is raised again then, and at the end at last.

    Raises:
        KeyboardInterrupt: there was a SIGINT.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) not in _UNTOUCHED  # As of a job in the background.
    ):
        yield
        return
    received = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)
        raise KeyboardInterrupt

    def look(number: int, frame: FrameType | None) -> None:
        if not _is_ending():
            raise KeyboardInterrupt

    old = signal.signal(signal.SIGINT, interrupt), signal.signal(signal.SIGALRM, look)
    try:
        yield
        if received:
            raise KeyboardInterrupt
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, old[0])
        signal.signal(signal.SIGALRM, old[1])


def _is_ending() -> bool:
    """Whether the code that runs now cleans up after a KeyboardInterrupt."""
    error = sys.exception()
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
