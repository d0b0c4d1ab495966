"""The only impure loop: restore, step, log, evaluate, save, stop.

A workdir holds everything of a run: `config.json`, `codec.json`, `tokens/` (the encoded data),
`checkpoints/`, `metrics.jsonl`, `tensorboard/`. The same call again goes on where it stopped.
"""

import contextlib
import dataclasses
import math
import os
import signal
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
from grnn_jax.likelihood import bits
from grnn_jax.monitor import Monitor
from grnn_jax.optimizer import make_optimizer, make_schedule
from grnn_jax.progress import Progress, Result
from grnn_jax.sharding import (
    check_batch_size,
    make_maximum_over_processes,
    make_mesh,
    put_on_mesh,
    replicated,
    shard_batch,
)
from grnn_jax.signals import Signals
from grnn_jax.system_errors import fault
from grnn_jax.training import TrainState, init_train_state, make_train_step, train_state_shardings
from grnn_jax.workdir import build_model, load_run, open_workdir, validate, workdir_lock

PROFILED_STEPS = (10, 15)
LARGE_FILE = 2**22
"""Bytes of a file that may take a minute to read the first time."""
TIME_IS_UP = 1000
"""Stands where the number of a signal does: `max_minutes` are over."""
DIVERGED = 1e6
"""Nats per event from which on a model is lost, whatever it models, though they are finite."""


class _Loop:
    """The state of a run in this process and the things that a step may be followed by."""

    def __init__(self, config: Config, workdir: Path, signals: Signals):
        self.started = time.perf_counter()
        mesh = make_mesh()
        check_batch_size(config.batch_size, mesh)
        check_batch_size(config.eval_batch_size, mesh, "eval_batch_size")
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
        self._restart_clock()
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
        return TrainState(**restored.params, **restored.state)

    def _restart_clock(self) -> None:
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
        self._restart_clock()

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
        self._restart_clock()

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
        self._restart_clock()

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


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a directory from others of its name; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def train(config: Config, workdir: str | os.PathLike[str]) -> Result:
    """Trains, or goes on training, until the last step, early stopping or a signal.

    Args:
        config: the settings of the run.
        workdir: its directory; a run that is in it goes on if its settings are the same.

    Returns:
        How it ended. SIGTERM, SIGINT, SIGHUP and SIGUSR1 are not errors: the state is saved, and
        `signal` says so.

    Raises:
        InputError: the settings, the data or the workdir cannot be used.
        RunError: a step was not finite, the run ended with a score of more than `DIVERGED`, or the
            workdir could not be written to.

    Example:
        >>> import grnn_jax
        >>> config = grnn_jax.Config(
        ...     data="mine.txt", hidden_size=8, batch_size=2, sequence_length=16, eval_batch_size=2,
        ...     valid_fraction=0.25, test_fraction=0.25, num_steps=3,
        ... )
        >>> grnn_jax.train(config, "runs/new").reason
        'all 3 steps are done'
    """
    validate(config)
    with Signals().installed() as signals:
        try:
            with contextlib.ExitStack() as stack:
                if jax.process_index() == 0:
                    stack.enter_context(workdir_lock(Path(workdir)))
                loop = stack.enter_context(
                    contextlib.closing(_Loop(config, Path(workdir), signals))
                )
                return _run(loop)
        except OSError as error:
            reason, advice = fault(error)
            raise RunError(
                f"could not go on in {workdir}: {reason}; the checkpoints in it are kept; "
                f"{advice + ' and ' if advice else ''}start the same command again to go on"
            ) from error


def _run(loop: _Loop) -> Result:
    config, first = loop.config, loop.step
    profiling = False
    if first:  # Makes up for what the process before did not come to after its last step.
        loop.save()
        if _due(first, config.eval_every) and first < config.last_step:
            loop.evaluate_now()
    while (
        loop.step < config.last_step and not loop.progress.stops_early(config) and not loop.stop()
    ):
        if config.profile and loop.step - first == PROFILED_STEPS[0]:
            jax.profiler.start_trace(str(loop.workdir / "profile"))
            profiling = True
        loop.advance()
        if profiling and loop.step - first == PROFILED_STEPS[1]:
            loop.flush()
            jax.profiler.stop_trace()
            profiling = False
        if loop.step == first + 1:  # Compilation is not part of the speed.
            loop.flush()
            loop.first_seconds = time.perf_counter() - loop.clock
            loop._restart_clock()
        if _due(loop.step, config.log_every) or loop.step == config.last_step:
            loop.log()
        if _due(loop.step, config.eval_every):
            loop.evaluate_now()
        if _due(loop.step, config.checkpoint_every):
            loop.save()
        loop.monitor.advance(loop.step)
    loop.flush()
    if profiling:
        jax.profiler.stop_trace()
    time_is_up = loop.stop() == TIME_IS_UP and loop.step < config.last_step
    if loop.stop() in (0, TIME_IS_UP):
        if loop.progress.num_events:  # Stopped early, between two lines.
            loop.log()
        loop.evaluate_now()
    loop.save()
    loop.wait()
    # A signal may have come in the last evaluation too.
    number = loop.stop() if loop.stop() != TIME_IS_UP else 0
    reason = f"all {config.last_step} steps are done"
    if number or time_is_up:
        by = signal.Signals(number).name if number else f"max_minutes={config.max_minutes:g}"
        reason = f"stopped by {by} after step {loop.step}; the same command goes on from there"
    elif loop.progress.stops_early(config):
        reason = f"no better score in {config.early_stopping_patience} evaluations"
    if not number:
        loop.check_score()
    loop.monitor.say(reason)
    return loop.progress.result(loop.step, number, reason, not (number or time_is_up))
