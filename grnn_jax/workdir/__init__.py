"""The directory of a run: its configuration, its codec, its data, and the model they describe."""

from grnn_jax.workdir.build import build_model, choices, is_tied, validate
from grnn_jax.workdir.lock import held
from grnn_jax.workdir.run import (
    Opened,
    Run,
    data_settings,
    load_run,
    load_run_data,
    open_workdir,
    read_config,
)

__all__ = [
    "Opened",
    "Run",
    "build_model",
    "choices",
    "data_settings",
    "held",
    "is_tied",
    "load_run",
    "load_run_data",
    "open_workdir",
    "read_config",
    "validate",
]
