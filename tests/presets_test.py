"""Every preset names flags that there are, with values that fit, and commands that name it."""

import pathlib
import re

import pytest

from grnn_jax import workdir
from grnn_jax.config import FIELDS, Config

ROOT = pathlib.Path(__file__).parents[1]
CLI = ROOT / "grnn_jax" / "cli"
PRESETS = sorted((CLI / "presets").glob("*.flags"))
DEFINED = re.compile(r'(?:define|DEFINE_\w+)\((?:"\w+", )?"(\w+)"')


def settings(lines):
    """The settings of the lines of a flag file, as absl reads them."""
    values = {}
    for line in lines:
        name, has_value, value = line.removeprefix("--").partition("=")
        kind = type(FIELDS[name].default) if name in FIELDS else str
        assert bool(has_value) != (kind is bool), line
        values[name] = True if kind is bool else kind(value)
    assert len(values) == len(lines)
    return values


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_the_preset_is_valid(path):
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    values = settings(lines)
    values.pop("workdir", None)
    workdir.validate(Config(data="a file", **values))
    assert path.suffix == ".flags" and comment
    named = re.findall(r"--preset=(\S+)", "\n".join(comment))
    assert set(named) <= {path.stem}
    assert named or path.stem == "smoke"


def test_comments_name_flags_that_there_are():
    scripts = [*CLI.glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    known = {*FIELDS, "no-deps"}
    for script in scripts:
        known |= set(DEFINED.findall(script.read_text()))
    for path in PRESETS:
        comment = "\n".join(x for x in path.read_text().splitlines() if x.startswith("#"))
        assert set(re.findall(r"--([\w-]+)", comment)) <= known, path.name
