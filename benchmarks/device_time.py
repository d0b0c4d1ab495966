"""How long a GPU or TPU works on a call, read from the trace of JAX's profiler.

A host's clock also counts how long the host takes to launch and to wait. The profiler notes the
beginning and the end of everything that the device does, whichever library asked for it. Calls
come one after another with a pause between them, longer than any gap inside of a call, so that
the device's events fall into as many groups as there were calls; that needs no common clock.
"""

import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import timing

PAUSE = 0.02
"""Seconds between calls; half of it parts the events of two calls."""


class NoDeviceTimeError(Exception):
    """The profile does not tell how long the device took."""


class DeviceTime(NamedTuple):
    """What the device did for one call.

    Attributes:
        span: seconds from the beginning of the first kernel or copy to the end of the last one.
        busy: seconds of these in which at least one ran.
        num_events: kernels and copies.
    """

    span: float
    busy: float
    num_events: int


def device_times(
    runs: Mapping[str, Callable[[], Any]], rounds: int, *, pause: float = PAUSE
) -> dict[str, list[DeviceTime]]:
    """Times every run once a round on the device, interleaved as by `timing.interleave`.

    Args:
        runs: name -> a function that returns when its work is done; called before, so that nothing
            is compiled any more.
        rounds: how often each is timed.
        pause: seconds between calls.

    Returns:
        name -> what the device did, one entry for each round.

    Raises:
        NoDeviceTimeError: if the profile shows no device, or other than one group of events for
            each call.
    """
    calls: list[str] = []

    def noted(name: str) -> Callable[[], Any]:
        def call() -> None:
            calls.append(name)
            runs[name]()

        return call

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Every Python call would be an event.
    options.host_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            timing.interleave({name: noted(name) for name in runs}, rounds, warmup=0, pause=pause)
        files = list(pathlib.Path(folder).rglob("*.xplane.pb"))
        if not files:
            raise NoDeviceTimeError("the profiler wrote no trace")
        profile = jax.profiler.ProfileData.from_file(str(files[0]))
        groups = split_calls(device_events(profile), 1e9 * pause / 2)
    if len(groups) != len(calls):
        raise NoDeviceTimeError(
            f"the profile shows {len(groups)} groups of device events for {len(calls)} calls"
        )
    times: dict[str, list[DeviceTime]] = {name: [] for name in runs}
    for name, events in zip(calls, groups, strict=True):
        times[name].append(summarize(events))
    return times


def device_events(profile: Any) -> np.ndarray:
    """Beginning and end [ns] of all that ran on the devices of a profile, [N, 2], in order."""
    events = []
    for plane in profile.planes:
        if plane.name.startswith(("/device:GPU", "/device:TPU")):
            lines = list(plane.lines)
            # A GPU has a line for each stream, a TPU one of operations; the others repeat them.
            chosen = [line for line in lines if line.name.startswith(("Stream", "XLA Ops"))]
            for line in chosen or lines:
                events += [(event.start_ns, event.end_ns) for event in line.events]
    array = np.array(events, np.float64).reshape(-1, 2)
    return array[np.argsort(array[:, 0], kind="stable")]


def split_calls(events: np.ndarray, gap: float) -> list[np.ndarray]:
    """The events in groups between which nothing runs for longer than the gap [ns]."""
    if not len(events):
        return []
    ends = np.maximum.accumulate(events[:, 1])
    first = np.flatnonzero(events[1:, 0] - ends[:-1] > gap) + 1
    return np.split(events, first)


def summarize(events: np.ndarray) -> DeviceTime:
    """Span and busy time of one group of events."""
    ends = np.maximum.accumulate(events[:, 1])
    idle = np.maximum(events[1:, 0] - ends[:-1], 0).sum()
    span = ends[-1] - events[0, 0]
    return DeviceTime(1e-9 * span, 1e-9 * (span - idle), len(events))
