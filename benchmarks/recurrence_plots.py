"""Cost against length, batch size or width on logarithmic axes."""

from typing import Any

KEYS = {"H": "hidden_size", "B": "batch_size", "T": "length"}
NAMES = {"H": "hidden size H", "B": "batch size B", "T": "length T [steps]"}
LIMIT = "products alone"
"""The row of a cell's products without the cell."""


def plot(path: str, results: list[dict[str, Any]], sweep: str, held: str) -> None:
    """Draws time and memory of every engine, one column of panels for each cell.

    Solid lines are forward + backward, dashed ones forward alone; grey dots show the slope of a
    cost in proportion to what is swept.

    Args:
        path: where the figure is written; its ending chooses the format.
        results: entries of benchmarks/recurrence.py.
        sweep: "H", "B" or "T".
        held: the sizes that do not vary, in words.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    by_cell: dict[str, list[dict[str, Any]]] = {}
    for entry in results:
        by_cell.setdefault(entry["cell"], []).append(entry)
    engines = list(dict.fromkeys(n for e in results for n in e["temporary_mb"] if n != LIMIT))
    colors = {engine: f"C{number % 10}" for number, engine in enumerate(engines)}
    colors[LIMIT] = "black"
    figure, axes = plt.subplots(
        2, len(by_cell), figsize=(1.2 + 3.2 * len(by_cell), 6.4), squeeze=False, sharex=True,
        sharey="row", layout="constrained",
    )  # fmt: skip
    for column, (cell, entries) in enumerate(by_cell.items()):
        entries = sorted(entries, key=lambda entry: entry[KEYS[sweep]])
        time_axes, memory_axes = axes[:, column]
        highest = {"time": 0.0, "memory": 0.0}
        for engine in colors:
            of_engine = [entry for entry in entries if engine in entry["temporary_mb"]]
            if not of_engine:
                continue
            swept = [entry[KEYS[sweep]] for entry in of_engine]
            style = {"color": colors[engine], "marker": "o", "markersize": 3, "linewidth": 1.3}
            for pass_name, line in (("forward + backward", "-"), ("forward", "--")):
                times = [entry[pass_name][engine]["median_ms"] for entry in of_engine]
                label = engine if line == "-" else None
                time_axes.plot(swept, times, line, label=label, **style)
                highest["time"] = max(highest["time"], times[-1])
            if engine != LIMIT:
                memory = [entry["temporary_mb"][engine] for entry in of_engine]
                memory_axes.plot(swept, memory, "-", **style)
                highest["memory"] = max(highest["memory"], memory[-1])
        ends = entries[0][KEYS[sweep]], entries[-1][KEYS[sweep]]
        for panel, top in zip((time_axes, memory_axes), highest.values(), strict=True):
            if top > 0 and ends[0] < ends[1]:
                slope = [2 * top * ends[0] / ends[1], 2 * top]
                panel.plot(ends, slope, ":", color="grey", linewidth=1, label=f"∝ {sweep}")
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.grid(True, which="major", alpha=0.3)
        time_axes.set_title(cell)
        memory_axes.set_xlabel(NAMES[sweep])
    axes[0, 0].set_ylabel("time [ms]")
    axes[1, 0].set_ylabel("XLA temporaries [MB]")
    handles: dict[str, Any] = {}
    for panel in axes[0]:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    handles = dict(sorted(handles.items(), key=lambda item: "∝" in item[0]))
    columns = min(len(handles), max(2, 2 * len(by_cell)))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
    figure.suptitle(f"{held}\nsolid: forward + backward, dashed: forward", fontsize="medium")
    figure.savefig(path, dpi=150)
    plt.close(figure)
