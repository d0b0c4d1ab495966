"""metrics.jsonl, TensorBoard and the lines of progress."""

import json

import pytest
from absl import logging

from grnn_jax.cli import plots
from grnn_jax.errors import InputError
from grnn_jax.monitor import Monitor, read_metrics

VALUES = {
    "nats_per_event": 2.0,
    "bits_per_event": 2.885,
    "events_per_second": 1e4,
    "seconds_per_step": 0.5,
    "learning_rate": 1e-3,
    "grad_norm": 0.25,
}


def test_metrics_after_the_restored_step_are_dropped(tmp_path):
    monitor = Monitor(tmp_path, 0, 100)
    for step in (10, 20, 30):
        monitor.write("train", step, {"nats_per_event": step / 10})
    monitor.write("valid", 20, {"nats_per_event": 5.0})
    monitor.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # A killed process.
    assert [r["step"] for r in read_metrics(tmp_path)] == [10, 20, 30, 20]

    monitor = Monitor(tmp_path, 20, 100)
    monitor.write("train", 30, {"nats_per_event": 7.0})
    monitor.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"kind": "train", "step": 10, "nats_per_event": 1.0},
        {"kind": "train", "step": 20, "nats_per_event": 2.0},
        {"kind": "valid", "step": 20, "nats_per_event": 5.0},
        {"kind": "train", "step": 30, "nats_per_event": 7.0},
    ]
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_a_line_is_on_the_disk_at_once_and_is_valid_json(tmp_path):
    monitor = Monitor(tmp_path, 0, 100)
    monitor.write("train", 1, {"grad_norm": float("nan")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "kind": "train",
        "step": 1,
        "grad_norm": None,
    }
    monitor.close()


WRONG = [
    b"5", b"{}", b"[]", b"\xff\xfe", b'"text"', b"null", b"[" * 100_000, b"{'kind': 1}",
    b'{"kind": "train", "step": "10"}', b'{"kind": "train", "step": 1.5}',
    b'{"kind": 3, "step": 1}', b'{"kind": "train"}', b'{"kind": "train", "step": true}',
    b'{"kind": "train", "step": 5, "nats_per_event": "2"}',
    b'{"kind": "train", "step": 5, "nats_per_event": [1]}',
    b'{"kind": "train", "step": 5, "nats_per_event": 1' + b"0" * 400 + b"}",
    b'{"kind": "train", "step": -1}',
]  # fmt: skip


def test_lines_that_are_no_records_are_left_out_with_one_warning(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda form, *args: said.append(form % args))
    good = [
        {"kind": kind, "step": step, "nats_per_event": nats}
        for kind, step, nats in (("train", 10, 1.5), ("valid", 10, None), ("train", 20, 1))
    ]
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(good[0]).encode(), *WRONG, *(json.dumps(r).encode() for r in good[1:])]
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert read_metrics(tmp_path) == good
    assert len(said) == 1 and f"{len(WRONG)} line(s)" in said[0] and "line 2" in said[0]
    assert plots.plot_learning_curve(tmp_path).exists()
    monitor = Monitor(tmp_path, 10, 100)
    monitor.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == good[:2]


def test_metrics_that_cannot_be_read_are_one_sentence(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(InputError, match=r"workdir: .*metrics\.jsonl cannot be read: Is a dir"):
        read_metrics(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        Monitor(tmp_path, 0, 100)


def test_tensorboard_is_on_the_disk_after_a_flush(tmp_path):
    monitor = Monitor(tmp_path, 0, 100)
    (events,) = (tmp_path / "tensorboard").iterdir()
    size = events.stat().st_size
    monitor.write("train", 1, {"nats_per_event": 2.0})
    monitor.flush()
    assert events.stat().st_size > size
    monitor.close()


def test_progress_line_and_bar(tmp_path, capsys, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "info", lambda form, *args: lines.append(form % args))
    monitor = Monitor(tmp_path, 0, 7300, progress_bar=False)
    monitor.report_training(100, VALUES)
    monitor.close()
    expected = (
        "step 100/7300  2.0000 nats  2.8850 bits  10,000 events/s  left 1:00:00  "
        "learning rate 1.00e-03  gradient norm 0.250"
    )
    assert lines == [expected]

    monitor = Monitor(tmp_path, 100, 200, progress_bar=True)
    monitor.advance(150)
    monitor.report_training(150, VALUES)
    monitor.say("hello")
    monitor.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "150/200" in shown.err and "2.000 nats" in shown.err and "hello" in shown.err
