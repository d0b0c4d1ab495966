import json

import numpy as np
import pytest

from grnn_jax.data.codec import EventType
from grnn_jax.data.formats import codec_from_dict, load_file, load_splits
from grnn_jax.errors import InputError


def load(tmp_path, train, levels=2, **others):
    np.savez(tmp_path / "i.npz", train=train, **others)
    return load_splits(data=str(tmp_path / "i.npz"), format="images", options={"levels": levels})


def test_splits_and_order_of_pixels(tmp_path):
    images = np.arange(5 * 2 * 3).reshape(5, 2, 3).astype(np.uint8)
    splits = load(tmp_path, images[:3], 32, valid=images[3:4], test=images[4:], labels=np.zeros(9))
    assert splits.codec.event_type == EventType("levels", (32,))
    assert (splits.codec.height, splits.codec.width) == (2, 3)
    # Levels in the order of the file: row after row, each from left to right.
    found = np.concatenate([np.asarray(c.events) for c in splits[:3]])
    assert found.tolist() == list(range(30))
    assert splits.train.offsets.tolist() == [0, 6, 12, 18]
    again = codec_from_dict(json.loads(json.dumps(splits.codec.to_dict())))
    assert again == splits.codec
    np.save(tmp_path / "one.npy", images[2])
    one = load_file(str(tmp_path / "one.npy"), "images", again)
    assert one.events.tolist() == list(range(12, 18)) and one.num_sequences == 1


def test_one_array_is_dealt(tmp_path):
    np.save(tmp_path / "i.npy", np.random.default_rng(0).random((40, 3, 3)) < 0.5)
    splits = load_splits(
        data=str(tmp_path / "i.npy"),
        format="images",
        valid_fraction=0.25,
        test_fraction=0.25,
        options={"levels": 2},
    )
    assert [c.num_sequences for c in splits[:3]] == [20, 10, 10]


@pytest.mark.parametrize("levels", [2, 8, 128])
def test_bytes_fill_equal_bins(tmp_path, levels):
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    found = load(tmp_path, image, levels).train.events
    assert found.tolist() == np.repeat(np.arange(levels), 256 // levels).tolist()


def test_256_levels_are_the_bytes(tmp_path):
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert load(tmp_path, image, 256).train.events.tolist() == list(range(256))
    assert load(tmp_path, image[:, :4], 256).train.events.tolist() == list(range(64))


def test_many_levels(tmp_path):
    image = np.array([[[0, 65535]]], np.uint16)
    assert load(tmp_path, image, 65536).train.events.tolist() == [0, 65535]


@pytest.mark.parametrize("levels", [2, 4, 16])
def test_floats_fill_equal_bins(tmp_path, levels):
    values = np.linspace(0, 1, 41).astype(np.float32)
    found = load(tmp_path, values.reshape(1, 1, -1), levels).train.events
    edges = np.arange(1, levels) / levels  # A value on an edge belongs above it.
    assert found.tolist() == np.digitize(values, edges).tolist()
    assert found.max() == levels - 1


def test_booleans(tmp_path):
    image = np.array([[[True, False]]])
    assert load(tmp_path, image).train.events.tolist() == [1, 0]
    assert load(tmp_path, image, 16).train.events.tolist() == [15, 0]


def test_training_images_decide_what_integers_are(tmp_path):
    low, high = np.array([[[0, 1]]]), np.array([[[0, 255]]])
    splits = load(tmp_path, high, valid=low)
    assert splits.valid.events.tolist() == [0, 0] and splits.train.events.tolist() == [0, 1]
    message = r"valid\[0\], row 0, column 1: expected integers in 0 \.\. 1, got 255"
    with pytest.raises(InputError, match=message):
        load(tmp_path, low, valid=high)


@pytest.mark.parametrize(
    ("train", "others", "levels", "message"),
    [
        (np.zeros((1, 2, 2)), {}, 3, "levels must be a power of two from 2 to 65536, got 3"),
        (np.zeros((1, 2, 2, 3)), {}, 2, r"train\[0\]: expected an image \[H, W\], got \[2, 2, 3\]"),
        (np.full((1, 2, 2), 1.5), {}, 2, r"row 0, column 0: expected floats in \[0, 1\], got 1.5"),
        (np.full((1, 2, 2), np.nan), {}, 2, r"expected floats in \[0, 1\], got nan"),
        (np.full((1, 2, 2), 256), {}, 2, r"expected integers in 0 \.\. 255, got 256"),
        (np.full((1, 2, 2), -1), {}, 2, r"expected integers in 0 \.\. 1, got -1"),
        (np.full((1, 2, 2), "a"), {}, 2, r"train\[0\]: expected an image of numbers, got <U1"),
        (
            np.zeros((2, 2, 2)),
            {"test": np.zeros((1, 2, 3))},
            2,
            r"test\[0\]: expected an image \[2, 2\], as the first .* got \[2, 3\]",
        ),
        (
            np.zeros((2, 2, 2)),
            {"test": np.zeros((1, 2, 2), int)},
            2,
            r"test\[0\]: expected floats in \[0, 1\] as in training, got int64",
        ),
    ],
)
def test_bad_images(tmp_path, train, others, levels, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, train, levels, **others)


def test_other_files(tmp_path):
    (tmp_path / "i.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"expected an \.npz or \.npy file of images, got .*png"):
        load_splits(data=str(tmp_path / "i.png"), format="images", options={"levels": 2})


def test_flat_images_are_not_one_image(tmp_path):
    flat = np.random.default_rng(0).integers(0, 2, (10, 16))
    message = (
        r"train: expected images \[N, H, W\], got \[10, 16\], .* 10 images .* \[10, 4, 4\]; as_is"
    )
    with pytest.raises(InputError, match=message):
        load(tmp_path, flat)
    np.savez(tmp_path / "i.npz", train=flat)
    settings = {"data": str(tmp_path / "i.npz"), "format": "images"}
    splits = load_splits(**settings, options={"levels": 2, "as_is": True})
    assert (splits.codec.height, splits.codec.width) == (10, 16)
    description = splits.codec.to_dict()
    del description["as_is"]  # As in a run of an earlier version.
    old = codec_from_dict(description)
    assert load_splits(**settings, options={"levels": 2}, codec_object=old).train.num_events == 160
    assert load(tmp_path, flat.reshape(10, 4, 4)).train.num_sequences == 10
    for one in (np.zeros((16, 16)), np.zeros((9, 15)), np.zeros((1, 9, 16))):
        assert load(tmp_path, one).train.num_sequences == 1
