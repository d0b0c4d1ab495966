"""Entropy, calibration and perplexity by position of a trained run, as numbers and a picture.

    grnn-diagnose --workdir=runs/default --split=test

A model that is right about its own uncertainty has a mean predictive entropy equal to its mean
nats, at every entropy, and its most probable class occurs as often as it says. Writes
diagnosis.json and diagnosis.png into --output; the last line printed is one JSON object with the
numbers, without the bins. Entropy and calibration need events that are classes (text, lines and
other tokens); perplexity by position is there for all.
"""

import contextlib
import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from grnn_jax import evaluation
from grnn_jax.cli import command, flags
from grnn_jax.cli.countdown import Countdown
from grnn_jax.cli.plots import pyplot, save
from grnn_jax.cli.writers.records import finite
from grnn_jax.config import SPLITS
from grnn_jax.errors import InputError
from grnn_jax.likelihood import per_event
from grnn_jax.scoring import make_score_events
from grnn_jax.scoring.calibration import (
    Binned,
    entropy_bins,
    expected_calibration_error,
    position_means,
    reliability,
)
from grnn_jax.scoring.classes import class_statistics, read_classes
from grnn_jax.sharding import check_batch_size, make_mesh
from grnn_jax.workdir import load_run, read_otherwise

FLAGS = flags.FLAGS
NUM_BINS = 15


def diagnose(
    values: dict[str, np.ndarray], offsets: np.ndarray
) -> tuple[dict[str, Any], dict[str, Binned]]:
    """The numbers of a diagnosis, and its bins.

    Args:
        values: nats of each event; of classes also entropy, confidence and correct.
        offsets: where the sequences start.

    Returns:
        num_events, nats_per_event, bits_per_event, perplexity; of classes entropy_rate (mean
        predictive entropy, nats), nats_above_entropy, accuracy, mean_confidence and
        expected_calibration_error. Bins by position, and of classes by entropy and reliability.
    """
    means = {name: float(np.mean(numbers, dtype=np.float64)) for name, numbers in values.items()}
    nats, count = means["nats"], len(values["nats"])
    numbers = {
        "num_sequences": len(offsets) - 1,
        "num_events": count,
        **per_event(nats * count, count),
    }
    shown = {name: each for name, each in values.items() if name in ("nats", "entropy")}
    binned = {"position": position_means(offsets, shown)}
    if "entropy" in values:
        binned["entropy"] = entropy_bins(values["entropy"], values["nats"])
        binned["reliability"] = reliability(values["confidence"], values["correct"], NUM_BINS)
        numbers |= {
            "entropy_rate": means["entropy"],
            "nats_above_entropy": nats - means["entropy"],
            "accuracy": means["correct"],
            "mean_confidence": means["confidence"],
            "expected_calibration_error": expected_calibration_error(binned["reliability"]),
        }
    return numbers, binned


def rows(binned: Binned) -> list[dict[str, Any]]:
    """The bins that hold events, as JSON."""
    return [
        finite(
            {
                "low": float(binned.edges[i]),
                "high": float(binned.edges[i + 1]),
                "num_events": int(binned.num_events[i]),
                **{name: float(means[i]) for name, means in binned.means.items()},
            }
        )
        for i in np.flatnonzero(binned.num_events)
    ]


def plot(path: str | Path, numbers: dict[str, Any], binned: dict[str, Binned]) -> Path:
    """Draws perplexity by position and, of classes, nats against entropy and reliability.

    Args:
        path: the PNG.
        numbers: of `diagnose`.
        binned: of `diagnose`.

    Returns:
        The path.
    """
    figure, panels = pyplot().subplots(
        1, len(binned), figsize=(5.2 * len(binned), 4.4), layout="constrained", squeeze=False
    )
    _plot_position(panels[0, 0], binned["position"])
    if "entropy" in binned:
        _plot_entropy(panels[0, 1], binned["entropy"], numbers)
        _plot_reliability(panels[0, 2], binned["reliability"], numbers)
    return save(figure, path)


def _plot_position(axes: Any, binned: Binned) -> None:
    has_events = binned.num_events > 0
    middle = ((binned.edges[:-1] + binned.edges[1:] - 1) / 2)[has_events]
    labels = {"nats": "exp of the mean nats", "entropy": "exp of the mean entropy"}
    with np.errstate(over="ignore"):
        for name, means in binned.means.items():
            axes.plot(
                middle + 1, np.exp(means[has_events]), label=labels[name], marker=".", markersize=4
            )
    if binned.edges[-1] > len(binned.edges):
        axes.set_xscale("log")
    axes.set_xlabel("position in the sequence, from 1")
    axes.set_ylabel("perplexity of an event")
    axes.set_ylim(bottom=0)
    axes.set_title("perplexity by position")
    axes.grid(alpha=0.3)
    if len(binned.means) > 1:
        axes.legend()


def _plot_entropy(axes: Any, binned: Binned, numbers: dict[str, Any]) -> None:
    has_events = binned.num_events > 0
    top = float(max(binned.edges[-1], np.nanmax(binned.means["nats"])))
    axes.plot([0, top], [0, top], color="grey", linewidth=1, linestyle="--")
    axes.plot(
        binned.means["entropy"][has_events],
        binned.means["nats"][has_events],
        marker="o",
        markersize=4,
    )
    rate, nats = numbers["entropy_rate"], numbers["nats_per_event"]
    axes.plot([rate], [nats], marker="*", markersize=12, color="C3", linestyle="", label="mean")
    axes.set_xlabel("predictive entropy (nats)")
    axes.set_ylabel("nats per event")
    axes.set_title(f"mean entropy {rate:.3f}, mean nats {nats:.3f}")
    axes.grid(alpha=0.3)
    axes.legend()
    _add_counts(axes, binned)


def _plot_reliability(axes: Any, binned: Binned, numbers: dict[str, Any]) -> None:
    has_events = binned.num_events > 0
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    axes.plot(
        binned.means["confidence"][has_events],
        binned.means["correct"][has_events],
        marker="o",
        markersize=4,
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("probability of the most probable class")
    axes.set_ylabel("how often it occurred")
    error = numbers["expected_calibration_error"]
    axes.set_title(f"expected calibration error {error:.4f}")
    axes.grid(alpha=0.3)
    _add_counts(axes, binned)


def _add_counts(axes: Any, binned: Binned) -> None:
    """Bars at the bottom: how many events each bin holds."""
    counts = axes.twinx()
    width = np.diff(binned.edges)
    counts.bar(binned.edges[:-1], binned.num_events, width, align="edge", alpha=0.15, color="C0")
    counts.set_ylim(0, 4 * max(binned.num_events.max(), 1))
    counts.set_yticks([])


def run() -> None:
    """Diagnoses what the flags name."""
    flags.check_split()
    run = read_otherwise(
        load_run(FLAGS.workdir, FLAGS.checkpoint, dtype=FLAGS.dtype),
        FLAGS.data,
        **flags.reading(),
    )
    mesh, config = make_mesh(), run.config
    if FLAGS.eval_batch_size:
        config = dataclasses.replace(config, eval_batch_size=FLAGS.eval_batch_size)
    check_batch_size(config.eval_batch_size, mesh, "eval_batch_size")
    read = None
    if run.model.distribution.logits is not None:
        read = read_classes(run.model, class_statistics)
    output = Path(os.path.expanduser(FLAGS.output) or os.path.join(FLAGS.workdir, "diagnosis"))
    with tempfile.TemporaryDirectory(prefix="grnn_jax-") as folder:
        corpus = evaluation.load_corpus(
            run, Path(FLAGS.workdir), os.path.expanduser(FLAGS.data), FLAGS.split, folder
        )
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--output: cannot make {output}: {error.strerror}") from error
        with contextlib.closing(Countdown(corpus.num_events, "events")) as countdown:
            values = make_score_events(run.model, config, mesh, read)(
                run.params, corpus, folder=folder, report=countdown
            )
        numbers, binned = diagnose(values, corpus.offsets)
    head = {
        "method": "static",
        "split": "data" if FLAGS.data else FLAGS.split,
        "step": run.step,
        **numbers,
        "is_density": run.model.distribution.is_density,
        "checkpoint": FLAGS.checkpoint,
        "dtype": run.dtype,
        "data": FLAGS.data or config.data,
        "workdir": FLAGS.workdir,
    }
    plot(output / "diagnosis.png", numbers, binned)
    whole = finite(head) | {f"by_{name}": rows(each) for name, each in binned.items()}
    try:
        (output / "diagnosis.json").write_text(json.dumps(whole, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"--output: cannot write in {output}: {error.strerror}") from error
    print(json.dumps(finite(head)), flush=True)
    flags.log_dtype(run.config.dtype)


def define_flags() -> None:
    """Defines the flags of the command."""
    define = flags.define
    define("string", "data", "", "File to look at whole; empty for a split of the run's own data.")
    flags.define_reading()
    define("enum", "split", "valid", "Split to look at.", enum_values=list(SPLITS))
    define("enum", "checkpoint", "best", "Checkpoint to use.", enum_values=["best", "latest"])
    streams = "Streams that text is scored as, each after 256 events of context"
    flags.define_eval_batch_size(streams)
    flags.define_dtype()
    define("string", "output", "", "Folder for what is written; empty: WORKDIR/diagnosis.")
    flags.define_machine(distributed=False)


def main() -> None:
    """The command grnn-diagnose."""
    command.start(run, define_flags, __doc__)
