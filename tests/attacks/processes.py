"""Runs attempts in forks with limits of time and memory, so that none can harm the next."""

import faulthandler
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from grnn_jax.errors import InputError

GIB = 1 << 30
end_process = os._exit
"""Ends a process at once, also where `scripts.command` has put something else in its place."""

BAD = ("traceback", "hang", "memory", "crash", "wrong")
"""The ends that are faults."""


class Attempt(NamedTuple):
    """How an attempt ended.

    Attributes:
        case: what was tried, as JSON.
        end: "done", "refused" (in a sentence), or one of `BAD`.
        text: the message, or the traceback.
        value: what the function returned where it is done.
        seconds: how long it took.
    """

    case: Any
    end: str
    text: str = ""
    value: Any = None
    seconds: float = 0.0


class WrongResultError(Exception):
    """A result that is not what was stored or asked for, given without a word."""


def attempts(
    function: Callable[[Any], Any],
    cases: Iterable[Any],
    folder: Path,
    *,
    seconds: float,
    memory: int,
    workers: int,
) -> Iterator[Attempt]:
    """Runs a function of each case in a fork of its own.

    Args:
        function: returns JSON; what it raises is how the attempt ends.
        cases: drawn one by one, each as JSON.
        folder: for what the forks print.
        seconds: an attempt that takes longer hangs.
        memory: bytes that an attempt may reserve beyond what this process holds.
        workers: attempts at once.

    Yields:
        The attempts as they end.
    """
    cases = iter(cases)
    running: dict[int, tuple[Any, Path, float]] = {}
    number, more = 0, True
    while more or running:
        while more and len(running) < workers:
            try:
                case = next(cases)
            except StopIteration:
                more = False
                break
            number += 1
            path = folder / f"attempt{number}"
            running[_fork(function, case, path, memory)] = (case, path, time.monotonic())
        for process, (case, path, begin) in list(running.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            took = time.monotonic() - begin
            hangs = not ended and took > seconds
            if hangs:
                os.killpg(process, signal.SIGKILL)  # And what it started.
                os.waitpid(process, 0)
            if ended or hangs:
                del running[process]
                yield _read_end(case, path, os.waitstatus_to_exitcode(status), hangs, took)
        time.sleep(0.002)


def _fork(function: Callable[[Any], Any], case: Any, path: Path, memory: int) -> int:
    """Starts an attempt, which leaves its end at `path`.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of forks; none of its threads run yet.
        process = os.fork()
    if process:
        return process
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(f"{path}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        faulthandler.enable(2)
        reserved = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (reserved + memory,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("error")
        try:
            end = ["done", "", function(case)]
        except InputError as error:
            end = ["refused", str(error), None]
        except WrongResultError as error:
            end = ["wrong", str(error), None]
        except MemoryError:
            end = ["memory", traceback.format_exc(), None]
        except BaseException:
            end = ["traceback", traceback.format_exc(), None]
        Path(f"{path}.json").write_text(json.dumps(end))
        sys.stdout.flush()
    finally:
        end_process(0)


def _read_end(case: Any, path: Path, status: int, hangs: bool, seconds: float) -> Attempt:
    """How an attempt ended, by what it left."""
    record, printed = Path(f"{path}.json"), Path(f"{path}.out")
    text = printed.read_text(errors="replace")[-2000:] if printed.exists() else ""
    if hangs:
        attempt = Attempt(case, "hang", text, None, seconds)
    elif not record.exists():
        attempt = Attempt(case, "crash", f"exit status {status}\n{text}", None, seconds)
    else:
        attempt = Attempt(case, *json.loads(record.read_text()), seconds)
    record.unlink(missing_ok=True)
    printed.unlink(missing_ok=True)
    return attempt
