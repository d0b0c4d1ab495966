"""Signals while the main thread is where Python's handlers cannot run."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from grnn_jax.signals import Signals

# Waits inside one long device computation, as a compilation or a stuck device would.
WAITING = """
import jax, jax.numpy as jnp
from grnn_jax.signals import Signals
step = jax.jit(lambda x: jax.lax.while_loop(lambda x: x[0] < 2, lambda x: jnp.sin(x), x))
with Signals().installed():
    waiting = step.lower(jnp.ones(4)).compile()
    print("waiting", flush=True)
    waiting(jnp.ones(4)).block_until_ready()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_process_that_waits_for_a_device(number):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        assert process.stderr.readline() == "\n"
        assert "the same signal again" in process.stderr.readline()
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
    finally:
        process.kill()
        process.communicate()


def test_what_is_sent_twice_without_meaning_it_does_not_end_the_process_at_once():
    with Signals().installed() as signals:
        for number in (signal.SIGHUP, signal.SIGUSR1):
            for _ in range(3):
                signal.raise_signal(number)
            assert signals.received == number


def test_a_process_that_ignores_a_hangup_goes_on_ignoring_it():
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals().installed() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.received == 0
    finally:
        signal.signal(signal.SIGHUP, old)


def test_a_terminal_that_is_lost_is_written_to_no_more():
    """Standard error is a terminal whose other end is closed: writing to it is an error."""
    controller, terminal = os.openpty()
    saved = os.dup(2)
    try:
        os.dup2(terminal, 2)
        with Signals().installed() as signals:
            os.close(controller)
            signal.raise_signal(signal.SIGHUP)
            deadline = time.monotonic() + 10
            while os.isatty(2) or os.fstat(2).st_rdev != os.stat(os.devnull).st_rdev:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.write(2, b"no error")
            assert signals.received == signal.SIGHUP
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(terminal)


def test_handlers_and_the_thread_are_gone_afterwards():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    threads = threading.active_count()
    with Signals().installed() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads
