"""The house: imports run downwards, each library has its place, and pure rooms do no I/O."""

import ast
import pathlib
import sys
from typing import NamedTuple

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "grnn_jax"

HOUSE = [
    ["startup", "errors", "array_types", "checked_json", "system_errors", "compiler"],
    ["config"],
    ["ops"],
    ["cells", "distributions"],
    ["recurrence"],
    ["conditions"],
    ["model"],
    ["checks"],
    ["likelihood"],
    ["sampling"],
    ["data"],
    ["optimizer"],
    ["sharding", "host_memory"],
    ["training"],
    ["checksum", "plain_path"],
    ["checkpoint"],
    ["monitor"],
    ["workdir"],
    ["scoring"],
    ["evaluation", "drawing"],
    ["trained"],
    ["progress", "signals", "speed", "device_prefetch"],
    ["training_loop"],
    ["runner"],
    ["cli"],
]
"""Top line first. Rooms of one line do not import each other."""

MODEL_ROOMS = {
    "ops", "cells", "recurrence", "distributions", "conditions", "model", "checks",
    "likelihood", "sampling",
}  # fmt: skip
PURE = MODEL_ROOMS | {
    "errors", "array_types", "checked_json", "config", "optimizer", "training", "checksum",
    "progress",
}  # fmt: skip
IMPURE = {
    "startup", "system_errors", "compiler", "data", "sharding", "host_memory", "plain_path",
    "checkpoint", "monitor", "workdir", "scoring", "evaluation", "drawing", "trained", "signals",
    "speed", "device_prefetch", "training_loop", "runner", "cli",
}  # fmt: skip
"""Rooms that read files, devices, the clock or other rooms that do; every other room is pure."""


class Place(NamedTuple):
    """Where a library may be imported.

    Attributes:
        paths: files, and folders with all that is in them.
        lazily: only inside functions, so that the library is loaded when it is needed.
    """

    paths: tuple[str, ...] = ()
    lazily: bool = False


ANYWHERE = {"grnn_jax", "jax", "jaxtyping", "numpy"} | sys.stdlib_module_names
PLACES = {
    "absl": Place(("cli/",)),
    "absl.logging": Place(("cli/", "checkpoint.py", "monitor.py", "training_loop.py")),
    "equinox": Place(("adapters/",)),
    "flax": Place(("adapters/",)),
    "flax.struct": Place(("adapters/", "training.py")),
    "grain": Place(("data/pipeline.py",)),
    "haiku": Place(),
    "jax.experimental": Place(),
    "jax.experimental.multihost_utils": Place(("checkpoint.py",)),
    "jax.experimental.pallas": Place(("recurrence/kernels/",)),
    "matplotlib": Place(("cli/",), lazily=True),
    "mido": Place(("data/midi.py",), lazily=True),
    "optax": Place(("optimizer.py", "training.py")),
    "orbax": Place(("checkpoint.py",)),
    "pyarrow": Place(("cli/", "data/"), lazily=True),
    "pickle": Place(),
    "scipy": Place(),
    "sklearn": Place(("cli/datasets.py",), lazily=True),
    "tensorboardX": Place(("monitor.py",), lazily=True),
    "tensorflow": Place(),
    "torch": Place(),
    "tqdm": Place(("cli/", "monitor.py")),
}
"""By the name of a library or, where a part of it has a place of its own, of that."""

LEVEL = {room: level for level, rooms in enumerate(HOUSE) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))
SYSTEM = {
    "absl", "asyncio", "ctypes", "datetime", "glob", "grain", "importlib", "io", "logging",
    "multiprocessing", "os", "pathlib", "pickle", "platform", "random", "secrets", "shutil",
    "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
"""Libraries of the outside world."""
CALLS = {"open", "print", "input", "exec", "eval", "breakpoint"}
METHODS = {
    "fromfile", "loadtxt", "memmap", "open_memmap", "read_bytes", "read_text", "savetxt", "savez",
    "savez_compressed", "tofile", "write_bytes", "write_text",
}  # fmt: skip

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(tree, inside=False):
    """The modules that a file imports, each with whether that is inside a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from ((f"{node.module}.{alias.name}", inside) for alias in node.names)
        within = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(node, within)


def imported_rooms(tree):
    for module, _ in imports(tree):
        parts = module.split(".")
        if parts[0] == "grnn_jax":
            yield parts[1]


def prefixes(module):
    """The module and those that it is in, the longest first."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def misplaced(tree, name):
    """The libraries that a file imports and should not."""
    for module, inside in imports(tree):
        known = next((prefix for prefix in prefixes(module) if prefix in PLACES), None)
        if known is None:
            if module.split(".")[0] not in ANYWHERE:
                yield f"{module} has no line in PLACES"
            continue
        place = PLACES[known]
        if not any(name == p or (p.endswith("/") and name.startswith(p)) for p in place.paths):
            yield f"{module} belongs into {', '.join(place.paths) or 'no file'}"
        elif place.lazily and not inside:
            yield f"{module} is imported when the file is, not when it is needed"


def outside_world(tree):
    """What a file does beside computing."""
    for module, _ in imports(tree):
        if module.split(".")[0] in SYSTEM:
            yield f"import {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in CALLS:
            yield node.id
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield f".{node.attr}"


def test_every_room_is_pure_or_impure_and_has_a_line():
    assert not PURE & IMPURE
    assert set(LEVEL) == PURE | IMPURE
    assert {room_of(path) for path in FILES} - {"__init__"} == set(LEVEL)


@each_file
def test_imports_run_downwards(path):
    room = room_of(path)
    if room == "__init__":
        return
    for other in imported_rooms(ast.parse(path.read_text())):
        assert other == room or LEVEL[other] < LEVEL[room], f"{path} imports {other} from below"


@each_file
def test_libraries_are_imported_where_they_belong(path):
    tree = ast.parse(path.read_text())
    assert not list(misplaced(tree, str(path.relative_to(PACKAGE))))
    if room_of(path) == "data":
        assert not [module for module, _ in imports(tree) if module.split(".")[0] == "jax"]
        assert not MODEL_ROOMS & set(imported_rooms(tree))


@each_file
def test_pure_rooms_only_compute(path):
    if room_of(path) in PURE:
        assert not list(outside_world(ast.parse(path.read_text())))


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("cli/plots.py", "import matplotlib", 1),
        ("cli/plots.py", "def plot():\n    from matplotlib import pyplot", 0),
        ("model.py", "def plot():\n    from matplotlib import pyplot", 1),
        ("training.py", "import flax.struct", 0),
        ("training.py", "from flax import struct, linen", 1),
        ("cells/lstm.py", "import equinox, torch, flax.linen as nn", 3),
        ("recurrence/fused.py", "from jax.experimental import pallas as pl", 1),
        ("recurrence/kernels/gru.py", "from jax.experimental.pallas import tpu", 0),
        ("training_loop.py", "from absl import flags, logging", 1),
        ("cells/lstm.py", "import requests\nimport math", 1),
    ],
)
def test_what_is_misplaced(name, text, count):
    assert len(list(misplaced(ast.parse(text), name))) == count


def test_what_is_impure():
    text = "import jax, time\nopen(x)\npath.write_text(jax.numpy.exp(1))\nwith_open = 1"
    assert list(outside_world(ast.parse(text))) == ["import time", "open", ".write_text"]
