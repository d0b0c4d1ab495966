"""Music as MIDI files, as arrays or JSON, and pictures of it."""

import json
from pathlib import Path

import numpy as np

from grnn_jax.cli.targets import (
    Target,
    array_file,
    json_list_file,
    numbered_files,
    with_files_beside,
)
from grnn_jax.cli.writers.pictures import plot_piano_rolls
from grnn_jax.data.corpus import Events
from grnn_jax.data.midi import write_midi
from grnn_jax.data.pianoroll import LOWEST_PITCH, NUM_KEYS, PianorollCodec
from grnn_jax.data.voices import REST, VoicesCodec

MusicCodec = PianorollCodec | VoicesCodec


def tracks(codec: MusicCodec, events: Events) -> list[np.ndarray]:
    """The piano rolls [T, 88] of bits of a tune: one, or one for each voice.

    Args:
        codec: the codec of the run.
        events: bits [T, 88], or classes [T, voices] with 0 for silence.

    Returns:
        The rolls; a pitch outside the piano is left out.
    """
    if isinstance(codec, PianorollCodec):
        return [np.asarray(events, np.uint8)]
    rolls = []
    for classes in np.asarray(events, np.int64).T:
        keys = classes - 1 + codec.lowest_pitch - LOWEST_PITCH
        roll = np.zeros((len(keys), NUM_KEYS), np.uint8)
        frames = np.flatnonzero((classes > 0) & (keys >= 0) & (keys < NUM_KEYS))
        roll[frames, keys[frames]] = 1
        rolls.append(roll)
    return rolls


def to_npz(codec: PianorollCodec, path: Path, num_samples: int) -> Target:
    """Rolls as arrays samples [N, T, 88] of bits and lengths [N]; zeros follow the end of one."""
    del codec, num_samples
    return array_file(path, np.uint8, (None, NUM_KEYS), np.asarray)


def to_json(codec: VoicesCodec, path: Path, num_samples: int) -> Target:
    """A list of tunes, each a list of frames, those lists of MIDI pitches; -1 for silence."""
    del num_samples

    def tune(events: Events) -> str:
        classes = np.asarray(events, np.int64)
        return json.dumps(np.where(classes, classes - 1 + codec.lowest_pitch, REST).tolist())

    return json_list_file(path, tune)


def voices_to_folder(codec: VoicesCodec, folder: Path, num_samples: int) -> Target:
    """A MIDI file a sample, and the file samples.json; either is read back."""
    files = to_folder(codec, folder, num_samples)
    return with_files_beside(to_json(codec, folder / "samples.json", num_samples), files, folder)


def to_folder(codec: MusicCodec, folder: Path, num_samples: int) -> Target:
    """A MIDI file a sample, with a track for each voice."""

    def write_one(path: Path, events: Events) -> None:
        write_midi(path, tracks(codec, events), codec.frames_per_beat)

    return numbered_files(folder, "mid", num_samples, write_one)


def plot(codec: MusicCodec, samples: list[Events], data: list[Events], path: Path) -> Path:
    """Draws piano rolls."""

    def picture(events: Events) -> np.ndarray:
        """Pitches [T, 128]; where voices meet, the last one is seen."""
        pixels = np.zeros((len(events), 128), np.int64)
        keys = pixels[:, LOWEST_PITCH : LOWEST_PITCH + NUM_KEYS]
        for number, roll in enumerate(tracks(codec, events), start=1):
            keys[roll > 0] = number
        return pixels

    pictures, others = ([picture(events) for events in each] for each in (samples, data))
    return plot_piano_rolls(path, pictures, codec.frames_per_beat, others)
