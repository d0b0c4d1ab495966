"""What a machine has no more of: memory, threads, open files, room; in one sentence."""

import errno
from collections.abc import Container

MEMORY_FLAGS = (
    "batch_size", "eval_batch_size", "sequence_length", "hidden_size", "num_samples", "length",
    "beam_width", "num_particles", "dynamic_segment_length",
)  # fmt: skip
"""Flags whose smaller values take less memory."""


def explain(error: BaseException, known: Container[str]) -> str | None:
    """What is exhausted, and what helps.

    Args:
        error: what ended a command.
        known: the flags of the command.

    Returns:
        One sentence; None where the error is of another kind.
    """
    code = error.errno if isinstance(error, OSError) else None
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or code == errno.ENOMEM:
        flags = [f"--{name}" for name in MEMORY_FLAGS if name in known]
        less = f"; give a smaller {' or '.join(flags)}" if flags else ""
        return "out of memory" + (f" ({text:.120})" if text else "") + less
    if code in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text:
        return "too many open files: raise the limit, which `ulimit -n` shows"
    if "can't start new thread" in text or code == errno.EAGAIN:
        return "no more threads can be started: raise the limit, which `ulimit -u` shows"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return where + error.strerror
    return None
