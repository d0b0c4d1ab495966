"""Where arrays live: the mesh over all devices, the partition rules, and several processes.

Today the mesh has the axis "data" alone and every parameter is replicated: the gradient of a
training step is computed by every device for its own rows, and summed
(`value_and_grad_over_rows`); the rest is one `jit` over global arrays, in which XLA inserts the
collectives. Rules that shard parameters over more axes need another gradient than that.
"""

import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from grnn_jax.errors import InputError

AnyMesh = Mesh | AbstractMesh
"""Devices, or how many there are to be: enough to lower a program for them."""

Rules = Sequence[tuple[str, P]]

# Regular expression on the path of a parameter -> how it is split. The first match counts.
REPLICATED: Rules = ((r".*", P()),)

CPU_DEVICES_HIDDEN_SIZE = 512
CPU_DEVICE_ROWS = 8


def initialize_distributed(coordinator_address: str, num_processes: int, process_id: int) -> None:
    """Joins the processes of a run; call it before anything touches a device.

    Args:
        coordinator_address: host:port of process 0.
        num_processes: number of processes.
        process_id: number of this process, from 0.

    Raises:
        InputError: the three settings do not fit together, or the processes do not find each other.
    """
    if not coordinator_address:
        if num_processes > 1 or process_id > 0:
            raise InputError("num_processes and process_id need coordinator_address, got none")
        return
    if num_processes < 1:
        raise InputError(f"num_processes must be at least 1, got {num_processes}")
    if not 0 <= process_id < num_processes:
        raise InputError(f"process_id must be from 0 to {num_processes - 1}, got {process_id}")
    address = re.fullmatch(r".+:(\d+)", coordinator_address)
    if not address or not 0 < int(address[1]) < 65536:
        raise InputError(
            "coordinator_address must be host:port, as in localhost:1234, "
            f"got {coordinator_address!r}"
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"coordinator_address: process {process_id} of {num_processes} could not join the "
            f"others at {coordinator_address}: {reason}"
        ) from error


def num_cores() -> int:
    """The CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def useful_cpu_devices(
    num_cores: int, hidden_size: int, batch_size: int, eval_batch_size: int, num_sites: int = 1
) -> int:
    """How many virtual CPU devices make a training step faster, from what was measured.

    A loop over time uses one core but for its larger products, so that devices with a part of the
    rows each use more of them, see benchmarks/RESULTS.md.

    Args:
        num_cores: cores that this process may use.
        hidden_size: H; wider than `CPU_DEVICES_HIDDEN_SIZE` the products alone fill the cores.
        batch_size: rows of a batch, at least `CPU_DEVICE_ROWS` for each device.
        eval_batch_size: rows of a batch in an evaluation, which the devices must divide too.
        num_sites: N of a sitewise cell, which runs B·N rows of H/N units.

    Returns:
        The number of devices, 1 where more do not help.
    """
    if hidden_size > CPU_DEVICES_HIDDEN_SIZE * num_sites:
        return 1
    common = math.gcd(batch_size, eval_batch_size)
    most = min(num_cores, batch_size * num_sites // CPU_DEVICE_ROWS)
    return max((n for n in range(1, most + 1) if common % n == 0), default=1)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axis "data" over all devices of all processes.

    Args:
        devices: devices to use; None for all.

    Returns:
        The mesh.
    """
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices), ("data",))


def check_batch_size(batch_size: int, mesh: Mesh, flag: str = "batch_size") -> None:
    """Checks that a batch can be split evenly.

    Args:
        batch_size: rows of the global batch.
        mesh: mesh with the axis "data".
        flag: name of the setting, for the message.

    Raises:
        InputError: the devices do not divide the batch.
    """
    num_devices = mesh.shape["data"]
    if batch_size % num_devices:
        raise InputError(
            f"{flag} must be a multiple of the {num_devices} devices, got {batch_size}"
        )


def partition_specs(tree: PyTree, rules: Rules = REPLICATED) -> PyTree:
    """Applies partition rules to a tree of parameters.

    Args:
        tree: nested dicts of arrays (or of anything).
        rules: pairs of a regular expression, searched in the path "a/b/c", and a PartitionSpec.

    Returns:
        The same structure with a PartitionSpec for each leaf.

    Raises:
        ValueError: no rule matches a path.
    """

    def spec(path: tuple, _: object) -> P:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, partition in rules:
            if re.search(pattern, name):
                return partition
        raise ValueError(f"no partition rule matches the parameter {name!r}")

    return jax.tree_util.tree_map_with_path(spec, tree)


def replicated(mesh: AnyMesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: AnyMesh, axis: int = 0) -> NamedSharding:
    """The sharding of an array one axis of which, the leading one by default, is the batch."""
    return NamedSharding(mesh, P(*[None] * axis, "data"))


def tree_shardings(tree: PyTree, mesh: AnyMesh, rules: Rules = REPLICATED) -> PyTree:
    """Shardings of a tree under partition rules, see `partition_specs`."""
    specs = partition_specs(tree, rules)
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def shard_batch(batch: PyTree, mesh: Mesh, axis: int = 0) -> PyTree:
    """Makes global arrays of the rows that each process read.

    Args:
        batch: arrays [B / num_processes, ...], this process's part.
        mesh: mesh with the axis "data".
        axis: the axis that the rows are along, where it is not the leading one.

    Returns:
        The same structure with global arrays [B, ...], split over "data".
    """
    sharding = batch_sharding(mesh, axis)

    def put(rows: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, np.asarray(rows))

    return jax.tree.map(put, batch)


def put_on_mesh(tree: PyTree, shardings: PyTree) -> PyTree:
    """Lays arrays that every process holds whole out over a mesh.

    An initial state comes this way rather than from one `jit` over the mesh, so that the
    decompositions of orthogonal initialisation are computed once and not on every device.

    Args:
        tree: arrays or typed random keys on this process's devices, equal in all processes.
        shardings: the same structure with a sharding for each leaf.

    Returns:
        The same structure with global arrays.
    """

    def put(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree, shardings)


def value_and_grad_over_rows(
    loss_fn: Callable[..., Any], mesh: AnyMesh | None
) -> Callable[..., Any]:
    """`jax.value_and_grad` of a sum over the rows of a batch, every device with its own rows.

    The devices run the whole loss and its gradient without a word to each other, and add up what
    they found once at the end. On a CPU this is how the loop over time uses several cores: within
    one device its elementwise steps run on one.

    Args:
        loss_fn: (params, shared, rows, first_row) -> (loss, aux): the part of the sum that belongs
            to these rows, numbered from `first_row`, and a tree of arrays with one entry a row.
        mesh: mesh with the axis "data", whose devices divide the rows; None for one device.

    Returns:
        Function (params, shared, rows) -> ((loss, aux), gradient with respect to params). Arrays of
        params and shared are whole on every device; those of rows, and of aux, are split.
    """
    compute = jax.value_and_grad(loss_fn, has_aux=True)
    if mesh is None or mesh.size == 1:
        return lambda params, shared, rows: compute(params, shared, rows, 0)

    def compute_part(params: PyTree, shared: PyTree, rows: PyTree) -> tuple:
        num_rows = jax.tree.leaves(rows)[0].shape[0]
        first_row = jax.lax.axis_index("data") * num_rows
        (loss, aux), grads = compute(params, shared, rows, first_row)
        loss, grads = jax.lax.psum((loss, grads), "data")
        return (loss, aux), grads

    # What a custom gradient returns is not known to be equal on all devices before the sum.
    return jax.shard_map(
        compute_part,
        mesh=mesh,
        in_specs=(P(), P(), P("data")),
        out_specs=((P(), P("data")), P()),
        check_vma=False,
    )


def make_maximum_over_processes(mesh: Mesh) -> Callable[[int], jax.Array]:
    """Makes a function by which all processes learn the largest of their numbers.

    Args:
        mesh: mesh with the axis "data".

    Returns:
        Function of this process's number. Its result, a scalar on the devices, is the same in all
        processes; it is computed in the background, as a training step is.
    """
    largest = jax.jit(jnp.max, out_shardings=replicated(mesh))

    def agree(number: int) -> jax.Array:
        mine = np.full(jax.local_device_count(), number, np.int32)
        return largest(shard_batch(mine, mesh))

    return agree
