"""The lines after >>> in docstrings run, and what is public has some."""

import ast
import doctest
import importlib
import shutil
from pathlib import Path

import pytest

import grnn_jax

PACKAGE = Path(grnn_jax.__file__).parent
OLD_RUN = Path(__file__).parent / "old_runs" / "text"
MODULES = {
    str(path.relative_to(PACKAGE)): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text()
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text, and a run that was trained on one."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(OLD_RUN / "run", folder / "runs" / "mine")
    for name in ("corpus.txt", "mine.txt"):
        shutil.copy(OLD_RUN / "corpus.txt", folder / name)
    return folder


def examples(path):
    """The docstrings of a file that have examples, read from its text: wrapped functions too."""
    name = ".".join(["grnn_jax", *path.relative_to(PACKAGE).with_suffix("").parts])
    module = importlib.import_module(name.removesuffix(".__init__"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(path.read_text())):
        text = ast.get_docstring(node) if isinstance(node, kinds) else None
        if text and ">>>" in text:
            title, line = getattr(node, "name", "module"), getattr(node, "lineno", 1)
            yield doctest.DocTestParser().get_doctest(
                text, dict(vars(module)), f"{name}.{title}", str(path), line
            )


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_file_run(name, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for example in examples(MODULES[name]):
        runner.run(example)
    assert not runner.failures, capsys.readouterr().out
    assert runner.tries


@pytest.mark.parametrize("name", ["evaluate", "load", "train"])
def test_what_is_public_has_an_example(name):
    assert ">>>" in getattr(grnn_jax, name).__doc__
