"""What a command does before it imports anything else, which takes seconds."""

import os
import signal
import sys
from pathlib import Path

PREFIX = "grnn-"
"""What the names of the installed commands begin with."""


def is_command(program: str) -> bool:
    """Whether a program is a command of this package, installed or in its repository."""
    folder = Path(__file__).parents[1] / "experiments"
    return os.path.basename(program).startswith(PREFIX) or Path(program).absolute().parent == folder


def end_on_interrupt() -> None:
    """Lets Ctrl-C end a command without a traceback, until `cli.interrupts` takes over.

    In a job in the background it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if is_command(sys.argv[0] if getattr(sys, "argv", None) else ""):
    end_on_interrupt()
