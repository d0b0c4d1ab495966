"""The `Distribution` contract: the family of p(x_{t+1} | x_≤t), given the hidden state."""

from typing import NamedTuple

import jax

from grnn_jax.array_types import Array, Bool, Callable, Float, Params, PRNGKey, PyTree


class Distribution(NamedTuple):
    """An output distribution as a tuple of pure functions; it owns the output layer W, b_o.

    Attributes:
        init: (key, hidden_size) -> params.
        log_prob: (params, hidden [..., H], event [...]) -> nats [...].
        sample: (keys [B], params, hidden [B, H], *, temperature, top_k, top_p) -> event [B]; one
            key for each row, so that a sample does not depend on its neighbours.
        mode: (params, hidden [..., H]) -> the most probable event [...].
        encode: (params, event [...]) -> [..., X], how an event enters the network.
        encoding_size: X.
        event: shape and dtype of one event.
        token_table: where events are tokens: params -> the encodings of all of them [V, X].
        is_end: where the end of a sequence is an event: event [...] -> bool [...].
    """

    init: Callable[[PRNGKey, int], Params]
    log_prob: Callable[[Params, Array, PyTree], Array]
    sample: Callable[..., PyTree]
    mode: Callable[[Params, Array], PyTree]
    encode: Callable[[Params, PyTree], Float[Array, "... X"]]
    encoding_size: int
    event: jax.ShapeDtypeStruct
    token_table: Callable[[Params], Float[Array, "V X"]] | None = None
    is_end: Callable[[PyTree], Bool[Array, "..."]] | None = None
