"""Output distributions p(x_{t+1} | h): tuples of pure functions, one file each."""

from grnn_jax.distributions.base import Distribution, Family
from grnn_jax.distributions.bernoulli import bernoulli
from grnn_jax.distributions.categorical import categorical
from grnn_jax.distributions.counts import (
    negative_binomial,
    poisson,
    zero_inflated_negative_binomial,
    zero_inflated_poisson,
)
from grnn_jax.distributions.ended import with_end
from grnn_jax.distributions.factored_categorical import factored_categorical
from grnn_jax.distributions.gaussian import gaussian
from grnn_jax.distributions.gaussian_mixture import gaussian_mixture
from grnn_jax.distributions.logistic_mixture import logistic_mixture
from grnn_jax.distributions.lognormal_mixture import lognormal_mixture
from grnn_jax.distributions.nade import nade
from grnn_jax.distributions.pen import pen
from grnn_jax.distributions.product import product
from grnn_jax.distributions.sitewise_bernoulli import sitewise_bernoulli
from grnn_jax.distributions.sitewise_nade import sitewise_nade
from grnn_jax.distributions.softmax_mixture import mixture_of_softmaxes
from grnn_jax.distributions.standardize import standardize
from grnn_jax.distributions.student_t import student_t
from grnn_jax.distributions.truncation import truncate
from grnn_jax.distributions.waits import exponential, weibull

DISTRIBUTIONS = {
    "logistic_mixture": Family(logistic_mixture, ("levels",)),
    "categorical": Family(categorical, ("tokens", "levels")),
    "mixture_of_softmaxes": Family(mixture_of_softmaxes, ("tokens", "levels")),
    "factored_categorical": Family(factored_categorical, ("fields",)),
    "bernoulli": Family(bernoulli, ("bits",)),
    "nade": Family(nade, ("bits",)),
    "sitewise_bernoulli": Family(sitewise_bernoulli, ("bits",)),
    "sitewise_nade": Family(sitewise_nade, ("bits",)),
    "gaussian_mixture": Family(gaussian_mixture, ("reals",)),
    "gaussian": Family(gaussian, ("reals",)),
    "student_t": Family(student_t, ("reals",)),
    "pen": Family(pen, ("pen",)),
    "negative_binomial": Family(negative_binomial, ("counts",)),
    "poisson": Family(poisson, ("counts",)),
    "zero_inflated_negative_binomial": Family(zero_inflated_negative_binomial, ("counts",)),
    "zero_inflated_poisson": Family(zero_inflated_poisson, ("counts",)),
    "lognormal_mixture": Family(lognormal_mixture, ("waits",)),
    "weibull": Family(weibull, ("waits",)),
    "exponential": Family(exponential, ("waits",)),
}
"""Families that a flag can name, the default of each kind of event before the others of its kind;
a new one is one file and one line here."""

__all__ = [
    "DISTRIBUTIONS",
    "Distribution",
    "Family",
    "bernoulli",
    "categorical",
    "exponential",
    "factored_categorical",
    "gaussian",
    "gaussian_mixture",
    "logistic_mixture",
    "lognormal_mixture",
    "mixture_of_softmaxes",
    "nade",
    "negative_binomial",
    "pen",
    "poisson",
    "product",
    "standardize",
    "student_t",
    "sitewise_bernoulli",
    "sitewise_nade",
    "truncate",
    "weibull",
    "with_end",
    "zero_inflated_negative_binomial",
    "zero_inflated_poisson",
]
