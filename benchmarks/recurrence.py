r"""Every cell with every engine that runs it: time and memory of the recurrence alone.

    python benchmarks/recurrence.py --output=recurrence.json
    python benchmarks/recurrence.py --cells=all --sizes=512 --dtype=bfloat16
    python benchmarks/recurrence.py --sweep=T --plot=cost.png
    python benchmarks/recurrence.py --cells=lstm --lengths=100000 --sizes=256 --batch_sizes=4 \
        --chunk_size=316 --resident

One of H, B and T is swept, the other two are held; what the flags leave open is

    --sweep=H    H 128, 256, 512      B 64                 T 128
    --sweep=B    H 256                B 1, 4, 16, 64, 256  T 128
    --sweep=T    H 64                 B 4                  T 128, 512, 2048, 8192, 32768, 65536

Inputs have one feature, so that next to nothing but the recurrence is timed. Its forward pass gives
all outputs; forward + backward gives the gradient of Σ weights · outputs with respect to the
parameters and the first state. Before anything is timed at a size, values and gradients of every
engine are compared with those of the scan engine at that size.

The limit of a cell with a recurrent matrix V [H, G·H] is the time of its products alone, compiled
by XLA too: forward T products [B, H] x [H, G·H] one after another, backward T products with Vᵀ,
then the one product [H, T·B] x [T·B, G·H] that is the gradient of V.

A round times everything once, in shuffled order. Tables hold the median in ms and, in brackets,
the medians over rounds of engine / scan and of engine / limit (above 1: slower than these), then
the temporary buffers of XLA's forward + backward program. With --resident also the peak resident
memory over three such passes, above that of the started library, in a process of its own.
"""

import json
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import timing
from absl import app, flags, logging
from recurrence_parts import PASSES, compile_engine, compile_limit, make_case
from recurrence_plots import LIMIT, plot

from grnn_jax import cells
from grnn_jax.recurrence import ENGINES, supported_engines

CELLS = flags.DEFINE_list("cells", ["elman", "gru", "lstm", "min_gru"], "Cells, or all.")
ENGINE_NAMES = flags.DEFINE_list("engines", ["all"], "Engines beside scan, or all.")
SWEEP = flags.DEFINE_enum("sweep", "H", ["H", "B", "T"], "What is swept.")
SIZES = flags.DEFINE_list("sizes", None, "Hidden sizes H.")
BATCH_SIZES = flags.DEFINE_list("batch_sizes", None, "Sequences B in a batch.")
LENGTHS = flags.DEFINE_list("lengths", None, "Time steps T.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Compute dtype.")
CHUNK_SIZE = flags.DEFINE_integer(
    "chunk_size", None, "Steps between kept states; none keeps everything.", lower_bound=1
)
REPEATS = flags.DEFINE_integer("repeats", 5, "Rounds; each times everything once.", lower_bound=1)
RESIDENT = flags.DEFINE_boolean("resident", False, "Also measure peak resident memory.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file for everything measured.")
PLOT = flags.DEFINE_string("plot", None, "PNG, PDF or SVG of cost against what is swept.")
CHILD = flags.DEFINE_string("child", None, "Internal: measures the memory of one engine.")

DEFAULTS = {
    "H": ([128, 256, 512], [64], [128]),
    "B": ([256], [1, 4, 16, 64, 256], [128]),
    "T": ([64], [4], [128, 512, 2048, 8192, 32768, 65536]),
}
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""Largest difference to the scan engine, relative to the largest entry of an array."""
MEGABYTE = 2**20


def _positive(values: list[str] | None) -> bool:
    return values is None or bool(values) and all(v.isdecimal() and int(v) > 0 for v in values)


flags.register_validator(
    "cells",
    lambda v: v and set(v) <= {"all", *cells.CELLS},
    f"must name some of {sorted(cells.CELLS)}, or all",
)
flags.register_validator(
    "engines",
    lambda v: v and set(v) <= {"all", *ENGINES},
    f"must name some of {sorted(ENGINES)}, or all",
)
for _name in ("sizes", "batch_sizes", "lengths"):
    flags.register_validator(_name, _positive, "must be positive integers")


class Point(NamedTuple):
    """The sizes of one measurement."""

    hidden_size: int
    batch_size: int
    length: int

    def swept(self) -> int:
        """The size that varies."""
        return self["HBT".index(SWEEP.value)]


def points() -> list[Point]:
    """What is measured for every cell.

    Raises:
        SystemExit: if a size that is not swept has several values.
    """
    given = (SIZES.value, BATCH_SIZES.value, LENGTHS.value)
    values = [
        default if flag is None else list(map(int, flag))
        for flag, default in zip(given, DEFAULTS[SWEEP.value], strict=True)
    ]
    for axis, name, several in zip("HBT", ("sizes", "batch_sizes", "lengths"), values, strict=True):
        if len(several) > 1 and axis != SWEEP.value:
            sys.exit(f"error: --{name} must be one number where {SWEEP.value} is swept")
    return [Point(h, b, t) for h in values[0] for b in values[1] for t in values[2]]


def engines_of(cell: cells.Cell) -> list[str]:
    """The engines compared for a cell, the scan first."""
    asked = ENGINES if "all" in ENGINE_NAMES.value else ENGINE_NAMES.value
    supported = supported_engines(cell)
    return ["scan", *(name for name in supported if name in asked and name != "scan")]


def largest_difference(found: Any, expected: Any) -> float:
    """Over all arrays, the largest difference relative to the array's largest entry."""

    def of_array(a: jax.Array, b: jax.Array) -> float:
        a, b = np.asarray(a), np.asarray(b)
        return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6))

    return max(jax.tree.leaves(jax.tree.map(of_array, found, expected)))


def measure(name: str, point: Point) -> dict[str, Any]:
    """Compiles, checks and times one cell at one size.

    Raises:
        SystemExit: if an engine disagrees with the scan engine.
    """
    case = make_case(name, *point, dtype=jnp.dtype(DTYPE.value))
    programs, skipped = {}, {}
    for engine in engines_of(case.cell):
        try:
            programs[engine] = compile_engine(case, engine, CHUNK_SIZE.value)
        except ValueError as error:  # what it asks of sizes and devices
            skipped[engine] = str(error)
            print(f"skipped {name} {engine}: {error}", flush=True)
    differences = {}
    for pass_name in PASSES:
        expected = programs["scan"][pass_name].run()
        for engine, program in programs.items():
            difference = largest_difference(program[pass_name].run(), expected)
            if not difference <= TOLERANCE[DTYPE.value]:
                sys.exit(
                    f"error: {name}, {point}: {engine} differs from scan by {difference:.1e} in "
                    f"{pass_name}"
                )
            differences[engine] = max(difference, differences.get(engine, 0.0))
    limit = compile_limit(case)
    if limit is not None:
        programs[LIMIT] = limit
    entry: dict[str, Any] = {
        "cell": name,
        **point._asdict(),
        "difference": differences,
        "skipped": skipped,
        "temporary_mb": {
            engine: program["forward + backward"].temporary_bytes / MEGABYTE
            for engine, program in programs.items()
        },
    }
    runs = {
        (pass_name, engine): program[pass_name].run
        for engine, program in programs.items()
        for pass_name in PASSES
    }
    seconds = timing.interleave(runs, REPEATS.value, warmup=1)
    for pass_name in PASSES:
        of_pass = {engine: seconds[pass_name, engine] for engine in programs}
        entry[pass_name] = timing.summarize(of_pass, "scan")
        for engine, timed in entry[pass_name].items():
            if limit is not None:
                timed["limit_ratio"] = timing.median_ratio(of_pass[engine], of_pass[LIMIT])
    if RESIDENT.value:
        compared = [engine for engine in programs if engine != LIMIT]
        entry["resident_mb"] = {engine: resident(name, engine, point) for engine in compared}
    return entry


def run_child(cell: str, engine: str, *sizes: int) -> None:
    """Passes of one engine in this process; prints their peak memory as one line of JSON."""
    jnp.zeros(1).block_until_ready()
    base = timing.peak_memory()
    case = make_case(cell, *sizes, dtype=jnp.dtype(DTYPE.value))
    run = compile_engine(case, engine, CHUNK_SIZE.value)["forward + backward"].run
    timing.forget_peak()  # so that compilation does not hide what the passes need
    for _ in range(3):
        run()
    print(json.dumps(timing.peak_memory() - base))


def resident(cell: str, engine: str, point: Point) -> float:
    """Peak resident memory of an engine in MB, measured in a fresh process."""
    command = [sys.executable, __file__, f"--child={json.dumps([cell, engine, *point])}"]
    command.append(f"--dtype={DTYPE.value}")
    if CHUNK_SIZE.value is not None:
        command.append(f"--chunk_size={CHUNK_SIZE.value}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: measuring the memory of {cell} {engine} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def tables(results: list[dict[str, Any]]) -> str:
    """Time and memory of every cell: a row for each engine, a column for each size."""
    parts = []
    for name in dict.fromkeys(entry["cell"] for entry in results):
        entries = [entry for entry in results if entry["cell"] == name]
        sizes = [Point(*(entry[key] for key in Point._fields)) for entry in entries]
        columns = [f"{SWEEP.value} {size.swept()}" for size in sizes]
        engines = dict.fromkeys(engine for entry in entries for engine in entry["temporary_mb"])

        def table(title: str, text: Any, entries=entries, columns=columns, engines=engines) -> str:
            rows = [[engine, *(text(entry, engine) for entry in entries)] for engine in engines]
            return timing.markdown_table([title, *columns], rows)

        for pass_name in PASSES:
            parts.append(
                table(f"{name}, {pass_name}, ms", lambda e, n, p=pass_name: _time(e[p].get(n)))
            )
        parts.append(
            table(f"{name}, XLA temporaries, MB", lambda e, n: _memory(e["temporary_mb"].get(n)))
        )
        if RESIDENT.value:
            parts.append(
                table(f"{name}, peak resident, MB", lambda e, n: _memory(e["resident_mb"].get(n)))
            )
    return "\n\n".join(parts)


def _time(timed: dict[str, Any] | None) -> str:
    if timed is None:
        return "–"
    ratios = [f"{timed[key]:.2f}" for key in ("ratio", "limit_ratio") if key in timed]
    return f"{timed['median_ms']:.2f} ({' / '.join(ratios)})"


def _memory(megabytes: float | None) -> str:
    return "–" if megabytes is None else f"{megabytes:.1f}"


def main(argv: list[str]) -> None:
    """Checks, times, prints the tables."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    if CHILD.value is not None:
        run_child(*json.loads(CHILD.value))
        return
    swept = points()
    print(timing.describe(), flush=True)
    machine = timing.machine()
    results = []
    for name in cells.CELLS if "all" in CELLS.value else CELLS.value:
        for point in swept:
            results.append(measure(name, point))
            both = results[-1]["forward + backward"]
            medians = ", ".join(f"{engine} {t['median_ms']:.2f}" for engine, t in both.items())
            print(f"{name} {SWEEP.value} {point.swept()}: {medians} ms", flush=True)
    held = ", ".join(
        f"{axis} {value}"
        for axis, value in zip("HBT", swept[0], strict=True)
        if axis != SWEEP.value
    )
    print(f"\n{held}, {DTYPE.value}; ms (ratio to scan / to the products alone)\n")
    print(tables(results))
    if OUTPUT.value:
        record = {
            "machine": machine,
            "sweep": SWEEP.value,
            "dtype": DTYPE.value,
            "chunk_size": CHUNK_SIZE.value,
            "results": results,
        }
        timing.write_json(OUTPUT.value, record)
    if PLOT.value:
        plot(PLOT.value, results, SWEEP.value, f"{held}, {DTYPE.value}")


if __name__ == "__main__":
    app.run(main)
