"""What a command does before it imports anything else, which takes seconds."""

import os
import sys
from types import TracebackType

COMMANDS = frozenset(
    f"grnn-{name}" for name in ("train", "evaluate", "sample", "score", "diagnose", "plot")
)
"""The installed commands, as pyproject.toml names them; a program of a user's own is left alone."""


def is_command(program: str) -> bool:
    """Whether a program is a command of this package, installed or in its repository."""
    scripts = os.path.join(os.path.dirname(os.path.dirname(__file__)), "experiments")
    folder, name = os.path.split(os.path.abspath(program))
    return name in COMMANDS or folder == scripts


def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python shows of an exception that nothing caught: of an interrupt nothing."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


def end_on_interrupt() -> None:
    """Lets Ctrl-C end a command without a traceback, until `cli.interrupts` takes over.

    In a job in the background it stays ignored.
    """
    sys.excepthook = show
    import signal  # This alone takes milliseconds.

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Libraries may catch all exceptions.


if is_command(sys.argv[0] if getattr(sys, "argv", None) else ""):
    end_on_interrupt()
