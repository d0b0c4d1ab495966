"""What a CPU host lowers for a GPU and a TPU: every cell under every engine, and whole programs.

Nothing is compiled. One trace is lowered for both platforms, so that the text holds the branches of
both; that no custom call and no callback is among them that only another platform has, and that
products are in the dtype asked for, is what would break first where no accelerator is at hand.
"""

import dataclasses
import functools
import inspect
import re

import jax
import jax.numpy as jnp
import pytest
from dots import EXACT, EXPECTED, dots
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from grnn_jax import cells, distributions, sampling, unroll
from grnn_jax.array_types import Batch
from grnn_jax.config import Config
from grnn_jax.model import make_model
from grnn_jax.optimizer import make_optimizer
from grnn_jax.recurrence import ENGINES, supported_engines
from grnn_jax.recurrence.inputs import Tokens
from grnn_jax.scoring.dynamic import DynamicSettings, make_dynamic_step
from grnn_jax.scoring.mc_dropout import make_mc_dropout_step
from grnn_jax.training import (
    init_train_state,
    make_eval_step,
    make_train_step,
    train_state_shardings,
)

B, T, H, X, V = 2, 7, 12, 10, 5
DTYPES = ("float32", "tensorfloat32", "bfloat16")
HEADS = 3

KNOWN_CALLS = {
    "Sharding",
    "SPMDFullToShardShape",
    "SPMDShardToFullShape",
    # Random bits on a GPU, the decomposition of an orthogonal matrix on a GPU and a TPU.
    "cu_threefry2x32_ffi",
    "cusolver_geqrf_ffi",
    "cusolver_orgqr_ffi",
    "Qr",
    "ProductOfElementaryHouseholderReflectors",
    # The largest entries, on a TPU.
    "TopK",
}
"""Custom calls that the platforms have, of those that are made here."""

OF_EVENTS = {
    "tokens": (V,), "levels": (4,), "fields": ((2, 3),), "bits": (3,),
    "reals": (2,), "pen": (), "counts": (2,), "waits": (),
}  # fmt: skip
"""Positional arguments of a distribution over each kind of event."""

_array = jax.ShapeDtypeStruct
_CALL = re.compile(r"custom_call @([\w.]+)")
_DOT = re.compile(r"dot_general .*: \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>")


def lower(function, *arguments, **options):
    """The text of a program for a GPU and a TPU."""
    jitted = function if hasattr(function, "trace") else jax.jit(function, **options)
    text = jitted.trace(*arguments).lower(lowering_platforms=("cuda", "tpu")).as_text()
    assert set(_CALL.findall(text)) <= KNOWN_CALLS
    assert "callback" not in text
    # By itself a GPU rounds operands of float32 to TF32, and a TPU to bfloat16.
    assert not [dot for dot in dots(text) if "f32" in dot[:2] and dot.precision == "DEFAULT"]
    return text


def products(text):
    """The products of a program: axes and dtypes of both sides and of the result."""

    def parse(array):
        *axes, dtype = array.split("x")
        return tuple(map(int, axes)), dtype

    return [tuple(map(parse, found)) for found in _DOT.findall(text)]


@functools.cache
def make(name, dtype, num_heads=1):
    """A cell with those of the settings that it has."""
    wished = {"dtype": dtype, "num_heads": num_heads}
    known = inspect.signature(cells.CELLS[name]).parameters
    return cells.CELLS[name](H, **{key: value for key, value in wished.items() if key in known})


def has(name, setting):
    """Whether a cell has a setting."""
    return setting in inspect.signature(cells.CELLS[name]).parameters


PAIRS = [
    (name, engine)
    for name in cells.CELLS
    for engine in ("auto", *ENGINES)
    if engine in ("auto", *supported_engines(make(name, "float32")))
]


def recurrence(cell, engine, inputs):
    """Functions of a window, its value and with its gradient, and the shapes of their arguments."""
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), X))
    state = jax.eval_shape(lambda params: cell.initial_state(params, B), params)
    vectors = _array((V, X) if inputs == "tokens" else (B, T, X), jnp.float32)
    indices, reset = _array((B, T), jnp.int32), _array((B, T), jnp.bool_)

    def forward(params, vectors, state, indices, reset):
        entering = Tokens(indices, vectors) if inputs == "tokens" else vectors
        return unroll(cell, params, entering, state, reset=reset, engine=engine)

    def loss(*arguments):
        outputs, last = forward(*arguments)
        return outputs.sum() + sum(jnp.real(leaf).sum() for leaf in jax.tree.leaves(last))

    gradient = jax.value_and_grad(loss, argnums=(0, 1, 2))
    return (forward, gradient), (params, vectors, state, indices, reset)


@pytest.mark.parametrize(("name", "engine"), PAIRS)
def test_every_cell_under_every_engine(name, engine):
    dtypes = DTYPES if has(name, "dtype") else DTYPES[:1]
    # What "auto" takes is lowered in every dtype under its own name.
    for dtype in dtypes[-1:] if engine == "auto" else dtypes:
        num_heads = HEADS if dtype == "bfloat16" and has(name, "num_heads") else 1
        cell = make(name, dtype, num_heads)
        inputs = "dense" if dtype == "tensorfloat32" else "tokens"
        functions, arguments = recurrence(cell, engine, inputs)
        # A gradient holds the value too; without one an engine keeps less, whatever the dtype.
        alone = dtype == "bfloat16" and engine != "auto"
        for function in functions if alone else functions[1:]:
            text = lower(function, *arguments)
            found = products(text)
            if has(name, "dtype"):
                # Only tokens are looked up, and only in float32 and bfloat16 are inputs tokens.
                exact = set() if inputs == "dense" else {EXACT}
                assert {EXPECTED[dtype]} <= set(dots(text)) <= {EXPECTED[dtype]} | exact
            narrow = "bf16" if dtype == "bfloat16" and has(name, "dtype") else "f32"
            # Autodiff of a product over heads gives gradients of its narrow operands, narrow too.
            runs_scan = engine == "scan" or supported_engines(cell) == ("scan",)
            by_autodiff = num_heads > 1 and runs_scan
            check_dtypes(found, narrow, any_result=by_autodiff)
            if cell.gated is not None and cell.gated.num_gates:
                # V h_{t-1}, the rows of one step.
                row = {B, H // num_heads}
                assert any(row <= set(side[0]) for product in found for side in product[:2])


def check_dtypes(found, narrow, any_result=False):
    """Operands are narrow, but for the gradient of a table, and all sums are in float32."""
    assert found
    for left, right, result in found:
        # Rows of a table gather their gradients by a product with ones and zeros, and exactly.
        of_table = (B * T, V) in (left[0], right[0])
        assert {left[1], right[1]} <= ({narrow, "f32"} if of_table else {narrow})
        assert result[1] == "f32" or any_result


def configuration(**settings):
    return dataclasses.replace(
        Config(), hidden_size=H, batch_size=4, sequence_length=T, eval_batch_size=4, **settings
    )


def language_model(dtype, engine="auto", **stacked):
    """Two layers over characters."""
    layer = cells.lstm(H, dtype=dtype)
    if stacked.pop("zoneout", False):
        layer = cells.zoneout(layer, 0.1)
    cell = cells.stack([layer, layer], layer_norm=True, **stacked)
    output = distributions.categorical(V, embedding_size=X, dtype=dtype)
    return make_model(cell, output, engine=engine)


def batch_of(model, num_rows=4):
    events = jax.tree.map(
        lambda spec: _array((num_rows, T, *spec.shape), spec.dtype), model.distribution.event
    )
    flags = _array((num_rows, T), jnp.bool_)
    return Batch(events, flags, flags)


def parameters(model):
    return jax.eval_shape(model.init, jax.random.key(0)), jax.eval_shape(jax.random.key, 0)


@pytest.mark.parametrize("num_devices", [1, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_training_steps(dtype, num_devices):
    drops = {"dropout": 0.1, "recurrent_dropout": 0.1} if dtype == "bfloat16" else {}
    config = configuration(ema_decay=0.9, zoneout=0.1 if drops else 0.0, **drops)
    model = language_model(dtype, zoneout=bool(drops), **drops)
    optimizer = make_optimizer(config)
    mesh = jax.sharding.AbstractMesh((num_devices,), ("data",))
    state = jax.eval_shape(lambda: init_train_state(model, optimizer, config))
    placed = train_state_shardings(state, mesh)
    whole, rows = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    arguments = jax.tree.map(
        lambda leaf, sharding: _array(leaf.shape, leaf.dtype, sharding=sharding),
        (state, batch_of(model)),
        (placed, jax.tree.map(lambda _: rows, batch_of(model))),
    )
    step = make_train_step(model, optimizer, config, mesh)
    text = lower(step, *arguments, donate_argnums=0, out_shardings=(placed, whole))
    # The recurrent product of one device's rows, forward and, transposed, backward.
    narrow = "bf16" if dtype == "bfloat16" else "f32"
    sides = [side for product in products(text) for side in product[:2]]
    assert ((4 // num_devices, H), narrow) in sides and ((H, 4 * H), narrow) in sides
    # The gradient is summed over devices once, and the state is donated.
    assert ("all_reduce" in text) == (num_devices > 1)
    assert "jax.buffer_donor" in text or "tf.aliasing_output" in text


@pytest.mark.parametrize("dtype", DTYPES)
def test_scoring(dtype):
    model = language_model(dtype, dropout=0.1)
    params, key = parameters(model)
    batch = batch_of(model)
    carry = jax.eval_shape(lambda params: model.initial_state(params, 4), params)
    assert products(lower(make_eval_step(model), params, carry, batch))
    if dtype == "float32":
        dynamic = make_dynamic_step(model, DynamicSettings())
        assert products(lower(dynamic, params, params, params, carry, batch))
        carries = jax.tree.map(lambda leaf: _array((2, *leaf.shape), leaf.dtype), carry)
        assert products(lower(make_mc_dropout_step(model, 2), params, carries, batch, key))
        lower(lambda key: model.init(key), key)


@pytest.mark.parametrize("name", distributions.DISTRIBUTIONS)
def test_every_distribution(name):
    family = distributions.DISTRIBUTIONS[name]
    distribution = family.make(*OF_EVENTS[family.kinds[0]])
    params = jax.eval_shape(lambda: distribution.init(jax.random.key(0), H))
    hidden = _array((B, H), jnp.float32)
    events = jax.tree.map(lambda e: _array((B, *e.shape), e.dtype), distribution.event)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), B))

    def score_and_draw(params, hidden, events, keys):
        def nats(params, hidden):
            return -distribution.log_prob(params, hidden, events).sum()

        gradient = jax.value_and_grad(nats, argnums=(0, 1))(params, hidden)
        return gradient, distribution.sample(keys, params, hidden)

    assert products(lower(score_and_draw, params, hidden, events, keys))


DRAWS = {
    "sample": lambda *model: sampling.sample(*model, 3, T)[:3],
    "truncated": lambda *model: sampling.sample(
        *model, 3, T, temperature=0.8, top_k=3, top_p=0.9, min_p=0.01, typical_p=0.9,
        repetition_penalty=1.1,
    )[:3],
    "prefix": lambda *model: sampling.sample(*model, 3, T, prefix=jnp.zeros((3, 2), int))[:3],
    "sample_many": lambda *model: sampling.sample_many(*model, 6, T, num_rows=3),
    "beam_search": lambda model, params, key: sampling.beam_search(model, params, 3, T),
    "stochastic_beam_search": lambda *model: sampling.stochastic_beam_search(*model, 3, T),
}  # fmt: skip
CONSTRAINED = {
    "masked": sampling.sample_masked,
    "particles": functools.partial(sampling.sample_particles, num_particles=3),
}


@pytest.mark.parametrize("name", [*DRAWS, *CONSTRAINED])
def test_sampling_and_searches(name):
    model = language_model("bfloat16")
    params, key = parameters(model)
    if name in DRAWS:
        draw = functools.partial(DRAWS[name], model)
    else:
        constraint = sampling.make_constraint(model, sampling.template([1, sampling.FREE, 2], V), 3)

        def draw(params, key):
            return CONSTRAINED[name](model, params, key, 2, constraint)

    found = products(lower(draw, params, key))
    assert any(right == ((H, 4 * H), "bf16") for _, right, _ in found)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_sampling_on_several_devices(num_devices):
    model = language_model("bfloat16")
    automatic = (jax.sharding.AxisType.Auto,)  # As commands make it; jax 0.12 makes explicit ones.
    mesh = jax.sharding.AbstractMesh((num_devices,), ("data",), axis_types=automatic)
    draw = sampling.make_sharded_sample(model, mesh, 4 * num_devices, T, num_rows=2 * num_devices)
    assert products(lower(draw, *parameters(model), _array((), jnp.int32)))
