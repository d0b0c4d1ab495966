"""From a configuration to the model that it describes, by the registries of the package."""

import inspect

import jax.numpy as jnp

from grnn_jax import cells, distributions, recurrence
from grnn_jax import config as config_lib
from grnn_jax.config import FIELDS, Config
from grnn_jax.data.codec import Codec
from grnn_jax.errors import InputError
from grnn_jax.model import Model, make_model


def choices() -> dict[str, tuple[str, ...]]:
    """The allowed values of the settings that name something in a registry of the package."""
    return {
        "cell": tuple(cells.CELLS),
        "distribution": tuple(distributions.DISTRIBUTIONS),
        "engine": ("auto", *recurrence.ENGINES),
    }


def _cell_options(cell: str) -> set[str]:
    """The settings that are keyword arguments of a cell."""
    return set(inspect.signature(cells.CELLS[cell]).parameters) & set(FIELDS)


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
            raise InputError(f"--{name} must be one of {', '.join(allowed)}, got {value!r}")
    for name in sorted(set().union(*map(_cell_options, cells.CELLS)) - _cell_options(config.cell)):
        value = getattr(config, name)
        if value != FIELDS[name].default:
            fitting = ", ".join(cell for cell in cells.CELLS if name in _cell_options(cell))
            raise InputError(f"--{name}={value} needs --cell={fitting}, got --cell={config.cell}")


def build_model(config: Config, codec: Codec) -> Model:
    """The model that a configuration describes.

    Args:
        config: the settings of a run.
        codec: gives the number of classes and the end event.

    Returns:
        The model.

    Raises:
        InputError: settings do not fit together.
    """
    validate(config)
    c, dtype = config, jnp.dtype(config.dtype)
    values = vars(c) | {"dtype": dtype}
    options = {name: values[name] for name in _cell_options(c.cell)}
    try:
        layers = [cells.CELLS[c.cell](**options) for _ in range(c.num_layers)]
        cell = cells.stack(
            layers,
            residual=c.residual,
            layer_norm=c.layer_norm,
            dropout=c.dropout,
            dropout_per=c.dropout_per,
            recurrent_dropout=c.recurrent_dropout,
        )
        distribution = distributions.DISTRIBUTIONS[c.distribution](
            codec.size,
            embedding_size=c.hidden_size if c.embedding_size == -1 else c.embedding_size,
            tied=c.tied_embeddings,
            end=codec.end,
            dtype=dtype,
        )
        return make_model(cell, distribution, engine=c.engine, chunk_size=c.remat_chunk or None)
    except ValueError as error:
        raise InputError(f"the model cannot be built: {error}") from error
