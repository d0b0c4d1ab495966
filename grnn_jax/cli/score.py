"""Scores a file of sequences with a trained run, each sequence or each event.

    grnn-score --workdir=runs/molecules --data=molecules.txt --rank=nats_per_event
    grnn-score --workdir=runs/default --data=other.txt --per_event --output=a.csv
    grnn-score --workdir=runs/a --other_workdir=runs/b --data=lines.txt
    grnn-score --workdir=runs/molecules --data=molecules.txt --hidden=states.npy
    grnn-score --workdir=runs/molecules --data=others.txt --rank=nats --unseen=rank_first
    grnn-score --workdir=runs/default --split=test
    grnn-score --workdir=runs/nations --split=test --posterior=nation

Writes a record for each sequence: num_events, nats (-log p), bits, those of an event, perplexity;
with --other_workdir also log_ratio, log p(sequence) of this run less that of the other. With
--posterior=CONDITION: the probability of each of its classes, by Bayes' rule, and at the end their
accuracy, log loss (nats) and calibration. Records are JSON lines on standard output, or go to
--output; then the last line printed is one JSON object with the score of the whole file, that of
evaluate.py.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from grnn_jax.cli import command, flags, posterior
from grnn_jax.cli.countdown import Countdown
from grnn_jax.cli.targets import standard_output
from grnn_jax.cli.writers.records import check_suffix, finite, write_json_lines, write_records
from grnn_jax.cli.writers.surprise import MOST_CHARACTERS, plot_line_surprise, plot_text_surprise
from grnn_jax.config import MAX_COUNT, SPLITS
from grnn_jax.data import FORMATS
from grnn_jax.data.unseen import LeftOut, listing
from grnn_jax.errors import InputError
from grnn_jax.likelihood import bits
from grnn_jax.scoring import (
    RANKS,
    UNSEEN,
    ReadFile,
    ScoredFile,
    SequenceScores,
    compare,
    read_file,
    read_split,
    records,
    score_sequences,
    summary,
)
from grnn_jax.workdir import Run, load_run, read_otherwise

FLAGS = flags.FLAGS


def check_flags() -> None:
    """Checks what the flags ask for.

    Raises:
        InputError: a flag is missing or does not fit.
    """
    if not FLAGS.data and not flags.is_typed("split"):
        raise InputError("--data must name the file to score, or --split a split, got none")
    flags.check_split()
    if not FLAGS.data and FLAGS.other_workdir:
        raise InputError("--other_workdir needs --data: the splits of two runs may differ")
    if not FLAGS.data and flags.is_typed("unseen"):
        raise InputError("--unseen is for the symbols of --data, got none")
    posterior.check_flags()
    if FLAGS.output:
        check_suffix(FLAGS.output)
    if FLAGS.hidden and not FLAGS.hidden.endswith(".npy"):
        raise InputError(f"--hidden must be a .npy file, got {FLAGS.hidden}")
    if FLAGS.rank == "log_ratio" and not FLAGS.other_workdir:
        raise InputError("--rank=log_ratio needs --other_workdir, got none")
    if FLAGS.unseen == "rank_first" and not FLAGS.rank:
        raise InputError("--unseen=rank_first needs --rank, got none")
    if flags.is_typed("plot_sequence") and not FLAGS.plot:
        raise InputError("--plot_sequence needs --plot, got none")


def is_stream_of_text(run: Run) -> bool:
    """Whether a run sees a file as one text, which has lines."""
    return run.codec.is_text and FORMATS[run.config.format].is_stream


def read(runs: Sequence[Run], folder: str) -> list[ReadFile]:
    """--data as events of each run, the same sequences for all of them."""
    path = os.path.expanduser(FLAGS.data)
    if not path:
        (run,) = runs
        each_line = FLAGS.each_line and is_stream_of_text(run)
        return [read_split(run, FLAGS.workdir, FLAGS.split, each_line=each_line)]

    def read_by(run: Run, also: Mapping[int, LeftOut]) -> ReadFile:
        each_line = FLAGS.each_line and is_stream_of_text(run)
        options: dict[str, Any] = {"unseen": FLAGS.unseen, "also": also}
        return read_file(run, path, folder, each_line=each_line, **options)

    files = [read_by(run, {}) for run in runs]
    union = {number: each for file in files for number, each in file.left_out.items()}
    return [
        file if len(file.left_out) == len(union) else read_by(run, union)
        for run, file in zip(runs, files, strict=True)
    ]


def score(run: Run, file: ReadFile, folder: str, hidden: str | None = None) -> ScoredFile:
    """Scores what was read; files that are needed meanwhile go into a folder."""
    with contextlib.closing(Countdown(file.corpus.num_events, "events")) as countdown:
        return score_sequences(
            run,
            file,
            folder,
            eval_batch_size=FLAGS.eval_batch_size,
            hidden=hidden,
            report=countdown,
        )


def tell_of_unseen(file: ReadFile) -> None:
    """Tells how many sequences are not scored, and why."""
    if file.left_out:
        logging.warning(
            "%s of %s sequences have no score, for symbols that training never saw: %s",
            f"{len(file.left_out):,}",
            f"{len(file.left_out) + len(file.numbers):,}",
            listing(each.symbols for each in file.left_out.values()),
        )


def event_bits(scored: ScoredFile, number: int) -> np.ndarray:
    """The bits of each event of a sequence."""
    start, stop = (int(scored.corpus.offsets[number + i]) for i in (0, 1))
    return bits(np.asarray(scored.nats[start:stop], np.float64))


def plot(scored: ScoredFile, other: ScoredFile | None, scores: SequenceScores) -> None:
    """Draws the surprise of one sequence: the one asked for, or that of the highest rank."""
    asked, path = FLAGS.plot_sequence, os.path.expanduser(FLAGS.plot)
    count = len(scored.numbers) + len(scored.left_out)
    if asked is None:
        number = int(scores.order(FLAGS.rank)[-1]) if FLAGS.rank else 0
    elif asked >= count:
        raise InputError(f"--plot_sequence must be below the {count:,} sequences, got {asked}")
    elif asked in scored.left_out:
        symbols = listing([scored.left_out[asked].symbols])
        raise InputError(f"--plot_sequence={asked} has no score, for symbols unseen: {symbols}")
    else:
        number = int(np.searchsorted(scored.numbers, asked))
    values = event_bits(scored, number)
    if scored.codec.is_text:
        start = int(scored.corpus.offsets[number])
        shown = range(start, start + min(len(values), MOST_CHARACTERS))
        plot_text_surprise(path, [scored.symbol(position) for position in shown], values)
        return
    beside = None if other is None else event_bits(other, number)
    unit = f"bits, density per {scored.codec.unit}" if scored.codec.unit else "bits"
    plot_line_surprise(path, values, unit=unit, other=beside)


def of_what(run: Run) -> dict[str, Any]:
    """What was scored."""
    return {"data": FLAGS.data} if FLAGS.data else {"data": run.config.data, "split": FLAGS.split}


def write(own: Run) -> None:
    """Scores with a run, and writes what the flags ask for."""
    reading = flags.reading()
    run = read_otherwise(own, FLAGS.data, **reading)
    if FLAGS.posterior and FLAGS.data:
        run = posterior.for_posterior(run)
    other_run = None
    if FLAGS.other_workdir:
        other_run = load_run(
            FLAGS.other_workdir, FLAGS.checkpoint, "other_workdir", dtype=FLAGS.dtype
        )
        other_run = read_otherwise(other_run, FLAGS.data, **reading)
    is_density = run.model.distribution.is_density
    if other_run is not None and other_run.model.distribution.is_density != is_density:
        raise InputError(
            "--other_workdir: one of the two runs models densities, the other probabilities; "
            "their nats cannot be compared"
        )
    if FLAGS.each_line and not is_stream_of_text(run):
        raise InputError(
            f"--each_line is for runs on --format=text, got --format={run.config.format}"
        )
    with contextlib.ExitStack() as stack:
        folders = [
            stack.enter_context(tempfile.TemporaryDirectory(prefix="grnn_jax-")) for _ in "ab"
        ]
        hidden = os.path.expanduser(FLAGS.hidden) if FLAGS.hidden else None
        files = read([run] if other_run is None else [run, other_run], folders[0])
        tell_of_unseen(files[0])
        if FLAGS.posterior:
            train = None
            if FLAGS.prior == "train":
                train = read_split(own, FLAGS.workdir, "train").corpus
            more = {"checkpoint": FLAGS.checkpoint, "dtype": run.dtype, **of_what(run)}
            more["workdir"] = FLAGS.workdir
            posterior.write_posterior(run, files[0], folders[0], train, more)
            return
        scored = score(run, files[0], folders[0], hidden)
        other = None if other_run is None else score(other_run, files[1], folders[1])
        scores = scored.scores if other is None else compare(scored, other, FLAGS.per_event)
        first = {"unseen_first": FLAGS.unseen == "rank_first"}
        lines = records(scored, rank=FLAGS.rank, other=other, per_event=FLAGS.per_event, **first)
        if FLAGS.plot:
            plot(scored, other, scores)
        whole: dict[str, Any] = {
            "method": "static",
            "step": run.step,
            **summary(scores),
            **({} if FLAGS.unseen == "error" else {"num_left_out": len(scored.left_out)}),
            "is_density": is_density,
            **({"unit": run.codec.unit} if is_density else {}),
            "checkpoint": FLAGS.checkpoint,
            "dtype": run.dtype,
            **of_what(run),
            "workdir": FLAGS.workdir,
            **({"other_workdir": FLAGS.other_workdir} if other is not None else {}),
        }
        if FLAGS.output:
            write_records(lines, os.path.expanduser(FLAGS.output))
            print(json.dumps(finite(whole)), flush=True)
            return
        write_json_lines(lines, standard_output())
        nats = whole["nats_per_event"]
        logging.info(
            "%s sequences, %s events%s: %.4f nats, %.4f bits per event",
            f"{whole['num_sequences']:,}", f"{whole['num_events']:,}",
            ", their ends included" if run.codec.with_end else "", nats, bits(nats),
        )  # fmt: skip


def run() -> None:
    """Scores as the flags say."""
    check_flags()
    own = load_run(FLAGS.workdir, FLAGS.checkpoint, dtype=FLAGS.dtype)
    write(own)
    flags.log_dtype(own.config.dtype)


def define_flags() -> None:
    """Defines the flags of the command."""
    define = flags.define
    define("string", "data", "", "File to score, in the format of the run; else give --split.")
    shown = "Split of the run's own data to score, where no --data is given."
    define("enum", "split", "valid", shown, enum_values=list(SPLITS))
    posterior.define_flags()
    flags.define_reading()
    where = "File for the records, .jsonl, .csv or .parquet; empty: JSON lines, standard output."
    define("string", "output", "", where)
    define("boolean", "per_event", False, "A record for each event, not for each sequence.")
    order = "Order of the sequences, the most probable first; empty: that of the file."
    define("enum", "rank", "", order, enum_values=["", *RANKS])
    unseen = "Sequences with symbols that training never saw, which have no probability: an error "
    unseen += "that lists them, or left out with a count, or first in the order, without numbers."
    define("enum", "unseen", "error", unseen, enum_values=list(UNSEEN))
    define("string", "other_workdir", "", "Another run, for the likelihood ratio.")
    lines = "Runs on text: each line of the file is a sequence of its own, its line end included."
    define("boolean", "each_line", False, lines)
    define("string", "plot", "", "PNG of the surprise, in bits, at each event of one sequence.")
    drawn = "The sequence that is drawn, from 0; empty: with --rank the last of the order, else 0."
    define("integer", "plot_sequence", None, drawn, minimum=0, maximum=MAX_COUNT)
    states = "File NAME.npy for the hidden states, float32 [events, hidden size] in the order of "
    states += "the file: row i is what event i is predicted from. NAME.offsets.npy says in which "
    states += "row each sequence begins."
    define("string", "hidden", "", states)
    define("enum", "checkpoint", "best", "Checkpoint to use.", enum_values=["best", "latest"])
    streams = "Streams that text is scored as, each after 256 events of context (1: one stream, as "
    streams += "grnn_jax.log_prob scores it), or sequences side by side"
    flags.define_eval_batch_size(streams)
    flags.define_dtype()
    flags.define_machine(distributed=False)


def main() -> None:
    """The command grnn-score."""
    command.start(run, define_flags, __doc__)
