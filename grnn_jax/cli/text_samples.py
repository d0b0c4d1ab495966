"""Samples of text: one while it is drawn, several one after the other."""

import collections
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import jax
import numpy as np
from absl import logging
from jaxtyping import Float

from grnn_jax import sampling
from grnn_jax.cli.large_request import Record, write_stream
from grnn_jax.cli.writers.texts import TextForm, TextSample, marked, text_form
from grnn_jax.data import TextCodec
from grnn_jax.drawing import DEFAULT_LENGTH, Drawn, iterate_samples
from grnn_jax.errors import InputError
from grnn_jax.workdir import Run

CHUNK_LENGTH = 32
MOST_CHECKED = 1 << 20
"""Most events of a single sample that is looked at once more when it is written."""


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
    form: TextForm | None = None,
    conditions: Float[np.ndarray, "..."] | None = None,
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
        form: of the file: the log tells whether a single sample is not read back from it, if it has
            no more than `MOST_CHECKED` events.
        conditions: what samples are drawn given, [C] for all or [N, C], of a run with conditions.
        **options: of `sampling.sample`: temperature, top_k, …, stop.
    """
    start = encode_prefix(run, prefix)
    if num_samples == 1 and not log_probs:
        one = options if conditions is None else options | {"conditions": conditions}
        _write_one(run, file, start, length, seed, form, one)
        return
    draw = ancestral(
        run,
        start,
        num_samples=num_samples,
        length=length,
        seed=seed,
        options=options,
        conditions=conditions,
    )
    shown = text_form(text_codec(run), "", log_probs=log_probs)
    records = text_records(run, start, draw)
    write_stream(shown.target(""), file, records(0), count_duplicates and num_samples > 1)


def text_codec(run: Run) -> TextCodec:
    """The codec of a run on text."""
    assert isinstance(run.codec, TextCodec)
    return run.codec


def encode_prefix(run: Run, prefix: str) -> np.ndarray:
    """The tokens of --prefix."""
    return text_codec(run).encode(prefix, "--prefix") if prefix else np.zeros(0, np.int32)


def _write_one(
    run: Run,
    file: TextIO,
    start: np.ndarray,
    length: int,
    seed: int,
    form: TextForm | None,
    options: dict[str, Any],
) -> None:
    codec = text_codec(run)
    # Only a file that takes them gets bytes that spell no text.
    exact = getattr(file, "errors", None) == "surrogateescape"
    decoder = codec.file_decoder() if exact else codec.incremental_decoder()
    tokens, texts = [start], list[str]()

    def write(text: str) -> None:
        if text:
            file.write(text if texts else marked(codec, text))
            if form is None:
                texts.clear()  # The last one is all that is needed.
            texts.append(text)

    # The prefix goes through the decoder: its last bytes may begin a character.
    write(decoder.decode(start))
    chunks = sampling.stream(
        run.model, run.params, jax.random.key(seed), 1, length, chunk_length=CHUNK_LENGTH,
        prefix=start if len(start) else None, **options,
    )  # fmt: skip
    for chunk in chunks:
        drawn = np.asarray(chunk.events)[np.asarray(chunk.mask)]
        write(decoder.decode(drawn))
        file.flush()
        if form is not None:
            tokens.append(drawn)
            if (len(tokens) - 1) * CHUNK_LENGTH > MOST_CHECKED:  # It need not fit in memory.
                form = None
                tokens.clear()
    write(decoder.flush())
    if codec.end is not None:
        file.write("\r\n" if texts and texts[-1].endswith("\r") else "\n")
    if form is not None:
        losses = _Losses(codec, form)
        losses.count(np.concatenate(tokens), "".join(texts))
        losses.report()


def ancestral(
    run: Run, start: np.ndarray, *, options: dict[str, Any], **settings: Any
) -> Callable[[int], Iterator[Drawn]]:
    """Number of a sample -> that one and all after it; arguments as `write_samples`."""
    options = options | {"prefix": start if len(start) else None}
    return lambda first: iterate_samples(run, first=first, options=options, **settings)


def text_records(
    run: Run,
    start: np.ndarray,
    draw: Callable[[int], Iterator[Drawn]],
    form: TextForm | None = None,
) -> Callable[[int], Iterator[Record]]:
    """Samples of text, as the target of a `TextForm` takes them.

    Args:
        run: a trained model of text.
        start: tokens that come before every sample.
        draw: number of a sample -> that one and all after it.
        form: of the file to which they are written: the log tells which are not read back from it.

    Returns:
        Number of a sample -> that one and all after it, as `TextSample`, its nats, number of events
        and what the method gives beside them.
    """
    codec = text_codec(run)

    def records(first: int) -> Iterator[Record]:
        counts: collections.Counter[int] = collections.Counter()
        losses = _Losses(codec, form) if form is not None else None
        for sample in draw(first):
            counts[sample.num_events] += 1
            decoder, tokens = codec.file_decoder(), np.concatenate([start, sample.events])
            text = decoder.decode(tokens) + decoder.flush()
            if losses is not None:
                losses.count(tokens, text)
            numbers = {"nats": sample.nats, "num_events": sample.num_events, **sample.extras}
            yield Record(TextSample(text, numbers), text.encode("utf-8", "surrogateescape"))
        if counts.total() > 1:
            lengths = sampling.statistics_of_counts(counts)
            logging.info(
                "%s%d samples of %d to %d events%s, on average %.1f", "the last " if first else "",
                lengths.num_sequences, lengths.shortest, lengths.longest,
                ", their ends included" if codec.with_end else "", lengths.mean,
            )  # fmt: skip
        if losses is not None:
            losses.report()

    return records


class _Losses:
    """Counts samples that a reader of their file sees otherwise, if at all.

    Args:
        codec: the codec of the run.
        form: of the file.
    """

    def __init__(self, codec: TextCodec, form: TextForm):
        self._codec, self._form = codec, form
        self._total = self._empty = self._cut = self._changed = 0
        self._example = ""

    def count(self, tokens: np.ndarray, text: str) -> None:
        """Looks at a sample."""
        self._total += 1
        if self._codec.end is not None:
            self._empty += not text
            self._cut += not len(tokens) or int(tokens[-1]) != self._codec.end
        if not self._is_read_back(tokens, text):
            self._example = self._example or text
            self._changed += 1

    def _is_read_back(self, tokens: np.ndarray, text: str) -> bool:
        seen = self._form.read(text)
        if seen is None:
            return False
        try:
            again = self._codec.encode(seen)
        except InputError:  # Two symbols may meet in one that nobody knows.
            return False
        return np.array_equal(again, tokens[tokens < self._codec.num_symbols])

    def report(self) -> None:
        """Tells what was counted."""
        if self._changed:
            logging.warning(
                "%d of %d samples are read back from such a file as other symbols, as %.60r: "
                "symbols that meet may spell others",
                self._changed, self._total, self._example,
            )  # fmt: skip
        if self._empty or self._cut:
            logging.info(
                "of %d samples %d are empty, which are left out where they are read, and %d were "
                "cut off before their end, which end there",
                self._total, self._empty, self._cut,
            )  # fmt: skip
