"""What a distribution says about itself as data: name, tokens, options; and what families read."""

import inspect

import jax
import jax.numpy as jnp
import pytest

from grnn_jax.distributions import (
    DISTRIBUTIONS,
    bernoulli,
    categorical,
    gaussian_mixture,
    poisson,
    product,
    standardize,
    weibull,
    with_end,
)
from grnn_jax.distributions.truncation import TRUNCATION_OPTIONS, truncate

H = 6

ARGUMENTS = {
    "tokens": (5,), "levels": (4,), "fields": ((2, 3),), "bits": (3,),
    "reals": (2,), "pen": (), "counts": (2,), "waits": (),
}  # fmt: skip
"""Positional arguments for the kinds of event."""

FAMILIES = {
    name: family.make(*ARGUMENTS[family.kinds[0]]) for name, family in DISTRIBUTIONS.items()
}

COMPOSED = {
    "with_end(bernoulli)": with_end(bernoulli(2)),
    "with_end(gaussian_mixture)": with_end(gaussian_mixture(2)),
    "product(wait=weibull, mark=categorical)": product({"wait": weibull(), "mark": categorical(3)}),
    "product(a=product(b=poisson))": product({"a": product({"b": poisson(1)})}),
    "gaussian_mixture": standardize(gaussian_mixture(2), 2, None, [2.0, 3.0]),
}

everything = pytest.mark.parametrize(
    ("name", "distribution"), [*FAMILIES.items(), *COMPOSED.items()]
)


@everything
def test_name_is_the_function_that_made_it(name, distribution):
    assert distribution.name == name


@everything
def test_num_tokens_is_what_the_table_and_the_logits_have(name, distribution):
    tokens = ("categorical", "mixture_of_softmaxes")
    assert (distribution.num_tokens is not None) == (name in tokens)
    assert (distribution.token_table is not None) == (name in tokens)
    assert (distribution.logits is not None) == (name in tokens)
    if name in tokens:
        params = distribution.init(jax.random.key(0), H)
        table, logits = distribution.token_table(params), distribution.logits(params, jnp.ones(H))
        assert distribution.num_tokens == len(table) == len(logits) == 5


@everything
def test_sample_takes_the_declared_options_and_no_other(name, distribution):
    def draw(**options):
        keys = jax.random.split(jax.random.key(1), 2)
        params = distribution.init(jax.random.key(0), H)
        return distribution.sample(keys, params, jnp.ones((2, H)), **options)

    for option in distribution.options:
        jax.eval_shape(
            lambda option=option: draw(**{option: jnp.ones(2, int if option == "top_k" else float)})
        )
    with pytest.raises(TypeError, match="no_such_option"):
        jax.eval_shape(lambda: draw(no_such_option=1))
    parameters = inspect.signature(distribution.sample).parameters.values()
    if name in FAMILIES and not any(each.kind is each.VAR_KEYWORD for each in parameters):
        keywords = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
        assert list(distribution.options) == keywords


def test_options_of_classes_are_the_arguments_of_truncate():
    assert ("logits", *TRUNCATION_OPTIONS) == tuple(inspect.signature(truncate).parameters)
