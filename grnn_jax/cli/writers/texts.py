"""Samples of text as files: as they are, a line each, or a column of a table."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from grnn_jax.cli.targets import Target, parquet_file, text_file
from grnn_jax.cli.writers.tables import csv_row
from grnn_jax.data import TextCodec
from grnn_jax.data.file_kinds import kind_of
from grnn_jax.errors import InputError

_BINARY = (
    ".7z", ".avro", ".bz2", ".docx", ".feather", ".gif", ".gz", ".h5", ".hdf5", ".jpeg", ".jpg",
    ".mat", ".mid", ".midi", ".mp3", ".npy", ".npz", ".parquet", ".pdf", ".pickle", ".pkl", ".png",
    ".pt", ".safetensors", ".tar", ".tgz", ".wav", ".xls", ".xlsx", ".xz", ".zip", ".zst",
)  # fmt: skip
"""What a file of text is not called."""

_MARK = "\ufeff"
_OF_LINES = (
    "samples of lines are written as tables (.csv, .tsv, .jsonl, .parquet), as FASTA (.fa, .fasta) "
    "or as plain lines (.txt, .smi or no suffix)"
)


class TextSample(NamedTuple):
    """A sample of text.

    Attributes:
        text: its text; bytes that are no UTF-8 are lone surrogates ("surrogateescape").
        numbers: what is known of it, by name.
    """

    text: str
    numbers: Mapping[str, float]


class TextForm(NamedTuple):
    """What a file of samples of text looks like.

    Attributes:
        to_text: (number of the sample, sample) -> what the file grows by.
        read: a text -> what is read back of it, None where that is several lines or none at all.
        header: what the file begins with.
        column: of a Parquet file, its column.
        is_plain: whether a single sample is its text, which can be written while it is drawn.
    """

    to_text: Callable[[int, TextSample], str]
    read: Callable[[str], str | None]
    header: str = ""
    column: str = ""
    is_plain: bool = False

    def target(self, path: str) -> Target:
        """Where samples go.

        Args:
            path: the file; empty where they are shown.

        Returns:
            The target, of `TextSample`.
        """
        if self.column:
            return parquet_file(Path(path), self.header, self.to_text, {self.column: "string"})
        return text_file(Path(path), self.header, self.to_text)


def text_form(
    codec: TextCodec, path: str, *, column: str = "", as_is: bool = False, log_probs: bool = False
) -> TextForm:
    """How samples of text are written to a file of some name.

    Args:
        codec: the codec of the run; with an end its samples are lines.
        path: the file; empty where they are shown.
        column: what the column of a table is called; empty: text.
        as_is: whether lines are plain in any file that is not binary.
        log_probs: whether each is a JSON object with its nats and number of events.

    Raises:
        InputError: such samples are not written to such a file.
    """
    kind, suffix, column = kind_of(path), Path(path).suffix.lower(), column or "text"
    is_table = kind in ("csv", "tsv", "jsonl", "parquet") and suffix != ".gz"
    by_line = codec.end is not None
    if log_probs:
        if suffix in _BINARY or kind in ("csv", "tsv", "parquet"):
            raise InputError(f"--output: --log_probs writes JSON lines (.jsonl), got {path}")
        return TextForm(_json_object, _readable)
    if by_line and is_table and not as_is:
        return _table(kind, column)
    if suffix in _BINARY:
        wanted = _OF_LINES if by_line else "samples of text are written as plain text (.txt)"
        raise InputError(f"--output: {wanted}, got {path}")
    if not by_line:
        return TextForm(_document(codec), lambda text: text, is_plain=True)
    if as_is or kind in ("", "smi"):
        return TextForm(_line(codec), lambda text: None if "\n" in text else text, is_plain=True)
    if kind == "fasta":
        return TextForm(_record, _residues)
    raise InputError(f"--output: {_OF_LINES}, got {path}")


def marked(codec: TextCodec, text: str) -> str:
    """The beginning of a file, where a byte order mark of the text would be taken for the file's.

    Args:
        codec: the codec of the run.
        text: what the file is to begin with.

    Returns:
        The text, with a mark before its own one.
    """
    is_left_out = codec.decode_errors == "strict" and text.startswith(_MARK)
    return _MARK + text if is_left_out else text


def _document(codec: TextCodec) -> Callable[[int, TextSample], str]:
    """Samples of a text, parted by empty lines."""
    return lambda number, one: "\n\n" + one.text if number else marked(codec, one.text)


def _line(codec: TextCodec) -> Callable[[int, TextSample], str]:
    """A line a sample; of one that ends in a carriage return only the last one is left out."""

    def to_text(number: int, one: TextSample) -> str:
        text = one.text if number else marked(codec, one.text)
        return text + ("\r\n" if text.endswith("\r") else "\n")

    return to_text


def _table(kind: str, column: str) -> TextForm:
    if kind == "jsonl":
        return TextForm(lambda _, one: _json({column: _shown(one.text)}), _readable)

    def row(text: str) -> str:
        return csv_row([text], "\t" if kind == "tsv" else ",")

    return TextForm(
        lambda _, one: row(_shown(one.text)), _readable, row(column), column * (kind == "parquet")
    )


def _json_object(number: int, one: TextSample) -> str:
    del number
    return _json({"text": _shown(one.text), **one.numbers})


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _shown(text: str) -> str:
    """Text without bytes that are no UTF-8, which neither JSON nor a table holds."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _readable(text: str) -> str | None:
    """What is read back of a cell."""
    return None if "\n" in text or text.endswith("\r") else _shown(text)


def _record(number: int, one: TextSample) -> str:
    """A record of FASTA, which without a sequence would be none."""
    return f">sample_{number}\n{one.text}\n" if one.text else ""


def _residues(text: str) -> str | None:
    return None if text[:1] in (">", ";") and text else "".join(text.split())
