"""The directory of a run: its configuration, its codec, its data and its parameters."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from grnn_jax.checked_json import parse, with_digest, without_digest
from grnn_jax.checkpoint import CheckpointStore
from grnn_jax.config import FIELDS, Config, differences, from_json, to_json
from grnn_jax.data import FORMATS, Codec, Splits, TextCodec, codec_from_dict, load_splits
from grnn_jax.data.conditions import CONDITIONS
from grnn_jax.data.file_kinds import COLUMN_FILES, COLUMN_KINDS, kind_of
from grnn_jax.data.store import remove_others
from grnn_jax.errors import InputError
from grnn_jax.model import Model
from grnn_jax.sharding import make_mesh, replicated
from grnn_jax.workdir.build import build_model, validate
from grnn_jax.workdir.flag_file import to_flags
from grnn_jax.workdir.lock import make_workdir

CONFIG_FILE = "config.json"
CODEC_FILE = "codec.json"
FLAGS_FILE = "flags.txt"
DATA_FILE = "data.json"
TOKENS_FOLDER = "tokens"

ONLY_IN_TRAINING = {
    "dropout", "dropout_per", "recurrent_dropout", "zoneout", "forget_bias", "engine", "dtype",
    "remat_chunk",
}  # fmt: skip
"""Settings of a model that leave the meaning of its parameters as it is."""


class LoadedWorkdir(NamedTuple):
    """A workdir whose settings and data are known to be good.

    Attributes:
        splits: the data.
        codec: how it became events.
        commit: writes config.json, codec.json, data.json and flags.txt, once nothing else can be
            wrong.
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
        dtype: what the model computes its products in, which need not be what it was trained in,
            `config.dtype`.
    """

    model: Model
    params: PyTree
    codec: Codec
    config: Config
    step: int
    dtype: str = "float32"


def data_settings(config: Config) -> dict[str, Any]:
    """The settings that `load_splits` takes."""
    names = (
        "data", "format", "codec", "valid_data", "test_data", "valid_fraction",
        "test_fraction", "max_vocabulary", "lowercase", "model_end",
    )  # fmt: skip
    options = {name: getattr(config, name) for name in FORMATS[config.format].options}
    return {name: getattr(config, name) for name in names} | {"options": options}


def file_settings(config: Config) -> dict[str, Any]:
    """The settings of a run that `load_file` takes."""
    names = "column", "as_is", "skip_bad", "max_file_gib"
    return {name: getattr(config, name) for name in names}


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _read(path: Path, argument: str = "workdir") -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{argument}: {path} cannot be read: {error}") from error


def _read_codec(workdir: Path, argument: str = "workdir") -> Codec:
    path = workdir / CODEC_FILE
    text = _read(path, argument)
    try:
        codec = codec_from_dict(without_digest(parse(text)))
        codec.event_type  # noqa: B018 - fail where a value has a wrong type.
        if isinstance(codec, TextCodec):
            codec.encode("", "")
        return codec
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(f"{argument}: {path} is damaged: {error}") from error


def _read_data(workdir: Path) -> dict[str, Any] | None:
    """What data.json says; None where there is none, as in runs of earlier versions."""
    path = workdir / DATA_FILE
    if not path.exists():
        return None
    text = _read(path)
    try:
        values = without_digest(parse(text))
        return {"folder": str(values["folder"]), "contents": dict(values["contents"])}
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(f"workdir: {path} is damaged: {error}") from error


def _load_data(config: Config, workdir: Path, codec: Codec | None, reuse: bool) -> Splits:
    """The data of a run, if they are still what it began with.

    Args:
        config: the settings of the run.
        workdir: its directory.
        codec: its codec, or None for a new run.
        reuse: whether to take the encoded data of the run without looking at the files they came
            from.
    """
    cache = workdir / TOKENS_FOLDER
    saved = _read_data(workdir) if codec is not None else None
    folder = cache / saved["folder"] if saved and reuse else None
    try:
        splits = load_splits(
            **data_settings(config), cache_dir=cache, codec_object=codec, folder=folder
        )
    except InputError as error:
        if folder is None:
            raise
        raise InputError(f"{error} (the encoded data in {folder} are damaged or gone)") from error
    if saved and saved["contents"] != splits.contents:
        raise InputError(
            f"data: the data have changed since the run in {workdir} began ("
            + _changes(saved["contents"], splits.contents)
            + "); restore the files, or give another workdir"
        )
    return splits


def _changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    changes = []
    for name in new:
        if old.get(name) != new[name]:
            counts = [contents.get(name, {}).get("num_events", 0) for contents in (old, new)]
            other = ", others" if counts[0] == counts[1] else ""
            changes.append(f"{name} had {counts[0]:,} events, has {counts[1]:,}{other}")
    return "; ".join(changes)


def load_run_data(config: Config, workdir: Path, codec: Codec) -> Splits:
    """The data of a run from its workdir alone; from the files where they are gone from it.

    Args:
        config: the settings of the run.
        workdir: its directory.
        codec: its codec.

    Returns:
        The data.

    Raises:
        InputError: they are gone, or have changed.
    """
    return _load_data(config, workdir, codec, reuse=True)


def _codec_to_start_with(config: Config) -> Codec:
    """The codec of the run that a new one starts from, if its parameters mean the same there."""
    saved = read_config(config.start_from, "start_from")
    names = {name for name, field in FIELDS.items() if field.metadata["section"] == "model"}
    names = (names - ONLY_IN_TRAINING) | {"format", "codec", "model_end", *CONDITIONS}
    codec = _read_codec(Path(config.start_from), "start_from")
    names |= {field.name for field in dataclasses.fields(codec)}
    changed = {n: pair for n, pair in differences(saved, config).items() if n in names}
    if changed:
        flags = "; ".join(
            f"{n} is {there!r} there, {here!r} here" for n, (there, here) in changed.items()
        )
        raise InputError(
            f"start_from: the parameters of the run in {config.start_from} do not fit ({flags}); "
            "give the settings of that run"
        )
    return codec


def open_workdir(config: Config, workdir: Path) -> LoadedWorkdir:
    """Loads the data of a run, new or begun earlier.

    Args:
        config: the settings that were asked for.
        workdir: directory of the run; made where it does not exist.

    Returns:
        The data, and the function that makes the workdir this run's.

    Raises:
        InputError: the workdir is another run's, or the data cannot be used.
    """
    make_workdir(workdir)
    codec = None
    if (workdir / CONFIG_FILE).exists():
        path = workdir / CONFIG_FILE
        saved = from_json(_read(path), str(path))
        config = dataclasses.replace(config, as_is=saved.as_is)  # The files are read as they were.
        changed = differences(saved, config)
        if changed:
            flags = "; ".join(f"{n} was {old!r}, is {new!r}" for n, (old, new) in changed.items())
            cosine = (
                " (schedule=cosine depends on num_steps; extend_to=N gives more)"
                if "num_steps" in changed
                else ""
            )
            raise InputError(
                f"workdir: the run in {workdir} has other settings ({flags}){cosine}; give the "
                "settings it was started with, or another workdir"
            )
        codec = _read_codec(workdir)
    elif config.extend_to:
        raise InputError(
            f"extend_to={config.extend_to} needs a run to continue, got workdir={workdir} without "
            "one; a new run takes num_steps"
        )
    elif config.start_from:
        codec = _codec_to_start_with(config)
    splits = _load_data(config, workdir, codec, reuse=False)

    def commit() -> None:
        if jax.process_index() == 0:
            assert splits.folder is not None
            saved = {"folder": splits.folder.name, "contents": splits.contents}
            _write(workdir / CODEC_FILE, json.dumps(with_digest(splits.codec.to_dict())))
            _write(workdir / DATA_FILE, json.dumps(with_digest(saved), indent=2) + "\n")
            _write(workdir / FLAGS_FILE, to_flags(config))
            _write(workdir / CONFIG_FILE, to_json(config))
            remove_others(splits.folder, unfinished=jax.process_count() == 1)

    return LoadedWorkdir(splits, splits.codec, commit)


def read_config(workdir: str | os.PathLike[str], argument: str = "workdir") -> Config:
    """The settings of the run in a workdir.

    Args:
        workdir: directory of the run.
        argument: the flag that named it, for messages.

    Returns:
        Its configuration.

    Raises:
        InputError: there is no run.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.exists():
        raise InputError(
            f"{argument}: there is no run in {workdir} (no {CONFIG_FILE}); train first"
        )
    config = from_json(_read(path, argument), str(path))
    validate(config)
    return config


def read_otherwise(
    run: Run,
    data: str,
    *,
    column: str = "",
    as_is: bool = False,
    skip_bad: bool = False,
    max_file_gib: float = 0.0,
    sequence_column: str = "",
) -> Run:
    """A run that reads a file in another way than its own data.

    Args:
        run: a trained model.
        data: the file.
        column: its column with the sequences; empty: as the run.
        as_is: whether it is read as the format says, whatever it looks like.
        skip_bad: whether what cannot be used of it is left out, with a warning.
        max_file_gib: the GiB that it may expand to, if it is compressed; 0: as the run.
        sequence_column: its column that tells sequences apart; empty: as the run.

    Returns:
        The run, its settings changed, and its codec where they decide what a sequence is.

    Raises:
        InputError: these have no effect.
    """
    config = run.config
    reading: dict[str, Any] = {
        "column": column,
        "as_is": as_is,
        "skip_bad": skip_bad,
        "max_file_gib": max_file_gib,
        "sequence_column": sequence_column,
    }
    for name, value in reading.items():
        if value and not data:
            raise InputError(f"{name}={value} needs data=FILE, got none")
        if value and name not in FORMATS[config.format].options:
            raise InputError(f"{name}={value} has no effect on a run with format={config.format}")
    if column and kind_of(data) not in COLUMN_KINDS:
        raise InputError(f"column={column} needs a {COLUMN_FILES}, got {data}")
    config = dataclasses.replace(config, **{n: value for n, value in reading.items() if value})
    validate(config)
    codec: Any = run.codec
    if sequence_column:
        codec = dataclasses.replace(codec, sequence_column=sequence_column)
    return run._replace(config=config, codec=codec)


def load_run(
    workdir: str | os.PathLike[str],
    checkpoint: str = "best",
    argument: str = "workdir",
    *,
    dtype: str = "float32",
) -> Run:
    """Rebuilds a trained model from its workdir alone.

    Args:
        workdir: directory of the run.
        checkpoint: "best" (the latest where there is no best one) or "latest".
        argument: the flag that named the directory, for messages.
        dtype: what its products are computed in, whatever it was trained in: "float32", which is
            exact on every platform, "tensorfloat32" or "bfloat16".

    Returns:
        The model with its parameters, on all devices.

    Raises:
        InputError: there is no run, no readable checkpoint, or no such dtype.
    """
    workdir = Path(workdir)
    config, codec = read_config(workdir, argument), _read_codec(workdir, argument)
    model = build_model(dataclasses.replace(config, dtype=dtype), codec)
    sharding = replicated(make_mesh())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(model.init, jax.random.key(config.seed)),
    )
    template = {"params": shapes, "averaged_params": shapes if config.ema_decay else None}
    store = CheckpointStore(workdir, read_only=True)
    restored = store.restore_params(template, checkpoint)
    store.close()
    if restored is None:
        raise InputError(f"{argument}: the run in {workdir} has no checkpoint yet")
    step, params = restored
    chosen = params["averaged_params"] if config.ema_decay else params["params"]
    return Run(model, chosen, codec, config, step, dtype)
