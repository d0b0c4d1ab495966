"""Arrays from .npz and .npy files, without ever unpickling what a file holds."""

import contextlib
import io
import os
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np

from grnn_jax.data.declared import MAX_FILE_GIB, array_of_bytes, check_expanded
from grnn_jax.data.object_arrays import parse_object_array
from grnn_jax.data.pickled_values import NotAnArrayError
from grnn_jax.errors import InputError

_MOST_HEADER_BYTES = 1 << 16
_PART_BYTES = 1 << 20
_BYTES_OF_NUMBER = 8
"""Smaller numbers become as large as this."""


def parse_npy(data: bytes | bytearray, path: str, max_gib: float = MAX_FILE_GIB) -> np.ndarray:
    """Reads what stands in an .npy file.

    Args:
        data: all of its bytes.
        path: the file, for messages.
        max_gib: what its objects may take in memory, if it holds an object array.

    Returns:
        The array, which views `data`; for object arrays see
        `parse_object_array`.

    Raises:
        ValueError: it is damaged, or what its header declares is not what it holds.
    """
    file = io.BytesIO(data[: _MOST_HEADER_BYTES + 12])
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"unknown version {version} of the .npy format")
    try:
        shape, fortran_order, dtype = read_header(file)
    except Exception as error:  # NumPy's raises what Python's tokenizer and compiler do.
        raise ValueError(
            f"its header cannot be read: {str(error) or type(error).__name__}"
        ) from error
    contents = memoryview(data)[file.tell() :]
    if not dtype.hasobject:
        return array_of_bytes(contents, dtype, shape, fortran_order)
    array = parse_object_array(contents, path, max_gib)
    if array.shape != shape:
        raise ValueError(
            f"its header declares {list(shape)!s:.80}, its array is {list(array.shape)}"
        )
    return array


def load_npz(path: str, max_gib: float = MAX_FILE_GIB) -> dict[str, np.ndarray]:
    """Reads all arrays of an .npz, or the one of an .npy under the name "".

    Object arrays of arrays are read too; a pickle that holds anything but arrays is refused, and
    nothing in it is executed.

    Args:
        path: the file.
        max_gib: the GiB that an .npz may expand to; one without compression may have any size.

    Returns:
        The arrays by name; some cannot be written.

    Raises:
        InputError: the file is not what it should be, or expands to more.
    """
    arrays = {}
    with _readable(path):
        if path.lower().endswith(".npy"):
            return {"": parse_npy(pathlib.Path(path).read_bytes(), path, max_gib)}
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            declared = sum(member.file_size for member in members)
            is_larger = declared > os.path.getsize(path)
            if is_larger:
                check_expanded(path, declared, max_gib)
            taken = 0
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"it has two arrays {name!r:.80}")
                try:
                    arrays[name] = parse_npy(_contents(archive, member), path, max_gib)
                except NotAnArrayError:
                    raise
                except InputError:
                    raise
                except ValueError as error:
                    raise ValueError(f"{member.filename:.80}: {error}") from error
                taken += max(arrays[name].nbytes, arrays[name].size * _BYTES_OF_NUMBER)
                if is_larger:
                    check_expanded(path, taken, max_gib)
    return arrays


def _contents(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytearray:
    """The bytes of a file in an archive, never more than it declares."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"compressed by method {member.compress_type}, which NumPy never uses")
    contents = bytearray()
    with archive.open(member) as file:
        # In parts, because what is read at once is cut to the declared size only afterwards.
        while part := file.read(_PART_BYTES):
            contents += part
    return contents


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Tells what is wrong with a file in one sentence."""
    try:
        yield
    except InputError:
        raise
    except NotAnArrayError as error:
        raise InputError(f"{path} holds a pickle of something else than arrays: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (MemoryError, RecursionError) as error:
        raise InputError(f"{path} needs more memory than there is: {error}") from error
    except Exception as error:  # zipfile and zlib raise many kinds for a broken or unusual file.
        raise InputError(f"{path} is not a valid .npz or .npy file: {error}") from error
