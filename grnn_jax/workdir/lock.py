"""One training process at a time in a workdir."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from grnn_jax.errors import InputError

try:
    import fcntl
except ImportError:  # Not a Unix system.
    fcntl = None  # type: ignore[assignment]


def make_workdir(workdir: Path) -> None:
    """Makes the directory of a run where it does not exist.

    Args:
        workdir: the directory.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"workdir: cannot make {workdir}: {error.strerror}") from error
    if not os.access(workdir, os.W_OK):
        raise InputError(f"workdir: {workdir} cannot be written to")


@contextlib.contextmanager
def workdir_lock(workdir: Path) -> Iterator[None]:
    """Keeps other processes from training in a workdir; the system lets go when this one ends.

    Args:
        workdir: directory of the run; made where it does not exist.

    Raises:
        InputError: another process trains there.
    """
    make_workdir(workdir)
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            directory = os.open(workdir, os.O_RDONLY)
            stack.callback(os.close, directory)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"workdir: another process trains in {workdir} already; wait for its end, or "
                    "give another workdir"
                ) from error
            except OSError:  # No locks, as on some network drives.
                pass
        yield
