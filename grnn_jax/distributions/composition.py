"""What distributions made of other distributions share."""

from collections.abc import Iterable, Sequence
from typing import Any

from grnn_jax.array_types import Array, Params, PyTree
from grnn_jax.distributions.base import Distribution


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
