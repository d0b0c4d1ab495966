"""Good files of every format, which the attacks damage."""

import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

import mido
import numpy as np

WORDS = ("an", "old", "cat", "säße", "there", "and", "Σοφός")
MOLECULES = ("CCO", "c1ccccc1", "CC(=O)O", "N#N", "C[C@H](N)C(=O)O")


class Seed(NamedTuple):
    """A file, or a folder of files, and how it is read.

    Attributes:
        path: where it lies.
        format: its format.
        settings: further settings by name.
    """

    path: Path
    format: str
    settings: dict[str, Any] = {}


def _object_array(items) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _notes(path: Path, rng: np.random.Generator) -> None:
    """A MIDI file of two voices with a change of tempo."""
    file = mido.MidiFile(ticks_per_beat=96)
    for channel in range(2):
        track = mido.MidiTrack()
        track.append(mido.MetaMessage("set_tempo", tempo=400_000))
        for pitch in rng.integers(40, 80, 12):
            track.append(mido.Message("note_on", note=int(pitch), channel=channel, time=24))
            track.append(mido.Message("note_off", note=int(pitch), channel=channel, time=72))
        file.tracks.append(track)
    file.save(path)


def _text_files(folder: Path, rng: np.random.Generator) -> list[Seed]:
    lines = [" ".join(rng.choice(WORDS, 4)) for _ in range(60)]
    text = "\n".join(lines) + "\n"
    (folder / "text.txt").write_text(text, encoding="utf-8")
    (folder / "text.txt.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "mark.txt").write_text(text, encoding="utf-8-sig")
    molecules = [str(molecule) for molecule in rng.choice(MOLECULES, 40)]
    (folder / "molecules.smi").write_text("".join(f"{m} id{i}\n" for i, m in enumerate(molecules)))
    (folder / "molecules.txt").write_text("".join(f"{molecule}\n" for molecule in molecules))
    table = "name,note\n" + "".join(f'"{line}",{i}\n' for i, line in enumerate(lines))
    (folder / "table.csv").write_text(table, encoding="utf-8")
    (folder / "table.tsv").write_text(
        "name\tnote\n" + "".join(f"{line}\t{i}\n" for i, line in enumerate(lines)), encoding="utf-8"
    )
    objects = "".join(json.dumps({"name": line, "n": [i]}) + "\n" for i, line in enumerate(lines))
    (folder / "objects.jsonl").write_text(objects)
    (folder / "objects.jsonl.gz").write_bytes(gzip.compress(objects.encode()))
    proteins = "".join(f">p{i}\nMKV{'LAG' * (i % 5)}\nTTE\n" for i in range(40))
    (folder / "proteins.fasta").write_text(proteins)
    column = {"column": "name"}
    return [
        Seed(folder / "text.txt", "text"),
        Seed(folder / "text.txt", "text", {"codec": "words"}),
        Seed(folder / "text.txt", "text", {"codec": "bytes"}),
        Seed(folder / "text.txt.gz", "text"),
        Seed(folder / "mark.txt", "lines"),
        Seed(folder / "text.txt.gz", "lines"),
        Seed(folder / "molecules.txt", "lines", {"codec": "smiles"}),
        Seed(folder / "molecules.smi", "lines", {"codec": "smiles", "column": "1"}),
        Seed(folder / "table.csv", "lines", column),
        Seed(folder / "table.tsv", "lines", column),
        Seed(folder / "objects.jsonl", "lines", column),
        Seed(folder / "objects.jsonl.gz", "lines", column),
        Seed(folder / "proteins.fasta", "lines"),
    ]


def _tables(folder: Path, rng: np.random.Generator) -> list[Seed]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    series = {
        "store": [f"s{i}" for i in range(6) for _ in range(10)],
        "x": rng.normal(size=60).round(3).tolist(),
        "y": rng.integers(0, 50, 60).tolist(),
    }
    events = {
        "sequence": [f"s{i}" for i in range(6) for _ in range(10)],
        "time": np.sort(rng.uniform(0, 9, (6, 10)), axis=1).round(4).ravel().tolist(),
        "mark": rng.choice(["a", "b", "c"], 60).tolist(),
    }
    lines = [" ".join(rng.choice(WORDS, 4)) for _ in range(60)]
    for name, columns in (("series", series), ("events", events), ("strings", {"name": lines})):
        rows = [
            ",".join(columns),
            *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True)),
        ]
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(("\n".join(rows) + "\n").encode()))
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return [
        Seed(folder / "strings.parquet", "lines", {"column": "name"}),
        *(
            Seed(folder / f"series.{kind}", "series", {"options": {"sequence_column": "store"}})
            for kind in ("csv", "parquet")
        ),
        *(Seed(folder / f"events.{kind}", "events") for kind in ("csv", "parquet")),
    ]


def _arrays(folder: Path, rng: np.random.Generator) -> list[Seed]:
    import scipy.io

    stack = rng.normal(size=(6, 9, 2)).astype(np.float32)
    ragged = _object_array([series[: 3 + i] for i, series in enumerate(stack)])
    np.save(folder / "series.npy", stack)
    np.savez_compressed(folder / "series.npz", x=stack, lengths=[9, 3, 4, 9, 2, 1])
    np.savez(folder / "ragged.npz", train=ragged, valid=ragged[:2])
    rolls = [rng.random((12 + i, 88)) < 0.1 for i in range(5)]
    np.savez(folder / "rolls.npz", train=_object_array(rolls), valid=_object_array(rolls[:2]))
    np.save(folder / "roll.npy", np.stack([roll[:12] for roll in rolls]))
    scipy.io.savemat(
        folder / "rolls.mat",
        {f"{split}data": _object_array(rolls) for split in ("train", "valid", "test")},
    )
    _notes(folder / "notes.mid", rng)
    images = rng.integers(0, 4, (20, 4, 4)).astype(np.uint8)
    np.save(folder / "images.npy", images)
    np.savez_compressed(folder / "images.npz", train=images, test=images[:4])
    pens = [
        np.concatenate([rng.integers(-9, 9, (8, 2)), rng.integers(0, 2, (8, 1))], 1).astype("<i2")
        for _ in range(8)
    ]
    np.savez(folder / "pens.npz", train=_object_array(pens), valid=_object_array(pens[:2]))
    (folder / "pens.json").write_text(json.dumps([pen.tolist() for pen in pens]))
    drawing = {"word": "cat", "drawing": [[[0, 5, 9], [0, 3, 1]], [[4, 4, 7], [2, 8, 8]]]}
    (folder / "drawings.ndjson").write_text((json.dumps(drawing) + "\n") * 12)
    chords = [[rng.integers(40, 80, 4).tolist() for _ in range(10)] for _ in range(8)]
    (folder / "chords.json").write_text(json.dumps({"train": chords, "valid": chords[:2]}))
    return [
        *(Seed(folder / name, "series") for name in ("series.npy", "series.npz", "ragged.npz")),
        *(Seed(folder / name, "pianoroll") for name in ("rolls.npz", "roll.npy", "rolls.mat")),
        Seed(folder / "notes.mid", "pianoroll"),
        *(Seed(folder / name, "images") for name in ("images.npy", "images.npz")),
        *(Seed(folder / name, "strokes") for name in ("pens.npz", "pens.json", "drawings.ndjson")),
        Seed(folder / "chords.json", "voices"),
    ]


def make_seeds(folder: Path, seed: int) -> list[Seed]:
    """Writes good files of every format into a folder.

    Args:
        folder: where to.
        seed: of their contents.

    Returns:
        The files and how they are read.
    """
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    return [*_text_files(folder, rng), *_tables(folder, rng), *_arrays(folder, rng)]
