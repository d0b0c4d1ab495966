"""What a machine has no more of: memory, threads, open files, room; in one sentence."""

from collections.abc import Container

from grnn_jax.system_errors import fault

OF_MEMORY = fault(MemoryError()).advice
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
    found, text = fault(error), " ".join(str(error).split())
    is_memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text
    if found.advice == OF_MEMORY or (is_memory and not found.advice):
        flags = [f"--{name}" for name in MEMORY_FLAGS if name in known]
        less = f"; give a smaller {' or '.join(flags)}" if flags else ""
        return "out of memory" + (f" ({text:.120})" if text else "") + less
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    if found.advice:
        return f"{where}{found.reason}; {found.advice}"
    if isinstance(error, OSError) and error.strerror:
        return where + error.strerror
    return None
