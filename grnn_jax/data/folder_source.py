"""A folder of text files, each a document."""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.corpus import FileSource
from grnn_jax.data.declared import MAX_FILE_GIB
from grnn_jax.errors import InputError

SUFFIXES = (".txt", ".txt.gz")


def folder_of(path: str | os.PathLike[str]) -> str:
    """The name of the folder that a file lies in."""
    return pathlib.Path(path).absolute().parent.name


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """The text files in a folder and below it, in the order of their paths.

    Attributes:
        path: the folder.
        argument: the argument that named it, for messages.
        as_is: whether a file is taken as text whatever its first lines show it to be.
        max_gib: the GiB that each file may expand to, if it is compressed.
    """

    path: str
    argument: str = "data"
    as_is: bool = True
    max_gib: float = MAX_FILE_GIB

    def documents(
        self, errors: str = "strict", bad: BadRecords | None = None
    ) -> Iterator[tuple[str, Iterator[str]]]:
        """The name of each file and its text in chunks; bad lines are told and empty."""
        for file in self._files():
            yield from file.documents(errors, bad)

    def fingerprint(self) -> Any:
        """What identifies each file as long as nobody writes to it."""
        return [file.fingerprint() for file in self._files()]

    def _files(self) -> list[FileSource]:
        every = sorted(
            path
            for path in pathlib.Path(self.path).rglob("*")
            if path.is_file() and not path.name.startswith(".")
        )
        taken = [path for path in every if path.name.lower().endswith(SUFFIXES)]
        if not taken:
            raise InputError(f"{self.argument}: {self.path} has no text files ({SUFFIXES[0]})")
        if len(taken) < len(every):
            logging.getLogger(__name__).info(
                "%s: %d files are left out, whose names do not end in %s",
                self.path,
                len(every) - len(taken),
                " or ".join(SUFFIXES),
            )
        return [
            FileSource(path, self.argument, by_line=True, as_is=self.as_is, max_gib=self.max_gib)
            for path in taken
        ]
