"""Products: a plain sum, order, absent fields, nested products, options, keys."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import perturb

from grnn_jax.distributions.categorical import categorical
from grnn_jax.distributions.counts import poisson
from grnn_jax.distributions.product import product
from grnn_jax.distributions.waits import weibull

H = 4


def start(distribution, rows=1):
    params = perturb(distribution.init(jax.random.key(0), H), scale=0.7)
    return params, jnp.tile(jnp.float32(np.random.default_rng(0).normal(size=H)), (rows, 1))


def optional():
    """`kind` 1 has a `value`, `kind` 0 has none."""
    return product(
        {"kind": categorical(2), "value": categorical(3)},
        present={"value": lambda earlier: earlier["kind"] == 1},
    )


def marked():
    return product(
        {"wait": weibull(), "mark": categorical(3)},
        present={"mark": lambda earlier: ~earlier["wait"]["censored"]},
    )


@pytest.mark.parametrize("conditional", [True, False])
def test_log_prob_is_the_sum_over_fields_in_the_given_order(conditional):
    """The names are in an order that sorting would change."""
    fields = {"z": poisson(2), "y": categorical(3), "x": categorical(2, embedding_size=5)}
    distribution = product(fields, conditional=conditional)
    params, hidden = start(distribution, 6)
    rng = np.random.default_rng(1)
    event = {
        "x": jnp.int32(rng.integers(0, 2, 6)),
        "y": jnp.int32(rng.integers(0, 3, 6)),
        "z": jnp.int32(rng.poisson(2.0, (6, 2))),
    }
    inputs, expected, encodings = hidden, 0, []
    for name, field in fields.items():
        expected += np.asarray(jax.jit(field.log_prob)(params[name], inputs, event[name]))
        encodings.append(field.encode(params[name], event[name]))
        if conditional:
            inputs = jnp.concatenate([hidden, *encodings], -1)
    nats = jax.jit(distribution.log_prob)(params, hidden, event)
    np.testing.assert_allclose(nats, expected, rtol=1e-5)
    np.testing.assert_array_equal(distribution.encode(params, event), np.concatenate(encodings, -1))
    assert distribution.encoding_size == 2 + 3 + 5
    assert params["x"]["kernel"].shape == (H + 5 * conditional, 2)


def test_a_field_depends_on_earlier_fields_only_if_conditional():
    for conditional in (True, False):
        distribution = product({"a": categorical(3), "b": categorical(2)}, conditional=conditional)
        params, hidden = start(distribution, 3)
        a, score = jnp.arange(3), jax.jit(distribution.log_prob)
        both = [score(params, hidden, {"a": a, "b": jnp.full(3, b)}) for b in (0, 1)]
        odds = np.asarray(both[1] - both[0])
        assert (np.ptp(odds) > 0.1) == conditional
        assert conditional or np.ptp(odds) < 1e-5


def all_events():
    kinds, values = np.array([0, 1, 1, 1]), np.array([0, 0, 1, 2])
    return {"kind": jnp.int32(kinds), "value": jnp.int32(values)}


def test_probabilities_sum_to_one_where_a_field_may_be_absent():
    distribution = optional()
    params, hidden = start(distribution, 4)
    p = np.exp(jax.jit(distribution.log_prob)(params, hidden, all_events()))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-5)
    absent = categorical(2).log_prob(params["kind"], hidden[0], jnp.int32(0))
    np.testing.assert_allclose(p[0], np.exp(absent), rtol=1e-5)


def test_an_absent_field_is_ignored_exactly():
    """A censored wait has no mark: log S(wait) only, whatever stands in its place."""
    distribution = marked()
    params, hidden = start(distribution, 4)
    wait = {"wait": jnp.full(4, 0.7), "censored": jnp.array([True, True, True, False])}
    event = {"wait": wait, "mark": jnp.int32([0, 2, -5, 2])}

    def nats(params):
        return distribution.log_prob(params, hidden, event)

    values = np.asarray(nats(params))
    survival = weibull().log_prob(params["wait"], hidden, wait)
    np.testing.assert_allclose(values[:3], survival[:3], rtol=1e-6)
    assert (values[:3] == values[0]).all()
    gradient = jax.jit(jax.jacrev(nats))(params)["mark"]
    assert all((leaf[:3] == 0).all() for leaf in jax.tree.leaves(gradient))
    assert all((leaf[3] != 0).any() for leaf in jax.tree.leaves(gradient))
    encoding = distribution.encode(params, event)
    assert (encoding[:3] == encoding[0]).all()
    assert (encoding[3] != encoding[0]).any()
    np.testing.assert_array_equal(distribution.is_end(event), [True, True, True, False])


def test_samples_follow_the_joint_distribution_and_absent_fields_are_zero():
    distribution = optional()
    count = 5_000
    params, hidden = start(distribution, count)
    drawn = jax.jit(distribution.sample)(jax.random.split(jax.random.key(0), count), params, hidden)
    kind, value = np.asarray(drawn["kind"]), np.asarray(drawn["value"])
    assert (value[kind == 0] == 0).all()
    observed = np.bincount(np.where(kind == 0, 0, 1 + value), minlength=4)
    expected = count * np.exp(np.float64(distribution.log_prob(params, hidden[:4], all_events())))
    expected *= count / expected.sum()
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


def test_fields_are_drawn_with_keys_folded_from_the_row_key():
    distribution = marked()
    params, hidden = start(distribution, 5)
    keys = jax.random.split(jax.random.key(0), 5)
    drawn = jax.jit(distribution.sample)(keys, params, hidden)
    folded = [jax.vmap(lambda key, k=k: jax.random.fold_in(key, k))(keys) for k in (0, 1)]
    wait = jax.jit(weibull().sample)(folded[0], params["wait"], hidden)
    np.testing.assert_allclose(drawn["wait"]["wait"], wait["wait"], rtol=1e-6)
    inputs = jnp.concatenate([hidden, weibull().encode(params["wait"], wait)], -1)
    mark = categorical(3).sample(folded[1], params["mark"], inputs)
    np.testing.assert_array_equal(drawn["mark"], mark)


def test_options_go_to_the_fields_that_have_them():
    distribution = product({"class": categorical(30), "count": poisson(1, mean=50.0)})
    assert distribution.options == ("temperature", "top_k", "top_p", "min_p", "typical_p")
    count = 200
    params, hidden = start(distribution, count)
    keys = jax.random.split(jax.random.key(0), count)
    mode = jax.jit(distribution.mode)(params, hidden[0])
    for options in ({"top_k": 1}, {"temperature": 0.0}):
        sample = jax.jit(functools.partial(distribution.sample, **options))
        drawn = sample(keys, params, hidden)
        assert (drawn["class"] == mode["class"]).all()
        assert len(np.unique(drawn["count"])) > 10
    message = r"options of product\(class=categorical, count=poisson\) .*temperature, .*; got bias"
    with pytest.raises(TypeError, match=message):
        distribution.sample(keys, params, hidden, bias=1.0)
    alone = product({"count": poisson(1)})
    assert alone.options == ()
    with pytest.raises(TypeError, match=r"must be among: none; got temperature"):
        alone.sample(keys, alone.init(jax.random.key(0), H), hidden, temperature=1.0)


def test_products_can_be_nested():
    nested = product({"first": optional(), "second": product({"only": categorical(2)})})
    flat = product(
        {"kind": categorical(2), "value": categorical(3), "only": categorical(2)},
        present={"value": lambda earlier: earlier["kind"] == 1},
    )
    params, hidden = start(nested, 8)
    pairs = list(itertools.product(range(4), range(2)))
    index, only = jnp.int32([pair[0] for pair in pairs]), jnp.int32([pair[1] for pair in pairs])
    first = jax.tree.map(lambda leaf: leaf[index], all_events())
    event = {"first": first, "second": {"only": only}}
    nats = jax.jit(nested.log_prob)(params, hidden, event)
    np.testing.assert_allclose(np.exp(nats).sum(), 1, rtol=1e-5)
    same_params = {**params["first"], **params["second"]}
    same_nats = jax.jit(flat.log_prob)(same_params, hidden, {**first, "only": only})
    np.testing.assert_allclose(same_nats, nats, rtol=1e-5)
    keys = jax.random.split(jax.random.key(0), 8)
    drawn = jax.jit(nested.sample)(keys, params, hidden)
    assert jax.tree.structure(drawn) == jax.tree.structure(nested.event)
    assert (drawn["first"]["value"][drawn["first"]["kind"] == 0] == 0).all()


def test_end_and_density_are_those_of_the_fields():
    plain = product({"a": categorical(3), "b": poisson(2)})
    assert plain.is_end is None
    assert not plain.is_density
    assert marked().is_density
    ended = product(
        {"kind": categorical(2), "a": categorical(3, end=0), "b": categorical(3, end=2)},
        present={"a": lambda earlier: earlier["kind"] == 1},
    )
    event = {
        "kind": jnp.int32([0, 1, 1, 0]),
        "a": jnp.int32([0, 0, 1, 0]),
        "b": jnp.int32([0, 0, 1, 2]),
    }
    np.testing.assert_array_equal(ended.is_end(event), [False, True, False, True])


@pytest.mark.parametrize(
    ("fields", "present", "message"),
    [
        ({}, None, "fields must have at least one distribution, got none"),
        ({"a": 2, "b": 2}, {"c": None}, r"present must name fields after the first \['b'\], got"),
        ({"a": 2, "b": 2}, {"a": None}, r"after the first \['b'\], got 'a'"),
    ],
)
def test_wrong_settings_are_named(fields, present, message):
    fields = {name: categorical(size) for name, size in fields.items()}
    present = present and dict.fromkeys(present, lambda earlier: True)
    with pytest.raises(ValueError, match=message):
        product(fields, present=present)


def test_present_sees_earlier_fields_only():
    distribution = product(
        {"a": categorical(2), "b": categorical(2)},
        present={"b": lambda earlier: earlier["b"] == 1},
    )
    params, hidden = start(distribution)
    event = {"a": jnp.int32([0]), "b": jnp.int32([0])}
    with pytest.raises(KeyError):
        distribution.log_prob(params, hidden, event)
