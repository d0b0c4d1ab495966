"""The settings that name something in a registry, and the data of a run."""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from grnn_jax import cells, workdir
from grnn_jax.config import SPLITS, Config
from grnn_jax.data import build_codec, load_splits
from grnn_jax.data.corpus import map_events
from grnn_jax.data.pianoroll import PianorollCodec
from grnn_jax.data.store import open_stored
from grnn_jax.errors import InputError


@pytest.fixture
def config(tmp_path):
    (tmp_path / "t.txt").write_text("an old cat\n" * 20)
    return Config(data=str(tmp_path / "t.txt"), hidden_size=8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cell": "x"}, "cell must be one of .*lstm, .*, got 'x'; .*import_module=NAME"),
        ({"format": "csv"}, "format must be one of text, lines, .*, got 'csv'; .*import_mod"),
        ({"codec": "x"}, "codec must be one of chars, bytes, words, smiles, got 'x'"),
        (
            {"codec": "bytes", "lowercase": True},
            "lowercase needs codec=chars or words, got codec=bytes",
        ),
        ({"column": "x"}, "column=x needs format=lines, got format=text"),
        ({"transpose": 2}, "transpose=2 needs format=pianoroll, voices, got format=text"),
        ({"levels": 4}, "levels=4 needs format=images, got format=text"),
        ({"engine": "x"}, "engine must be one of auto, scan, fused, .*, got 'x'"),
        ({"distribution": "x"}, "distribution must be one of .*categorical, .*, got 'x'"),
        ({"activation": "relu"}, "activation=relu needs cell=elman, .*, got cell=lstm"),
        (
            {"cell": "gru", "forget_bias": 2.0},
            "forget_bias=2.0 needs cell=.*lstm.*, got cell=gru",
        ),
        (
            {"input_window": 3},
            "input_window=3 needs cell=sitewise_gru, sitewise_lstm, got cell=lstm",
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


@pytest.mark.parametrize(
    ("change", "codec", "words"),
    [
        (
            {"hidden_size": 176},
            "chars",
            "cell=sitewise_lstm needs events that are bits .*of tokens",
        ),
        ({"hidden_size": 176, "model_end": True}, "end", "bits .*of bits with an end"),
        (
            {"hidden_size": 100},
            "bits",
            "hidden_size of a sitewise cell must be .* 88 sites, got 100",
        ),
        (
            {"cell": "lstm", "distribution": "sitewise_nade"},
            "bits",
            "shared over 88 sites needs a cell shared over as many .*, got none",
        ),
    ],
)
def test_a_sitewise_cell_needs_bits_and_its_distribution_such_a_cell(config, change, codec, words):
    codecs = {
        "chars": build_codec("chars", ["ab"]),
        "bits": PianorollCodec(),
        "end": PianorollCodec(with_end=True),
    }
    sitewise = dataclasses.replace(config, cell="sitewise_lstm", format="pianoroll")
    with pytest.raises(InputError, match=words):
        workdir.build_model(dataclasses.replace(sitewise, **change), codecs[codec])


def test_the_settings_of_a_sitewise_model_reach_it(config):
    sitewise = dataclasses.replace(
        config,
        format="pianoroll",
        cell="sitewise_gru",
        distribution="sitewise_nade",
        hidden_size=88,
        skip_input=True,
        input_window=1,
        num_positions=2,
        nade_hidden_size=3,
        site_bias=True,
    )
    model = workdir.build_model(sitewise, PianorollCodec())
    shapes = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(model.init, jax.random.key(0)))
    assert shapes["cell"]["layer_0"]["input_kernel"] == (3 + 12 + 2, 3)
    assert shapes["distribution"]["site_bias"] == (88,)
    assert shapes["distribution"]["input_kernel"] == (49 + 12, 3)


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
    with pytest.raises(InputError, match="data: .* changed .*train had 220 events, has 231"):
        workdir.open_workdir(config, run)
    os.remove(config.data)
    splits = workdir.load_run_data(config, run, opened.codec)
    assert splits.valid.num_events == opened.splits.valid.num_events
    folder = run / "tokens" / json.loads((run / "data.json").read_text())["folder"]
    (folder / "train.events").write_bytes(bytes((folder / "train.events").stat().st_size))
    with pytest.raises(InputError, match="there is no file .*encoded data in .* are damaged or"):
        workdir.load_run_data(config, run, opened.codec)


@pytest.mark.parametrize("text", ["[1, 2]", "null", '{"codec": ["chars"]}', "{", '{"codec": 1}',
                                  '{"codec": "chars", "characters": 5}', "[" * 99_999])  # fmt: skip
def test_a_damaged_codec(config, tmp_path, text):
    workdir.open_workdir(config, tmp_path / "w").commit()
    (tmp_path / "w" / "codec.json").write_text(text)
    with pytest.raises(InputError, match=r"workdir: .*codec\.json is damaged"):
        workdir.open_workdir(config, tmp_path / "w")


@pytest.mark.parametrize("format", ["text", "series"])
def test_a_flipped_bit_of_the_encoded_data_is_noticed(tmp_path, format):
    path, cache = tmp_path / "d.csv", tmp_path / "cache"
    settings = {"data": str(path), "format": format, "cache_dir": cache}
    path.write_text("sequence,x\n" + "".join(f"{i},{i % 7}\n{i},5\n" for i in range(40)))
    splits = load_splits(**settings)
    files = [file for file in splits.folder.iterdir() if file.stat().st_size]
    for file in files:
        good = file.read_bytes()
        for place in range(0, len(good), max(1, len(good) // 20)):
            bad = bytearray(good)
            bad[place] ^= 1 << place % 8
            file.write_bytes(bad)
            stored = open_stored(
                splits.folder, SPLITS, map_events(lambda a: a[:0], splits.train.events)
            )
            if stored is not None:  # Blanks between values.
                assert file.name == "info.json" and stored.contents == splits.contents, place
        file.write_bytes(good)
    flipped = files[0].read_bytes()
    files[0].write_bytes(flipped[:-1] + bytes([flipped[-1] ^ 1]))
    again = load_splits(**settings)  # Read again from where it came from.
    assert again.contents == splits.contents and files[0].read_bytes() == flipped


@pytest.mark.parametrize("name", ["config.json", "codec.json", "data.json"])
def test_a_flipped_bit_of_the_files_of_a_run_is_noticed(config, tmp_path, name):
    run = tmp_path / "w"
    opened = workdir.open_workdir(config, run)
    opened.commit()
    path = run / name
    good = path.read_bytes()
    for place in range(0, len(good), max(1, len(good) // 60)):
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        try:
            again = workdir.open_workdir(workdir.read_config(run), run)
        except InputError:
            continue
        assert again.codec == opened.codec and workdir.read_config(run) == config, bad


@pytest.mark.parametrize("format", ["text", "series"])
def test_data_changed_in_place_with_the_same_size_and_time_are_read_again(tmp_path, format):
    path, cache = tmp_path / "d.csv", tmp_path / "cache"
    settings = {"data": str(path), "format": format, "cache_dir": cache, "valid_fraction": 0}
    if format == "series":
        settings["options"] = {"sequence_column": ""}
    path.write_text("x,y\n" + "1,5\n2,4\n" * 20)
    status = path.stat()
    events = np.array(load_splits(**settings).train.events)
    with open(path, "r+") as file:
        file.seek(4)
        file.write("2")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert (load_splits(**settings).train.events != events).any()


def test_a_run_from_before_files_were_refused_goes_on(config, tmp_path):
    (tmp_path / "t.fa").write_text(">a\nACGT\nAC\n" * 20)
    config = dataclasses.replace(config, data=str(tmp_path / "t.fa"), format="lines", as_is=True)
    workdir.open_workdir(config, tmp_path / "old").commit()
    path = tmp_path / "old" / "config.json"
    values = json.loads(path.read_text())
    del values["as_is"], values["sha256"]  # As such a run wrote it.
    path.write_text(json.dumps(values))
    asked = dataclasses.replace(config, as_is=False)
    opened = workdir.open_workdir(asked, tmp_path / "old")
    assert ">" in opened.codec.characters
    opened.commit()
    assert workdir.read_config(tmp_path / "old").as_is
    opened = workdir.open_workdir(asked, tmp_path / "new")
    assert ">" not in opened.codec.characters
    opened.commit()
    workdir.open_workdir(dataclasses.replace(asked, as_is=True), tmp_path / "new")
