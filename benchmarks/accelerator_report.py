"""What benchmarks/accelerator.py found, as a table and as a plot."""

from collections.abc import Sequence
from typing import Any

import timing
from accelerator_programs import is_own
from accelerator_rows import Row


def line(row: Row, entry: dict[str, Any]) -> str:
    """A row in one line, for those who watch."""
    steps = 1e3 / row.length
    parts = [f"{name} {found['ms'] * steps:.3g}" for name, found in entry["programs"].items()]
    if entry["floor_ms"] is not None:
        parts.append(f"floor {entry['floor_ms'] * steps:.2g}")
    parts += [f"{n}: {reason}" for n, reason in (entry["failed"] | entry["doubts"]).items()]
    parts += [entry["target"]] * bool(entry["target"])
    return f"{row.name} [µs a step]: " + "; ".join(parts)


def markdown(record: dict[str, Any], rows: Sequence[Row], checks: Sequence[str]) -> str:
    """The whole report.

    Args:
        record: of a session.
        rows: all that were wanted, also those that did not fit into the budget.
        checks: names of all checks that were wanted.
    """
    parts = [f"Device: {record['device']} ({record['platform']})"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    parts.append(f"Versions: {versions}")
    ceilings = [
        f"{name} {rate / 1e12:.3g} {'TB/s' if name == 'bandwidth' else 'TFLOP/s'}"
        for name, rate in record["ceilings"].items()
    ]
    parts.append("Measured rates: " + (", ".join(ceilings) or "not run"))
    parts.append(_checks(record["checks"], checks))
    parts.append(_times(record["rows"], rows))
    return "\n\n".join(parts) + "\n"


def _checks(found: dict[str, Any], wanted: Sequence[str]) -> str:
    """A row for each cell and engine, a column for each type: the largest difference."""
    cells: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    dtypes: dict[str, None] = {}
    for name, engines in found.items():
        cell, dtype = name.split(" ", 1)[0], name.split(", ")[3]
        dtypes.setdefault(dtype)
        for engine, outcome in engines.items():
            cells.setdefault((cell, engine), {}).setdefault(dtype, []).append(outcome)

    def entry(outcomes: list[dict[str, Any]]) -> str:
        if not outcomes:
            return "not run"
        wrong = [outcome["wrong"] for outcome in outcomes if outcome["wrong"] is not None]
        largest = max((o["difference"] for o in outcomes if o["difference"] is not None), default=0)
        return f"WRONG: {wrong[0]}" if wrong else f"{largest:.1e}"

    table = [
        [f"{cell}, {engine}", *(entry(of_types.get(dtype, [])) for dtype in dtypes)]
        for (cell, engine), of_types in cells.items()
    ]
    missing = sum(name not in found for name in wanted)
    text = f"Checks: {len(found)} of {len(wanted)}; not run: {missing}."
    if not table:
        return text
    title = "largest difference to float64, relative to the largest entry"
    return f"{text}\n\n" + timing.markdown_table([title, *dtypes], table)


def _times(found: dict[str, Any], rows: Sequence[Row]) -> str:
    """A row for each computation, a column for each program: µs a step of the median run."""
    names = list(dict.fromkeys(n for entry in found.values() for n in _programs(entry)))
    names.sort(key=lambda name: not is_own(name))
    table = []
    for row in rows:
        entry = found.get(row.name)
        if entry is None:
            table.append([row.name, "", *[""] * len(names), "not run"])
            continue
        steps = 1e3 / row.length
        floor = "" if entry["floor_ms"] is None else f"{entry['floor_ms'] * steps:.2g}"
        texts = [_time(entry, name, steps) for name in names]
        table.append([row.name, floor, *texts, entry["target"]])
    failures: dict[str, list[str]] = {}
    for row in rows:
        entry = found.get(row.name, {"failed": {}, "doubts": {}})
        for name, reason in (entry["failed"] | entry["doubts"]).items():
            failures.setdefault(f"{name}: {reason}", []).append(row.name)
    clocks = {p["clock"] for entry in found.values() for p in entry["programs"].values()}
    parts = [
        f"Times: {sum(row.name in found for row in rows)} of {len(rows)} rows. Clock: "
        f"{' and '.join(sorted(clocks)) or 'none'} (*: the host's in place of "
        "the device's; ?: see below).",
        timing.markdown_table(["µs a step", "floor", *names, "target"], table),
    ]
    parts += [
        f"- {reason} ({len(where)} rows, first {where[0]})" for reason, where in failures.items()
    ]
    return "\n\n".join(parts[:2]) + "\n\n" + "\n".join(parts[2:])


def _programs(entry: dict[str, Any]) -> list[str]:
    return [*entry["programs"], *entry["failed"]]


def _time(entry: dict[str, Any], name: str, steps: float) -> str:
    if name in entry["failed"]:
        return "failed"
    if name not in entry["programs"]:
        return "–"
    found = entry["programs"][name]
    marks = "*" * ("note" in found) + "?" * (name in entry["doubts"])
    return f"{found['ms'] * steps:.3g}{marks}"


def plot(path: str, record: dict[str, Any], rows: Sequence[Row]) -> None:
    """Draws µs a step of every program, a panel for each kind of row, the floor as a bar.

    Args:
        path: where the figure is written; its ending chooses the format.
        record: of a session.
        rows: all rows, in order; those that were not run are left out.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    done = [row for row in rows if record["rows"].get(row.name, {}).get("programs")]
    kinds = list(dict.fromkeys(row.kind for row in done))
    names = list(dict.fromkeys(n for row in done for n in record["rows"][row.name]["programs"]))
    colors = {name: f"C{number % 10}" for number, name in enumerate(names)}
    counts = [sum(row.kind == kind for row in done) for kind in kinds] or [1]
    figure, axes = plt.subplots(
        len(counts), 1, figsize=(9, 1.5 + 0.22 * sum(counts) + 0.6 * len(counts)), squeeze=False,
        height_ratios=counts, layout="constrained",
    )  # fmt: skip
    for panel, kind in zip(axes[:, 0], kinds, strict=False):
        of_kind = [row for row in done if row.kind == kind]
        for height, row in enumerate(of_kind):
            entry, steps = record["rows"][row.name], 1e3 / row.length
            if entry["floor_ms"] is not None:
                panel.plot([entry["floor_ms"] * steps], [height], "|", color="black", markersize=9)
            for name, found in entry["programs"].items():
                marker = "o" if is_own(name) else "s"
                panel.plot(
                    [found["ms"] * steps], [height], marker, color=colors[name], markersize=4
                )
        labels = [row.name.removesuffix(f", {kind}") for row in of_kind]
        panel.set_yticks(range(len(of_kind)), labels, fontsize=6)
        panel.invert_yaxis()
        panel.set_xscale("log")
        panel.grid(True, axis="x", alpha=0.3)
        panel.set_title(f"{kind}, µs a step", fontsize="medium")
    handles = [
        plt.Line2D([], [], linestyle="", marker="o" if is_own(n) else "s", color=c, label=n)
        for n, c in colors.items()
    ]
    handles.append(plt.Line2D([], [], linestyle="", marker="|", color="black", label="floor"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")
    figure.suptitle(record["device"])
    figure.savefig(path, dpi=150)
    plt.close(figure)
