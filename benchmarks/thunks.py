"""What the host of a GPU launches, from the order of work that XLA dumps beside a compilation.

Kernels that XLA has put into one command buffer (a CUDA graph) are one launch, loops inside of it
too. A loop outside of one is driven by the host, which launches its body at every iteration.
"""

import pathlib
import re
from typing import Any, NamedTuple

_THUNK = re.compile(r"^(\s*)\d+: k(\w+)")


class _Thunk(NamedTuple):
    """A piece of work, as XLA calls it, with those that it is made of."""

    kind: str
    parts: list["_Thunk"]
    condition: list["_Thunk"]


def host_launches(folder: str) -> dict[str, Any] | None:
    """Counts launches.

    Args:
        folder: where `xla_dump_to` pointed to while one module was compiled.

    Returns:
        graphs, command buffers; outside, launches outside of loops, graphs among them; loops, for
        each loop that the host drives its launches at every iteration. None where there is no dump.
    """
    files = sorted(pathlib.Path(folder).glob("*thunk_sequence_after_thunk_passes.txt"))
    return count_launches(files[-1].read_text()) if files else None


def count_launches(text: str) -> dict[str, Any]:
    """`host_launches` of the text of such a file."""
    loops: list[int] = []
    thunks = _parse(text)
    outside = _launches(thunks, loops)
    return {"graphs": _graphs(thunks), "outside": outside, "loops": loops}


def _parse(text: str) -> list[_Thunk]:
    root = _Thunk("", [], [])
    open_thunks = [(-1, root)]
    in_condition = False
    for line in text.splitlines():
        label = line.strip()
        if label in ("condition:", "body:"):
            in_condition = label == "condition:"
        elif found := _THUNK.match(line):
            indent, thunk = len(found[1]), _Thunk(found[2], [], [])
            while open_thunks[-1][0] >= indent:
                open_thunks.pop()
            parent = open_thunks[-1][1]
            of_condition = in_condition and parent.kind == "While"
            (parent.condition if of_condition else parent.parts).append(thunk)
            open_thunks.append((indent, thunk))
    return root.parts


def _launches(thunks: list[_Thunk], loops: list[int]) -> int:
    """Launches of a sequence but for its loops, which are appended."""
    number = 0
    for thunk in thunks:
        if thunk.kind == "CommandBuffer":
            number += 1
        elif thunk.kind == "While":
            place = len(loops)
            loops.append(0)
            loops[place] = _launches(thunk.parts, loops)
        elif thunk.parts:
            number += _launches(thunk.parts, loops)
        else:
            number += not thunk.kind.endswith("Done")
    return number


def _graphs(thunks: list[_Thunk]) -> int:
    return sum(1 if thunk.kind == "CommandBuffer" else _graphs(thunk.parts) for thunk in thunks)
