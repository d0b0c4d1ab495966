"""Bytes that a kernel reads and writes at least, from the HLO text of what was fused into it."""

from collections.abc import Iterable, Mapping

from hlo_text import Instruction, Module

SLICES = ("dynamic-slice", "gather", "slice")
VIEWS = ("bitcast", "get-tuple-element", "reshape", "tuple")
"""Instructions that move nothing."""


def kernel_bytes(module: Module, computation: str, instruction: Instruction) -> int:
    """Bytes that one launch moves between memory and registers, each of them once.

    Of an array of which a kernel takes slices those bytes count; of one that it writes a slice
    into, the slice. What caches keep is not known here: it is a cost model.

    Args:
        module: the module.
        computation: the computation that the instruction stands in.
        instruction: the kernel.
    """
    is_fusion = instruction.opcode.removesuffix("-start") == "fusion"
    inside = module.get(instruction.calls("calls"), {}) if is_fusion else {}
    if inside:
        read = sum(_read(inside, i) for i in inside.values() if i.opcode == "parameter")
        roots = [i for i in inside.values() if i.is_root]
        return read + sum(_written(inside, root) for root in roots)
    around = module[computation]
    operands = [around[name] for name in instruction.operands if name in around]
    if instruction.opcode in SLICES:
        return 2 * instruction.num_bytes
    if instruction.opcode == "dynamic-update-slice":
        return 2 * operands[1].num_bytes
    return instruction.num_bytes + sum(operand.num_bytes for operand in operands)


def _read(inside: Mapping[str, Instruction], parameter: Instruction) -> int:
    """Bytes of a fusion's parameter that it reads."""
    total = 0
    for user in _users(inside, parameter):
        first = user.operands[0]
        if user.opcode in SLICES and first in _names(inside, parameter):
            total += user.num_bytes
        elif user.opcode != "dynamic-update-slice" or first not in _names(inside, parameter):
            return parameter.num_bytes
    return min(total, parameter.num_bytes)


def _users(inside: Mapping[str, Instruction], value: Instruction) -> Iterable[Instruction]:
    """What uses a value, also by way of another view of it."""
    names = _names(inside, value)
    for other in inside.values():
        if other.name not in names and any(name in names for name in other.operands):
            yield other


def _names(inside: Mapping[str, Instruction], value: Instruction) -> set[str]:
    """The value and its views."""
    names = {value.name}
    for other in inside.values():  # Operands stand in front of what uses them.
        if other.opcode in VIEWS and other.opcode != "tuple" and other.operands[0] in names:
            names.add(other.name)
    return names


def _written(inside: Mapping[str, Instruction], result: Instruction) -> int:
    if result.opcode == "tuple":
        return sum(_written(inside, inside[name]) for name in result.operands)
    if result.opcode in VIEWS and result.operands[0] in inside:
        return _written(inside, inside[result.operands[0]])
    if result.opcode == "dynamic-update-slice":
        return inside[result.operands[1]].num_bytes
    return result.num_bytes
