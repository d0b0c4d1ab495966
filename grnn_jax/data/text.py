"""Text: from files to tokens, in passes that hold no text."""

import array
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Integer

from grnn_jax.config import SPLITS
from grnn_jax.data.corpus import TextSource, iter_lines, text_pieces
from grnn_jax.data.smiles import SmilesCodec
from grnn_jax.data.splitting import Fractions, deal
from grnn_jax.data.store import CorpusWriter, Stored, open_stored, store, write_line, write_text
from grnn_jax.data.text_codec import CharCodec, TextCodec, WordCodec, build_codec, split_words
from grnn_jax.errors import InputError


class TextLoader:
    """Reads sources in passes; holds no text."""

    def __init__(self, sources: Mapping[str, TextSource], format: str, held_out: Fractions):
        self._sources = sources
        self._format = format
        self._held_out = held_out
        self._splits = any(held_out)

    def _split_of_lines(self, errors: str) -> Integer[np.ndarray, " S"] | None:
        """For each line of the training source the index of its split; None if all is train."""
        if not self._splits:
            return None
        total = sum(1 for _ in iter_lines(self._sources["train"], errors))
        return deal(total, self._held_out)

    def build_codec(self, name: str, max_vocabulary: int, lowercase: bool) -> TextCodec:
        """Builds the codec in one pass over all splits (chars, smiles) or over train (words)."""
        end = self._format == "lines"
        if name == "words":
            words = self._train_words(lowercase)
            return WordCodec.from_tokens(words, max_vocabulary, end=end, lowercase=lowercase)
        if name == "bytes":
            return build_codec(name, (), end=end, lowercase=lowercase)
        whole = SmilesCodec() if name == "smiles" else CharCodec()
        pieces = itertools.chain.from_iterable(
            (line for _, _, line in iter_lines(source)) if end else text_pieces(source, whole)
            for source in self._sources.values()
        )
        if name == "smiles":
            return SmilesCodec.from_pieces(pieces, end=end, lowercase=lowercase)
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

        stop = self._held_out.bounds(sum(1 for _ in words()))[0] if self._splits else None
        yield from itertools.islice(words(), stop)

    def load(
        self,
        codec: TextCodec,
        cache_dir: str | os.PathLike[str] | None,
        folder: pathlib.Path | None = None,
    ) -> Stored:
        """Encodes all sources, or finds them encoded in `folder` or `cache_dir`."""
        if self._format == "lines" and codec.end is None:
            raise InputError("format 'lines' needs a codec with an end token, as trained on lines")
        like = np.empty(0, codec.dtype)
        stored = open_stored(folder, SPLITS, like) if folder else None
        if stored is None:
            key = {
                "sources": {split: source.fingerprint() for split, source in self._sources.items()},
                "codec": codec.to_dict(),
                "format": self._format,
            }
            if self._format == "lines":
                key["held_out"] = self._held_out.to_json()
            fill = self._fill_lines if self._format == "lines" else self._fill_text
            stored = store(SPLITS, like, lambda out: fill(codec, out), cache_dir, key)
        if self._format == "text" and self._splits:
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
        for split, source in self._sources.items():
            write_text(source, codec, writers[split])

    def _fill_lines(self, codec: TextCodec, writers: Mapping[str, CorpusWriter]) -> dict[str, int]:
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
