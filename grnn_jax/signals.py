"""SIGTERM and SIGINT as a wish to stop after the present step, not as an end in the middle."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Signals:
    """Notes the first SIGTERM or SIGINT; the second one of its kind ends the process at once.

    Attributes:
        received: number of the last signal, or 0.
    """

    def __init__(self) -> None:
        self.received = 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = number
        signal.signal(number, signal.SIG_DFL)
        os.write(2, b"\nstopping after this step; the same signal again ends the run at once\n")

    @contextlib.contextmanager
    def noted(self) -> Iterator["Signals"]:
        """Handles the signals inside the context; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        old = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
