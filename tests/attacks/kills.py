"""Kills commands at random moments; what they end with is what they had without."""

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attacks.flipped_bits import RESUME, data
from attacks.processes import WrongResultError, end_process
from attacks.scripts import command
from grnn_jax.monitor import read_metrics

TRAIN = (*RESUME, "--num_steps=40", "--log_every=1", "--checkpoint_every=1")
SAMPLE = ("sample", "--workdir=run", "--num_samples=20000", "--output=lines.txt")
KILLS = 5
"""So often is a command killed before it may end."""
CLOCKS = ("events_per_second", "seconds_per_step")


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    """Runs a command to its end, after it was killed some times.

    Args:
        case: "folder" with a run, which is copied to "copy"; "cache"; whether to "train" or to
          sample; "moments": seconds after which the command is killed, each time anew, until
          `KILLS` of them met it on its way; "expected": what it leaves otherwise, or None.

    Returns:
        "left": what identifies the result; "seconds" of the last start; "cut": how many kills met
        the command on its way.

    Raises:
        WrongResultError: the result is another one.
    """
    folder, cache = Path(case["copy"]), Path(case["cache"])
    shutil.copytree(case["folder"], folder)
    arguments = (*TRAIN, data(cache)) if case["train"] else SAMPLE
    cut = 0
    for seconds in case["moments"]:
        if cut == KILLS:
            break
        process = os.fork()
        if process == 0:
            try:
                command(folder, cache, *arguments)
            finally:
                end_process(0)
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL:
            cut += 1
        else:  # It was at its end already: from the beginning.
            shutil.rmtree(folder)
            shutil.copytree(case["folder"], folder)
    begin = time.monotonic()
    command(folder, cache, *arguments)
    seconds = time.monotonic() - begin
    left = _left_by_training(folder) if case["train"] else _digest(folder / "lines.txt")
    if case["expected"] not in (None, left):
        raise WrongResultError(f"another result after kills at {case['moments']}")
    if not case["train"]:
        names = {path.name for path in folder.iterdir()} - {"run", "lines.txt"}
        if names:
            raise WrongResultError(f"{names} are left beside the samples")
    shutil.rmtree(folder)
    return {"left": left, "seconds": seconds, "cut": cut}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _left_by_training(folder: Path) -> str:
    """Every logged number but the clocks: a step that differs shows in all after it."""
    records = [
        {name: value for name, value in record.items() if name not in CLOCKS}
        for record in read_metrics(folder / "run")
    ]
    return hashlib.sha256(json.dumps(records).encode()).hexdigest()


def cases(
    good: Path, folder: Path, cache: Path, expected: dict[bool, dict[str, Any]], seed: int
) -> Iterator[dict[str, Any]]:
    """Runs that are killed five times each, without end; training and sampling in turn.

    Args:
        good: the folder of a run.
        folder: for the copies.
        cache: folder of compiled programs.
        expected: what `outcome` returned without kills, for training (True) and sampling (False).
        seed: of the moments.

    Yields:
        JSON for `outcome`.
    """
    rng = random.Random(seed)
    number = 0
    while True:
        for train in (True, False):
            number += 1
            whole = expected[train]
            moments = [rng.uniform(0, whole["seconds"]) for _ in range(4 * KILLS)]
            yield {
                "folder": str(good), "copy": str(folder / f"killed{number}"), "cache": str(cache),
                "train": train, "moments": moments, "expected": whole["left"],
            }  # fmt: skip
