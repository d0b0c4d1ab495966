"""Sequences with symbols that training never saw: they get no number, and hide no other."""

import dataclasses
import json

import numpy as np
import pytest

import grnn_jax
from grnn_jax.data import load_splits
from grnn_jax.errors import InputError
from grnn_jax.scoring import compare, read_file, records, score_file
from grnn_jax.workdir import Run, build_model

CONFIG = grnn_jax.Config(
    hidden_size=4, batch_size=2, eval_batch_size=2, sequence_length=8, engine="scan",
)  # fmt: skip


def lines(texts):
    return "".join(f"{text}\n" for text in texts)


def events(marks):
    """One event a sequence."""
    return "sequence,time,mark\n" + "".join(f"s{i},1,{m}\n" for i, m in enumerate(marks))


def voices(pitches):
    return json.dumps([[[int(pitch)] * 2] * 3 for pitch in pitches])


# Format, settings, name of a file, its content, the sequences of training, those scored, and which
# of the latter have what symbols.
CASES = [
    ("lines", {}, "a.txt", lines, ["ab", "ba", "abba"], ["ab", "aZZ", "b", "ßZ"],
     {1: {"Z": 2}, 3: {"ß": 1, "Z": 1}}),
    ("lines", {"codec": "smiles"}, "a.smi", lines, ["CO", "CC", "OC"], ["CO", "CBr", "[C@H]", "C"],
     {1: {"Br": 1}, 2: {"[C@H]": 1}}),
    ("lines", {"codec": "words"}, "a.txt", lines, ["an old cat", "old"], ["old", "old zebra", "an"],
     {1: {"zebra": 1}}),
    ("lines", {"column": "a"}, "a.jsonl", lambda texts: lines(json.dumps({"a": t}) for t in texts),
     ["ab", "ba", "bb"], ["Zab", "ab"], {0: {"Z": 1}}),
    ("events", {}, "a.csv", events, "abab", "abZa", {2: {"Z": 1}}),
    ("voices", {}, "a.json", voices, ["60", "62", "64"], ["60", "9", "64"], {1: {"9": 6}}),
]  # fmt: skip


def make_run(tmp_path, case):
    """An untrained run, the file that is scored, and the same without unseen symbols."""
    format, settings, name, content, trained, scored, unseen = case
    for folder, texts in (
        ("train", trained), ("scored", scored),
        ("known", [text for i, text in enumerate(scored) if i not in unseen]),
    ):  # fmt: skip
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(content(texts), encoding="utf-8")
    config = dataclasses.replace(
        CONFIG, format=format, valid_fraction=0.0, test_fraction=0.0, **settings
    )
    data = {"valid_fraction": 0.0, "test_fraction": 0.0, "format": format} | settings
    codec = load_splits(data=str(tmp_path / "train" / name), **data).codec
    model = build_model(config, codec)
    params = model.init(grnn_jax.likelihood.jax.random.key(0))
    return Run(model, params, codec, config, 1), *(
        str(tmp_path / folder / name) for folder in ("scored", "known")
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join([case[0], *case[1].values()]))
def test_they_are_refused_left_out_or_first(tmp_path, case):
    run, path, known_path = make_run(tmp_path, case)
    unseen = case[-1]
    known = score_file(run, known_path, tmp_path)
    rest = [i for i in range(len(case[-2])) if i not in unseen]
    total = {s: sum(u.get(s, 0) for u in unseen.values()) for u in unseen.values() for s in u}
    if "words" not in case[1].values():  # Which have an event for all unknown words.
        with pytest.raises(InputError, match="^data: .* that training never saw: ") as told:
            score_file(run, path, tmp_path)
        assert all(f"{symbol!r} ({count})" in str(told.value) for symbol, count in total.items())
        assert "unseen=skip" in str(told.value) and "\n" not in str(told.value)
    for policy in ("skip", "rank_first"):
        scored = score_file(run, path, tmp_path, unseen=policy)
        np.testing.assert_array_equal(scored.scores.nats, known.scores.nats)
        assert {i: dict(each.symbols) for i, each in scored.left_out.items()} == unseen
        assert [record["sequence"] for record in records(scored)] == rest
    found = list(records(scored, rank="nats", unseen_first=True))
    assert [record["sequence"] for record in found[: len(unseen)]] == sorted(unseen)
    assert [record["rank"] for record in found] == list(range(1, len(case[-2]) + 1))
    assert len({tuple(record) for record in found}) == 1  # As the columns of a table.
    for record in found:
        symbols = unseen.get(record["sequence"])
        assert (record["nats"] is None) == (record["unseen"] != "") == (symbols is not None)
        if symbols:
            listed = [f"{symbol!r} ({count})" for symbol, count in symbols.items()]
            assert sorted(record["unseen"].split(", ")) == sorted(listed)
            if "text" in record and "column" not in case[1]:
                assert record["text"] == case[-2][record["sequence"]]
    each = list(records(scored, rank="nats", per_event=True, unseen_first=True))
    assert len({tuple(record) for record in each}) == 1
    assert sum(record["nats"] is not None for record in each) == known.corpus.num_events


def test_lines_of_a_text(tmp_path):
    case = ("text", {}, "a.txt", lines, ["ab", "ba"], ["ab", "aZ", "", "b"], {1: {"Z": 1}})
    run, path, known_path = make_run(tmp_path, case)
    known = score_file(run, known_path, tmp_path, each_line=True)
    scored = score_file(run, path, tmp_path, each_line=True, unseen="skip")
    np.testing.assert_array_equal(scored.scores.nats, known.scores.nats)
    assert [record["sequence"] for record in records(scored)] == [0, 2, 3]
    for policy in ("error", "skip", "rank_first"):  # A whole text is one sequence.
        with pytest.raises(InputError, match="'Z' .1.*line 2, column 2.*each_line=true"):
            read_file(run, path, tmp_path, unseen=policy)
    (tmp_path / "none.txt").write_text("Z\nZZ\n")
    with pytest.raises(InputError, match=r"'Z' \(3\)"):
        read_file(run, str(tmp_path / "none.txt"), tmp_path, unseen="skip", each_line=True)
    with pytest.raises(InputError, match="unseen must be one of error, skip, rank_first, got 'x'"):
        read_file(run, path, tmp_path, unseen="x")


def test_two_runs_leave_out_the_same(tmp_path):
    case = ("lines", {}, "a.txt", lines, ["ab", "ba"], ["ab", "Za", "b"], {1: {"Z": 1}})
    run, path, _ = make_run(tmp_path, case)
    first = read_file(run, path, tmp_path, unseen="skip")
    both = read_file(run, path, tmp_path, unseen="skip", also={0: first.left_out[1]})
    assert both.numbers.tolist() == [2] and sorted(both.left_out) == [0, 1]
    with pytest.raises(InputError, match="see 2 and 1 sequences"):
        compare(*(
            score_file(run, str(tmp_path / name), tmp_path, unseen="skip")
            for name in ("scored/a.txt", "one.txt")
            if (tmp_path / "one.txt").write_text("ab\n")
        ))  # fmt: skip
