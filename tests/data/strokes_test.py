import gzip
import json
import os

import numpy as np
import pytest

from grnn_jax.data.codec import EventType
from grnn_jax.data.formats import codec_from_dict, load_file, load_splits
from grnn_jax.data.strokes import StrokesCodec
from grnn_jax.errors import InputError

STROKES = [[[3, 4], [5, 4], [5, 8.5]], [[0, 0]], [[-1, 2], [-3, 2]]]
ROWS = [[3, 4, 0], [2, 0, 0], [0, 4.5, 1], [-5, -8.5, 1], [-1, 2, 0], [-2, 0, 1]]


def write_json(path, values):
    path.write_text(json.dumps(values))
    return str(path)


def drawings(count, seed=0):
    rng = np.random.default_rng(seed)
    found = np.empty(count, object)
    for i in range(count):
        rows = rng.integers(-9, 10, (rng.integers(1, 12), 3))
        rows[:, 2] = rng.random(len(rows)) < 0.3
        found[i] = rows.astype(np.int16)
    return found


def of_split(corpus):
    """Rows [T, 3] of each sequence."""
    rows = np.column_stack([corpus.events["offset"], corpus.events["pen"]])
    return np.split(rows, corpus.offsets[1:-1])


def test_splits_of_an_npz(tmp_path):
    splits = {"train": drawings(20), "valid": drawings(5, 1), "test": drawings(6, 2)}
    np.savez(tmp_path / "d.npz", **splits)
    found = load_splits(data=str(tmp_path / "d.npz"), format="strokes", cache_dir=tmp_path / "c")
    for split, expected in splits.items():
        corpus = getattr(found, split)
        assert corpus.num_sequences == len(expected)
        for rows, drawing in zip(of_split(corpus), expected, strict=True):
            np.testing.assert_array_equal(rows[:-1], drawing)
            np.testing.assert_array_equal(rows[-1], [0, 0, 2])
    offsets = [
        value for drawing in splits["train"] for row in drawing for value in row[:2].tolist()
    ]
    mean = sum(offsets) / len(offsets)
    scale = (sum((x - mean) ** 2 for x in offsets) / len(offsets)) ** 0.5
    assert found.codec.event_type == EventType("pen", (), {"scale": pytest.approx(scale)})
    assert found.train.events["offset"].dtype == np.float32
    again = codec_from_dict(json.loads(json.dumps(found.codec.to_dict())))
    assert again == found.codec
    corpus = load_file(str(tmp_path / "d.npz"), "strokes", again)
    assert corpus.num_sequences == 31


def test_the_end_is_an_event_once(tmp_path):
    path = write_json(tmp_path / "d.json", [ROWS] * 9 + [[]])
    for model_end in (False, True):
        found = load_splits(
            data=path, format="strokes", valid_fraction=0, test_fraction=0, model_end=model_end
        )
        assert not found.codec.wraps_end
        assert [len(rows) for rows in of_split(found.train)] == [len(ROWS) + 1] * 9 + [1]


@pytest.mark.parametrize("drawing", [STROKES, ROWS])
def test_json(tmp_path, drawing):
    path = write_json(tmp_path / "d.json", {"train": [drawing, drawing], "test": [drawing]})
    found = load_splits(data=path, format="strokes")
    assert found.valid is None and found.test.num_sequences == 1
    for rows in of_split(found.train):
        np.testing.assert_allclose(rows[:-1], ROWS)
    # The points come back, and the pen is lifted at the end of each stroke.
    points = rows[:-1, :2].cumsum(0)
    strokes = np.split(points, np.flatnonzero(rows[:-1, 2]) + 1)[:-1]
    assert [stroke.tolist() for stroke in strokes] == STROKES


def quick_draw(drawing, times=False):
    """A drawing of points as Quick Draw has it."""
    return [
        [[x for x, _ in stroke], [y for _, y in stroke]]
        + ([[17 * i for i in range(len(stroke))]] if times else [])
        for stroke in drawing
    ]


PAIRS = [[[0, 10], [255, 10]], [[5, 7], [100, 90]]]


@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("name", ["d.ndjson", "d.ndjson.gz", "d.jsonl", "d.json", "list.json"])
def test_quick_draw(tmp_path, name, times):
    drawn = [STROKES, PAIRS, [[[1, 2]]]]
    values = [quick_draw(drawing, times) for drawing in drawn]
    records = [{"word": "a", "recognized": True, "drawing": value} for value in values]
    text = "\n".join(map(json.dumps, records)) + "\n\n"
    if name.endswith("json") and "nd" not in name:
        text = json.dumps(values if name == "list.json" else records)
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    path = str(tmp_path / name)
    corpus = load_splits(data=path, format="strokes", valid_fraction=0, test_fraction=0).train
    expected = load_splits(
        data=write_json(tmp_path / "p.json", drawn),
        format="strokes",
        valid_fraction=0,
        test_fraction=0,
    ).train
    assert corpus.offsets.tolist() == expected.offsets.tolist()
    for rows, same in zip(of_split(corpus), of_split(expected), strict=True):
        np.testing.assert_array_equal(rows, same)


def test_two_pairs_of_numbers_may_be_either(tmp_path):
    path = write_json(tmp_path / "d.json", [PAIRS, PAIRS])
    settings = {"data": path, "format": "strokes", "valid_fraction": 0, "test_fraction": 0}
    with pytest.raises(InputError, match="two points .* or .* as in Quick Draw; as_is=true takes"):
        load_splits(**settings)
    as_points = load_splits(**settings, options={"as_is": True})
    assert of_split(as_points.train)[0][:2].tolist() == [[0, 10, 0], [255, 0, 1]]
    # Runs of earlier versions read points, and their codec does not say.
    description = as_points.codec.to_dict()
    del description["as_is"]
    old = codec_from_dict(description)
    assert load_splits(**settings, codec_object=old).train.num_sequences == 2
    assert load_file(path, "strokes", old).num_sequences == 2
    # Where one stroke of the file has more points there is no doubt.
    other = write_json(tmp_path / "e.json", [PAIRS, STROKES])
    assert of_split(load_splits(**settings | {"data": other}).train)[0][1].tolist() == [255, 0, 1]
    write_json(tmp_path / "e.json", [PAIRS, STROKES, quick_draw(STROKES)])
    message = r"drawing 1, stroke 1 is a list of points \[x, y\], .*drawing 2, stroke 0 is \[\[x"
    with pytest.raises(InputError, match=message):
        load_splits(**settings | {"data": other})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"word": "a"}', r"line 2: expected an object .* 'drawing'; its keys are 'word'"),
        ('{"drawing": [[[1, 2], [1]]]}', r"line 2, stroke 0: expected \[\[x, …\], \[y, …\]\]"),
        ('{"drawing": [[["1", "2"], ["1", "3"]]]}', "line 2, stroke 0: .* all of them numbers"),
        ('{"drawing": [[[1e999, 2], [1, 2]]]}', "row 0, Δx: expected a finite number, got inf"),
        ("{", "line 2: "),
    ],
)
def test_bad_quick_draw(tmp_path, line, message):
    (tmp_path / "d.ndjson").write_text(json.dumps({"drawing": quick_draw(STROKES)}) + "\n" + line)
    with pytest.raises(InputError, match=message):
        load_splits(data=str(tmp_path / "d.ndjson"), format="strokes", test_fraction=0)
    (tmp_path / "d.txt").write_text('{"drawing": []}\n{"drawing": []}\n')
    with pytest.raises(InputError, match=r"name it \.ndjson"):
        load_splits(data=str(tmp_path / "d.txt"), format="strokes")


def test_nothing_of_a_pickle_is_executed(tmp_path):
    class Attack:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    array = np.empty(1, object)
    array[0] = Attack()
    np.savez(tmp_path / "d.npz", train=array)
    with pytest.raises(InputError, match="which is not an array"):
        load_splits(data=str(tmp_path / "d.npz"), format="strokes")
    assert not (tmp_path / "executed").exists()
    with np.load(tmp_path / "d.npz", allow_pickle=True) as file:
        assert file["train"].shape == (1,)
    assert (tmp_path / "executed").exists()  # As would have happened without care.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[[[0, 1], [2]]]], r"drawing 0, stroke 0, point 1: expected \[x, y\], .* got \[2\]"),
        ([STROKES, [[[0, 1, 2]]]], r"drawing 1, stroke 0, point 0: expected \[x, y\]"),
        ([STROKES, [[[0, 1]], []]], r"drawing 1, stroke 1: expected a list of points"),
        ([[[0, 1]]], r"drawing 0, row 0: expected \[Δx, Δy, lifted\], .* got \[0, 1\]"),
        ([[[0, 1, "a"]]], r"drawing 0, row 0: .* got \[0, 1, 'a'\]"),
        ([ROWS, [[0, 1, 0], [0, 1, 2]]], r"drawing 1, row 1, pen: expected 0 .* got 2"),
        ([[[0, 1, 0], [float("nan"), 1, 0]]], r"row 1, Δx: expected a finite number, got nan"),
        ([[[0, 1, 0], ["0", "1", "0"]]], r"row 1: .* all of them numbers, got \['0', '1', '0'\]"),
        ([[[0, 1, 10**400]]], r"drawing 0: expected .*, all of them numbers"),
        ([7], "drawing 0: expected a list of strokes"),
        ({"valid": []}, "expected a list of drawings, or an object with lists train"),
        ({"train": 3}, "train: expected a list of drawings, got int"),
        ([[[1, 1, 0], [1, 1, 0]]], "no two offsets that differ"),
    ],
)
def test_bad_json(tmp_path, values, message):
    path = write_json(tmp_path / "d.json", values)
    with pytest.raises(InputError, match=message):
        load_splits(data=path, format="strokes", valid_fraction=0, test_fraction=0)


def test_bad_files(tmp_path):
    (tmp_path / "d.txt").write_text("1 2 3")
    with pytest.raises(InputError, match=r"d\.txt is neither \.npz nor readable JSON"):
        StrokesCodec.read(str(tmp_path / "d.txt"), "data", {})
    np.savez(tmp_path / "d.npz", train=np.zeros((4, 9, 5)))
    message = r"d\.npz, train\[0\]: expected an array \[T, 3\], got \[9, 5\]"
    with pytest.raises(InputError, match=message):
        StrokesCodec.read(str(tmp_path / "d.npz"), "data", {})


def test_a_file_of_pairs_is_scored_as_points_where_that_is_asked_for(tmp_path):
    good = write_json(tmp_path / "good.json", [STROKES] * 3)
    codec = load_splits(data=good, format="strokes", valid_fraction=0, test_fraction=0).codec
    pairs = write_json(tmp_path / "pairs.json", [PAIRS])
    with pytest.raises(InputError, match="as_is=true takes them as points"):
        load_file(pairs, "strokes", codec)
    assert of_split(load_file(pairs, "strokes", codec, as_is=True))[0][1].tolist() == [255, 0, 1]
