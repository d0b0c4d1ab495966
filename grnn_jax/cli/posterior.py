"""score.py --posterior: which class each sequence is of, and how good that is."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

from absl import logging

from grnn_jax.cli import flags
from grnn_jax.cli.countdown import Countdown
from grnn_jax.cli.targets import standard_output
from grnn_jax.cli.writers.records import finite, write_json_lines, write_records
from grnn_jax.data import Corpus
from grnn_jax.data.text_codec import TextCodec
from grnn_jax.errors import InputError
from grnn_jax.scoring import PRIORS, Posterior, ReadFile, find_class, log_prior, posterior
from grnn_jax.workdir import Run

FLAGS = flags.FLAGS
NOT_WITH = ("per_event", "rank", "other_workdir", "plot", "hidden", "each_line")
"""Flags that say nothing of classes."""


def define_flags() -> None:
    """Defines the flags of this file."""
    define = flags.define
    help = (
        "Condition of classes: p(class | sequence) by Bayes' rule in place of the scores, other "
        "conditions as they are given. The class may be missing in --data."
    )
    define("string", "posterior", "", help)
    help = "p(class) of --posterior: its share in train, or the same for all."
    define("enum", "prior", "train", help, enum_values=list(PRIORS))


def check_flags() -> None:
    """Raises InputError for flags that have no effect together."""
    if not FLAGS.posterior:
        if flags.is_typed("prior"):
            raise InputError("--prior needs --posterior=CONDITION, got none")
        return
    for name in NOT_WITH:
        if flags.value(name):
            raise InputError(f"--posterior and --{name} do not go together: give one of them")


def for_posterior(run: Run) -> Run:
    """The run as it reads sequences whose class may be missing."""
    index, condition = find_class(run, FLAGS.posterior)
    assert run.codec.conditions is not None
    every = list(run.codec.conditions.conditions)
    every[index] = dataclasses.replace(condition, may_be_missing=True)
    conditions = dataclasses.replace(run.codec.conditions, conditions=tuple(every))
    return run._replace(codec=dataclasses.replace(run.codec, conditions=conditions))


def write_posterior(
    run: Run, file: ReadFile, folder: str, train: Corpus | None, more: dict[str, Any]
) -> None:
    """Writes a record for each sequence, and at last the score of all of them.

    Args:
        run: a trained model.
        file: the sequences.
        folder: where nats lie while they are needed.
        train: the training split, for --prior=train.
        more: what the last line holds beside the numbers.
    """
    index, condition = find_class(run, FLAGS.posterior)
    prior = log_prior(FLAGS.prior, condition, index, train)
    if FLAGS.eval_batch_size:
        config = dataclasses.replace(run.config, eval_batch_size=FLAGS.eval_batch_size)
        run = run._replace(config=config)
    total = file.corpus.num_events * condition.size
    with contextlib.closing(Countdown(total, "events")) as countdown:
        found = posterior(run, file.corpus, FLAGS.posterior, prior, folder, report=countdown)
    whole = {"posterior": FLAGS.posterior, "prior": FLAGS.prior, **found.summary()}
    whole |= {"num_sequences": file.corpus.num_sequences, "step": run.step, **more}
    if FLAGS.output:
        write_records(_records(run, file, found), os.path.expanduser(FLAGS.output))
        print(json.dumps(finite(whole)), flush=True)
        return
    write_json_lines(_records(run, file, found), standard_output())
    if whole["num_labelled"]:
        logging.info(
            "%s of %s classes: accuracy %.4f (prior %.4f), log loss %.4f nats (prior %.4f), "
            "calibration error %.4f, over %s sequences",
            FLAGS.posterior, condition.size, whole["accuracy"], whole["prior_accuracy"],
            whole["log_loss"], whole["prior_log_loss"], whole["calibration_error"],
            f"{whole['num_labelled']:,}",
        )  # fmt: skip


def _records(run: Run, file: ReadFile, found: Posterior) -> Iterator[dict[str, Any]]:
    offsets, codec = file.corpus.offsets, run.codec
    for index, number in enumerate(file.numbers.tolist()):
        text = {}
        if isinstance(codec, TextCodec):
            text = {"text": codec.decode(file.corpus.events[offsets[index] : offsets[index + 1]])}
        yield {"sequence": number} | text | found.record(index)
