"""What every codec is: the map between a file's contents and events, saved with the run."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

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
        name: of the codec, in codec.json.
        is_text: whether events are the tokens of a text.
        options: settings of a run that the codec is made with, and others are not.
    """

    with_end: bool = False

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
        return {"codec": self.name} | dataclasses.asdict(self)

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
            return cls(**fields)
        except TypeError as error:
            raise InputError(
                f"the description of codec {cls.name!r} is not valid: {error}"
            ) from error


def _hashable(value: Any) -> Any:
    """JSON with tuples for lists, as a codec holds them."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
