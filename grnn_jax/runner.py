"""The only impure loop: restore, step, log, evaluate, save, stop.

A workdir holds everything of a run: `config.json`, `codec.json`, `tokens/` (the encoded data),
`checkpoints/`, `metrics.jsonl`, `tensorboard/`. The same call again goes on where it stopped.
"""

import contextlib
import dataclasses
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
from grnn_jax.training import TrainState, init_train_state, make_train_step, train_state_shardings
from grnn_jax.workdir import build_model, load_run, open_workdir, validate, workdir_lock

PROFILED_STEPS = (10, 15)
LARGE_FILE = 2**22
"""Bytes of a file that may take a minute to read the first time."""


class _Loop:
    """The state of a run in this process and the things that a step may be followed by."""

    def __init__(self, config: Config, workdir: Path, signals: Signals):
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
        self.step = int(self.state.step)
        self.saved_step = self.step if self.store.steps() else -1
        self.pending: tuple[int, dict[str, jax.Array]] | None = None
        self.stop_signal = 0
        scored, logged = self.progress.last_step, self.progress.logged_step
        self.monitor = Monitor(workdir, self.step, config.num_steps, scored, logged)
        self._restart_clock()
        num_params = count_parameters(self.state.params)
        self.monitor.say(
            f"{num_params:,} parameters on {mesh.size} {jax.devices()[0].platform} device(s); "
            + (f"going on after step {self.step}" if self.step else begin)
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
        self.clock, self.clock_events, self.clock_steps = time.perf_counter(), 0, 0

    def advance(self) -> None:
        """One training step; reads the metrics of the one before, so that no device waits."""
        batch = shard_batch(next(self.iterator), self.mesh)
        self.state, metrics = self.train_step(self.state, batch)
        if self.agree is not None:
            metrics["signal"] = self.agree(self.signals.received)
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
            where = f"the checkpoint of step {kept[-1]}" if kept else "no checkpoint yet"
            raise RunError(
                f"step {step} is not finite (loss {values['loss']:g} nats per event, gradient norm "
                f"{values['grad_norm']:g}); kept: {where}; go on with a smaller learning_rate or "
                f"clip_norm in another workdir, or evaluate and sample {self.workdir} as it is"
            )
        self.progress.add_events(
            float(values["nats"]), int(values["num_events"]), float(values["grad_norm"])
        )
        self.stop_signal = int(values.get("signal", 0))
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
        stop = self.received_signal if self.agree is None else None
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
        self._restart_clock()

    def save(self) -> None:
        """Writes a checkpoint, and the best one if this is it. The state is known to be finite."""
        self.flush()
        progress, (params, rest) = dataclasses.asdict(self.progress), self.state.split()
        self.store.wait()
        if self.saved_step != self.step:
            position = self.iterator.get_state()
            self.store.save_latest(self.step, params, rest, position, progress)
            self.saved_step = self.step
        if self.progress.best_step == self.step != self.saved_best:
            self.store.wait()  # Never a best checkpoint that no latest one leads to again.
            self.store.save_best(self.step, params, progress)
            self.saved_best = self.step
        self._restart_clock()

    def received_signal(self) -> int:
        """The signal that all processes know of, or 0."""
        return self.signals.received if self.agree is None else self.stop_signal

    def close(self) -> None:
        """Lets go of files and threads."""
        self.monitor.close()
        self.store.close()
        self.iterator.close()


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def train(config: Config, workdir: str | os.PathLike[str]) -> Result:
    """Trains, or goes on training, until the last step, early stopping or a signal.

    Args:
        config: the settings of the run.
        workdir: its directory; a run that is in it goes on if its settings are the same.

    Returns:
        How it ended. SIGTERM and SIGINT are not errors: the state is saved, and `signal` says so.

    Raises:
        InputError: the settings, the data or the workdir cannot be used.
        RunError: a step was not finite, or the workdir could not be written to.

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
            raise RunError(
                f"could not write in {workdir}: {error.strerror or error}; the checkpoints in it "
                "are kept; start the same command again to go on"
            ) from error


def _run(loop: _Loop) -> Result:
    config, first = loop.config, loop.step
    profiling = False
    if first:  # Makes up for what the process before did not come to after its last step.
        loop.save()
        if _due(first, config.eval_every) and first < config.num_steps:
            loop.evaluate_now()
    while (
        loop.step < config.num_steps
        and not loop.progress.stops_early(config)
        and not loop.received_signal()
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
            loop._restart_clock()
        if _due(loop.step, config.log_every) or loop.step == config.num_steps:
            loop.log()
        if _due(loop.step, config.eval_every):
            loop.evaluate_now()
        if _due(loop.step, config.checkpoint_every):
            loop.save()
        loop.monitor.advance(loop.step)
    loop.flush()
    if profiling:
        jax.profiler.stop_trace()
    signal_number = loop.received_signal()
    if not signal_number:
        if loop.progress.num_events:  # Stopped early, between two lines.
            loop.log()
        loop.evaluate_now()
    loop.save()
    loop.store.wait()
    reason = f"all {config.num_steps} steps are done"
    if signal_number:
        name = signal.Signals(signal_number).name
        reason = f"stopped by {name} after step {loop.step}; the same command goes on from there"
    elif loop.progress.stops_early(config):
        reason = f"no better score in {config.early_stopping_patience} evaluations"
    loop.monitor.say(reason)
    return loop.progress.result(loop.step, signal_number, reason)
