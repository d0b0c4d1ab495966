"""The state of a run in this process, and what a step may be followed by."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import logging
from jaxtyping import PyTree

from grnn_jax.array_types import Array
from grnn_jax.cells import count_parameters
from grnn_jax.checkpoint import CheckpointStore
from grnn_jax.compiler import outermost_jit
from grnn_jax.config import Config
from grnn_jax.data import FORMATS, Codec, make_augmentation, train_iterator
from grnn_jax.device_prefetch import DevicePrefetch
from grnn_jax.errors import InputError, RunError
from grnn_jax.evaluation import Evaluate, make_evaluate
from grnn_jax.host_memory import check_batch_memory, check_events_memory, check_memory
from grnn_jax.likelihood import bits
from grnn_jax.monitor import Monitor
from grnn_jax.optimizer import make_optimizer, make_schedule
from grnn_jax.progress import Progress
from grnn_jax.sharding import (
    check_batch_size,
    make_maximum_over_processes,
    make_mesh,
    put_on_mesh,
    replicated,
)
from grnn_jax.signals import Signals
from grnn_jax.speed import Speed
from grnn_jax.training import (
    TrainState,
    init_train_state,
    make_train_step,
    make_train_steps,
    train_state_shardings,
)
from grnn_jax.workdir import build_model, load_run, open_workdir

LARGE_FILE = 2**22
"""Bytes of a file that may take a minute to read the first time."""
TIME_IS_UP = 1000
"""Stands where the number of a signal does: `max_minutes` are over."""
DIVERGED = 1e6
"""Nats per event from which on a model is lost, whatever it models, though they are finite."""


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a directory from others of its name; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Pending(NamedTuple):
    """A call whose metrics were not read yet; they may still be computed.

    Attributes:
        first: training steps done before it.
        num_steps: its own.
        metrics: scalars, or arrays of at least `num_steps` of them.
        stop: what all processes agree on, see `TrainingLoop.stop`; None for one process.
    """

    first: int
    num_steps: int
    metrics: dict[str, Array]
    stop: Array | None


class TrainingLoop:
    """The state of a run in this process and the things that a step may be followed by."""

    def __init__(self, config: Config, workdir: Path, signals: Signals):
        self.started = time.perf_counter()
        mesh = make_mesh()
        check_batch_size(config.batch_size, mesh)
        check_batch_size(config.eval_batch_size, mesh, "eval_batch_size")
        rows = config.batch_size // jax.process_count()
        sizes = rows, config.sequence_length, config.hidden_size
        check_batch_memory(mesh, *sizes, "batch_size")
        path = Path(config.data)
        if path.is_file() and path.stat().st_size >= LARGE_FILE:
            logging.info("reading %s", path)
        opened = open_workdir(config, workdir)
        self.config, self.workdir, self.signals, self.mesh = config, workdir, signals, mesh
        steps, length = config.steps_per_call, config.sequence_length
        check_events_memory(mesh, opened.splits.train.events, rows, length, steps)
        self.codec: Codec = opened.codec
        self.valid = opened.splits.valid
        self.iterator = train_iterator(
            opened.splits.train,
            config.batch_size,
            config.sequence_length,
            config.seed,
            jax.process_index(),
            jax.process_count(),
            cut_few=FORMATS[config.format].cut_few,
            augmentation=make_augmentation(
                self.codec, opened.splits.train, transpose=config.transpose
            ),
        )
        model, optimizer = build_model(config, self.codec), make_optimizer(config)
        self.evaluate: Evaluate = make_evaluate(model, config, mesh)
        logging.info("%s", opened.splits.description)

        def init(params: PyTree | None = None) -> TrainState:
            return init_train_state(model, optimizer, config, params)

        shapes = jax.eval_shape(init)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
        what = f"the {count_parameters(shapes.params):,} parameters and the optimizer's numbers"
        check_memory(mesh, size, "hidden_size", what)
        self.shardings = train_state_shardings(shapes, mesh)
        step = make_train_step(model, optimizer, config, mesh)
        self.run_steps = outermost_jit(
            step if config.steps_per_call == 1 else make_train_steps(step),
            donate_argnums=0,
            out_shardings=(self.shardings, replicated(mesh)),
        )
        self.agree = make_maximum_over_processes(mesh) if jax.process_count() > 1 else None
        self.store = CheckpointStore(workdir, config.keep_checkpoints)
        self.progress, self.saved_best = Progress(), -1
        begin = "starting"
        state = self._restore(shapes)
        if state is None:
            params = None
            if config.start_from:
                run = load_run(config.start_from, argument="start_from")
                params, begin = run.params, f"starting from step {run.step} of {config.start_from}"
            state = put_on_mesh(jax.jit(init)(params), self.shardings)
        self.state = state
        opened.commit()
        self.identity = _identity(workdir)
        self.trained_nats: float | None = None
        self.speed = Speed()
        self.first_seconds = 0.0  # Of the first call, with its compilation.
        self.ending = 0.0  # Seconds that the last evaluation and its checkpoint may take.
        self.step = int(self.state.step)
        self.saved_step = self.step if self.store.steps() else -1
        self.prefetch = DevicePrefetch(self.iterator, mesh, config.steps_per_call)
        self.pending: _Pending | None = None
        self.learning_rate = 0.0  # Of the last step whose metrics were read.
        self.agreed_stop = 0
        scored, logged = self.progress.last_step, self.progress.logged_step
        self.monitor = Monitor(workdir, self.step, config.last_step, scored, logged)
        num_params = count_parameters(self.state.params)
        self.monitor.say(
            f"{num_params:,} parameters on {mesh.size} {jax.devices()[0].platform} device(s); "
            + (f"going on after step {self.step}" if self.step else begin)
        )
        if config.extend_to:
            self.monitor.say(
                f"extend_to={config.extend_to}: from step {self.step} on a new schedule, "
                f"{config.schedule} to {config.extend_to} steps (the run began with "
                f"{config.num_steps}); learning rate {float(make_schedule(config)(self.step)):.2e}"
            )
        if model.distribution.is_density:
            unit = self.codec.unit or "the data as given"
            self.monitor.say(f"nats are those of densities, in the units of {unit}")

    def _restore(self, shapes: TrainState) -> TrainState | None:
        """The state of the newest readable checkpoint; also sets the data and the counters."""
        template = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            shapes,
            self.shardings,
        )
        restored = self.store.restore_latest(*template.split())
        if restored is None:
            return None
        try:
            self.iterator.set_state(restored.data)
            self.progress = Progress.from_json(restored.progress)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise InputError(
                f"workdir: the checkpoint of step {restored.step} in {self.workdir} is damaged: "
                f"{error}; give another workdir"
            ) from error
        if self.progress.best_step in self.store.steps("best"):
            self.saved_best = self.progress.best_step
        return TrainState.join(restored.params, restored.state)

    def advance(self) -> None:
        """One call of training steps; reads the metrics of the one before, so that no device waits.

        What the next call needs is sent before that, so that it is there when its turn comes.
        """
        num_steps, arguments = self.prefetch.take(self._steps_of_call())
        self.state, metrics = self.run_steps(self.state, *arguments)
        stop = None if self.agree is None else self.agree(self._own_stop())
        previous, self.pending = self.pending, _Pending(self.step, num_steps, metrics, stop)
        self.step += num_steps
        self.prefetch.prepare(self._steps_of_call())
        self._absorb(previous)

    def _steps_of_call(self) -> int:
        """Training steps of the next call: not beyond where something else is to be done."""
        config = self.config
        due = [
            every - self.step % every
            for every in (config.eval_every, config.checkpoint_every)
            if every
        ]
        return min(config.steps_per_call, config.last_step - self.step, *due)

    def _absorb(self, pending: _Pending | None) -> None:
        """Reads the metrics of a call, and stops the run if they are not finite."""
        if pending is None:
            return
        metrics, stop = jax.device_get((pending.metrics, pending.stop))
        self.agreed_stop = int(stop or 0)
        self.speed.add_call(pending.num_steps)
        for index in range(pending.num_steps):
            step = pending.first + index + 1
            values = {name: each.reshape(-1)[index] for name, each in metrics.items()}
            if not values["finite"]:
                raise RunError(self._not_finite(step, values))
            num_events = int(values["num_events"])
            self.progress.add_events(float(values["nats"]), num_events, float(values["grad_norm"]))
            self.speed.add_step(num_events)
            self.learning_rate = float(values["learning_rate"])
            if step % self.config.log_every == 0 or step == self.config.last_step:
                self._log(step)

    def _not_finite(self, step: int, values: dict[str, Any]) -> str:
        """What is wrong with a step, and how to go on."""
        kept = self.store.steps()
        where = f"kept: the checkpoint of step {kept[-1]}; " if kept else ""
        begin = "go on" if kept else "there is no checkpoint yet: start"
        use = f", or evaluate and sample {self.workdir} as it is" if kept else ""
        return (
            f"step {step} is not finite (loss {values['loss']:g} nats per event, gradient norm "
            f"{values['grad_norm']:g}); {where}{begin} with a smaller learning_rate or "
            f"clip_norm in another workdir{use}"
        )

    def flush(self) -> None:
        """Waits for the last call and reads its metrics."""
        pending, self.pending = self.pending, None
        self._absorb(pending)

    def advance_first(self) -> None:
        """The first call, waited for: its compilation is not part of the speed."""
        begun = time.perf_counter()
        self.advance()
        self.flush()
        self.first_seconds = time.perf_counter() - begun
        self.speed.take()

    def log_rest(self) -> None:
        """Writes the metrics of the steps since the last line, if there are any."""
        self.flush()
        if self.progress.num_events:
            self._log(self.step)

    def _log(self, step: int) -> None:
        """Writes the metrics of the steps since the last line, up to this one."""
        nats, num_events = self.progress.take_mean(step)
        self.trained_nats = nats
        self.speed.take()
        self.monitor.report_training(
            step,
            {
                "nats_per_event": nats,
                "bits_per_event": bits(nats),
                "num_events": num_events,
                "grad_norm": self.progress.grad_norm,
                "learning_rate": self.learning_rate,
                "events_per_second": self.speed.events_per_second,
                "seconds_per_step": self.speed.seconds_per_step,
            },
        )

    def evaluate_now(self) -> None:
        """Scores the validation split; notes the best score, reduces the rate on a plateau."""
        self.flush()
        if self.valid is None or self.progress.last_step == self.step:
            return
        progress, config = self.progress, self.config
        # Several processes evaluate together to the end; one alone gives up when told to stop.
        stop = (lambda: bool(self.signals.received)) if self.agree is None else None
        begun = time.perf_counter()
        values = self.evaluate(self.state.evaluated_params, self.valid, stop)
        if values is None:
            return
        nats = values["nats_per_event"]
        best = progress.add_score(nats, self.step)
        if progress.take_reduction(config):
            scale = self.state.learning_rate_scale * config.plateau_factor
            scale = jax.device_put(scale, replicated(self.mesh))
            self.state = dataclasses.replace(self.state, learning_rate_scale=scale)
            self.monitor.say(f"no better score: learning rate times {config.plateau_factor:g}")
        self.monitor.write("valid", self.step, values)
        self.monitor.say(
            f"step {self.step}  valid {nats:.4f} nats  {values['bits_per_event']:.4f} bits  over "
            f"{values['num_events']:,} events{'  (best so far)' if best else ''}"
        )
        if best:
            self.save()
        self.ending = max(self.ending, 1.5 * (time.perf_counter() - begun))
        self.speed.restart()

    def save(self) -> None:
        """Writes a checkpoint, and the best one if this is it. The state is known to be finite."""
        self.flush()
        progress, (params, rest) = dataclasses.asdict(self.progress), self.state.split()
        self.wait()
        self.monitor.flush()
        if self.saved_step != self.step:
            self.store.save_latest(self.step, params, rest, self.prefetch.position, progress)
            self.saved_step = self.step
        if self.progress.best_step == self.step != self.saved_best:
            self.wait()  # Never a best checkpoint that no latest one leads to again.
            self.store.save_best(self.step, params, progress)
            self.saved_best = self.step
        self.speed.restart()

    def wait(self) -> None:
        """Waits until what was saved is on the disk, in the directory that the run began in.

        Raises:
            RunError: it is not.
        """
        if _identity(self.workdir) == self.identity:
            self.store.wait()
        if _identity(self.workdir) != self.identity:
            raise RunError(
                f"workdir: {self.workdir} was removed, renamed or replaced while the run was under "
                "way; what was saved before is where it is now, and nothing after that is kept"
            )

    def _own_stop(self) -> int:
        """The signal that this process received, `TIME_IS_UP`, or 0."""
        seconds, minutes = time.perf_counter() - self.started, self.config.max_minutes
        if self.signals.received or not minutes:
            return self.signals.received
        return TIME_IS_UP if seconds + self._seconds_to_end() >= 60 * minutes else 0

    def _seconds_to_end(self) -> float:
        """How long a call more, the evaluation and the checkpoint at the end may take."""
        # When the next call is sent off, the one before it may have only begun.
        calls = 2 * self.config.steps_per_call * self.speed.seconds_per_step
        if self.ending or self.valid is None or not self.speed.events_per_second:
            return calls + self.ending
        # Not measured yet: reading an event takes no longer than learning from it.
        return (
            calls + 1.5 * self.valid.num_events / self.speed.events_per_second + self.first_seconds
        )

    def stop(self) -> int:
        """The signal that all processes know of, `TIME_IS_UP`, or 0."""
        return self._own_stop() if self.agree is None else self.agreed_stop

    def check_score(self) -> None:
        """Raises RunError where the run ends with a model that is of no use."""
        last = self.progress.last_nats if self.progress.last_step == self.step else None
        for nats in (last, self.trained_nats):
            if nats is not None and (math.isnan(nats) or DIVERGED <= nats < math.inf):
                raise RunError(
                    f"the run has diverged: {nats:.4g} nats per event after step {self.step}; "
                    "start with a smaller learning_rate or clip_norm in another workdir; all is "
                    f"kept in {self.workdir}, best the parameters of step {self.progress.best_step}"
                )

    def close(self) -> None:
        """Lets go of files and threads."""
        self.monitor.close()
        self.store.close()
        self.iterator.close()
