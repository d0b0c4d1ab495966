"""Files of whole sequences: what such a format is, and how its sequences become corpora.

A new format is one file with one subclass of `SequenceCodec`, and one line in `formats.FORMATS`.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from grnn_jax.config import FIELDS, SPLITS
from grnn_jax.data.bad_records import BadRecords
from grnn_jax.data.codec import Codec, Options
from grnn_jax.data.conditions import CONDITIONS, Values, asked, fit_conditions
from grnn_jax.data.corpus import Corpus, Events, event_arrays, file_identity, map_events
from grnn_jax.data.format_base import Format
from grnn_jax.data.splitting import Fractions, deal
from grnn_jax.data.store import CorpusWriter, Stored, open_stored, store
from grnn_jax.data.unseen import Unseen
from grnn_jax.errors import InputError

READING = "skip_bad", "max_file_gib"
"""The settings of all such formats that say how files are read."""


class Sequences(NamedTuple):
    """What was read from a file, before it is encoded.

    Attributes:
        names: what each sequence is called in messages ("tune 3", "patient 17").
        items: one value a sequence, of whatever type the format reads.
        ids: where the file names its sequences, these names; two splits may not share one.
        conditions: what the file says of each sequence beside it; None where nothing is asked for.
    """

    names: list[str]
    items: list[Any]
    ids: list[str] | None = None
    conditions: list[Values] | None = None

    def take(self, indices: Any) -> "Sequences":
        """Some of the sequences, in the order asked for."""
        chosen = [int(i) for i in indices]
        ids = None if self.ids is None else [self.ids[i] for i in chosen]
        conditions = None
        if self.conditions is not None:
            conditions = [self.conditions[i] for i in chosen]
        items = [self.items[i] for i in chosen]
        return Sequences([self.names[i] for i in chosen], items, ids, conditions)


def convert_each(
    sequences: Sequences, convert: Callable[[Any, str], Any], bad: BadRecords
) -> Sequences:
    """Converts sequences one by one.

    Args:
        sequences: what was read.
        convert: makes of an item and its name what the format reads, or raises InputError.
        bad: is told which raised.

    Returns:
        The others.
    """
    kept, items = [], []
    pairs = zip(sequences.items, sequences.names, strict=True)
    for index, (item, name) in enumerate(pairs):
        with bad.record():
            items.append(convert(item, name))
            kept.append(index)
    return sequences.take(kept)._replace(items=items)


@dataclasses.dataclass(frozen=True)
class SequenceCodec(Codec):
    """A format of whole sequences: how it is read, what is learned from train, how it is encoded.

    Its `options` are the settings that `read` and `fit` get.

    Attributes:
        training_options: settings that only training reads, and not with every format.
        condition_options: those of `CONDITIONS` that such files have something for.
    """

    training_options: ClassVar[tuple[str, ...]] = ()
    condition_options: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def read(cls, path: str, argument: str, options: Options) -> dict[str, Sequences]:
        """Reads a file or a folder.

        Args:
            path: the file.
            argument: the argument that named it, for messages.
            options: a value for each of `cls.options`, and for each of `READING`, which may be
                missing: skip_bad, whether to leave out what cannot be used, and max_file_gib, the
                GiB that a file may expand to. What of `CONDITIONS` is asked for, `conditions.asked`
                tells; `Sequences.conditions` holds its values.

        Returns:
            Sequences by split, "train", "valid" and "test" where the file has splits; else
            under "".

        Raises:
            InputError: names the file, and row and column where there are any.
        """
        raise NotImplementedError

    @classmethod
    def fit(cls, train: Sequences, with_end: bool, options: Options) -> "SequenceCodec":
        """Makes the codec.

        Args:
            train: the training split, from which alone it learns.
            with_end: whether the end of a sequence is an event.
            options: a value for each of `cls.options`.

        Returns:
            The codec.

        Raises:
            InputError: there is nothing to learn from.
        """
        raise NotImplementedError

    @classmethod
    def parts(cls, item: Any, held_out: Fractions) -> dict[str, Any] | None:
        """Cuts a file's only sequence in time.

        Args:
            item: the sequence.
            held_out: the parts of it that are for validation and for the test, its last ones.

        Returns:
            Its parts by split, none of them empty; None to keep it whole.
        """
        return None

    def empty(self) -> Events:
        """A sequence without events: it fixes dtypes and shapes."""
        raise NotImplementedError

    def encode(self, item: Any, name: str) -> Events:
        """One sequence as events.

        Args:
            item: the sequence, as `read` gave it.
            name: what it is called in messages.

        Returns:
            Arrays [T, ...] as `empty` has them, without the end that `with_end` adds.

        Raises:
            InputError: it does not fit the codec.
        """
        raise NotImplementedError

    def decode(self, events: Events) -> Any:
        """Events as JSON, as they are written where no other way to write samples is known.

        Args:
            events: arrays [T, ...], as `encode` returns them.

        Returns:
            Their values; a format may override this to speak the language of its files.
        """
        return map_events(np.ndarray.tolist, events)

    def read_options(self) -> dict[str, Any]:
        """The options with which another file of the same kind is read."""
        return {name: getattr(self, name) for name in self.options}


@dataclasses.dataclass(frozen=True)
class SequenceFormat(Format):
    """A format of whole sequences.

    Attributes:
        codec: its only codec, which says how it is read.
    """

    codec: type[SequenceCodec]

    def __post_init__(self) -> None:
        if not self.codec.name:
            raise InputError(f"{self.codec.__name__} must have a name, for codec.json; got none")
        for option in self.options:
            if option not in FIELDS:
                raise InputError(
                    f"options of {self.codec.__name__} must be settings of Config, got {option!r}"
                )

    @property
    def options(self) -> tuple[str, ...]:
        codec = self.codec
        return (*codec.options, *codec.training_options, *codec.condition_options, *READING)

    @property
    def codecs(self) -> Mapping[str, type[Codec]]:
        return {self.codec.name: self.codec}

    def load(
        self,
        paths: Mapping[str, str],
        held_out: Fractions,
        settings: Mapping[str, Any],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        codec: Codec | None = None,
        folder: pathlib.Path | None = None,
    ) -> tuple[Stored, Codec]:
        return load_sequences(
            self.codec,
            paths,
            held_out,
            options=settings,
            with_end=settings["model_end"],
            cache_dir=cache_dir,
            codec=codec,
            folder=folder,
        )

    def load_file(
        self,
        codec: Codec,
        path: str,
        settings: Mapping[str, Any],
        *,
        argument: str = "data",
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Corpus:
        assert isinstance(codec, SequenceCodec)
        return load_sequence_file(codec, path, argument, cache_dir, settings)


def fingerprint(path: str) -> Any:
    """What identifies a file, or all files of a folder, as long as nobody writes to them.

    Args:
        path: the file or folder.

    Returns:
        For each file what `file_identity` says.
    """
    root = pathlib.Path(path)
    files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
    return [file_identity(file) for file in files]


def load_sequences(
    format: type[SequenceCodec],
    paths: Mapping[str, str],
    held_out: Fractions,
    *,
    options: Mapping[str, Any],
    with_end: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    codec: Any = None,
    folder: pathlib.Path | None = None,
) -> tuple[Stored, Any]:
    """Reads, splits, encodes and stores whole sequences.

    A split with a file of its own uses that file; else one that the training file itself has; else
    sequences are dealt by fractions after a shuffle with a fixed seed. A single sequence is cut in
    time if its format can do so: its first part is for training, its last for the test.

    Args:
        format: the class of the format.
        paths: files by split, "train" among them.
        held_out: fractions.
        options: values by name, those of `format.options` among them.
        with_end: whether the end of a sequence is an event.
        cache_dir: folder for the encoded data; None holds them in memory.
        codec: the codec of an earlier run, or None to make one.
        folder: what an earlier run encoded, used without looking at the files where it is whole.

    Returns:
        The stored corpora with `info` {split: sequences that also stand in train}, and the codec.

    Raises:
        InputError: a file cannot be used, or a sequence's id stands in two splits.
    """
    if codec is not None and folder is not None:
        stored = open_stored(folder, SPLITS, _empty(codec), codec.num_conditions)
        if stored is not None:
            return stored, codec
    for split, path in paths.items():
        check_path(path, _argument(split))
    key: dict[str, Any] = {
        "sources": {split: fingerprint(path) for split, path in paths.items()},
        "held_out": held_out.to_json(),
        "options": {name: options[name] for name in format.options},
        "format": format.name,
    }
    splits: dict[str, Sequences] | None = None
    # Another version may choose otherwise what to read; the codec knows what it was made for.
    read_options = key["options"] if codec is None else codec.read_options()
    skip_bad = options["skip_bad"]
    read_options = read_options | {name: options[name] for name in READING}
    read_options |= {n: options.get(n, "") for n in CONDITIONS} if codec is None else codec.given
    if skip_bad:
        key["skip_bad"] = True
    if codec is None:
        splits = _read_splits(format, paths, held_out, read_options)
        codec = format.fit(splits["train"], with_end, key["options"])
        if splits["train"].conditions is not None:
            conditions = fit_conditions(asked(read_options), splits["train"].conditions)
            codec = dataclasses.replace(codec, conditions=conditions)
    key["codec"] = codec.to_dict()

    def fill(writers: Mapping[str, CorpusWriter]) -> dict[str, int]:
        read = splits or _read_splits(format, paths, held_out, read_options)
        return _encode(codec, read, writers, skip_bad)

    return store(SPLITS, _empty(codec), fill, cache_dir, key, codec.num_conditions), codec


def check_path(path: str, argument: str) -> None:
    """Raises InputError unless there is such a file or folder."""
    if not os.path.exists(path):
        raise InputError(f"{argument}: there is no file {path}")


def _argument(split: str) -> str:
    return "data" if split == "train" else f"{split}_data"


def _read_splits(
    format: type[SequenceCodec],
    paths: Mapping[str, str],
    held_out: Fractions,
    options: Mapping[str, Any],
) -> dict[str, Sequences]:
    """The sequences of each split; checks that no id stands in two of them."""
    nothing = Sequences([], [])
    splits = dict.fromkeys(SPLITS, nothing)
    for split, path in paths.items():
        read = _read(format, path, _argument(split), options)
        if not any(sequences.items for sequences in read.values()):
            raise InputError(f"{_argument(split)}: {path} has no sequences")
        if split != "train":
            splits[split] = _join(read)
        elif "" not in read:
            splits |= {s: q for s, q in read.items() if s not in paths or s == "train"}
        elif parts := _parts_in_time(format, read[""], held_out):
            splits |= {s: q for s, q in parts.items() if s not in paths or s == "train"}
        else:
            dealt = deal(len(read[""].items), held_out)
            for index, name in enumerate(SPLITS):
                if name not in paths or name == "train":
                    splits[name] = read[""].take(np.flatnonzero(dealt == index))
    if not splits["train"].items:
        raise InputError(
            f"data: nothing of {paths['train']} is left for training: its sequences, "
            f"{sum(len(each.items) for each in splits.values())} of them, are held out; give "
            "smaller valid_fraction and test_fraction"
        )
    seen: dict[str, str] = {}
    for split, sequences in splits.items():
        for name in sequences.ids or ():
            if seen.setdefault(name, split) != split:
                raise InputError(
                    f"{_argument(split)}: the sequence {name!r} stands in {seen[name]} and in "
                    f"{split}; give every sequence to one split"
                )
    return splits


def _read(
    format: type[SequenceCodec] | SequenceCodec,
    path: str,
    argument: str,
    options: Mapping[str, Any],
) -> dict[str, Sequences]:
    """The sequences of a file, each with the conditions that are asked for."""
    read = format.read(path, argument, options)
    what = asked(options)
    told = [each.conditions for each in read.values() if each.items]
    if what.names and any(not c or len(c[0]) != len(what.names) for c in told):
        raise InputError(f"{argument}: {path} says nothing of its sequences: {what.described}")
    return read


def _parts_in_time(
    format: type[SequenceCodec], sequences: Sequences, held_out: Fractions
) -> dict[str, Sequences]:
    """The splits of a single sequence that can be cut; nothing of any other."""
    if len(sequences.items) != 1 or not any(held_out):
        return {}
    parts = format.parts(sequences.items[0], held_out) or {}
    return {
        split: Sequences(
            [f"{sequences.names[0]} ({split} part)"], [part], conditions=sequences.conditions
        )
        for split, part in parts.items()
    }


def _join(splits: Mapping[str, Sequences]) -> Sequences:
    """All sequences of a file, whatever its splits."""
    parts = list(splits.values())
    ids = None
    if all(part.ids is not None for part in parts):
        ids = [i for part in parts for i in part.ids or ()]
    conditions = None
    if all(part.conditions is not None for part in parts):
        conditions = [values for part in parts for values in part.conditions or ()]
    names = [n for part in parts for n in part.names]
    return Sequences(names, [i for part in parts for i in part.items], ids, conditions)


def _empty(codec: SequenceCodec) -> Events:
    """A sequence without events, as it is stored."""
    events = codec.empty()
    return {"event": events, "end": np.empty(0, bool)} if codec.wraps_end else events


def _add_end(codec: SequenceCodec, events: Events) -> Events:
    """Appends the end as one more event, all other fields of which are zero."""
    if not codec.wraps_end:
        return events
    length = len(next(event_arrays(events))[1])
    end = np.zeros(length + 1, bool)
    end[-1] = True
    padded = map_events(lambda leaf: np.concatenate([leaf, np.zeros_like(leaf[:1])]), events)
    if length == 0:
        padded = map_events(lambda leaf: np.zeros((1, *leaf.shape[1:]), leaf.dtype), events)
    return {"event": padded, "end": end}


def _encode(
    codec: SequenceCodec,
    splits: Mapping[str, Sequences],
    writers: Mapping[str, CorpusWriter],
    skip_bad: bool,
    unseen: Unseen | None = None,
) -> dict[str, int]:
    """Writes all sequences, and counts those of valid and test that also stand in train."""
    digests: dict[str, list[bytes]] = {split: [] for split in SPLITS}
    bad = BadRecords(skip_bad)
    for split, sequences in splits.items():
        for index, (name, item) in enumerate(zip(sequences.names, sequences.items, strict=True)):
            events = None
            with bad.record():
                if codec.conditions is not None:
                    assert sequences.conditions is not None
                    given = codec.conditions.encode(sequences.conditions[index], name)
                encode = functools.partial(codec.encode, item, name)
                events = encode() if unseen is None else unseen.take(len(digests[split]), encode)
            if events is None:
                continue
            if len(next(event_arrays(events))[1]) == 0 and not codec.wraps_end:
                continue  # Nothing to predict.
            events = _add_end(codec, events)
            writers[split].start_sequence()
            writers[split].append(events)
            if codec.conditions is not None:
                writers[split].give(given)
            digest = hashlib.blake2b(digest_size=16)
            for path, leaf in event_arrays(events):
                digest.update(path.encode() + np.ascontiguousarray(leaf).tobytes())
            digests[split].append(digest.digest())
    bad.finish("sequences")
    train = set(digests["train"])
    return {split: sum(d in train for d in digests[split]) for split in ("valid", "test")}


def load_sequence_file(
    codec: SequenceCodec, path: str, argument: str, cache_dir: Any, settings: Mapping[str, Any]
) -> Corpus:
    """Reads one file whole, encoded by the codec of a run; arguments as `Format.load_file`."""
    check_path(path, argument)
    skip_bad = settings["skip_bad"]
    options = codec.read_options() | codec.given | {"skip_bad": skip_bad}
    if settings["as_is"] and "as_is" in options:
        options["as_is"] = True
    key = {"source": fingerprint(path), "codec": codec.to_dict(), "options": options}
    reading = {"max_file_gib": settings["max_file_gib"]}
    sequences = _join(_read(codec, path, argument, options | reading))
    stored = store(
        ["train"],
        _empty(codec),
        lambda writers: _encode(
            codec, {"train": sequences}, writers, skip_bad, settings.get("unseen")
        ),
        cache_dir,
        key,
        codec.num_conditions,
    )
    return stored.corpora["train"]
