"""What a run counts: its scores, the best one, and the events since the last line of metrics.

Best score, early stopping and reduction on a plateau are decided here, from numbers alone.
"""

import dataclasses
import math
from typing import Any, NamedTuple, get_type_hints

from grnn_jax.config import Config


class Result(NamedTuple):
    """How a call of `train` ended.

    Attributes:
        step: training steps done.
        nats_per_event: last validation score, or None.
        best_nats_per_event: best validation score, or None.
        best_step: its step.
        signal: number of the signal that stopped the run, or 0.
        reason: why it ended, one sentence.
        is_done: False where the same command would train on.
    """

    step: int
    nats_per_event: float | None
    best_nats_per_event: float | None
    best_step: int
    signal: int
    reason: str
    is_done: bool = True


@dataclasses.dataclass
class Progress:
    """Counters of a run, JSON values: a checkpoint holds them, a resumed run goes on counting.

    Attributes:
        best_nats: best validation score so far, nats per event.
        best_step: its step.
        last_nats: last validation score.
        last_step: its step.
        since_best: evaluations since the best one.
        since_reduction: evaluations without a better score since the learning rate was reduced.
        nats: sum over the events since the last line of metrics.
        num_events: their number.
        grad_norm: norm of the last gradient.
        logged_step: step of the last line of metrics, or None.
    """

    best_nats: float | None = None
    best_step: int = -1
    last_nats: float | None = None
    last_step: int = -1
    since_best: int = 0
    since_reduction: int = 0
    nats: float = 0.0
    num_events: int = 0
    grad_norm: float = 0.0
    logged_step: int | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        """The counters that a checkpoint holds.

        Args:
            values: what `dataclasses.asdict` wrote, also that of earlier versions.

        Returns:
            The counters.

        Raises:
            ValueError: a name is not known, or a value has another type.
        """
        types = get_type_hints(cls)
        for name, value in values.items():
            if name not in types or not isinstance(value, types[name]):
                raise ValueError(f"{name}={value!r} is none of the counters")
        return cls(**values)

    def add_events(self, nats: float, num_events: int, grad_norm: float) -> None:
        """Counts the events of one training step.

        Args:
            nats: sum of their negative log-probabilities.
            num_events: their number.
            grad_norm: norm of its gradient.
        """
        self.nats += nats
        self.num_events += num_events
        self.grad_norm = grad_norm

    def take_mean(self, step: int) -> tuple[float, int]:
        """The mean since the last call, for a line of metrics.

        Args:
            step: training steps done.

        Returns:
            The mean in nats per event, and the number of events in it.
        """
        self.logged_step = step
        mean, num_events = self.nats / max(self.num_events, 1), self.num_events
        self.nats, self.num_events = 0.0, 0
        return mean, num_events

    def add_score(self, nats: float, step: int) -> bool:
        """Counts a validation score.

        Args:
            nats: the score, nats per event.
            step: training steps behind it.

        Returns:
            Whether it is the best one so far; a score that is not finite never is.
        """
        self.last_nats, self.last_step = nats, step
        if math.isfinite(nats) and (self.best_nats is None or nats < self.best_nats):
            self.best_nats, self.best_step = nats, step
            self.since_best = self.since_reduction = 0
            return True
        self.since_best += 1
        self.since_reduction += 1
        return False

    def take_reduction(self, config: Config) -> bool:
        """Whether the learning rate is to be reduced now; counting then begins anew.

        Args:
            config: `plateau_patience` is read.

        Returns:
            True after that many evaluations without a better score.
        """
        if not config.plateau_patience or self.since_reduction < config.plateau_patience:
            return False
        self.since_reduction = 0
        return True

    def stops_early(self, config: Config) -> bool:
        """Whether the score has not become better for `early_stopping_patience` evaluations."""
        return 0 < config.early_stopping_patience <= self.since_best

    def result(self, step: int, signal: int, reason: str, is_done: bool) -> Result:
        """How a call ends, see `Result`."""
        scores = self.last_nats, self.best_nats, self.best_step
        return Result(step, *scores, signal, reason, is_done)
