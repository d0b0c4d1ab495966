"""A directory under a name that libraries do not take for a pattern or for a bucket."""

import re
import shutil
import tempfile
import weakref
from pathlib import Path

from grnn_jax.errors import InputError

_NOT_PLAIN = re.compile(r"[\[\]*?\\]|:/")


def plain_path(path: Path, owner: object, same: bool = False) -> Path:
    """A path whose every character stands for itself: where it has others, a link to it.

    Orbax finds the parts of a checkpoint by `glob`, with the path to them as a part of the pattern:
    where that holds [x], it writes checkpoints that lack their arrays, and says nothing.

    Args:
        path: an absolute path.
        owner: what uses the link; it goes when this object does.
        same: whether several processes need the same name for it.

    Returns:
        The path, or a link in a temporary folder.

    Raises:
        InputError: no link can be made.
    """
    if not _NOT_PLAIN.search(str(path)):
        return path
    expected = f"workdir must be a path without any of [ ] * ? \\ and :/, got {path.parent}"
    if same:
        raise InputError(f"{expected}, with several processes")
    try:
        folder = tempfile.mkdtemp(prefix="grnn_jax-")
        weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
        link = Path(folder) / path.name
        link.symlink_to(path, target_is_directory=True)
    except OSError as error:
        raise InputError(f"{expected}; no link to it can be made: {error.strerror}") from error
    if _NOT_PLAIN.search(str(link)):
        raise InputError(f"{expected}; nor is the temporary folder one, {folder}")
    return link
