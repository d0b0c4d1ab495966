"""The engines by name, which cells each can run, and what "auto" chooses."""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax

from grnn_jax.cells.base import Cell
from grnn_jax.recurrence.base import Engine, InputsForm
from grnn_jax.recurrence.fused import fused_engine
from grnn_jax.recurrence.gates import project_gates, split_projected
from grnn_jax.recurrence.linear import linear_engine
from grnn_jax.recurrence.newton import BLOCK_LIMIT, newton_engine
from grnn_jax.recurrence.newton import supports as supports_newton
from grnn_jax.recurrence.packed import packed_engine
from grnn_jax.recurrence.packed_inputs import pack_inputs, pack_projected
from grnn_jax.recurrence.scan import scan_engine


def _is_gated(cell: Cell) -> bool:
    return cell.gated is not None


def _is_linear(cell: Cell) -> bool:
    return cell.linear is not None


_fused_recompute = functools.partial(fused_engine, save_recurrent=False)
_packed_recompute = functools.partial(packed_engine, save_recurrent=False)
_BY_GATES = InputsForm(project_gates, split_projected)
_PACKED = InputsForm(pack_inputs, pack_projected)
_GATED = "with gated structure"

ENGINES: dict[str, Engine] = {
    "scan": Engine(scan_engine, lambda cell: True, "of any kind"),
    "fused": Engine(fused_engine, _is_gated, _GATED, _BY_GATES),
    "fused_recompute": Engine(_fused_recompute, _is_gated, _GATED, _BY_GATES),
    "packed": Engine(packed_engine, _is_gated, _GATED, _PACKED),
    "packed_recompute": Engine(_packed_recompute, _is_gated, _GATED, _PACKED),
    "linear": Engine(linear_engine, _is_linear, "with linear structure", run_split=linear_engine),
    "newton": Engine(
        newton_engine,
        supports_newton,
        f"with gated, elementwise structure and states · head width of at most {BLOCK_LIMIT}",
        run_split=newton_engine,
    ),
}
"""Engines that a flag can name, besides "auto"; a new engine is one file and one line here."""


class EngineChoice(NamedTuple):
    """What "auto" runs a layer with.

    Attributes:
        engine: a name in `ENGINES`.
        reason: why, in one sentence.
    """

    engine: str
    reason: str


def supported_engines(cell: Cell) -> tuple[str, ...]:
    """The names in `ENGINES` that can run a single layer; of a sitewise cell, that of one site.

    Example:
        >>> from grnn_jax import cells
        >>> supported_engines(cells.gru(64))
        ('scan', 'fused', 'fused_recompute', 'packed', 'packed_recompute')
    """
    cell = cell if cell.sitewise is None else cell.sitewise.cell
    return tuple(name for name, engine in ENGINES.items() if engine.supports(cell))


def check_engine(cell: Cell, engine: str, allowed: Iterable[str] = ENGINES) -> None:
    """Checks that an engine can run a cell, of a stack every layer.

    Args:
        cell: a cell or a stack.
        engine: a name in `ENGINES`, or "auto", which always can.
        allowed: the engines among which the message names those that can.

    Raises:
        ValueError: there is no such engine, or it needs a structure that a layer does not have.
    """
    if engine not in ("auto", *ENGINES):
        raise ValueError(f"engine must be one of {['auto', *ENGINES]}, got {engine!r}")
    for layer in (cell,) if cell.layered is None else cell.layered.cells:
        able = supported_engines(layer)
        if engine not in ("auto", *able):
            listed = ", ".join(name for name in able if name in allowed) or "none"
            raise ValueError(
                f"engine={engine} needs a cell {ENGINES[engine].needs}; this one can be run by "
                f"{listed}"
            )


def explain_engine(cell: Cell, platform: str | None = None) -> EngineChoice:
    """The engine that "auto" runs a single layer with, and the reason.

    A sitewise cell takes what the cell of one site takes, linear cells the linear engine, cells
    without a structure the scan. Gated cells take the fused engine on a CPU, measured faster than
    the scan at every size, and the packed one elsewhere, where it was counted, not timed
    (benchmarks/RESULTS.md). What is chosen is settled where a program is lowered: what a CPU
    lowers or exports for an accelerator is the accelerator's.

    Args:
        cell: a cell, not a stack.
        platform: "cpu", "cuda", "rocm", "tpu", …; None is that of JAX's default device.

    Returns:
        The choice.

    Raises:
        ValueError: for a stack: each of its layers has an engine of its own.

    Example:
        >>> from grnn_jax import cells
        >>> explain_engine(cells.min_gru(4)).engine
        'linear'
        >>> [explain_engine(cells.lstm(4), platform).engine for platform in ("cpu", "tpu")]
        ['fused', 'packed']
    """
    if cell.layered is not None:
        raise ValueError("cell must be a single layer, got a stack; ask for each of its cells")
    if cell.sitewise is not None:
        return explain_engine(cell.sitewise.cell, platform)
    if cell.linear is not None:
        return EngineChoice("linear", "the cell is linear in its state: no step waits for a matmul")
    if cell.gated is None:
        return EngineChoice("scan", "the cell declares no structure that an engine could use")
    if (platform or jax.default_backend()) == "cpu":
        return EngineChoice(
            "fused",
            "the cell is gated: its elementwise step is vectorised, and the gradient of V is one "
            "matmul for many steps",
        )
    return EngineChoice(
        "packed",
        "the cell is gated: a step is one product and one elementwise kernel, and the gradient of "
        "V is one matmul",
    )
