"""The engines by name, which cells each can run, and what "auto" chooses."""

import functools
from typing import NamedTuple

import jax

from grnn_jax.cells.base import Cell
from grnn_jax.recurrence.base import Engine
from grnn_jax.recurrence.fused import fused_engine
from grnn_jax.recurrence.linear import linear_engine
from grnn_jax.recurrence.scan import scan_engine


def _is_gated(cell: Cell) -> bool:
    return cell.gated is not None


def _is_linear(cell: Cell) -> bool:
    return cell.linear is not None


_recompute = functools.partial(fused_engine, save_recurrent=False)

ENGINES: dict[str, Engine] = {
    "scan": Engine(scan_engine, lambda cell: True, "of any kind"),
    "fused": Engine(fused_engine, _is_gated, "with gated structure"),
    "fused_recompute": Engine(_recompute, _is_gated, "with gated structure"),
    "linear": Engine(linear_engine, _is_linear, "with linear structure"),
}
"""Engines that a flag can name, besides "auto"; a new engine is one file and one line here."""

CPU_FUSED_HIDDEN_SIZE = 512
"""From this width on the fused engine was the faster one for every cell, on two CPU cores."""


class EngineChoice(NamedTuple):
    """What "auto" runs a layer with.

    Attributes:
        engine: a name in `ENGINES`.
        reason: why, in one sentence.
    """

    engine: str
    reason: str


def supported_engines(cell: Cell) -> tuple[str, ...]:
    """The names in `ENGINES` that can run a single layer."""
    return tuple(name for name, engine in ENGINES.items() if engine.supports(cell))


def explain_engine(cell: Cell, platform: str | None = None) -> EngineChoice:
    """The engine that "auto" runs a single layer with, and the reason.

    Linear cells take the linear engine, cells without a structure the scan. Of gated cells, narrow
    ones of several gates were measured faster with the scan on a CPU (benchmarks/RESULTS.md), all
    others with the fused engine; nothing was measured yet on other platforms, where they take it.

    Args:
        cell: a cell, not a stack.
        platform: "cpu", "gpu" or "tpu"; None is `jax.default_backend()`.

    Returns:
        The choice.

    Raises:
        ValueError: for a stack: each of its layers has an engine of its own.
    """
    if cell.layered is not None:
        raise ValueError("cell must be a single layer, got a stack; ask for each of its cells")
    if platform is None:
        platform = jax.default_backend()
    if cell.linear is not None:
        return EngineChoice("linear", "the cell is linear in its state")
    if cell.gated is None:
        return EngineChoice("scan", "the cell declares no structure that an engine could use")
    narrow = cell.gated.num_gates > 1 and cell.hidden_size < CPU_FUSED_HIDDEN_SIZE
    if platform == "cpu" and narrow:
        return EngineChoice(
            "scan",
            f"on a CPU the scan was measured faster for several gates and hidden_size < "
            f"{CPU_FUSED_HIDDEN_SIZE}",
        )
    return EngineChoice("fused", "the cell is gated: one large matmul for the gradient of V")
