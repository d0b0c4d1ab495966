"""Whether every engine computes every cell on this device: values, gradients, memory, repetition.

Values are compared with a loop over time in NumPy float64 (tests/cell_oracles.py, written from the
papers' equations; where the tests are not at hand, with the scan engine), gradients with those of
the scan engine in float64 on the CPU; how much rounding alone makes out is seen there too. Rows
restart in the middle. Every program runs three times into memory that was filled with something
before, NaN among it, and has to give the same bits: what a kernel leaves unwritten is seen.
"""

import functools
import pathlib
import random
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import grnn_jax
from grnn_jax import cells
from grnn_jax.recurrence import supported_engines

TESTS = pathlib.Path(__file__).parents[1] / "tests"
TOLERANCE = {"float32": 1e-4, "tensorfloat32": 5e-3, "bfloat16": 3e-2}
"""Difference to float64 that is always allowed, relative to the largest entry of an array."""
ROUNDING = 4.0
"""Times as much as a scan on the CPU differs is allowed too, in bfloat16 for narrow types."""
POISON = (float("nan"), 1e30, float("nan"))
"""What fills the memory before each of the runs."""
VOCABULARY = 7


class Check(NamedTuple):
    """One cell at one size, which all of its engines compute.

    Attributes:
        cell: a name in `cells.CELLS`.
        num_heads: blocks of the recurrent matrix.
        width: units of a head.
        batch_size: B.
        length: T.
        dtype: the compute type.
        inputs: "vectors" or "tokens".
        seed: of everything random.
    """

    cell: str
    num_heads: int
    width: int
    batch_size: int
    length: int
    dtype: str
    inputs: str
    seed: int = 0

    @property
    def name(self) -> str:
        """The check in reports, and its key in the JSON file."""
        size = f"{self.num_heads}x{self.width}, B {self.batch_size}, T {self.length}"
        return f"{self.cell} {size}, {self.dtype}, {self.inputs}, seed {self.seed}"


def checks(num_random: int, seed: int, small: bool = False) -> list[Check]:
    """All checks, in order of worth: each cell once, then T = 1, then other types, then any shape.

    Args:
        num_random: random shapes of every cell.
        seed: of them.
        small: cells that stand for their kind alone.
    """
    names = ["lstm", "min_gru", "mogrifier_lstm"] if small else list(cells.CELLS)
    found = []
    for dtype in ("float32", "bfloat16", "tensorfloat32"):
        for name in names:
            heads = 2 if _has_heads(name) else 1
            found.append(Check(name, heads, 18 // heads, 5, 11, dtype, "vectors"))
    one_step = [Check(name, 1, 7, 3, 1, "float32", "tokens") for name in names]
    found[len(names) : len(names)] = one_step
    draw = random.Random(seed)
    for number in range(num_random):
        for name in names:
            # Linear cells are cut into chunks, of which there are several in long windows alone.
            longest = 600 if cells.CELLS[name](2).linear is not None else 40
            heads = draw.choice([1, 2, 3]) if _has_heads(name) else 1
            sizes = draw.choice([1, 3, 8, 17, 32]), draw.randint(1, 33), draw.randint(1, longest)
            dtype = draw.choice(list(TOLERANCE))
            inputs = draw.choice(["vectors", "tokens"])
            found.append(Check(name, heads, *sizes, dtype, inputs, seed + number))
    return found


def _has_heads(name: str) -> bool:
    gated = cells.CELLS[name](2).gated
    return gated is not None and gated.num_gates > 0 and "sitewise" not in name


class Found(NamedTuple):
    """What came out of a check for one engine.

    Attributes:
        difference: the largest one to float64, of all arrays, relative to their largest entries.
        wrong: what is wrong, or None.
    """

    difference: float
    wrong: str | None


class Case(NamedTuple):
    """A cell, what enters it, and what has to come out."""

    cell: cells.Cell
    arguments: tuple[Any, ...]  # What is differentiated, then what is not.
    expected: Any
    limits: list[float]  # The largest difference allowed, for each array that is expected.


def make_case(check: Check) -> Case:
    """Draws everything and computes in float64 on the CPU what is expected."""
    rng = np.random.default_rng(check.seed)
    cell, exact = (_cell(check, dtype) for dtype in (check.dtype, "float32"))
    width, shape = 4, (check.batch_size, check.length)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    def drawn(leaf: Any) -> np.ndarray:
        """Something random about what stands there, of which some may be 0."""
        return (np.asarray(leaf) + 0.1 * normal(*leaf.shape)).astype(leaf.dtype)

    reset = rng.random(shape) < 0.2
    tokens = rng.integers(VOCABULARY, size=shape, dtype=np.int32)
    entering = normal(VOCABULARY, width) if check.inputs == "tokens" else normal(*shape, width)
    weights = normal(*shape, check.num_heads * check.width)
    # Everything comes from the CPU: the device that is checked has no part in it.
    cpu = jax.local_devices(backend="cpu")[0]
    with jax.default_device(cpu), jax.enable_x64(True):
        params = exact.init(jax.random.key(check.seed), width)
        params = jax.tree.map(lambda leaf: drawn(_narrow(leaf)), params)
        state = exact.initial_state(params, check.batch_size)
        state = jax.tree.map(lambda leaf: drawn(_narrow(leaf)), state)
        arguments = (params, state, entering), tokens, reset, weights
        wide = jax.tree.map(_widen, arguments)
        expected = jax.device_get(jax.jit(results(exact, check, "scan"))(*wide))
        oracle = _oracle()
        if oracle is not None and check.cell in oracle.STEPS:
            params, state, entering = jax.tree.map(np.asarray, wide[0])
            initial = jax.device_get(exact.initial_state(params, check.batch_size))
            vectors = entering[tokens] if check.inputs == "tokens" else entering
            values = oracle.run(check.cell, params, vectors, state, reset, initial)
            expected = (values[0], tuple(values[1]), *expected[2:])
    # Gradients of a norm over few units, say, have few digits in any type.
    dtype = "float32" if check.dtype == "float32" else "bfloat16"
    with jax.default_device(cpu):
        rounded = jax.jit(results(_cell(check, dtype), check, "scan"))(*arguments)
    limits = [
        max(TOLERANCE[check.dtype], ROUNDING * difference)
        for difference in differences(jax.device_get(rounded), expected)
    ]
    return Case(cell, arguments, expected, limits)


def differences(found: Any, expected: Any) -> list[float]:
    """Of every array the largest difference, relative to its largest entry."""

    def of_array(found: np.ndarray, expected: np.ndarray) -> float:
        scale = max(float(np.abs(expected).max(initial=0)), 1e-3)
        return float(np.abs(found - expected).max(initial=0)) / scale

    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return [of_array(*pair) for pair in pairs]


def results(cell: cells.Cell, check: Check, engine: str) -> Callable[..., tuple[Any, Any, Any]]:
    """The function whose results are compared: outputs, last state, gradients."""

    def loss(
        variables: Any, tokens: jax.Array, reset: jax.Array, weights: jax.Array
    ) -> tuple[jax.Array, Any]:
        params, state, entering = variables
        inputs = grnn_jax.Tokens(tokens, entering) if check.inputs == "tokens" else entering
        outputs, last = grnn_jax.unroll(cell, params, inputs, state, reset=reset, engine=engine)
        total = (outputs * weights).sum() + sum(
            jnp.real(leaf).sum() for leaf in jax.tree.leaves(last)
        )
        return total, (outputs, last)

    def compute(*arguments: Any) -> tuple[Any, Any, Any]:
        gradients, (outputs, last) = jax.grad(loss, has_aux=True)(*arguments)
        return outputs, last, gradients

    return compute


def engines_of(check: Check, wanted: Iterable[str]) -> list[str]:
    """The choice of "auto", and the engines that can run the cell, among those that are wanted."""
    names = ["auto", *supported_engines(_cell(check, "float32"))]
    return [name for name in names if "all" in wanted or name in wanted]


class Compiled(NamedTuple):
    """A program that writes its results into memory that it is given.

    Attributes:
        program: called with (memory, *arguments).
        shapes: of the results, and so of the memory.
        temporary_bytes: what else it takes from the device.
    """

    program: Callable[..., Any]
    shapes: Any
    temporary_bytes: int


def compile_into(function: Callable[..., Any], *arguments: Any) -> Compiled:
    """Compiles a function so that its results come to lie in arrays that the caller gives away."""

    def into(memory: Any, *arguments: Any) -> Any:
        return function(*arguments)

    shapes = jax.eval_shape(function, *arguments)
    program = jax.jit(into, donate_argnums=0, keep_unused=True).lower(shapes, *arguments).compile()
    memory = program.memory_analysis()  # Not every platform tells.
    return Compiled(program, shapes, 0 if memory is None else memory.temp_size_in_bytes)


def compare(
    compiled: Compiled, arguments: tuple[Any, ...], expected: Any, limits: list[float]
) -> Found:
    """Runs three times into poisoned memory and compares: with itself, and with float64.

    Args:
        compiled: what `compile_into` returned.
        arguments: what enters.
        expected: what has to come out.
        limits: largest difference allowed for each array, relative to its largest entry.
    """
    runs = [jax.device_get(_run_poisoned(compiled, arguments, value)) for value in POISON]
    first, *others = map(jax.tree.leaves, runs)
    found = differences(first, expected)
    worst = max(range(len(found)), key=lambda number: found[number] / limits[number])
    wrong = None
    if not all(np.isfinite(array).all() for array in first):
        wrong = "not finite: memory was left unwritten, or it was read before it was written"
    elif any(
        a.tobytes() != b.tobytes() for other in others for a, b in zip(first, other, strict=True)
    ):
        wrong = "two runs gave different bits"
    elif found[worst] > limits[worst]:
        wrong = f"differs by {found[worst]:.1e} from float64, allowed is {limits[worst]:.1e}"
    return Found(max(found), wrong)


def run_check(check: Check, case: Case, engine: str) -> Callable[[], Found]:
    """Compiles one engine; the function returned runs it and compares."""
    compiled = compile_into(results(case.cell, check, engine), *case.arguments)
    return lambda: compare(compiled, case.arguments, case.expected, case.limits)


def _run_poisoned(compiled: Compiled, arguments: tuple[Any, ...], value: float) -> Any:
    def filled(spec: Any) -> jax.Array:
        return jax.device_put(np.full(spec.shape, value, spec.dtype))

    # The allocator hands out again what fits best: the program's own scratch, as large as this.
    scratch = filled(jax.ShapeDtypeStruct((max(1, compiled.temporary_bytes // 4),), np.float32))
    memory = jax.block_until_ready(jax.tree.map(filled, compiled.shapes))
    scratch.block_until_ready().delete()
    return compiled.program(memory, *arguments)


def _cell(check: Check, dtype: str) -> cells.Cell:
    options: dict[str, Any] = {"dtype": dtype}
    if check.num_heads != 1:
        options["num_heads"] = check.num_heads
    return cells.CELLS[check.cell](check.num_heads * check.width, **options)


def _widen(leaf: Any) -> Any:
    leaf = np.asarray(leaf)
    wide = {"f": np.float64, "c": np.complex128}.get(leaf.dtype.kind, leaf.dtype)
    return jnp.asarray(leaf.astype(wide))


def _narrow(leaf: Any) -> np.ndarray:
    leaf = np.asarray(leaf)
    return leaf.astype({"f": np.float32, "c": np.complex64}[leaf.dtype.kind])


@functools.cache
def _oracle() -> Any:
    """The cells in NumPy, or None where there are no tests."""
    if not (TESTS / "cell_oracles.py").exists():
        return None
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    import cell_oracles

    return cell_oracles
