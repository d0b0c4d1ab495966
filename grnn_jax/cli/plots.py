"""Learning curves of runs, from metrics.jsonl.

    grnn-plot --workdirs=runs/a,runs/b --output=curves.png

Training and validation in nats per event; several runs stand on the same axes.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grnn_jax.cli import command, flags
from grnn_jax.errors import InputError
from grnn_jax.likelihood import bits
from grnn_jax.monitor import read_metrics

FLAGS = flags.FLAGS
DPI = 120


def pyplot() -> Any:
    """Matplotlib without a display, imported when it is needed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: str | Path) -> Path:
    """Writes and closes a figure."""
    kind = Path(path).suffix[1:].lower() or "png"  # Or matplotlib adds it to the name.
    known = figure.canvas.get_supported_filetypes()
    try:
        if kind not in known:
            raise InputError(
                f"a picture must end in .png or another of {', '.join(known)}, got {path}"
            )
        figure.savefig(path, dpi=DPI, format=kind)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        pyplot().close(figure)
    return Path(path)


def plot_learning_curve(workdir: str | Path) -> Path | None:
    """Draws the learning curve of a run.

    Args:
        workdir: directory of the run.

    Returns:
        Path of WORKDIR/learning_curve.png, or None where there is nothing to draw yet.
    """
    if not read_metrics(workdir):
        return None
    return plot_learning_curves([workdir], Path(workdir) / "learning_curve.png")


def plot_learning_curves(workdirs: Sequence[str | Path], path: str | Path) -> Path:
    """Draws nats per event against steps, of one run or of several on the same axes.

    Args:
        workdirs: directories of the runs.
        path: the PNG.

    Returns:
        The path.

    Raises:
        InputError: a run has no metrics yet, or the file cannot be written.
    """
    runs = {str(workdir): read_metrics(workdir) for workdir in workdirs}
    for workdir, records in runs.items():
        if not records:
            raise InputError(f"--workdirs: there are no metrics in {workdir}; train first")
    figure, axes = pyplot().subplots(figsize=(7, 4.5), layout="constrained")
    highest, lowest = [], []
    names = _short_names(list(runs))
    for number, (name, records) in enumerate(zip(names, runs.values(), strict=True)):
        color = f"C{number % 10}"
        curves = {kind: _curve(records, kind) for kind in ("train", "valid")}
        alone = len(runs) == 1
        for kind, (steps, nats) in curves.items():
            if not len(steps):
                continue
            style: dict[str, Any] = {"linewidth": 1, "alpha": 1 if alone else 0.4}
            if kind == "valid":
                style = {"marker": "o", "markersize": 4}
            if alone:
                style["label"] = kind
            elif kind == "valid" or not len(curves["valid"][0]):
                style["label"] = name
            axes.plot(steps, nats, color=f"C{kind == 'valid':d}" if alone else color, **style)
            # The first steps, far above all others, would press the curves flat.
            highest.append(nats[len(nats) // 20 :].max())
            lowest.append(nats.min())
    if highest:
        margin = 0.05 * (max(highest) - min(lowest)) or 0.05
        axes.set_ylim(min(lowest) - margin, max(highest) + margin)
        axes.legend(title=None if len(runs) == 1 else "validation (training thin)")
    axes.set_xlabel("training step")
    axes.set_ylabel("nats per event")
    axes.grid(alpha=0.3)
    units = (bits, lambda in_bits: in_bits / bits(1.0))
    axes.secondary_yaxis("right", functions=units).set_ylabel("bits per event")
    return save(figure, path)


def _curve(records: list[dict[str, Any]], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and nats per event, where they are finite numbers."""
    chosen = [
        (record["step"], record["nats_per_event"])
        for record in records
        if record["kind"] == kind and record.get("nats_per_event") is not None
    ]
    steps, nats = np.array(chosen, np.float64).reshape(-1, 2).T
    finite = np.isfinite(nats)
    return steps[finite], nats[finite]


def _short_names(workdirs: Sequence[str]) -> list[str]:
    """What tells the runs apart: their paths without the folders that they share."""
    paths = [os.path.abspath(workdir) for workdir in workdirs]
    if len(set(paths)) < 2:
        return [os.path.basename(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, shared) for path in paths]


def run() -> None:
    """Draws the learning curves that the flags name."""
    workdirs = [os.path.expanduser(w.strip()) for w in FLAGS.workdirs.split(",") if w.strip()]
    if not workdirs:
        raise InputError("--workdirs must name at least one directory of a run, got none")
    print(plot_learning_curves(workdirs, os.path.expanduser(FLAGS.output)))


def define_flags() -> None:
    """Defines the flags of the command."""
    define = flags.define
    define("string", "workdirs", "", "Directories of runs, parted by commas.")
    define("string", "output", "learning_curves.png", "The PNG to write.")


def main() -> None:
    """The command grnn-plot."""
    command.start(run, define_flags, __doc__)
