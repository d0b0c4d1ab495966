"""What samples are drawn given: --condition for all of them, --condition_from a row for each."""

import os

import numpy as np
from jaxtyping import Float

from grnn_jax.cli import flags
from grnn_jax.data.condition_columns import conditions_by_line
from grnn_jax.data.conditions import ConditionCodec, Values, parse_given
from grnn_jax.data.file_kinds import COLUMN_FILES, COLUMN_KINDS, kind_of
from grnn_jax.errors import InputError
from grnn_jax.workdir import Run

FLAGS = flags.FLAGS
BY_ROW = "ancestral", "masked", "particles"
"""The methods that draw each sample by itself; others find all of them together."""


def define_flags() -> None:
    """Defines the flags of this file."""
    define = flags.define
    help = (
        "Of a run with --condition_on: what all samples are drawn given, NAME=VALUE parted by "
        "commas; NAME= for a missing value."
    )
    define("string", "condition", "", help)
    help = f"Likewise, a row for each sample: a {COLUMN_FILES} with a column for each condition."
    define("string", "condition_from", "", help)


def asked_conditions(run: Run, method: str) -> Float[np.ndarray, "..."] | None:
    """What the flags say that samples are drawn given.

    Args:
        run: a trained model.
        method: of drawing.

    Returns:
        [C] for all samples, or [N, C], a row for each; None of a run without conditions. Of a file
        the number of samples is that of its rows.

    Raises:
        InputError: the flags do not fit the run, the method or each other.
    """
    codec = run.codec.conditions
    typed = [name for name in ("condition", "condition_from") if flags.value(name)]
    if codec is None:
        if typed:
            raise InputError(f"--{typed[0]} is for runs with --condition_on or --label_from")
        return None
    names = ", ".join(codec.names)
    if len(typed) != 1:
        got = "both" if typed else "none"
        raise InputError(
            f"a run on the conditions {names} needs --condition=NAME=VALUE,... or "
            f"--condition_from=FILE, got {got}"
        )
    if FLAGS.condition:
        return codec.of_names(parse_given(FLAGS.condition), "--condition")
    if method not in BY_ROW:
        raise InputError(
            f"--condition_from has a row for each sample, and --method={method} finds all samples "
            "together: give --condition"
        )
    rows = _read_rows(os.path.expanduser(FLAGS.condition_from), codec)
    if flags.is_typed("num_samples") and FLAGS.num_samples != len(rows):
        raise InputError(
            f"--num_samples must be {len(rows)}, the rows of {FLAGS.condition_from}, or left out, "
            f"got {FLAGS.num_samples}"
        )
    FLAGS["num_samples"].value = len(rows)
    return rows


def _read_rows(path: str, codec: ConditionCodec) -> Float[np.ndarray, "N C"]:
    """The conditions in the rows of a file."""
    kind = kind_of(path)
    if kind not in COLUMN_KINDS:
        raise InputError(f"--condition_from must be a {COLUMN_FILES}, got {path}")
    if not os.path.isfile(path):
        raise InputError(f"--condition_from: there is no file {path}")
    by_line: list[Values | None] = conditions_by_line(path, codec.names)
    word = "row" if kind == "parquet" else "line"
    rows = [
        codec.encode(values, f"{path}, {word} {number}")
        for number, values in enumerate(by_line)
        if values is not None
    ]
    if not rows:
        raise InputError(f"--condition_from: {path} has no rows")
    return np.stack(rows)
