"""What is known of a sequence beside its events: classes and numbers from columns, and their codec.

A condition is a class, or a number standardised on train. A missing value is one of its own,
if it was missing in train too.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from grnn_jax.data.number_columns import LARGEST, MISSING, parse
from grnn_jax.errors import InputError

CONDITIONS = "condition_on", "label_from"
"""The settings that say what is read of a sequence beside it."""
KINDS = "class", "number"
FOLDER = "label"
"""The condition that the folder of a file gives."""
_MOST_WHOLE = 20
"""Numbers that are all whole and no more than so many different ones are classes."""
_MOST_SHOWN = 20

Values = tuple[Any, ...]
"""What a file says of one sequence: text, numbers or None, a value for each condition."""


class Asked(NamedTuple):
    """The conditions that the settings of a run name.

    Attributes:
        columns: names of columns, keys or arrays.
        kinds: for each its kind, or "" where train is to show it.
        from_folder: whether the folder of a file is one more condition, the last.
    """

    columns: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    from_folder: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all conditions."""
        return (*self.columns, FOLDER) if self.from_folder else self.columns

    @property
    def described(self) -> str:
        """The settings that name them."""
        columns = f"condition_on={','.join(self.columns)}" if self.columns else ""
        return " ".join(filter(None, [columns, "label_from=folder" if self.from_folder else ""]))


def asked(options: Mapping[str, Any]) -> Asked:
    """The conditions that are asked for.

    >>> asked({"condition_on": "origin,logp:number"}).kinds
    ('', 'number')

    Args:
        options: values of "condition_on" (names parted by commas, each with :class or :number where
            its kind is given) and "label_from", which may be missing.

    Raises:
        InputError: a name is empty or stands there twice.
    """
    text = options.get("condition_on", "")
    columns, kinds = [], []
    for part in text.split(",") if text else ():
        name, colon, kind = part.strip().rpartition(":")
        if not colon or kind not in KINDS:
            name, kind = part.strip(), ""
        if not name or "=" in name:
            raise InputError(f"condition_on must be names parted by commas, got {text!r}")
        columns.append(name)
        kinds.append(kind)
    from_folder = options.get("label_from", "") == "folder"
    result = Asked(tuple(columns), tuple(kinds), from_folder)
    for name, count in collections.Counter(result.names).items():
        if count > 1:
            raise InputError(f"{result.described}: the condition {name!r} stands there twice")
    return result


@dataclasses.dataclass(frozen=True)
class Condition:
    """One condition: its kind and what was learned of it from train.

    Attributes:
        name: of the column.
        kind: "class" or "number".
        classes: their names, in the order of their indices.
        mean: of the numbers.
        scale: their standard deviation, 1 where they are all equal.
        may_be_missing: whether values were missing in train.
    """

    name: str
    kind: str
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    may_be_missing: bool = False

    @property
    def size(self) -> int:
        """The number of classes, 0 of a number."""
        return len(self.classes) if self.kind == "class" else 0

    @property
    def summary(self) -> str:
        """What was learned, in a few words for the log."""
        missing = ", may be missing" if self.may_be_missing else ""
        if self.kind == "number":
            return f"{self.name} (a number around {self.mean:g} ± {self.scale:g}{missing})"
        shown = ", ".join(self.classes[:8]) + (", …" if len(self.classes) > 8 else "")
        return f"{self.name} ({len(self.classes)} classes: {shown}{missing})"

    def encode(self, value: Any, where: str) -> float:
        """The index of a class, a standardised number, or NaN where there is no value.

        Args:
            value: text, a number or None.
            where: what it is called in messages.

        Raises:
            InputError: it is no number, or a class that train does not have.
        """
        if _is_missing(value, self.kind):
            if not self.may_be_missing:
                raise InputError(f"{where}: expected a value, as all sequences of train have one")
            return math.nan
        if self.kind == "number":
            number = _number(value)
            if not abs(number) <= LARGEST:
                raise InputError(f"{where}: expected a finite number, got {value!r:.80}")
            return (number - self.mean) / self.scale
        name = class_name(value)
        if name not in self._index:
            shown = ", ".join(map(repr, self.classes[:_MOST_SHOWN]))
            more = len(self.classes) - _MOST_SHOWN
            raise InputError(
                f"{where}: expected one of the classes of train, {shown}"
                + (f" and {more} more" if more > 0 else "")
                + f", got {name!r:.80}"
            )
        return float(self._index[name])

    def decode(self, value: float) -> Any:
        """A class or a number again, None where it is missing."""
        if math.isnan(value):
            return None
        return self.classes[int(value)] if self.kind == "class" else value * self.scale + self.mean

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.classes)}


@dataclasses.dataclass(frozen=True)
class ConditionCodec:
    """The conditions of a run, each sequence of which has a value of each.

    Attributes:
        conditions: in the order of the columns of `Corpus.conditions`.
        from_folder: whether the last one is the folder of a file.
    """

    conditions: tuple[Condition, ...]
    from_folder: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the conditions."""
        return tuple(each.name for each in self.conditions)

    @property
    def sizes(self) -> tuple[int, ...]:
        """For each the number of its classes, 0 of a number, as `make_model` takes them."""
        return tuple(each.size for each in self.conditions)

    @property
    def summary(self) -> str:
        """What was learned, for the log."""
        return "given " + "; ".join(each.summary for each in self.conditions)

    @property
    def options(self) -> dict[str, str]:
        """The settings with which another file is read, see `asked`."""
        names = self.names[:-1] if self.from_folder else self.names
        return {
            "condition_on": ",".join(names),
            "label_from": "folder" if self.from_folder else "",
        }

    def encode(self, values: Values, where: str) -> Float[np.ndarray, " C"]:
        """The values of one sequence, NaN where they are missing.

        Args:
            values: what the file says.
            where: what the sequence is called in messages.

        Raises:
            InputError: one is no number, or a class that train does not have.
        """
        pairs = zip(self.conditions, values, strict=True)
        encoded = [each.encode(value, f"{where}, {each.name!r}") for each, value in pairs]
        return np.asarray(encoded, np.float32)

    def of_names(self, given: Mapping[str, Any], where: str) -> Float[np.ndarray, " C"]:
        """The values of one sequence by name, as users give them.

        Args:
            given: a value of each condition; None or "" where it is missing.
            where: what they are called in messages.

        Raises:
            InputError: a name is none of the conditions, or lacks; or as `encode`.
        """
        known = ", ".join(self.names)
        for name in given:
            if name not in self.names:
                raise InputError(f"{where}: {name!r} is no condition of this run; they are {known}")
        for name in self.names:
            if name not in given:
                raise InputError(
                    f"{where} must name all conditions of this run, {known}: {name!r} lacks "
                    f"({name}= stands for a missing value)"
                )
        return self.encode(tuple(value_of(given[name]) for name in self.names), where)

    def decode(self, values: Float[np.ndarray, " C"]) -> dict[str, Any]:
        """The classes and numbers of one sequence by name, None where they are missing."""
        pairs = zip(self.conditions, np.asarray(values).tolist(), strict=True)
        return {each.name: each.decode(value) for each, value in pairs}

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to rebuild the codec, as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> "ConditionCodec":
        """Rebuilds a codec from what `to_dict` returned, or from the JSON of it."""
        conditions = tuple(
            Condition(**{**fields, "classes": tuple(fields["classes"])})
            for fields in description["conditions"]
        )
        return cls(conditions, description["from_folder"])


def fit_conditions(what: Asked, train: Sequence[Values]) -> ConditionCodec:
    """Learns of each condition what it is.

    Args:
        what: the conditions.
        train: their values of each sequence of the training split.

    Raises:
        InputError: one has no value in train, or is no number where it is said to be one.
    """
    kinds = (*what.kinds, "class") if what.from_folder else what.kinds
    columns = zip(*train, strict=True) if train else [()] * len(kinds)
    conditions = [
        _fit(name, kind, column)
        for name, kind, column in zip(what.names, kinds, columns, strict=True)
    ]
    return ConditionCodec(tuple(conditions), what.from_folder)


def _fit(name: str, kind: str, values: Sequence[Any]) -> Condition:
    counts = collections.Counter(values)
    if not kind:
        kind = _kind(counts)
    given = {value: count for value, count in counts.items() if not _is_missing(value, kind)}
    may_be_missing = len(given) < len(counts)
    if not given:
        raise InputError(f"condition_on: {name!r} has no value in any sequence of train")
    if kind == "class":
        # Whole numbers in the order of their size, text in that of the alphabet.
        names = {class_name(value) for value in given}
        order = sorted(names, key=lambda n: (not n.isdecimal(), int(n) if n.isdecimal() else 0, n))
        return Condition(name, kind, tuple(order), may_be_missing=may_be_missing)
    for value in given:
        if not abs(_number(value)) <= LARGEST:
            raise InputError(
                f"condition_on: expected numbers in {name!r}, got {value!r:.80}; {name}:class "
                "takes its values for classes"
            )
    numbers = np.array([_number(value) for value in given])
    weights = np.array(list(given.values()), np.float64)
    mean = float(np.average(numbers, weights=weights))
    scale = math.sqrt(float(np.average((numbers - mean) ** 2, weights=weights)))
    return Condition(name, kind, (), mean, scale or 1.0, may_be_missing)


def _kind(counts: Mapping[Any, int]) -> str:
    """Whether values are classes or a number, as they look."""
    numbers = [_number(value) for value in counts if not _is_missing(value, "number")]
    if not numbers or not all(abs(number) <= LARGEST for number in numbers):
        return "class"
    whole = all(number == round(number) for number in numbers)
    return "class" if whole and len(set(numbers)) <= _MOST_WHOLE else "number"


def _number(value: Any) -> float:
    """The number that a value is or spells; NaN where there is none."""
    return parse(value) if isinstance(value, str) else float(value)


def _is_missing(value: Any, kind: str) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    if not isinstance(value, str):
        return False
    return value.strip().lower() in MISSING if kind == "number" else not value.strip()


def class_name(value: Any) -> str:
    """The name of a class: text as it is, and whole numbers without a point.

    >>> class_name("Irish"), class_name(3.0), class_name(True)
    ('Irish', '3', 'true')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def of_one_row(values: Any, where: str, expected: str = "text or a number") -> Any:
    """A value of a file as it is kept: text, a bool, an int, a float or None.

    Raises:
        InputError: it is a list or another structure.
    """
    value = value_of(values)
    if value is not None and not isinstance(value, str | bool | int | float):
        raise InputError(f"{where}: expected {expected}, got {values!r:.80}")
    return value


def value_of(value: Any) -> Any:
    """A scalar of NumPy as Python's; bytes as text; anything else as it is."""
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def parse_given(text: str) -> dict[str, str]:
    """Names and values of text as `label=3,logp=2.5`.

    >>> parse_given("nation=Irish,age=")
    {'nation': 'Irish', 'age': ''}

    A comma inside of a value is written twice.

    Raises:
        InputError: a part has no "=", or a name stands there twice.
    """
    given: dict[str, str] = {}
    for part in re.sub(",,", "\0", text).split(","):
        name, equals, value = part.replace("\0", ",").partition("=")
        if not equals or not name.strip():
            raise InputError(f"condition must be NAME=VALUE parted by commas, got {text!r}")
        if name.strip() in given:
            raise InputError(f"condition must name each condition once, got {text!r}")
        given[name.strip()] = value.strip()
    return given
