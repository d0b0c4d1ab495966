"""Pictures of surprise: how many bits each event of a sequence cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grnn_jax.cli.plots import pyplot, save

COLUMNS = 80
MOST_CHARACTERS = 2400
MOST_EVENTS = 4000
VISIBLE = {"\n": "⏎", "\t": "⇥", "\r": "␍", "": "■"}
"""How symbols without a shape of their own are shown; the empty one is the end."""


def plot_text_surprise(path: str | Path, symbols: Sequence[str], bits: np.ndarray) -> Path:
    """Draws a text whose symbols are coloured by their bits.

    Args:
        path: the PNG.
        symbols: text of each event, in order; lines break after a line end or 80 characters.
        bits: bits of each event.

    Returns:
        The path.
    """
    where, row, column = [], 0, 0
    shown = min(len(symbols), len(bits))
    for index, symbol in enumerate(symbols[:shown]):
        text = VISIBLE.get(symbol, symbol)
        if column and column + len(text) > COLUMNS:
            row, column = row + 1, 0
        where.append((row, column, text))
        column += len(text)
        if symbol == "\n":
            row, column = row + 1, 0
        if (row + 1) * COLUMNS > MOST_CHARACTERS:
            shown = index + 1
            break
    rows = where[-1][0] + 1 if where else 1
    # A character is about 0.6 times as wide as it is high; the bar stands beside the text.
    height = 0.165 * rows + 0.9
    figure, axes = pyplot().subplots(figsize=(8.6, max(height, 1.8)), layout="constrained")
    top = max(float(np.max(bits[:shown], initial=0)), 1e-6)
    norm = pyplot().Normalize(0, top)
    colors = pyplot().get_cmap("YlOrRd")
    for (line, start, text), value in zip(where, bits[:shown], strict=True):
        color = colors(0.85 * norm(value))
        axes.add_patch(
            pyplot().Rectangle((start, line), len(text), 1, facecolor=color, edgecolor="none")
        )
        axes.text(
            start + len(text) / 2, line + 0.52, text, ha="center", va="center",
            family="monospace", fontsize=9, parse_math=False,
        )  # fmt: skip
    axes.set_xlim(0, COLUMNS)
    axes.set_ylim(rows, 0)
    axes.set_axis_off()
    axes.set_title(_title(shown, bits), fontsize=10)
    scale = pyplot().cm.ScalarMappable(pyplot().Normalize(0, top), _part(colors))
    figure.colorbar(scale, ax=axes, label="bits", fraction=0.03, pad=0.01)
    return save(figure, path)


def plot_line_surprise(
    path: str | Path, bits: np.ndarray, *, unit: str = "bits", other: np.ndarray | None = None
) -> Path:
    """Draws the bits of each event of a sequence against its number.

    Args:
        path: the PNG.
        bits: bits of each event.
        unit: what the numbers are.
        other: those of another run.

    Returns:
        The path.
    """
    shown = min(len(bits), MOST_EVENTS)
    figure, axes = pyplot().subplots(figsize=(11, 3.5), layout="constrained")
    label = None if other is None else "this run"
    axes.plot(np.arange(shown), bits[:shown], linewidth=0.8, label=label)
    mean = float(np.mean(bits))
    axes.axhline(mean, color="C1", linewidth=1, linestyle="--", label=f"mean {mean:.2f}")
    if other is not None:
        axes.plot(np.arange(shown), other[:shown], linewidth=0.8, color="C2", label="other run")
    axes.legend(loc="upper right")
    axes.set_xlabel("event")
    axes.set_ylabel(unit)
    axes.set_title(_title(shown, bits), fontsize=10)
    axes.margins(x=0.01)
    axes.grid(alpha=0.3)
    return save(figure, path)


def _title(shown: int, bits: np.ndarray) -> str:
    part = f"the first {shown:,} of {len(bits):,}" if shown < len(bits) else f"{shown:,}"
    return f"surprise of {part} events, {float(np.mean(bits)):.2f} bits per event"


def _part(colors: Any) -> Any:
    """The lighter part of a colour map, on which black letters can be read."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(colors(np.linspace(0, 0.85, 256)))
