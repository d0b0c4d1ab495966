"""Imports run downwards: a file imports only from the lines of the house above its own."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "grnn_jax"

HOUSE = [
    ["errors", "array_types"],
    ["config"],
    ["ops"],
    ["cells", "distributions"],
    ["recurrence"],
    ["model"],
    ["likelihood"],
    ["sampling"],
    ["data"],
    ["optimizer"],
    ["sharding"],
    ["training"],
    ["checkpoint"],
    ["monitor"],
    ["workdir"],
    ["scoring"],
    ["evaluation", "drawing"],
    ["trained"],
    ["progress", "signals"],
    ["runner"],
    ["cli"],
]
"""Top line first. Rooms of one line do not import each other."""

MODEL_ROOMS = {"ops", "cells", "recurrence", "distributions", "model", "likelihood", "sampling"}
IMPURE = {
    "data",
    "checkpoint",
    "monitor",
    "workdir",
    "scoring",
    "evaluation",
    "drawing",
    "trained",
    "signals",
    "runner",
    "cli",
}
LEVEL = {room: level for level, rooms in enumerate(HOUSE) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_rooms(path):
    for module in imported_modules(path):
        parts = module.split(".")
        if parts[0] == "grnn_jax":
            yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in LEVEL, f"{path.name} has no line in the house: add it to HOUSE"
    for other in imported_rooms(path):
        assert other == room or LEVEL[other] < LEVEL[room], f"{path} imports {other} from below"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_data_knows_no_model_and_only_checkpoint_knows_orbax(path):
    room = room_of(path)
    modules = {module.split(".")[0] for module in imported_modules(path)}
    if room == "data":
        assert "jax" not in modules
        assert not MODEL_ROOMS & set(imported_rooms(path))
    if room != "checkpoint":
        assert "orbax" not in modules
    assert not modules & {"tensorflow", "torch", "haiku", "equinox"}
    if room != "cli":
        assert "matplotlib" not in modules
    if room in MODEL_ROOMS:
        names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
        assert not names & {"open", "print", "input"}, "pure rooms do no I/O"
        assert not modules & {"os", "pathlib", "absl", "grain", "time"}, "pure rooms do no I/O"
