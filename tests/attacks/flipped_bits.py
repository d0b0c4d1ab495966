"""Flips single bits of a run directory, then scores the run or goes on with it."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attacks.processes import WrongResultError
from attacks.scripts import TINY, Printed, command
from grnn_jax.monitor import read_metrics

SCORE, RESUME = ("evaluate", "--workdir=run"), ("train", "--workdir=run", *TINY, "--format=lines")
NUM_STEPS = 4


def data(cache: Path) -> str:
    """The flag that names the data, which lie beside the compiled programs and stay whole."""
    return f"--data={cache.parent / 'text.txt'}"


def make_run(folder: Path, cache: Path) -> None:
    """Trains the run that is damaged, in an attempt of its own.

    Args:
        folder: where "run" is made.
        cache: folder of compiled programs.
    """
    folder.mkdir(exist_ok=True)
    words = ("an", "old", "cat", "sat", "there")
    rng = random.Random(0)
    lines = (" ".join(rng.choices(words, k=4)) + "\n" for _ in range(100))
    (cache.parent / "text.txt").write_text("".join(lines))
    command(folder, cache, *RESUME, data(cache), f"--num_steps={NUM_STEPS}")


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    """Scores the run of a folder, or goes on with it.

    Args:
        case: "folder", "cache", and whether to "resume"; "flip": file and bit, or None.

    Returns:
        "nats" per event, and whether the log "warned".
    """
    folder, cache = Path(case["folder"]), Path(case["cache"])
    if case["resume"]:
        printed = command(folder, cache, *RESUME, data(cache), f"--num_steps={2 * NUM_STEPS}")
        records = [record for record in read_metrics(folder / "run") if record["kind"] == "valid"]
        return {"nats": records[-1]["nats_per_event"], **_warned(printed)}
    printed = command(folder, cache, *SCORE)
    return {"nats": json.loads(printed.out.splitlines()[-1])["nats_per_event"], **_warned(printed)}


def _warned(printed: Printed) -> dict[str, bool]:
    return {"warned": " warning: " in printed.err}


def flipped(case: dict[str, Any]) -> dict[str, Any]:
    """Flips a bit of a copy of a run, and does as `outcome`.

    Args:
        case: as for `outcome`; "good": the folder that is copied; "expected": nats per event of
          the whole run.

    Returns:
        As `outcome`.

    Raises:
        WrongResultError: other nats, and not a word of it.
    """
    folder = Path(case["folder"])
    shutil.copytree(case["good"], folder)
    name, bit = case["flip"]
    data = bytearray((folder / name).read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    (folder / name).write_bytes(data)
    result = outcome(case)
    if result["nats"] != case["expected"] and not result["warned"]:
        raise WrongResultError(
            f"{result['nats']} in place of {case['expected']}, without a warning"
        )
    shutil.rmtree(folder)  # What is well is not kept.
    return result


def cases(
    good: Path, folder: Path, cache: Path, expected: dict[bool, float], seed: int
) -> Iterator[dict[str, Any]]:
    """Flips without end, the files of the run in turn.

    Args:
        good: the folder of the run.
        folder: for the copies.
        cache: folder of compiled programs.
        expected: nats per event of the whole run, scored (False) and gone on with (True).
        seed: of what is flipped.

    Yields:
        JSON for `flipped`.
    """
    rng = random.Random(seed)
    files = sorted(path for path in good.rglob("*") if path.is_file() and path.stat().st_size)
    latest = good / "run" / "checkpoints" / "latest" / str(NUM_STEPS)
    number = 0
    while True:
        for path in files:
            number += 1
            resume = latest in path.parents or number % 8 == 0  # Only that reads the latest.
            yield {
                "good": str(good),
                "folder": str(folder / str(number)),
                "cache": str(cache),
                "resume": resume,
                "expected": expected[resume],
                "flip": [str(path.relative_to(good)), rng.randrange(8 * path.stat().st_size)],
            }
