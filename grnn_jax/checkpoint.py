"""Checkpoints of a run, in two directories under its workdir. The only file that knows Orbax.

`checkpoints/latest` holds the last few states, whole: a run resumes from the newest readable one.
`checkpoints/best` holds the parameters with the best validation score. A checkpoint is written
beside its final name and renamed when it is complete, so a killed process leaves no half of one.
Its item `checksums` says what all others must be when they are read. Several processes write
together and need one shared file system.
"""

import contextlib
import json
from collections.abc import Sequence
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

from grnn_jax.checked_json import digest, with_digest, without_digest
from grnn_jax.checksum import add_up, checksums
from grnn_jax.errors import InputError, RunError
from grnn_jax.plain_path import plain_path
from grnn_jax.system_errors import fault

CHECKSUMS = "checksums"


class SaveError(RunError):
    """A checkpoint could not be written, or read; the checkpoints before it are still there."""


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
        if not read_only:
            self.root.mkdir(parents=True, exist_ok=True)
        self._plain_root = plain_path(self.root, self, same=jax.process_count() > 1)
        self._unchecked: dict[ocp.CheckpointManager, tuple[int, list[str]]] = {}
        self._latest = self._manager("latest", keep, read_only)
        self._best = self._manager("best", 1, read_only)

    def _manager(self, name: str, keep: int, read_only: bool) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.LatestN(keep),
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            save_root_metadata=False,
        )
        return ocp.CheckpointManager(self._plain_root / name, options=options)

    def steps(self, name: str = "latest") -> list[int]:
        """Steps of the complete checkpoints of "latest" or "best", in rising order."""
        manager = self._latest if name == "latest" else self._best
        return sorted(manager.all_steps())

    def _save(
        self, manager: ocp.CheckpointManager, step: int, trees: PyTree, values: dict[str, Any]
    ) -> None:
        """Writes trees of arrays and JSON values, and what they must be when they are read."""
        try:
            # What an earlier process wrote at or after this step was unreadable or is overtaken.
            for old in sorted(manager.all_steps()):
                if old >= step:
                    manager.delete(old)
            expected = {
                "arrays": add_up(_gather(checksums(trees))),
                "json": {name: digest(value) for name, value in values.items()},
            }
            values = values | {CHECKSUMS: with_digest(expected)}
            items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
            items |= {name: ocp.args.JsonSave(value) for name, value in values.items()}
            manager.save(step, args=ocp.args.Composite(**items), force=True)
            self._unchecked[manager] = step, list(trees)
        except Exception as error:
            raise self._save_error(error) from error

    def _check_structure(self) -> None:
        """Raises ValueError where what was just written cannot be found again."""
        while self._unchecked:
            manager, (step, trees) = self._unchecked.popitem()
            if jax.process_index():
                continue
            found = manager.item_metadata(step)
            for name in trees:
                if not jax.tree.leaves(found[name]):
                    raise ValueError(f"{name} of step {step} cannot be found where it was written")

    def _save_error(self, error: Exception) -> SaveError:
        try:
            kept = self.steps()
        except OSError:  # The directory is gone.
            kept = []
        where = f"the checkpoint of step {kept[-1]} is kept" if kept else "there is none yet"
        reason, advice = fault(error)
        return SaveError(
            f"could not write a checkpoint in {self.root}: {reason}; {where}; "
            f"{advice + ' and ' if advice else ''}start the same command again to go on"
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
            {"params": params, "state": state},
            {"data": {"processes": _gather(data)}, "progress": progress},
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
        self._save(self._best, step, {"params": params}, {"progress": progress})

    def wait(self) -> None:
        """Waits until what was saved is on the disk, and looks whether it can be found there.

        Raises:
            SaveError: it could not be written.
        """
        try:
            self._latest.wait_until_finished()
            self._best.wait_until_finished()
            self._check_structure()
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
            SaveError: this process may not read them, or has no memory, files or threads left.
        """
        newest = self._newest(
            self._latest, {"params": params, "state": state}, ("data", "progress")
        )
        if newest is None:
            return None
        step, read = newest
        data, progress = read["data"], read["progress"]
        positions = data.get("processes") if isinstance(data, dict) else None
        if not isinstance(positions, list) or not isinstance(progress, dict):
            raise InputError(
                f"workdir: the checkpoint of step {step} in {self.root} is damaged: the position "
                "in the data or the counters are not what was written; give another workdir"
            )
        if len(positions) != jax.process_count():
            raise InputError(
                f"num_processes must be {len(positions)}, as in the run in {self.root.parent}, "
                f"got {jax.process_count()}"
            )
        state = _with_typed_keys(read["state"], state)
        return Restored(step, read["params"], state, positions[jax.process_index()], progress)

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
        restored = None
        if name == "best" and self.steps("best"):
            try:
                restored = self._newest(self._best, {"params": params})
            except InputError as error:
                logging.warning("%s; taking the latest one instead", error)
        if restored is None:
            restored = self._newest(self._latest, {"params": params})
        return None if restored is None else (restored[0], restored[1]["params"])

    def _newest(
        self, manager: ocp.CheckpointManager, trees: dict[str, PyTree], values: Sequence[str] = ()
    ) -> tuple[int, Any] | None:
        """Reads the newest checkpoint that all processes can read and that is as it was written."""
        listed = _gather(sorted(manager.all_steps()))
        if not all(listed) and any(listed):
            raise InputError(
                f"workdir: process {listed.index([])} finds no checkpoint in {self.root}, "
                "others do; all processes need one shared file system"
            )
        steps = sorted(set(listed[0]).intersection(*listed))
        directory = self.root / manager.directory.name
        for step in reversed(steps):
            read, reason = self._read(manager, step, trees, values)
            # One asks the others before they sum together what all of them have read.
            reason = next(filter(None, _gather(reason)), "")
            if not reason and CHECKSUMS in read:
                found = add_up(_gather(checksums({name: read[name] for name in trees})))
                expected = read[CHECKSUMS]["arrays"]
                wrong = [name for name in found if found[name] != expected.get(name)]
                reason = f"{wrong[0]} is not what was written" if wrong else ""
            if not reason:
                if CHECKSUMS not in read:
                    logging.warning(
                        "the checkpoint of step %d in %s is of an earlier version, without "
                        "checksums: it could not be verified",
                        step,
                        directory,
                    )
                return step, read
            logging.warning(
                "the checkpoint of step %d in %s is unreadable (%s); trying the one before",
                step,
                directory,
                reason,
            )
        if steps:
            raise InputError(
                f"no checkpoint in {directory} is readable (steps {steps}); "
                "give another workdir to start anew"
            )
        return None

    def _read(
        self,
        manager: ocp.CheckpointManager,
        step: int,
        trees: dict[str, PyTree],
        values: Sequence[str],
    ) -> tuple[Any, str]:
        """What a checkpoint holds, or why it cannot be read; its JSON values are verified."""
        items: dict[str, Any] = {
            name: ocp.args.StandardRestore(tree) for name, tree in trees.items()
        }
        verified = (Path(manager.directory) / str(step) / CHECKSUMS).exists()
        names = (*values, CHECKSUMS) if verified else values
        items |= {name: ocp.args.JsonRestore() for name in names}
        try:
            read = manager.restore(step, args=ocp.args.Composite(**items))
            if verified:
                expected = without_digest(read[CHECKSUMS])["json"]
                for name in values:
                    if digest(read[name]) != expected[name]:
                        raise ValueError(f"{name} is not what was written")
        except Exception as error:
            reason, advice = fault(error)
            if advice:  # It may be good: nothing is to take its place.
                raise SaveError(
                    f"could not read the checkpoint of step {step} in {self.root}: {reason}; "
                    f"{advice} and start the same command again"
                ) from error
            return None, reason[:200]
        return read, ""

    def close(self) -> None:
        """Waits for what is being written and lets go of the directories; `wait` tells errors."""
        for manager in (self._latest, self._best):
            with contextlib.suppress(Exception):
                manager.close()
