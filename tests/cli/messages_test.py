"""Messages of the library as the commands print them, and that the library names no flags."""

import ast
import pathlib
import re

import pytest

import grnn_jax
from grnn_jax.cli.messages import dashed

NAMES = {
    "batch_size", "cell", "codec", "data", "dropout", "hidden_size", "num_heads", "seed", "split",
    "start_from", "valid_data", "workdir",
}  # fmt: skip
PACKAGE = pathlib.Path(grnn_jax.__file__).parent
FLAGS = PACKAGE / "workdir" / "flag_file.py"
"""It writes what train.py takes."""
FILES = sorted(set(PACKAGE.rglob("*.py")) - set((PACKAGE / "cli").rglob("*.py")) - {FLAGS})


@pytest.mark.parametrize(
    "message",
    [
        "--seed must be at least 0, got -1",
        "--data: there is no file /home/me/data",
        "--cell needs a name",
        "--valid_data and --batch_size need --data=FILE, got none",
        "--hidden_size must be a multiple of --num_heads=4, got 6",
        "no --codec=chars; give a smaller --batch_size.",
        "--dropout=0.5 is too much (--cell=lstm)",
        "--workdir: other settings (--seed was 1, is 2; --cell was 'a', is 'b')",
        "--start_from: (--hidden_size is 8 there, 9 here), restore the data, or the run's cell",
        "leave out --valid_data, --batch_size and --seed=1e-3",
    ],
)
def test_names_of_arguments_get_dashes(message):
    plain = message.replace("--", "")
    assert dashed(plain, NAMES) == message
    assert dashed(message, NAMES) == message  # What a command says of its own flags is left alone.


@pytest.mark.parametrize(
    "message",
    [
        "the data have changed; another seed, a cell, a split",
        "no file batch_size, no folder hidden_size",
        "cannot read runs/batch_size/x, /data/hidden_size, ~valid_data or hidden_size/x",
        "C:\\batch_size\\x: no such file",
        "batch_size.txt: line 3: no text",
        "batch_size.txt:3: no text",
        "seed:3: no text",
        "seed=1.txt: no text",
        "seed=1.txt:3: no text",
        "seed=1/data: no text",
        "expected a field, got 'batch_size' or \"seed=1\" or `hidden_size`",
        "the run's data say 'it is batch_size' and 'x; seed was 1'",
        "my-batch_size, batch_size-2, my_batch_size, batch_sizes, xbatch_size, batch_size2",
        "database: gone, workdirs must go, data-set: x",
        "line 3: cell: unknown",
        "fields a=seed,b=cell and a=b,seed=1",
        "a@seed=1, $seed=2, %seed=3, ./seed=4",
        "Batch_size, BATCH_SIZE and SEED=1",
        "learning_rate=3 is no name here",
        "",
    ],
)
def test_words_files_and_quotes_do_not(message):
    assert dashed(message, NAMES) == message


def strings(path):
    """The strings of a file that are no docstrings, with "name" for what an f-string fills in."""
    tree = ast.parse(path.read_text())
    docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                getattr(part, "value", "") if isinstance(part, ast.Constant) else "name"
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield "" if id(node) in docs else node.value


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_names_arguments(path):
    assert not [text for text in strings(path) if re.search(r"--[a-z]", text)]
