"""The text of an optimised HLO module, as `Compiled.as_text()` gives it, taken apart."""

import re
from collections.abc import Mapping
from typing import NamedTuple

BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}
"""Bytes of the dtypes whose names do not end in their bits."""

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One instruction of a computation.

    Attributes:
        name: its name in the module.
        opcode: what it does.
        shape: the text of its result's shape.
        operands: names of the instructions that it reads.
        attributes: the text behind the operands.
        is_root: whether its result is that of the computation.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    def calls(self, attribute: str) -> str:
        """The computation that an attribute names; empty if there is none."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""

    @property
    def num_bytes(self) -> int:
        """Bytes of the result: of an array, or of all arrays of a tuple."""
        total = 0
        for dtype, sizes in _ARRAY.findall(self.shape):
            size = BYTES.get(dtype) or max(1, int("0" + re.sub(r"\D", "", dtype)[:2]) // 8)
            for axis in sizes.split(","):
                size *= int(axis or 1)
            total += size
        return total


Module = Mapping[str, Mapping[str, Instruction]]
"""Name of a computation -> name of an instruction -> the instruction, in the order of the text."""
ENTRY = "ENTRY"
"""Stands in a module for the name of the computation that is run."""


def parse(text: str) -> Module:
    """Takes a module apart.

    Args:
        text: the module.

    Returns:
        Its computations.

    Raises:
        ValueError: it has no entry computation.
    """
    module: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] | None = None
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = module[ENTRY if head[1] else head[2]] = {}
        elif line.startswith("}"):
            current = None
        elif current is not None and (instruction := _instruction(line.strip())):
            current[instruction.name] = instruction
    if ENTRY not in module:
        raise ValueError("text must be an HLO module with an ENTRY computation, got none")
    return module


def _instruction(line: str) -> Instruction | None:
    matched = _INSTRUCTION.match(line)
    if matched is None:
        return None
    root, name, rest = matched.groups()
    shape = rest[: _end(rest, " ")]
    opcode = re.match(r"\s*([\w\-]+)\(", rest[len(shape) :])
    if opcode is None:
        return None
    rest = rest[len(shape) + opcode.end() - 1 :]
    end = _end(rest[1:], ")") + 1
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[:end]))
    # A constant's or parameter's number takes the place of operands.
    attributes = rest if opcode[1] in ("constant", "parameter") else rest[end:]
    return Instruction(name, opcode[1], shape, operands, attributes, bool(root))


def _end(text: str, character: str) -> int:
    """Where a character stands outside of brackets; else the length."""
    depth = 0
    for place, found in enumerate(text):
        if found == character and depth == 0:
            return place
        depth += (found in "([{") - (found in ")]}")
    return len(text)
