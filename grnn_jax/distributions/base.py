"""The `Distribution` contract: the family of p(x_{t+1} | x_≤t), given the hidden state."""

from collections.abc import Callable
from typing import NamedTuple

from grnn_jax.array_types import Array, Bool, Float, Params, PRNGKey, PyTree


class Distribution(NamedTuple):
    """An output distribution as a tuple of pure functions; it owns the output layer W, b_o.

    Attributes:
        init: (key, hidden_size) -> params.
        log_prob: (params, hidden [..., H], event [...]) -> nats [...].
        sample: (keys [B], params, hidden [B, H], *, temperature, ...) -> event [B]; one key for
            each row, so that a sample does not depend on its neighbours. Its keyword arguments
            are named in `options`.
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
    """

    init: Callable[[PRNGKey, int], Params]
    log_prob: Callable[[Params, Array, PyTree], Array]
    sample: Callable[..., PyTree]
    mode: Callable[[Params, Array], PyTree]
    encode: Callable[[Params, PyTree], Float[Array, "... X"]]
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
