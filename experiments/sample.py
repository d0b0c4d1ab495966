"""Samples from a trained model: samples, and nothing else, on standard output.

    python experiments/sample.py --workdir=runs/default --length=1000 --temperature=0.8
    python experiments/sample.py --workdir=runs/default --prefix="ROMEO: " --num_samples=3
    python experiments/sample.py --workdir=runs/chorales --num_samples=9 --output=chorales
    python experiments/sample.py --workdir=runs/names --method=beam --num_samples=8
    python experiments/sample.py --workdir=runs/names --regex="[A-Z][a-z]{3,6}" --num_samples=20

A single sample of a text is shown while it is drawn; several are drawn side by side. Music is
written as MIDI files, drawings as SVG, images as an .npz, all of them into a folder with a picture.
Events in time and series are written as CSV to standard output or a .csv file (series also to an
.npz), or with a picture into a folder.
"""

import array
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import flags as experiment_flags
import jax
import methods
import numpy as np
from absl import logging
from large_request import (
    Record,
    content_hash,
    forget_request,
    report_duplicates,
    write_request,
)
from writers import WRITERS, write_folder
from writers.sequences import (
    BATCH_SIZE,
    DEFAULT_LENGTH,
    default_length,
    draw,
    held_out,
    iterate_samples,
    without_end,
)
from writers.tables import csv_header, csv_sample, events_until

from grnn_jax import sampling
from grnn_jax.config import MAX_SEED
from grnn_jax.data.corpus import event_arrays
from grnn_jax.distributions.composition import sample_options
from grnn_jax.errors import InputError
from grnn_jax.workdir import Run, load_run

FLAGS = experiment_flags.FLAGS
CHUNK_LENGTH = 32
FILE_SUFFIXES = (".csv", ".jsonl", ".mid", ".midi", ".npz", ".png", ".svg", ".txt")
"""What a folder is not called."""


def write_samples(
    run: Run,
    file: TextIO,
    *,
    num_samples: int = 1,
    length: int = DEFAULT_LENGTH,
    prefix: str = "",
    seed: int = 0,
    log_probs: bool = False,
    count_duplicates: bool = False,
    **options: Any,
) -> None:
    """Draws samples and writes them as text.

    One sample of a text is written while it is drawn. Several are parted by an empty line; lines
    (which have an end) are written one sample a line.

    Args:
        run: a trained model.
        file: where the text goes.
        num_samples: number of samples.
        length: most events of a sample, its prefix not counted.
        prefix: text that every sample begins with.
        seed: seed of the samples; sample i of a seed is the same whatever num_samples is.
        log_probs: write one JSON object a sample instead: text, and nats and num_events of the
            events drawn, the prefix excluded, under the model at temperature 1, not truncated.
        count_duplicates: tell how many of several samples are different, in the log.
        **options: of `sampling.sample`: temperature, top_k, …, stop.
    """
    codec = run.codec
    start = codec.encode(prefix, "--prefix") if prefix else None
    options["prefix"] = start
    key = jax.random.key(seed)
    if num_samples == 1 and not log_probs:
        decoder = codec.incremental_decoder()
        # The prefix goes through the decoder: its last bytes may begin a character.
        file.write(decoder.decode(start) if start is not None else "")
        chunks = sampling.stream(
            run.model, run.params, key, 1, length, chunk_length=CHUNK_LENGTH, **options
        )
        for chunk in chunks:
            file.write(decoder.decode(np.asarray(chunk.events)[np.asarray(chunk.mask)]))
            file.flush()
        file.write(decoder.flush() + ("\n" if codec.end is not None else ""))
        return
    settings = {"num_samples": num_samples, "length": length, "seed": seed, "options": options}
    count_duplicates = count_duplicates and num_samples > 1
    write_stream(text_records(run, prefix, log_probs, **settings)(0), file, count_duplicates)


def text_records(
    run: Run, prefix: str, log_probs: bool, **settings: Any
) -> Callable[[int], Iterator[Record]]:
    """The function of `write_request` for text; arguments as `write_samples`."""
    codec = run.codec
    start = codec.encode(prefix, "--prefix") if prefix else np.zeros(0, np.int32)

    def records(first: int) -> Iterator[Record]:
        lengths = array.array("i")
        samples = iterate_samples(run, first=first, **settings)
        for number, sample in enumerate(samples, start=first):
            lengths.append(sample.num_events)
            text = codec.decode(np.concatenate([start, sample.events]))
            content = text.encode("utf-8", "surrogateescape")
            if log_probs:
                record = {"text": text, "nats": sample.nats, "num_events": sample.num_events}
                text = json.dumps(record, ensure_ascii=False) + "\n"
            elif codec.end is not None:
                text += "\n"
            elif number:
                text = "\n\n" + text
            yield Record(text, content)
        methods.log_lengths(lengths, "the last " if first else "")

    return records


def write_stream(records: Iterator[Record], file: TextIO, count_duplicates: bool) -> None:
    """Writes samples as they come, and tells how many are different where that is asked for."""
    hashes = bytearray()
    for number, record in enumerate(records, start=1):
        file.write(record.text)
        hashes += content_hash(record.content)
        if number % BATCH_SIZE == 0:
            file.flush()
    file.flush()
    if count_duplicates:
        report_duplicates(bytes(hashes))


def check_flags() -> None:
    """Checks what the flags ask for.

    Raises:
        InputError: a number is outside its range.
    """
    lowest = {
        "num_samples": 1, "length": 1, "temperature": 0, "top_k": 0, "bias": 0, "until": 0,
    }  # fmt: skip
    for name, low in lowest.items():
        value = FLAGS[name].value
        if value is not None and not value >= low:
            raise InputError(f"--{name} must be at least {low}, got {FLAGS[name].value}")
    if not 0 < FLAGS.top_p <= 1:
        raise InputError(f"--top_p must be greater than 0 and at most 1, got {FLAGS.top_p}")
    if not 0 <= FLAGS.seed <= MAX_SEED:
        raise InputError(f"--seed must be from 0 to {MAX_SEED}, got {FLAGS.seed}")


@contextlib.contextmanager
def output(path: str) -> Iterator[TextIO]:
    """Standard output, or a file, both in UTF-8."""
    if not path:
        sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    with contextlib.ExitStack() as stack:
        try:
            path = os.path.expanduser(path)
            file = stack.enter_context(open(path, "w", encoding="utf-8", newline=""))
            forget_request(path)
        except OSError as error:
            raise InputError(f"--output: cannot write {path}: {error.strerror}") from error
        yield file


def write_sequences(
    run: Run,
    path: str,
    workdir: str | Path,
    *,
    num_samples: int = 1,
    length: int | None = None,
    seed: int = 0,
    log_probs: bool = False,
    until: float | None = None,
    **options: Any,
) -> None:
    """Draws samples of a format other than text and lines, and writes them as it asks for.

    Args:
        run: a trained model.
        path: file or folder; empty for standard output where the format is a table, else for
            WORKDIR/samples.
        workdir: directory of the run.
        num_samples: number of samples.
        length: most events of a sample, its end included; None for `default_length`.
        seed: seed of the samples.
        log_probs: write one JSON object a sample instead: nats and num_events.
        until: of events in time, the time at which a sample ends; None for its length alone.
        **options: of `sampling.sample`.

    Raises:
        InputError: the format is not written to such a file, or `until` does not fit.
    """
    if until is not None and (run.codec.name != "events" or log_probs):
        raise InputError("--until is for the events of --format=events, without --log_probs")
    codec, writer, path = run.codec, WRITERS[run.codec.name], os.path.expanduser(path)
    suffix = os.path.splitext(path)[1].lower()
    length = length or default_length(codec)
    to_file = log_probs or (writer.write_csv is not None and (not path or suffix == ".csv"))
    to_arrays = writer.write_npz is not None and suffix == ".npz"
    if suffix in FILE_SUFFIXES and not (to_file or to_arrays or os.path.isdir(path)):
        known = [s for s, w in ((".csv", writer.write_csv), (".npz", writer.write_npz)) if w]
        wanted = " or ".join([*(f"a {s} file" for s in known), "a folder"])
        raise InputError(f"--output: samples of {codec.name} need {wanted}, got {path}")

    settings = {"num_samples": num_samples, "length": length, "seed": seed, "options": options}
    if to_file:
        several = num_samples > 1
        header = "" if log_probs else csv_header(codec, several)
        records = sequence_records(run, log_probs, until, **settings)
        if path:
            write_request(path, num_samples, request_settings(run), records, header=header)
            return
        with output("") as file:
            file.write(header)
            write_stream(records(0), file, num_samples > 1)
        return
    samples = draw(run, **settings)
    events = [sample.events for sample in samples]
    if until is not None:
        ended = [events_until(each, until) for each in events]
        events = [each for each, _ in ended]
        short = sum(
            not reached and sample.num_events == length
            for sample, (_, reached) in zip(samples, ended, strict=True)
        )
        warn_short(short, num_samples, until, length)
    if to_arrays:
        try:
            writer.write_npz(codec, events, Path(path))
        except OSError as error:
            raise InputError(f"--output: cannot write {path}: {error.strerror}") from error
        return
    folder = path or os.path.join(workdir, "samples")
    paths = write_folder(codec, events, folder, held_out(run, workdir, num_samples, length))
    logging.info("wrote %d files to %s", len(paths), folder)


def warn_short(short: int, num_samples: int, until: float, length: int) -> None:
    """Warns of samples that end too early."""
    if short:
        logging.warning(
            "%d of %d samples end before --until=%g: ask for a greater --length than %d",
            short, num_samples, until, length,
        )  # fmt: skip


def sequence_records(
    run: Run, log_probs: bool, until: float | None, **settings: Any
) -> Callable[[int], Iterator[Record]]:
    """The function of `write_request` for tables and for log-probabilities of any format."""

    def records(first: int) -> Iterator[Record]:
        short, several = 0, settings["num_samples"] > 1
        samples = iterate_samples(run, first=first, **settings)
        for number, sample in enumerate(samples, start=first):
            events = without_end(run.codec, sample.events)
            if until is not None:
                events, reached = events_until(events, until)
                short += not reached and sample.num_events == settings["length"]
            content = b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves(events))
            if log_probs:
                record = {"nats": sample.nats, "num_events": sample.num_events}
                yield Record(json.dumps(record) + "\n", content)
            else:
                yield Record(csv_sample(run.codec, events, number, several), content)
        if until is not None:
            warn_short(short, settings["num_samples"] - first, until, settings["length"])

    return records


def leaves(events: Any) -> list[np.ndarray]:
    """The arrays of events."""
    return [leaf for _, leaf in event_arrays(events)]


def request_settings(run: Run) -> dict[str, Any]:
    """What decides what the samples are: an unfinished file goes on with no others."""
    values = {name: v for name, v in experiment_flags.script_values().items() if name != "output"}
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
    known = sample_options(run.model.distribution.sample)
    asked = {name: FLAGS[name].value for name in methods.OPTIONS if methods.is_given(name)}
    for name in methods.OPTIONS:
        if experiment_flags.is_typed(name) and name not in known:
            listed = ", ".join(f"--{option}" for option in known if option in FLAGS) or "none"
            raise InputError(
                f"--{name} is no option of this run's output distribution; it has {listed}"
            )
    return asked | methods.token_options(run)


def main() -> None:
    """Samples as the flags say."""
    check_flags()
    method = methods.asked_method()
    run = load_run(FLAGS.workdir, FLAGS.checkpoint)
    values = {name: FLAGS[name].value for name in ("num_samples", "seed", "log_probs")}
    values |= asked_options(run) if method == "ancestral" else {}
    if not run.codec.is_text:
        if method != "ancestral":
            flag = next(n for n in ("regex", "template", "method") if FLAGS[n].value)
            given, name = FLAGS[flag].value, run.codec.name
            raise InputError(f"--{flag}={given} is for text, and samples of this run are {name}")
        if FLAGS.prefix:
            raise InputError(f"--prefix is text, and the samples of this run are {run.codec.name}")
        values |= {"length": FLAGS.length, "until": FLAGS.until}
        write_sequences(run, FLAGS.output, FLAGS.workdir, **values)
        return
    if FLAGS.until is not None:
        raise InputError("--until is for the events of --format=events, without --log_probs")
    if FLAGS.prefix:
        run.codec.encode(FLAGS.prefix, "--prefix")  # Before --output is made.
    if method != "ancestral":
        folder = os.path.dirname(os.path.expanduser(FLAGS.output)) or "."
        if FLAGS.output and not os.path.isdir(folder):
            raise InputError(f"--output: cannot write {FLAGS.output}: there is no folder {folder}")
        texts = methods.texts_by_method(
            run, prefix=FLAGS.prefix, length=FLAGS.length, default_length=DEFAULT_LENGTH
        )
        with output(FLAGS.output) as file:
            file.writelines(texts)
        return
    length = FLAGS.length or DEFAULT_LENGTH
    if FLAGS.output and (FLAGS.num_samples > 1 or FLAGS.log_probs):
        options = asked_options(run)
        if FLAGS.prefix:
            options["prefix"] = run.codec.encode(FLAGS.prefix, "--prefix")
        records = text_records(
            run, FLAGS.prefix, FLAGS.log_probs, num_samples=FLAGS.num_samples, length=length,
            seed=FLAGS.seed, options=options,
        )  # fmt: skip
        path = os.path.expanduser(FLAGS.output)
        write_request(path, FLAGS.num_samples, request_settings(run), records)
        return
    with output(FLAGS.output) as file:
        write_samples(
            run, file, length=length, prefix=FLAGS.prefix, count_duplicates=True, **values
        )
        if not FLAGS.output and file.isatty():
            file.write("\n")


if __name__ == "__main__":
    define = experiment_flags.define
    define("integer", "num_samples", 1, "Number of samples.")
    most = "Most events of a sample, without the prefix; empty: 600, of an image all its pixels."
    define("integer", "length", None, most)
    define("string", "prefix", "", "Text that every sample begins with.")
    define("float", "temperature", 1.0, "Divides the logits; 0 takes the most probable event.")
    define("integer", "top_k", 0, "Keep the k most probable events; 0 keeps all.")
    define("float", "top_p", 1.0, "Keep the most probable events up to this probability.")
    methods.define_flags()
    bias = "Draw strokes closer to the most probable ones, from 0 (not at all) up."
    define("float", "bias", 0.0, bias)
    until = "Events in time: where a sample ends, in the unit of the times; empty: --length alone."
    define("float", "until", None, until)
    define("integer", "seed", 0, "Seed; the same gives the same samples. Not for --method=beam.")
    where = "File or folder; empty: standard output, for what needs a folder WORKDIR/samples."
    define("string", "output", "", where)
    nats = "Write JSON lines: nats (untempered) and num_events, without the prefix; of text it too."
    define("boolean", "log_probs", False, nats)
    define("enum", "checkpoint", "best", "Checkpoint to use.", enum_values=["best", "latest"])
    experiment_flags.define_machine(distributed=False)
    experiment_flags.run(main, __doc__)
