"""The settings that name something in a registry, and the data of a run."""

import dataclasses
import json
import os

import pytest

from grnn_jax import cells, workdir
from grnn_jax.config import Config
from grnn_jax.data import build_codec
from grnn_jax.errors import InputError


@pytest.fixture
def config(tmp_path):
    (tmp_path / "t.txt").write_text("an old cat\n" * 20)
    return Config(data=str(tmp_path / "t.txt"), hidden_size=8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cell": "x"}, "--cell must be one of .*lstm, .*, got 'x'"),
        ({"engine": "x"}, "--engine must be one of auto, scan, fused, .*, got 'x'"),
        ({"distribution": "x"}, "--distribution must be one of .*categorical, .*, got 'x'"),
        ({"activation": "relu"}, "--activation=relu needs --cell=elman, .*, got --cell=lstm"),
        (
            {"cell": "gru", "forget_bias": 2.0},
            "--forget_bias=2.0 needs --cell=.*lstm.*, got --cell=gru",
        ),
    ],
)
def test_validate(config, change, words):
    with pytest.raises(InputError, match=words):
        workdir.validate(dataclasses.replace(config, **change))


def test_a_new_cell_is_one_line(config, monkeypatch):
    found = []

    def biased(hidden_size, *, forget_bias, dtype):
        found.append((hidden_size, forget_bias))
        return cells.lstm(hidden_size, forget_bias=forget_bias, dtype=dtype)

    monkeypatch.setitem(cells.CELLS, "biased", biased)
    new = dataclasses.replace(config, cell="biased", forget_bias=3.0, num_layers=2)
    workdir.build_model(new, build_codec("chars", ["ab"]))
    assert found == [(8, 3.0)] * 2 and "biased" in workdir.choices()["cell"]


def test_changed_data_are_refused_and_a_touch_is_not(config, tmp_path):
    run = tmp_path / "w"
    opened = workdir.open_workdir(config, run)
    opened.commit()
    os.utime(config.data, (1, 1))
    workdir.open_workdir(config, run).commit()
    (folder,) = (run / "tokens").iterdir()  # The one of before is gone.
    assert json.loads((run / "data.json").read_text())["folder"] == folder.name
    next(folder.glob("valid.offsets")).unlink()  # Damaged: encoded again.
    workdir.open_workdir(config, run)
    with open(config.data, "a") as file:
        file.write("an old cat\n")
    with pytest.raises(InputError, match="--data: .* changed .*train had 220 events, has 231"):
        workdir.open_workdir(config, run)
    os.remove(config.data)
    splits = workdir.load_run_data(config, run, opened.codec)
    assert splits.valid.num_events == opened.splits.valid.num_events


@pytest.mark.parametrize("text", ["[1, 2]", "null", '{"codec": ["chars"]}', "{", '{"codec": 1}',
                                  '{"codec": "chars", "characters": 5}'])  # fmt: skip
def test_a_damaged_codec(config, tmp_path, text):
    workdir.open_workdir(config, tmp_path / "w").commit()
    (tmp_path / "w" / "codec.json").write_text(text)
    with pytest.raises(InputError, match=r"--workdir: .*codec\.json is damaged"):
        workdir.open_workdir(config, tmp_path / "w")
