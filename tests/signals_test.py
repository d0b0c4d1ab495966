"""Signals while the main thread is where Python's handlers cannot run."""

import signal
import subprocess
import sys
import threading

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


def test_handlers_and_the_thread_are_gone_afterwards():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    threads = threading.active_count()
    with Signals().installed() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads
