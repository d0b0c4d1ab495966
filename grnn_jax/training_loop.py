"""The state of a run in this process, and what a step may be followed by."""

import dataclasses
import math
import time
from pathlib import Path

import jax
from absl import logging
from jaxtyping import PyTree

from grnn_jax.cells import count_parameters
from grnn_jax.checkpoint import CheckpointStore
from grnn_jax.config import Config
from grnn_jax.data import FORMATS, Codec, make_augmentation, train_iterator
from grnn_jax.errors import InputError, RunError
from grnn_jax.evaluation import Evaluate, make_evaluate
from grnn_jax.host_memory import check_batch_memory, check_memory
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
    shard_batch,
)
from grnn_jax.signals import Signals
from grnn_jax.training import TrainState, init_train_state, make_train_step, train_state_shardings
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
        self.schedule = make_schedule(config)
        self.evaluate: Evaluate = make_evaluate(model, config, mesh)
        logging.info("%s", opened.splits.description)

        def init(params: PyTree | None = None) -> TrainState:
            return init_train_state(model, optimizer, config, params)

        shapes = jax.eval_shape(init)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
        what = f"the {count_parameters(shapes.params):,} parameters and the optimizer's numbers"
        check_memory(mesh, size, "hidden_size", what)
        self.shardings = train_state_shardings(shapes, mesh)
        self.train_step = jax.jit(
            make_train_step(model, optimizer, config, mesh),
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
        self.clock, self.clock_events, self.events_per_second = 0.0, 0, 0.0
        self.first_seconds = 0.0  # Of the first step, with its compilation.
        self.ending = 0.0  # Seconds that the last evaluation and its checkpoint may take.
        self.step = int(self.state.step)
        self.saved_step = self.step if self.store.steps() else -1
        self.pending: tuple[int, dict[str, jax.Array]] | None = None
        self.agreed_stop = 0
        scored, logged = self.progress.last_step, self.progress.logged_step
        self.monitor = Monitor(workdir, self.step, config.last_step, scored, logged)
        self.restart_clock()
        num_params = count_parameters(self.state.params)
        self.monitor.say(
            f"{num_params:,} parameters on {mesh.size} {jax.devices()[0].platform} device(s); "
            + (f"going on after step {self.step}" if self.step else begin)
        )
        if config.extend_to:
            self.monitor.say(
                f"extend_to={config.extend_to}: from step {self.step} on a new schedule, "
                f"{config.schedule} to {config.extend_to} steps (the run began with "
                f"{config.num_steps}); learning rate {float(self.schedule(self.step)):.2e}"
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

    def restart_clock(self) -> None:
        """Begins to measure the speed anew."""
        if self.clock_events:
            seconds = max(time.perf_counter() - self.clock, 1e-6)
            self.events_per_second = self.clock_events / seconds
        self.clock, self.clock_events, self.clock_steps = time.perf_counter(), 0, 0

    def advance(self) -> None:
        """One training step; reads the metrics of the one before, so that no device waits."""
        batch = shard_batch(next(self.iterator), self.mesh)
        self.state, metrics = self.train_step(self.state, batch)
        if self.agree is not None:
            metrics["stop"] = self.agree(self._own_stop())
        previous, self.pending = self.pending, (self.step + 1, metrics)
        self.step += 1
        self._absorb(previous)

    def _absorb(self, pending: tuple[int, dict[str, jax.Array]] | None) -> None:
        """Reads the metrics of a step, and stops the run if they are not finite."""
        if pending is None:
            return
        step, metrics = pending
        values = jax.device_get(metrics)
        if not values["finite"]:
            kept = self.store.steps()
            where = f"kept: the checkpoint of step {kept[-1]}; " if kept else ""
            begin = "go on" if kept else "there is no checkpoint yet: start"
            use = f", or evaluate and sample {self.workdir} as it is" if kept else ""
            raise RunError(
                f"step {step} is not finite (loss {values['loss']:g} nats per event, gradient norm "
                f"{values['grad_norm']:g}); {where}{begin} with a smaller learning_rate or "
                f"clip_norm in another workdir{use}"
            )
        self.progress.add_events(
            float(values["nats"]), int(values["num_events"]), float(values["grad_norm"])
        )
        self.agreed_stop = int(values.get("stop", 0))
        self.clock_events += int(values["num_events"])
        self.clock_steps += 1

    def flush(self) -> None:
        """Waits for the last step and reads its metrics."""
        self._absorb(self.pending)
        self.pending = None

    def log(self) -> None:
        """Writes the metrics since the last line."""
        self.flush()
        seconds = time.perf_counter() - self.clock
        nats, num_events = self.progress.take_mean(self.step)
        self.trained_nats = nats
        rate = float(self.schedule(self.step - 1)) * float(self.state.learning_rate_scale)
        self.monitor.report_training(
            self.step,
            {
                "nats_per_event": nats,
                "bits_per_event": bits(nats),
                "num_events": num_events,
                "grad_norm": self.progress.grad_norm,
                "learning_rate": rate,
                "events_per_second": self.clock_events / seconds,
                "seconds_per_step": seconds / max(self.clock_steps, 1),
            },
        )
        self.restart_clock()

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
        self.restart_clock()

    def save(self) -> None:
        """Writes a checkpoint, and the best one if this is it. The state is known to be finite."""
        self.flush()
        progress, (params, rest) = dataclasses.asdict(self.progress), self.state.split()
        self.wait()
        self.monitor.flush()
        if self.saved_step != self.step:
            position = self.iterator.get_state()
            self.store.save_latest(self.step, params, rest, position, progress)
            self.saved_step = self.step
        if self.progress.best_step == self.step != self.saved_best:
            self.wait()  # Never a best checkpoint that no latest one leads to again.
            self.store.save_best(self.step, params, progress)
            self.saved_best = self.step
        self.restart_clock()

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
        """How long the evaluation and the checkpoint at the end are expected to take."""
        if self.ending or self.valid is None or not self.events_per_second:
            return self.ending
        # Not measured yet: reading an event takes no longer than learning from it.
        return 1.5 * self.valid.num_events / self.events_per_second + self.first_seconds

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
