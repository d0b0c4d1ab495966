"""What holds for every family over real numbers: units, extremes, memory, arguments."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, perturb
from jax.test_util import check_grads

from grnn_jax.distributions.chunked import cut_in_time
from grnn_jax.distributions.gaussian import gaussian
from grnn_jax.distributions.gaussian_mixture import gaussian_mixture
from grnn_jax.distributions.standardize import bounded, compress, standardize
from grnn_jax.distributions.student_t import student_t

H = 5

MAKERS = {
    "gaussian": gaussian,
    "student_t": student_t,
    "gaussian_mixture": functools.partial(gaussian_mixture, num_components=3),
}
FAMILIES = {
    f"{name}_{covariance}": functools.partial(make, covariance=covariance)
    for name, make in MAKERS.items()
    for covariance in ("diagonal", "full")
}


@functools.cache
def compiled(family, size=3, **options):
    distribution = FAMILIES[family](size, **options)
    functions = ("log_prob", "sample", "mode", "encode")
    return distribution._replace(
        **{name: jax.jit(getattr(distribution, name)) for name in functions}
    )


def make(family, size=3, dtype=None, **options):
    distribution = compiled(family, size, **options)
    init = jax.jit(distribution.init, static_argnums=1)
    params = perturb(init(jax.random.key(0), H), dtype=dtype)
    return distribution, params, np.random.default_rng(0)


@pytest.mark.parametrize("family", FAMILIES)
def test_density_integrates_to_one(family):
    with jax.enable_x64(True):
        distribution, params, rng = make(
            family, 2, jnp.float64, shift=(3.0, -1.0), scale=(2.0, 0.1)
        )
        hidden = rng.normal(size=H)
        # The trapezoidal rule on z = sinh u, which reaches 4000 standard deviations.
        u = np.linspace(-9, 9, 601)
        z, weight = np.sinh(u), np.cosh(u) * (u[1] - u[0])

        @jax.jit
        def row_sum(z_0):
            rows = jnp.stack(jnp.broadcast_arrays(3 + 2 * z_0, -1 + 0.1 * z), -1)
            nats = distribution.log_prob(params, jnp.tile(hidden, (len(z), 1)), rows)
            return (jnp.exp(nats) * weight * 0.1).sum()

        total = (jax.lax.map(row_sum, z) * weight * 2).sum()
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("family", ["gaussian_full", "gaussian_mixture_diagonal"])
def test_units_of_the_data(family):
    shift, scale = np.array((5.0, -2.0, 0.0)), np.array((2.0, 0.5, 1.0))
    plain, params, rng = make(family)
    distribution = compiled(family, shift=tuple(shift), scale=tuple(scale))
    z, hidden = jnp.float32(rng.normal(size=(2, 8, 3))), jnp.float32(rng.normal(size=(2, 8, H)))
    events = jnp.float32(shift + scale * z)
    np.testing.assert_allclose(
        distribution.log_prob(params, hidden, events),
        plain.log_prob(params, hidden, z) - np.log(2 * 0.5),
        rtol=1e-4,
        atol=1e-4,
    )
    keys = jax.random.split(jax.random.key(1), 8)
    drawn, expected = (d.sample(keys, params, hidden[0]) for d in (distribution, plain))
    np.testing.assert_allclose((drawn - shift) / scale, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        distribution.mode(params, hidden),
        shift + scale * np.asarray(plain.mode(params, hidden)),
        rtol=1e-5,
        atol=1e-5,
    )
    np.testing.assert_allclose(distribution.encode(params, events), z, rtol=1e-5, atol=1e-5)
    assert distribution.event == jax.ShapeDtypeStruct((3,), jnp.float32)
    assert drawn.dtype == jnp.float32
    assert distribution.is_density


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_finite_differences(family):
    with jax.enable_x64(True):
        distribution, params, rng = make(family, dtype=jnp.float64)
        hidden, events = rng.normal(size=(2, H)), 2 * rng.normal(size=(2, 3))
        check_grads(
            jax.jit(lambda *arguments: distribution.log_prob(*arguments).sum()),
            (params, jnp.asarray(hidden), jnp.asarray(events)),
            order=1,
            modes=["rev"],
        )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.optimized
def test_extremes_stay_finite(family):
    distribution, params, rng = make(family)
    hidden = jnp.float32(rng.normal(size=(2, 4, H)))
    largest = float(np.finfo(np.float32).max)

    @jax.jit
    def value_and_gradient(params, hidden, events):
        def loss(params, hidden):
            return distribution.log_prob(params, hidden, events).mean()

        return jax.value_and_grad(loss, argnums=(0, 1))(params, hidden)

    for size in (1.0, 1e4, 1e30):
        for event in (0.0, 1e6, -1e6, largest, -largest):
            events = jnp.full((2, 4, 3), event)
            for leaf in jax.tree.leaves(value_and_gradient(params, size * hidden, events)):
                assert np.isfinite(leaf).all(), (size, event)
            assert np.isfinite(distribution.encode(params, events)).all()
    nats = distribution.log_prob(params, hidden.astype(jnp.bfloat16), jnp.zeros((2, 4, 3)))
    assert nats.dtype == jnp.float32
    np.testing.assert_allclose(
        nats, distribution.log_prob(params, hidden, jnp.zeros((2, 4, 3))), rtol=0.2, atol=0.2
    )


@pytest.mark.parametrize("family", ["gaussian_full", "student_t_diagonal"])
def test_compute_dtype_narrows_the_matmul_only(family):
    whole, params, rng = make(family)
    narrow = compiled(family, 3, dtype=jnp.bfloat16)
    hidden, events = jnp.float32(rng.normal(size=(4, H))), jnp.float32(rng.normal(size=(4, 3)))
    expected = whole.log_prob(params, hidden, events)
    actual = narrow.log_prob(params, hidden, events)
    assert actual.dtype == jnp.float32
    assert not np.array_equal(actual, expected)
    np.testing.assert_allclose(actual, expected, rtol=0.2, atol=0.2)


@pytest.mark.parametrize("family", ["gaussian_full", "student_t_diagonal"])
def test_events_that_are_not_finite_have_no_probability(family):
    distribution, params, _ = make(family)
    events = jnp.asarray([[np.nan, 0, 0], [0, np.inf, 0], [0, 0, -np.inf], [0, 0, 0]], jnp.float32)
    nats = distribution.log_prob(params, jnp.ones((4, H)), events)
    assert np.isnan(nats).tolist() == [True, True, True, False]
    assert np.isfinite(distribution.encode(params, events)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_smallest_scale_bounds_the_density(family):
    distribution, params, rng = make(family, size=2, min_scale=1e-3, scale=(10.0, 10.0))
    bound = -2 * np.log(1e-3 * 10 * np.sqrt(2 * np.pi))
    params = jax.tree.map(jnp.zeros_like, params)

    def collapse(path, leaf):
        if leaf.ndim > 1:
            return leaf
        # Everything is 0 but the log scales, which stand behind the 2 means.
        if "degrees" in str(path):
            return leaf
        components = 3 if "mixture" in family else 1
        logits = 3 if "mixture" in family else 0
        rows = np.zeros((components, (leaf.size - logits) // components))
        rows[:, 2:4] = -1e6
        return jnp.float32(np.concatenate([np.zeros(logits), rows.reshape(-1)]))

    params = jax.tree_util.tree_map_with_path(collapse, params)
    nats = distribution.log_prob(params, jnp.ones((1, H)), jnp.zeros((1, 2)))
    np.testing.assert_allclose(nats, bound, rtol=0.03 if "student" in family else 1e-5)
    assert nats <= bound * (1 + 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_of_a_row_depend_on_its_key_and_hidden_only(family):
    distribution, params, rng = make(family)
    hidden = jnp.float32(rng.normal(size=(8, H)))
    keys = jax.random.split(jax.random.key(2), 16)

    def draw(keys, hidden):
        return distribution.sample(keys, params, hidden, temperature=jnp.ones(8))

    together = draw(keys[:8], hidden)
    for row in (0, 5):
        own = jnp.arange(8) == row
        others = draw(jnp.where(own, keys[:8], keys[8:]), jnp.where(own[:, None], hidden, 9.0))
        np.testing.assert_allclose(others[row], together[row], rtol=1e-6)
    same_hidden = draw(keys[:8], hidden[:1].repeat(8, 0))
    assert len(np.unique(same_hidden)) == same_hidden.size


@pytest.mark.parametrize("family", FAMILIES)
def test_temperature_zero_is_the_mode_and_rows_may_differ(family):
    distribution, params, rng = make(family)
    hidden = jnp.float32(rng.normal(size=(8, H)))
    keys = jax.random.split(jax.random.key(3), 8)
    temperature = jnp.where(jnp.arange(8) < 4, 0.0, 1.0)
    mixed = distribution.sample(keys, params, hidden, temperature=temperature)
    np.testing.assert_allclose(mixed[:4], distribution.mode(params, hidden)[:4], rtol=1e-6)
    warm = distribution.sample(keys, params, hidden, temperature=jnp.ones(8))
    np.testing.assert_allclose(mixed[4:], warm[4:], rtol=1e-6)


def test_options_and_name_are_those_of_the_standardized_family():
    assert gaussian(2).options == student_t(2).options == ("temperature",)
    assert gaussian_mixture(2).options == ("temperature", "bias")
    assert standardize(gaussian_mixture(2), 2, None, [2.0, 3.0]).name == "gaussian_mixture"


@pytest.mark.parametrize("family", [name for name in FAMILIES if "full" in name])
def test_training_solves_and_factorises_nothing(family):
    distribution, params, rng = make(family)
    hidden, events = jnp.zeros((2, 4, H)), jnp.zeros((2, 4, 3))

    def loss(params, hidden):
        return distribution.log_prob(params, hidden, events).sum()

    keys = jax.random.split(jax.random.key(0), 2)
    drawing = distribution.sample.lower(keys, params, hidden[:, 0]).as_text()
    training = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, hidden).as_text()
    # Where the compiler has no such operation of its own, it calls LAPACK.
    library = "custom_call|triangular_solve|cholesky"
    assert re.search(library, drawing)
    assert not re.search(library, training)


def test_chunks_have_the_exact_value_and_gradient():
    distribution, params, rng = make("gaussian_mixture_full")
    chunked = cut_in_time(distribution.log_prob, 1, 17)  # 5 steps at a time, then 3
    hidden, events = (
        jnp.float32(rng.normal(size=(3, 8, H))),
        jnp.float32(rng.normal(size=(3, 8, 3))),
    )
    weights = jnp.float32(rng.normal(size=(3, 8)))

    def value_and_gradient(log_prob):
        def loss(params, hidden):
            return (log_prob(params, hidden, events) * weights).sum()

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, hidden)

    actual, expected = map(value_and_gradient, (chunked, distribution.log_prob))
    assert_trees_close(actual, expected, 1e-5, 1e-5)


@pytest.mark.optimized
def test_training_never_holds_all_factors():
    size, components, length = 33, 100, 2048
    distribution = gaussian_mixture(size, num_components=components, covariance="full")
    params = jax.eval_shape(lambda: distribution.init(jax.random.key(0), H))
    shapes = [jax.ShapeDtypeStruct((4, length, width), jnp.float32) for width in (H, size)]

    def loss(params, hidden, events):
        return distribution.log_prob(params, hidden, events).sum()

    step = jax.jit(jax.grad(loss)).lower(params, *shapes).compile()
    all_factors = 4 * length * components * (size - 1) ** 2 * 4
    assert step.memory_analysis().temp_size_in_bytes < all_factors / 2


def test_bounded_is_smooth_and_stays_inside():
    x = jnp.asarray([-1e30, -1e4, -50, -2, 0, 2, 50, 1e4, 1e30], jnp.float32)
    y = bounded(x, -9.0, 13.0)
    np.testing.assert_allclose(y, [-9, -9, -9, -2, 0, 2, 13, 13, 13], atol=2e-3)
    slopes = jax.vmap(jax.grad(lambda x: bounded(x, -9.0, 13.0)))(x)
    np.testing.assert_allclose(slopes, [0, 0, 0, 1, 1, 1, 0, 0, 0], atol=2e-3)


def test_encoding_is_linear_then_logarithmic():
    z = jnp.asarray([-np.inf, -1e12, -100, -10, -3, 0, 0.5, 10, 100, 1e12], jnp.float32)
    encoded = np.asarray(compress(z))
    np.testing.assert_array_equal(encoded[3:8], z[3:8])
    np.testing.assert_allclose(encoded[[2, 8]], [-10 * (1 + np.log(10)), 10 * (1 + np.log(10))])
    assert (np.diff(encoded) > 0).all()
    slope = jax.grad(compress)
    np.testing.assert_allclose([slope(9.999), slope(10.001)], 1, rtol=1e-3)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"covariance": "banded"}, 'covariance must be "diagonal" or "full", got \'banded\''),
        ({"min_scale": 0.0}, r"min_scale must lie in \(0, 1\), got 0.0"),
        ({"shift": (1.0,)}, r"shift must be 2 finite numbers, got \(1.0,\)"),
        ({"shift": (1.0, np.nan)}, "shift must be 2 finite numbers"),
        ({"scale": (1.0, 1.0, 1.0)}, "scale must be 2 finite numbers"),
        ({"scale": (1.0, 0.0)}, r"scale must be positive, got \(1.0, 0.0\)"),
    ],
)
def test_wrong_arguments_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        MAKERS[name](**{"size": 2} | options)
