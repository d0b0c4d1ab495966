"""How every command starts and ends: its flags, its log, and errors in one sentence."""

import contextlib
import logging as standard_logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from grnn_jax.cli import (
    exhaustion,
    flag_files,
    interrupts,
    old_names,
    presets,
    streams,
    user_modules,
)
from grnn_jax.cli import flags as command_flags
from grnn_jax.cli.devices import start_devices
from grnn_jax.cli.help import help_text
from grnn_jax.cli.messages import dashed
from grnn_jax.errors import InputError, RunError

FLAGS = flags.FLAGS
PACKAGE = Path(__file__).parents[1]


class _Formatter(standard_logging.Formatter):
    """The time and the message; of a warning also the level, and arguments as flags."""

    def format(self, record: standard_logging.LogRecord) -> str:
        """Formats one line of the log."""
        line = super().format(record)
        if record.levelno > standard_logging.INFO:
            line = dashed(line, command_flags.names())
            line = line.replace(" ", f" {record.levelname.lower()}: ", 1)
        return line


def _show_own_logs_only() -> None:
    """Keeps the chatter of libraries off the log; their warnings stay."""

    def keep(record: standard_logging.LogRecord) -> bool:
        if Path(record.pathname).is_relative_to(PACKAGE):
            return True
        # What Orbax complains of comes as an exception too, and is told in one sentence.
        orbax = f"{os.sep}orbax{os.sep}" in record.pathname
        return record.levelno > standard_logging.INFO and not orbax

    def told(unraisable: "sys.UnraisableHookArgs") -> None:
        # Reads and writes that a failed checkpoint leaves behind end after the loop that waited for
        # them.
        code = getattr(unraisable.object, "cr_code", None)
        of_orbax = code is not None and f"{os.sep}orbax{os.sep}" in code.co_filename
        if not of_orbax and "Event loop is closed" not in str(unraisable.exc_value):
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = told
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(keep)
    logging.get_absl_handler().setFormatter(_Formatter("%(asctime)s %(message)s", "%H:%M:%S"))


def _parse(argv: Sequence[str]) -> list[str]:
    """Reads the flags; of a preset those that are not given beside it."""
    rest = FLAGS([old_names.accept_argument(argument) for argument in argv])
    if "preset" in FLAGS and FLAGS.preset:
        for name, value in presets.read(old_names.accept_preset(FLAGS.preset)).items():
            flag = FLAGS[name]
            if not flag.present:
                flag.parse(value)
                flag.using_default_value = False
    command_flags.check_numbers()
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}: flags begin with --")
    return rest


def start(
    run: Callable[[], int | None],
    define: Callable[[], None],
    description: str,
    *,
    prepare: Callable[[], None] | None = None,
) -> None:
    """Parses the flags, runs a command and turns mistakes of the user into one sentence.

    Exit status: 0 when done, 1 after an error, 128 + the signal's number after a signal.

    Args:
        run: what the command does; its result is the exit status.
        define: defines the flags.
        description: text for `--help`.
        prepare: what is done with the flags before the devices start that they ask for.
    """
    try:
        streams.prepare()
        # Before the flags are defined: what they may be set to depends on it.
        flag_files.check([old_names.accept_argument(argument) for argument in sys.argv[1:]])
        user_modules.import_modules(user_modules.names_in(sys.argv[1:]))
    except (flags.Error, InputError) as error:
        sys.exit(_fail(error))
    define()
    command_flags.define_import_module()

    def parse(argv: Sequence[str]) -> list[str]:
        if any(arg in ("--help", "-help", "-h", "--h", "-?") for arg in argv[1:]):
            with contextlib.suppress(BrokenPipeError):  # train.py --help | head
                try:
                    print(help_text(description, argv[0]), flush=True)
                except InputError as error:
                    raise SystemExit(_fail(error)) from None
            raise SystemExit(0)
        try:
            return _parse(argv)
        except (flags.Error, InputError) as error:
            raise SystemExit(_fail(error)) from None

    def guarded(_: Sequence[str]) -> None:
        _show_own_logs_only()
        for note in old_names.notes:
            logging.info("%s", note)
        try:
            with interrupts.raised():
                if prepare is not None:
                    prepare()
                if "num_cpu_devices" in FLAGS:
                    start_devices()
                status = run() or 0
            sys.stdout.flush()
        except InputError as error:
            status = _fail(error)
        except RunError as error:
            # Without the last writes of libraries, which may fail too and say so at length.
            os._exit(_fail(error))
        except KeyboardInterrupt:
            status = 130
        except BrokenPipeError:
            status = 0
        except (MemoryError, OSError, RuntimeError) as error:
            message = exhaustion.explain(error, command_flags.own_names())
            if message is None:
                raise
            # Threads that wait for what was never computed would keep the process from ending.
            os._exit(_fail(message))
        with contextlib.suppress(InputError, BrokenPipeError):
            sys.stdout.flush()
        sys.exit(status)

    app.run(guarded, flags_parser=parse)


def _fail(error: object) -> int:
    message = dashed(str(error).removeprefix("ERROR:: "), command_flags.names())
    streams.tell(f"error: {message}")
    return 1
