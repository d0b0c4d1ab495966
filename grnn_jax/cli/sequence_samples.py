"""Samples of all but text: into a folder, a file, or shown as CSV or JSON."""

import json
import mimetypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float

from grnn_jax.cli.large_request import Record, forget_request, write_request, write_stream
from grnn_jax.cli.targets import Target, standard_output, text_file
from grnn_jax.cli.writers import JSON_LINES, WRITERS, folder_target
from grnn_jax.cli.writers.sequences import held_out
from grnn_jax.cli.writers.tables import events_until
from grnn_jax.data.corpus import event_arrays
from grnn_jax.data.events import EventsCodec
from grnn_jax.data.strokes import END_OF_DRAWING, StrokesCodec
from grnn_jax.drawing import Drawn, default_length, iterate_samples, without_end
from grnn_jax.errors import InputError
from grnn_jax.workdir import Run

_FILE_SUFFIXES = (
    ".arrow", ".csv", ".feather", ".gz", ".h5", ".hdf5", ".jsonl", ".mat", ".mid", ".midi", ".npy",
    ".npz", ".ndjson", ".parquet", ".pt", ".safetensors", ".tsv", ".xlsx", ".xz", ".zip",
)  # fmt: skip
"""What a folder is not called, beside the suffixes that Python's `mimetypes` knows."""


def write_sequences(
    run: Run,
    path: str,
    workdir: str | Path,
    *,
    request: dict[str, Any] | None = None,
    num_samples: int = 1,
    length: int | None = None,
    seed: int = 0,
    log_probs: bool = False,
    until: float | None = None,
    conditions: Float[np.ndarray, "..."] | None = None,
    **options: Any,
) -> None:
    """Draws samples of a format other than text and lines, and writes them as it asks for.

    Args:
        run: a trained model.
        path: file or folder; empty for standard output where the format is a table or written as
            JSON, else for WORKDIR/samples.
        workdir: directory of the run.
        request: what decides what the samples are: an unfinished output goes on with no others;
            None to begin anew.
        num_samples: number of samples.
        length: most events of a sample, its end included; None for `default_length`.
        seed: seed of the samples.
        log_probs: write one JSON object a sample instead: nats and num_events.
        until: of events in time, the time at which a sample ends; None for its length alone.
        conditions: what samples are drawn given, [C] for all or [N, C], of a run with conditions.
        **options: of `sampling.sample`.

    Raises:
        InputError: the format is not written to such a file, or `until` does not fit.
    """
    if until is not None and (not isinstance(run.codec, EventsCodec) or log_probs):
        raise InputError("--until is for the events of --format=events, without --log_probs")
    length = length or default_length(run.codec)
    settings = {"num_samples": num_samples, "length": length, "seed": seed, "options": options}
    settings["conditions"] = conditions
    records = sequence_records(run, log_probs, until, **settings)
    target, shown = _target(run, os.path.expanduser(path), workdir, num_samples, length, log_probs)
    if shown:
        write_stream(target, standard_output(), records(0), num_samples > 1)
        return
    if request is None:
        forget_request(target.path)
    asked = request is not None and num_samples > 1
    write_request(target, num_samples, request or {}, records, count_duplicates=asked)
    logging.info("wrote %s samples to %s", f"{num_samples:,}", target.folder or target.path)


def _target(
    run: Run, path: str, workdir: str | Path, num_samples: int, length: int, log_probs: bool
) -> tuple[Target, bool]:
    """Where samples go, and whether that is standard output; arguments as `write_sequences`."""
    codec, writer = run.codec, WRITERS.get(run.codec.name, JSON_LINES)
    suffix = os.path.splitext(path)[1].lower()
    if log_probs:
        return text_file(Path(path)), not path
    if not path and writer.shown:
        return writer.to_file[writer.shown](codec, Path(path), num_samples), True
    if suffix in writer.to_file and not os.path.isdir(path):
        return writer.to_file[suffix](codec, Path(path), num_samples), False
    if _is_suffix_of_files(suffix) and not os.path.isdir(path):
        wanted = " or ".join([*(f"a {known} file" for known in writer.to_file), "a folder"])
        raise InputError(f"--output: samples of {codec.name} need {wanted}, got {path}")
    folder = path or os.path.join(workdir, "samples")
    return folder_target(
        codec, folder, num_samples, lambda count: held_out(run, workdir, count, length)
    ), False


def _is_cut(run: Run, sample: Drawn) -> bool:
    """Whether a sample of a model that ends its sequences is none that it ended."""
    if run.codec.wraps_end:
        return not sample.events["end"][-1:].any()
    if isinstance(run.codec, StrokesCodec):
        return not (sample.events["pen"][-1:] == END_OF_DRAWING).any()
    return False


def _is_suffix_of_files(suffix: str) -> bool:
    # Without those of the machine, so that the same name is the same everywhere.
    return suffix in _FILE_SUFFIXES or mimetypes.MimeTypes().guess_type("a" + suffix)[0] is not None


def sequence_records(
    run: Run, log_probs: bool, until: float | None, **settings: Any
) -> Callable[[int], Iterator[Record]]:
    """Samples of any format in the form in which they are written; arguments as `write_sequences`.

    Returns:
        Number of a sample -> that one and all after it: events, or JSON.
    """
    codec = run.codec
    is_json = codec.name not in WRITERS

    def records(first: int) -> Iterator[Record]:
        short = cut = 0
        for sample in iterate_samples(run, first=first, **settings):
            events = without_end(codec, sample.events)
            cut += _is_cut(run, sample)
            if until is not None:
                with_rest = isinstance(codec, EventsCodec) and bool(codec.end_column)
                events, reached = events_until(events, until, with_rest=with_rest)
                short += not reached and sample.num_events == settings["length"]
            leaves = [leaf for _, leaf in event_arrays(events)]
            content = b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)
            if log_probs or is_json:
                record = {"nats": sample.nats, "num_events": sample.num_events}
                if is_json:
                    record = {"events": codec.decode(events)} | record
                yield Record(json.dumps(record, ensure_ascii=False) + "\n", content)
            else:
                yield Record(events, content)
        if short:
            logging.warning(
                "%d of %d samples end before --until=%g: ask for a greater --length than %d",
                short, settings["num_samples"] - first, until, settings["length"],
            )  # fmt: skip
        if cut:
            logging.info(
                "%d of %d samples have no end in %d events: what reads them sees one there",
                cut, settings["num_samples"] - first, settings["length"],
            )  # fmt: skip

    return records
