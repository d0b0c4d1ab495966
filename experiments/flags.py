"""The flags of the scripts: one for each setting of a run, and those of the machine."""

import logging as standard_logging
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import app, flags, logging

from grnn_jax.config import FIELDS, SECTIONS, Config
from grnn_jax.data.pianoroll import NUM_KEYS
from grnn_jax.distributions import DISTRIBUTIONS
from grnn_jax.errors import InputError, RunError
from grnn_jax.sharding import (
    CPU_DEVICE_ROWS,
    initialize_distributed,
    num_cores,
    useful_cpu_devices,
)
from grnn_jax.workdir import choices, is_sitewise

FLAGS = flags.FLAGS
INDENT = " " * 8
DEFAULT_WORKDIR = "runs/default"
_PATHS = ("data", "valid_data", "test_data", "start_from")
_help: dict[str, list[str]] = {}


def _remember(section: str, name: str) -> None:
    _help.setdefault(section, []).append(name)


def define_config() -> None:
    """Defines a flag for each field of `Config`."""
    for name, field in FIELDS.items():
        metadata, kind = field.metadata, type(field.default)
        allowed = choices().get(name, metadata["choices"])
        if allowed is not None:
            flags.DEFINE_enum(name, field.default, list(allowed), metadata["help"])
        elif kind is bool:
            flags.DEFINE_boolean(name, field.default, metadata["help"])
        elif kind is int:
            flags.DEFINE_integer(name, field.default, metadata["help"])
        elif kind is float:
            flags.DEFINE_float(name, field.default, metadata["help"])
        else:
            flags.DEFINE_string(name, field.default, metadata["help"])
        _remember(metadata["section"], name)


def define_machine(distributed: bool = True) -> None:
    """Defines the flags that say where a run lives and what it runs on.

    Args:
        distributed: True to define those of several processes.
    """
    flags.DEFINE_string("workdir", DEFAULT_WORKDIR, "Directory that holds everything of a run.")
    flags.DEFINE_integer(
        "num_cpu_devices",
        0,
        "Virtual CPU devices, which share the rows of a batch; 0: in training and sampling as many "
        "as help on this machine, else what JAX is set to.",
    )
    names = ["workdir", "num_cpu_devices"]
    if distributed:
        flags.DEFINE_string("coordinator_address", "", "host:port of process 0 of several.")
        flags.DEFINE_integer("num_processes", 1, "Processes that train together.")
        flags.DEFINE_integer("process_id", 0, "Number of this process, from 0.")
        names += ["coordinator_address", "num_processes", "process_id"]
    for name in names:
        _remember("machine", name)


def define(kind: str, name: str, default: object, help: str, **options: object) -> None:
    """Defines a flag of one script, listed first in its help.

    Args:
        kind: "string", "integer", "float", "boolean", "enum" or "multi_string".
        name: its name.
        default: its value where it is not given.
        help: one sentence.
        **options: passed on to absl.
    """
    getattr(flags, f"DEFINE_{kind}")(name=name, default=default, help=help, **options)
    _remember("this script", name)


def script_values() -> dict[str, object]:
    """The values of the flags that `define` defined."""
    return {name: FLAGS[name].value for name in _help.get("this script", [])}


def is_typed(name: str) -> bool:
    """Whether the command line or a flag file names a flag, be it with its default."""
    return FLAGS[name].present > 0


def check_split() -> None:
    """Raises InputError where a split is asked for beside a file that is looked at whole."""
    if FLAGS.data and is_typed("split"):
        raise InputError(f"--split has no effect on --data={FLAGS.data}, which is taken whole")


def config_from_flags() -> Config:
    """The configuration that the command line asks for, with absolute paths.

    Returns:
        The configuration, not yet validated.
    """
    values = {name: FLAGS[name].value for name in FIELDS}
    for name in _PATHS:
        if values[name]:
            values[name] = os.path.abspath(os.path.expanduser(values[name]))
    return Config(**values)


def start_devices() -> None:
    """Sets up the devices and the processes, before the backend starts."""
    if FLAGS.num_cpu_devices < 0:
        raise InputError(f"--num_cpu_devices must be at least 0, got {FLAGS.num_cpu_devices}")
    num_devices = FLAGS.num_cpu_devices or _default_cpu_devices()
    if num_devices:
        jax.config.update("jax_num_cpu_devices", num_devices)
    if "coordinator_address" in FLAGS:
        initialize_distributed(FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id)
    if not jax.config.jax_compilation_cache_dir:
        cache = Path.home() / ".cache" / "grnn_jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def _default_cpu_devices() -> int:
    """The devices for training and sampling where nobody said how many; 0 leaves it to JAX."""
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen or jax.config.jax_num_cpu_devices > 0:
        return 0
    if "batch_size" in FLAGS and FLAGS.num_processes == 1:
        sizes = FLAGS.hidden_size, FLAGS.batch_size, FLAGS.eval_batch_size
        return useful_cpu_devices(num_cores(), *sizes, NUM_KEYS if is_sitewise(FLAGS.cell) else 1)
    if "num_samples" in FLAGS:
        return max(1, min(num_cores(), FLAGS.num_samples // CPU_DEVICE_ROWS))
    return 0


def help_text(description: str) -> str:
    """The text of `--help`.

    Args:
        description: what the script does, with an example.

    Returns:
        Description, then the flags by section, each with its default and its choices.
    """
    lines = [description.strip(), ""]
    for section in ("this script", "machine", *SECTIONS):
        names = _help.get(section, [])
        if names:
            lines.append(f"{section}:")
        for name in names:
            flag = FLAGS[name]
            kind = {"int": "integer", "float": "number"}.get(flag.flag_type(), "")
            values = "|".join(getattr(flag.parser, "enum_values", None) or []) or kind
            head = f"  --[no]{name}" if flag.boolean else f"  --{name}={values or '…'}"
            left = textwrap.wrap(head.replace("|", "| "), 100, subsequent_indent=INDENT)
            default = flag.default if flag.default not in ("", None) else "empty"
            default = str(default).lower() if flag.boolean else default
            sentence = flag.help.split(">: ", 1)[-1] if flag.help.startswith("<") else flag.help
            if name == "distribution":
                sentence += f" Families: {', '.join(DISTRIBUTIONS)}."
            text = " ".join(f"{sentence} (default: {default})".split())
            lines += [
                *(line.replace("| ", "|") for line in left),
                *textwrap.wrap(text, 100, initial_indent=INDENT, subsequent_indent=INDENT),
            ]
        lines += [""] if names else []
    lines += ["  --flagfile=FILE", "        Read flags from a file, one a line.", ""]
    lines.append("--helpfull shows the flags of the libraries too.")
    return "\n".join(lines)


class _Formatter(standard_logging.Formatter):
    """The time and the message; the level only where it is a warning or worse."""

    def format(self, record: standard_logging.LogRecord) -> str:
        """Formats one line of the log."""
        line = super().format(record)
        if record.levelno > standard_logging.INFO:
            line = line.replace(" ", f" {record.levelname.lower()}: ", 1)
        return line


def _show_own_logs_only() -> None:
    """Keeps the chatter of libraries off the log; their warnings stay."""

    def keep(record: standard_logging.LogRecord) -> bool:
        if os.path.basename(os.path.dirname(record.pathname)) in ("grnn_jax", "experiments"):
            return True
        # What Orbax complains of comes as an exception too, and is told in one sentence.
        orbax = f"{os.sep}orbax{os.sep}" in record.pathname
        return record.levelno > standard_logging.INFO and not orbax

    def told(unraisable: "sys.UnraisableHookArgs") -> None:
        # Writes that a failed checkpoint leaves behind end after the loop that waited for them.
        if "Event loop is closed" not in str(unraisable.exc_value):
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = told
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(keep)
    logging.get_absl_handler().setFormatter(_Formatter("%(asctime)s %(message)s", "%H:%M:%S"))


def run(main: Callable[[], int | None], description: str) -> None:
    """Parses the flags, runs a script and turns mistakes of the user into one sentence.

    Exit status: 0 when done, 1 after an error, 128 + the signal's number after a signal.

    Args:
        main: the script; its result is the exit status.
        description: text for `--help`.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        if any(arg in ("--help", "-help", "-h", "--h", "-?") for arg in argv[1:]):
            try:
                print(help_text(description), flush=True)
            except BrokenPipeError:
                _discard_output()
            raise SystemExit(0)
        try:
            rest = FLAGS(list(argv))
        except flags.Error as error:
            raise SystemExit(_fail(error)) from None
        if len(rest) > 1:
            raise SystemExit(_fail(f"unexpected argument {rest[1]!r}: flags begin with --"))
        return rest

    def guarded(_: Sequence[str]) -> None:
        _show_own_logs_only()
        try:
            if "num_cpu_devices" in FLAGS:
                start_devices()
            status = main() or 0
        except InputError as error:
            status = _fail(error)
        except RunError as error:
            # Without the last writes of libraries, which may fail too and say so at length.
            os._exit(_fail(error))
        except KeyboardInterrupt:
            status = 130
        except BrokenPipeError:
            _discard_output()
            status = 0
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            # Threads that wait for what was never computed would keep the process from ending.
            os._exit(
                _fail(
                    "out of memory; give a smaller --batch_size (--eval_batch_size in an "
                    "evaluation), --sequence_length or --hidden_size"
                )
            )
        sys.exit(status)

    app.run(guarded, flags_parser=parse)


def _discard_output() -> None:
    """Goes on without a reader of standard output: `train.py --help | head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: object) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return 1
