"""From a configuration to the model that it describes, by the registries of the package."""

import inspect
from collections.abc import Callable, Iterable, Mapping

import jax.numpy as jnp

from grnn_jax import cells, distributions, recurrence
from grnn_jax import config as config_lib
from grnn_jax.array_types import Array, DType
from grnn_jax.config import FIELDS, Config
from grnn_jax.data import CODECS, FORMATS, Codec, EventType
from grnn_jax.distributions import Distribution, Family
from grnn_jax.errors import InputError
from grnn_jax.model import Model, make_model
from grnn_jax.ops.compute_type import TENSORFLOAT32


def choices() -> dict[str, tuple[str, ...]]:
    """The allowed values of the settings that name something in a registry of the package."""
    return {
        "format": tuple(FORMATS),
        "codec": tuple(CODECS),
        "cell": tuple(cells.CELLS),
        "engine": ("auto", *recurrence.ENGINES),
    }


def _cell_options(cell: str) -> set[str]:
    """The settings that are keyword arguments of a cell."""
    return set(inspect.signature(cells.CELLS[cell]).parameters) & set(FIELDS)


def _distribution_options(family: Family) -> set[str]:
    """The keyword arguments of a family."""
    return set(inspect.signature(family.make).parameters)


def validate(config: Config) -> None:
    """Checks a configuration, `config.validate`, and that the package has what it names.

    Args:
        config: the settings of a run.

    Raises:
        InputError: names the flag, what came and what was expected.
    """
    config_lib.validate(config)
    for name, allowed in choices().items():
        value = getattr(config, name)
        if value not in allowed:
            raise InputError(_unknown(name, allowed, value))
    if config.lowercase and "lowercase" not in CODECS[config.codec].options:
        fitting = " or ".join(name for name, each in CODECS.items() if "lowercase" in each.options)
        raise InputError(f"lowercase needs codec={fitting}, got codec={config.codec}")
    _check_unused(config, "cell", {name: _cell_options(name) for name in cells.CELLS})
    _check_unused(config, "format", {name: set(each.options) for name, each in FORMATS.items()})
    named = _named_families(config)
    families = distributions.DISTRIBUTIONS
    for name in named.values():
        if name not in families:
            raise InputError(_unknown("distribution", families, name))


def _unknown(setting: str, known: Iterable[str], value: str) -> str:
    """What is wrong with a value that no registry has."""
    return (
        f"{setting} must be one of {', '.join(known)}, got {value!r}; if a module of your own "
        "defines it, import that first (import_module=NAME)"
    )


def _check_unused(config: Config, choice: str, options: Mapping[str, set[str]]) -> None:
    """Raises InputError where a setting is given that the chosen cell or format does not read."""
    chosen = getattr(config, choice)
    for name in sorted(set().union(*options.values()) - options[chosen]):
        value = getattr(config, name)
        if value != FIELDS[name].default:
            fitting = ", ".join(key for key, names in options.items() if name in names)
            raise InputError(f"{name}={value} needs {choice}={fitting}, got {choice}={chosen}")


def _named_families(config: Config) -> dict[str, str]:
    """The families that --distribution names: by field, or under "" for an event without fields."""
    text = config.distribution
    if text == "auto":
        return {}
    if "=" not in text:
        return {"": text}
    named = {}
    for part in text.split(","):
        field, equals, name = part.partition("=")
        if not equals or not field.strip() or not name.strip():
            raise InputError(
                f"distribution must be a family or field=family,field=family, got {text!r}"
            )
        named[field.strip()] = name.strip()
    return named


def _dtype(config: Config) -> DType:
    """What cells and families take as `dtype`: a dtype wherever there is one of that name."""
    return config.dtype if config.dtype == TENSORFLOAT32 else jnp.dtype(config.dtype)


def _choose_family(field: str, event_type: EventType, name: str | None) -> str:
    """The family of a field: the one that was named, or the default of its kind."""
    families = distributions.DISTRIBUTIONS
    fitting = [n for n, family in families.items() if event_type.kind in family.kinds]
    if name is not None and name not in fitting:
        what = f"{field!r} of an event" if field else "an event"
        raise InputError(
            f"distribution={name} does not model what {what} is here ({event_type.kind}); "
            f"these do: {', '.join(fitting)}"
        )
    return name or fitting[0]


def _present(fields: Mapping[str, EventType]) -> dict[str, Callable[[dict], Array]]:
    """Which fields an event may lack: nothing happened where a wait was censored."""
    waits = next((field for field in fields if fields[field].kind == "waits"), None)
    if waits is None:
        return {}
    names = list(fields)
    later = names[names.index(waits) + 1 :]
    return dict.fromkeys(later, lambda earlier: jnp.logical_not(earlier[waits]["censored"]))


def build_distribution(config: Config, codec: Codec) -> Distribution:
    """The output distribution that a configuration describes.

    Args:
        config: the settings of a run.
        codec: says what an event is.

    Returns:
        The distribution.

    Raises:
        InputError: the family does not model such events, or settings do not fit together.
    """
    types, named = codec.event_type, _named_families(config)
    fields = types if isinstance(types, dict) else {"": types}
    unknown = sorted(set(named) - set(fields))
    if unknown:
        known = ", ".join(fields) if isinstance(types, dict) else "none"
        raise InputError(
            f"distribution={config.distribution}: format={config.format} has the fields "
            f"{known}, got {unknown[0] or config.distribution!r}"
        )
    chosen = {
        field: distributions.DISTRIBUTIONS[_choose_family(field, event_type, named.get(field))]
        for field, event_type in fields.items()
    }
    values = vars(config) | {
        "dtype": _dtype(config),
        "tied": config.tied_embeddings,
        "embedding_size": (
            config.hidden_size if config.embedding_size == -1 else config.embedding_size
        ),
        "with_input": config.skip_input,
    }
    all_options = set().union(*map(_distribution_options, distributions.DISTRIBUTIONS.values()))
    used = set().union(*map(_distribution_options, chosen.values()))
    for option in sorted((all_options & (set(FIELDS) | {"tied"})) - used):
        name = "tied_embeddings" if option == "tied" else option
        if getattr(config, name) != FIELDS[name].default:
            raise InputError(
                f"{name}={getattr(config, name)} is not a setting of distribution="
                f"{config.distribution} with format={config.format}"
            )
    made = {}
    for field, family in chosen.items():
        options = {
            name: values[name]
            for name in _distribution_options(family) & set(values)
            # A setting that was left alone leaves the family its own default.
            if name not in FIELDS
            or name == "embedding_size"
            or name == "dtype"
            or values[name] != FIELDS[name].default
        }
        event_type = fields[field]
        made[field] = family.make(*event_type.arguments, **options, **event_type.options)
    distribution = made[""] if "" in made else distributions.product(made, present=_present(fields))
    if not codec.wraps_end:
        return distribution
    # Where the end is an event of its own no wait is censored, which would end a sequence too.
    return distributions.with_end(distribution._replace(is_end=None))


def _num_sites(config: Config, codec: Codec) -> int:
    """The sites of a sitewise cell: one for each bit of an event."""
    types = codec.event_type
    if isinstance(types, dict) or types.kind != "bits" or codec.wraps_end:
        what = "an event with fields" if isinstance(types, dict) else f"an event of {types.kind}"
        raise InputError(
            f"cell={config.cell} needs events that are bits (format=pianoroll) without "
            f"model_end, got {what}" + (" with an end" if codec.wraps_end else "")
        )
    return types.arguments[0]


def is_sitewise(cell: str) -> bool:
    """Whether the cell of this name is shared over sites; False for a name that there is not."""
    make = cells.CELLS.get(cell)
    return make is not None and "num_sites" in inspect.signature(make).parameters


def build_model(config: Config, codec: Codec) -> Model:
    """The model that a configuration describes.

    Args:
        config: the settings of a run.
        codec: says what an event is.

    Returns:
        The model.

    Raises:
        InputError: settings do not fit together.
    """
    validate(config)
    c = config
    values = vars(c) | {"dtype": _dtype(config)}
    options = {name: values[name] for name in _cell_options(c.cell)}
    if is_sitewise(c.cell):
        options["num_sites"] = _num_sites(config, codec)
    try:
        layers = [cells.CELLS[c.cell](**options) for _ in range(c.num_layers)]
        if c.zoneout and layers[0].sitewise is not None:
            raise InputError(f"zoneout needs a cell that is not sitewise, got cell={c.cell}")
        if c.zoneout:
            layers = [cells.zoneout(layer, c.zoneout) for layer in layers]
        cell = cells.stack(
            layers,
            residual=c.residual,
            layer_norm=c.layer_norm,
            dropout=c.dropout,
            dropout_per=c.dropout_per,
            recurrent_dropout=c.recurrent_dropout,
        )
        distribution = build_distribution(config, codec)
        return make_model(
            cell,
            distribution,
            engine=c.engine,
            chunk_size=c.remat_chunk or None,
            skip_input=c.skip_input,
            conditions=() if codec.conditions is None else codec.conditions.sizes,
            condition_enters=c.condition_enters,
        )
    except ValueError as error:
        raise InputError(f"the model cannot be built: {error}") from error
