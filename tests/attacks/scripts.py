"""Runs the commands inside an attempt, and judges what they printed and how they ended."""

import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from fork_server import SCRIPTS, run_script

from attacks.processes import WrongResultError
from grnn_jax.errors import InputError

TINY = (
    "--hidden_size=8", "--batch_size=4", "--eval_batch_size=4", "--sequence_length=16",
    "--schedule=constant", "--log_every=2", "--eval_every=2", "--checkpoint_every=2",
    "--dropout=0.1", "--noshow_sample",
)  # fmt: skip
"""Flags of a run that takes no time."""


class Printed(NamedTuple):
    """What a command left: its exit status, its output and its log."""

    status: int
    out: str
    err: str


def command(cwd: Path, cache: Path, script: str, *flags: str) -> Printed:
    """Runs a command in this process, which can run no other after it.

    Args:
        cwd: where it runs.
        cache: folder of compiled programs.
        script: its name.
        *flags: its flags.

    Returns:
        What it left.

    Raises:
        InputError: it ended in one sentence, with status 1.
        WrongResultError: it ended otherwise, and said nothing fit for a user.
        RuntimeError: it ended in a traceback.
        MemoryError: it ran out of memory.
    """
    os._exit = sys.exit  # What would end this process ends the command, and is judged.
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        case = {"cwd": str(cwd), "cache": str(cache), "out": str(out), "err": str(err)}
        status = run_script(case | {"argv": [str(SCRIPTS / f"{script}.py"), *flags]})
        printed = Printed(status, out.read_text(errors="replace"), err.read_text(errors="replace"))
    if "Traceback" in printed.err or "Exception ignored" in printed.err:
        raise RuntimeError(printed.err[-3000:])
    last = printed.err.rpartition("error: ")[2]
    if status == 1 and "error: out of memory" in printed.err:
        raise MemoryError(last)
    if status == 1 and "error: " in printed.err:
        raise InputError(last)
    if status:
        raise WrongResultError(f"exit status {status}: {printed.err[-500:]}")
    return printed
