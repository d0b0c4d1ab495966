"""The `Distribution` contract: the family of p(x_{t+1} | x_≤t), given the hidden state."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Params, PRNGKey, PyTree


@runtime_checkable
class InitFn(Protocol):
    """Makes the parameters of an output layer."""

    def __call__(self, key: PRNGKey, hidden_size: int, /) -> Params:
        """Draws initial parameters.

        Args:
            key: a typed key.
            hidden_size: H, the width of the hidden state that the distribution reads.

        Returns:
            The parameters, a dict of float32 arrays.
        """


@runtime_checkable
class LogProbFn(Protocol):
    """Scores events."""

    def __call__(self, params: Params, hidden: Array, event: PyTree, /) -> Array:
        """The log-probability of events, exact and normalised.

        Args:
            params: of the distribution.
            hidden: h [..., H], after everything before the event.
            event: [..., ...], one event for each row of `hidden`.

        Returns:
            log p(event | h) [...] in nats; NaN for what is no event of the family.
        """


@runtime_checkable
class SampleFn(Protocol):
    """Draws events."""

    # mypy lets `*args: Any, **kwargs: Any` together stand for any further parameters.
    def __call__(
        self, key: Array, params: Params, hidden: Array, /, *args: Any, **options: Any
    ) -> PyTree:
        """Draws one event for each row.

        Args:
            key: typed keys [B], one a row, so that a sample does not depend on its neighbours.
            params: of the distribution.
            hidden: h [B, H].
            *args: none.
            **options: those named in `Distribution.options`, each one number or [B]. Without any
                the event is drawn from p itself; with temperature 0 it is `mode`.

        Returns:
            The events [B, ...].

        Raises:
            TypeError: for an option that the family does not have.
        """


@runtime_checkable
class ModeFn(Protocol):
    """Picks the most probable event."""

    def __call__(self, params: Params, hidden: Array, /) -> PyTree:
        """The most probable event (a family says where it is only near that).

        Args:
            params: of the distribution.
            hidden: h [..., H].

        Returns:
            The events [..., ...].
        """


@runtime_checkable
class EncodeFn(Protocol):
    """Turns events into vectors."""

    def __call__(self, params: Params, event: PyTree, /) -> Array:
        """How an event enters the network.

        Args:
            params: of the distribution.
            event: [..., ...].

        Returns:
            Vectors [..., X], X being `Distribution.encoding_size`.
        """


@runtime_checkable
class AcceptFn(Protocol):
    """Says what is an event of the family."""

    def __call__(self, event: PyTree, /) -> tuple[PyTree, Bool[AnyArray, "..."]]:
        """Casts events to the dtypes of the family, and checks them.

        Args:
            event: [..., ...] as given, NumPy or JAX arrays of any dtype. Methods and operators that
                both have let values on the host stay there.

        Returns:
            The event in the dtypes of `Distribution.event`, and bool [...], True where it is one of
            the family: where `log_prob` is not NaN.
        """


class Distribution(NamedTuple):
    """An output distribution as a tuple of pure functions; it owns the output layer W, b_o.

    Attributes:
        init: (key, hidden_size) -> params.
        log_prob: (params, hidden [..., H], event [...]) -> nats [...].
        sample: (keys [B], params, hidden [B, H], **options) -> event [B].
        mode: (params, hidden [..., H]) -> the most probable event [...].
        encode: (params, event [...]) -> [..., X], how an event enters the network.
        encoding_size: X.
        event: shape and dtype of one event: a `jax.ShapeDtypeStruct`, or a pytree of them.
        token_table: where events are tokens: params -> the encodings of all of them [V, X].
        is_end: where the end of a sequence is an event: event [...] -> bool [...].
        is_density: True where log_prob is the logarithm of a density, with respect to the
            units of the data as given; its values then depend on these units.
        logits: where events are tokens: (params, hidden [..., H]) -> [..., V], log-probabilities
            of all tokens up to a constant; beam search and constraints need it.
        num_sites: where the hidden state is read as N sites side by side, N: it must come from a
            cell that is shared over as many sites; else 0.
        name: of the function that made it, as "nade", or of what it is made of, as
            "with_end(gaussian)": for messages.
        num_tokens: where events are tokens, V, the number of their classes; else None.
        options: names of the keyword arguments of `sample`.
        accept: event [...] of any dtype -> (event, bool [...]), see `AcceptFn`. None takes finite
            numbers that the cast to the dtypes of `event` keeps, and of tokens those in [0, V).
        filler: an event of the family, which stands where there is none, as in padding; None for
            zeros.
    """

    init: InitFn
    log_prob: LogProbFn
    sample: SampleFn
    mode: ModeFn
    encode: EncodeFn
    encoding_size: int
    event: PyTree
    token_table: Callable[[Params], Float[Array, "V X"]] | None = None
    is_end: Callable[[PyTree], Bool[Array, "..."]] | None = None
    is_density: bool = False
    logits: Callable[[Params, Array], Float[Array, "... V"]] | None = None
    num_sites: int = 0
    name: str = "unnamed"
    num_tokens: int | None = None
    options: tuple[str, ...] = ()
    accept: AcceptFn | None = None
    filler: PyTree | None = None

    def __hash__(self) -> int:
        # A model is a static argument of jit, and `event` may be a dict, which has no hash.
        return hash((self.init, self.log_prob, self.sample))


class Family(NamedTuple):
    """A factory of distributions that a flag can name.

    Attributes:
        make: factory; its positional arguments are those of the kind of event (see
            `grnn_jax.data.EventType`), its keyword arguments settings of a run or of the codec.
        kinds: the kinds of event that it can model.
    """

    make: Callable[..., Distribution]
    kinds: tuple[str, ...]
