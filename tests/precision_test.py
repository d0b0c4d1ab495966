"""What a compute type is, read from what is lowered for a CPU, a GPU and a TPU on this host.

A CPU multiplies all bits whatever the precision, so that no number would tell.
"""

import inspect
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dots import EXACT, EXPECTED, PLATFORMS, dots, lower

import grnn_jax
from grnn_jax import cells, distributions, unroll
from grnn_jax.cli import sample
from grnn_jax.config import COMPUTE_TYPES, Config
from grnn_jax.data import Batch
from grnn_jax.errors import InputError
from grnn_jax.evaluation import evaluate
from grnn_jax.ops import products
from grnn_jax.ops.compute_type import compute_type
from grnn_jax.ops.lookup import lookup
from grnn_jax.optimizer import make_optimizer
from grnn_jax.recurrence import supported_engines
from grnn_jax.training import init_train_state, make_eval_step, make_train_step

B, T, H = 2, 3, 4
OLD_RUN = Path(__file__).parent / "old_runs" / "text"
types = pytest.mark.parametrize("dtype", COMPUTE_TYPES)


def key():
    return jax.random.key(0)


def test_the_types_are_those_of_the_flag():
    assert set(EXPECTED) == set(COMPUTE_TYPES)


@pytest.mark.parametrize(
    "dtype", [jnp.float32, "float32", np.float32, jnp.dtype("float32"), "tensorfloat32"]
)
def test_float64_parameters_stay_exact(dtype):
    assert compute_type(dtype, jnp.bfloat16).dtype == jnp.float32
    with jax.enable_x64(True):
        assert compute_type(dtype, jnp.float64) == ("float64", jax.lax.Precision.HIGHEST)
        left, right = jnp.full((1, 2), 1 + 2.0**-40), jnp.ones((2, 1))
        assert products.dense(left, right, dtype)[0, 0] == 2 + 2.0**-39


@pytest.mark.parametrize("dtype", ["tensorfloat23", "int32", "complex64", None, 3])
def test_what_is_no_compute_type_is_refused(dtype):
    with pytest.raises(ValueError, match=f"dtype must be float32, tensorfloat32.*got {dtype!r}"):
        cells.lstm(H, dtype=dtype)
    with pytest.raises(ValueError, match="dtype must be float32, tensorfloat32"):
        distributions.categorical(5, dtype=dtype)
    with pytest.raises(ValueError, match="dtype must be float32, tensorfloat32"):
        products.dense(jnp.ones((1, 2)), jnp.ones((2, 1)), dtype)


@types
@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_product_and_its_gradient_has_the_precision_of_its_type(platform, dtype):
    matrix, heads = jnp.ones((H, 2 * H)), jnp.ones((2, H // 2, H))

    def all_of(inputs, matrix, heads):
        parts = [
            products.dense(inputs, matrix, dtype),
            *products.dense_gates(inputs, (matrix, matrix), dtype),
            *products.recurrent_product(matrix[None], inputs, 2, dtype),
            *products.recurrent_product(heads, inputs, 2, dtype),
        ]
        return sum(jnp.square(part).sum() for part in parts)

    def outer(left, right):
        left, right = (products.cast_kernel(each, dtype) for each in (left, right))
        return products.outer_sums(left, [right, right], dtype)

    lowered = lower(
        jax.jit(jax.value_and_grad(all_of, (0, 1, 2))),
        jnp.ones((B, H)), matrix, heads, platforms=(platform,),
    )  # fmt: skip
    found = dots(lowered)
    assert len(found) == 15  # Five products and two of the gradient of each.
    if platform == "cpu" and dtype == "bfloat16":
        # Rounded operands, widened: its compiler has no batched product of bfloat16.
        assert [dot for dot in found if dot[:2] != ("bf16", "bf16")] == [
            ("f32", "f32", "DEFAULT")
        ] * 3
        found = [dot for dot in found if dot[:2] == ("bf16", "bf16")]
    assert set(found) == {EXPECTED[dtype]}
    lowered = lower(jax.jit(outer), jnp.ones((3, H)), jnp.ones((3, 2)), platforms=(platform,))
    assert dots(lowered) == [EXPECTED[dtype]] * 2


def test_a_lookup_sums_rows_exactly():
    def total(table, indices):
        return jnp.square(lookup(table, indices)).sum()

    lowered = lower(jax.jit(jax.grad(total)), jnp.ones((5, 2)), jnp.zeros((3,), int))
    assert set(dots(lowered)) == {EXACT}


def make(name, dtype):
    """A small cell of several heads or sites, where it has any."""
    wished = {"num_heads": 2, "num_sites": 2, "dtype": dtype}
    known = inspect.signature(cells.CELLS[name]).parameters
    return cells.CELLS[name](H, **{key: value for key, value in wished.items() if key in known})


def expected_products(name, engine, dtype):
    """Those of the type, and exact ones: convolutions over sites, newton's blocks of a diagonal."""
    has_blocks = name.startswith("sitewise") or (
        engine == "newton" and make(name, dtype).gated.num_gates > 0
    )
    return {EXPECTED[dtype]} | ({EXACT} if has_blocks else set())


# All others are looked at where they are lowered, lowering_test.py: of one head, or one site.
PAIRS = [
    (name, engine)
    for name in cells.CELLS
    for engine in supported_engines(make(name, "float32"))
    if engine == "newton" or name.startswith("sitewise")
]


def unrolled(name, engine, dtype):
    """The products of a cell over time and of its gradient."""
    cell = make(name, dtype)
    params = jax.eval_shape(lambda key: cell.init(key, H), key())

    def total(params, inputs, reset):
        state = cell.initial_state(params, B)
        outputs, _ = unroll(cell, params, inputs, state, reset=reset, engine=engine)
        return jnp.square(outputs).sum()

    gradient = jax.jit(jax.grad(total, (0, 1)))
    arguments = jnp.ones((B, T, H)), jnp.zeros((B, T), bool)
    return dots(lower(gradient, params, *arguments, platforms=("tpu",)))


@pytest.mark.parametrize(("name", "engine"), PAIRS)
def test_cells_of_several_heads_and_sites(name, engine, dtype="tensorfloat32"):
    # Of this type a product tells both that it has a precision and that it has that of its type.
    assert set(unrolled(name, engine, dtype)) == expected_products(name, engine, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("engine", supported_engines(make("sitewise_gru", "float32")))
def test_sites_in_the_other_types(engine, dtype, name="sitewise_gru"):
    assert set(unrolled(name, engine, dtype)) == expected_products(name, engine, dtype)


ARGUMENTS = {
    "tokens": (5,), "levels": (4,), "fields": ((2, 3),), "bits": (4,),
    "reals": (2,), "pen": (), "counts": (2,), "waits": (),
}  # fmt: skip
"""Positional arguments for the kinds of event."""


def families(dtype):
    """Every family, and what is composed of some."""
    made = {
        name: family.make(*ARGUMENTS[family.kinds[0]], dtype=dtype)
        for name, family in distributions.DISTRIBUTIONS.items()
    }
    full = distributions.gaussian(3, covariance="full", dtype=dtype)
    ended = distributions.with_end(made["bernoulli"], dtype=dtype)
    tied = distributions.categorical(5, embedding_size=H, tied=True, dtype=dtype)
    return made | {"full": full, "ended": ended, "tied": tied}


@pytest.mark.parametrize("name", families("float32"))
def test_every_distribution(name, dtype="tensorfloat32"):
    family = families(dtype)[name]
    params = jax.eval_shape(lambda key: family.init(key, H), key())
    events = jax.tree.map(lambda spec: jnp.ones((B, *spec.shape), spec.dtype), family.event)

    def total(params, hidden, events):
        return family.log_prob(params, hidden, events).sum()

    def drawn(params, hidden, keys, events):
        event = family.sample(keys, params, hidden)
        return event, family.mode(params, hidden), family.encode(params, events)

    hidden, keys = jnp.ones((B, H)), jax.random.split(key(), B)
    gradient = jax.jit(jax.value_and_grad(total, (0, 1)))
    found = dots(lower(gradient, params, hidden, events, platforms=("tpu",)))
    # The fields before one are looked up.
    exact = {EXACT} if name == "factored_categorical" else set()
    assert set(found) == {EXPECTED[dtype]} | exact
    found = dots(lower(jax.jit(drawn), params, hidden, keys, events, platforms=("tpu",)))
    assert set(found) - {EXACT} == {EXPECTED[dtype]}


CONFIG = Config(hidden_size=H, batch_size=B, sequence_length=T, ema_decay=0.9, weight_decay=0.1)


@types
def test_training_evaluation_and_sampling(dtype):
    layers = [cells.lstm(H, dtype=dtype), cells.min_gru(H, dtype=dtype)]
    cell = cells.stack(layers, layer_norm=True, dropout=0.1)
    family = distributions.categorical(5, embedding_size=3, dtype=dtype)
    model = grnn_jax.make_model(cell, family, skip_input=True)
    optimizer = make_optimizer(CONFIG)
    state = jax.eval_shape(lambda: init_train_state(model, optimizer, CONFIG))
    tokens, flags = np.zeros((B, T), np.int32), np.ones((B, T), bool)
    batch = Batch(tokens, flags, flags)
    programs = {
        "training": (jax.jit(make_train_step(model, optimizer, CONFIG)), state, batch),
        "evaluation": (jax.jit(make_eval_step(model)), state.params, state.carry, batch),
        "scoring": (jax.jit(lambda p: grnn_jax.log_prob(model, p, tokens, flags)), state.params),
        "sampling": (jax.jit(lambda p, k: grnn_jax.sample(model, p, k, B, T)), state.params, key()),
    }
    for name, (function, *arguments) in programs.items():
        found = set(dots(lower(function, *arguments, platforms=("cuda", "tpu"))))
        # The gradient of a lookup.
        assert found == {EXPECTED[dtype]} | ({EXACT} if name == "training" else set()), name


@pytest.fixture(scope="module")
def narrow_run(tmp_path_factory):
    """The folder of a run that config.json says was trained in bfloat16."""
    folder = tmp_path_factory.mktemp("narrow")
    shutil.copytree(OLD_RUN, folder, dirs_exist_ok=True)
    path = folder / "run" / "config.json"
    path.write_text(path.read_text().replace('"dtype": "float32"', '"dtype": "bfloat16"'))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # Its data are beside it.
        yield folder / "run"


def test_a_trained_run_is_in_float32_unless_told_otherwise(narrow_run):
    tokens = np.zeros((B, T), np.int32)
    for options, dtype in [({}, "float32"), *(({"dtype": name}, name) for name in COMPUTE_TYPES)]:
        run = grnn_jax.load(narrow_run, **options)
        assert (run.dtype, run.config.dtype) == (dtype, "bfloat16")
        score = jax.jit(lambda params, model=run.model: grnn_jax.log_prob(model, params, tokens))
        assert set(dots(lower(score, run.params))) == {EXPECTED[dtype]}
    with pytest.raises(InputError, match="dtype must be one of float32, tensorfloat32, bfloat16"):
        grnn_jax.load(narrow_run, dtype="float16")


def test_evaluation_takes_float32_unless_told_otherwise(narrow_run):
    expected = json.loads((OLD_RUN / "expected.json").read_text())["evaluate"]["valid"]
    exact, narrow = evaluate(narrow_run), evaluate(narrow_run, dtype="bfloat16")
    assert (exact["dtype"], narrow["dtype"]) == ("float32", "bfloat16")
    nats = expected["nats_per_event"]
    assert exact["nats_per_event"] == pytest.approx(nats, rel=1e-5)
    assert 1e-6 < abs(narrow["nats_per_event"] / nats - 1) < 1e-2


def test_a_request_of_an_earlier_version_goes_on_in_its_own_type(narrow_run, monkeypatch):
    settings = {}
    for dtype in COMPUTE_TYPES:
        monkeypatch.setattr(sample.flags, "script_values", lambda dtype=dtype: {"dtype": dtype})
        monkeypatch.setattr(sample, "FLAGS", SimpleNamespace(workdir="run"))
        run = grnn_jax.load(narrow_run, dtype=dtype)
        settings[dtype] = sample.request_settings(run, None).get("dtype")
    # Those versions sampled in the type of the training, and noted none.
    assert settings == dict(zip(COMPUTE_TYPES, COMPUTE_TYPES, strict=True)) | {"bfloat16": None}
