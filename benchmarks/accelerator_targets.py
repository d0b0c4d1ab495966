"""What is to be reached on a Hopper card, and whether a row of benchmarks/accelerator.py does."""

from collections.abc import Mapping

from accelerator_peers import HALF, TORCH
from accelerator_programs import BUFFERED
from accelerator_rows import Row

from grnn_jax import cells

CUDNN = {"forward": 2.01, "training": 5.19}
"""Published ms of cuDNN's LSTM 1 x 768, B 16, T 1024, float16, on an H100, input projection and all
(the FlashRNN paper, Pöppel et al. 2024)."""
FLASHRNN = {"forward": 1.99, "training": 8.64}
"""Published ms of the faster of FlashRNN's kernels, LSTM 12 x 64, B 16, T 1024, bfloat16, on an
H100, without the input projection. Of 6 x 128 no published time is at hand."""


def target(row: Row, milliseconds: Mapping[str, float], floor: float | None) -> str:
    """The row's target, how far "auto" is, and whether it is reached; empty where there is none.

    The better of its two programs counts, with and without command buffers.

    LSTM and GRU in half precision: not slower than cuDNN up to H 512, at most 1.5 times as slow up
    to 1024. LSTM 12 x 64: half of FlashRNN's published time. Every other gated cell: five times as
    fast as a plain scan. Linear cells: 80% of the bandwidth that the memory has.

    Args:
        row: the row.
        milliseconds: of a run, by program.
        floor: milliseconds of the least that any program takes, where the chip is known.
    """
    own = [milliseconds[name] for name in ("auto", BUFFERED) if name in milliseconds]
    ours = min(own, default=None)
    if ours is None or row.kind not in ("forward", "training"):
        return ""
    cell = cells.CELLS[row.cell](2)
    if cell.linear is not None:
        if floor is None:
            return ""
        # No window fits the chip: for the gradient, inputs and states are read a second time.
        passes = 1.5 if row.kind == "training" else 1.0
        return _verdict("of the bandwidth", passes * floor / ours, at_least=0.8)
    if cell.gated is None:
        return ""
    if row.cell not in ("lstm", "gru"):
        scan = milliseconds.get("scan")
        return "" if scan is None else _verdict("x as fast as a scan", scan / ours, at_least=5)
    if row.dtype != "bfloat16":
        return ""
    if row.inputs == "dense" and row.hidden_size <= 1024:
        times = [milliseconds[name] for name in (TORCH, HALF) if name in milliseconds]
        by, limit = "x cuDNN's time", 1.0 if row.hidden_size <= 512 else 1.5
        if not times and row[1:6] == ("lstm", 1, 768, 16, 1024):
            times, by = [CUDNN[row.kind]], by + " as published"
        return _verdict(by, ours / min(times), at_most=limit) if times else ""
    if row[1:6] == ("lstm", 12, 64, 16, 1024):
        ratio = ours / FLASHRNN[row.kind]
        return _verdict("x FlashRNN's time as published", ratio, at_most=0.5)
    return ""


def _verdict(
    what: str, value: float, *, at_least: float | None = None, at_most: float | None = None
) -> str:
    if at_least is not None:
        limit, reached = f"at least {at_least:g}", value >= at_least
    else:
        assert at_most is not None
        limit, reached = f"at most {at_most:g}", value <= at_most
    return f"{value:.2f} {what} ({limit}): {'reached' if reached else 'missed'}"
