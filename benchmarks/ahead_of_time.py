r"""Counts what a GPU or a TPU would run, without one: compiled ahead of time, nothing is run.

    python benchmarks/ahead_of_time.py --platform=cuda --output=cuda.json
    python benchmarks/ahead_of_time.py --platform=tpu --cells=lstm,gru --dtypes=bfloat16
    python benchmarks/ahead_of_time.py --platform=cuda --what=linear --sizes=8x128x512,8x65536x512
    python benchmarks/ahead_of_time.py --platform=cpu --cells=elman --sizes=2x8x4

The compilers are real, the devices described in words: an H200, or four chips of a v5e
(ahead_of_time_targets.py). They are packages of their own, each for a virtual environment of its
own; the extras `aot-cuda` and `aot-tpu` of pyproject.toml name them. `--platform=cpu` needs none.
What is counted, of each program (ahead_of_time_programs.py):

    in loops   kernels of a time step, one number for each loop (forward + backward): those of a
               loop's body times its iterations, over T. An unrolled body counts as many steps. Of
               loops whose end depends on data those of an iteration. On a TPU in place of kernels
               the cycles that the compiler estimates
    outside    kernels, or cycles, outside of all loops
    window     all cycles, or bytes that kernels read and write at least, of a window
    host       on a GPU: launches outside of loops + at each iteration of each loop that the host
               drives; a CUDA graph is one, and so is a loop inside of one
    temporary  bytes that are held while it runs beside arguments and results

--what=recurrence has each cell under each engine, --what=train_step the whole step on 1 and 4
devices, with its collectives and the donated arguments that its results take the place of,
--what=draw sampling and searches, --what=linear the methods of the linear engine.

Counts and a cost model, not time: nothing here has run.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # Also where there is an accelerator: none is used.

import ahead_of_time_programs as programs
import timing
from ahead_of_time_programs import Sizes
from ahead_of_time_table import header, row
from ahead_of_time_targets import PLATFORMS, MissingCompilerError, Program, load_target, measure

from grnn_jax.recurrence import ENGINES

WHAT = ("recurrence", "train_step", "draw", "linear")
DEFAULT_SIZES = {"cuda": "64x128x512", "tpu": "64x128x512", "cpu": "2x8x4"}

Case = tuple[dict[str, Any], Callable[[], Program]]
"""What tells a program from others, and the program."""


def _one_of(allowed: Sequence[str]) -> Callable[[str], list[str]]:
    """Parses a list of names; "all" is all of them."""

    def parse(text: str) -> list[str]:
        names = list(allowed) if text == "all" else text.split(",")
        unknown = [name for name in names if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"must name some of {', '.join(allowed)}, or all, got {unknown[0]!r}"
            )
        return names

    return parse


def _sizes(text: str) -> list[Sizes]:
    found = []
    for part in text.split(","):
        numbers = part.split("x")
        if len(numbers) != 3 or not all(n.isdecimal() and int(n) > 0 for n in numbers):
            raise argparse.ArgumentTypeError(f"must be BxTxH, as in 64x128x512, got {part!r}")
        found.append(Sizes(*map(int, numbers)))
    return found


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    engines = ["auto", *ENGINES]
    flags.add_argument("--platform", choices=PLATFORMS, default="cpu", help="compiled for")
    flags.add_argument("--what", type=_one_of(WHAT), default=["recurrence"], help=", ".join(WHAT))
    flags.add_argument("--cells", type=_one_of(programs.measured_cells()), default="all")
    flags.add_argument("--engines", type=_one_of(engines), default="all")
    flags.add_argument("--dtypes", type=_one_of(programs.DTYPES), default="all")
    flags.add_argument("--inputs", type=_one_of(programs.INPUTS), default="all")
    flags.add_argument("--passes", type=_one_of(programs.PASSES), default="all")
    flags.add_argument("--sizes", type=_sizes, help="BxTxH, …; what is swept")
    flags.add_argument("--output", help="JSON file for everything counted")
    return flags


def cases(flags: argparse.Namespace, target: Any) -> Iterator[Case]:
    """The programs that the flags name."""
    dtypes = [dtype for dtype in flags.dtypes if programs.knows(dtype)]
    for what, sizes in itertools.product(flags.what, flags.sizes):
        named = {"what": what, **sizes._asdict()}
        if what == "linear":
            for method, direction in itertools.product(programs.METHODS, flags.passes):
                program = _later(programs.linear_method, method, sizes, direction)
                yield named | {"method": method, "pass": direction}, program
        elif what == "recurrence":
            yield from _recurrences(flags, dtypes, named, sizes)
        else:
            yield from _whole(flags, target, dtypes, named, sizes)


def _recurrences(
    flags: argparse.Namespace, dtypes: list[str], named: dict[str, Any], sizes: Sizes
) -> Iterator[Case]:
    axes = flags.cells, flags.engines, dtypes, flags.inputs, flags.passes
    for cell, engine, dtype, inputs, direction in itertools.product(*axes):
        if engine != "auto" and engine not in programs.engines_of(cell):
            continue
        told = {"cell": cell, "engine": engine, "dtype": dtype, "inputs": inputs}
        program = _later(programs.recurrence, cell, engine, dtype, inputs, sizes, direction)
        yield named | told | {"pass": direction}, program


def _whole(
    flags: argparse.Namespace, target: Any, dtypes: list[str], named: dict[str, Any], sizes: Sizes
) -> Iterator[Case]:
    """Training steps, samplers and searches of an LSTM, as one program each."""
    engines = [
        engine for engine in flags.engines if engine in ("auto", *programs.engines_of("lstm"))
    ]
    if named["what"] == "draw":
        # No engine takes part in a loop over single events.
        for draw, dtype in itertools.product(programs.DRAWS, dtypes):
            program = _later(programs.draw, draw, "auto", dtype, sizes)
            yield named | {"what": draw, "dtype": dtype}, program
        return
    counts = [number for number in (1, 4) if number <= len(target.devices)]
    for engine, dtype, devices in itertools.product(engines, dtypes, counts):
        program = _later(programs.train_step, target, devices, engine, dtype, sizes)
        yield named | {"engine": engine, "dtype": dtype, "devices": devices}, program


def _later(make: Callable[..., Program], *arguments: Any) -> Callable[[], Program]:
    return lambda: make(*arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table for each kind of program as it is counted; returns the exit status."""
    flags = parser().parse_args(arguments)
    flags.sizes = flags.sizes or _sizes(DEFAULT_SIZES[flags.platform])
    try:
        target = load_target(flags.platform)
    except MissingCompilerError as error:
        print(f"ahead_of_time.py: {error}", file=sys.stderr)
        return 1
    versions = ", ".join(f"{name} {version}" for name, version in timing.versions().items())
    print(
        f"compiled for {PLATFORMS[flags.platform]}; counts and a cost model, not time\n{versions}"
    )
    results, shown = [], None
    for named, make_program in cases(flags, target):
        try:
            counted = measure(target, make_program())
        except Exception as error:  # A compiler's own failure is a row, not the end of the table.
            counted = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        results.append({**named, **counted})
        names = header(results[-1], flags.platform)
        if names != shown:
            print("\n" + "| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
            shown = names
        print("| " + " | ".join(row(results[-1], flags.platform)) + " |", flush=True)
        if flags.output:
            timing.write_json(flags.output, {"platform": flags.platform, "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
