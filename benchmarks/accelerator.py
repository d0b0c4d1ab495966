r"""On a GPU or TPU: is every engine right, how fast is it, and how far from what the chip can do?

    python benchmarks/accelerator.py                      # 450 seconds, accelerator.json
    python benchmarks/accelerator.py --resume             # goes on where that ended
    python benchmarks/accelerator.py --resume --budget_s=0   # prints what the file holds, anywhere
    python benchmarks/accelerator.py --rows='lstm 1x512.*training' --engines=auto,scan
    python benchmarks/accelerator.py --cpu                # the same in tiny sizes, on a CPU

First come checks (accelerator_checks.py): every cell under every engine in float32, bfloat16 and
tensorfloat32, with resets, heads, odd sizes, one step, then random shapes: outputs against a NumPy
loop in float64, gradients against a scan in float64 on the CPU, all of them in memory that was
poisoned before, and three times with the same bits. What fails is named and is not timed.

Then times, the rows most worth knowing first (accelerator_rows.py): forward passes, value and
gradient, whole training steps, sampling; "auto", each engine, cuDNN by `jax.experimental.rnn` (LSTM
in float32) and by PyTorch, where it is installed. At its own size, every engine is compared with
the scan once more. The programs of a row are run in turn, in shuffled order; times are medians of
the device's own clock, read from the profiler: from the first kernel's beginning to the last one's
end. Where the profiler tells nothing the host's clock counts, marked *. "floor" is the least that
the chip takes by its data sheet (chips.py): every input read once, every result written once, every
product multiplied. Beside the rows stand the targets (accelerator_targets.py).

Nothing is begun that is not expected to end in --budget_s; the rest is printed as "not run". What
is missing is said, too: PyTorch, matplotlib, a chip that chips.py does not know. Neither grain,
Orbax nor tensorboardX is needed. Nothing of this was ever run on an accelerator yet.
"""

import os
import pathlib
import re
import sys
import time

BEGAN = time.monotonic()
# Before JAX starts: PyTorch needs its part of the memory, and the checks need a CPU beside it.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
if os.environ.get("JAX_PLATFORMS") and "cpu" not in os.environ["JAX_PLATFORMS"]:
    os.environ["JAX_PLATFORMS"] += ",cpu"

import accelerator_checks  # noqa: E402
import accelerator_report  # noqa: E402
import accelerator_rows  # noqa: E402
import accelerator_session  # noqa: E402
import jax  # noqa: E402
import timing  # noqa: E402
from absl import app, flags, logging  # noqa: E402

from grnn_jax.recurrence import ENGINES  # noqa: E402
from grnn_jax.sharding import num_cores  # noqa: E402

CPU = flags.DEFINE_boolean("cpu", False, "Tiny sizes on the CPU: does the benchmark work?")
BUDGET = flags.DEFINE_float("budget_s", 450.0, "Seconds for all of it.", lower_bound=0)
CHECK_SHARE = flags.DEFINE_float(
    "check_share", 0.4, "Part of the budget that checks may take.", 0.0, 1.0
)
RESUME = flags.DEFINE_boolean("resume", False, "Go on from the JSON file.")
OUTPUT = flags.DEFINE_string("output", "accelerator.json", "JSON file for everything found.")
PLOT = flags.DEFINE_string("plot", None, "PNG, PDF or SVG of the times.")
ROWS = flags.DEFINE_string("rows", "", "Regular expression: rows whose name it finds; all.")
CHECKS = flags.DEFINE_string("checks", "", "Regular expression: checks whose name it finds; all.")
ENGINE_NAMES = flags.DEFINE_list("engines", ["all"], "Engines (auto is one), or all.")
RANDOM = flags.DEFINE_integer("random", 3, "Random shapes of every cell.", lower_bound=0)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the random shapes.", lower_bound=0)
THREADS = flags.DEFINE_integer(
    "threads", None, "Programs compiled at a time; as many as there are cores.", lower_bound=1
)


def _is_pattern(value: str) -> bool:
    try:
        re.compile(value)
    except re.error:
        return False
    return True


flags.register_validator(
    "engines",
    lambda v: v and set(v) <= {"all", "auto", *ENGINES},
    f"must name some of auto, {', '.join(ENGINES)}, or all",
)
for _name in ("rows", "checks"):
    flags.register_validator(_name, _is_pattern, "must be a regular expression")


def main(argv: list[str]) -> None:
    """Checks, times, prints the report."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    if CPU.value:
        jax.config.update("jax_platforms", "cpu")
    if jax.default_backend() == "cpu" and not CPU.value and BUDGET.value > 0:
        sys.exit("error: JAX finds no GPU or TPU here; --cpu runs tiny sizes on the CPU")
    settings = accelerator_session.Settings(
        path=pathlib.Path(OUTPUT.value),
        budget=BUDGET.value,
        check_share=CHECK_SHARE.value,
        engines=ENGINE_NAMES.value,
        threads=THREADS.value or num_cores(),
        small=CPU.value,
        began=BEGAN,
    )
    rows = [r for r in accelerator_rows.rows(CPU.value) if re.search(ROWS.value, r.name)]
    checks = [
        check
        for check in accelerator_checks.checks(RANDOM.value, SEED.value, CPU.value)
        if re.search(CHECKS.value, check.name)
    ]
    print(timing.describe(), flush=True)
    try:
        session = accelerator_session.Session(settings, RESUME.value)
    except accelerator_session.StaleRecordError as error:
        sys.exit(f"error: {error}; choose another --output")
    if session.chip is None and BUDGET.value > 0:
        print(f"note: {jax.devices()[0].device_kind} is not in chips.py: no floor", flush=True)
    failure = None
    try:
        session.measure_ceilings()
        session.run_checks(checks)
        session.run_rows(
            rows, lambda row, entry: print(accelerator_report.line(row, entry), flush=True)
        )
    except accelerator_session.DeviceLostError as error:
        failure = str(error)
    names = [check.name for check in checks]
    report = accelerator_report.markdown(session.record, rows, names)
    settings.path.with_suffix(".md").write_text(report)
    print("\n" + report, flush=True)
    if PLOT.value:
        try:
            accelerator_report.plot(PLOT.value, session.record, rows)
        except ModuleNotFoundError as error:
            print(f"no plot: {error.name} is not installed")
    if failure is not None:
        sys.exit(f"error: {failure}")


if __name__ == "__main__":
    app.run(main)
