"""Trains a generative recurrent network and goes on where an earlier run stopped.

    grnn-train                                      Shakespeare's plays
    grnn-train --workdir=runs/mine --data=mine.txt
    grnn-train --preset=smoke
    grnn-train --workdir=runs/mine --extend_to=5000     more steps

Everything of the run is kept in --workdir. SIGTERM, SIGHUP, SIGUSR1 and Ctrl-C save and end it,
with status 128 + the signal's number; the same command goes on from there, and so does --workdir
alone.
"""

import dataclasses
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jaxtyping import Float

from grnn_jax import evaluation, runner, workdir
from grnn_jax.cli import command, flags, presets
from grnn_jax.cli.plots import plot_learning_curve
from grnn_jax.cli.sequence_samples import write_sequences
from grnn_jax.cli.text_samples import write_samples
from grnn_jax.data import FORMATS
from grnn_jax.errors import InputError

FLAGS = flags.FLAGS
NUM_SAMPLES = 9


def draw_learning_curve() -> None:
    """Draws the learning curve, or says why not."""
    if jax.process_index() == 0:
        try:
            plot_learning_curve(FLAGS.workdir)
        except (ImportError, OSError, InputError) as error:
            logging.warning("could not draw the learning curve: %s", error)


def conditions_to_show(run: workdir.Run, count: int) -> Float[np.ndarray, "N C"] | None:
    """The conditions of some training sequences, from all over the data; the log tells them."""
    if run.codec.conditions is None:
        return None
    corpus = workdir.load_run_data(run.config, Path(FLAGS.workdir), run.codec).train
    assert corpus.conditions is not None
    chosen = np.linspace(0, corpus.num_sequences - 1, count).astype(int)
    conditions = np.asarray(corpus.conditions[chosen])
    for number, values in enumerate(conditions):
        pairs = run.codec.conditions.decode(values).items()
        # Numbers were kept standardised in float32: of 1926 that left 1925.9999992.
        shown = [f"{n}={v:.6g}" if isinstance(v, float) else f"{n}={v}" for n, v in pairs]
        logging.info("sample %d is given %s", number, ", ".join(shown))
    return conditions


def show_sample(run: workdir.Run) -> None:
    """Prints a sample of text, or writes samples of other formats into the workdir."""
    if not run.codec.is_text:
        folder = os.path.join(FLAGS.workdir, "samples")
        given = conditions_to_show(run, NUM_SAMPLES)
        try:
            write_sequences(run, folder, FLAGS.workdir, num_samples=NUM_SAMPLES, conditions=given)
        except InputError as error:
            logging.warning("could not write samples: %s", error)
        return
    is_stream = FORMATS[run.config.format].is_stream
    count = 1 if is_stream else 5
    write_samples(run, sys.stdout, num_samples=count, conditions=conditions_to_show(run, count))
    if is_stream:
        print()


def adopt_settings() -> None:
    """Gives the flags that are not given the values of the run in --workdir, where there is one."""
    if not os.path.exists(os.path.join(FLAGS.workdir, workdir.CONFIG_FILE)):
        return
    saved = workdir.read_config(FLAGS.workdir)
    for name, value in dataclasses.asdict(saved).items():
        if FLAGS[name].using_default_value:
            FLAGS[name].value = value


def run() -> int:
    """Trains, scores, samples and draws, as the flags say."""
    config = flags.config_from_flags()
    started = time.perf_counter()
    try:
        result = runner.train(config, FLAGS.workdir)
    except InputError:
        raise  # Nothing was trained, and the workdir may be another run's.
    except BaseException:
        draw_learning_curve()
        raise
    draw_learning_curve()
    if result.signal:
        return 128 + result.signal
    if result.best_nats_per_event is not None:
        logging.info(
            "best validation score %.4f nats per event at step %d; %.0f seconds",
            result.best_nats_per_event,
            result.best_step,
            time.perf_counter() - started,
        )
    if not result.is_done:  # Its time is up: nothing that takes more of it.
        logging.info("everything is in %s", FLAGS.workdir)
        return 0
    if FLAGS.score_test:
        values = evaluation.evaluate(FLAGS.workdir, split="test")
        logging.info(
            "test %.4f nats per event, computed in %s", values["nats_per_event"], values["dtype"]
        )
    if FLAGS.show_sample and jax.process_count() == 1:
        show_sample(workdir.load_run(FLAGS.workdir))
    logging.info("everything is in %s", FLAGS.workdir)
    return 0


def define_flags() -> None:
    """Defines the flags of the command."""
    define = flags.define
    shown = "At the end print a sample of text, or write samples to WORKDIR/samples."
    define("boolean", "show_sample", True, shown)
    define("boolean", "score_test", False, "Score the test split at the end.")
    known = f"Settings that were tried out, one of: {', '.join(presets.names())}. "
    known += "A flag that is given beside it wins, wherever it stands."
    define("string", "preset", "", known)
    flags.define_machine()
    flags.define_config()


def main() -> None:
    """The command grnn-train."""
    command.start(run, define_flags, __doc__, prepare=adopt_settings)
