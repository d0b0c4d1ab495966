"""Pictures of sequences, one PNG each; held-out ones, where given, beside the samples."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grnn_jax.cli.plots import pyplot, save

SHOWN = {"piano_rolls": 9, "strokes": 36, "images": 64, "rasters": 40}
"""Most sequences in a picture."""
MOST_BEATS = 64
"""Beats of a tune in a picture."""


def _groups(
    samples: Sequence[Any], data: Sequence[Any], limit: int
) -> list[tuple[str, Sequence[Any]]]:
    """What is drawn side by side, with its title; as many of one as of the other."""
    if not len(data):
        return [("", samples[:limit])]
    count = min(limit, max(len(samples), 1))
    return [("held-out data", data[:count]), ("samples", samples[:count])]


def _cells(
    groups: Sequence[tuple[str, Sequence[Any]]],
    num_columns: Callable[[int], int],
    cell_size: tuple[float, float],
    **options: Any,
) -> tuple[Any, Iterator[tuple[Any, Any]]]:
    """A figure with a grid of cells for each group; yields the axes and the item of each cell."""
    columns = num_columns(max(len(items) for _, items in groups) or 1)
    rows = max(-(-len(items) // columns) for _, items in groups) or 1
    size = (cell_size[0] * columns * len(groups), cell_size[1] * rows + 0.4)
    figure = pyplot().figure(figsize=size, layout="constrained")

    def cells() -> Iterator[tuple[Any, Any]]:
        parts = np.atleast_1d(figure.subfigures(1, len(groups)))
        for part, (title, items) in zip(parts, groups, strict=True):
            part.suptitle(title)
            grid = part.subplots(rows, columns, squeeze=False, **options).ravel()
            for axes, item in zip(grid, items, strict=False):
                yield axes, item
            for axes in grid[len(items) :]:
                axes.set_axis_off()

    return figure, cells()


def _square(count: int) -> int:
    """Columns of a grid that is about as wide as high."""
    return math.ceil(math.sqrt(count))


def plot_piano_rolls(
    path: str | Path,
    samples: Sequence[np.ndarray],
    frames_per_beat: int,
    data: Sequence[np.ndarray] = (),
) -> Path:
    """Draws the beginnings of piano rolls, one above the other.

    Args:
        path: the PNG.
        samples: arrays [T, 128] by MIDI pitch: 0 is silence, k the k-th voice.
        frames_per_beat: frames of a quarter note.
        data: held-out rolls.

    Returns:
        The path.
    """
    longest = MOST_BEATS * frames_per_beat
    groups = [
        (title, [roll[:longest] for roll in items])
        for title, items in _groups(samples, data, SHOWN["piano_rolls"])
    ]
    rolls = [roll for _, items in groups for roll in items]
    sounding = np.flatnonzero(np.any([roll.any(0) for roll in rolls] or [[False]], 0))
    low, high = (sounding.min(), sounding.max()) if len(sounding) else (60, 72)
    beats = max([len(roll) for roll in rolls] + [1]) / frames_per_beat
    colors = pyplot().matplotlib.colors.ListedColormap(["white", *[f"C{i}" for i in range(10)]])
    figure, cells = _cells(groups, lambda _: 1, (7.5, 1.7), sharex=True)
    for axes, roll in cells:
        extent = (0, len(roll) / frames_per_beat, -0.5, 127.5)
        pixels = np.where(roll > 0, (roll - 1) % 10 + 1, 0).T
        if len(roll):
            axes.imshow(
                pixels, colors, vmin=0, vmax=10, origin="lower", aspect="auto", extent=extent,
                interpolation="nearest",
            )  # fmt: skip
        octaves = np.arange(0, 128, 12)
        axes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
        axes.set_ylim(low - 1.5, high + 1.5)
        axes.set_xlim(0, beats)
        axes.grid(axis="y", alpha=0.3)
        axes.set_xlabel("beats")
        axes.label_outer()
    return save(figure, path)


def plot_strokes(
    path: str | Path,
    samples: Sequence[list[np.ndarray]],
    data: Sequence[list[np.ndarray]] = (),
) -> Path:
    """Draws drawings in a grid, each as large as its cell.

    Args:
        path: the PNG.
        samples: for each drawing its strokes, arrays of points [P, 2], y pointing down.
        data: held-out drawings.

    Returns:
        The path.
    """
    figure, cells = _cells(_groups(samples, data, SHOWN["strokes"]), _square, (1.6, 1.6))
    for axes, strokes in cells:
        for points in strokes:
            # A stroke of one point is a dot.
            axes.plot(*points.T, "k-" if len(points) > 1 else "k.", linewidth=1.3, markersize=3)
        axes.set_aspect("equal", "datalim")
        axes.margins(0.1)
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("0.85")
    return save(figure, path)


def plot_images(
    path: str | Path, samples: Sequence[np.ndarray], data: Sequence[np.ndarray] = ()
) -> Path:
    """Draws images in a grid, pixel by pixel.

    Args:
        path: the PNG.
        samples: grey [H, W] or coloured [H, W, 3] images of values from 0 to 1; NaN is left out.
        data: held-out images.

    Returns:
        The path.
    """
    figure, cells = _cells(_groups(samples, data, SHOWN["images"]), _square, (1.1, 1.1))
    grey = pyplot().get_cmap("gray").with_extremes(bad="C0")
    for axes, pixels in cells:
        axes.imshow(pixels, grey, vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
    return save(figure, path)


def plot_rasters(
    path: str | Path,
    samples: Sequence[tuple[np.ndarray, np.ndarray | None]],
    classes: Sequence[str] = (),
    data: Sequence[tuple[np.ndarray, np.ndarray | None]] = (),
    unit: str = "",
) -> Path:
    """Draws sequences of events in time, one a row, coloured by mark.

    Args:
        path: the PNG.
        samples: for each sequence the times [E] of its events, and their classes [E] or None.
        classes: the names of the classes.
        data: held-out sequences.
        unit: of the times.

    Returns:
        The path.
    """
    plt = pyplot()
    groups = _groups(samples, data, SHOWN["rasters"])
    rows = max([len(items) for _, items in groups] + [1])
    size = (7 * len(groups), 1.2 + 0.22 * rows)
    figure, grid = plt.subplots(
        1, len(groups), figsize=size, sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    colors = plt.get_cmap("tab10" if len(classes) <= 10 else "tab20")
    for axes, (title, items) in zip(grid[0], groups, strict=True):
        for row, (times, marks) in enumerate(items):
            color = "C0" if marks is None else colors(np.asarray(marks, int) % colors.N)
            axes.scatter(times, np.full(len(times), row), 60, color, marker="|", linewidths=1.2)
        axes.set_title(title)
        axes.set_xlabel(f"time ({unit})" if unit else "time")
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_yticks([])
    grid[0, 0].set_ylabel("sequence")
    if 0 < len(classes) <= colors.N:
        marker = {"marker": "|", "linestyle": "", "markersize": 9, "markeredgewidth": 2}
        handles = [
            plt.Line2D([], [], color=colors(i), label=name, **marker)
            for i, name in enumerate(classes)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=8, frameon=False)
    return save(figure, path)


def plot_fans(
    path: str | Path,
    samples: Sequence[np.ndarray],
    names: Sequence[str],
    data: Sequence[np.ndarray] = (),
) -> Path:
    """Draws quantiles over time of each variable, and a few of the series.

    Args:
        path: the PNG.
        samples: series [T, D], which may differ in length.
        names: of the D variables.
        data: held-out series.

    Returns:
        The path.
    """
    groups = _groups(samples, data, max(len(samples), len(data)))
    size = (6 * len(groups), 2.2 * len(names) + 0.6)
    figure, grid = pyplot().subplots(
        len(names), len(groups), figsize=size, sharex="col", sharey="row", squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for column, (title, items) in enumerate(groups):
        grid[0, column].set_title(title)
        grid[-1, column].set_xlabel("step")
        lasting = [series for series in items if len(series)]
        length = max([len(series) for series in lasting] + [0])
        values = np.full((len(lasting), length, len(names)), np.nan)
        for row, series in zip(values, lasting, strict=True):
            row[: len(series)] = series
        steps = np.arange(length)
        for axes, name, variable in zip(
            grid[:, column], names, np.moveaxis(values, 2, 0), strict=True
        ):
            if column == 0:
                axes.set_ylabel(name)
            axes.grid(alpha=0.3)
            if not length:
                continue
            # Where few series last as long, their quantiles mean nothing.
            known = np.isfinite(variable).sum(0) >= min(5, len(variable))
            q05, q25, q50, q75, q95 = np.where(
                known, np.nanquantile(variable, [0.05, 0.25, 0.5, 0.75, 0.95], 0), np.nan
            )
            axes.fill_between(steps, q05, q95, color="C0", alpha=0.15, label="5 to 95 %", lw=0)
            axes.fill_between(steps, q25, q75, color="C0", alpha=0.3, label="25 to 75 %", lw=0)
            axes.plot(steps, q50, color="C0", label="median")
            axes.plot(steps, variable[:3].T, color="0.3", linewidth=0.6, alpha=0.8)
    handles = grid[0, -1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3, frameon=False)
    return save(figure, path)
