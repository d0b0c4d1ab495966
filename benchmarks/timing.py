"""What the benchmarks share: interleaved timing, memory, the machine, versions, tables, JSON.

Implementations are compared in rounds: a round times each of them once, in an order shuffled
with a fixed seed, so that a slow minute of the machine falls on all of them alike. Ratios are
formed within a round, and their median over rounds is what counts.
"""

import gc
import importlib.metadata
import json
import os
import pathlib
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grnn_jax.sharding import num_cores

DISTRIBUTIONS = ("grnn_jax", "jax", "jaxlib", "flax", "optax", "dm-haiku", "equinox", "torch")


def interleave(
    runs: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    warmup: int = 2,
    seed: int = 0,
    pause: float = 0.005,
) -> dict[str, list[float]]:
    """Times every run once a round.

    Args:
        runs: name -> a function that returns when its work, on whatever device, is done.
        rounds: how often each run is timed.
        warmup: untimed calls of each run first (compilation, allocation).
        seed: of the order within rounds.
        pause: seconds of rest before a timed call, in which the worker threads that another
          library left spinning go to sleep.

    Returns:
        name -> seconds, one number per round; index r of every list is the same round.
    """
    for run in runs.values():
        for _ in range(warmup):
            run()
    order = list(runs)
    shuffler = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffler.shuffle(order)
            for name in order:
                time.sleep(pause)
                start = time.perf_counter()
                runs[name]()
                seconds[name].append(time.perf_counter() - start)
            gc.collect()
    finally:
        gc.enable()
    return seconds


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The median over rounds of numerator / denominator, each taken in the same round."""
    return statistics.median(n / d for n, d in zip(numerator, denominator, strict=True))


def summarize(seconds: Mapping[str, Sequence[float]], reference: str) -> dict[str, dict[str, Any]]:
    """Median, quartiles and the ratio to the reference for every implementation.

    Args:
        seconds: what `interleave` returned.
        reference: the name that ratios divide by; above 1 means slower than the reference.

    Returns:
        name -> {"median_ms", "quartiles_ms", "ratio", "seconds"}.
    """
    summary = {}
    for name, values in seconds.items():
        low, middle, high = (
            statistics.quantiles(values, n=4, method="inclusive")
            if len(values) > 1
            else (values[0],) * 3
        )
        summary[name] = {
            "median_ms": 1e3 * middle,
            "quartiles_ms": [1e3 * low, 1e3 * high],
            "ratio": median_ratio(values, seconds[reference]),
            "seconds": list(values),
        }
    return summary


def _cpu_model() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def machine() -> dict[str, Any]:
    """The CPU model, the cores this process may use, and the load before the measurement."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": _cpu_model(),
        "cores": num_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": load,
    }


def peak_memory() -> float:
    """Peak resident memory of this process, in MB.

    On Linux from /proc: `ru_maxrss` there starts at the peak of the process that launched this one.
    """
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        kilobytes = int(fields["VmHWM"].split()[0])
    except OSError:
        import resource

        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kilobytes //= 1024 if sys.platform == "darwin" else 1
    return kilobytes / 1024


def forget_peak() -> bool:
    """Starts `peak_memory` anew from what is resident now; says whether the system can."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def versions() -> dict[str, str]:
    """Python and every library of the comparison that is installed -> its version."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe() -> str:
    """The machine and the versions as lines of text, to print above a table."""
    host = machine()
    lines = [f"machine: {host['cpu']}, {host['cores']} cores, {host['system']}"]
    if host["load_average"] is not None:
        lines[0] += f", load average {host['load_average']:.2f}"
        if host["load_average"] > 0.5:
            lines.append("note: the machine was not idle before this run")
    lines.append("versions: " + ", ".join(f"{k} {v}" for k, v in versions().items()))
    return "\n".join(lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; first column left, the others right aligned."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def write_json(path: str, record: Mapping[str, Any]) -> None:
    """Writes the record, with machine and versions, to a JSON file."""
    whole = {"machine": machine(), "versions": versions(), **record}
    pathlib.Path(path).write_text(json.dumps(whole, indent=1) + "\n")
