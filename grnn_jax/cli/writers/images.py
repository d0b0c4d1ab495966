"""Images as an array."""

from pathlib import Path

import numpy as np

from grnn_jax.cli.targets import Target, array_file
from grnn_jax.cli.writers.pictures import plot_images
from grnn_jax.data.corpus import Events
from grnn_jax.data.images import ImagesCodec


def brightness(codec: ImagesCodec, events: Events) -> np.ndarray:
    """An image [H, W] of values from 0 to 1; pixels that were not drawn are NaN."""
    pixels = np.full(codec.height * codec.width, np.nan)
    levels = np.asarray(events, np.float64)[: len(pixels)]
    pixels[: len(levels)] = levels / (codec.levels - 1)
    return pixels.reshape(codec.height, codec.width)


def pixel_type(codec: ImagesCodec) -> np.dtype:
    """The type of the pixels of the data: booleans, floats in [0, 1], levels, or bytes."""
    named = {"bool": np.bool_, "unit": np.float32, "bytes": np.uint8}
    return np.dtype(named.get(codec.pixels, np.uint8 if codec.levels <= 256 else np.uint16))


def to_pixels(codec: ImagesCodec, image: np.ndarray) -> np.ndarray:
    """Brightness as the pixels of the data: encoding them gives the levels back.

    Args:
        codec: the codec of the run.
        image: values from 0 to 1, multiples of 1 / (levels - 1); NaN becomes 0.

    Returns:
        Pixels of the type that the codec says.
    """
    image = np.nan_to_num(image)
    if codec.pixels == "bool":
        return image >= 0.5
    if codec.pixels != "unit":
        image = np.round(image * (255 if codec.pixels == "bytes" else codec.levels - 1))
    return image.astype(pixel_type(codec))


def to_npz(codec: ImagesCodec, path: Path, num_samples: int) -> Target:
    """One array, samples [N, H, W]; pixels that were not drawn are zeros."""
    del num_samples
    return array_file(
        path,
        pixel_type(codec),
        (codec.height, codec.width),
        lambda events: to_pixels(codec, brightness(codec, events)),
    )


def to_folder(codec: ImagesCodec, folder: Path, num_samples: int) -> Target:
    """The file samples.npz."""
    return to_npz(codec, folder / "samples.npz", num_samples)._replace(folder=folder)


def plot(codec: ImagesCodec, samples: list[Events], data: list[Events], path: Path) -> Path:
    """Draws a grid; white is the brightest pixel of the data, which need not use every level."""
    images, others = ([brightness(codec, events) for events in each] for each in (samples, data))
    brightest = np.nanmax(others or images) or 1.0
    images, others = ([image / brightest for image in each] for each in (images, others))
    return plot_images(path, images, others)
