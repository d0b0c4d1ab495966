"""The programs that benchmarks/ahead_of_time.py compiles: of shapes alone, nothing is computed."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ahead_of_time_targets import Program, Target, on_all, split_rows

from grnn_jax import cells, distributions, sampling, unroll
from grnn_jax.array_types import Batch, DType
from grnn_jax.config import Config
from grnn_jax.model import Model, make_model
from grnn_jax.optimizer import make_optimizer
from grnn_jax.recurrence import supported_engines
from grnn_jax.recurrence.inputs import Tokens
from grnn_jax.recurrence.linear import linear_engine
from grnn_jax.training import init_train_state, make_train_step, train_state_shardings

NUM_CLASSES = 65
PASSES = ("forward", "training")
INPUTS = ("tokens", "dense")
DTYPES = ("float32", "tensorfloat32", "bfloat16")
METHODS = ("chunked", "parallel")
"""How the linear engine may run off a CPU."""

_array = jax.ShapeDtypeStruct


class Sizes(NamedTuple):
    """B rows, T steps and H units."""

    batch_size: int
    length: int
    hidden_size: int


def knows(dtype: str) -> bool:
    """Whether a cell can be made with this compute type."""
    try:
        cell = cells.elman(2, dtype=dtype)
        params = jax.eval_shape(lambda: cell.init(jax.random.key(0), 2))
        jax.eval_shape(cell.project, params, _array((1, 2), jnp.float32))
    except (TypeError, ValueError):
        return False
    return True


def measured_cells() -> list[str]:
    """The registered cells with a structure that an engine uses, by name."""
    made = {name: make(2) for name, make in cells.CELLS.items()}
    return [name for name, cell in made.items() if cell.gated or cell.linear]


def make_cell(name: str, hidden_size: int, dtype: DType) -> cells.Cell:
    """A registered cell, of the compute type where it has a product in the loop."""
    make = cells.CELLS[name]
    chosen = {"dtype": dtype} if "dtype" in inspect.signature(make).parameters else {}
    return make(hidden_size, **chosen)


def engines_of(name: str) -> tuple[str, ...]:
    """The engines that run a registered cell."""
    return supported_engines(cells.CELLS[name](2))


def recurrence(
    name: str, engine: str, dtype: DType, inputs: str, sizes: Sizes, direction: str
) -> Program:
    """One layer over a window with resets.

    Args:
        name: of the cell.
        engine: that runs it.
        dtype: its compute type.
        inputs: "tokens", rows of a table of 65 vectors, or "dense", vectors.
        sizes: of the window; inputs have as many features as the cell has units.
        direction: "forward", outputs and last state; "training", a weighted sum of the outputs,
            its gradient by parameters, inputs and first state, and the last state.
    """
    batch_size, length, hidden_size = sizes
    cell = make_cell(name, hidden_size, dtype)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), hidden_size))
    state = jax.eval_shape(lambda params: cell.initial_state(params, batch_size), params)
    rows = (NUM_CLASSES,) if inputs == "tokens" else (batch_size, length)
    vectors = _array((*rows, hidden_size), jnp.float32)
    indices = _array((batch_size, length), jnp.int32)
    reset = _array((batch_size, length), jnp.bool_)

    def forward(params: Any, vectors: Any, state: Any, indices: Any, reset: Any) -> Any:
        entering = Tokens(indices, vectors) if inputs == "tokens" else vectors
        return unroll(cell, params, entering, state, reset=reset, engine=engine)

    arguments = params, vectors, state, indices, reset
    return _of_direction(forward, arguments, direction)


def linear_method(method: str, sizes: Sizes, direction: str) -> Program:
    """The recurrence of minGRU alone, of projected inputs, by a method of the linear engine."""
    batch_size, length, hidden_size = sizes
    cell = cells.min_gru(hidden_size)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), 1))
    state = jax.eval_shape(lambda params: cell.initial_state(params, batch_size), params)
    projected = _array((length, batch_size, 2 * hidden_size), jnp.float32)
    engine = functools.partial(linear_engine, method=method)

    def forward(params: Any, projected: Any, state: Any) -> Any:
        return engine(cell, params, projected, state, None, state)

    return _of_direction(forward, (params, projected, state), direction)


def _of_direction(
    forward: Callable[..., Any], arguments: tuple[Any, ...], direction: str
) -> Program:
    """A function of (params, inputs, state, …) to outputs and state, or its gradient too."""
    if direction == "forward":
        return Program(forward, arguments)

    def loss(params: Any, inputs: Any, state: Any, weights: Any, *others: Any) -> Any:
        outputs, last = forward(params, inputs, state, *others)
        return (outputs * weights).sum(), last

    weights = jax.eval_shape(forward, *arguments)[0]
    training = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    return Program(training, (*arguments[:3], weights, *arguments[3:]))


def train_step(
    target: Target, num_devices: int, engine: str, dtype: DType, sizes: Sizes
) -> Program:
    """The whole training step of a character LSTM, its state donated as the trainer donates it."""
    batch_size, length, hidden_size = sizes
    config = dataclasses.replace(
        Config(), batch_size=batch_size, sequence_length=length, hidden_size=hidden_size
    )
    model, optimizer = _model(engine, dtype, hidden_size), make_optimizer(config)
    mesh = target.mesh(num_devices)
    state = jax.eval_shape(lambda: init_train_state(model, optimizer, config))
    flags = _array((batch_size, length), jnp.bool_)
    batch = Batch(_array((batch_size, length), jnp.int32), flags, flags)
    state_shardings = train_state_shardings(state, mesh)
    out = state_shardings, on_all(jnp.zeros(()), mesh)
    return Program(
        make_train_step(model, optimizer, config, mesh),
        (state, batch),
        (state_shardings, split_rows(batch, mesh)),
        {"donate_argnums": 0, "out_shardings": out},
    )


def draw(what: str, engine: str, dtype: DType, sizes: Sizes) -> Program:
    """Sampling or a search with a character LSTM.

    Args:
        what: a name in `DRAWS`.
        engine: that runs a prefix.
        dtype: the compute type.
        sizes: B sequences (or a beam of that width), T events at most.
    """
    batch_size, length, hidden_size = sizes
    model = _model(engine, dtype, hidden_size)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    key = jax.eval_shape(lambda: jax.random.key(0))
    return Program(functools.partial(DRAWS[what], model, batch_size, length), (params, key))


def _sample(model: Model, batch_size: int, length: int, params: Any, key: Any) -> Any:
    return sampling.sample(model, params, key, batch_size, length)[:3]


def _sample_many(model: Model, batch_size: int, length: int, params: Any, key: Any) -> Any:
    return sampling.sample_many(model, params, key, 4 * batch_size, length, num_rows=batch_size)


def _beams(model: Model, width: int, length: int, params: Any, key: Any) -> Any:
    del key
    return sampling.beam_search(model, params, min(width, NUM_CLASSES), length)


def _stochastic_beams(model: Model, width: int, length: int, params: Any, key: Any) -> Any:
    width = min(width, NUM_CLASSES)
    return sampling.stochastic_beam_search(model, params, key, width, length)


DRAWS = {
    "sample": _sample,
    "sample_many": _sample_many,
    "beam_search": _beams,
    "stochastic_beam_search": _stochastic_beams,
}
"""What is drawn or searched, a loop over events each: functions of model, B, T, params and key."""


def _model(engine: str, dtype: DType, hidden_size: int) -> Model:
    output = distributions.categorical(NUM_CLASSES, embedding_size=hidden_size, dtype=dtype)
    return make_model(cells.lstm(hidden_size, dtype=dtype), output, engine=engine)
