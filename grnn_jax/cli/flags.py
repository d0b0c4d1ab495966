"""The flags of the commands: one for each setting of a run, and those of the machine."""

import math
import os
from typing import Any

from absl import flags, logging

from grnn_jax.cli import user_modules
from grnn_jax.cli.old_names import ChoiceParser, NameParser
from grnn_jax.config import COMPUTE_TYPES, FIELDS, MAX_SIZE, RENAMED, Config
from grnn_jax.errors import InputError
from grnn_jax.workdir import choices

FLAGS = flags.FLAGS
DEFAULT_WORKDIR = "runs/default"
OWN, MACHINE = "this command", "machine"
"""Sections of the help, beside those of the settings."""
_PATHS = ("data", "valid_data", "test_data", "start_from")
MAX_DEVICES = 2**16
LARGEST = 3.4028234e38
"""The largest float32, and so the largest number of a flag."""
_sections: dict[str, list[str]] = {}
_ranges: dict[str, tuple[int | float, int | float]] = {}
"""The smallest and the largest value of each flag that is a number."""


def _remember(section: str, name: str) -> None:
    names = _sections.setdefault(section, [])
    if name not in names:
        names.append(name)


def section(name: str) -> list[str]:
    """The flags of a section of the help, as they were defined."""
    return _sections.get(name, [])


def own_names() -> set[str]:
    """The flags of this command."""
    return {name for names in _sections.values() for name in names}


def names() -> set[str]:
    """What a message may name: the flags of this command and the settings of a run."""
    return own_names() | set(FIELDS)


def define_config() -> None:
    """Defines a flag for each field of `Config`."""
    serializer: flags.ArgumentSerializer[str] = flags.ArgumentSerializer()
    for name, field in FIELDS.items():
        default: Any = field.default
        metadata, kind = field.metadata, type(default)
        allowed = choices().get(name, metadata["choices"])
        if name in RENAMED:
            parser = NameParser(name) if allowed is None else ChoiceParser(name, list(allowed))
            flags.DEFINE(parser, name, default, metadata["help"], serializer=serializer)
        elif allowed is not None:
            flags.DEFINE_enum(name, default, list(allowed), metadata["help"])
        elif kind is bool:
            flags.DEFINE_boolean(name, default, metadata["help"])
        elif kind is int:
            flags.DEFINE_integer(name, default, metadata["help"])
        elif kind is float:
            flags.DEFINE_float(name, default, metadata["help"])
        else:
            flags.DEFINE_string(name, default, metadata["help"])
        if kind in (int, float):
            _remember_range(name, metadata["minimum"], metadata["maximum"])
        _remember(metadata["section"], name)


def define_machine(distributed: bool = True) -> None:
    """Defines the flags that say where a run lives and what it runs on.

    Args:
        distributed: True to define those of several processes.
    """
    help = "Directory that holds everything of a run."
    define("string", "workdir", DEFAULT_WORKDIR, help, section=MACHINE)
    help = "Virtual CPU devices, which share the rows of a batch; 0: in training and sampling as "
    help += "many as help on this machine, else what JAX is set to."
    define("integer", "num_cpu_devices", 0, help, minimum=0, maximum=MAX_DEVICES, section=MACHINE)
    if distributed:
        help = "host:port of process 0 of several."
        define("string", "coordinator_address", "", help, section=MACHINE)
        help = "Processes that train together."
        define("integer", "num_processes", 1, help, minimum=1, maximum=MAX_DEVICES, section=MACHINE)
        help = "Number of this process, from 0."
        define("integer", "process_id", 0, help, minimum=0, maximum=MAX_DEVICES, section=MACHINE)


def define_import_module() -> None:
    """Defines the flag that `user_modules` reads before the others are defined."""
    flags.DEFINE_multi_string(
        user_modules.FLAG,
        [],
        "Module of your own, or several parted by commas, imported first from where Python finds "
        "it or from the present folder: it adds cells, distributions, formats or codecs",
    )
    _remember(MACHINE, user_modules.FLAG)


def define_eval_batch_size(help: str) -> None:
    """Defines the flag of what scores: streams side by side, or sequences."""
    help += "; 0: as the run."
    define("integer", "eval_batch_size", 0, help, minimum=0, maximum=MAX_SIZE)


def define_dtype() -> None:
    """Defines the flag of what a trained run computes its products in."""
    help = "Type of the matrix products, whatever the run was trained in: float32, which is exact "
    help += "on every platform, tensorfloat32 or bfloat16 (faster on a GPU or TPU, less exact)."
    define("enum", "dtype", "float32", help, enum_values=list(COMPUTE_TYPES))


def log_dtype(trained: str) -> None:
    """Tells, at the end, what the numbers were computed in, of a run trained in some type."""
    dtype = value("dtype")
    other = f"; the run was trained in {trained}" if trained != dtype else ""
    logging.info("products of matrices were computed in %s%s", dtype, other)


def define_reading() -> None:
    """Defines the flags that say how --data is read, where other than the data of the run."""
    define("string", "column", "", "Column of --data with the sequences; empty: as the run.")
    define("boolean", "as_is", False, "Read --data as the format says, whatever it looks like.")
    define("boolean", "skip_bad", False, "Leave out, with a count, what cannot be used of --data.")
    most = "GiB that --data may expand to, where it is compressed; 0: as the run."
    define("float", "max_file_gib", 0.0, most, minimum=0)
    parted = "Column of --data that tells sequences apart in events and series; empty: as the run."
    define("string", "sequence_column", "", parted)


def reading() -> dict[str, Any]:
    """How --data is read, as the flags of `define_reading` say."""
    names = "column", "as_is", "skip_bad", "max_file_gib", "sequence_column"
    return {name: value(name) for name in names}


def define(
    kind: str,
    name: str,
    default: object,
    help: str,
    *,
    section: str = OWN,
    minimum: int | float | None = None,
    maximum: int | float | None = None,
    **options: object,
) -> None:
    """Defines a flag.

    Args:
        kind: "string", "integer", "float", "boolean", "enum" or "multi_string".
        name: its name.
        default: its value where it is not given.
        help: one sentence.
        section: of the help, where those of one command come first.
        minimum: the smallest number that is allowed; an integer must have one.
        maximum: the largest; an integer must have one: memory is taken for it, or it is counted.
        **options: passed on to absl.
    """
    getattr(flags, f"DEFINE_{kind}")(name=name, default=default, help=help, **options)
    _remember(section, name)
    if kind == "integer" and (minimum is None or maximum is None):
        raise TypeError(f"the flag {name} needs minimum and maximum")
    if kind in ("integer", "float"):
        _remember_range(name, minimum, maximum)


def _remember_range(name: str, minimum: int | float | None, maximum: int | float | None) -> None:
    low = -LARGEST if minimum is None else minimum
    _ranges[name] = low, LARGEST if maximum is None else maximum


def check_numbers() -> None:
    """Raises InputError where a number is not finite, or outside the range of its flag."""
    for name, (low, high) in _ranges.items():
        got = value(name)
        if got is None:
            continue
        if math.isnan(got) or math.isinf(got):
            raise InputError(f"--{name} must be a finite number, got {got}")
        if got < low:
            raise InputError(f"--{name} must be at least {low}, got {got}")
        if got > high:
            raise InputError(f"--{name} must be at most {high}, got {got}")


def script_values() -> dict[str, object]:
    """The values of the flags that `define` defined."""
    return {name: value(name) for name in section(OWN)}


def value(name: str) -> Any:
    """The value of a flag."""
    return FLAGS[name].value


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
    values = {name: value(name) for name in FIELDS}
    for name in _PATHS:
        if values[name]:
            values[name] = os.path.abspath(os.path.expanduser(values[name]))
    return Config(**values)
