"""Sequences in .npz and .npy files: an array is one of them, a stack of them, or holds them."""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from grnn_jax.config import SPLITS
from grnn_jax.data.arrays import load_npz
from grnn_jax.data.sequences import Sequences
from grnn_jax.errors import InputError


def is_array_file(path: str) -> bool:
    """Whether a path names an .npz or .npy file."""
    return pathlib.Path(path).suffix.lower() in (".npz", ".npy")


def read_array_sequences(
    path: str, num_axes: int, *, axes: str = "T, C", one_width: bool = True
) -> dict[str, Sequences]:
    """Reads the sequences of an .npz or .npy file; the log says what each array was taken for.

    An object array holds one array for each sequence. Of other arrays those with `num_axes + 1`
    axes are stacks of sequences, all others are one sequence. Where there is an array
    `NAME_lengths`, or `lengths` beside a single array, it says how long each sequence is: what
    comes after its end in a stack is left out, and an array of as many steps as they add up to is
    cut into them.

    Args:
        path: the file; no pickle in it is executed.
        num_axes: axes of a sequence, time among them.
        axes: what they are called, for messages.
        one_width: whether all arrays must agree in their axes after the first.

    Returns:
        Sequences by split where there is an array train: those of train, valid and test, and of no
        other array. Else all of them under "".

    Raises:
        InputError: the file cannot be read, or its arrays are not sequences of one kind.
    """
    arrays = load_npz(path)
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
        )
        for name in names
    }
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
    return {
        "": Sequences(
            [name for part in parts for name in part.names],
            [item for part in parts for item in part.items],
        )
    }


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
    label: str, array: np.ndarray, num_axes: int, lengths: np.ndarray | None
) -> Sequences:
    """The sequences of one array."""
    if array.dtype != object and array.ndim <= num_axes:
        if lengths is not None and _adds_up(lengths, array):
            items = np.split(array, np.cumsum(lengths)[:-1])
            return Sequences([f"{label}[{i}]" for i in range(len(items))], items)
        names, items = [label], [array]
    else:
        items = [np.asarray(x) for x in (array.reshape(-1) if array.dtype == object else array)]
        names = [f"{label}[{i}]" for i in range(len(items))]
        held = array.reshape(-1) if array.dtype == object else ()
        for name, value, item in zip(names, held, items, strict=False):
            if item.dtype == object:
                raise InputError(f"{name}: expected an array of numbers, got {_what(value)}")
    if lengths is not None:
        longest = np.array([len(item) if item.ndim else 0 for item in items])
        if lengths.shape != longest.shape or not np.issubdtype(lengths.dtype, np.integer):
            steps = f", or lengths that add up to {len(array)}" if len(items) == 1 else ""
            raise InputError(
                f"{label}_lengths: expected {len(items)} whole numbers{steps}, "
                f"got {lengths.dtype} {lengths.shape}"
            )
        bad = np.flatnonzero((lengths < 0) | (lengths > longest))
        if len(bad):
            raise InputError(
                f"{label}_lengths[{bad[0]}]: expected a length from 0 to {longest[bad[0]]}, that "
                f"of the sequence, got {lengths[bad[0]]}"
            )
        items = [item[:length] for item, length in zip(items, lengths.tolist(), strict=True)]
    return Sequences(names, items)


def _adds_up(lengths: np.ndarray, array: np.ndarray) -> bool:
    """Whether an array is sequences of these lengths, end to end."""
    is_lengths = lengths.ndim == 1 and lengths.size > 1 and lengths.dtype.kind in "iu"
    if not is_lengths or not array.ndim or (lengths < 0).any():
        return False
    return int(lengths.sum()) == len(array)


def _what(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(repr, value))}; save its arrays by savez"
    return type(value).__name__


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
    bad = ~(np.abs(array.astype(np.float64)) <= np.finfo(np.float32).max)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name}, row {row}, {columns[column]}: expected a finite number, "
            f"got {array[row, column]}"
        )
    return array.astype(np.float64)
