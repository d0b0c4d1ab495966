"""Files of flags, looked at before absl reads them: it takes any file, and takes it whole."""

import os
from collections.abc import Sequence

from grnn_jax.errors import InputError

MAX_BYTES = 1 << 20
MAX_FILES = 100
"""Most files that are read, those that files name among them."""
_FLAGS = ("--flagfile", "-flagfile")


def check(arguments: Sequence[str]) -> None:
    """Checks the files of flags that a command line names, and those that these name.

    Args:
        arguments: of the command line, without the program.

    Raises:
        InputError: a file is no text file, or is too large; one that does not exist passes, as
            absl says so itself.
    """
    paths = []
    for number, argument in enumerate(arguments):
        if argument == "--":
            break
        flag, equals, value = argument.partition("=")
        if flag in _FLAGS:
            paths.append(value.strip() if equals else "".join(arguments[number + 1 : number + 2]))
    waiting: list[tuple[str, tuple[str, ...]]] = [(os.path.expanduser(p), ()) for p in paths]
    read = 0
    while waiting:
        path, parents = waiting.pop()
        if not os.path.exists(path) or path in parents:  # absl reads no file inside itself.
            continue
        read += 1
        if read > MAX_FILES:
            raise InputError(f"--flagfile: more than {MAX_FILES} files name each other")
        for line in _lines(path):
            flag, equals, value = line.partition("=")
            if equals and flag in _FLAGS:
                waiting.append((os.path.expanduser(value.strip()), (*parents, path)))


def _lines(path: str) -> list[str]:
    """The lines of a file of flags."""
    if not os.path.isfile(path):  # A pipe would wait, and a device may never end.
        raise InputError(f"--flagfile must be a text file, got {path}")
    try:
        with open(path) as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"--flagfile: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError(f"--flagfile must be a text file with a flag a line, got {path}")
    if len(text) > MAX_BYTES:
        raise InputError(f"--flagfile must have at most {MAX_BYTES:,} characters, got {path}")
    return text.splitlines()
