"""Runs scripts in forks of one process that has imported everything: a start costs no seconds.

As a program it reads one JSON object a line. {"argv": [script, …], "cwd": path, "cache": path,
"out": path, "err": path} starts a script and answers with its process number; {"wait": number}
waits for its end and answers with its exit status (negative: a signal). `ForkServer` is the other
side.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

import jax

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "experiments"
LONGEST = 300  # Seconds that a script may take.
IMPORTED = (
    *(f"grnn_jax.cli.{name}" for name in ("train", "evaluate", "sample", "score")),
    # Imported where they are needed: a second for each script that trains and draws.
    "tensorboardX", "matplotlib.pyplot", "matplotlib.backends.backend_agg", "scipy.linalg",
)  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Ended(NamedTuple):
    """What a script left."""

    status: int
    out: str
    err: str


def environment(cache: Path) -> dict[str, str]:
    """Variables for a script that finds the package, and compiles what is not in the cache."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@functools.cache
def _server(variables: frozenset) -> subprocess.Popen:
    """The process that forks: one for all test files, to import but once, that wish the same."""
    server = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(variables),
    )

    def close() -> None:
        server.stdin.close()
        server.wait()
        server.stdout.close()

    atexit.register(close)
    return server


class Started(NamedTuple):
    """A script under way, and the files with what it prints."""

    process: int
    out: Path
    err: Path


class ForkServer:
    """Starts scripts in a folder."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._number = 0
        self._cache = folder / "cache"
        variables = environment(self._cache)
        for name in ("PYTEST_CURRENT_TEST", "JAX_COMPILATION_CACHE_DIR"):
            variables.pop(name, None)
        self._server = _server(frozenset(variables.items()))

    def _ask(self, request: dict) -> int:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def start(self, script: str, *flags: str) -> Started:
        """Starts a script of experiments/, or one by its path, named without the suffix .py."""
        self._number += 1
        out, err = (self._folder / f"{name}{self._number}.txt" for name in ("out", "err"))
        argv = [str(SCRIPTS / f"{script}.py"), *flags]
        request = {"argv": argv, "cwd": self._folder, "cache": self._cache, "out": out, "err": err}
        process = self._ask({k: v if k == "argv" else str(v) for k, v in request.items()})
        return Started(process, out, err)

    def wait(self, started: Started) -> Ended:
        """Waits for the end of a script."""
        status = self._ask({"wait": started.process})
        # What models of bytes draw need not be UTF-8.
        printed = started.out, started.err
        shown = [path.read_text(encoding="utf-8", errors="replace") for path in printed]
        return Ended(status, *shown)

    def run(self, script: str, *flags: str) -> Ended:
        """Runs a script to its end."""
        return self.wait(self.start(script, *flags))

    def kill_partway(self, progress: Path, script: str, *flags: str) -> int:
        """Starts a request and kills it when a part of it is complete; returns how many samples."""
        started = self.start(script, *flags)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if progress.exists() and json.loads(progress.read_text())["samples"]:
                break
            time.sleep(0.001)
        os.kill(started.process, signal.SIGKILL)
        ended = self.wait(started)
        assert ended.status == -signal.SIGKILL, ended.err
        return json.loads(progress.read_text())["samples"]


def run_script(case: dict) -> int:
    """Runs a script in this process as `python script …` does, and gives its exit status."""
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(case[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(case["cwd"])
    jax.config.update("jax_compilation_cache_dir", case["cache"])
    script = case["argv"][0]
    sys.argv = case["argv"]
    sys.path.insert(0, str(Path(script).parent))
    warnings.simplefilter("error")
    try:
        runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def end_of(process: int) -> int:
    """Waits for the exit status of a script; one that hangs is killed."""
    deadline = time.monotonic() + LONGEST
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1])


def main() -> None:
    """Serves until standard input ends."""
    for name in IMPORTED:
        importlib.import_module(name)
    # As conftest.py does; and what is never looked at stays shared with the forks.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    warnings.filterwarnings("ignore", message=".*fork.*")
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = end_of(request["wait"])
        else:
            answer = os.fork()
            if answer == 0:
                os._exit(run_script(request))
        print(answer, flush=True)


if __name__ == "__main__":
    main()
