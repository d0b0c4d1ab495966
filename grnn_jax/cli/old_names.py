"""Names that flags took in earlier versions: accepted still, with a note in the log."""

from pathlib import Path

from absl import flags

from grnn_jax.cli import presets
from grnn_jax.config import rename

notes: list[str] = []
"""What was accepted under an old name; flags are read before there is a log."""


def _note(text: str) -> None:
    if text not in notes:
        notes.append(text)


def _accept(flag: str, old: str, new: str) -> str:
    if new != old:
        _note(f"--{flag}={old} is called {new} now")
    return new


def accept_preset(name: str) -> str:
    """The name of a preset today: what was called tied is called sitewise."""
    renamed = name.replace("tied", "sitewise")
    return _accept("preset", name, renamed) if renamed in presets.names() else name


def accept_argument(argument: str) -> str:
    """--flagfile=experiments/presets/NAME.flags, where the presets were, as --preset=NAME."""
    flag, _, value = argument.partition("=")
    path = Path(value)
    if flag.lstrip("-") != "flagfile" or path.parent.name != "presets" or path.exists():
        return argument
    name = path.stem.replace("tied", "sitewise")
    if name not in presets.names():
        return argument
    note = f"{argument} is called --preset={name} now"
    if note not in notes:
        notes.append(note)
    return f"--preset={name}"


class NameParser(flags.ArgumentParser[str]):
    """Parses the value of a setting that is text."""

    def __init__(self, setting: str):
        self._setting = setting

    def parse(self, argument: str) -> str:
        """The value under its name of today."""
        return _accept(self._setting, argument, rename(self._setting, argument))


class ChoiceParser(flags.EnumParser):
    """Parses the value of a setting that is one of several names."""

    def __init__(self, setting: str, choices: list[str]):
        super().__init__(choices)
        self._setting = setting

    def parse(self, argument: str) -> str:
        """The value under its name of today."""
        return super().parse(_accept(self._setting, argument, rename(self._setting, argument)))
