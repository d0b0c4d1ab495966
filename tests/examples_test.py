"""The lines after >>> in docstrings run; what is public has some."""

import ast
import doctest
import importlib
import shutil
import types
from pathlib import Path

import pytest

import grnn_jax
from grnn_jax import cells, distributions, sampling

PACKAGE = Path(grnn_jax.__file__).parent
OLD_RUN = Path(__file__).parent / "old_runs" / "text"
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef)


def find_examples():
    """The docstrings with examples, read from the sources: their files, lines and texts."""
    examples = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            text = ast.get_docstring(node) if isinstance(node, DEFINITIONS) else None
            if text and ">>>" in text:
                name = f"{path.relative_to(PACKAGE)}::{getattr(node, 'name', 'module')}"
                examples[name] = path, getattr(node, "lineno", 1), text
    return examples


EXAMPLES = find_examples()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text, and a run that was trained on one."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(OLD_RUN / "run", folder / "runs" / "mine")
    for name in ("corpus.txt", "mine.txt"):
        shutil.copy(OLD_RUN / "corpus.txt", folder / name)
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    path, line, text = EXAMPLES[name]
    module = ".".join(["grnn_jax", *path.relative_to(PACKAGE).with_suffix("").parts])
    names = dict(vars(importlib.import_module(module.removesuffix(".__init__"))))
    example = doctest.DocTestParser().get_doctest(text, names, name, str(path), line)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(example)
    assert not runner.failures, capsys.readouterr().out
    assert runner.tries


def test_every_public_function_has_an_example():
    exported = [
        getattr(package, name)
        for package in (cells, distributions, sampling)
        for name in package.__all__
    ]
    functions = [each for each in exported if isinstance(each, types.FunctionType)]
    public = [getattr(grnn_jax, name) for name in grnn_jax.__all__]
    functions += [each for each in public if isinstance(each, types.FunctionType)]
    assert len(functions) > 70
    assert not [each.__name__ for each in functions if ">>>" not in (each.__doc__ or "")]
