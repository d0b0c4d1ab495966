"""Pictures, by what stands on their axes."""

import json
import math

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from grnn_jax.cli import plots
from grnn_jax.cli.writers import pictures
from grnn_jax.errors import InputError


@pytest.fixture
def figures(monkeypatch):
    """The figures that were written."""
    seen, save = [], plots.save

    def remember(figure, path):
        seen.append(figure)
        return save(figure, path)

    monkeypatch.setattr(plots, "save", remember)
    monkeypatch.setattr(pictures, "save", remember)
    return seen


def write_run(folder, train, valid=()):
    folder.mkdir(parents=True)
    records = [
        {"kind": kind, "step": step, "nats_per_event": nats}
        for kind, curve in (("train", train), ("valid", valid))
        for step, nats in curve
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


def test_the_learning_curve_of_a_run(tmp_path, figures):
    assert plots.plot_learning_curve(tmp_path) is None
    train = [(step, 1 + 9 / step) for step in range(1, 100)]
    run = write_run(
        tmp_path / "run", [*train, (100, None), (101, math.nan)], [(50, 1.5), (99, 1.2)]
    )
    path = plots.plot_learning_curve(run)
    assert path == run / "learning_curve.png" and path.read_bytes().startswith(b"\x89PNG")
    found = {line.get_label(): line.get_xydata().tolist() for line in figures[0].axes[0].lines}
    assert found == {"train": [list(x) for x in train], "valid": [[50, 1.5], [99, 1.2]]}
    # The first steps would press the rest flat; all others are inside.
    low, high = figures[0].axes[0].get_ylim()
    assert low < 1 + 9 / 99 and 1 + 9 / 6 < high < 5


def test_the_learning_curves_of_several_runs(tmp_path, figures):
    names = ("lstm/a", "gru/a", "gru/b")
    for number, name in enumerate(names):
        valid = [(1, 2.0 + number), (2, 1.0 + number)] if name != "gru/b" else []
        write_run(tmp_path / name, [(1, 3.0 + number), (2, 2.0)], valid)
    plots.plot_learning_curves([tmp_path / name for name in names], tmp_path / "c.png")
    lines = {}
    for line in figures[0].axes[0].lines:
        lines.setdefault(to_rgba(line.get_color()), []).append(line)
    assert len(lines) == 3
    assert [[len(line.get_xdata()) for line in group] for group in lines.values()] == [
        [2, 2], [2, 2], [2],
    ]  # fmt: skip
    assert [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()] == list(names)
    with pytest.raises(InputError, match=r"no metrics in .*nothing"):
        plots.plot_learning_curves([tmp_path / "nothing"], tmp_path / "c.png")
    with pytest.raises(InputError, match=r"cannot write .*c\.png: No such file"):
        plots.plot_learning_curves([tmp_path / "gru/a"], tmp_path / "no" / "c.png")


def panels(figure):
    """For each group of a picture its title and its axes in use."""
    return [
        (part.get_suptitle(), [axes for axes in part.axes if axes.has_data()])
        for part in figure.subfigs
    ]


def test_piano_rolls(tmp_path, figures):
    roll = np.zeros((8, 128), int)
    roll[2:4, 60] = 1
    roll[4:6, 48] = 2
    long = np.ones((1000, 128), int)
    pictures.plot_piano_rolls(tmp_path / "r.png", [roll, long], 2, [roll, roll, roll])
    (left, data), (right, samples) = panels(figures[0])
    assert (left, right, len(data), len(samples)) == ("held-out data", "samples", 2, 2)
    image = samples[0].images[0]
    rgba = image.cmap(image.norm(image.get_array()))
    colors = {tuple(color) for color in rgba.reshape(-1, 4)}
    assert len(colors) == 3  # Silence and two voices.
    # Pixel [pitch, frame], from 0 to 4 beats; pitches upwards.
    white = rgba[0, 0]
    sounding = np.argwhere((rgba != white).any(-1)).tolist()
    assert sounding == [[48, 4], [48, 5], [60, 2], [60, 3]]
    assert image.get_extent()[:2] == [0, 4] and image.origin == "lower"
    assert samples[1].images[0].get_array().shape == (128, 128)  # 64 beats of two frames.
    labels = dict(zip(samples[0].get_yticks(), samples[0].get_yticklabels(), strict=True))
    assert labels[60].get_text() == "C4"  # Middle C.


def test_strokes(tmp_path, figures):
    strokes = [np.array([[0, 0], [3, 4.0]]), np.array([[9.0, 9.0]])]
    pictures.plot_strokes(tmp_path / "s.png", [strokes] * 5 + [[]])
    ((title, cells),) = panels(figures[0])
    assert title == "" and len(cells) == 5
    for axes in cells:
        np.testing.assert_array_equal([line.get_xydata() for line in axes.lines[:1]], strokes[:1])
        assert axes.lines[1].get_marker() == "."
        low, high = axes.get_ylim()
        assert low > high  # y points down.


def test_images(tmp_path, figures):
    image = np.linspace(0, 1, 12).reshape(3, 4)
    image[2, 3] = np.nan
    pictures.plot_images(tmp_path / "i.png", [image] * 2, [1 - image])
    (_, data), (_, samples) = panels(figures[0])
    assert (len(data), len(samples)) == (1, 2)
    shown = samples[1].images[0]
    rgba = shown.cmap(shown.norm(shown.get_array()))
    # Black to white whatever the image holds, and no grey where nothing was drawn.
    np.testing.assert_allclose(rgba[:2, :, 0], image[:2], atol=1 / 255)
    assert rgba[2, 3, 0] != rgba[2, 3, 2]


def test_rasters(tmp_path, figures):
    sequence = np.array([1.0, 2.5, 7.0]), np.array([0, 1, 0])
    pictures.plot_rasters(
        tmp_path / "e.png", [sequence] * 3, ["a", "b"], [(sequence[0], sequence[1])], unit="days"
    )
    data, samples = figures[0].axes
    assert (data.get_title(), samples.get_title()) == ("held-out data", "samples")
    assert samples.get_xlabel() == "time (days)"
    assert (len(data.collections), len(samples.collections)) == (1, 3)
    for row, ticks in enumerate(samples.collections):
        np.testing.assert_array_equal(ticks.get_offsets(), [[t, row] for t in sequence[0]])
        first, second, third = map(tuple, ticks.get_edgecolor())
        assert first == third != second
    (legend,) = figures[0].legends
    texts, lines = legend.get_texts(), legend.get_lines()
    names = [text.get_text() for text in texts]
    assert dict(zip(names, [to_rgba(line.get_color()) for line in lines], strict=True)) == {
        "a": first,
        "b": second,
    }
    pictures.plot_rasters(tmp_path / "u.png", [(sequence[0], None), (np.zeros(0), None)])
    assert not figures[1].legends


def test_fans(tmp_path, figures):
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=(length, 2)) for length in (30, 30, 30, 30, 30, 10, 40)]
    pictures.plot_fans(tmp_path / "f.png", samples, ["x", "y"], samples[:4])
    axes = np.array(figures[0].axes).reshape(2, 2)
    assert [a.get_ylabel() for a in axes[:, 0]] == ["x", "y"]
    median = next(line for line in axes[1, 1].lines if line.get_label() == "median")
    expected = np.full(40, np.nan)
    expected[:10] = np.median([s[:10, 1] for s in samples], axis=0)
    # From 30 on one series is left, whose quantiles mean nothing.
    expected[10:30] = np.median([s[10:30, 1] for s in samples if len(s) >= 30], axis=0)
    np.testing.assert_allclose(median.get_ydata(), expected)
    bands = {band.get_label(): band.get_paths() for band in axes[1, 1].collections}
    assert list(bands) == ["5 to 95 %", "25 to 75 %"]
    heights = [np.concatenate([p.vertices for p in paths])[:, 1] for paths in bands.values()]
    assert heights[0].min() < heights[1].min() < heights[1].max() < heights[0].max()


def test_nothing_to_draw_is_drawn(tmp_path, figures):
    pictures.plot_piano_rolls(tmp_path / "a.png", [np.zeros((0, 128), int)], 2)
    pictures.plot_strokes(tmp_path / "b.png", [[]])
    pictures.plot_rasters(tmp_path / "c.png", [(np.zeros(0), None)])
    pictures.plot_fans(tmp_path / "d.png", [np.zeros((0, 1))], ["x"])
    assert len(list(tmp_path.glob("*.png"))) == len(figures) == 4
