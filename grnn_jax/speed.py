"""How fast a run trains: the time that its training steps take, and no other."""

import time


class Speed:
    """Measures the steps between two lines of metrics.

    Attributes:
        events_per_second: when it was last asked for, 0 before the first step.
        seconds_per_step: likewise.
    """

    def __init__(self) -> None:
        self.events_per_second = self.seconds_per_step = 0.0
        self._reset()
        self.restart()

    def _reset(self) -> None:
        self._seconds, self._steps, self._events = 0.0, 0, 0

    def restart(self) -> None:
        """Leaves out the time since the last step: something else was done in it."""
        self._last = time.perf_counter()

    def add_call(self, num_steps: int) -> None:
        """Counts the time since the last call as that of one more, of so many steps.

        They end together, and are counted one by one by `add_step`: each with its share.
        """
        now = time.perf_counter()
        self._share, self._last = (now - self._last) / num_steps, now

    def add_step(self, num_events: int) -> None:
        """Counts a step of the last call."""
        self._seconds += self._share
        self._steps += 1
        self._events += num_events

    def take(self) -> None:
        """Sets the attributes from the steps since the last time, if any, and begins anew."""
        if not self._steps:
            return
        seconds = max(self._seconds, 1e-6)
        self.events_per_second = self._events / seconds
        self.seconds_per_step = self._seconds / self._steps
        self._reset()
