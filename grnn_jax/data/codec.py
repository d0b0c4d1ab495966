"""What every codec is: the map between a file's contents and events, saved with the run."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from grnn_jax.data.conditions import ConditionCodec
from grnn_jax.errors import InputError

Options = Mapping[str, Any]
"""Values of settings, by name."""


class EventType(NamedTuple):
    """What kind of thing an event is, which decides the distributions that can model it.

    Attributes:
        kind: "tokens", "levels", "fields", "bits", "reals", "counts", "waits" or "pen".
        arguments: positional arguments of every distribution of that kind.
        options: keyword arguments of every distribution of that kind.
    """

    kind: str
    arguments: tuple = ()
    options: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Codec:
    """Base of the codecs, one or several for each format.

    Attributes:
        with_end: whether the end of a sequence is an event, which the codec adds.
        conditions: what is known of each sequence beside its events, or None.
        name: of the codec, in codec.json.
        is_text: whether events are the tokens of a text.
        options: settings of a run that the codec is made with, and others are not.
    """

    with_end: bool = False
    conditions: ConditionCodec | None = dataclasses.field(default=None, kw_only=True)

    name: ClassVar[str] = ""
    is_text: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ()

    @property
    def event_type(self) -> EventType | dict[str, EventType]:
        """The type of an event, or of each of its fields in the order they are modelled."""
        raise NotImplementedError

    @property
    def wraps_end(self) -> bool:
        """Whether an event is a dict of the event proper, "event", and a bool, "end"."""
        return self.with_end

    @property
    def num_conditions(self) -> int:
        """C, values that are known of each sequence beside its events."""
        return 0 if self.conditions is None else len(self.conditions.conditions)

    @property
    def given(self) -> dict[str, str]:
        """The settings that say what another file is to be read for beside its sequences."""
        return {} if self.conditions is None else self.conditions.options

    @property
    def unit(self) -> str:
        """The unit of the data, where log-probabilities are those of densities."""
        return ""

    @property
    def num_pitches(self) -> int | None:
        """The pitches over which training may transpose music; None where it is no music."""
        return None

    @property
    def num_events(self) -> int | None:
        """The number of events of every sequence, its end left out; None where they differ."""
        return None

    @property
    def summary(self) -> str:
        """What the codec learned from the data, in a few words for the log."""
        return self.name

    def decode(self, events: Any) -> Any:
        """One sequence as it is read by a person or a program.

        Args:
            events: arrays [T, ...].

        Returns:
            Text, or else JSON values.
        """
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to rebuild the codec, as JSON values."""
        fields = {"codec": self.name} | dataclasses.asdict(self)
        if self.conditions is None:
            del fields["conditions"]  # As it was before there were any.
        return fields

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> "Codec":
        """Rebuilds a codec from what `to_dict` returned, or from the JSON of it.

        Args:
            description: the fields of the codec; its name is not looked at.

        Returns:
            The codec.

        Raises:
            InputError: there are other fields.
        """
        fields = {name: _hashable(v) for name, v in description.items() if name != "codec"}
        try:
            if fields.get("conditions") is not None:
                fields["conditions"] = ConditionCodec.from_dict(fields["conditions"])
            return cls(**fields)
        except (TypeError, LookupError) as error:
            raise InputError(
                f"the description of codec {cls.name!r} is not valid: {error}"
            ) from error


def _hashable(value: Any) -> Any:
    """JSON with tuples for lists, as a codec holds them."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
