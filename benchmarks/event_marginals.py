"""Marginals of simulated sequences of events beside those of the data.

    python experiments/sample.py --workdir=runs/recurrences --num_samples=400 --until=150 \
        --length=100 --output=simulated
    python benchmarks/event_marginals.py --data=recur.csv --end_column=end \
        --samples=simulated/samples.csv --num_samples=400 --until=150

The mean number of events up to a time is Nelson and Aalen's estimate, Σ (events at t) / (sequences
observed at t), which is unbiased where observation ends independently of the events.
"""

import csv
from collections.abc import Sequence

import numpy as np
from absl import app, flags
from jaxtyping import Float

FLAGS = flags.FLAGS


def mean_events(
    times: Float[np.ndarray, " N"], ends: Float[np.ndarray, " S"], grid: Sequence[float]
) -> Float[np.ndarray, " G"]:
    """Mean number of events of a sequence up to each time of a grid.

    Args:
        times: when each event happened, of all sequences.
        ends: when the observation of each sequence ended.
        grid: the times asked for.

    Returns:
        Nelson and Aalen's estimate for each time of the grid.

    Reference: W. Nelson, "Recurrent events data analysis", SIAM 2003.
    """
    at_risk = (ends[None, :] >= times[:, None]).sum(1)
    return np.array([(1 / at_risk[times <= time]).sum() for time in grid])


def read(path: str) -> list[dict[str, str]]:
    """The rows of a table."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main(argv: Sequence[str]) -> None:
    """Prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    data, samples = read(FLAGS.data), read(FLAGS.samples)
    ends = {row[FLAGS.sequence_column]: float(row[FLAGS.end_column]) for row in data}
    data = [row for row in data if row[FLAGS.time_column]]  # Others only tell of a sequence.
    times, simulated = (
        np.array([float(row[FLAGS.time_column]) for row in rows]) for rows in (data, samples)
    )
    grid = np.linspace(0, FLAGS.until, 6)[1:]
    observed_means = mean_events(times, np.array(list(ends.values())), grid)
    simulated_means = mean_events(simulated, np.full(FLAGS.num_samples, FLAGS.until), grid)
    print("| | data | simulated |\n|---|---|---|")
    for time, ours, theirs in zip(grid, observed_means, simulated_means, strict=True):
        print(f"| mean number of events up to {time:g} | {ours:.3f} | {theirs:.3f} |")
    marks = np.array([row[FLAGS.mark_column] for row in data])[times <= FLAGS.until]
    simulated_marks = np.array([row[FLAGS.mark_column] for row in samples])
    for mark in np.unique(marks):
        shares = np.mean(marks == mark), np.mean(simulated_marks == mark)
        print(f"| share of {FLAGS.mark_column} {mark} | {shares[0]:.3f} | {shares[1]:.3f} |")


if __name__ == "__main__":
    flags.DEFINE_string("data", None, "CSV of the data.", required=True)
    flags.DEFINE_string("samples", None, "CSV that sample.py wrote.", required=True)
    flags.DEFINE_integer("num_samples", None, "How many were simulated.", required=True)
    flags.DEFINE_float("until", None, "Time up to which they were simulated.", required=True)
    flags.DEFINE_string("sequence_column", "sequence", "Column of the sequences.")
    flags.DEFINE_string("time_column", "time", "Column of the times.")
    flags.DEFINE_string("end_column", "end", "Column of the ends of observation.")
    flags.DEFINE_string("mark_column", "treatment", "Column of the marks.")
    app.run(main)
