"""One run of benchmarks/accelerator.py: what is done while time is left, and kept in a JSON file.

Programs are compiled several at a time, those of the next rows together, and never while
something is timed. After every row the file is written, so that whatever ends a run, the next one
with --resume goes on behind it.
"""

import concurrent.futures
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import accelerator_checks
import chips
import jax
import jax.numpy as jnp
import numpy as np
import timing
from accelerator_peers import peer_programs
from accelerator_programs import Prepared, ceilings, is_own, own_programs
from accelerator_rows import Row, work
from accelerator_targets import target
from device_time import NoDeviceTimeError, device_times

AGREEMENT = {"float32": 1e-3, "tensorfloat32": 5e-2, "bfloat16": 2e-1}
"""A larger difference from a scan, relative to the largest entry, is noted beside a time: long rows
of narrow types may drift apart, wrong results are another matter."""
ROUNDS = range(3, 10)
TIMED = 1.0
"""Seconds that the timed runs of a row are to take together; what is slower gets fewer rounds."""
T = TypeVar("T")


class Settings(NamedTuple):
    """What a run is asked for.

    Attributes:
        path: the JSON file.
        budget: seconds after which nothing new is begun, counted from `began`.
        check_share: part of the budget that checks may take.
        engines: names of engines, or ["all"].
        threads: programs compiled at a time.
        small: tiny sizes.
        began: `time.monotonic()` when the command began.
    """

    path: pathlib.Path
    budget: float
    check_share: float
    engines: list[str]
    threads: int
    small: bool
    began: float


class DeviceLostError(Exception):
    """Nothing runs on the device any more; a new process may find it well again."""


class StaleRecordError(Exception):
    """The JSON file was measured on another device or with other versions."""


class Session:
    """Runs what is not in the record yet, in order, while time is left."""

    def __init__(self, settings: Settings, resume: bool):
        """Reads the record to go on from, or begins a new one.

        Raises:
            StaleRecordError: to go on would mix two devices, or versions.
        """
        self.settings = settings
        device = jax.devices()[0]
        found = {"device": device.device_kind, "platform": device.platform}
        found |= {"versions": timing.versions()}
        self.record: dict[str, Any] = {**found, "ceilings": {}, "checks": {}, "rows": {}}
        if resume and settings.path.exists():
            self.record = json.loads(settings.path.read_text())
            for key, value in found.items():
                if self.record[key] != value and settings.budget > 0:  # Else it is only printed.
                    raise StaleRecordError(
                        f"{settings.path} was measured with {key} {self.record[key]}, here it is "
                        f"{value}"
                    )
        self.chip = chips.chip_of(device.device_kind)
        self.on_cpu = device.platform == "cpu"

    def save(self) -> None:
        """Writes the record beside its name first: a killed run leaves the last whole one."""
        draft = self.settings.path.with_suffix(".partial")
        draft.write_text(json.dumps(self.record, indent=1) + "\n")
        draft.replace(self.settings.path)

    def left(self, share: float = 1.0) -> float:
        """Seconds that are left of a share of the budget."""
        return share * self.settings.budget - (time.monotonic() - self.settings.began)

    def _waves(self, items: Sequence[T], size: int, share: float = 1.0) -> Iterable[Sequence[T]]:
        """Several items at a time, while there is time for as many as took longest so far."""
        longest = 0.0
        for start in range(0, len(items), size):
            if self.left(share) <= longest:
                return
            began = time.monotonic()
            yield items[start : start + size]
            longest = max(longest, time.monotonic() - began)

    def measure_ceilings(self) -> None:
        """What the device reaches of its data sheet."""
        if self.record["ceilings"] or self.left() <= 0:
            return
        for name, prepare in ceilings(self.settings.small).items():
            ceiling = _attempt(prepare)
            if isinstance(ceiling, Exception):
                print(f"no measured rate of {name}: {_reason(ceiling)}", flush=True)
                continue
            times = self._time({name: ceiling.prepared})[name]
            self.record["ceilings"][name] = ceiling.amount / (1e-3 * times["ms"])
        self.save()

    def run_checks(self, checks: Sequence[accelerator_checks.Check]) -> None:
        """Checks what was not checked yet, and prints what is wrong."""
        todo = [check for check in checks if check.name not in self.record["checks"]]
        with concurrent.futures.ThreadPoolExecutor(self.settings.threads) as pool:
            for wave in self._waves(todo, self.settings.threads, self.settings.check_share):
                prepared = list(pool.map(self._prepare_check, wave))
                for check, engines in zip(wave, prepared, strict=True):
                    found = {name: self._finish_check(ready) for name, ready in engines.items()}
                    self.record["checks"][check.name] = found
                    for name, outcome in found.items():
                        if outcome["wrong"] is not None:
                            print(f"WRONG {check.name}, {name}: {outcome['wrong']}", flush=True)
                    self.save()
                    self._look_after_device(f"{check.name}")

    def _prepare_check(self, check: accelerator_checks.Check) -> dict[str, Any]:
        try:
            case = accelerator_checks.make_case(check)
            names = accelerator_checks.engines_of(check, self.settings.engines)
        except Exception as error:
            return {"all": error}
        run_check = accelerator_checks.run_check
        return {name: _attempt(lambda n=name: run_check(check, case, n)) for name in names}

    def _finish_check(self, ready: Any) -> dict[str, Any]:
        found = ready if isinstance(ready, Exception) else _attempt(ready)
        if isinstance(found, Exception):
            return {"difference": None, "wrong": _reason(found)}
        return found._asdict()

    def wrong_engines(self, cell: str, dtype: str) -> dict[str, str]:
        """Engines that failed a check of a cell and type, with the first thing that was wrong."""
        wrong: dict[str, str] = {}
        for name, found in self.record["checks"].items():
            if name.startswith(f"{cell} ") and f", {dtype}, " in name:
                for engine, outcome in found.items():
                    if outcome["wrong"] is not None:
                        wrong.setdefault(engine, f"wrong: {outcome['wrong']}")
        return wrong

    def run_rows(self, rows: Sequence[Row], report: Callable[[Row, dict[str, Any]], None]) -> None:
        """Times what was not timed yet.

        Args:
            rows: in order of worth.
            report: called with every row and what was found, once it is there.
        """
        todo = [row for row in rows if row.name not in self.record["rows"]]
        size = max(1, self.settings.threads // 4)  # A row has four programs or more.
        with concurrent.futures.ThreadPoolExecutor(self.settings.threads) as pool:
            for wave in self._waves(todo, size):
                prepared = [self._prepare_row(pool, row) for row in wave]
                # All are compiled before the first one runs: what compiles takes processor time.
                concurrent.futures.wait([f for futures in prepared for f in futures.values()])
                for row, futures in zip(wave, prepared, strict=True):
                    entry = self._finish_row(row, {n: f.result() for n, f in futures.items()})
                    self.record["rows"][row.name] = entry
                    self.save()
                    report(row, entry)
                    self._look_after_device(row.name)
                    futures.clear()  # With the programs go their arrays.

    def _prepare_row(
        self, pool: concurrent.futures.Executor, row: Row
    ) -> dict[str, concurrent.futures.Future[Any]]:
        wrong = self.wrong_engines(row.cell, row.dtype)
        try:
            programs: Any = own_programs(row, self.settings.engines) | peer_programs(row)
        except Exception as error:
            programs, wrong = {"auto": None}, {"auto": _reason(error)}

        def prepare(name: str) -> Any:
            engine = name.split(",")[0]
            return RuntimeError(wrong[engine]) if engine in wrong else _attempt(programs[name])

        return {name: pool.submit(prepare, name) for name in programs}

    def _finish_row(self, row: Row, prepared: dict[str, Any]) -> dict[str, Any]:
        failed = {n: _reason(p) for n, p in prepared.items() if isinstance(p, Exception)}
        ready: dict[str, Prepared] = {n: p for n, p in prepared.items() if n not in failed}
        doubts: dict[str, str] = {}
        reference: Any = None
        for name in sorted(ready, key=lambda name: name != "scan"):
            result = _attempt(ready[name].run)
            if isinstance(result, Exception):
                failed[name] = _reason(result)
            elif is_own(name) and ready[name].comparable:
                reference = result if reference is None else reference
                difference = largest_difference(result, reference)
                if np.isnan(difference):
                    failed[name] = "wrong: NaN"
                elif difference > AGREEMENT[row.dtype]:
                    doubts[name] = f"differs by {difference:.1e} from the scan engine"
        reference = result = None
        ready = {name: program for name, program in ready.items() if name not in failed}
        times = _attempt(lambda: self._time(ready))
        if isinstance(times, Exception):
            failed |= dict.fromkeys(ready, _reason(times))
            times = {}
        floor = None if self.chip is None else 1e3 * work(row).floor(self.chip, row.dtype)
        entry = {"row": row._asdict(), "floor_ms": floor, "programs": times}
        entry |= {"failed": failed, "doubts": doubts}
        milliseconds = {name: found["ms"] for name, found in times.items()}
        # A CPU runs tiny sizes, to which no target applies.
        entry["target"] = "" if self.on_cpu else target(row, milliseconds, floor)
        return entry

    def _time(self, programs: dict[str, Prepared]) -> dict[str, dict[str, Any]]:
        """Median times: the device's own where the profiler tells them, else the host's."""
        if not programs:
            return {}
        runs = {name: program.run for name, program in programs.items()}
        began = time.monotonic()
        for run in runs.values():
            run()
        rounds = int(TIMED / max(time.monotonic() - began, 1e-9))
        rounds = min(max(rounds, ROUNDS[0]), ROUNDS[-1])
        seconds = timing.interleave(runs, rounds, warmup=0)
        found: dict[str, dict[str, Any]] = {
            name: {"clock": "host", "ms": 1e3 * float(np.median(times)), "rounds": rounds}
            for name, times in seconds.items()
        }
        if self.on_cpu:
            return found
        try:
            on_device = device_times(runs, min(rounds, 5))
        except (NoDeviceTimeError, RuntimeError) as error:
            for entry in found.values():
                entry["note"] = _reason(error)
            return found
        for name, times in on_device.items():
            spans, busy, events = zip(*times, strict=True)
            found[name] |= {
                "clock": "device",
                "host_ms": found[name]["ms"],
                "ms": 1e3 * float(np.median(spans)),
                "busy_ms": 1e3 * float(np.median(busy)),
                "spread": float((max(spans) - min(spans)) / np.median(spans)),
                "events": int(np.median(events)),
            }
        return found

    def _look_after_device(self, after: str) -> None:
        """Raises DeviceLostError if the device does not answer any more."""
        try:
            jax.block_until_ready(jnp.zeros(1) + 1)
        except Exception as error:
            raise DeviceLostError(
                f"the device was lost at {after} ({_reason(error)}); the same command with "
                "--resume goes on in a new process"
            ) from error


def largest_difference(found: Any, expected: Any) -> float:
    """Over all arrays, the largest difference relative to the array's largest entry."""

    def of_array(a: jax.Array, b: jax.Array) -> float:
        return float(jnp.abs(a - b).max() / jnp.maximum(jnp.abs(b).max(), 1e-6))

    return max(jax.tree.leaves(jax.tree.map(of_array, found, expected)))


def _attempt(function: Callable[[], Any]) -> Any:
    """What the function returns, or the exception that it raises: one failure ends no row."""
    try:
        return function()
    except Exception as error:
        return error


def _reason(error: BaseException) -> str:
    """One line that says what kept a program from running."""
    lines = str(error).splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}" if lines[0] else type(error).__name__
    return text[:160]
