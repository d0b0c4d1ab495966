"""Text: from files to tokens, in passes that hold no text."""

import array
import dataclasses
import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Integer

from grnn_jax.config import SPLITS
from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.codec import Codec, Options
from grnn_jax.data.condition_columns import conditions_by_line
from grnn_jax.data.conditions import (
    CONDITIONS,
    Asked,
    ConditionCodec,
    Values,
    asked,
    fit_conditions,
)
from grnn_jax.data.corpus import Corpus, FileSource, TextSource, iter_lines, text_pieces
from grnn_jax.data.file_kinds import COLUMN_FILES, COLUMN_KINDS, kind_of
from grnn_jax.data.folder_source import FolderSource, folder_of
from grnn_jax.data.format_base import Format
from grnn_jax.data.shakespeare import PlaysSource
from grnn_jax.data.splitting import Fractions, deal
from grnn_jax.data.store import CorpusWriter, Stored, open_stored, store
from grnn_jax.data.text_codec import CODECS, TextCodec, check_codec_options
from grnn_jax.data.text_writer import write_line, write_text
from grnn_jax.data.unseen import Unseen
from grnn_jax.errors import InputError

READING = "as_is", "skip_bad", "max_file_gib"
"""The settings that say how files of text are read."""

_FEW_LINES = 100
"""Lines of a file that are looked at to see what it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextFormat(Format):
    """Text, encoded by one of `CODECS`: documents of a stream, or each line a sequence."""

    needs_data: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        return READING if self.is_stream else ("column", *CONDITIONS, *READING)

    @property
    def codecs(self) -> Mapping[str, type[Codec]]:
        return CODECS

    def load(
        self,
        paths: Mapping[str, str],
        held_out: Fractions,
        settings: Mapping[str, Any],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        codec: Codec | None = None,
        folder: pathlib.Path | None = None,
    ) -> tuple[Stored, Codec]:
        check_codec_options(settings["codec"], settings["max_vocabulary"])
        sources: dict[str, TextSource] = {split: PlaysSource(split) for split in SPLITS}
        if paths:
            sources = {
                split: self._source(
                    path,
                    "data" if split == "train" else f"{split}_data",
                    settings["column"],
                    settings,
                )
                for split, path in paths.items()
            }
        loader = TextLoader(
            sources,
            held_out,
            by_line=not self.is_stream,
            skip_bad=settings["skip_bad"],
            what=asked(settings if codec is None else codec.given),
        )
        if codec is None:
            codec = loader.build_codec(CODECS[settings["codec"]], settings)
            conditions = loader.fit_conditions(type(codec))
            codec = dataclasses.replace(codec, conditions=conditions)
        assert isinstance(codec, TextCodec)
        return loader.load(codec, cache_dir, folder), codec

    def load_file(
        self,
        codec: Codec,
        path: str,
        settings: Mapping[str, Any],
        *,
        argument: str = "data",
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Corpus:
        assert isinstance(codec, TextCodec)
        column = settings["column"] if _has_columns(path) else ""
        source = self._source(path, argument, column, {**settings, **codec.given})
        loader = TextLoader(
            {"train": source},
            Fractions(),
            by_line=not self.is_stream,
            skip_bad=settings["skip_bad"],
            unseen=settings.get("unseen"),
            what=asked(codec.given),
        )
        return loader.load(codec, cache_dir).corpora["train"]

    def _source(
        self, path: str, argument: str, column: str, settings: Mapping[str, Any]
    ) -> TextSource:
        if settings.get("label_from") and os.path.isdir(path):
            return FolderSource(path, argument, settings["as_is"], settings["max_file_gib"])
        return FileSource(
            path,
            argument,
            column,
            by_line=not self.is_stream,
            as_is=settings["as_is"],
            max_gib=settings["max_file_gib"],
        )


def _notation(
    lines: Iterator[tuple[str, int, str]], bad: BadRecords
) -> Iterator[tuple[str, int, str]]:
    """Lines of a notation that ends at its first blank."""
    for name, number, line in lines:
        if blank := re.search(r"\s", line):
            where = f"{name}, line {number}, column {blank.start() + 1}"
            bad.add(
                InputError(
                    f"{where}: a SMILES ends at its first blank, got {line!r:.80}; column=NAME "
                    "reads one column of a .smi, .tsv or .csv file"
                )
            )
            continue
        yield name, number, line


def _has_columns(path: str) -> bool:
    """Whether a file has columns: plain lines of SMILES have none, whatever their name."""
    kind = kind_of(path)
    if kind == "smi" and os.path.isfile(path):
        lines = itertools.islice(iter_lines(FileSource(path), "surrogateescape"), _FEW_LINES)
        return any(len(line.split()) > 1 for _, _, line in lines)
    return kind in COLUMN_KINDS


def _row_word(source: TextSource) -> str:
    """What the lines of a source are called."""
    is_table = isinstance(source, FileSource) and kind_of(source.path) == "parquet"
    return "row" if is_table else "line"


class TextLoader:
    """Reads sources in passes; holds no text.

    Args:
        sources: where the text of each split comes from, "train" among them.
        held_out: the parts of the training source that are held out.
        by_line: whether each line is a sequence; else each document is one, cut anywhere.
        skip_bad: whether lines that cannot be used are left out, with a warning.
        unseen: leaves out sequences with symbols that the codec does not know; None to refuse them.
        what: what is known of each line beside it.
    """

    def __init__(
        self,
        sources: Mapping[str, TextSource],
        held_out: Fractions,
        *,
        by_line: bool,
        skip_bad: bool = False,
        unseen: Unseen | None = None,
        what: Asked | None = None,
    ):
        self._sources, self._unseen = sources, unseen
        self._what = what or Asked()
        self._by_line = by_line
        self._skip_bad = skip_bad
        self._held_out = held_out
        self._splits = any(held_out)

    def _split_of_lines(self, codec: type[TextCodec]) -> Integer[np.ndarray, " S"] | None:
        """For each line of the training source the index of its split; None if all is train."""
        if not self._splits:
            return None
        bad = BadRecords(self._skip_bad)
        total = sum(1 for _ in self._lines(self._sources["train"], codec, bad))
        self._finish(bad)
        return deal(total, self._held_out)

    def _lines(
        self, source: TextSource, codec: type[TextCodec], bad: BadRecords, is_new: bool = False
    ) -> Iterator[tuple[str, int, str]]:
        """The lines of a source, without bad ones."""
        lines = iter_lines(source, codec.decode_errors, bad)
        # Runs of earlier versions may know blanks.
        checked = codec.ends_at_blank and (is_new or self._skip_bad)
        return _notation(lines, bad) if checked else lines

    def _finish(self, bad: BadRecords) -> None:
        """Raises InputError for bad lines; those that are skipped are told in the last pass."""
        if not self._skip_bad:
            bad.finish("lines")

    def build_codec(self, codec: type[TextCodec], options: Options) -> TextCodec:
        """Makes a codec in one pass over what it is to see: all splits, or the training split."""
        if codec.fits_train:
            return codec.fit(self._train_pieces(codec, options), self._by_line, options)
        pieces = itertools.chain.from_iterable(
            self._pieces(source, codec) for source in self._sources.values()
        )
        return codec.fit(pieces, self._by_line, options)

    def fit_conditions(self, codec: type[TextCodec]) -> ConditionCodec | None:
        """Learns what is known of the lines of the training split beside them, in one pass."""
        if not self._what.names:
            return None
        source, bad = self._sources["train"], BadRecords(self._skip_bad)
        split, values = self._split_of_lines(codec), self._values(source)
        lines = enumerate(self._lines(source, codec, bad))
        of_train = (place for i, place in lines if split is None or split[i] == 0)
        train = [values(document, number) for document, number, _ in of_train]
        return fit_conditions(self._what, train)

    def _values(self, source: TextSource) -> Callable[[str, int], Values]:
        """What is known of a line, by its document and its number, beside it."""
        what = self._what
        if not what.names:
            return lambda document, number: ()
        if what.from_folder and not what.columns and isinstance(source, FolderSource | FileSource):
            return lambda document, number: (folder_of(document),)
        got = source.path if isinstance(source, FolderSource | FileSource) else "no file"
        if what.from_folder:
            raise InputError(f"{what.described} needs a folder of text files, got {got}")
        if not isinstance(source, FileSource) or not source.column:
            raise InputError(f"{what.described} needs column=NAME of a {COLUMN_FILES}, got {got}")
        # Rows that cannot be read are left to whoever reads the text, which tells them.
        left = BadRecords(skip=True)
        by_line = conditions_by_line(source.path, what.columns, source.max_gib, left)
        nothing = (None,) * len(what.columns)
        return lambda _, number: (by_line[number] if number < len(by_line) else None) or nothing

    def _pieces(self, source: TextSource, codec: type[TextCodec]) -> Iterator[str]:
        """The text of a source in pieces none of which cuts a symbol, or its lines."""
        bad = BadRecords(self._skip_bad)
        if self._by_line:
            for _, _, line in self._lines(source, codec, bad, is_new=True):
                yield line
        else:
            yield from text_pieces(source, codec, bad)
        self._finish(bad)

    def _train_pieces(self, codec: type[TextCodec], options: Options) -> Iterator[str]:
        """The same of the training split alone."""
        source = self._sources["train"]
        if self._by_line:
            split = self._split_of_lines(codec)
            for i, line in enumerate(self._pieces(source, codec)):
                if split is None or split[i] == 0:
                    yield line
            return

        def pieces() -> Iterator[str]:
            for piece in self._pieces(source, codec):
                # Before the symbols are counted: lowercasing may change their number.
                yield piece.lower() if options["lowercase"] else piece

        if not self._splits:
            yield from pieces()
            return
        left = self._held_out.bounds(sum(len(codec.split(piece)) for piece in pieces()))[0]
        for piece in pieces():
            symbols = codec.split(piece)[:left]
            left -= len(symbols)
            yield "".join(symbols)
            if not left:
                return

    def load(
        self,
        codec: TextCodec,
        cache_dir: str | os.PathLike[str] | None,
        folder: pathlib.Path | None = None,
    ) -> Stored:
        """Encodes all sources, or finds them encoded in `folder` or `cache_dir`."""
        if self._by_line and codec.end is None:
            raise InputError("format 'lines' needs a codec with an end token, as trained on lines")
        like = np.empty(0, codec.dtype)
        count = codec.num_conditions
        stored = open_stored(folder, SPLITS, like, count) if folder else None
        if stored is None:
            key: dict[str, Any] = {
                "sources": {split: source.fingerprint() for split, source in self._sources.items()},
                "codec": codec.to_dict(),
                "format": "lines" if self._by_line else "text",
            }
            if self._by_line:
                key["held_out"] = self._held_out.to_json()
            if self._skip_bad:
                key["skip_bad"] = True
            fill = self._fill_lines if self._by_line else self._fill_text
            stored = store(SPLITS, like, lambda out: fill(codec, out), cache_dir, key, count)
        if not self._by_line and self._splits:
            corpora, whole = dict(stored.corpora), stored.corpora["train"]
            train_end, valid_end = self._held_out.bounds(whole.num_events)
            corpora["train"] = whole.part(0, train_end)
            if self._held_out.valid:
                corpora["valid"] = whole.part(train_end, valid_end)
            if self._held_out.test:
                corpora["test"] = whole.part(valid_end, whole.num_events)
            stored = stored._replace(corpora=corpora)
        return stored

    def _fill_text(self, codec: TextCodec, writers: Mapping[str, CorpusWriter]) -> None:
        bad = BadRecords(self._skip_bad)
        for split, source in self._sources.items():
            write_text(source, codec, writers[split], bad, self._unseen)
        bad.finish("lines")

    def _fill_lines(self, codec: TextCodec, writers: Mapping[str, CorpusWriter]) -> dict[str, int]:
        hashes = {split: array.array("Q") for split in SPLITS}
        bad = BadRecords(self._skip_bad)
        for name, source in self._sources.items():
            split = self._split_of_lines(type(codec)) if name == "train" else None
            values, row = self._values(source), _row_word(source)
            empty = True
            for i, (document, number, line) in enumerate(self._lines(source, type(codec), bad)):
                empty = False
                target = name if split is None else SPLITS[split[i]]
                place, taken = (document, number), len(hashes[target])
                try:
                    if codec.conditions is not None:
                        given = codec.conditions.encode(
                            values(*place), f"{document}, {row} {number}"
                        )
                    known = write_line(codec, place, line, writers[target], self._unseen, taken)
                except InputError as error:
                    bad.add(error)
                    continue
                if not known:
                    continue
                if codec.conditions is not None:
                    writers[target].give(given)
                digest = hashlib.blake2b(line.encode("utf-8", "surrogateescape"), digest_size=8)
                hashes[target].append(int.from_bytes(digest.digest(), "little"))
            self._finish(bad)
            if empty:
                raise InputError(f"{name}: the data has no line that is not empty")
        bad.finish("lines")
        train = np.unique(np.asarray(hashes["train"], np.uint64))
        return {
            split: int(np.isin(np.asarray(hashes[split], np.uint64), train).sum())
            for split in ("valid", "test")
        }
