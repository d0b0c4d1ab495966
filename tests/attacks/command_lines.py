"""Runs the commands with flags drawn at random."""

import importlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from attacks.flipped_bits import data
from attacks.processes import WrongResultError
from attacks.scripts import TINY, command

SCRIPTS = ("train", "evaluate", "sample", "score", "diagnose", "plots")
LEFT_OUT = ("num_processes", "process_id", "coordinator_address", "distributed")
"""Flags that rightly wait for other machines."""
VALUES = {
    "int": (
        "-1", "0", "1", "2", "3", "17", "2147483647", "2147483648", "9223372036854775808", "1e3",
        "x", "", "0x10", "-0",
    ),
    "float": (
        "nan", "inf", "-inf", "-1", "0", "0.5", "1", "2", "1e-300", "1e300", "x", "", "1e-9",
    ),
    "string": (
        "", "x", "/nonexistent/file", "/dev/null", "/", "é", "a" * 300, "{", "(" * 3000, "[a-",
        "a{2,1}", "=", "--", "~nobody/x", "*", "an", "old cat", "_", "run", "../text.txt", "1,2",
        "x.npz", "x.csv", "x.parquet",
    ),
    "bool": ("true", "false", "maybe"),
}  # fmt: skip

ORDINARY = {
    "int": ("1", "2", "3", "5"), "float": ("0.1", "0.5", "1"), "string": ("", "an", "old", "x"),
    "bool": ("true", "false"),
}  # fmt: skip
"""What may well be meant: with nothing but mistakes no command would get beyond its flags."""


def flags_of(script: str) -> dict[str, dict[str, Any]]:
    """The flags of a command, in an attempt of its own: a process defines those of one command.

    Args:
        script: the name of the command.

    Returns:
        By name: the "kind" of its values, and its "choices" or None.
    """
    module = importlib.import_module(f"grnn_jax.cli.{script}")
    before = set(flags.FLAGS)
    module.define_flags()
    found = {}
    for name in sorted(set(flags.FLAGS) - before - set(LEFT_OUT)):
        parser = flags.FLAGS[name].parser
        kind = parser.flag_type() if parser.flag_type() in VALUES else "string"
        found[name] = {"kind": kind, "choices": list(getattr(parser, "enum_values", ())) or None}
    return found


def cases(
    known: dict[str, dict[str, Any]], good: Path, folder: Path, cache: Path, seed: int
) -> Iterator[dict[str, Any]]:
    """Command lines without end, the commands in turn.

    Args:
        known: what `flags_of` returned, by command.
        good: a folder with a run in "run", see `flipped_bits.make_run`.
        folder: for what the commands write.
        cache: folder of compiled programs.
        seed: of what is drawn.

    Yields:
        JSON for `run`.
    """
    rng = random.Random(seed)
    number = 0
    while True:
        for script in SCRIPTS:
            number += 1
            drawn = []
            count = min(rng.choice((1, 1, 2, 3, 4)), len(known[script]))
            for name in rng.sample(sorted(known[script]), count):
                kind, choices = known[script][name]["kind"], known[script][name]["choices"]
                values = (ORDINARY if rng.random() < 0.6 else VALUES)[kind]
                if choices:
                    values = (*choices, *choices, "x", "")
                drawn.append(f"--{name}={rng.choice(values)}")
            # plots.py takes several runs.
            named = "workdirs" if script == "plots" else "workdir"
            before, after = [f"--{named}={good / 'run'}"], []
            if script == "train":
                before, after = [f"--workdir=run{number}", data(cache), *TINY], ["--num_steps=2"]
            if script == "score":
                before.append(data(cache))
            yield {
                "script": script, "flags": [*before, *drawn, *after], "drawn": drawn,
                "folder": str(folder), "cache": str(cache),
            }  # fmt: skip


def run(case: dict[str, Any]) -> None:
    """Runs a command line.

    Args:
        case: "script", "flags", "folder" and "cache".

    Raises:
        InputError: it was refused in a sentence.
        WrongResultError: it ended without one, or printed a score that is no number.
    """
    printed = command(Path(case["folder"]), Path(case["cache"]), case["script"], *case["flags"])
    if case["script"] == "evaluate" and printed.out:
        score = json.loads(printed.out.splitlines()[-1])
        if not isinstance(score.get("nats_per_event"), float):
            raise WrongResultError(f"a score that is no number: {printed.out[-500:]}")
