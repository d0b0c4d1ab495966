"""Samples of text: one while it is drawn, several one after the other."""

import collections
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
from absl import logging

from grnn_jax import sampling
from grnn_jax.cli.large_request import Record, write_stream
from grnn_jax.cli.targets import text_file
from grnn_jax.data import TextCodec
from grnn_jax.drawing import DEFAULT_LENGTH, Drawn, iterate_samples
from grnn_jax.workdir import Run

CHUNK_LENGTH = 32


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
    start = encode_prefix(run, prefix)
    if num_samples == 1 and not log_probs:
        _write_one(run, file, start, length, seed, options)
        return
    draw = ancestral(run, start, num_samples=num_samples, length=length, seed=seed, options=options)
    records = text_records(run, start, draw, log_probs)
    write_stream(text_file(Path()), file, records(0), count_duplicates and num_samples > 1)


def text_codec(run: Run) -> TextCodec:
    """The codec of a run on text."""
    assert isinstance(run.codec, TextCodec)
    return run.codec


def encode_prefix(run: Run, prefix: str) -> np.ndarray:
    """The tokens of --prefix."""
    return text_codec(run).encode(prefix, "--prefix") if prefix else np.zeros(0, np.int32)


def _write_one(
    run: Run, file: TextIO, start: np.ndarray, length: int, seed: int, options: dict[str, Any]
) -> None:
    codec = text_codec(run)
    decoder = codec.incremental_decoder()
    # The prefix goes through the decoder: its last bytes may begin a character.
    file.write(decoder.decode(start))
    chunks = sampling.stream(
        run.model, run.params, jax.random.key(seed), 1, length, chunk_length=CHUNK_LENGTH,
        prefix=start if len(start) else None, **options,
    )  # fmt: skip
    for chunk in chunks:
        file.write(decoder.decode(np.asarray(chunk.events)[np.asarray(chunk.mask)]))
        file.flush()
    file.write(decoder.flush() + ("\n" if codec.end is not None else ""))


def ancestral(
    run: Run, start: np.ndarray, *, options: dict[str, Any], **settings: Any
) -> Callable[[int], Iterator[Drawn]]:
    """Number of a sample -> that one and all after it; arguments as `write_samples`."""
    options = options | {"prefix": start if len(start) else None}
    return lambda first: iterate_samples(run, first=first, options=options, **settings)


def text_records(
    run: Run, start: np.ndarray, draw: Callable[[int], Iterator[Drawn]], log_probs: bool
) -> Callable[[int], Iterator[Record]]:
    """Samples of text in the form in which they are written.

    Args:
        run: a trained model of text.
        start: tokens that come before every sample.
        draw: number of a sample -> that one and all after it.
        log_probs: write JSON objects, as `write_samples`, with what the method gives beside them.

    Returns:
        Number of a sample -> that one and all after it, as text.
    """
    codec = text_codec(run)

    def records(first: int) -> Iterator[Record]:
        counts: collections.Counter[int] = collections.Counter()
        for number, sample in enumerate(draw(first), start=first):
            counts[sample.num_events] += 1
            text = codec.decode(np.concatenate([start, sample.events]))
            content = text.encode("utf-8", "surrogateescape")
            if log_probs:
                record = {"text": text, "nats": sample.nats, "num_events": sample.num_events}
                text = json.dumps({**record, **sample.extras}, ensure_ascii=False) + "\n"
            elif codec.end is not None:
                text += "\n"
            elif number:
                text = "\n\n" + text
            yield Record(text, content)
        if counts.total() > 1:
            lengths = sampling.statistics_of_counts(counts)
            logging.info(
                "%s%d samples of %d to %d events, on average %.1f", "the last " if first else "",
                lengths.num_sequences, lengths.shortest, lengths.longest, lengths.mean,
            )  # fmt: skip

    return records
