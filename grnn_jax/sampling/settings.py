"""What a request asks of the sampler beside the number and length of its sequences."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.array_types import AnyArray, Array, Float, Int, PyTree
from grnn_jax.errors import InputError
from grnn_jax.model import Model
from grnn_jax.sampling.automaton import Automaton

Setting = float | int | Float[AnyArray, "..."] | Int[AnyArray, "..."]
"""One number, or one for each sequence."""


class Settings(NamedTuple):
    """Settings of a request as arrays, so that other values compile nothing anew.

    Attributes:
        family: options of the family's `sample`; each () or [B], as are all of these.
        repetition_penalty: exponent of the probability of events that have occurred, or None.
        lengths: most events of each sequence, or None.
        logits_callback: (logits [B, V], SampleState) -> logits, or None.
        stop: the automaton that ends a sequence where it accepts, or None.
    """

    family: dict[str, Array]
    repetition_penalty: Array | None
    lengths: Array | None
    logits_callback: Callable[..., Array] | None
    stop: Automaton | None

    @property
    def needs_logits(self) -> bool:
        """Whether the family's own `sample` does not suffice."""
        return self.repetition_penalty is not None or self.logits_callback is not None

    def rows(self, index: Int[Array, " R"]) -> "Settings":
        """The settings of some of the sequences, one for each row."""

        def pick(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda leaf: leaf[index] if leaf.ndim else leaf, tree)

        return self._replace(
            family=pick(self.family),
            repetition_penalty=pick(self.repetition_penalty),
            lengths=pick(self.lengths),
        )


def make_settings(
    model: Model,
    num_samples: int,
    *,
    temperature: Setting = 1.0,
    top_k: Setting | None = None,
    top_p: Setting | None = None,
    min_p: Setting | None = None,
    typical_p: Setting | None = None,
    repetition_penalty: Setting | None = None,
    logits_callback: Callable[..., Array] | None = None,
    stop: Automaton | None = None,
    lengths: Setting | None = None,
    **options: float | AnyArray,
) -> Settings:
    """Checks settings and makes arrays of them; arguments as `sample`.

    Raises:
        ValueError: for a setting outside its range, of a wrong shape, or unknown to the family.
    """
    given: dict[str, Any] = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "typical_p": typical_p, "repetition_penalty": repetition_penalty, "lengths": lengths,
    }  # fmt: skip
    given = {name: value for name, value in (given | options).items() if value is not None}
    for name, value in given.items():
        check_setting(name, value)
    for name, value in given.items():
        if np.shape(value) not in ((), (num_samples,)):
            raise ValueError(
                f"{name} must be one number or [{num_samples}], got shape {np.shape(value)}"
            )
    penalty = given.pop("repetition_penalty", None)
    limits = given.pop("lengths", None)
    for name, value in (
        ("repetition_penalty", penalty), ("logits_callback", logits_callback), ("stop", stop),
    ):  # fmt: skip
        if value is not None:
            check_tokens_model(model, name)
    if logits_callback is not None and not isinstance(logits_callback, jax.tree_util.Partial):
        logits_callback = jax.tree_util.Partial(logits_callback)
    return Settings(
        {name: jnp.asarray(value) for name, value in _family_options(model, given).items()},
        None if penalty is None else jnp.asarray(penalty, jnp.float32),
        None if limits is None else jnp.asarray(limits, jnp.int32),
        logits_callback,
        stop,
    )


RANGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "temperature": (lambda value: value >= 0, "be at least 0"),
    "top_k": (lambda value: value >= 1, "be at least 1"),
    "top_p": (lambda value: (value > 0) & (value <= 1), "lie in (0, 1]"),
    "min_p": (lambda value: (value >= 0) & (value <= 1), "lie in [0, 1]"),
    "typical_p": (lambda value: (value > 0) & (value <= 1), "lie in (0, 1]"),
    "repetition_penalty": (lambda value: value > 0, "be positive"),
    "lengths": (lambda value: value >= 1, "be at least 1"),
}
"""What values a setting must have."""


def check_counts(**counts: int) -> None:
    """Names a count below 1."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_tokens_model(model: Model, name: str) -> None:
    """Names what the model's output distribution does not have, and the distribution."""
    if model.distribution.logits is None:
        got = model.distribution.name
        raise ValueError(f"{name} needs an output distribution of tokens (with logits), got {got}")


def check_setting(name: str, value: Any) -> None:
    """Names a setting outside its range; what is None, traced or has no range passes.

    Args:
        name: of a setting of `sample`, or of an option of a family.
        value: one number, or one for each sequence.

    Raises:
        InputError: the value is outside the range.
    """
    if name not in RANGES or value is None or isinstance(value, jax.core.Tracer):
        return
    suits, expected = RANGES[name]
    array = np.atleast_1d(np.asarray(value))
    wrong = array[~suits(array)]
    if wrong.size:
        raise InputError(f"{name} must {expected}, got {wrong[0]}")


def _family_options(model: Model, options: dict[str, Any]) -> dict[str, Any]:
    """The options that the family takes; names one that it does not, unless it changes nothing."""
    known = model.distribution.options
    for name, value in options.items():
        unchanged = name == "temperature" and not isinstance(value, jax.core.Tracer)
        if name not in known and not (unchanged and np.all(np.asarray(value) == 1)):
            listed = ", ".join(known) or "none"
            raise ValueError(
                f"{name} is not an option of the output distribution {model.distribution.name} "
                f"(it has {listed})"
            )
    return {name: value for name, value in options.items() if name in known}
