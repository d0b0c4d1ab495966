"""Signals as a wish to stop after the present step, not as an end in the middle."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType

INSISTENT = (signal.SIGTERM, signal.SIGINT)
_OTHERS = ("SIGHUP", "SIGUSR1")  # Not on every system.
NUMBERS = (*INSISTENT, *(getattr(signal, name) for name in _OTHERS if hasattr(signal, name)))


class Signals:
    """Notes SIGTERM, SIGINT, SIGHUP and SIGUSR1.

    A second SIGTERM or SIGINT ends the process at once. The others are sent twice without meaning
    it: SIGHUP by a shell and by the system, when a terminal is lost, SIGUSR1 by a batch system as a
    warning before its time is up. A process that ignores SIGHUP (nohup) goes on ignoring it.

    A thread reads the numbers, because Python's own handlers do not run while the main thread
    waits for a compilation or for a device.

    Attributes:
        received: number of the last signal, or 0.
    """

    def __init__(self) -> None:
        self.received = 0
        self._terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)]

    def _leave_terminals(self) -> None:
        """Writes nowhere what would go to a terminal that is lost, where writing is an error."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in self._terminals:
            os.dup2(nowhere, fd)
        os.close(nowhere)

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
                if number in seen and number in INSISTENT:
                    os._exit(128 + number)
                if signal.Signals(number).name == "SIGHUP":
                    self._leave_terminals()
                again = b"; the same signal again ends the run at once"
                if number not in seen:
                    with contextlib.suppress(OSError):  # Nowhere to write to.
                        os.write(
                            2,
                            b"\nstopping after the steps under way%b\n"
                            % (again * (number in INSISTENT)),
                        )
                seen.add(number)

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
        ignored = [n for n in NUMBERS if signal.getsignal(n) == signal.SIG_IGN]
        noted = [n for n in NUMBERS if n in INSISTENT or n not in ignored]
        old = {number: signal.signal(number, self._note) for number in noted}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_pipe)
            write.close()  # Ends the thread.
            watcher.join()
