"""Scores a trained model; the last line printed is one JSON object.

    grnn-evaluate --workdir=runs/default --split=test
    grnn-evaluate --workdir=runs/default --data=other.txt
    grnn-evaluate --workdir=runs/default --split=test --method=temperature

The model is rebuilt from --workdir alone. The numbers of the JSON object are those of the static
likelihood; another --method adds its own in an object under its name.
"""

import json
import os

from grnn_jax import evaluation
from grnn_jax.cli import command, flags
from grnn_jax.cli.countdown import Countdown
from grnn_jax.cli.writers.records import finite
from grnn_jax.config import MAX_COUNT, MAX_SEED, MAX_SIZE, SPLITS
from grnn_jax.errors import InputError
from grnn_jax.scoring.dynamic import DynamicSettings
from grnn_jax.scoring.methods import METHODS, MethodSettings, check_method
from grnn_jax.workdir import read_config

FLAGS = flags.FLAGS


OF_METHODS = {
    "dynamic": (
        "dynamic_learning_rate", "dynamic_decay", "dynamic_segment_length", "dynamic_rms",
        "dynamic_statistics",
    ),
    "mc_dropout": ("num_draws", "seed"),
}  # fmt: skip
"""The flags of a method."""


def method_settings() -> MethodSettings:
    """How to score, by the flags.

    Raises:
        InputError: a flag is outside its range, or of another method.
    """
    for method, names in OF_METHODS.items():
        for name in names:
            if flags.is_typed(name) and FLAGS.method != method:
                raise InputError(f"--{name} needs --method={method}, got --method={FLAGS.method}")
    if flags.is_typed("dynamic_statistics") and not FLAGS.dynamic_rms:
        raise InputError("--dynamic_statistics needs --dynamic_rms, got --nodynamic_rms")
    dynamic = DynamicSettings(
        learning_rate=FLAGS.dynamic_learning_rate,
        decay=FLAGS.dynamic_decay,
        segment_length=FLAGS.dynamic_segment_length,
        rms=FLAGS.dynamic_rms,
    )
    settings = MethodSettings(
        FLAGS.method, dynamic, FLAGS.dynamic_statistics, FLAGS.num_draws, FLAGS.seed
    )
    check_method(settings)
    return settings


def run() -> None:
    """Scores what the flags name."""
    flags.check_split()
    settings = method_settings()
    values = evaluation.evaluate(
        FLAGS.workdir,
        data=os.path.expanduser(FLAGS.data),
        **flags.reading(),
        split=FLAGS.split,
        checkpoint=FLAGS.checkpoint,
        eval_batch_size=FLAGS.eval_batch_size,
        dtype=FLAGS.dtype,
        method=settings,
        report=Countdown(None, "events"),
    )
    values = {k: finite(v) if isinstance(v, dict) else v for k, v in values.items()}
    print(json.dumps(finite(values)), flush=True)
    flags.log_dtype(read_config(FLAGS.workdir).dtype)


def define_flags() -> None:
    """Defines the flags of the command."""
    define = flags.define
    define("string", "data", "", "File to score whole; empty for a split of the run's own data.")
    flags.define_reading()
    define("enum", "split", "valid", "Split to score.", enum_values=list(SPLITS))
    define("enum", "checkpoint", "best", "Checkpoint to score.", enum_values=["best", "latest"])
    streams = "Streams that text is scored as, each after 256 events of context"
    flags.define_eval_batch_size(streams)
    flags.define_dtype()
    other = "Score by this too: the parameters learn from what was scored (dynamic), mean over "
    other += "draws of dropout (mc_dropout), temperature of the logits fitted on validation data."
    define("enum", "method", "static", other, enum_values=list(METHODS))
    start = DynamicSettings()
    rate = "Dynamic: size of a step on a segment."
    define("float", "dynamic_learning_rate", start.learning_rate, rate)
    decay = "Dynamic: pull back to the trained parameters after each segment, from 0 to 1."
    define("float", "dynamic_decay", start.decay, decay)
    name, length, help = (
        "dynamic_segment_length",
        start.segment_length,
        "Dynamic: events in a step.",
    )
    define("integer", name, length, help, minimum=1, maximum=MAX_SIZE)
    rms = "Dynamic: scale steps by the root mean square of each gradient on training data."
    define("boolean", "dynamic_rms", start.rms, rms)
    segments = "Dynamic: training segments behind that scale."
    define("integer", "dynamic_statistics", 256, segments, minimum=1, maximum=MAX_COUNT)
    draws = "MC dropout: draws of the masks."
    define("integer", "num_draws", 16, draws, minimum=1, maximum=MAX_SIZE)
    define("integer", "seed", 0, "MC dropout: seed of the draws.", minimum=0, maximum=MAX_SEED)
    flags.define_machine(distributed=False)


def main() -> None:
    """The command grnn-evaluate."""
    command.start(run, define_flags, __doc__)
