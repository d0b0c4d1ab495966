"""What a compiled program runs: kernels, estimated cycles, bytes, loops and collectives.

The text counted is that of XLA's optimised and scheduled module: every instruction that is not
free is one launch, on a GPU one kernel or copy. A `while` is a loop; how often it runs is read from
what the compiler notes or from the bound that its condition compares with.
"""

import collections
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hlo_bytes import kernel_bytes
from hlo_text import ENTRY, Instruction, Module, parse

FREE = {
    "add-dependency", "after-all", "bitcast", "constant", "domain", "get-tuple-element",
    "opt-barrier", "parameter", "partition-id", "replica-id", "tuple",
}  # fmt: skip
"""Instructions that no device runs."""
CONTINUATIONS = ("-done", "-update")
"""Endings of the second half of what an instruction that ends in -start began."""
COLLECTIVES = (
    "all-gather", "all-reduce", "all-to-all", "collective-broadcast", "collective-permute",
    "ragged-all-to-all", "reduce-scatter",
)  # fmt: skip


class Loop(NamedTuple):
    """A loop: how often it runs, None where that depends on data, and what its body runs."""

    trips: int | None
    body: "Counts"


class Counts(NamedTuple):
    """What a sequence of instructions runs, loops apart.

    Attributes:
        kinds: launches outside of loops, by kind.
        cycles: the compiler's estimate of their cycles; 0 where it makes none (all but TPUs).
        num_bytes: bytes that they read and write at least.
        collectives: exchanges between devices outside of loops -> bytes that one sends.
        loops: the loops, in order.
    """

    kinds: Mapping[str, int]
    cycles: int
    num_bytes: int
    collectives: Mapping[str, int]
    loops: tuple[Loop, ...]

    @property
    def kernels(self) -> int:
        """Launches outside of loops."""
        return sum(self.kinds.values())

    def total(self, what: str, unknown: int = 1) -> int:
        """The same with all loops, each as often as it runs.

        Args:
            what: "kernels", "cycles" or "num_bytes".
            unknown: how often a loop is taken to run where that depends on data.
        """
        inside = sum(
            (unknown if loop.trips is None else loop.trips) * loop.body.total(what, unknown)
            for loop in self.loops
        )
        return int(getattr(self, what)) + inside

    def record(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "kernels": self.kernels,
            "kinds": dict(self.kinds),
            "cycles": self.cycles,
            "bytes": self.num_bytes,
            "collectives": dict(self.collectives),
            "loops": [{"trips": loop.trips, **loop.body.record()} for loop in self.loops],
        }


def count(text: str) -> Counts:
    """Counts what a module runs.

    Args:
        text: an optimised module, as `Compiled.as_text()` gives it.

    Returns:
        The counts of its entry computation.

    Raises:
        ValueError: the text has no entry computation.
    """
    return _count(parse(text), ENTRY)


def aliased_outputs(text: str) -> int:
    """How many results of a module take the memory of an argument that was donated."""
    head = text.split("\n", 1)[0]
    start = head.find("input_output_alias={")
    return head[start:].count("-alias)") if start >= 0 else 0


def _count(module: Module, name: str) -> Counts:
    kinds: collections.Counter[str] = collections.Counter()
    collectives: collections.Counter[str] = collections.Counter()
    loops: list[Loop] = []
    cycles = num_bytes = 0
    for place, instruction in _run(module, name):
        opcode = instruction.opcode
        if opcode == "while":
            body = _count(module, instruction.calls("body"))
            loops.append(Loop(_trips(module, instruction), body))
            continue
        kinds[_kind(instruction)] += 1
        cycles += sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', instruction.attributes)))
        if opcode.removesuffix("-start") in COLLECTIVES:
            # What is sent: the result of a -start may hold it too, beside what is received.
            sent = [module[place][name].num_bytes for name in instruction.operands]
            collectives[opcode.removesuffix("-start")] += sum(sent)
        if opcode != "conditional":
            num_bytes += kernel_bytes(module, place, instruction)
            continue
        # One branch runs: the largest stands for it.
        branches = [_count(module, branch) for branch in _branches(instruction)]
        taken = max(branches, key=lambda branch: (branch.total("kernels"), branch.cycles))
        kinds.update(taken.kinds)
        collectives.update(taken.collectives)
        loops += taken.loops
        cycles, num_bytes = cycles + taken.cycles, num_bytes + taken.num_bytes
    return Counts(kinds, cycles, num_bytes, collectives, tuple(loops))


def _run(module: Module, name: str) -> Iterator[tuple[str, Instruction]]:
    """What is run of a computation, and where it stands; called computations in their place."""
    for instruction in module[name].values():
        opcode = instruction.opcode
        if opcode in FREE or opcode.endswith(CONTINUATIONS):
            continue
        called = instruction.calls("to_apply") if opcode == "call" else ""
        if opcode == "async-start":
            called = instruction.calls("calls")
        if called in module:
            yield from _run(module, called)
        else:
            yield name, instruction


def _kind(instruction: Instruction) -> str:
    """A word for what is launched."""
    name, opcode = instruction.name, instruction.opcode.removesuffix("-start")
    if opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]+)"', instruction.attributes)
        return target[1] if target else opcode
    if opcode != "fusion":
        return "product" if opcode in ("convolution", "dot") else opcode
    if "gemm" in name or "dot" in name:
        return "product"
    # On a TPU a fusion around a product is of this kind, whatever its name.
    return "product" if "kind=kOutput" in instruction.attributes else "fusion"


def _trips(module: Module, loop: Instruction) -> int | None:
    noted = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if noted:
        return int(noted[1])
    # A counter from 0 compared with one constant, as `lax.scan` makes it; else it depends on data.
    condition = module[loop.calls("condition")].values()
    compared = [i for i in condition if i.opcode not in FREE]
    bounds = [re.search(r"\((\d+)\)", i.attributes) for i in condition if i.opcode == "constant"]
    if len(compared) == len(bounds) == 1 and "direction=LT" in compared[0].attributes:
        return int(bounds[0][1]) if bounds[0] else None
    return None


def _branches(conditional: Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", conditional.attributes)
    if listed:
        return re.findall(r"%?([\w.\-]+)", listed[1])
    return [conditional.calls("true_computation"), conditional.calls("false_computation")]
