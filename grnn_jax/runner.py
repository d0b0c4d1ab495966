"""The only impure loop: restore, step, log, evaluate, save, stop.

A workdir holds everything of a run: `config.json`, `codec.json`, `tokens/` (the encoded data),
`checkpoints/`, `metrics.jsonl`, `tensorboard/`. The same call again goes on where it stopped.
"""

import contextlib
import os
import signal
from pathlib import Path

import jax

from grnn_jax.config import Config
from grnn_jax.errors import RunError
from grnn_jax.progress import Result
from grnn_jax.signals import Signals
from grnn_jax.system_errors import fault
from grnn_jax.training_loop import TIME_IS_UP, TrainingLoop
from grnn_jax.workdir import validate, workdir_lock

PROFILED_STEPS = (10, 15)


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
                    contextlib.closing(TrainingLoop(config, Path(workdir), signals))
                )
                return _run(loop)
        except OSError as error:
            reason, advice = fault(error)
            raise RunError(
                f"could not go on in {workdir}: {reason}; the checkpoints in it are kept; "
                f"{advice + ' and ' if advice else ''}start the same command again to go on"
            ) from error


def _run(loop: TrainingLoop) -> Result:
    config, first = loop.config, loop.step
    to_profile, profiling = config.profile, False
    if first:  # Makes up for what the process before did not come to after its last step.
        loop.save()
        if _due(first, config.eval_every) and first < config.last_step:
            loop.evaluate_now()
    while (
        loop.step < config.last_step and not loop.progress.stops_early(config) and not loop.stop()
    ):
        if to_profile and loop.step - first >= PROFILED_STEPS[0]:
            jax.profiler.start_trace(str(loop.workdir / "profile"))
            to_profile, profiling = False, True
        if loop.step == first:
            loop.advance_first()
        else:
            loop.advance()
        if profiling and loop.step - first >= PROFILED_STEPS[1]:
            loop.flush()
            jax.profiler.stop_trace()
            profiling = False
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
        loop.log_rest()  # Stopped early, between two lines.
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
