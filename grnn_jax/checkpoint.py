"""Checkpoints of a run, in two directories under its workdir. The only file that knows Orbax.

`checkpoints/latest` holds the last few states, whole: a run resumes from the newest readable one.
`checkpoints/best` holds the parameters with the best validation score. A checkpoint is written
beside its final name and renamed when it is complete, so a killed process leaves no half of one.
Several processes write together and need one shared file system.
"""

import errno
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from grnn_jax.errors import InputError


class SaveError(RuntimeError):
    """A checkpoint could not be written; the checkpoints before it are still there."""


class Restored(NamedTuple):
    """What a checkpoint of `checkpoints/latest` holds.

    Attributes:
        step: training step after which it was written.
        params: dict of parameters, see `CheckpointStore.save_latest`.
        state: the rest of the training state.
        data: position of this process's data iterator (JSON values).
        progress: counters of the runner (JSON values).
    """

    step: int
    params: PyTree
    state: PyTree
    data: Any
    progress: dict[str, Any]


def _with_typed_keys(tree: PyTree, template: PyTree) -> PyTree:
    """What was read, with typed keys where checkpoints of version 1 hold the keys' data."""

    def leaf(value: jax.Array, shape: jax.ShapeDtypeStruct) -> jax.Array:
        is_data = value.dtype != shape.dtype and jnp.issubdtype(shape.dtype, jax.dtypes.prng_key)
        return jax.random.wrap_key_data(value) if is_data else value

    return jax.tree.map(leaf, tree, template)


def _gather(value: Any) -> list[Any]:
    """JSON values of all processes, in their order, in every process."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(text.size))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: text.size] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:size])) for row, size in zip(rows, sizes, strict=True)]


class CheckpointStore:
    """The checkpoints of one workdir.

    Args:
        workdir: directory of the run.
        keep: latest checkpoints kept.
        read_only: True to look at a run without touching it.
    """

    def __init__(self, workdir: str | Path, keep: int = 2, read_only: bool = False):
        self.root = Path(workdir).resolve() / "checkpoints"
        self._latest = self._manager("latest", keep, read_only)
        self._best = self._manager("best", 1, read_only)

    def _manager(self, name: str, keep: int, read_only: bool) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.LatestN(keep),
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            save_root_metadata=False,
        )
        return ocp.CheckpointManager(self.root / name, options=options)

    def steps(self, name: str = "latest") -> list[int]:
        """Steps of the complete checkpoints of "latest" or "best", in rising order."""
        manager = self._latest if name == "latest" else self._best
        return sorted(manager.all_steps())

    def _save(self, manager: ocp.CheckpointManager, step: int, **items: Any) -> None:
        try:
            # What an earlier process wrote at or after this step was unreadable or is overtaken.
            for old in sorted(manager.all_steps()):
                if old >= step:
                    manager.delete(old)
            manager.save(step, args=ocp.args.Composite(**items), force=True)
        except Exception as error:
            raise self._save_error(error) from error

    def _save_error(self, error: Exception) -> SaveError:
        kept = self.steps()
        where = f"the checkpoint of step {kept[-1]} is kept" if kept else "there is none yet"
        text = " ".join(str(error).split()) or type(error).__name__
        # What the system said stands at the end of the library's sentence.
        known = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
        reason = next((words for words in known if words in text), text[:300])
        return SaveError(
            f"could not write a checkpoint in {self.root}: {reason}; {where}; "
            "make room on the disk and start the same command again to go on"
        )

    def save_latest(
        self, step: int, params: PyTree, state: PyTree, data: Any, progress: dict[str, Any]
    ) -> None:
        """Writes the state of a run, in the background; `wait` waits for it.

        Args:
            step: number of training steps done.
            params: parameters (and their average).
            state: everything else that the next step needs: arrays and typed keys.
            data: position of this process's data iterator, JSON values.
            progress: counters, JSON values, the same in all processes.

        Raises:
            SaveError: this checkpoint, or the one before, could not be written.
        """
        self._save(
            self._latest,
            step,
            params=ocp.args.StandardSave(params),
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave({"processes": _gather(data)}),
            progress=ocp.args.JsonSave(progress),
        )

    def save_best(self, step: int, params: PyTree, progress: dict[str, Any]) -> None:
        """Writes the best parameters so far, in the background, and drops those before.

        Args:
            step: number of training steps done.
            params: parameters (and their average).
            progress: JSON values.

        Raises:
            SaveError: this checkpoint, or the one before, could not be written.
        """
        self._save(
            self._best,
            step,
            params=ocp.args.StandardSave(params),
            progress=ocp.args.JsonSave(progress),
        )

    def wait(self) -> None:
        """Waits until what was saved is on the disk.

        Raises:
            SaveError: it could not be written.
        """
        try:
            self._latest.wait_until_finished()
            self._best.wait_until_finished()
        except Exception as error:
            raise self._save_error(error) from error

    def restore_latest(self, params: PyTree, state: PyTree) -> Restored | None:
        """Reads the newest readable checkpoint.

        Args:
            params: shapes, types and shardings of the parameters.
            state: the same for the rest of the training state.

        Returns:
            What was saved, or None where there is no checkpoint.

        Raises:
            InputError: there are checkpoints, but none can be read, or another number of processes
              wrote them.
        """
        items = {
            "params": ocp.args.StandardRestore(params),
            "state": ocp.args.StandardRestore(state),
            "data": ocp.args.JsonRestore(),
            "progress": ocp.args.JsonRestore(),
        }
        newest = self._agreed(items)
        if newest is None:
            return None
        step, read = newest
        positions = read.data["processes"]
        if len(positions) != jax.process_count():
            raise InputError(
                f"num_processes must be {len(positions)}, as in the run in {self.root.parent}, "
                f"got {jax.process_count()}"
            )
        return Restored(
            step,
            read.params,
            _with_typed_keys(read.state, state),
            positions[jax.process_index()],
            read.progress,
        )

    def restore_params(self, params: PyTree, name: str = "best") -> tuple[int, PyTree] | None:
        """Reads the parameters alone.

        Args:
            params: shapes, types and shardings of the parameters.
            name: "latest" or "best"; where there is no best one, the latest.

        Returns:
            The step and the parameters, or None where there is no checkpoint.

        Raises:
            InputError: there are checkpoints, but none can be read.
        """
        items = {"params": ocp.args.StandardRestore(params)}
        restored = None
        if name == "best" and self.steps("best"):
            try:
                restored = self._restore(self._best, items)
            except InputError as error:
                logging.warning("%s; taking the latest one instead", error)
        if restored is None:
            restored = self._restore(self._latest, items)
        return None if restored is None else (restored[0], restored[1].params)

    def _agreed(self, items: dict[str, Any]) -> tuple[int, Any] | None:
        """Reads the newest latest checkpoint that all processes can read."""
        newest = self._restore(self._latest, items)
        steps = _gather(-1 if newest is None else newest[0])
        while min(steps) < max(steps):
            if min(steps) < 0:
                raise InputError(
                    f"workdir: process {steps.index(-1)} finds no checkpoint in {self.root}, "
                    "others do; all processes need one shared file system"
                )
            newest = self._restore(self._latest, items, min(steps))
            steps = _gather(-1 if newest is None else newest[0])
        return newest

    def _restore(
        self, manager: ocp.CheckpointManager, items: dict[str, Any], last: int | float = math.inf
    ) -> tuple[int, Any] | None:
        """Reads the newest readable checkpoint up to the step `last`."""
        steps = sorted((step for step in manager.all_steps() if step <= last), reverse=True)
        for step in steps:
            try:
                return step, manager.restore(step, args=ocp.args.Composite(**items))
            except Exception as error:
                reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
                logging.warning(
                    "the checkpoint of step %d in %s is unreadable (%s); trying the one before",
                    step,
                    manager.directory,
                    reason,
                )
        if steps:
            raise InputError(
                f"no checkpoint in {manager.directory} is readable (steps {sorted(steps)}); "
                "give another workdir to start anew"
            )
        return None

    def close(self) -> None:
        """Waits for what is being written and lets go of the directories."""
        self._latest.close()
        self._best.close()
