"""What benchmarks/accelerator.py times, in the order of what it is worth to know."""

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import chips
import jax

from grnn_jax import cells

DTYPES = ("bfloat16", "tensorfloat32", "float32")
KINDS = ("forward", "training", "step", "sample")
CLASSES = 65
"""Characters of the model whose training steps and samples are timed."""


class Row(NamedTuple):
    """One computation, which several implementations do.

    Attributes:
        kind: "forward": all outputs; "training": value and gradient of a weighted sum of them,
            with respect to the parameters and to what enters; "step": a whole training step of a
            character model; "sample": as many characters from that model.
        cell: a name in `cells.CELLS`.
        num_heads: blocks of the recurrent matrix.
        width: units of a head; H = num_heads · width.
        batch_size: B.
        length: T.
        dtype: the compute type.
        inputs: "dense": vectors [B, T, H], as cuDNN takes them; "projected": what they are
            projected to [B, T, P], as FlashRNN takes them; "tokens": of step and sample.
    """

    kind: str
    cell: str
    num_heads: int
    width: int
    batch_size: int
    length: int
    dtype: str
    inputs: str = "dense"

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.num_heads * self.width

    @property
    def name(self) -> str:
        """The row in tables, and its key in the JSON file."""
        size = f"{self.num_heads}x{self.width}"
        shape = f"B {self.batch_size}, T {self.length}"
        return f"{self.cell} {size}, {shape}, {self.dtype}, {self.inputs}, {self.kind}"


def make_cell(row: Row, dtype: Any = None) -> cells.Cell:
    """The cell of a row.

    Args:
        row: its name, sizes and compute type.
        dtype: another compute type.

    Raises:
        ValueError: for heads of a cell that has none, or an unknown compute type.
    """
    options: dict[str, Any] = {"dtype": row.dtype if dtype is None else dtype}
    if row.num_heads != 1:
        options["num_heads"] = row.num_heads
    return cells.CELLS[row.cell](row.hidden_size, **options)


def work(row: Row) -> chips.Work:
    """The least that the row's computation does.

    Every entry of a matrix is one multiplication and one addition a step and sequence, twice more
    for the gradient. Inputs, outputs and parameters pass the memory once, in float32, their
    gradients too; the matrix is thought to stay on the chip for all steps.
    """
    cell, steps = make_cell(row, "float32"), row.batch_size * row.length
    width = 1 if row.inputs == "projected" else row.hidden_size
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), width))
    one_step = jax.ShapeDtypeStruct((1, width), "float32")
    projected = jax.eval_shape(cell.project, params, one_step).shape[-1]
    matrices = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.ndim > 1 and not (row.inputs == "projected" and "input_kernel" in str(path))
    )
    numbers = cells.count_parameters(params)
    entering = {"dense": width, "projected": projected, "tokens": 0}[row.inputs]
    passed = steps * (entering + row.hidden_size)
    if row.kind in ("step", "sample"):
        matrices += row.hidden_size * CLASSES
        numbers += 2 * row.hidden_size * CLASSES
        passed = steps
    flops = 2.0 * steps * matrices
    if row.kind in ("training", "step"):
        flops, passed = 3 * flops, 2 * passed
        # Read and written: the gradient once, with Adam also the parameters and both moments.
        numbers *= 2 if row.kind == "training" else 6
    return chips.Work(4.0 * (passed + numbers), flops)


def rows(small: bool = False) -> list[Row]:
    """All rows, the most worth knowing first.

    Targets come first, in bfloat16: LSTM and GRU beside cuDNN, then heads, other cells, linear
    cells; then other types, and what is left of all sizes.

    Args:
        small: tiny sizes, which a CPU compiles and runs in no time.
    """
    return list(dict.fromkeys(map(_shrink, _rows()) if small else _rows()))


def _rows() -> Iterable[Row]:
    long, wide = (16, 1024), (64, 512)
    pair, both, narrow = ("lstm", "gru"), KINDS[:2], ("bfloat16",)
    one, heads = [(1, 768)], [(12, 64), (6, 128)]

    def grid(
        names: Iterable[str],
        sizes: Iterable[tuple[int, int]],
        shape: tuple[int, int],
        dtypes: Iterable[str] = narrow,
        inputs: str = "dense",
        kinds: Iterable[str] = both,
    ) -> Iterable[Row]:
        for dtype, name, size, kind in itertools.product(dtypes, names, sizes, kinds):
            yield Row(kind, name, *size, *shape, dtype, inputs)

    yield from grid(pair, [(1, 512)], wide)
    yield from grid(["lstm"], [(1, 512)], wide, inputs="tokens", kinds=["step"])
    yield from grid(["lstm"], [(1, 512)], (64, 256), inputs="tokens", kinds=["sample"])
    yield from grid(pair, one, long)
    yield from grid(["lstm", "slstm"], heads, long, inputs="projected")
    yield from grid(pair, [(1, 1024), (1, 256)], wide)
    for batch_size in (1, 4096):
        yield from grid(["lstm"], [(1, 512)], (batch_size, 256), inputs="tokens", kinds=["sample"])
    yield from grid(["gru"], [(1, 512)], wide, inputs="tokens", kinds=["step"])
    gated = [name for name in _names("gated") if name not in pair]
    yield from grid(gated, [(1, 512)], wide, kinds=["training"])
    for length in (1024, 16384):
        yield from grid(["min_gru"], [(1, 1536)], (8, length), ["float32"], "projected")
    yield from grid(_names("linear"), [(1, 1536)], (8, 4096), ["float32"], "projected")
    yield from grid(pair, [(1, 512)], wide, DTYPES[1:])
    yield from grid(pair, one, long, DTYPES[1:])
    yield from grid(gated, [(1, 512)], wide)
    every = ("lstm", "gru", "slstm", "elman")
    for dtypes in (narrow, DTYPES[1:]):
        yield from grid(every, [*heads, (3, 256)], long, dtypes, "projected")
        yield from grid(every, one, long, dtypes, "projected")
        yield from grid(every, one, long, dtypes)
        yield from grid(every, [(1, size) for size in (256, 512, 1024, 2048)], wide, dtypes)
        yield from grid(every, [(1, 512)], wide, dtypes, "tokens", ["step"])
        for batch_size in (1, 64, 4096):
            yield from grid(every, [(1, 512)], (batch_size, 256), dtypes, "tokens", ["sample"])


def _names(structure: str) -> list[str]:
    """Cells in the registry that declare a structure, each at a small size."""
    made = {name: cells.CELLS[name](2) for name in cells.CELLS}
    return [name for name, cell in made.items() if getattr(cell, structure) is not None]


def _shrink(row: Row) -> Row:
    heads = min(row.num_heads, 2)
    return row._replace(
        num_heads=heads, width=8 // heads, batch_size=min(row.batch_size, 3), length=5
    )
