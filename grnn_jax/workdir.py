"""The directory of a run: its configuration, its codec, its data, and the model they describe."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from grnn_jax import cells, distributions
from grnn_jax.checkpoint import CheckpointStore
from grnn_jax.config import Config, differences, from_json, to_json, validate
from grnn_jax.data import Splits, codec_from_dict, load_splits
from grnn_jax.data.codec import Codec
from grnn_jax.errors import InputError
from grnn_jax.model import Model, make_model
from grnn_jax.sharding import make_mesh, replicated

CONFIG_FILE = "config.json"
CODEC_FILE = "codec.json"


class Opened(NamedTuple):
    """A workdir whose settings and data are known to be good.

    Attributes:
        splits: the data.
        codec: how it became events.
        commit: writes config.json and codec.json, once nothing else can be wrong.
    """

    splits: Splits
    codec: Codec
    commit: Callable[[], None]


class Run(NamedTuple):
    """A trained model, rebuilt from its workdir alone.

    Attributes:
        model: its pure functions.
        params: the parameters to evaluate and sample from (averaged ones where the run has them).
        codec: text to events and back.
        config: its settings.
        step: training steps behind the parameters.
    """

    model: Model
    params: PyTree
    codec: Codec
    config: Config
    step: int


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
    c, dtype = config, jnp.dtype(config.dtype)
    options: dict[str, Any] = {"forget_bias": c.forget_bias} if c.cell == "lstm" else {}
    if c.cell == "elman":
        options["activation"] = c.activation
    try:
        layers = [
            cells.CELLS[c.cell](
                c.hidden_size,
                num_heads=c.num_heads,
                dtype=dtype,
                learned_initial_state=c.learned_initial_state,
                **options,
            )
            for _ in range(c.num_layers)
        ]
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


def data_settings(config: Config) -> dict[str, Any]:
    """The settings that `load_splits` takes."""
    names = (
        "data", "format", "codec", "valid_data", "test_data", "valid_fraction", "test_fraction",
        "max_vocabulary", "lowercase",
    )  # fmt: skip
    return {name: getattr(config, name) for name in names}


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--workdir: {path} cannot be read: {error}") from error


def _read_codec(workdir: Path) -> Codec:
    path = workdir / CODEC_FILE
    try:
        return codec_from_dict(json.loads(_read(path)))
    except ValueError as error:
        raise InputError(f"--workdir: {path} is damaged: {error}") from error


def open_workdir(config: Config, workdir: Path) -> Opened:
    """Loads the data of a run, new or begun earlier.

    Args:
        config: the settings that were asked for.
        workdir: directory of the run; made where it does not exist.

    Returns:
        The data, and the function that makes the workdir this run's.

    Raises:
        InputError: the workdir is another run's, or the data cannot be used.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--workdir: cannot make {workdir}: {error.strerror}") from error
    if not os.access(workdir, os.W_OK):
        raise InputError(f"--workdir: {workdir} cannot be written to")
    codec = None
    if (workdir / CONFIG_FILE).exists():
        path = workdir / CONFIG_FILE
        found = differences(from_json(_read(path), str(path)), config)
        if found:
            flags = "; ".join(f"--{n} was {old!r}, is {new!r}" for n, (old, new) in found.items())
            cosine = " (--schedule=cosine depends on --num_steps)" if "num_steps" in found else ""
            raise InputError(
                f"--workdir: the run in {workdir} has other settings ({flags}){cosine}; give the "
                "settings it was started with, or another --workdir"
            )
        codec = _read_codec(workdir)
    splits = load_splits(**data_settings(config), cache_dir=workdir / "tokens", codec_object=codec)

    def commit() -> None:
        if jax.process_index() == 0:
            _write(workdir / CODEC_FILE, json.dumps(splits.codec.to_dict()))
            _write(workdir / CONFIG_FILE, to_json(config))

    return Opened(splits, splits.codec, commit)


def read_config(workdir: str | os.PathLike[str]) -> Config:
    """The settings of the run in a workdir.

    Args:
        workdir: directory of the run.

    Returns:
        Its configuration.

    Raises:
        InputError: there is no run.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.exists():
        raise InputError(f"--workdir: there is no run in {workdir} (no {CONFIG_FILE}); train first")
    config = from_json(_read(path), str(path))
    validate(config)
    return config


def load_run(workdir: str | os.PathLike[str], checkpoint: str = "best") -> Run:
    """Rebuilds a trained model from its workdir alone.

    Args:
        workdir: directory of the run.
        checkpoint: "best" (the latest where there is no best one) or "latest".

    Returns:
        The model with its parameters, on all devices.

    Raises:
        InputError: there is no run, or no readable checkpoint.
    """
    workdir = Path(workdir)
    config, codec = read_config(workdir), _read_codec(workdir)
    model = build_model(config, codec)
    sharding = replicated(make_mesh())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(model.init, jax.random.key(config.seed)),
    )
    template = {"params": shapes, "averaged_params": shapes if config.ema_decay else None}
    store = CheckpointStore(workdir, read_only=True)
    found = store.restore_params(template, checkpoint)
    store.close()
    if found is None:
        raise InputError(f"--workdir: the run in {workdir} has no checkpoint yet")
    step, params = found
    chosen = params["averaged_params"] if config.ema_decay else params["params"]
    return Run(model, chosen, codec, config, step)
