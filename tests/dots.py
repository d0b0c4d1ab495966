"""What the products of a lowered program are: the types of their operands, and their precision."""

import re
from typing import NamedTuple

PLATFORMS = "cpu", "cuda", "tpu"
EXPECTED = {
    "float32": ("f32", "f32", "HIGHEST"),
    "tensorfloat32": ("f32", "f32", "HIGH"),
    "bfloat16": ("bf16", "bf16", "DEFAULT"),
}
"""The products of each compute type."""
EXACT = EXPECTED["float32"]
"""Some products are exact in every type: sums of the rows of a table, for one."""

PRODUCT = re.compile(r"stablehlo\.(?:dot_general|dot|convolution)\b.*")
PRECISION = re.compile(r"precision(?:_config)? = \[(?:#stablehlo<precision )?(\w+)")
OPERANDS = re.compile(r": \(tensor<(?:\d+x)*([a-z]\w*)>, tensor<(?:\d+x)*([a-z]\w*)>\) ->")


class Dot(NamedTuple):
    """A product: the types of its operands, and DEFAULT, HIGH or HIGHEST."""

    left: str
    right: str
    precision: str


def dots(text):
    """Every product of a lowered program."""
    return [_dot(line) for line in PRODUCT.findall(text)]


def lower(function, *arguments, platforms=PLATFORMS):
    """A jitted function lowered on this host for several platforms: the code of each is in it."""
    return function.trace(*arguments).lower(lowering_platforms=platforms).as_text()


def _dot(line):
    types, precision = OPERANDS.search(line), PRECISION.search(line)
    assert types is not None, line
    # A product without precision is of the default one: of a TPU one pass of bfloat16.
    return Dot(*types.groups(), "DEFAULT" if precision is None else precision[1])
