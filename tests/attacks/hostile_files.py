"""Reads damaged files of every format, and compares what was read with other readers."""

import csv
import gzip
import io
import json
import random
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from attacks.mutate import mutate
from attacks.processes import WrongResultError
from attacks.seeds import Seed
from grnn_jax.data.corpus import Corpus, event_arrays
from grnn_jax.data.formats import load_splits

TEXTS = (".txt", ".csv", ".tsv", ".smi", ".jsonl", ".fasta", ".json", ".ndjson")


def cases(seeds: list[Seed], folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Damaged files without end, the formats in turn.

    Args:
        seeds: good files.
        folder: where the damaged ones are written.
        seed: of the damage.

    Yields:
        JSON for `read`.
    """
    rng = random.Random(seed)
    number = 0
    while True:
        for good in seeds:
            number += 1
            path = folder / f"{number}-{good.path.name}"
            data = mutate(good.path.read_bytes(), rng, text=good.path.suffix in TEXTS)
            if good.path.suffix == ".gz" and rng.random() < 0.5:  # Damage inside a whole gzip.
                inside = mutate(gzip.decompress(good.path.read_bytes()), rng, text=True)
                data = gzip.compress(inside, 1)
            path.write_bytes(data)
            yield {
                "path": str(path), "good": str(good.path), "format": good.format,
                "settings": good.settings,
            }  # fmt: skip


def read(case: dict[str, Any]) -> int:
    """Reads a file as train.py does.

    Args:
        case: the file and its settings.

    Returns:
        How many events it has.

    Raises:
        InputError: it was refused.
        WrongResultError: it was read as what it is not.
    """
    path = Path(case["path"])
    settings = case["settings"]
    held_out = {"valid_fraction": 0, "test_fraction": 0}
    splits = load_splits(data=str(path), format=case["format"], **held_out, **settings)
    corpus = splits.train
    _check_corpus(corpus)
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = _unzipped(raw)
    if path.suffix == ".npz":
        _check_zip(raw)
    if case["format"] == "text" and settings.get("codec", "chars") == "chars":
        _agree(splits.codec.decode(corpus.events), _decoded(raw), "text")
    if case["format"] == "series" and path.suffix == ".npy":
        expected = np.load(io.BytesIO(raw), allow_pickle=False)
        _agree(np.asarray(corpus.events).ravel(), expected.ravel().astype(np.float32), "array")
    if case["format"] == "series" and path.suffix == ".csv":
        _check_series(corpus, raw)
    if path.suffix == ".json" and case["format"] == "voices":
        pieces = json.loads(raw)["train"]
        _agree(corpus.num_events, sum(len(piece) for piece in pieces), "frames")
    path.unlink()  # What is well is not kept.
    return corpus.num_events


def _check_corpus(corpus: Corpus) -> None:
    """What every corpus promises."""
    offsets = np.asarray(corpus.offsets)
    if offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != corpus.num_events:
        raise WrongResultError(f"offsets {offsets.tolist()[:20]} for {corpus.num_events} events")
    for name, leaf in event_arrays(corpus.events):
        if not np.isfinite(np.asarray(leaf, np.float64)).all():
            raise WrongResultError(f"events {name!r} are not finite")


def _agree(ours: Any, theirs: Any, what: str) -> None:
    if not np.array_equal(ours, theirs):
        raise WrongResultError(
            f"{what}: {str(ours)[:300]!r} was read, {str(theirs)[:300]!r} stands there"
        )


def _unzipped(raw: bytes) -> bytes:
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise WrongResultError(f"a damaged gzip was read: {error}") from error


def _check_zip(raw: bytes) -> None:
    """Members that are not whole must not be read; the one that is damaged may be another."""
    try:
        damaged = zipfile.ZipFile(io.BytesIO(raw)).testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError) as error:
        raise WrongResultError(f"a damaged zip was read: {error}") from error
    if damaged in ("x.npy", "train.npy"):
        raise WrongResultError(f"{damaged} was read, and is damaged")


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongResultError(f"what is no UTF-8 was read: {error}") from error


def _check_series(corpus: Corpus, raw: bytes) -> None:
    """The values of a table, read by another reader, in the order of its rows by series."""
    rows = list(csv.DictReader(io.StringIO(_decoded(raw), newline="")))
    if rows and {"store", "x", "y"} == set(rows[0]):
        series: dict[str, list[list[float]]] = {}
        try:
            for row in rows:
                series.setdefault(row["store"], []).append([float(row["x"]), float(row["y"])])
        except (ValueError, TypeError) as error:
            raise WrongResultError(f"a table with {error} was read") from error
        expected = np.concatenate([np.array(each, np.float32) for each in series.values()])
        _agree(np.asarray(corpus.events), expected, "table")
