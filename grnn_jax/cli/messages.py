"""The library's messages name arguments; on a command line arguments are flags."""

import re
from collections.abc import Container

# What stands in quotes is the user's: a value, or text of a file.
_QUOTED = r"(?<!\w)(?P<quote>['\"`]).*?(?P=quote)(?!\w)"
# A word by itself, and no part of a path, of a value, of a longer word or of a flag.
_NAME = r"(?<![\w./\\~@$%=,:-])(?P<name>[a-z]\w*)(?![\w/\\]|[-.:]\w)"
_PATTERN = re.compile(f"{_QUOTED}|{_NAME}", re.DOTALL)
# name=value, but no file of such a name: seed=1.txt, seed=1/data.
_VALUE = re.compile(r"=(?![^\s,;:]*(?:[/\\]|\.[A-Za-z]))")
_BEGINS = re.compile(r":(?:\s|$)| must | needs? ")
_LISTED = re.compile(r" (?:was|is) ")


def dashed(message: str, names: Container[str]) -> str:
    """A message with -- before the arguments that it names.

    A name is one where a value follows (name=value), where it begins the message (name: …, name
    must …, name needs …) or a list in brackets (name was …), and where it holds an underscore,
    which no word of a sentence does.

    Args:
        message: of the library, or of a command, whose flags have their dashes already.
        names: what is a flag.

    Returns:
        The message; what stands in quotes, in paths and in names of files is as it was.
    """

    def replace(match: re.Match[str]) -> str:
        name, start, end = match["name"], match.start(), match.end()
        if name is None or name not in names or message[:start].endswith(("file ", "folder ")):
            return match[0]
        is_argument = (
            bool(_VALUE.match(message, end))
            or ("_" in name and not message.startswith("=", end))
            or (start == 0 and bool(_BEGINS.match(message, end)))
            or (message[:start].endswith(("(", "; ")) and bool(_LISTED.match(message, end)))
        )
        return f"--{name}" if is_argument else name

    return _PATTERN.sub(replace, message)
