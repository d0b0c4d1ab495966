"""How commands end where nothing can be printed, where they are interrupted, where limits end."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib

import pytest
from fork_server import SCRIPTS, environment

from grnn_jax import startup
from grnn_jax.cli import exhaustion, interrupts


@pytest.mark.parametrize(
    ("arguments", "redirected", "words"),
    [
        ("train --help", ">/dev/full", "standard output: No space left"),
        ("plots --workdirs=none", ">&-", "standard output is closed"),
    ],
)
def test_standard_output_that_cannot_be_written_to(tmp_path, arguments, redirected, words):
    script, *flags = arguments.split()
    command = " ".join([sys.executable, str(SCRIPTS / f"{script}.py"), *flags])
    ended = subprocess.run(
        ["bash", "-c", f"exec {command} {redirected}"],
        capture_output=True, text=True, cwd=tmp_path, env=environment(tmp_path),
    )  # fmt: skip
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 1 and line.startswith("error: ") and words in line


WITHIN = """
import io, os, sys
from grnn_jax.cli import command, flags
def run():
    {body}
sys.argv = ["grnn-command"]
command.start(run, lambda: flags.define("string", "data", "", "File."), "A command.")
"""


def ended(body, redirected=""):
    """Starts a command whose work is `body`; returns its end and what it told."""
    script = WITHIN.format(body=body.replace("\n", "\n    "))
    ended = subprocess.run(
        ["bash", "-c", f'exec {sys.executable} -c "$0" {redirected}', script],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(SCRIPTS.parent)},
    )  # fmt: skip
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stderr


def test_what_is_left_in_a_buffer_is_told_of_too():
    status, told = ended("print('a')\nprint('b' * 99999)\nreturn 0", ">/dev/full")
    assert (status, told) == (
        1, "error: cannot write to standard output: No space left on device\n",
    )  # fmt: skip
    assert ended("print('a')", ">/dev/full") == (status, told)
    assert ended("print('a')") == (0, "")


def test_an_interrupt_that_goes_nowhere_comes_again():
    # An exception in __del__ is printed and forgotten; the loop would take a minute.
    body = """
import signal, time
class Forgets:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
sys.unraisablehook = lambda _: None
Forgets()
time.sleep(60)
""".strip()
    start = time.monotonic()
    assert ended(body) == (130, "")
    assert time.monotonic() - start < 50


def test_interrupts_are_raised_once_while_a_command_cleans_up():
    cleaned = []
    before = signal.getsignal(signal.SIGINT)

    def work():
        with interrupts.raised():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(9)
            finally:
                time.sleep(3 * interrupts.SECONDS)
                cleaned.append(True)

    interrupts.SECONDS, seconds = 0.01, interrupts.SECONDS
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        interrupts.SECONDS = seconds
    assert cleaned and signal.getsignal(signal.SIGINT) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    # An interrupt that was swallowed at last.
    lost = contextlib.suppress(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt), interrupts.raised(), lost:
        os.kill(os.getpid(), signal.SIGINT)
    # A job in the background ignores it, and other threads cannot be interrupted.
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.raised():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, ignored)
    thread = threading.Thread(target=lambda: interrupts.raised().__enter__())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before


def test_commands_end_on_an_interrupt_while_they_import(tmp_path, monkeypatch):
    hook = sys.excepthook
    assert startup.is_command("/usr/bin/grnn-train")
    assert startup.is_command(f"{SCRIPTS}/train.py")
    assert not startup.is_command("train.py") and not startup.is_command("")
    assert not startup.is_command("/usr/bin/grnn-of-mine")
    with open(SCRIPTS.parent / "pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["scripts"].keys() == startup.COMMANDS
    before = signal.getsignal(signal.SIGINT)
    try:
        for handler, after in (
            (signal.default_int_handler, signal.SIG_DFL), (signal.SIG_IGN, signal.SIG_IGN),
        ):  # fmt: skip
            signal.signal(signal.SIGINT, handler)
            startup.end_on_interrupt()
            assert signal.getsignal(signal.SIGINT) is after and sys.excepthook is startup.show
    finally:
        signal.signal(signal.SIGINT, before)
        sys.excepthook = hook
    shown = []
    monkeypatch.setattr(sys, "__excepthook__", lambda *each: shown.append(each))
    for error in (KeyboardInterrupt(), ValueError()):
        startup.show(type(error), error, None)
    assert [kind for kind, _, _ in shown] == [ValueError]
    # The first thing that the package imports takes forever.
    (tmp_path / "jax.py").write_text("print(0, flush=True)\nimport time; time.sleep(60)\n")
    with subprocess.Popen(
        [sys.executable, str(SCRIPTS / "score.py")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{SCRIPTS.parent}"},
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "0\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=50)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory; give a smaller --length or --beam_width"),
        (MemoryError("Unable to allocate 8 TiB"), "out of memory (Unable to allocate 8 TiB); "),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 bytes"), "out of memory (RESOURCE_EXHAUSTED: 9"),
        (RuntimeError("RESOURCE_EXHAUSTED: Too many open files"), "ulimit -n"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a"), "/a: No such file"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (OSError(errno.EMFILE, "Too many open files", "a.txt"), "ulimit -n"),
        (RuntimeError("INTERNAL: a: Too many open files"), "ulimit -n"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/tmp/a"),
            "/tmp/a: No space left on device; make room",
        ),
    ],
)
def test_what_is_exhausted_is_named(error, words):
    told = exhaustion.explain(error, {"length", "beam_width"})
    assert told is not None and words in told and "\n" not in told
    for other in ("--batch_size", "memory", "ulimit", "space"):
        assert other in words or other not in told, told
    assert exhaustion.explain(RuntimeError("a bug"), {"length"}) is None
