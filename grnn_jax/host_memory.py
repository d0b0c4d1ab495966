"""What cannot fit into the memory of this machine is refused before it fills it."""

import contextlib
import functools
import math
import re
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from grnn_jax.errors import InputError

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@functools.cache
def host_memory() -> int | None:
    """Bytes of memory and swap that this process may take; None where that is not known."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        text = Path("/proc/meminfo").read_text()
        found.append(sum(map(int, re.findall(r"^(?:Mem|Swap)Total: *(\d+) kB$", text, re.M))) << 10)
    for path in _LIMITS:  # Of the container; the word max where there is none.
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(path).read_text()))
    return min((size for size in found if size), default=None)


def check_memory(mesh: Mesh, num_bytes: int, arguments: str, what: str) -> None:
    """Checks what a computation holds at least, where its devices are this machine's processors.

    Linux promises more memory than there is, and ends whoever fills it, or another process.
    Accelerators refuse what they do not have.

    Args:
        mesh: the devices.
        num_bytes: bytes that are held at once.
        arguments: what should be smaller.
        what: what takes these bytes, in the plural.

    Raises:
        InputError: there is less memory.
    """
    total = host_memory()
    if total is None or num_bytes <= total or mesh.devices.flat[0].platform != "cpu":
        return
    raise InputError(
        f"{arguments} must be smaller: {what} take at least {num_bytes / 1e9:,.1f} GB, and this "
        f"machine has {total / 1e9:,.1f} GB of memory"
    )


def check_events_memory(
    mesh: Mesh, events: PyTree[np.ndarray], batch_size: int, sequence_length: int, num_batches: int
) -> None:
    """Checks that the batches of two calls can be held: of the present one and of the next.

    Args:
        mesh: the devices.
        events: all events of the data, arrays [N, ...]; of them only the type matters.
        batch_size: B, rows of this process.
        sequence_length: T.
        num_batches: batches of a call.

    Raises:
        InputError: there is less memory.
    """
    leaves = jax.tree.leaves(events)
    num_bytes = sum(leaf.dtype.itemsize * math.prod(leaf.shape[1:]) for leaf in leaves)
    size = 2 * num_batches * batch_size * sequence_length * (num_bytes + 2)  # And two masks.
    what = f"the batches of two calls ({batch_size} x {sequence_length} x {num_batches})"
    check_memory(mesh, size, "steps_per_call or batch_size", what)


def check_batch_memory(
    mesh: Mesh, batch_size: int, sequence_length: int, hidden_size: int, argument: str
) -> None:
    """Checks that the hidden states of one batch can be held, float32 [B, T, H].

    Args:
        mesh: the devices.
        batch_size: B, rows of this process.
        sequence_length: T.
        hidden_size: H.
        argument: the one that named the batch size.

    Raises:
        InputError: there is less memory.
    """
    shape = f"{batch_size} x {sequence_length} x {hidden_size}"
    num_bytes = 4 * batch_size * sequence_length * hidden_size
    check_memory(
        mesh, num_bytes, f"{argument} or sequence_length", f"the hidden states of a batch ({shape})"
    )
