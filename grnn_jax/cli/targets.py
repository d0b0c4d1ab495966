"""What samples are written to, one after the other: a file, a file a sample, arrays, a table."""

import io
import math
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import numpy as np
from absl import logging

from grnn_jax.errors import InputError

BLOCK_BYTES = 1 << 20
"""Bytes of a file that are looked at side by side."""
ROW_GROUP_BYTES = 1 << 23
"""Bytes of CSV in a row group of a Parquet file."""


class Target(NamedTuple):
    """Where samples go, none of which needs to be kept after it was written.

    Files that grow are cut back to what was complete when a request goes on; a file of one sample
    is written again if it was not.

    Attributes:
        path: of the whole; what is noted of an unfinished request lies beside it.
        write: (number, sample) -> what each of `files` grows by.
        files: files that grow.
        header: what the first of them begins with.
        folder: made where it does not exist.
        is_scratch: whether `files` are of no use after `finish`.
        finish: makes the result of complete `files`; may be called again.
        picture: draws the first samples.
    """

    path: Path
    write: Callable[[int, Any], Sequence[bytes]]
    files: tuple[Path, ...] = ()
    header: bytes = b""
    folder: Path | None = None
    is_scratch: bool = False
    finish: Callable[[], None] = lambda: None
    picture: Callable[[list[Any]], None] | None = None


def standard_output() -> TextIO:
    """Standard output in UTF-8, whatever the terminal says; a file or a pipe takes any bytes."""
    assert isinstance(sys.stdout, io.TextIOWrapper)
    errors = "strict" if sys.stdout.isatty() else "surrogateescape"
    sys.stdout.reconfigure(encoding="utf-8", errors=errors)
    return sys.stdout


def beside(path: Path, suffix: str) -> Path:
    """A file of the same name with something appended."""
    return path.with_name(path.name + suffix)


def _plain(number: int, text: str) -> str:
    del number
    return text


def text_file(path: Path, header: str = "", to_text: Callable[[int, Any], str] = _plain) -> Target:
    """A file of text in UTF-8, where lone surrogates are bytes that are none.

    Args:
        path: the file.
        header: what it begins with.
        to_text: (number, sample) -> text; samples are texts where it is left out.
    """
    return Target(
        path,
        lambda number, sample: (to_text(number, sample).encode("utf-8", "surrogateescape"),),
        files=(path,),
        header=header.encode(),
    )


def numbered_files(
    folder: Path, suffix: str, count: int, write_one: Callable[[Path, Any], object]
) -> Target:
    """A file a sample, whose alphabetical order is that of the samples.

    Args:
        folder: made where it does not exist.
        suffix: of the files, without a dot.
        count: number of samples, which decides on the digits of the names.
        write_one: writes a sample to a file.
    """
    digits = len(str(max(count - 1, 0)))

    def name(number: int) -> str:
        return f"sample_{number:0{digits}d}.{suffix}"

    def warn_of_others() -> None:
        matches = (re.fullmatch(rf"sample_(\d+)\.{suffix}", each.name) for each in folder.iterdir())
        numbers = ((match.string, int(match[1])) for match in matches if match)
        others = sum(each != name(number) or number >= count for each, number in numbers)
        if others:
            logging.warning(
                "%s also holds %d files of train.py or an earlier request", folder, others
            )

    def write(number: int, sample: Any) -> tuple[bytes, ...]:
        if number == 0:
            warn_of_others()
        write_one(folder / name(number), sample)
        return ()

    return Target(folder / "samples", write, folder=folder)


def json_list_file(path: Path, to_json: Callable[[Any], str]) -> Target:
    """A file that is a JSON list, put together when all of its items are on disk.

    Args:
        path: the file.
        to_json: a sample as JSON, without a line break.
    """
    items = beside(path, ".items")

    def finish() -> None:
        temporary = beside(path, ".tmp")
        with open(items, "rb") as file, open(temporary, "wb") as whole:
            whole.write(b"[\n")
            for block in read_blocks(file):
                whole.write(block)
            whole.write(b"\n]\n")
        os.replace(temporary, path)

    def to_text(number: int, sample: Any) -> str:
        return (",\n" if number else "") + to_json(sample)

    return text_file(items, "", to_text)._replace(path=path, is_scratch=True, finish=finish)


def with_files_beside(whole: Target, files: Target, folder: Path) -> Target:
    """A folder of one file of all samples, and a file of each beside it.

    Args:
        whole: the target of the one file.
        files: of the others, one a sample.
        folder: where both are.
    """

    def write(number: int, sample: Any) -> Sequence[bytes]:
        files.write(number, sample)
        return whole.write(number, sample)

    return whole._replace(path=files.path, write=write, folder=folder)


def array_file(
    path: Path,
    dtype: np.typing.DTypeLike,
    shape: tuple[int | None, ...],
    to_array: Callable[[Any], np.ndarray],
) -> Target:
    """An .npz with an array samples [N, …], put together when all of its rows are on disk.

    Args:
        path: the file.
        dtype: of the array.
        shape: of a sample. Where its first axis is None, samples differ in length: zeros follow
            the end of one, and the file has lengths [N] too.
        to_array: a sample as an array.
    """
    rows, dtype = beside(path, ".rows"), np.dtype(dtype)
    lengths = beside(path, ".lengths") if shape[0] is None else None
    # Of a sample, or where samples differ in length of each of its steps.
    num_bytes = math.prod(size for size in shape if size is not None) * dtype.itemsize

    def write(number: int, sample: Any) -> tuple[bytes, ...]:
        del number
        array = np.asarray(to_array(sample), dtype)
        piece = array.tobytes()
        return (piece,) if lengths is None else (piece, np.int64(len(array)).tobytes())

    def finish() -> None:
        temporary = beside(path, ".tmp")
        with zipfile.ZipFile(temporary, "w") as archive:
            if lengths is None:
                whole = (rows.stat().st_size // num_bytes, *shape)
                _add_array(archive, "samples", dtype, whole, _pieces(rows))
            else:
                count = lengths.stat().st_size // 8
                longest = max((int(part.max()) for part in _numbers(lengths)), default=0)
                padded = _padded(rows, lengths, longest, num_bytes)
                _add_array(archive, "samples", dtype, (count, longest, *shape[1:]), padded)
                _add_array(archive, "lengths", np.dtype(np.int64), (count,), _pieces(lengths))
        os.replace(temporary, path)

    files = (rows,) if lengths is None else (rows, lengths)
    return Target(path, write, files=files, is_scratch=True, finish=finish)


def _add_array(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype,
    shape: tuple[int | None, ...],
    pieces: Iterable[bytes],
) -> None:
    """Adds an array as `numpy.savez_compressed` does, piece by piece."""
    entry = zipfile.ZipInfo(f"{name}.npy")  # Of a fixed date: equal arrays are equal files.
    entry.compress_type = zipfile.ZIP_DEFLATED
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    with archive.open(entry, "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for piece in pieces:
            member.write(piece)


def read_blocks(file: BinaryIO) -> Iterator[bytes]:
    """What is left of a file, in blocks."""
    while block := file.read(BLOCK_BYTES):
        yield block


def _pieces(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from read_blocks(file)


def _numbers(path: Path) -> Iterator[np.ndarray]:
    return (np.frombuffer(block, np.int64) for block in _pieces(path))


def _padded(rows: Path, lengths: Path, longest: int, step_bytes: int) -> Iterator[bytes]:
    """The samples in `rows`, each with zeros up to the longest."""
    with open(rows, "rb") as file:
        for part in _numbers(lengths):
            for length in part.tolist():
                yield file.read(length * step_bytes).ljust(longest * step_bytes, b"\0")


def parquet_file(
    path: Path, header: str, to_text: Callable[[int, Any], str], types: Mapping[str, str]
) -> Target:
    """A Parquet file, made of a CSV file when that is complete.

    Args:
        path: the file.
        header: the line with the names of the columns.
        to_text: (number, sample) -> its lines.
        types: name of a column -> Arrow's name of its type.

    Raises:
        InputError: pyarrow is missing.
    """
    try:
        import pyarrow
        from pyarrow import csv, parquet
    except ImportError as error:
        raise InputError("--output: a .parquet file needs pyarrow; pip install pyarrow") from error
    table = beside(path, ".csv")

    def finish() -> None:
        parse = csv.ParseOptions(newlines_in_values=True)
        known = {name: pyarrow.type_for_alias(alias) for name, alias in types.items()}
        convert = csv.ConvertOptions(column_types=known)
        read = csv.ReadOptions(block_size=ROW_GROUP_BYTES)
        temporary = beside(path, ".tmp")
        with (
            csv.open_csv(
                table, read_options=read, parse_options=parse, convert_options=convert
            ) as reader,
            parquet.ParquetWriter(temporary, reader.schema) as writer,
        ):
            for batch in reader:
                writer.write_batch(batch)
        os.replace(temporary, path)

    return text_file(table, header, to_text)._replace(path=path, is_scratch=True, finish=finish)
