"""The directory of a run: its configuration, its codec, its data, and the model they describe."""

from grnn_jax.workdir.build import build_model, choices, is_sitewise, validate
from grnn_jax.workdir.lock import workdir_lock
from grnn_jax.workdir.run import (
    CONFIG_FILE,
    LoadedWorkdir,
    Run,
    data_settings,
    file_settings,
    load_run,
    load_run_data,
    open_workdir,
    read_config,
    read_otherwise,
)

__all__ = [
    "CONFIG_FILE",
    "LoadedWorkdir",
    "Run",
    "build_model",
    "choices",
    "data_settings",
    "file_settings",
    "workdir_lock",
    "is_sitewise",
    "load_run",
    "load_run_data",
    "open_workdir",
    "read_config",
    "read_otherwise",
    "validate",
]
