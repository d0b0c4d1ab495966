"""Events of several named fields, each with a distribution of its own."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Params, PRNGKey, PyTree
from grnn_jax.distributions.acceptance import accept, fill, filler
from grnn_jax.distributions.base import Distribution
from grnn_jax.distributions.composition import check_options, sample_part
from grnn_jax.ops.factories import cached_factory


@cached_factory
def product(
    fields: Mapping[str, Distribution],
    *,
    conditional: bool = True,
    present: Mapping[str, Callable[[dict[str, PyTree]], Bool[Array, "..."]]] | None = None,
) -> Distribution:
    r"""Product of distributions, each given the fields before it.

        log p(x | h) = Σ_k log p_k(x_k | [h, encode_1(x_1), …, encode_{k-1}(x_{k-1})])

    The order is the one of `fields`. The log-probability is exact and takes one pass. Products
    can be nested. An event may lack a field, as an event whose wait was censored lacks a mark:

        product(
            {"wait": weibull(), "mark": categorical(5)},
            present={"mark": lambda earlier: ~earlier["wait"]["censored"]},
        )

    A field that is not present counts exactly 0 nats; what stands in its place is ignored, and
    enters the network as zeros.

    Args:
        fields: a distribution for each name.
        conditional: whether a field sees the encodings of the fields before it; if False, the
            fields are independent given h (apart from `present`).
        present: for each field that may be absent, a function from the event's earlier fields
            (a dict of events [...]) to bool [...], True where the event has the field. It sees
            no later field, so that p is normalised.

    Returns:
        The distribution; an event is a dict of the fields' events. A sequence ends where any
        present field says so. `sample` has the options of all fields, each passed on to the
        fields that have it, and draws field k of a row with fold_in(the row's key, k). `mode`
        takes the mode of one field after another.

    Raises:
        ValueError: for no fields, or a name in `present` that is not a field after the first.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from grnn_jax import distributions
        >>> fields = {"step": distributions.categorical(2), "leap": distributions.categorical(3)}
        >>> family = distributions.product(fields)
        >>> params = family.init(jax.random.key(0), 4)
        >>> event = {"step": jnp.arange(6) // 3, "leap": jnp.arange(6) % 3}
        >>> nats = jax.jit(family.log_prob)(params, jnp.ones((6, 4)), event)
        >>> float(jnp.exp(nats).sum().round(3)), family.name
        (1.0, 'product(step=categorical, leap=categorical)')
    """
    fields, present = dict(fields), dict(present or {})
    names = list(fields)
    if not names:
        raise ValueError("fields must have at least one distribution, got none")
    for name in present:
        if name not in names[1:]:
            raise ValueError(f"present must name fields after the first {names[1:]}, got {name!r}")
    family = "product(" + ", ".join(f"{name}={field.name}" for name, field in fields.items()) + ")"
    known = tuple(dict.fromkeys(option for field in fields.values() for option in field.options))

    def init(key: PRNGKey, hidden_size: int) -> Params:
        params = {}
        for index, (name, field) in enumerate(fields.items()):
            params[name] = field.init(jax.random.fold_in(key, index), hidden_size)
            hidden_size += field.encoding_size if conditional else 0
        return params

    def without_absent(name: str, value: PyTree, earlier: dict[str, PyTree]) -> PyTree:
        """The field's event, zeros (or its family's filler) where it is absent."""
        return fill(fields[name], value, present[name](earlier)) if name in present else value

    def accept_fields(event: PyTree) -> tuple[PyTree, Bool[AnyArray, "..."]]:
        accepted: dict[str, PyTree] = {}
        valid: Any = True
        for name, field in fields.items():
            value, own = accept(field, event[name])
            if name in present:
                own = own | ~present[name](dict(accepted))
            accepted[name] = without_absent(name, value, dict(accepted))
            valid = valid & own
        return accepted, valid

    def cleaned(event: PyTree) -> dict[str, PyTree]:
        clean: dict[str, PyTree] = {}
        for name in names:
            clean[name] = without_absent(name, event[name], dict(clean))
        return clean

    def earlier_fields(event: dict[str, PyTree], name: str) -> dict[str, PyTree]:
        return {other: event[other] for other in names[: names.index(name)]}

    def extended(params: Params, name: str, hidden: Array, value: PyTree) -> Array:
        """What the next field is conditional on."""
        if not conditional:
            return hidden
        return jnp.concatenate([hidden, fields[name].encode(params[name], value)], -1)

    def log_prob(
        params: Params, hidden: Float[Array, "... H"], event: PyTree
    ) -> Float[Array, "..."]:
        event = cleaned(event)
        nats = []
        for name, field in fields.items():
            own = field.log_prob(params[name], hidden, event[name])
            if name in present:
                own = jnp.where(present[name](earlier_fields(event, name)), own, 0)
            nats.append(own)
            hidden = extended(params, name, hidden, event[name])
        return sum(nats[1:], nats[0])

    def draw(
        params: Params, hidden: Array, choose: Callable[[str, Array], PyTree]
    ) -> dict[str, PyTree]:
        """The event whose fields `choose` picks one after another."""
        event: dict[str, PyTree] = {}
        for name in names:
            event[name] = without_absent(name, choose(name, hidden), dict(event))
            hidden = extended(params, name, hidden, event[name])
        return event

    def sample(key: Array, params: Params, hidden: Float[Array, "B H"], **options: Any) -> PyTree:
        check_options(family, options, known)

        def choose(name: str, hidden: Array) -> PyTree:
            index = names.index(name)
            keys = jax.vmap(lambda key: jax.random.fold_in(key, index))(key)
            return sample_part(fields[name], keys, params[name], hidden, options)

        return draw(params, hidden, choose)

    def mode(params: Params, hidden: Float[Array, "... H"]) -> PyTree:
        return draw(params, hidden, lambda name, hidden: fields[name].mode(params[name], hidden))

    def encode(params: Params, event: PyTree) -> Float[Array, "... X"]:
        event = cleaned(event)
        encodings = [field.encode(params[name], event[name]) for name, field in fields.items()]
        return jnp.concatenate(encodings, -1)

    def is_end(event: PyTree) -> Bool[Array, "..."]:
        event = cleaned(event)
        ends = []
        for name, field in fields.items():
            if field.is_end is not None:
                end = field.is_end(event[name])
                if name in present:
                    end = end & present[name](earlier_fields(event, name))
                ends.append(end)
        return jnp.stack(ends).any(0)

    return Distribution(
        init=init,
        log_prob=log_prob,
        sample=sample,
        mode=mode,
        encode=encode,
        encoding_size=sum(field.encoding_size for field in fields.values()),
        event={name: field.event for name, field in fields.items()},
        is_end=is_end if any(field.is_end is not None for field in fields.values()) else None,
        is_density=any(field.is_density for field in fields.values()),
        name=family,
        options=known,
        accept=accept_fields,
        filler=None
        if all(field.filler is None for field in fields.values())
        else {name: filler(field) for name, field in fields.items()},
    )
