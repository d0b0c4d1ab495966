"""Samples of formats that nothing else is known of: a JSON object a line."""

from pathlib import Path

from grnn_jax.cli.targets import Target, text_file
from grnn_jax.data import Codec


def to_file(codec: Codec, path: Path, num_samples: int) -> Target:
    """A file of lines, each with the events of a sample (`Codec.decode`), nats and num_events.

    Args:
        codec: the codec of the run.
        path: the file.
        num_samples: number of samples.

    Returns:
        Where samples go, as the lines that they are.
    """
    del codec, num_samples
    return text_file(path)


def to_folder(codec: Codec, folder: Path, num_samples: int) -> Target:
    """The file samples.jsonl."""
    return to_file(codec, folder / "samples.jsonl", num_samples)._replace(folder=folder)
