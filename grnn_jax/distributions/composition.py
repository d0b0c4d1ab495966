"""What distributions made of other distributions share."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Params, PyTree
from grnn_jax.distributions.base import Distribution

Options = dict[str, inspect.Parameter]
"""Keyword-only parameters by name."""


def zero_where(condition: Bool[Array, "..."], event: PyTree) -> PyTree:
    """The event [..., ...] with zeros in place of every leaf where `condition` [...] is True."""

    def zero(leaf: Array) -> Array:
        leaf = jnp.asarray(leaf)
        wide = condition.reshape(condition.shape + (1,) * (leaf.ndim - condition.ndim))
        return jnp.where(wide, jnp.zeros_like(leaf), leaf)

    return jax.tree.map(zero, event)


def sample_options(sample: Callable[..., PyTree]) -> Options:
    """The options of a distribution's `sample`."""
    parameters = inspect.signature(sample).parameters.values()
    return {each.name: each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


def sample_part(
    part: Distribution, key: Array, params: Params, hidden: Array, options: dict[str, Any]
) -> PyTree:
    """Samples a part with those of the options that it has."""
    own = sample_options(part.sample)
    return part.sample(
        key, params, hidden, **{name: value for name, value in options.items() if name in own}
    )


def declare_options(sample: Callable[..., PyTree], options: Options) -> Callable[..., PyTree]:
    """`sample`(key, params, hidden, **options) with the signature that names its options."""

    @functools.wraps(sample)
    def checked(key: Array, params: Params, hidden: Array, **given: Any) -> PyTree:
        unknown = sorted(set(given) - set(options))
        if unknown:
            raise TypeError(f"sample has the options {sorted(options)}, got {unknown}")
        return sample(key, params, hidden, **given)

    required = inspect.Parameter.POSITIONAL_OR_KEYWORD
    first = [inspect.Parameter(name, required) for name in ("key", "params", "hidden")]
    checked.__signature__ = inspect.Signature([*first, *options.values()])  # type: ignore[attr-defined]
    return checked
