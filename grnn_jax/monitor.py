"""What a run tells: metrics.jsonl, TensorBoard, a progress bar or log lines. Process 0 alone."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import jax
import tqdm
from absl import logging

from grnn_jax.checked_json import parse
from grnn_jax.errors import InputError

METRICS_FILE = "metrics.jsonl"


def _is_record(record: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a line of the metrics is one that `Monitor.write` writes."""
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return False
    numbers = [value for name, value in record.items() if name != "kind" and value is not None]
    # No greater integer is written, and none that NumPy could not hold.
    if not all(type(n) is float or (type(n) is int and abs(n) < 2**63) for n in numbers):
        return False
    return type(record.get("step")) is int and record["step"] >= 0


def _read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The lines of the metrics with their records; those that are none are left out with a warning.

    What a killed process left unfinished goes without a word.
    """
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise InputError(f"workdir: {path} cannot be read: {error.strerror or error}") from error
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        try:
            record = parse(line.decode()) if line.strip() else None
        except ValueError:
            record = None
        if _is_record(record):
            found.append((line.decode() + "\n", record))
        elif line.strip() and number < len(lines):
            wrong.append(number)
    if wrong:
        logging.warning(
            "%s: %d line(s) that are no records of a run are left out, the first is line %d",
            path,
            len(wrong),
            wrong[0],
        )
    return found


def _truncate(path: Path, last: dict[str, int]) -> None:
    """Drops the lines of a lost future, and those that are none."""
    if not path.exists():
        return
    kept = [
        line
        for line, record in _read(path)
        if record["step"] <= last.get(record["kind"], last["train"])
    ]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """Reads metrics.jsonl.

    Args:
        workdir: directory of a run.

    Returns:
        One dict a line: kind, step, and numbers or None; empty where there is no file. An
        unfinished last line is left out, and with a warning lines that are no records.

    Raises:
        InputError: the file cannot be read.
    """
    return [record for _, record in _read(Path(workdir) / METRICS_FILE)]


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class Monitor:
    """Writes the metrics of a run; silent in every process but the first.

    Args:
        workdir: directory of the run.
        step: step that the run (re)starts from; metrics after it belong to a lost future and go.
        num_steps: last step, for the progress.
        scored_step: step of the last validation score that counts; None for `step`.
        logged_step: step of the last metrics of training that count; None for `step`.
        progress_bar: True for a bar; None to show one where standard error is a terminal.
    """

    def __init__(
        self,
        workdir: str | Path,
        step: int,
        num_steps: int,
        scored_step: int | None = None,
        logged_step: int | None = None,
        *,
        progress_bar: bool | None = None,
    ):
        self._num_steps = num_steps
        self._active = jax.process_index() == 0
        self._bar = None
        if not self._active:
            return
        from tensorboardX import SummaryWriter

        path = Path(workdir) / METRICS_FILE
        scored_step = step if scored_step is None else scored_step
        logged_step = step if logged_step is None else logged_step
        _truncate(path, {"train": logged_step, "valid": scored_step})
        self._file = path.open("a")
        self._board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=step + 1)
        if sys.stderr.isatty() if progress_bar is None else progress_bar:
            self._bar = tqdm.tqdm(total=num_steps, initial=step, unit="step", dynamic_ncols=True)

    def advance(self, step: int) -> None:
        """Moves the progress bar.

        Args:
            step: steps done.
        """
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def write(self, kind: str, step: int, values: Mapping[str, float | int]) -> None:
        """Appends one record, to the file at once.

        Args:
            kind: "train", "valid", "test", ….
            step: steps done.
            values: the metrics.
        """
        if not self._active:
            return
        clean = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        self._file.write(json.dumps({"kind": kind, "step": step, **clean}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def flush(self) -> None:
        """Puts what TensorBoard has of the metrics on the disk; metrics.jsonl is there already."""
        if self._active:
            self._board.flush()

    def report_training(self, step: int, values: Mapping[str, float | int]) -> None:
        """Writes the metrics of training and shows them.

        Args:
            step: steps done.
            values: nats_per_event, bits_per_event, events_per_second, learning_rate, grad_norm, ….
        """
        self.write("train", step, values)
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"{values['nats_per_event']:.3f} nats, {values['events_per_second']:.3g} events/s"
            )
            return
        left = (self._num_steps - step) * values["seconds_per_step"]
        self.say(
            f"step {step}/{self._num_steps}  {values['nats_per_event']:.4f} nats  "
            f"{values['bits_per_event']:.4f} bits  {values['events_per_second']:,.0f} events/s  "
            f"left {_clock(left)}  learning rate {values['learning_rate']:.2e}  "
            f"gradient norm {values['grad_norm']:.3f}"
        )

    def say(self, message: str) -> None:
        """Shows one line on the log, without breaking the bar.

        Args:
            message: the line.
        """
        if not self._active:
            return
        if self._bar is not None:
            self._bar.write(message, file=sys.stderr)
        else:
            logging.info("%s", message)

    def close(self) -> None:
        """Closes the files and the bar."""
        if not self._active:
            return
        if self._bar is not None:
            self._bar.close()
        with contextlib.suppress(OSError):  # What could not be written was told before.
            self._file.close()
            self._board.close()
