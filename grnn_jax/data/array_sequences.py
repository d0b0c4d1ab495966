"""Sequences in .npz and .npy files: an array is one of them, a stack of them, or holds them."""

import pathlib

import numpy as np
from jaxtyping import Float

from grnn_jax.config import SPLITS
from grnn_jax.data.arrays import load_npz
from grnn_jax.data.sequences import Sequences
from grnn_jax.errors import InputError


def is_array_file(path: str) -> bool:
    """Whether a path names an .npz or .npy file."""
    return pathlib.Path(path).suffix.lower() in (".npz", ".npy")


def read_array_sequences(path: str, num_axes: int) -> dict[str, Sequences]:
    """Reads the sequences of an .npz or .npy file.

    An object array holds one array for each sequence. Of other arrays those with `num_axes + 1`
    axes are stacks of sequences, all others are one sequence. Where there is an array
    `NAME_lengths`, or `lengths` beside a single array, it says how long each sequence is, and what
    comes after its end in a stack is left out.

    Args:
        path: the file; no pickle in it is executed.
        num_axes: axes of a sequence, time among them.

    Returns:
        Sequences by split where there is an array train: those of train, valid and test, and of no
        other array. Else all of them under "".

    Raises:
        InputError: the file cannot be read.
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
    if "train" in sequences:
        return sequences
    parts = list(sequences.values())
    return {
        "": Sequences(
            [name for part in parts for name in part.names],
            [item for part in parts for item in part.items],
        )
    }


def _sequences(
    label: str, array: np.ndarray, num_axes: int, lengths: np.ndarray | None
) -> Sequences:
    """The sequences of one array."""
    if array.dtype != object and array.ndim <= num_axes:
        names, items = [label], [array]
    else:
        items = [np.asarray(x) for x in (array.reshape(-1) if array.dtype == object else array)]
        names = [f"{label}[{i}]" for i in range(len(items))]
    if lengths is not None:
        longest = np.array([len(item) if item.ndim else 0 for item in items])
        if lengths.shape != longest.shape or not np.issubdtype(lengths.dtype, np.integer):
            raise InputError(
                f"{label}_lengths: expected {len(items)} whole numbers, "
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
