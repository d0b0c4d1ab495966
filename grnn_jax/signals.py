"""SIGTERM and SIGINT as a wish to stop after the present step, not as an end in the middle."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType

NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Notes the first SIGTERM or SIGINT; the second one of its kind ends the process at once.

    A thread reads the numbers, because Python's own handlers do not run while the main thread
    waits for a compilation or for a device.

    Attributes:
        received: number of the last signal, or 0.
    """

    def __init__(self) -> None:
        self.received = 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = number

    def _watch(self, pipe: socket.socket) -> None:
        seen: set[int] = set()
        with pipe:
            while numbers := pipe.recv(1):
                number = numbers[0]
                if number not in NUMBERS:
                    continue
                if number in seen:
                    os._exit(128 + number)
                seen.add(number)
                os.write(
                    2, b"\nstopping after this step; the same signal again ends the run at once\n"
                )

    @contextlib.contextmanager
    def installed(self) -> Iterator["Signals"]:
        """Handles the signals inside the context; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        read, write = socket.socketpair()
        write.setblocking(False)
        old_pipe = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        watcher = threading.Thread(target=self._watch, args=(read,), daemon=True)
        watcher.start()
        old = {number: signal.signal(number, self._note) for number in NUMBERS}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_pipe)
            write.close()  # Ends the thread.
            watcher.join()
