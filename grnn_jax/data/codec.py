"""What every codec is: the map between a file's contents and events, saved with the run."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple


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

    With `with_end` the end of a sequence is an event, which the codec adds.
    """

    with_end: bool = False

    name: ClassVar[str] = ""
    is_text: ClassVar[bool] = False

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
    def summary(self) -> str:
        """What the codec found, in a few words for the log."""
        return self.name

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to rebuild the codec, as JSON values."""
        return {"codec": self.name} | dataclasses.asdict(self)
