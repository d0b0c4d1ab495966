"""What distributions made of other distributions share."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import Array, Bool, Params, PyTree
from grnn_jax.distributions.base import Distribution


def zero_where(condition: Bool[Array, "..."], event: PyTree) -> PyTree:
    """The event [..., ...] with zeros in place of every leaf where `condition` [...] is True."""

    def zero(leaf: Array) -> Array:
        leaf = jnp.asarray(leaf)
        wide = condition.reshape(condition.shape + (1,) * (leaf.ndim - condition.ndim))
        return jnp.where(wide, jnp.zeros_like(leaf), leaf)

    return jax.tree.map(zero, event)


def sample_part(
    part: Distribution, key: Array, params: Params, hidden: Array, options: dict[str, Any]
) -> PyTree:
    """Samples a part with those of the options that it has."""
    own = {name: value for name, value in options.items() if name in part.options}
    return part.sample(key, params, hidden, **own)


def check_options(name: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raises TypeError, as a call with an unknown keyword does, where the parts take no option."""
    unknown = [option for option in given if option not in known]
    if unknown:
        listed = ", ".join(known) or "none"
        raise TypeError(f"options of {name} must be among: {listed}; got {', '.join(unknown)}")
