"""Called from JAX code: its settings, eager calls, narrow parameters, traced rates."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, perturb
from jax.sharding import AxisType

import grnn_jax
from grnn_jax import cells, distributions, make_model, sampling

D = distributions
FAMILIES = {
    "logistic_mixture": lambda: D.logistic_mixture(16, num_components=2),
    "categorical": lambda: D.categorical(5, end=0),
    "embedded": lambda: D.categorical(5, embedding_size=3),
    "mixture_of_softmaxes": lambda: D.mixture_of_softmaxes(5, num_components=2),
    "factored_categorical": lambda: D.factored_categorical((3, 4)),
    "bernoulli": lambda: D.bernoulli(4),
    "nade": lambda: D.nade(4),
    "gaussian_mixture": lambda: D.gaussian_mixture(2, num_components=2, covariance="full"),
    "gaussian": lambda: D.gaussian(2, covariance="full"),
    "diagonal": lambda: D.gaussian(2, shift=[1.0, 2.0], scale=[1.0, 3.0]),
    "student_t": lambda: D.student_t(2),
    "pen": lambda: D.pen(num_components=2),
    "poisson": lambda: D.poisson(2),
    "negative_binomial": lambda: D.negative_binomial(2),
    "zero_inflated_negative_binomial": lambda: D.zero_inflated_negative_binomial(2),
    "zero_inflated_poisson": lambda: D.zero_inflated_poisson(2),
    "lognormal_mixture": lambda: D.lognormal_mixture(num_components=2),
    "weibull": D.weibull,
    "exponential": D.exponential,
    "with_end": lambda: D.with_end(D.gaussian(2)),
    "product": lambda: D.product({"a": D.categorical(2), "b": D.gaussian(1)}),
    "sitewise_bernoulli": lambda: D.sitewise_bernoulli(4),
    "sitewise_nade": lambda: D.sitewise_nade(4),
}
LAYERS = [cells.lstm(8), cells.gru(8)]
CELLS = {name: functools.partial(make, 8) for name, make in cells.CELLS.items()} | {
    "heads": lambda: cells.gru(8, num_heads=2, learned_initial_state=True),
    "blocks": lambda: cells.elman(8, num_heads=4),
    "stack": lambda: cells.stack(
        LAYERS, residual=True, layer_norm=True, dropout=0.1, recurrent_dropout=0.1
    ),
    "zoneout": lambda: cells.zoneout(cells.lstm(8), 0.1),
    "linear_zoneout": lambda: cells.zoneout(cells.min_gru(8), 0.1),
}


def engines(cell):
    return ["auto"] if cell.layered else list(grnn_jax.supported_engines(cell))


def shapes_of(model, batch_size=2, length=5):
    """Parameters and events of a model, as shapes."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    events = jax.tree.map(
        lambda spec: jax.ShapeDtypeStruct((batch_size, length, *spec.shape), spec.dtype),
        model.distribution.event,
    )
    return jax.eval_shape(model.init, key), events, key


def zeros(spec):
    return np.zeros(spec.shape, spec.dtype)


def windows(model):
    """The gradient of a window with a reset, and dropout."""

    def loss(params, events, key):
        shape = jax.tree.leaves(events)[0].shape[:2]
        mask = np.ones(shape, bool)
        carry = model.initial_state(params, shape[0])
        batch = events, mask, mask & (np.arange(shape[1]) == 3)
        return grnn_jax.event_log_probs(model, params, carry, batch, key=key)[0].sum()

    return jax.grad(loss)


@pytest.fixture
def no_rank_promotion():
    """JAX refuses to promote ranks, whatever else surrounds a call."""
    with jax.numpy_rank_promotion("raise"):
        yield


def trace_explicit(run, params, events, key):
    """Rows and units are split over a mesh whose axes are explicit."""
    mesh = jax.sharding.AbstractMesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)

    def split(spec, *axes):
        sharding = jax.NamedSharding(mesh, jax.P(*axes))
        return jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=sharding)

    def by_units(spec):
        last = None if spec.shape[-1] % 2 else "model"
        return split(spec, *[None] * (len(spec.shape) - 1), last)

    events = jax.tree.map(lambda spec: split(spec, "data"), events)
    return jax.eval_shape(run, jax.tree.map(by_units, params), events, key)


def trace_shard_map(run, *arguments):
    """Every device has its own rows, and what varies over devices is checked."""
    mesh = jax.sharding.AbstractMesh((2,), ("data",), axis_types=(AxisType.Auto,))
    specs = jax.P(), jax.P("data"), jax.P()

    def summed(*arguments):
        return jax.tree.map(lambda leaf: jax.lax.pmean(leaf, "data"), run(*arguments))

    return jax.eval_shape(
        jax.shard_map(summed, mesh=mesh, in_specs=specs, out_specs=jax.P()), *arguments
    )


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.usefixtures("no_rank_promotion")
def test_every_cell_and_engine(name):
    cell = CELLS[name]()
    for engine in engines(cell):
        family = D.bernoulli(8) if cell.sitewise else D.categorical(5)
        model = make_model(cell, family, engine=engine)
        # Explicit axes reach no cell.
        found = trace_shard_map(windows(model), *shapes_of(model, 4))
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, shapes_of(model)[0])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("trace", [trace_explicit, trace_shard_map])
@pytest.mark.usefixtures("no_rank_promotion")
def test_every_family(name, trace):
    family = FAMILIES[name]()
    cell = cells.sitewise_lstm(8, num_sites=4) if family.num_sites else cells.lstm(8)
    model = make_model(cell, family)
    settings = {"temperature": 0.5, "top_k": 2, "top_p": 0.5, "bias": 0.5, "typical_p": 0.5}
    settings = {name: value for name, value in settings.items() if name in family.options}

    def sample(params, events, key):
        drawn = sampling.sample(model, params, key, 2, 3, **settings)
        first = sum(leaf.astype(jnp.float32).sum() for leaf in jax.tree.leaves(events))
        return drawn.log_probs + 0 * first

    trace(windows(model), *shapes_of(model, 4))
    trace(sample, *shapes_of(model, 4))


SETTINGS = {
    "rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
    "transfer_guard": lambda: jax.transfer_guard("disallow"),
    "debug_nans": lambda: jax.debug_nans(True),
    "tracer_leaks": lambda: jax.checking_leaks(),
    "x64": lambda: jax.enable_x64(True),
}
ONE_OF_EACH = [
    ("scan", "mogrifier_lstm", "gaussian_mixture"),
    ("fused", "lstm", "categorical"),
    ("fused_recompute", "gru", "product"),
    ("linear", "lru", "bernoulli"),
    ("newton", "diagonal_gru", "poisson"),
]


@pytest.mark.parametrize(("engine", "cell", "family"), ONE_OF_EACH)
@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_the_caller(setting, engine, cell, family):
    model = make_model(CELLS[cell](), FAMILIES[family](), engine=engine)
    rng = np.random.default_rng(0)
    params = perturb(model.init(jax.random.key(0)))
    events = jax.tree.map(
        lambda spec: jnp.asarray(rng.integers(0, 2, (2, 5, *spec.shape)), spec.dtype),
        model.distribution.event,
    )
    mask = jnp.asarray(np.arange(5) < np.array([[5], [3]]))

    def call(params, events, mask, key):
        """New at every call, so that nothing is left from another setting."""

        def loss(params):
            log_probs = grnn_jax.log_prob(model, params, events, mask)
            return log_probs.sum(), log_probs

        gradient, log_probs = jax.grad(loss, has_aux=True)(params)
        return log_probs, gradient, grnn_jax.sample(model, params, key, 2, 3).log_probs

    arguments = params, events, mask, jax.random.key(1)
    expected = _without_setting(engine, cell, family, lambda: jax.jit(call)(*arguments))
    with SETTINGS[setting]():
        found = jax.jit(call)(*arguments)
        jax.block_until_ready(found)
    assert_trees_close(found, expected, rtol=1e-4, atol=1e-5)


_expected = {}


def _without_setting(*arguments):
    *names, compute = arguments
    if tuple(names) not in _expected:
        _expected[tuple(names)] = compute()
    return _expected[tuple(names)]


@contextlib.contextmanager
def counted():
    """How many programs are lowered inside."""
    count = []

    def note(event, duration, **_):
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            count.append(duration)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.parametrize("engine", ["scan", "fused"])
def test_nothing_is_compiled_twice(engine):
    """At the second call, eagerly, of an equal model that was made apart."""
    shift = np.array([1.0, 2.0])

    def run():
        cell = cells.stack([cells.lstm(4), cells.gru(4)], dropout=0.5)
        model = make_model(cell, D.gaussian(2, shift=list(shift)), engine=engine)
        params = jax.tree.map(
            lambda spec: np.full(spec.shape, 0.1, spec.dtype), shapes_of(model)[0]
        )
        events = np.ones((2, 4, 2), np.float32)
        values = [grnn_jax.log_prob(model, params, events)]
        values.append(jax.grad(lambda p: grnn_jax.log_prob(model, p, events).sum())(params))
        values.append(grnn_jax.sample(model, params, jax.random.key(0), 2, 3).events)
        state = model.initial_state(params, 2).cell_state
        inputs = np.ones((2, 4, 2), np.float32)
        values.append(grnn_jax.unroll(cell, params["cell"], inputs, state, engine=engine))
        return jax.block_until_ready(values)

    run()
    with counted() as count:
        run()
    assert not count
    shift += 1
    with counted() as count:
        run()
    assert count


def test_factories_know_their_arguments_apart():
    assert cells.lstm(4) is cells.lstm(hidden_size=4)
    assert cells.lstm(4) is not cells.lstm(4, forget_bias=0.0)
    assert D.gaussian(2, shift=np.zeros(2)) is not D.gaussian(2, shift=np.array([0.0, 1.0]))
    first, second = ({name: D.categorical(2) for name in names} for names in ("ab", "ba"))
    assert D.product(first) is D.product(dict(first)) is not D.product(second)
    assert cells.stack([cells.lstm(4)]) is cells.stack((cells.lstm(4),))
    with pytest.raises(ValueError, match="hidden_size must be at least 1"):
        cells.lstm(0)


@pytest.mark.parametrize(("engine", "cell", "family"), ONE_OF_EACH)
def test_parameters_in_bfloat16(engine, cell, family):
    """The result is that of the same numbers in float32, up to their products' rounding."""
    model = make_model(CELLS[cell](), FAMILIES[family](), engine=engine)
    params = perturb(jax.tree.map(zeros, shapes_of(model)[0]))
    narrow = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow)
    events = jax.tree.map(
        lambda spec: np.ones((2, 5, *spec.shape), spec.dtype), model.distribution.event
    )

    def loss(params):
        log_probs = grnn_jax.log_prob(model, params, events)
        return log_probs.sum(), log_probs

    run = jax.jit(jax.grad(loss, has_aux=True))
    gradient, found = run(narrow)
    assert found.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.bfloat16)}
    expected_gradient, expected = run(wide)
    np.testing.assert_allclose(found, expected, rtol=0.02)
    assert_trees_close(
        jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradient),
        expected_gradient, rtol=0.1, atol=0.1,
    )  # fmt: skip
    drawn = grnn_jax.sample(model, narrow, jax.random.key(0), 2, 3)
    assert drawn.log_probs.dtype == jnp.float32


@pytest.mark.parametrize("kind", ["dropout", "recurrent_dropout", "zoneout"])
def test_rates_may_be_traced(kind):
    def log_prob(rate, key):
        inner = cells.lstm(4)
        if kind == "zoneout":
            cell = cells.zoneout(inner, rate)
        else:
            cell = cells.stack([inner], **{kind: rate})
        model = make_model(cell, D.categorical(3))
        params = perturb(jax.tree.map(zeros, shapes_of(model)[0]))
        return grnn_jax.log_prob(model, params, np.array([[0, 2, 1]]), key=key)

    key = jax.random.key(0)
    traced = jax.jit(log_prob)
    for rate in (0.25, 0.75):
        np.testing.assert_allclose(traced(rate, key), log_prob(rate, key), rtol=1e-6)
    assert traced(0.25, key) != traced(0.75, key)
    slope = jax.grad(lambda rate: log_prob(rate, key).sum())(0.25)
    assert np.isfinite(slope)


def test_log_prob_with_dropout():
    model = make_model(cells.stack([cells.gru(8)], dropout=0.5), D.categorical(4))
    params = model.init(jax.random.key(0))
    events = np.arange(12).reshape(2, 6) % 4
    exact = grnn_jax.log_prob(model, params, events)
    first, again, second = (
        grnn_jax.log_prob(model, params, events, key=jax.random.key(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != second).all() and (first != exact).all()
