"""Standard output and standard error of a command, which may be closed, full, or nobody's."""

import contextlib
import io
import os
import sys
from typing import Any

from grnn_jax.errors import InputError


class _Output(io.FileIO):
    """Standard output, where a write that fails is one sentence."""

    def write(self, data: Any, /) -> int:
        """Writes bytes, and says how many."""
        try:
            return super().write(data)
        except OSError as error:
            discard_output()  # What stands in buffers is written at the end of the process.
            if isinstance(error, BrokenPipeError):
                raise
            raise InputError(f"cannot write to standard output: {error.strerror}") from error


def prepare() -> None:
    """Makes every failure to write to standard output one sentence, wherever it is written to.

    Raises:
        InputError: standard output is closed: the next file that is opened would be in its place.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the process.
    if sys.stdout is None:
        raise InputError("standard output is closed; >/dev/null throws away what is printed")
    if not isinstance(sys.stdout, io.TextIOWrapper) or isinstance(sys.stdout.buffer, io.BytesIO):
        return  # Whoever calls a command in a process of theirs reads what it prints.
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(sys.stdout.fileno(), "w", closefd=False)),
        encoding=sys.stdout.encoding,
        errors=sys.stdout.errors,
        line_buffering=sys.stdout.line_buffering,
    )


def discard_output() -> None:
    """Goes on without standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def tell(message: str) -> None:
    """Writes a line to standard error, if it can be written to."""
    with contextlib.suppress(OSError):
        print(message, file=sys.stderr, flush=True)
