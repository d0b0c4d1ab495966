"""Arrays from .npz and .mat files, without ever executing a pickle that a file holds."""

import io
import pickle
import zipfile
import zlib
from typing import Any

import numpy as np
import scipy.io

from grnn_jax.errors import InputError

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
"""What an object array of plain arrays is made of; anything else in a pickle is refused."""


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and nothing else: no other name is looked up, so nothing can run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which is not an array")
        return super().find_class(module, name)


def _read_array(file: Any) -> np.ndarray:
    """Reads one .npy, with object arrays through the restricted reader."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"unknown version {version} of the .npy format")
    shape, fortran_order, dtype = read_header(file)
    if not dtype.hasobject:
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    array = _ArrayUnpickler(file, encoding="latin1").load()
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise ValueError("the object array is not what its header says")
    return array


def load_npz(path: str) -> dict[str, np.ndarray]:
    """Reads all arrays of an .npz, or the one of an .npy under the name "".

    Object arrays of arrays are read too; a pickle that holds anything but arrays is refused, and
    nothing in it is executed.

    Args:
        path: the file.

    Returns:
        The arrays by name.

    Raises:
        InputError: the file is not what it should be.
    """
    try:
        if path.lower().endswith(".npy"):
            with open(path, "rb") as file:
                return {"": _read_array(io.BytesIO(file.read()))}
        with zipfile.ZipFile(path) as archive:
            return {
                name.removesuffix(".npy"): _read_array(io.BytesIO(archive.read(name)))
                for name in archive.namelist()
            }
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} holds a pickle of something else than arrays: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, IndexError) as error:
        raise InputError(f"{path} is not a valid .npz or .npy file: {error}") from error


def load_mat(path: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads variables of a MATLAB file; cells become object arrays.

    Args:
        path: the file.
        names: of the variables.

    Returns:
        The variables by name.

    Raises:
        InputError: the file is not a MATLAB file, or lacks one of the names.
    """
    try:
        values = scipy.io.loadmat(path)
    except Exception as error:  # scipy raises many kinds for a broken file.
        raise InputError(f"{path} is not a readable MATLAB file: {error}") from error
    for name in names:
        if name not in values:
            raise InputError(
                f"{path}: expected the variables {', '.join(names)}, {name} is missing"
            )
    return {name: values[name] for name in names}
