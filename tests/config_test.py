"""The configuration: what is refused, what may change when a run goes on, and its file."""

import dataclasses
import json

import pytest

from grnn_jax.config import (
    FIELDS,
    FORMAT_VERSION,
    SECTIONS,
    Config,
    differences,
    from_json,
    to_json,
    validate,
)
from grnn_jax.errors import InputError


def test_defaults_are_valid_and_described():
    validate(Config())
    for field in FIELDS.values():
        assert field.metadata["help"].endswith(".")
        assert field.metadata["section"] in SECTIONS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": -4}, ["hidden_size", "at least 1", "-4"]),
        ({"num_steps": -1}, ["num_steps", "at least 0", "-1"]),
        ({"seed": 2**63}, ["seed", "at most 4294967295", "9223372036854775808"]),
        ({"hidden_size": 10, "num_heads": 3}, ["hidden_size", "num_heads=3", "10"]),
        (
            {"tied_embeddings": True, "embedding_size": 7, "hidden_size": 8},
            ["tied_embeddings", "hidden_size=8", "embedding_size=7"],
        ),
        ({"valid_fraction": 0.5, "test_fraction": 0.5}, ["valid_fraction", "test_fraction"]),
        ({"valid_data": "x.txt"}, ["valid_data", "data"]),
        ({"dropout": 1.0}, ["dropout", "at most 0.999"]),
        ({"dropout": float("nan")}, ["dropout", "nan"]),
        ({"batch_size": "64"}, ["batch_size", "int", "'64'"]),
        ({"batch_size": True}, ["batch_size", "int", "True"]),
        ({"num_steps": 10, "warmup_steps": 11}, ["warmup_steps", "num_steps=10", "11"]),
        ({"early_stopping_patience": 2, "eval_every": 0}, ["eval_every"]),
        ({"keep_checkpoints": 1}, ["keep_checkpoints", "at least 2", "1"]),
    ],
)
def test_validate_names_the_flag_what_came_and_what_was_expected(change, words):
    config = Config()
    for name, value in change.items():
        object.__setattr__(config, name, value)  # Past the run-time types of the tests.
    with pytest.raises(InputError) as caught:
        validate(config)
    for word in words:
        assert word in str(caught.value)


def test_json_round_trip_keeps_every_bit():
    config = Config(data="/a b.txt", learning_rate=0.1 + 0.2, lowercase=True, seed=2**32 - 1)
    assert from_json(to_json(config)) == config


def test_json_of_another_version():
    values = json.loads(to_json(Config(hidden_size=8)))
    del values["ema_decay"], values["sha256"]
    assert from_json(json.dumps(values)) == Config(hidden_size=8)
    values["warp"] = 0.1
    with pytest.raises(InputError, match="W/config.json: unknown setting 'warp'"):
        from_json(json.dumps(values), "W/config.json")
    with pytest.raises(InputError, match="not valid JSON"):
        from_json("{")
    with pytest.raises(InputError, match="expected a JSON object"):
        from_json("[]")
    with pytest.raises(InputError, match="hidden_size"):
        from_json('{"hidden_size": -1}')
    with pytest.raises(InputError, match="not valid JSON: nested too deeply"):
        from_json('{"data": ' + "[" * 100_000)


def test_every_flipped_bit_of_a_configuration_is_noticed():
    config = Config(data="/data.txt", hidden_size=64)
    text = to_json(config).encode()
    for place in range(len(text)):
        bad = bytearray(text)
        bad[place] ^= 1 << place % 7  # Bit 7 makes it no text.
        try:
            assert from_json(bad.decode()) == config, bad
        except InputError:
            continue
        assert text[place : place + 1].isspace() or bad[place : place + 1].isspace(), bad
    # What was changed by hand says so by having no digest.
    values = json.loads(text) | {"hidden_size": 32}
    with pytest.raises(InputError, match=r"config\.json is damaged: .* takes out sha256"):
        from_json(json.dumps(values))
    del values["sha256"]
    assert from_json(json.dumps(values)).hidden_size == 32


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"cell": "tied_lstm"}, {"cell": "sitewise_lstm"}),
        ({"cell": "tied_gru"}, {"cell": "sitewise_gru"}),
        ({"distribution": "tied_nade"}, {"distribution": "sitewise_nade"}),
        (
            {"distribution": "notes = tied_bernoulli,tied_nade=nade"},
            {"distribution": "notes =sitewise_bernoulli,tied_nade=nade"},
        ),
        ({"data": "tied_nade", "tied_embeddings": True}, {}),
    ],
)
def test_names_of_format_version_1(old, new):
    values = json.loads(to_json(Config(**old)))
    assert values.pop("format_version") == FORMAT_VERSION == 3
    del values["sha256"]
    assert from_json(json.dumps(values)) == Config(**old | new)
    assert from_json(json.dumps({"format_version": 1} | values)) == Config(**old | new)
    # A cell of a user's own may have such a name today.
    assert from_json(json.dumps({"format_version": 2} | values)) == Config(**old)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("4", "format_version must be at most 3, got 4; a newer version"),
        ("0", "format_version must be an integer from 1, got 0"),
        ('"2"', "format_version must be an integer from 1, got '2'"),
        ("true", "format_version must be an integer from 1, got True"),
    ],
)
def test_a_format_version_that_cannot_be_read(version, words):
    with pytest.raises(InputError, match="W/config.json: " + words):
        from_json(f'{{"format_version": {version}, "warp": 0.1}}', "W/config.json")


def test_runs_before_as_is_read_text_as_it_is():
    values = json.loads(to_json(Config(format="lines")))
    assert values.pop("as_is") is False and values.pop("sha256")
    assert from_json(json.dumps(values)).as_is
    assert not from_json(json.dumps(values | {"format": "events"})).as_is
    assert not from_json(json.dumps(values | {"as_is": False})).as_is


def test_differences():
    saved = Config(schedule="constant")
    change = {"num_steps": 7, "log_every": 3, "hidden_size": 8, "profile": True, "seed": 5}
    asked = dataclasses.replace(saved, **change)
    assert differences(saved, asked) == {"hidden_size": (256, 8), "seed": (0, 5)}
    # The learning rate of every step of the cosine depends on the number of steps.
    cosine = Config(schedule="cosine", num_steps=10)
    longer = dataclasses.replace(cosine, num_steps=20)
    assert differences(cosine, longer) == {"num_steps": (10, 20)}
