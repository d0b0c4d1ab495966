"""Drawings in JSON: strokes of points, rows of stroke-3, and Quick Draw's coordinates."""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from grnn_jax.config import SPLITS
from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.conditions import Values, of_one_row
from grnn_jax.data.declared import MAX_FILE_GIB, open_expanded
from grnn_jax.data.file_kinds import kind_of
from grnn_jax.data.sequences import Sequences
from grnn_jax.errors import InputError

_BYTES_PER_BYTE = 16
"""The objects of JSON take so much more, or about, than their text."""

_KEY = "drawing"
"""The key of Quick Draw's records."""


def read_drawings(
    path: str,
    argument: str,
    as_is: bool,
    bad: BadRecords,
    max_gib: float = MAX_FILE_GIB,
    conditions: tuple[str, ...] = (),
) -> tuple[dict[str, Sequences], Callable[[Any, str], Float[np.ndarray, "T C"]]]:
    """Reads drawings, which are to become rows (Δx, Δy, lifted).

    JSON is a list of drawings, or an object with lists train, valid and test of them. A drawing is
    a list of strokes, or of rows [Δx, Δy, lifted]; or a record of Quick Draw, an object with the
    strokes under "drawing". A stroke is a list of points [x, y], or [[x, …], [y, …]], with times
    as a third list or without, as in Quick Draw. Where all strokes of a file have two points
    nothing tells these two apart.

    In .ndjson and .jsonl each line is one drawing.

    Args:
        path: the file, gzipped or not.
        argument: the argument that named it, for messages.
        as_is: whether strokes that may be either are lists of points; else they are refused.
        bad: is told which lines are no JSON, where each is a drawing.
        max_gib: the GiB that the file may expand to.
        conditions: keys of the records of Quick Draw.

    Returns:
        The drawings by split, or under "", and what makes rows of a drawing and its name, or
        raises InputError.

    Raises:
        InputError: the file cannot be read, or its strokes have no one layout.
    """
    by_line = kind_of(path) == "jsonl"
    try:
        with open_expanded(path, max_gib, _BYTES_PER_BYTE) as file:
            values = dict(_lines(file, path, bad)) if by_line else json.load(file)
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        hint = ""
        if not by_line and "Extra data" in str(error):
            hint = "; where each line is a drawing, as in Quick Draw, name it .ndjson"
        raise InputError(
            f"{argument}: {path} is neither .npz nor readable JSON: {error}{hint}"
        ) from error
    if by_line:
        drawings = {"": {f"{path}, line {line}": value for line, value in values.items()}}
    else:
        drawings = {
            split: {f"{label} drawing {i}": value for i, value in enumerate(listed)}
            for split, label, listed in _splits(path, argument, values)
        }
    every = {name: value for split in drawings.values() for name, value in split.items()}
    is_coordinates = _is_coordinates(path, argument, every, as_is)
    read = {
        split: Sequences(list(named), list(named.values()), None, _beside(named, conditions))
        for split, named in drawings.items()
    }
    return read, lambda drawing, name: _rows(drawing, name, is_coordinates)


def _beside(drawings: dict[str, Any], keys: tuple[str, ...]) -> list[Values] | None:
    """What records say of their drawings beside them; None where nothing is asked for."""
    if not keys:
        return None
    found: list[Values] = []
    for name, record in drawings.items():
        if not isinstance(record, dict):
            raise InputError(f"{name}: expected an object with the keys {', '.join(keys)}")
        found.append(tuple(of_one_row(record.get(key), f"{name}, key {key!r}") for key in keys))
    return found


def _lines(file: Iterable[bytes], path: str, bad: BadRecords) -> Iterator[tuple[int, Any]]:
    """The numbers and the values of lines, without empty and bad ones."""
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            with bad.record():
                raise InputError(f"{path}, line {number}: not valid JSON: {error}") from error
        else:
            yield number, value


def _splits(path: str, argument: str, values: Any) -> Iterator[tuple[str, str, list[Any]]]:
    """Name, label and drawings of each split of JSON."""
    drawings_of = {"": values}
    if isinstance(values, dict):
        drawings_of = {name: values[name] for name in SPLITS if name in values}
        if "train" not in drawings_of:
            raise InputError(
                f"{argument}: {path}: expected a list of drawings, or an object with lists train, "
                "valid and test"
            )
    for split, drawings in drawings_of.items():
        label = f"{path}, {split}" if split else path
        if not isinstance(drawings, list):
            raise InputError(f"{label}: expected a list of drawings, got {type(drawings).__name__}")
        yield split, label, drawings


def _is_coordinates(path: str, argument: str, drawings: dict[str, Any], as_is: bool) -> bool:
    """Whether strokes are [[x, …], [y, …]], and not lists of points: one layout for a file."""
    points = coordinates = either = ""
    for name, drawing in drawings.items():
        if not isinstance(drawing, list):  # A record of Quick Draw says what it is.
            continue
        for index, stroke in enumerate(drawing):
            widths = [len(row) if isinstance(row, list) else 0 for row in _list(stroke)]
            where = f"{name}, stroke {index}"
            may_be_coordinates = len(widths) in (2, 3) and widths[0] and len(set(widths)) == 1
            if not widths or not any(widths):
                continue  # A row of stroke-3, or nothing.
            if set(widths) == {2}:
                if len(widths) == 2:
                    either = either or where
                elif len(widths) != 3:
                    points = points or where
            elif may_be_coordinates:
                coordinates = coordinates or where
    if points and coordinates:
        raise InputError(
            f"{argument}: {points} is a list of points [x, y], {coordinates} is [[x, …], [y, …]]; "
            "give every stroke the same layout"
        )
    # Three lists of two numbers are more likely three points than two with their times.
    if either and not (points or coordinates or as_is or _has_three_points(drawings)):
        raise InputError(
            f"{argument}: {path}: all strokes are two lists of two numbers, which may be two "
            "points [x, y] or [[x, x], [y, y]] as in Quick Draw; as_is=true takes them as points; "
            'those of Quick Draw are read from .ndjson, a line {"drawing": …} each'
        )
    return bool(coordinates)


def _has_three_points(drawings: dict[str, Any]) -> bool:
    return any(
        len(stroke) == 3 and all(isinstance(row, list) and len(row) == 2 for row in stroke)
        for drawing in drawings.values()
        if isinstance(drawing, list)
        for stroke in drawing
        if isinstance(stroke, list)
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _rows(drawing: Any, name: str, is_coordinates: bool) -> Float[np.ndarray, "T C"]:
    """The rows of a drawing of any kind."""
    if isinstance(drawing, dict):
        if _KEY not in drawing:
            raise InputError(
                f"{name}: expected an object with the strokes under {_KEY!r}; its keys are "
                f"{', '.join(map(repr, drawing)) or 'none'}"
            )
        drawing, is_coordinates = drawing[_KEY], True
    if not isinstance(drawing, list) or not all(isinstance(part, list) for part in drawing):
        raise InputError(f"{name}: expected a list of strokes or of rows [Δx, Δy, lifted]")
    if not drawing:
        return np.empty((0, 3))
    if not any(isinstance(part, list) for part in drawing[0]):
        return _array(drawing, 3, name)
    strokes = [
        _from_coordinates(stroke, where) if is_coordinates else _array(stroke, 2, where)
        for stroke, where in ((s, f"{name}, stroke {i}") for i, s in enumerate(drawing))
    ]
    points = np.concatenate(strokes)
    lifted = np.zeros(len(points))
    lifted[np.cumsum([len(stroke) for stroke in strokes]) - 1] = 1
    return np.column_stack([np.diff(points, axis=0, prepend=np.zeros((1, 2))), lifted])


def _from_coordinates(stroke: Any, name: str) -> Float[np.ndarray, "T 2"]:
    """The points of a stroke of Quick Draw; its times are not modelled."""
    array = _numbers(stroke)
    if array.ndim != 2 or len(array) not in (2, 3) or not array.size:
        raise InputError(
            f"{name}: expected [[x, …], [y, …]], with times as a third list or without, all of "
            f"them numbers and equally many, got {stroke!r:.80}"
        )
    return array[:2].T


def _array(values: Any, width: int, name: str) -> Float[np.ndarray, "T C"]:
    """A list of at least one list of `width` numbers."""
    array = _numbers(values)
    if array.ndim != 2 or array.shape[1] != width:
        kind, what = ("point", "[x, y]") if width == 2 else ("row", "[Δx, Δy, lifted]")
        odd = [index for index, row in enumerate(values) if not _is_row(row, width)]
        if odd:
            name, values = f"{name}, {kind} {odd[0]}", values[odd[0]]
        else:
            what = f"a list of {kind}s {what}"
        raise InputError(f"{name}: expected {what}, all of them numbers, got {values!r:.80}")
    return array


def _numbers(values: Any) -> np.ndarray:
    """An array of the numbers of JSON; one without elements where there is anything else."""
    try:
        array = np.array(values)
    except (TypeError, ValueError):
        return np.empty(0)
    # Text that spells a number is no number; an integer of many digits is an object.
    return array.astype(np.float64) if array.dtype.kind in "iuf" else np.empty(0)


def _is_row(row: Any, width: int) -> bool:
    is_list = isinstance(row, list) and len(row) == width
    return is_list and all(type(number) in (int, float) for number in row)
