"""What benchmarks/ahead_of_time.py compiles for: a Hopper GPU or a TPU v5e, neither of them there.

JAX itself stays on the CPU; the compilers of the other platforms are packages of their own.
"""

import importlib.util
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from hlo_counts import aliased_outputs, count
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from thunks import host_launches

import grnn_jax

H200 = """
gpu_device_info {
  driver_version: "12.9.0" runtime_version: "12.9.0" compile_time_toolkit_version: "12.9.0"
  cuda_compute_capability { major: 9 } core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 device_memory_size: 149000000000
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H200"
"""
"""What XLA asks a card about itself; without one it is read from here."""

TPU_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # No chip is taken, so that several may compile at once.
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
"""What libtpu would ask the machine that its chips are in."""

PLATFORMS = {
    "cuda": "an H200 (XLA's compiler and ptxas)",
    "tpu": "a v5e:2x2 (libtpu)",
    "cpu": "the CPU of this machine",
}
"""Name of a platform, as `lowering_platforms` takes it -> what is compiled for."""


class MissingCompilerError(Exception):
    """The packages that compile for a platform are not installed; the message says which."""


class Target(NamedTuple):
    """What is compiled for.

    Attributes:
        platform: a name in `PLATFORMS`.
        devices: its devices, of which none need exist.
    """

    platform: str
    devices: tuple[Any, ...]

    def mesh(self, num_devices: int) -> Mesh:
        """A mesh with the axis "data" over the first devices."""
        return Mesh(np.asarray(self.devices[:num_devices]), ("data",))


def load_target(platform: str) -> Target:
    """The devices of a platform.

    Args:
        platform: a name in `PLATFORMS`.

    Returns:
        The target, of four devices where the platform is not this machine's.

    Raises:
        MissingCompilerError: its compiler is not installed.
    """
    if platform == "cpu":
        return Target(platform, tuple(jax.devices("cpu")))
    if platform == "cuda":
        _check_cuda()
        make = topologies.get_topology_desc
        devices = make("", "cuda", topology="1x1x4", target_config=H200).devices
    else:
        if importlib.util.find_spec("libtpu") is None:
            raise MissingCompilerError(_missing(platform, f"'jax[tpu]=={jax.__version__}'"))
        for name, value in TPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        devices = topologies.get_topology_desc("v5e:2x2", "tpu").devices
    return Target(platform, tuple(devices))


def _check_cuda() -> None:
    plugins = [f"jax_cuda{version}_plugin" for version in (13, 12)]
    found = any(importlib.util.find_spec(name) for name in plugins)
    if not found or not (shutil.which("ptxas") or _ptxas_of_packages()):
        version = jax.__version__
        names = f"jax-cuda13-plugin=={version} jax-cuda13-pjrt=={version} nvidia-cuda-nvcc"
        raise MissingCompilerError(_missing("cuda", names))


def _ptxas_of_packages() -> bool:
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    return any(any(pathlib.Path(place).glob("*/bin/ptxas")) for place in places or ())


def _missing(platform: str, packages: str) -> str:
    return (
        f"--platform={platform} compiles for {PLATFORMS[platform]}, which is not installed; in a "
        f"virtual environment of its own: pip install {packages}"
    )


class Program(NamedTuple):
    """A function to compile, with all that its `jax.jit` is told.

    Attributes:
        function: the function.
        arguments: shapes of its arguments.
        shardings: how the arguments lie on the devices; None for one device.
        options: keyword arguments of `jax.jit`.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    shardings: Any = None
    options: Mapping[str, Any] = {}


def measure(target: Target, program: Program) -> dict[str, Any]:
    """Compiles a program and counts what it runs.

    Args:
        target: what is compiled for.
        program: what is compiled.

    Returns:
        The counts of `Counts.record`, with `totals` of kernels, cycles and bytes if loops whose
        end depends on data run once, bytes of temporaries and of donated arguments, seconds that
        it took and, on a GPU, what the host launches.
    """
    shardings = program.shardings
    if shardings is None:
        one = SingleDeviceSharding(target.devices[0])
        shardings = jax.tree.map(lambda _: one, program.arguments)
    arguments = jax.tree.map(_placed, program.arguments, shardings)
    start = time.perf_counter()
    jitted = jax.jit(program.function, **program.options)
    lowered = jitted.trace(*arguments).lower(lowering_platforms=(target.platform,))
    with tempfile.TemporaryDirectory() as folder:
        options = grnn_jax.compiler_options(target.platform)  # As the commands compile.
        if target.platform == "cuda":
            # The order in which a GPU's host launches kernels stands only in what XLA dumps.
            options["xla_dump_to"] = folder
        compiled = lowered.compile(compiler_options=options)
        launches = host_launches(folder)
    text, memory = compiled.as_text(), compiled.memory_analysis()
    counts = count(text)
    return {
        **counts.record(),
        "totals": {
            "kernels": counts.total("kernels"),
            "cycles": counts.total("cycles"),
            "bytes": counts.total("num_bytes"),
        },
        "host_launches": launches,
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "aliased_bytes": memory.alias_size_in_bytes,
        "aliased_outputs": aliased_outputs(text),
        "seconds": round(time.perf_counter() - start, 1),
    }


def _placed(shape: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """Shardings of arrays whose leading axis is split over "data"."""
    return jax.tree.map(lambda _: NamedSharding(mesh, P("data")), tree)


def on_all(tree: Any, mesh: Mesh) -> Any:
    """Shardings of arrays that every device holds whole."""
    return jax.tree.map(lambda _: NamedSharding(mesh, P()), tree)
