"""The picture of a run: its learning curve, from metrics.jsonl."""

import math
from pathlib import Path

from grnn_jax.monitor import read_metrics


def plot_learning_curve(workdir: str | Path) -> Path | None:
    """Draws nats per event against steps, for training and validation.

    Args:
        workdir: directory of the run.

    Returns:
        Path of WORKDIR/learning_curve.png, or None where there is nothing to draw yet.
    """
    records = read_metrics(workdir)
    if not records:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for kind, style in (("train", {"linewidth": 1}), ("valid", {"marker": "o", "markersize": 4})):
        chosen = [r for r in records if r["kind"] == kind and r["nats_per_event"] is not None]
        if chosen:
            steps = [r["step"] for r in chosen]
            axes.plot(steps, [r["nats_per_event"] for r in chosen], label=kind, **style)
    axes.set_xlabel("training step")
    axes.set_ylabel("nats per event")
    axes.grid(alpha=0.3)
    axes.legend()
    units = (lambda nats: nats / math.log(2), lambda bits: bits * math.log(2))
    bits = axes.secondary_yaxis("right", functions=units)
    bits.set_ylabel("bits per event")
    path = Path(workdir) / "learning_curve.png"
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path
