"""Requests to a file: stopped anywhere and gone on with, they end as if nothing had happened."""

import importlib
import json
import sys

import numpy as np
import pytest
from fork_server import SCRIPTS

from grnn_jax.errors import InputError

sys.path.append(str(SCRIPTS))
large_request = importlib.import_module("large_request")
NUM_SAMPLES = 1000


def sample(number):
    text = "ü" * int(np.random.default_rng(number).integers(1, 9))
    return large_request.Record(f"{number} {text}\n", text.encode())


def records(first, stop=NUM_SAMPLES):
    for number in range(first, stop):
        yield sample(number)


def stopping_at(number):
    def generate(first):
        yield from records(first, number)
        raise RuntimeError("killed")

    return generate


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(
        large_request.logging, "info", lambda text, *values: lines.append(text % values)
    )
    return lines


def test_a_request_goes_on_where_it_was_stopped(tmp_path, told):
    path, settings = tmp_path / "a.txt", {"seed": 1, "options": {"top_k": None}}
    expected = "head\n" + "".join(sample(number).text for number in range(NUM_SAMPLES))
    for stop, begun in ((0, 0), (100, 0), (600, 0), (600, 512), (999, 512)):
        starts = []

        def generate(first, stop=stop, starts=starts):
            starts.append(first)
            return stopping_at(stop)(first)

        with pytest.raises(RuntimeError, match="killed"):
            large_request.write_request(path, NUM_SAMPLES, settings, generate, header="head\n")
        # What was complete counts, whatever else reached the disk before the end.
        assert starts == [begun]
        with open(path, "ab") as file:
            file.write(b"half a reco")
        with open(tmp_path / "a.txt.hashes", "ab") as file:
            file.write(b"123")
    large_request.write_request(path, NUM_SAMPLES, settings, records, header="head\n")
    assert path.read_text("utf-8") == expected
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    different = len({sample(number).content for number in range(NUM_SAMPLES)})
    assert told[-1] == f"1,000 samples, {different} different ones, {1000 - different} duplicates"
    assert any("going on after 768 samples" in line for line in told)


def test_another_request_does_not_go_on(tmp_path, told):
    path = tmp_path / "a.txt"
    with pytest.raises(RuntimeError):
        large_request.write_request(path, NUM_SAMPLES, {"seed": 1}, stopping_at(300))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"other settings \(seed was 1; is 2\).*a.txt.progress"):
        large_request.write_request(path, NUM_SAMPLES, {"seed": 2}, records)
    with pytest.raises(InputError, match="num_samples was 1000; is 999"):
        large_request.write_request(path, 999, {"seed": 1}, records)
    assert path.read_bytes() == before
    path.write_bytes(before[:100])
    with pytest.raises(InputError, match=r"a\.txt is shorter than .*a\.txt\.progress says"):
        large_request.write_request(path, NUM_SAMPLES, {"seed": 1}, records)
    (tmp_path / "a.txt.progress").write_text(json.dumps([1]))
    with pytest.raises(InputError, match=r"a\.txt\.progress is damaged"):
        large_request.write_request(path, NUM_SAMPLES, {"seed": 1}, records)
    (tmp_path / "a.txt.progress").unlink()
    large_request.write_request(path, 1, {"seed": 1}, lambda first: records(first, 1))
    assert path.read_text("utf-8") == sample(0).text
    with pytest.raises(InputError, match="--output: cannot write .*no/a.txt: No such file"):
        large_request.write_request(tmp_path / "no" / "a.txt", 1, {}, records)
