"""The short form of attack.py, and that it sees every kind of fault."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attacks import hostile_files
from attacks.processes import GIB, WrongResultError, attempts
from attacks.seeds import make_seeds

from grnn_jax.errors import InputError


def end_as(kind):
    """Ends in the way of that name."""
    if kind == "refused":
        raise InputError("no")
    if kind == "wrong":
        raise WrongResultError("2 in place of 3")
    if kind == "traceback":
        raise KeyError(kind)
    if kind == "memory":
        bytearray(2 * GIB)
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    while kind == "hang":
        time.sleep(1)
    return kind


def test_every_end_is_told_apart(tmp_path):
    kinds = ["done", "refused", "wrong", "traceback", "memory", "crash", "hang"]
    ended = attempts(end_as, kinds, tmp_path, seconds=2, memory=GIB, workers=len(kinds))
    assert {attempt.case: attempt.end for attempt in ended} == {kind: kind for kind in kinds}


@pytest.mark.parametrize("suffix", [".gz", ".npz", ".npy", ".csv"])
def test_a_reader_that_gets_it_wrong_is_seen(tmp_path, suffix, monkeypatch):
    kinds = {".gz": "text", ".npy": "series", ".csv": "series", ".npz": "series"}
    seeds = make_seeds(tmp_path, 0)
    seed = next(s for s in seeds if s.path.suffix == suffix and s.format == kinds[suffix])
    case = {"path": str(seed.path), "format": seed.format, "settings": seed.settings}
    whole = hostile_files.load_splits(
        data=case["path"], format=seed.format, valid_fraction=0, test_fraction=0, **seed.settings
    )
    monkeypatch.setattr(hostile_files, "load_splits", lambda **_: whole)  # It reads damage too.
    data = bytearray(seed.path.read_bytes())
    if suffix == ".csv":
        data = re.sub(rb"\ns3,[^,]*", b"\ns3,7", data, count=1)
    else:
        data[len(data) // 2] ^= 16
    seed.path.write_bytes(data)
    with pytest.raises(WrongResultError):
        hostile_files.read(case)


def test_a_short_attack_finds_nothing(tmp_path):
    script = Path(__file__).with_name("attack.py")
    flags = ["--files=150", "--bits=12", "--flags=12", "--kills=0", "--minutes=0", "--workers=1"]
    ended = subprocess.run(
        [sys.executable, script, *flags], capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert '"flags": {' in ended.stdout
