"""Attacks every reader, run directory and command at random, and counts what goes wrong.

    python tests/attack.py --seed=1 --minutes=30

Tries at least 1,000 damaged files over every reader, 300 flipped bits over every file of a run
directory, 200 sets of flags over the six commands and 20 kills, then more files until the minutes
are over. Each attempt runs in a process of its own, with limits of time and memory, and ends in a
result or in one sentence; a traceback, a hang, memory beyond the limit, a crash, or a result that
is not what another reader finds, or that a whole run gives, is a fault. What was tried and how it
ended is printed as one JSON object; --keep names a folder where the faults' inputs are left.
"""

import argparse
import collections
import importlib.metadata
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# As the tests do (conftest.py): programs that run once are compiled without optimization.
CHEAP = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    CHEAP.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(CHEAP))

import tensorboardX  # noqa: E402, F401
from attacks import command_lines, flipped_bits, hostile_files, kills  # noqa: E402
from attacks.processes import BAD, GIB, Attempt, attempts  # noqa: E402
from attacks.seeds import make_seeds  # noqa: E402

import grnn_jax.cli.train  # noqa: E402, F401

COUNTS = {"files": 1000, "bits": 300, "flags": 200, "kills": 20}
"""The least that is tried of each."""
FILES = {"seconds": 30, "memory": 2 * GIB}
COMMANDS = {"seconds": 180, "memory": 24 * GIB}  # XLA reserves addresses that it never fills.


class Attack:
    """One attack: a folder, and how the attempts in it ended.

    Args:
        folder: everything is written there.
        seed: of all that is drawn.
        workers: attempts at once.
    """

    def __init__(self, folder: Path, seed: int, workers: int):
        self._folder, self._seed, self._workers = folder, seed, workers
        self._cache = folder / "cache"
        self._good = folder / "good"
        self.ends: dict[str, collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )
        self.faults: list[dict[str, Any]] = []
        self._seeds = make_seeds(folder / "seeds", seed)
        for name in ("files", "bits", "flags", "kills"):
            (folder / name).mkdir()
        self._files = hostile_files.cases(self._seeds, folder / "files", seed)

    def _count(self, kind: str, ended: Iterable[Attempt]) -> None:
        for attempt in ended:
            self.ends[kind][attempt.end] += 1
            if attempt.end in BAD:
                fault = {"kind": kind, "end": attempt.end, "case": attempt.case}
                self.faults.append(fault | {"text": attempt.text})
                last = (attempt.text.strip().splitlines() or [""])[-1]
                print(f"{kind}: {attempt.end} {json.dumps(attempt.case)[:600]}: {last}", flush=True)

    def _attempts(
        self, function: Any, cases: Iterable[Any], limits: dict[str, int]
    ) -> Iterator[Attempt]:
        return attempts(function, cases, self._folder, workers=self._workers, **limits)

    def _values(self, function: Any, cases: Iterable[Any]) -> list[Any]:
        """What good input gives; anything but a result ends the attack."""
        ended = attempts(function, cases, self._folder, workers=1, **COMMANDS)
        values = []
        for attempt in ended:
            if attempt.end != "done":
                raise RuntimeError(f"{attempt.case}: {attempt.end}: {attempt.text}")
            values.append(attempt.value)
        return values

    def seeds(self) -> None:
        """Checks that good files are read: what is refused for another reason attacks nothing."""
        whole = self._folder / "whole"
        whole.mkdir()
        cases = []
        for number, seed in enumerate(self._seeds):
            path = whole / f"{number}-{seed.path.name}"
            shutil.copy(seed.path, path)
            cases.append({"path": str(path), "format": seed.format, "settings": seed.settings})
        self._values(hostile_files.read, cases)

    def files(self, count: int) -> None:
        """Reads damaged files."""
        ended = self._attempts(hostile_files.read, itertools.islice(self._files, count), FILES)
        self._count("files", ended)

    def train(self) -> None:
        """Trains the run that the other attacks damage."""
        self._good.mkdir()
        self._values(lambda _: flipped_bits.make_run(self._good, self._cache), ["run"])

    def bits(self, count: int) -> None:
        """Flips bits of the run."""
        expected = {}
        for resume in (False, True):
            copy = self._folder / "bits" / f"whole{resume}"
            shutil.copytree(self._good, copy)
            case = {"folder": str(copy), "cache": str(self._cache), "resume": resume}
            expected[resume] = self._values(flipped_bits.outcome, [case])[0]["nats"]
        arguments = (self._good, self._folder / "bits", self._cache, expected, self._seed)
        cases = itertools.islice(flipped_bits.cases(*arguments), count)
        self._count("bits", self._attempts(flipped_bits.flipped, cases, COMMANDS))

    def flags(self, count: int) -> None:
        """Runs commands with random flags."""
        names = command_lines.SCRIPTS
        known = dict(zip(names, self._values(command_lines.flags_of, names), strict=True))
        arguments = (known, self._good, self._folder / "flags", self._cache, self._seed)
        cases = itertools.islice(command_lines.cases(*arguments), count)
        self._count("flags", self._attempts(command_lines.run, cases, COMMANDS))

    def kills(self, count: int) -> None:
        """Kills commands, `kills.KILLS` times each."""
        expected = {}
        for train in (True, False):
            case = {
                "folder": str(self._good), "copy": str(self._folder / "kills" / f"whole{train}"),
                "cache": str(self._cache), "train": train, "moments": [], "expected": None,
            }  # fmt: skip
            expected[train] = self._values(kills.outcome, [case])[0]
        arguments = (self._good, self._folder / "kills", self._cache, expected, self._seed)
        cases = itertools.islice(kills.cases(*arguments), -(-count // kills.KILLS))
        # One at a time: the moments of the kills are parts of the time that a run takes alone.
        limits = COMMANDS | {"seconds": COMMANDS["seconds"] * kills.KILLS}
        ended = list(attempts(kills.outcome, cases, self._folder, workers=1, **limits))
        self._count("kills", ended)
        done = [attempt.value["cut"] for attempt in ended if attempt.end == "done"]
        self.ends["kills"]["killed before the end"] = sum(done)


def attack(
    folder: Path, seed: int, counts: dict[str, int], minutes: float = 0, workers: int = 2
) -> Attack:
    """Runs a whole attack.

    Args:
        folder: an empty folder for it.
        seed: of all that is drawn.
        counts: the least that is tried of "files", "bits", "flags" and "kills".
        minutes: files are tried on until they are over.
        workers: attempts at once.

    Returns:
        The attack with its counts and faults.
    """
    begin = time.monotonic()
    ours = Attack(folder, seed, workers)
    ours.seeds()
    ours.files(counts["files"])
    if counts["bits"] or counts["flags"] or counts["kills"]:
        ours.train()
    for kind in ("flags", "bits", "kills"):
        if counts[kind]:
            getattr(ours, kind)(counts[kind])
    while time.monotonic() - begin < 60 * minutes:
        ours.files(100)
    return ours


def main() -> None:
    """Attacks, and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30, help="the least time it takes")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="folder that is kept, with the faults")
    for name, count in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=count, help=f"at least so many {name}")
    arguments = parser.parse_args()
    counts = {name: getattr(arguments, name) for name in COUNTS}
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        if arguments.keep:
            folder = str(arguments.keep.absolute())
            arguments.keep.mkdir(parents=True)
        ours = attack(Path(folder), arguments.seed, counts, arguments.minutes, arguments.workers)
        if arguments.keep:
            (arguments.keep / "faults.json").write_text(json.dumps(ours.faults, indent=1))
    ends = {kind: dict(counter) for kind, counter in ours.ends.items()}
    minutes = round((time.monotonic() - begin) / 60, 1)
    print(json.dumps({"seed": arguments.seed, "minutes": minutes, **ends}))
    sys.exit(bool(ours.faults))


if __name__ == "__main__":
    main()
