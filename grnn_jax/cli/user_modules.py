"""--import_module=NAME: modules of the user's own, imported before any flag is read.

They enter what they define into the registries (`cells.CELLS`, `distributions.DISTRIBUTIONS`,
`data.FORMATS`, `data.CODECS`), which say what the flags and the settings of a run may name.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from grnn_jax.cli import old_names
from grnn_jax.errors import InputError

FLAG = "import_module"


def names_in(arguments: Sequence[str]) -> list[str]:
    """The modules that arguments of a command name, in flag files too.

    Args:
        arguments: of the command line, without the program.

    Returns:
        Their names, each once.
    """
    renamed = [old_names.accept_argument(argument) for argument in arguments]
    rest = iter(flags.FLAGS.read_flags_from_files(renamed, force_gnu=False))
    names: list[str] = []
    for argument in rest:
        if argument == "--":
            break
        flag, equals, value = argument.partition("=")
        if flag in (f"--{FLAG}", f"-{FLAG}"):
            names += (value if equals else next(rest, "")).split(",")
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))


def import_modules(names: Sequence[str]) -> None:
    """Imports modules, which may lie in the present folder.

    Args:
        names: as in `import NAME`.

    Raises:
        InputError: a module cannot be imported.
    """
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # First, as `python -m NAME` has it.
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(
                f"--{FLAG}={name} cannot be imported{_place(error)}: {reason}"
            ) from error


def _place(error: Exception) -> str:
    """Where the module failed: the last of its own lines that was reached."""
    importing = (__file__, importlib.__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in importing and not frame.filename.startswith("<frozen")
    ]
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
