"""The rows of the tables that benchmarks/ahead_of_time.py prints."""

from collections.abc import Iterable
from typing import Any

NAMES = ("what", "cell", "engine", "method", "dtype", "inputs", "devices", "pass")
"""What a row may be told apart by, in this order."""


def header(result: dict[str, Any], platform: str) -> list[str]:
    """The names of the columns.

    Args:
        result: one row, as it stands in the JSON file.
        platform: what was compiled for.
    """
    named = [name for name in NAMES if name in result]
    unit = "cycles" if platform == "tpu" else "kernels"
    columns = [f"{unit} a step in loops", f"{unit} outside", "loops"]
    columns.append("cycles of a window" if platform == "tpu" else "MB of a window")
    if platform == "cuda":
        columns.append("host launches")
    if result["what"] == "train_step":
        columns += ["collectives", "donated and reused, MB"]
    return ["B x T x H", *named, *columns, "temporary MB"]


def row(result: dict[str, Any], platform: str) -> list[str]:
    """The cells of one row."""
    sizes = "x".join(str(result[name]) for name in ("batch_size", "length", "hidden_size"))
    named = [str(result[name]) for name in NAMES if name in result]
    if "failed" in result:
        missing = len(header(result, platform)) - len(named) - 2
        return [sizes, *named, result["failed"].replace("|", "/"), *[""] * missing]
    unit = "cycles" if platform == "tpu" else "kernels"
    loops = result["loops"]
    columns = [
        in_loops(loops, unit, result["length"]),
        f"{result[unit]:,}",
        " + ".join(_trips(loop) for loop in loops) or "none",
        f"{result['totals']['cycles']:,}"
        if platform == "tpu"
        else _megabytes(result["totals"]["bytes"]),
    ]
    if platform == "cuda":
        columns.append(_launches(result["host_launches"]))
    if result["what"] == "train_step":
        columns += [_collectives(result), _megabytes(result["aliased_bytes"])]
    return [sizes, *named, *columns, _megabytes(result["temporary_bytes"])]


def in_loops(loops: list[dict[str, Any]], unit: str, length: int) -> str:
    """Kernels or cycles of a step, one number for each loop.

    Args:
        loops: as `Counts.record` gives them.
        unit: "kernels" or "cycles".
        length: T.
    """
    found = []
    for loop in loops:
        number = _total(loop, unit)
        if loop["trips"] is None:
            found.append(f"{number:,.0f} an iteration")
            continue
        number *= loop["trips"] / length
        found.append(
            f"{number:,.0f}" if unit == "cycles" else f"{number:.2f}".rstrip("0").rstrip(".")
        )
    return " + ".join(found) or "0"


def _total(body: dict[str, Any], unit: str) -> int:
    """Kernels or cycles of a body with its inner loops."""
    inner = sum((loop["trips"] or 1) * _total(loop, unit) for loop in body["loops"])
    return int(body[unit]) + inner


def _trips(loop: dict[str, Any]) -> str:
    trips = "?" if loop["trips"] is None else str(loop["trips"])
    inner = " + ".join(_trips(inside) for inside in loop["loops"])
    return f"{trips}·({inner})" if inner else trips


def _launches(launches: dict[str, Any] | None) -> str:
    if launches is None:
        return "not known"
    return " + ".join([str(launches["outside"]), *(f"{n} each" for n in launches["loops"])])


def _collectives(result: dict[str, Any]) -> str:
    found: dict[str, int] = dict(result["collectives"])
    inside = sorted(set(_inside(result["loops"])))
    parts = [
        f"{result['kinds'][name]} {name}, {_megabytes(size)} MB" for name, size in found.items()
    ]
    return ", ".join(parts + [f"{name} in a loop" for name in inside]) or "none"


def _inside(loops: Iterable[dict[str, Any]]) -> list[str]:
    return [name for loop in loops for name in (*loop["collectives"], *_inside(loop["loops"]))]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}" if size else "0"
