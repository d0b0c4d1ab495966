"""The programs of grnn_jax that benchmarks/accelerator.py times, as functions of no arguments."""

import concurrent.futures
import functools
import hashlib
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_rows import CLASSES, Row, make_cell

import grnn_jax
from grnn_jax.recurrence import ENGINES, Addend, Inputs, supported_engines


class Prepared(NamedTuple):
    """A program that is compiled and ready.

    Attributes:
        run: does the work and returns the results once the device is done.
        comparable: whether the results of all engines are to agree.
    """

    run: Callable[[], Any]
    comparable: bool = False


BUFFERED = "auto, buffered"
"""The choice of "auto" with loops in command buffers, see `grnn_jax.compiler_options`."""

Options = dict[str, str]
Prepare = Callable[[], Prepared]
"""Compiles a program; raises whatever keeps it from running."""


def own_programs(row: Row, wanted: list[str]) -> dict[str, Prepare]:
    """grnn_jax under "auto", which users get, and under every engine that can run the cell.

    On a GPU "auto" is compiled twice, with loops in command buffers too, as the commands have it.

    Args:
        row: what is computed.
        wanted: names of engines, or ["all"].
    """
    names = ["auto", *supported_engines(make_cell(row, "float32"))]
    if row.kind == "sample":
        names = ["auto"]  # A step at a time: no engine takes part.
    names = [name for name in names if "all" in wanted or name in wanted]
    options: dict[str, Options] = {name: {} for name in names}
    buffered = grnn_jax.compiler_options()
    if "auto" in names and buffered:
        options = {"auto": {}, BUFFERED: buffered, **options}
    make = {"step": _step, "sample": _sample}.get(row.kind, _recurrence)
    shared = make(row)
    return {
        name: lambda name=name: shared(name.split(",")[0], options[name])  # type: ignore[misc]
        for name in options
    }


def is_own(name: str) -> bool:
    """Whether a program is one of grnn_jax."""
    return name in ("auto", BUFFERED) or name in ENGINES


def random_array(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal numbers in float32; a large array repeats a million of them."""
    numbers = np.random.default_rng(seed).standard_normal(min(math.prod(shape), 2**20), np.float32)
    return np.resize(numbers, shape)


def random_params(init: Callable[[Any], Any], size: int) -> Any:
    """Parameters in ±1/√H, made on the host: initialisers are compiled for every shape."""
    rng = np.random.default_rng(0)
    bound = size**-0.5
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(-bound, bound, leaf.shape).astype(leaf.dtype)),
        jax.eval_shape(init, jax.random.key(0)),
    )


def _recurrence(row: Row) -> Callable[[str, Options], Prepared]:
    cell, steps = make_cell(row), (row.batch_size, row.length)
    width = 1 if row.inputs == "projected" else row.hidden_size
    params = random_params(lambda key: cell.init(key, width), row.hidden_size)
    state = cell.initial_state(params, row.batch_size)
    if row.inputs == "projected":
        width = jax.eval_shape(cell.project, params, jnp.zeros((1, 1))).shape[-1]
    entering = jnp.asarray(random_array(*steps, width))
    weights = jnp.asarray(random_array(*steps, row.hidden_size, seed=1))
    compile_once = Compiler()

    def prepare(engine: str, options: Options) -> Prepared:
        def forward(params: Any, entering: jax.Array) -> jax.Array:
            inputs: Any = entering
            if row.inputs == "projected":
                nothing = jnp.zeros((*steps, 1), jnp.float32)
                inputs = Inputs(nothing, addend=Addend(step=entering))
            return grnn_jax.unroll(cell, params, inputs, state, engine=engine)[0]

        def loss(params: Any, entering: jax.Array, weights: jax.Array) -> jax.Array:
            return (forward(params, entering) * weights).sum()

        if row.kind == "forward":
            return Prepared(
                compile_once(forward, params, entering, options=options), comparable=True
            )
        value_and_grad = jax.value_and_grad(loss, argnums=(0, 1))
        run = compile_once(value_and_grad, params, entering, weights, options=options)
        return Prepared(run, comparable=True)

    return prepare


def _model(row: Row, engine: str) -> Any:
    distribution = grnn_jax.distributions.categorical(
        CLASSES, embedding_size=row.hidden_size, dtype=row.dtype
    )
    return grnn_jax.make_model(make_cell(row), distribution, engine=engine)


def _step(row: Row) -> Callable[[str, Options], Prepared]:
    # They need optax and flax; grain, Orbax and tensorboardX are not loaded.
    from grnn_jax.optimizer import make_optimizer
    from grnn_jax.training import init_train_state, make_train_step

    config = grnn_jax.Config(
        batch_size=row.batch_size, sequence_length=row.length, optimizer="adam"
    )
    rng = np.random.default_rng(0)
    shape = row.batch_size, row.length
    batch = grnn_jax.Batch(
        events=jnp.asarray(rng.integers(CLASSES, size=shape, dtype=np.int32)),
        mask=jnp.ones(shape, bool),
        reset=jnp.zeros(shape, bool).at[:, 0].set(True),
    )

    def prepare(engine: str, options: Options) -> Prepared:
        model, optimizer = _model(row, engine), make_optimizer(config)
        params = random_params(model.init, row.hidden_size)
        start = jax.jit(lambda params: init_train_state(model, optimizer, config, params))
        state = [start(params)]
        function = jax.jit(make_train_step(model, optimizer, config), donate_argnums=0)
        step = function.lower(state[0], batch).compile(compiler_options=options)

        def run() -> Any:
            state[0], metrics = step(state[0], batch)
            return jax.block_until_ready(metrics["loss"])

        return Prepared(run, comparable=True)

    return prepare


def _sample(row: Row) -> Callable[[str, Options], Prepared]:
    def prepare(engine: str, options: Options) -> Prepared:
        model = _model(row, engine)
        params = random_params(model.init, row.hidden_size)

        def draw(params: Any, key: Any) -> Any:
            return grnn_jax.sample(model, params, key, row.batch_size, row.length)

        return Prepared(Compiler()(draw, params, jax.random.key(1), options=options))

    return prepare


class Compiler:
    """Compiles what is lowered to the same program once: an engine may be another by this row."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._programs: dict[Any, concurrent.futures.Future[Any]] = {}

    def __call__(
        self, function: Callable[..., Any], *arguments: Any, options: Options | None = None
    ) -> Callable[[], Any]:
        """The compiled function; it waits until the device is done."""
        lowered = jax.jit(function).lower(*arguments)
        key = hashlib.sha256(lowered.as_text().encode()).digest(), tuple((options or {}).items())
        with self._lock:
            known = key in self._programs
            future = self._programs.setdefault(key, concurrent.futures.Future())
        if not known:
            try:
                future.set_result(lowered.compile(compiler_options=options))
            except Exception as error:
                future.set_exception(error)
        program = future.result()
        return lambda: jax.block_until_ready(program(*arguments))


def compiled(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """One function, compiled; it waits until the device is done."""
    return Compiler()(function, *arguments)


class Ceiling(NamedTuple):
    """A rate that the device is measured to reach.

    Attributes:
        prepared: what it does.
        amount: bytes moved or floating-point operations of a run.
    """

    prepared: Prepared
    amount: float


def ceilings(small: bool) -> dict[str, Callable[[], Ceiling]]:
    """What the device reaches of its data sheet: a copy, and products of every compute type.

    Args:
        small: sizes for a CPU.

    Returns:
        Fields of `chips.Chip` -> a function that compiles.
    """
    size = 128 if small else 8192
    precision = {"bfloat16": "default", "tensorfloat32": "high", "float32": "highest"}

    def copy() -> Ceiling:
        array = jnp.asarray(random_array(size * size // 4, 16))
        return Ceiling(Prepared(compiled(lambda array: array + 1, array)), 2.0 * array.nbytes)

    def product(dtype: str) -> Ceiling:
        kind = "bfloat16" if dtype == "bfloat16" else "float32"
        left, right = (jnp.asarray(random_array(size, size, seed=s), kind) for s in (0, 1))
        multiply = functools.partial(jnp.matmul, precision=precision[dtype])
        return Ceiling(Prepared(compiled(multiply, left, right)), 2.0 * size**3)

    products = {dtype: functools.partial(product, dtype) for dtype in precision}
    return {"bandwidth": copy, **products}
