"""The devices and processes of a command, as its flags say."""

import os
from pathlib import Path
from typing import Any

import jax

from grnn_jax.cli.flags import FLAGS
from grnn_jax.data.pianoroll import NUM_KEYS
from grnn_jax.errors import InputError
from grnn_jax.sharding import (
    CPU_DEVICE_ROWS,
    initialize_distributed,
    num_cores,
    useful_cpu_devices,
)
from grnn_jax.workdir import is_sitewise


def start_devices() -> None:
    """Sets up the devices and the processes, before the backend starts."""
    num_devices = FLAGS.num_cpu_devices or _default_cpu_devices()
    if num_devices:
        try:
            jax.config.update("jax_num_cpu_devices", num_devices)
        except RuntimeError as error:  # JAX has begun to compute.
            raise InputError(
                "--import_module: a module computed with JAX while it was imported, before the "
                "devices were set up; it should only define functions"
            ) from error
    if "coordinator_address" in FLAGS:
        initialize_distributed(FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id)
    if not _jax_setting("jax_compilation_cache_dir"):
        cache = Path.home() / ".cache" / "grnn_jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def _jax_setting(name: str) -> Any:
    return getattr(jax.config, name)


def _default_cpu_devices() -> int:
    """The devices for training and sampling where nobody said how many; 0 leaves it to JAX."""
    num_devices: int = _jax_setting("jax_num_cpu_devices")
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen or num_devices > 0:
        return 0
    if "batch_size" in FLAGS and FLAGS.num_processes == 1:
        sizes = FLAGS.hidden_size, FLAGS.batch_size, FLAGS.eval_batch_size
        return useful_cpu_devices(num_cores(), *sizes, NUM_KEYS if is_sitewise(FLAGS.cell) else 1)
    if "num_samples" in FLAGS:
        num_samples: int = FLAGS.num_samples
        return max(1, min(num_cores(), num_samples // CPU_DEVICE_ROWS))
    return 0
