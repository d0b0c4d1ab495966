"""Sequences in .npz and .npy files: an array is one of them, a stack of them, or holds them."""

import logging
import pathlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from grnn_jax.config import SPLITS
from grnn_jax.data.arrays import load_npz
from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.conditions import Values, value_of
from grnn_jax.data.declared import MAX_FILE_GIB
from grnn_jax.data.pickled_values import NoNumbers
from grnn_jax.data.sequences import Sequences
from grnn_jax.errors import InputError


def is_array_file(path: str) -> bool:
    """Whether a path names an .npz or .npy file."""
    return pathlib.Path(path).suffix.lower() in (".npz", ".npy")


def read_array_sequences(
    path: str,
    num_axes: int,
    *,
    axes: str = "T, C",
    one_width: bool = True,
    bad: BadRecords | None = None,
    max_gib: float = MAX_FILE_GIB,
    conditions: tuple[str, ...] = (),
) -> dict[str, Sequences]:
    """Reads the sequences of an .npz or .npy file; the log says what each array was taken for.

    An object array holds one array for each sequence. Of other arrays those with `num_axes + 1`
    axes are stacks of sequences, all others are one sequence. Where there is an array
    `NAME_lengths`, or `lengths` beside a single array, it says how long each sequence is: what
    comes after its end in a stack is left out, and an array of as many steps as they add up to is
    cut into them.

    Args:
        path: the file; nothing in it is unpickled.
        num_axes: axes of a sequence, time among them.
        axes: what they are called, for messages.
        one_width: whether all arrays must agree in their axes after the first.
        bad: is told which sequences are no arrays of numbers; without it there must be none.
        max_gib: the GiB that the file may expand to.
        conditions: names of arrays with a value for each sequence: NAME_x beside an array NAME of
            sequences, or x beside a single one.

    Returns:
        Sequences by split where there is an array train: those of train, valid and test, and of no
        other array. Else all of them under "".

    Raises:
        InputError: the file cannot be read, or its arrays are not sequences of one kind.
    """
    arrays = load_npz(path, max_gib)
    every = BadRecords(skip=False) if bad is None else bad
    beside = _take_conditions(path, arrays, conditions)
    lengths = {name: arrays.pop(name) for name in list(arrays) if name.endswith("lengths")}
    if len(arrays) == 1 and "lengths" in lengths:
        lengths = {f"{next(iter(arrays))}_lengths": lengths["lengths"]}
    names = [name for name in SPLITS if name in arrays] if "train" in arrays else list(arrays)
    for name in lengths:
        if name.removesuffix("_lengths") not in names:
            raise InputError(
                f"{path}: expected {', '.join(f'{n}_lengths' for n in names)} as names of arrays "
                f"of lengths, got {name}"
            )
    sequences = {
        name: _sequences(
            f"{path}, {name}" if name else path,
            arrays[name],
            num_axes,
            lengths.get(f"{name}_lengths"),
            every,
            _conditions_of(path, name, len(names) == 1, beside, conditions),
        )
        for name in names
    }
    if bad is None:
        every.finish("sequences")
    taken = {name: _taken_for(arrays[name], len(sequences[name].items)) for name in names}
    described = "; ".join(f"{name or 'the array'} is {what}" for name, what in taken.items())
    left_out = ", ".join(name for name in arrays if name not in names)
    logging.getLogger(__name__).info(
        "%s: %s%s", path, described, f"; left out {left_out}" if left_out else ""
    )
    if "train" in sequences:
        return sequences
    if one_width and not _is_one_kind(arrays, sequences, num_axes):
        raise InputError(
            f"{path}: expected arrays [N, {axes}] or [{axes}] of one kind, got others beside them: "
            f"{described}; take out what holds no sequences, or name arrays train, valid and test, "
            "beside which others are left out"
        )
    parts = list(sequences.values())
    given = [values for part in parts for values in part.conditions or ()]
    return {
        "": Sequences(
            [name for part in parts for name in part.names],
            [item for part in parts for item in part.items],
            conditions=given if conditions else None,
        )
    }


def _take_conditions(
    path: str, arrays: dict[str, np.ndarray], conditions: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Takes out of all arrays those that hold conditions."""
    ends = tuple(f"_{name}" for name in conditions)
    names = [name for name in arrays if name in conditions or (ends and name.endswith(ends))]
    taken = {name: arrays.pop(name) for name in names}
    for name, array in taken.items():
        if array.dtype.kind not in "biufUS":
            raise InputError(f"{path}, {name}: expected text or numbers, got {array.dtype}")
    return taken


def _conditions_of(
    path: str,
    name: str,
    is_single: bool,
    beside: dict[str, np.ndarray],
    conditions: tuple[str, ...],
) -> np.ndarray | None:
    """The conditions of the sequences of one array, an object array [N, C]; None without any."""
    if not conditions:
        return None
    columns = []
    for condition in conditions:
        known = [f"{name}_{condition}", *([condition] if is_single else [])]
        found = next((each for each in known if each in beside), None)
        if found is None:
            raise InputError(
                f"{path}: condition_on={condition} needs an array {' or '.join(known)}, got none"
            )
        array = beside[found].reshape(-1) if beside[found].ndim == 2 else beside[found]
        if array.ndim != 1:
            raise InputError(
                f"{path}, {found}: expected a value for each sequence, got {list(array.shape)}"
            )
        columns.append([value_of(value) for value in array])
    if len({len(column) for column in columns}) > 1:
        counts = ", ".join(str(len(column)) for column in columns)
        raise InputError(f"{path}: expected as many values of each condition, got {counts}")
    values = np.empty((len(columns[0]), len(columns)), object)
    for index, column in enumerate(columns):
        values[:, index] = column
    return values


def _taken_for(array: np.ndarray, count: int) -> str:
    shape = f"{array.dtype} {list(array.shape)}"
    return f"{shape}, one sequence" if count == 1 else f"{shape}, {count} sequences"


def _is_one_kind(
    arrays: Mapping[str, np.ndarray], sequences: Mapping[str, Sequences], num_axes: int
) -> bool:
    """Whether the sequences of all arrays may be of one kind: labels, for one, are not."""
    if len(arrays) < 2:
        return True
    widths = set()
    for part in sequences.values():
        # Numbers in a row are a series of one channel.
        shapes = {item.shape for item in part.items}
        widths |= {(1,) if len(shape) == 1 and num_axes == 2 else shape[1:] for shape in shapes}
    if any(not array.ndim or array.dtype.kind not in "biufO" for array in arrays.values()):
        return False
    stacks = {len(array) for array in arrays.values() if array.ndim > num_axes}
    beside = {
        len(array)
        for array in arrays.values()
        if array.dtype != object and 0 < array.ndim <= num_axes
    }
    # As many steps as a stack has sequences: one value for each of them.
    return len(widths) <= 1 and not stacks & beside


def _sequences(
    label: str,
    array: np.ndarray,
    num_axes: int,
    lengths: np.ndarray | None,
    bad: BadRecords,
    conditions: np.ndarray | None = None,
) -> Sequences:
    """The sequences of one array."""

    def given(count: int) -> list[Values] | None:
        if conditions is not None and len(conditions) != count:
            raise InputError(
                f"{label}: expected {count} values of each condition, one a sequence, "
                f"got {len(conditions)}"
            )
        return None if conditions is None else list(map(tuple, conditions))

    if array.dtype != object and array.ndim <= num_axes:
        if lengths is not None and _adds_up(lengths, array):
            items = np.split(array, np.cumsum(lengths)[:-1])
            names = [f"{label}[{i}]" for i in range(len(items))]
            return Sequences(names, items, conditions=given(len(items)))
        names, items = [label], [array]
    else:
        held = list(array.reshape(-1) if array.dtype == object else array)
        items = [np.asarray(None if isinstance(item, NoNumbers) else item) for item in held]
        names = [f"{label}[{i}]" for i in range(len(items))]
    if lengths is not None:
        longest = np.array([len(item) if item.ndim else 0 for item in items])
        if lengths.shape != longest.shape or not np.issubdtype(lengths.dtype, np.integer):
            is_one = len(items) == 1 and items[0].ndim
            steps = f", or lengths that add up to {len(items[0])}" if is_one else ""
            raise InputError(
                f"{label}_lengths: expected {len(items)} whole numbers{steps}, "
                f"got {lengths.dtype} {lengths.shape}"
            )
        wrong = np.flatnonzero((lengths < 0) | (lengths > longest))
        if len(wrong):
            raise InputError(
                f"{label}_lengths[{wrong[0]}]: expected a length from 0 to {longest[wrong[0]]}, "
                f"that of the sequence, got {lengths[wrong[0]]}"
            )
        pairs = zip(items, lengths.tolist(), strict=True)
        items = [item[:length] if item.ndim else item for item, length in pairs]
    kept = []
    for index, item in enumerate(items):
        if item.dtype != object:
            kept.append(index)
            continue
        with bad.record():
            value = held[index]
            what = value.what if isinstance(value, NoNumbers) else type(value).__name__
            raise InputError(f"{names[index]}: expected an array of numbers, got {what}")
    return Sequences(names, items, conditions=given(len(items))).take(kept)


def _adds_up(lengths: np.ndarray, array: np.ndarray) -> bool:
    """Whether an array is sequences of these lengths, end to end."""
    is_lengths = lengths.ndim == 1 and lengths.size > 1 and lengths.dtype.kind in "iu"
    if not is_lengths or not array.ndim or ((lengths < 0) | (lengths > len(array))).any():
        return False
    return int(lengths.sum()) == len(array)


def finite_numbers(
    array: np.ndarray, name: str, columns: tuple[str, ...]
) -> Float[np.ndarray, "T C"]:
    """An array [T, C] as float64, where all of it is finite, also as float32.

    Args:
        array: of any dtype and shape.
        name: what it is called.
        columns: what the elements of its last axis are called.

    Raises:
        InputError: it has another shape, no numbers, or one that is not finite.
    """
    if array.ndim != 2 or array.shape[1] != len(columns):
        raise InputError(f"{name}: expected an array [T, {len(columns)}], got {list(array.shape)}")
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise InputError(f"{name}: expected numbers, got {array.dtype}")
    with np.errstate(invalid="ignore"):  # NumPy warns of a signalling NaN, which is told below.
        bad = ~(np.abs(array.astype(np.float64)) <= np.finfo(np.float32).max)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name}, row {row}, {columns[column]}: expected a finite number, "
            f"got {array[row, column]}"
        )
    return array.astype(np.float64)
