"""What a file is by its name and by its first lines, before its lines are taken for sequences."""

import csv
import json
import os
import re
from collections.abc import Callable, Sequence

from grnn_jax.errors import InputError

HEAD_CHARACTERS = 1 << 16
"""Characters of the beginning of a file that are looked at."""

_SUFFIXES = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".smi": "smi", ".smiles": "smi", ".ism": "smi",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".jsonlines": "jsonl", ".parquet": "parquet",
    ".fa": "fasta", ".fasta": "fasta", ".faa": "fasta", ".fna": "fasta", ".ffn": "fasta",
    ".frn": "fasta", ".json": "json", ".fastq": "fastq", ".fq": "fastq",
}  # fmt: skip
COLUMN_KINDS = ("csv", "tsv", "smi", "jsonl", "parquet")
"""The kinds of which `column` reads one column."""

COLUMN_FILES = ".csv, .tsv, .smi, .jsonl or .parquet file, gzipped or not"

_BINARY = {
    "PAR1": "a Parquet file; name it .parquet and give column=NAME",
    "PK\x03\x04": "a zip archive (.npz, .xlsx, .docx); export it as text",
    "%PDF-": "a PDF; export it as text",
    "MThd": "a MIDI file, which format=pianoroll reads",
    "SQLite format 3": "a database of SQLite; export a column of it as text",
    "ARROW1": "an Arrow file; write it as .parquet and give column=NAME",
}
_MOST_LINES = 100
_FEWEST_ROWS = 3
_HEADER = re.compile(r"[^\W\d][\w .#()%/-]{0,39}")
_RESIDUES = re.compile(r"[A-Z*.-]+|[acgtun*.-]+")
_ITEM_MARK = re.compile(r"[(\[]?\w{1,3}[.)\]]|[-*+•]|.*:")
_LABEL = re.compile(r"[a-z0-9_.+-]+")


def kind_of(path: str | os.PathLike[str]) -> str:
    """The kind that the name of a file says, whether or not it ends in .gz; "" for all others.

    >>> kind_of("genes.FA.gz"), kind_of("names.txt")
    ('fasta', '')
    """
    name = os.path.basename(os.fspath(path)).lower().removesuffix(".gz")
    return _SUFFIXES.get(os.path.splitext(name)[1], "")


def check_lines(path: str | os.PathLike[str], argument: str, head: str) -> None:
    """Refuses a file whose name or first lines show that its lines are no sequences.

    Args:
        path: the file.
        argument: the argument that named it.
        head: its beginning.

    Raises:
        InputError: says what it is, and what reads it.
    """
    reason = _by_name(kind_of(path), head) or _by_content(head)
    if reason:
        raise InputError(
            f"{argument}: {path} looks like {reason}; as_is=true takes its lines as they are"
        )


def check_characters(path: str | os.PathLike[str], argument: str, head: str) -> None:
    """Refuses text whose lines or characters are not what they seem.

    Args:
        path: the file.
        argument: the argument that named it.
        head: its beginning, read as UTF-8.

    Raises:
        InputError: it is UTF-16 or UTF-32 without a mark, or its lines end as on old Macs.
    """
    nulls = head.count("\0")
    if len(head) > 3 and 3 * nulls > len(head):
        code = ("UTF-32" if 3 * nulls > 2 * len(head) else "UTF-16") + "BL"[head[0] != "\0"] + "E"
        raise InputError(
            f"{argument}: {path} looks like {code} without a mark, expected UTF-8; convert it: "
            f"iconv -f {code} -t UTF-8; as_is=true takes its bytes as they are"
        )
    if "\n" not in head and "\r" in head.rstrip("\r"):
        raise InputError(
            f"{argument}: {path} begins with {head.count(chr(13))} carriage returns and no line "
            "feed, the line ends of old Macs; convert them: tr '\\r' '\\n'; as_is=true takes them "
            "as characters"
        )


def _by_name(kind: str, head: str) -> str | None:
    if kind in ("csv", "tsv"):
        first = next(csv.reader(head.split("\n"), delimiter="\t" if kind == "tsv" else ","), [])
        names = ", ".join(repr(name) for name in first[:20])
        return (
            f"a table; give column=NAME, one of its columns {names:.300}, or if these are no names "
            "the number of one, from 1"
        )
    if kind == "jsonl":
        return f"JSON lines; give column=KEY{_keys(head)}"
    if kind == "parquet":
        return "a Parquet file; give column=NAME"
    if kind == "json":
        return "JSON, not lines; write one object a line (.jsonl) and give column=KEY"
    if kind == "fastq":
        return "FASTQ; convert it to FASTA (.fa), which format=lines reads"
    if kind == "smi":
        lines = _whole_lines(head)
        if any(len(line.split()) > 1 for line in lines):
            return "SMILES with names; give column=1 for what stands before the first blank"
    return None


def _by_content(head: str) -> str | None:
    for magic, what in _BINARY.items():
        if head.startswith(magic):
            return what
    lines = _whole_lines(head)
    if not lines:
        return None
    if all(isinstance(_json(line), dict) for line in lines):
        return f"JSON lines; name it .jsonl and give column=KEY{_keys(head)}"
    if _is_json_document(head, len(lines)):
        return "JSON, not lines; write one object a line (.jsonl) and give column=KEY"
    if _is_fasta(lines):
        return "FASTA; name it .fasta, which format=lines reads, one sequence a record"
    if _is_table(lines, "\t"):
        return (
            "a table, its cells parted by tabs; name it .tsv and give column=NAME, or where it has "
            "no line of names .smi and give column=1"
        )
    if _is_table(lines, ","):
        return "a table, its cells parted by commas; name it .csv and give column=NAME"
    for delimiter, name in ((";", "semicolons"), ("|", "bars")):
        if _is_table(lines, delimiter):
            return f"a table, its cells parted by {name}; write it as .csv and give column=NAME"
    return None


def _whole_lines(head: str) -> list[str]:
    """The first lines that are not empty, without one that the end of the head may have cut."""
    lines = head.split("\n")
    if len(head) >= HEAD_CHARACTERS and len(lines) > 1:
        lines.pop()
    return [line.removesuffix("\r") for line in lines if line.strip()][:_MOST_LINES]


def _json(text: str) -> object:
    """The value of JSON; None where it is none."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_json_document(head: str, num_lines: int) -> bool:
    """Whether one value of JSON begins here, not a line of text in brackets."""
    inner = r"(\"[^\"\n]*\"\s*:|[\[{]|\"[^\"\n]*\",\n)"
    if re.match(r"\s*(\[\s*[\[{]?|\{)\s*\n\s*" + inner, head):
        return True
    if num_lines == 1 and re.match(r"\s*(\[\s*)?\{\s*\"[^\"\n]*\"\s*:", head):
        return True
    value = _json(head)
    nested = isinstance(value, list) and any(isinstance(each, dict | list) for each in value)
    return nested or (value is not None and num_lines > 1)


def _keys(head: str) -> str:
    value = _json(head.split("\n", 1)[0])
    if not isinstance(value, dict):
        return ""
    return f", one of its keys {', '.join(map(repr, list(value)[:20])):.300}"


def _is_fasta(lines: Sequence[str]) -> bool:
    """Headers >NAME, each followed by lines of residues, and nothing else."""
    after_header = False
    for line in lines:
        is_header = line[0] == ">" and line[1:2].strip() != ""
        if is_header == after_header and is_header or not (is_header or _RESIDUES.fullmatch(line)):
            return False
        after_header = is_header
    return lines[0][0] == ">" and len(lines) > 1


def _is_table(lines: Sequence[str], delimiter: str) -> bool:
    """Whether cells, the same number in every line, look like those that programs write.

    Sentences have commas as well, verses and lists have tabs: what people write has a blank after a
    comma, a mark before a tab or blanks in all but one of its columns.
    """
    if len(lines) < _FEWEST_ROWS or any(delimiter not in line for line in lines):
        return False
    try:
        rows = list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error:
        return False
    width = len(rows[0])
    if width < 2 or any(len(row) != width for row in rows):
        return False
    if delimiter != "\t" and any(f"{delimiter} " in line for line in lines):
        return False
    columns = list(zip(*rows, strict=True))
    if not any(columns[0]) or _all(columns[0], _ITEM_MARK.fullmatch):  # Indented, or a list.
        return False
    words = [_all(column, lambda cell: not re.search(r"\s", cell)) for column in columns]
    if sum(words) >= 2 or width > 2 and delimiter == "\t":
        return True
    header, *body = zip(*columns, strict=True)
    named = _all(header, _HEADER.fullmatch) and len(set(header)) == width
    numeric = [_all(column[1:], _is_number) for column in columns]
    if named and (width > 2 or any(numeric)):
        return True
    labels = [
        _all(column, _LABEL.fullmatch) and 2 * len(set(column)) < len(column) for column in columns
    ]
    return bool(body) and delimiter == "\t" and any(labels)


def _all(cells: Sequence[str], test: Callable[[str], object]) -> bool:
    return all(test(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
