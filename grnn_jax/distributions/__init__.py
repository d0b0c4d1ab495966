"""Output distributions p(x_{t+1} | h): tuples of pure functions, one file each."""

from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.categorical import categorical
from grnn_jax.distributions.truncation import truncate

DISTRIBUTIONS = {"categorical": categorical}
"""Families that a flag can name; a new one is one file and one line here."""

__all__ = ["DISTRIBUTIONS", "Distribution", "categorical", "truncate"]
