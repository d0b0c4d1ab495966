"""A file of sequences as events of a trained run, but for those that it cannot score."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from grnn_jax.data import FORMATS, Corpus, TextCodec, load_file
from grnn_jax.data.unseen import LeftOut, Unseen
from grnn_jax.errors import InputError
from grnn_jax.workdir import Run, file_settings, load_run_data

BLOCK = 1 << 20
"""Events that are looked at at once."""
UNSEEN = ("error", "skip", "rank_first")
"""What is done with sequences that have symbols which training never saw."""


class ReadFile(NamedTuple):
    """A file as events of a run.

    Attributes:
        corpus: its sequences.
        numbers: of each its number in the file, from 0.
        left_out: the sequences with symbols that training never saw, by their number.
    """

    corpus: Corpus
    numbers: Integer[np.ndarray, " S"]
    left_out: Mapping[int, LeftOut]


def read_file(
    run: Run,
    path: str,
    folder: str | Path,
    *,
    each_line: bool = False,
    unseen: str = "error",
    also: Mapping[int, LeftOut] | None = None,
    argument: str = "data",
) -> ReadFile:
    """Reads a file as events of a run.

    Args:
        run: a trained model.
        path: the file, in the format of the run.
        folder: where the events lie while they are needed, memory-mapped.
        each_line: of a run on text, every line with its line end is a sequence of its own; else
            the whole file is one sequence.
        unseen: one of `UNSEEN`. With "error" words outside a vocabulary are what the codec has for
            them all; with the others they are symbols that training never saw, too.
        also: sequences that are left out whatever they are, by their number.
        argument: the flag that named the file, for messages.

    Returns:
        The sequences.

    Raises:
        InputError: the file cannot be used, or nothing of it is left.
    """
    if unseen not in UNSEEN:
        raise InputError(f"unseen must be one of {', '.join(UNSEEN)}, got {unseen!r}")
    config = run.config
    is_text = isinstance(run.codec, TextCodec)
    if each_line and not (is_text and FORMATS[config.format].is_stream):
        raise InputError(f"each_line is for runs on format=text, got format={config.format}")
    collected = Unseen(each_line=each_line, also=also, unknown=unseen != "error")
    corpus = load_file(
        path,
        config.format,
        run.codec,
        tempfile.mkdtemp(dir=folder),  # Where the tokens of no other call can be found.
        argument=argument,
        unseen=collected,
        **file_settings(config),
    )
    left_out = collected.sequences
    whole_text = corpus.is_stream and not each_line
    if left_out and (whole_text or unseen == "error" or corpus.num_events == 0):
        raise InputError(_unseen_message(argument, path, collected, whole_text))
    if corpus.num_events == 0:
        raise InputError(f"{argument}: {path} has nothing to score")
    if each_line:
        assert isinstance(run.codec, TextCodec)
        corpus = _lines_of_text(run.codec, corpus)
    total = corpus.num_sequences + len(left_out)
    numbers = np.delete(np.arange(total), sorted(left_out))
    return ReadFile(corpus, numbers, left_out)


def read_split(
    run: Run, workdir: str | os.PathLike[str], split: str, *, each_line: bool = False
) -> ReadFile:
    """A split of the data of a run.

    Args:
        run: a trained model.
        workdir: its directory.
        split: "train", "valid" or "test".
        each_line: see `read_file`.

    Returns:
        The sequences.

    Raises:
        InputError: there is no such split, or the data have changed.
    """
    corpus = getattr(load_run_data(run.config, Path(workdir), run.codec), split)
    if corpus is None:
        raise InputError(f"split={split}: the run in {workdir} holds out nothing for it")
    if each_line:
        assert isinstance(run.codec, TextCodec)
        corpus = _lines_of_text(run.codec, corpus)
    return ReadFile(corpus, np.arange(corpus.num_sequences), {})


def _unseen_message(argument: str, path: str, unseen: Unseen, whole_text: bool) -> str:
    """Why a file is not scored, with all symbols that training never saw."""
    first = f" ({unseen.first})" if unseen.first else ""
    count = len(unseen.sequences)
    where = f"{count} sequence{'s' if count > 1 else ''} of {path}"
    advice = "unseen=skip leaves them out, unseen=rank_first lists them before the others"
    if whole_text:
        where, advice = path, "unseen=skip with each_line=true leaves out lines"
    return (
        f"{argument}: {where} cannot be scored, for symbols that training never saw: "
        f"{unseen.listing()}{first}; {advice}"
    )


def _lines_of_text(codec: TextCodec, corpus: Corpus) -> Corpus:
    """The same events with every line a sequence, which stays whole."""
    newline = int(codec.encode("\n", "each_line")[0])
    starts = [
        start + 1 + np.flatnonzero(np.asarray(corpus.events[start : start + BLOCK]) == newline)
        for start in range(0, corpus.num_events, BLOCK)
    ]
    offsets = np.union1d(corpus.offsets, np.concatenate(starts)).astype(np.int64)
    return Corpus(corpus.events, offsets)
