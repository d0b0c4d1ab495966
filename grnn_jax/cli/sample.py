"""Samples from a trained model: samples, and nothing else, on standard output.

    grnn-sample --workdir=runs/default --length=1000 --temperature=0.8
    grnn-sample --workdir=runs/default --prefix="ROMEO: " --num_samples=3
    grnn-sample --workdir=runs/chorales --num_samples=9 --output=chorales
    grnn-sample --workdir=runs/names --method=beam --num_samples=8
    grnn-sample --workdir=runs/nations --condition=nation=Irish --num_samples=20
    grnn-sample --workdir=runs/names --regex="[A-Z][a-z]{3,6}" --num_samples=20

A single sample of a text is shown while it is drawn; several are drawn side by side. Lines go also
into tables (.csv, .tsv, .jsonl, .parquet) and FASTA. Music is written as MIDI files, drawings as
SVG, images as an .npz, all of them into a folder with a picture, or into one file (piano rolls
.npz, voices .json, strokes .npz, .json or .ndjson, images .npz). Events in time and series are
written as CSV to standard output, to a .csv or .parquet file (series also to an .npz), or with a
picture into a folder; formats from outside the package as JSON lines. What is written is read back
as the same events.
Any number of samples is drawn in the same memory (but by searches, which hold all they find), and
the same command goes on after a kill.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import Any, TextIO

import jax
import numpy as np
from jaxtyping import Float

from grnn_jax.cli import command, flags, given, methods
from grnn_jax.cli.large_request import forget_request, write_request, write_stream
from grnn_jax.cli.sequence_samples import write_sequences
from grnn_jax.cli.targets import standard_output
from grnn_jax.cli.text_samples import (
    ancestral,
    encode_prefix,
    text_codec,
    text_records,
    write_samples,
)
from grnn_jax.cli.writers.texts import text_form
from grnn_jax.config import MAX_COUNT, MAX_SEED
from grnn_jax.drawing import DEFAULT_LENGTH
from grnn_jax.errors import InputError
from grnn_jax.sampling.settings import check_setting
from grnn_jax.workdir import Run, load_run

FLAGS = flags.FLAGS


def check_flags() -> None:
    """Checks what the flags ask for.

    Raises:
        InputError: a number is outside its range.
    """
    for name in (*methods.OPTIONS, "repetition_penalty"):
        if methods.is_given(name):  # A default such as --top_k=0 stands for no setting.
            check_setting(name, flags.value(name))


@contextlib.contextmanager
def output(path: str) -> Iterator[TextIO]:
    """Standard output, or a file, both in UTF-8."""
    if not path:
        yield standard_output()
        return
    try:
        with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            forget_request(path)
            yield file
    except OSError as error:
        raise InputError(f"--output: cannot write {path}: {error.strerror}") from error


def request_settings(run: Run, conditions: Float[np.ndarray, "..."] | None) -> dict[str, Any]:
    """What decides what the samples are: an unfinished file goes on with no others."""
    values = {name: v for name, v in flags.script_values().items() if name != "output"}
    if run.dtype == run.config.dtype:
        del values["dtype"]  # Earlier versions noted none, and took that of the training.
    if conditions is not None:  # The file that they are from may be another by then.
        values["conditions"] = hashlib.sha256(conditions.tobytes()).hexdigest()
    return values | {
        "workdir": os.path.abspath(FLAGS.workdir),
        "step": run.step,
        "devices": jax.device_count(),
    }


def asked_options(run: Run) -> dict[str, Any]:
    """The options of sampling that differ from their defaults.

    Raises:
        InputError: the model's output distribution has no such option.
    """
    known = run.model.distribution.options
    asked = {name: flags.value(name) for name in methods.OPTIONS if methods.is_given(name)}
    for name in methods.OPTIONS:
        if flags.is_typed(name) and name not in known:
            listed = ", ".join(f"--{option}" for option in known if option in FLAGS) or "none"
            raise InputError(
                f"--{name} is no option of this run's output distribution; it has {listed}"
            )
    return asked | methods.token_options(run)


def write_texts(run: Run, method: str, conditions: Float[np.ndarray, "..."] | None) -> None:
    """Draws samples of text by a method, and writes them as the flags say."""
    start, path = encode_prefix(run, FLAGS.prefix), os.path.expanduser(FLAGS.output)
    folder = os.path.dirname(path) or "."
    if path and not os.path.isdir(folder):
        raise InputError(f"--output: cannot write {path}: there is no folder {folder}")
    config = run.config
    form = text_form(
        text_codec(run),
        path,
        column=config.column,
        as_is=config.as_is,
        log_probs=FLAGS.log_probs,
    )
    values = {"num_samples": FLAGS.num_samples, "seed": FLAGS.seed}
    values["length"] = FLAGS.length or DEFAULT_LENGTH
    if method != "ancestral":
        draw = methods.draw_from(
            run,
            prefix=start,
            conditions=conditions,
            length=FLAGS.length,
            default_length=DEFAULT_LENGTH,
        )
    elif FLAGS.num_samples == 1 and form.is_plain:
        shown = None if not path else form
        with output(path) as file:
            options = asked_options(run) | {"conditions": conditions}
            write_samples(run, file, prefix=FLAGS.prefix, form=shown, **values, **options)
            if not path and file.isatty():
                file.write("\n")
        return
    else:
        options = asked_options(run)
        draw = ancestral(run, start, options=options, conditions=conditions, **values)
    several = FLAGS.num_samples > 1
    records = text_records(run, start, draw, form if path else None)
    if path:
        settings = request_settings(run, conditions)
        write_request(
            form.target(path), FLAGS.num_samples, settings, records, count_duplicates=several
        )
        return
    write_stream(form.target(path), standard_output(), records(0), several)


def write(run: Run, method: str) -> None:
    """Draws samples by a method, and writes them as the flags say."""
    conditions = given.asked_conditions(run, method)
    if run.codec.is_text:
        if FLAGS.until is not None:
            raise InputError("--until is for the events of --format=events, without --log_probs")
        write_texts(run, method, conditions)
        return
    if method != "ancestral":
        flag = next(name for name in ("regex", "template", "method") if flags.value(name))
        value, name = flags.value(flag), run.codec.name
        raise InputError(f"--{flag}={value} is for text, and samples of this run are {name}")
    options = asked_options(run)
    if FLAGS.prefix:
        raise InputError(f"--prefix is text, and the samples of this run are {run.codec.name}")
    names = ("num_samples", "seed", "log_probs", "length", "until")
    options |= {name: flags.value(name) for name in names}
    options |= {"conditions": conditions, "request": request_settings(run, conditions)}
    write_sequences(run, FLAGS.output, FLAGS.workdir, **options)


def run() -> None:
    """Samples as the flags say."""
    check_flags()
    method = methods.asked_method()
    run = load_run(FLAGS.workdir, FLAGS.checkpoint, dtype=FLAGS.dtype)
    write(run, method)
    flags.log_dtype(run.config.dtype)


def define_flags() -> None:
    """Defines the flags of the command."""
    define = flags.define
    count = (
        "Number of samples. Of several the log tells how many are different: of each a hash of 8 "
        "bytes is kept in a file beside the output, so that memory does not grow with their number."
    )
    define("integer", "num_samples", 1, count, minimum=1, maximum=MAX_COUNT)
    most = "Most events of a sample, without the prefix; empty: 600, of an image all its pixels."
    define("integer", "length", None, most, minimum=1, maximum=MAX_COUNT)
    define("string", "prefix", "", "Text that every sample begins with.")
    define("float", "temperature", 1.0, "Divides the logits; 0 takes the most probable event.")
    keep = "Keep the k most probable events; 0 keeps all."
    define("integer", "top_k", 0, keep, minimum=0, maximum=MAX_COUNT)
    define("float", "top_p", 1.0, "Keep the most probable events up to this probability.")
    given.define_flags()
    methods.define_flags()
    bias = "Draw strokes closer to the most probable ones, from 0 (not at all) up."
    define("float", "bias", 0.0, bias, minimum=0)
    until = "Events in time: where a sample ends, in the unit of the times; empty: --length alone."
    define("float", "until", None, until, minimum=0)
    seed = "Seed; the same gives the same samples. Not for --method=beam."
    define("integer", "seed", 0, seed, minimum=0, maximum=MAX_SEED)
    where = (
        "File or folder; empty: standard output, for what needs a folder WORKDIR/samples. What was "
        "stopped goes on where it was when the same flags are given again."
    )
    define("string", "output", "", where)
    nats = "Write JSON lines: nats (untempered) and num_events, without the prefix; of text it too."
    define("boolean", "log_probs", False, nats)
    define("enum", "checkpoint", "best", "Checkpoint to use.", enum_values=["best", "latest"])
    flags.define_dtype()
    flags.define_machine(distributed=False)


def main() -> None:
    """The command grnn-sample."""
    command.start(run, define_flags, __doc__)
