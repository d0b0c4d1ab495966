"""Drawings as movements of the pen, and as SVG files."""

from pathlib import Path

import numpy as np

from grnn_jax.cli.targets import (
    Target,
    array_file,
    json_list_file,
    numbered_files,
    text_file,
    with_files_beside,
)
from grnn_jax.cli.writers.pictures import plot_strokes
from grnn_jax.cli.writers.tables import float32_text
from grnn_jax.data.corpus import Events
from grnn_jax.data.strokes import END_OF_DRAWING, StrokesCodec

SIZE = 256
"""Pixels of the longer side of a picture."""


def strokes(events: Events) -> list[np.ndarray]:
    """The strokes of a drawing.

    Args:
        events: movements, dict(offset [T, 2], pen [T]).

    Returns:
        For each stroke its points [P, 2]. As everywhere with such data, the pen is up on its way
        to the first point; that of a drawing counts from (0, 0).
    """
    pen = np.asarray(events["pen"])
    ends = np.flatnonzero(pen == END_OF_DRAWING)
    stop = ends[0] if len(ends) else len(pen)
    points = np.cumsum(np.asarray(events["offset"], np.float64)[:stop], 0)
    parts = np.split(points, np.flatnonzero(pen[:stop]) + 1)
    return [part for part in parts if len(part)]


def to_svg(lines: list[np.ndarray]) -> str:
    """Strokes as the text of an SVG file, y pointing down; a stroke of one point is a dot."""
    points = np.concatenate([*lines, np.zeros((0, 2))])
    low, high = (points.min(0), points.max(0)) if len(points) else (np.zeros(2), np.zeros(2))
    longest = max(high - low) or 1.0
    low, size = low - 0.05 * longest, high - low + 0.1 * longest
    scale = SIZE / size.max()
    width, height = np.ceil(size * scale)
    paths = []
    for line in lines:
        first, *rest = [f"{x:.2f} {y:.2f}" for x, y in (line - low) * scale]
        paths.append(f"M{first}L{' '.join(rest or [first])}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">\n'
        f'<path d="{" ".join(paths)}" fill="none" stroke="black" stroke-width="2" '
        'stroke-linecap="round" stroke-linejoin="round"/>\n</svg>\n'
    )


def movements(events: Events) -> np.ndarray:
    """The rows (Δx, Δy, lifted) of a drawing up to its end, as in the stroke-3 format."""
    pen = np.asarray(events["pen"])
    ends = np.flatnonzero(pen == END_OF_DRAWING)
    stop = ends[0] if len(ends) else len(pen)
    offset = np.asarray(events["offset"], np.float32)[:stop]
    return np.column_stack([offset, pen[:stop].astype(np.float32)])


def _json(events: Events) -> str:
    """The same as JSON."""
    rows = (
        f"[{float32_text(x)}, {float32_text(y)}, {lifted:.0f}]"
        for x, y, lifted in movements(events).tolist()
    )
    return f"[{', '.join(rows)}]"


def to_npz(codec: StrokesCodec, path: Path, num_samples: int) -> Target:
    """Arrays samples [N, T, 3] of rows of stroke-3 and lengths [N]; zeros follow the end of one."""
    del codec, num_samples
    return array_file(path, np.float32, (None, 3), movements)


def to_json(codec: StrokesCodec, path: Path, num_samples: int) -> Target:
    """A list of drawings, each a list of rows [Δx, Δy, lifted]."""
    del codec, num_samples
    return json_list_file(path, _json)


def to_json_lines(codec: StrokesCodec, path: Path, num_samples: int) -> Target:
    """The drawings of `to_json`, a line each."""
    del codec, num_samples
    return text_file(path, "", lambda _, events: _json(events) + "\n")


def to_folder(codec: StrokesCodec, folder: Path, num_samples: int) -> Target:
    """SVG files to look at, and the file samples.npz, which is read back."""

    def write_one(path: Path, events: Events) -> None:
        path.write_text(to_svg(strokes(events)), encoding="utf-8")

    files = numbered_files(folder, "svg", num_samples, write_one)
    return with_files_beside(to_npz(codec, folder / "samples.npz", num_samples), files, folder)


def plot(codec: StrokesCodec, samples: list[Events], data: list[Events], path: Path) -> Path:
    """Draws a grid."""
    del codec
    drawings, others = ([strokes(events) for events in each] for each in (samples, data))
    return plot_strokes(path, drawings, others)
