r"""Times the training step of this tree beside that of another checkout, interleaved.

    git worktree add /tmp/before COMMIT
    python benchmarks/two_trees.py --before=/tmp/before --output=two_trees.json

Each tree has a process of its own, which builds the step with its own package and its own
benchmarks (`train_step.build`), and runs one step when it is told to; the other one sleeps. A round
times each tree once, in shuffled order. Both start from the same weights and see the same data:
their losses are compared first. The table holds median ms of before and after and, in brackets,
the median over rounds of after / before (below 1: this tree is faster).
"""

import json
import pathlib
import subprocess
import sys
import time
from typing import Any

import timing
from absl import app, flags

BEFORE = flags.DEFINE_string("before", None, "Folder of the other checkout.", required=True)
CELLS = flags.DEFINE_list("cells", ["lstm", "gru", "elman"], "Cells: lstm, gru, elman.")
SIZES = flags.DEFINE_list("sizes", ["128", "256", "512"], "Hidden sizes H.")
INPUTS = flags.DEFINE_list("inputs", ["tokens", "layer"], "Inputs: tokens, dense, layer.")
DTYPES = flags.DEFINE_list("dtypes", ["float32"], "Compute dtypes: float32, bfloat16.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Sequences B in a batch.", lower_bound=1)
LENGTH = flags.DEFINE_integer("length", 128, "Time steps T in a sequence.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 15, "Rounds; each times everything once.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "JSON file for everything measured.")

HERE = pathlib.Path(__file__).resolve().parents[1]

CHILD = """
import json, sys, time
tree, case = sys.argv[1], json.loads(sys.argv[2])
sys.path[:0] = [tree, tree + "/benchmarks"]
import jax, train_step, grnn_jax
from absl import flags
assert grnn_jax.__file__.startswith(tree), grnn_jax.__file__
flags.FLAGS(["two_trees"])
jax.config.update("jax_num_cpu_devices", train_step.num_cores())
shape = case.pop("batch_size"), case.pop("length")
variant = {"key": "grnn_jax", "engine": "auto", "devices": "auto", "dtype": case.pop("dtype")}
step = train_step.build(variant, case["cell"], case["inputs"], case["hidden_size"], *shape).step
for line in sys.stdin:
    start = time.perf_counter()
    loss = float(step())
    print(json.dumps([time.perf_counter() - start, loss]), flush=True)
"""
"""What each process runs: a line in, a training step, its seconds and its loss out."""


class Tree:
    """The training step of one checkout, in a process of its own."""

    def __init__(self, folder: pathlib.Path, case: dict[str, Any]):
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), json.dumps(case)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        self.seconds, self.loss = 0.0, 0.0

    def step(self) -> None:
        """One step; sets `seconds`, measured inside of the process, and `loss`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("error: a tree's process ended; what it said stands above")
        self.seconds, self.loss = json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(case: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Times both trees for one case; raises SystemExit where their losses differ."""
    trees = {"before": Tree(pathlib.Path(BEFORE.value).resolve(), case), "after": Tree(HERE, case)}
    try:
        for _ in range(3):  # Compiles, then allocates.
            for tree in trees.values():
                tree.step()
        difference = abs(trees["before"].loss - trees["after"].loss)
        if not difference < 1e-5:
            raise SystemExit(f"error: {case}: losses after two updates differ by {difference:.2e}")
        seconds: dict[str, list[float]] = {name: [] for name in trees}

        def timed(name: str) -> None:
            time.sleep(0.05)  # Worker threads of the other process go to sleep.
            trees[name].step()
            seconds[name].append(trees[name].seconds)

        runs = {name: (lambda name=name: timed(name)) for name in trees}
        timing.interleave(runs, rounds, warmup=0)
    finally:
        for tree in trees.values():
            tree.close()
    return case | {"timing": timing.summarize(seconds, "before"), "loss_difference": difference}


def main(argv: list[str]) -> None:
    """Times every case and prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    print(timing.describe(), flush=True)
    results, rows = [], []
    for cell in CELLS.value:
        for inputs in INPUTS.value:
            for dtype in DTYPES.value:
                row = [f"{cell}, {inputs}, {dtype}"]
                for size in map(int, SIZES.value):
                    case = {
                        "cell": cell,
                        "inputs": inputs,
                        "dtype": dtype,
                        "hidden_size": size,
                        "batch_size": BATCH_SIZE.value,
                        "length": LENGTH.value,
                    }
                    result = compare(case, REPEATS.value)
                    results.append(result)
                    before, after = (result["timing"][name] for name in ("before", "after"))
                    cells = before["median_ms"], after["median_ms"], after["ratio"]
                    row.append("{:.1f}, {:.1f} ({:.2f})".format(*cells))
                    print(f"{row[0]} H {size}: {row[-1]}", flush=True)
                rows.append(row)
    header = ["before, after, ms (ratio)", *(f"H {size}" for size in SIZES.value)]
    print("\n" + timing.markdown_table(header, rows))
    if OUTPUT.value:
        timing.write_json(OUTPUT.value, {"results": results})


if __name__ == "__main__":
    app.run(main)
