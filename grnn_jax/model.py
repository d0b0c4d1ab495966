"""cell + distribution (+ conditioning) → `Model`, a tuple of pure functions."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from grnn_jax.array_types import AnyArray, Array, Bool, Float, Params, PRNGKey, PyTree
from grnn_jax.cells.base import Cell
from grnn_jax.conditions import (
    NO_CONDITIONS,
    Conditions,
    ProjectedConditions,
    check_conditions,
    check_settings,
    init_conditions,
    project_conditions,
)
from grnn_jax.distributions.acceptance import accept, fill, filler
from grnn_jax.distributions.base import Distribution
from grnn_jax.ops.checks import check_array, check_key, check_tree, shapes_of_init
from grnn_jax.ops.compute_type import EXACT
from grnn_jax.ops.entry import widen
from grnn_jax.ops.factories import cached_factory
from grnn_jax.recurrence.engines import check_engine
from grnn_jax.recurrence.inputs import Inputs, projecting_a_table_pays, table_with_start

CONDITIONS_FOLD = 1
"""What the parameters of conditions are drawn from is folded from the key by this number."""


class Carry(NamedTuple):
    """Everything a sequence leaves behind for its continuation; every array is [B, ...].

    Attributes:
        cell_state: the cell's state s_t, after all inputs it has seen.
        event: the last event, which has not entered the network yet.
        started: False where there is no last event: the learned start input enters instead.
        conditions: what the conditions of each row add to its projected inputs; None of a model
            without conditions, and where windows bring those of their sequences.
    """

    cell_state: PyTree
    event: PyTree
    started: Bool[Array, " B"]
    conditions: ProjectedConditions | None = None


class InitParams(Protocol):
    """Draws the parameters of a model."""

    def __call__(self, key: PRNGKey, /) -> Params:
        """The parameters.

        Args:
            key: a typed random key.

        Returns:
            A dict with "cell", "distribution", "start" (and "conditioning", "conditions"), float32.
        """
        ...


class InitialState(Protocol):
    """Makes the carry of empty sequences."""

    def __call__(
        self,
        params: Params,
        batch_size: int,
        conditioning: Float[AnyArray, "..."] | None = None,
        conditions: Float[AnyArray, "..."] | None = None,
    ) -> Carry:
        """The carry before the first event.

        Args:
            params: parameters of the model.
            batch_size: B.
            conditioning: vectors [B, C] that move the cell's initial state, for a model made with
                `conditioning_size` C, and for no other.
            conditions: what each row is given, [B, C], or [C] for all: class indices and numbers,
                NaN where they are missing. Of a model with conditions they may be left out
                where windows bring them, as `Batch.conditions`.

        Returns:
            The carry.

        Raises:
            ValueError: for parameters of another model, or a conditioning or conditions that do
                not fit.
        """
        ...


Step = Callable[[Carry], tuple[Float[Array, "B H"], Carry]]
"""carry -> (hidden, carry): enters the carry's last event; `hidden` then parameterises p(next)."""


class ModelStep(Protocol):
    """Enters the last event of every sequence."""

    def __call__(self, params: Params, carry: Carry, /) -> tuple[Float[Array, "B H"], Carry]:
        """One step of the network.

        Args:
            params: parameters of the model.
            carry: its `event` enters the network, the start input where not `started`.

        Returns:
            hidden [B, H], which parameterises p(next event | all before), and the carry.
        """
        ...


class MakeStep(Protocol):
    """Makes the step of a loop."""

    def __call__(self, params: Params, num_events: int = 1) -> Step:
        """`Model.step` for a loop: what does not depend on the carry is computed once.

        Args:
            params: parameters of the model.
            num_events: about how many events the loop runs over, all rows together.

        Returns:
            The step.
        """
        ...


class Feed(Protocol):
    """Makes an event the last one."""

    def __call__(self, carry: Carry, event: PyTree, /) -> Carry:
        """The carry with `event` as the last event of every sequence.

        Args:
            carry: a carry.
            event: arrays [B, ...]; what is no event of the family is replaced by its filler.

        Returns:
            The carry; nothing has entered the network yet.
        """
        ...


class Model(NamedTuple):
    """A generative recurrent network.

    Attributes:
        init: see `InitParams`.
        initial_state: see `InitialState`.
        step: see `ModelStep`.
        feed: see `Feed`.
        make_step: see `MakeStep`.
        cell: the cell.
        distribution: the output distribution.
        engine: how `unroll` runs the cell.
        chunk_size: steps between kept states under rematerialisation, or None.
        skip_input: whether the output layer sees the encoded last event beside the hidden state.
        conditions: what is known of a sequence beforehand.
    """

    init: InitParams
    initial_state: InitialState
    step: ModelStep
    feed: Feed
    make_step: MakeStep
    cell: Cell
    distribution: Distribution
    engine: str = "auto"
    chunk_size: int | None = None
    skip_input: bool = False
    conditions: Conditions = Conditions()


@cached_factory
def make_model(
    cell: Cell,
    distribution: Distribution,
    *,
    engine: str = "auto",
    conditioning_size: int = 0,
    chunk_size: int | None = None,
    skip_input: bool = False,
    conditions: Sequence[int] = (),
    condition_enters: str = "steps",
) -> Model:
    r"""Joins a cell and an output distribution into a generative model.

        s_t, h_t = cell(s_{t-1}, encode(x_t)),   encode(x_0) = learned start input
        x_{t+1} ~ distribution(h_t)
        s_{-1} = initial state (+ C c, with a conditioning vector c)
        project(x_t) + a(c)      enters the first layer, with conditions c

    Args:
        cell: a cell or a stack.
        distribution: the family of p(x_{t+1} | x_≤t).
        engine: see `grnn_jax.unroll`.
        conditioning_size: width of a vector that moves the initial state; 0 for none.
        chunk_size: rematerialise in chunks of this many steps, for long windows.
        skip_input: the output layer sees [h_t, encode(x_t)] in place of h_t (Graves 2013), so that
            the cell need not carry what merely goes on, as the notes held in music do.
        conditions: what is known of each sequence beforehand, for each the number of its classes,
            or 0 where it is a number: the model is then p(x | c). They enter the first layer; all
            sites of a sitewise cell are given the same.
        condition_enters: "steps", at every step of a sequence; "start", with the start input
            alone; "both", with parameters for each.

    Returns:
        The model.

    Raises:
        ValueError: for a negative conditioning_size, conditions that cannot be, an engine that
            cannot run the cell, a distribution with a token_table and without num_tokens, or a
            distribution that reads sites beside a cell that is not shared over them.

    Reference: A. Graves, "Generating sequences with recurrent neural networks", 2013.

    Example:
        >>> import grnn_jax
        >>> from grnn_jax import cells, distributions
        >>> model = grnn_jax.make_model(cells.gru(8), distributions.categorical(5))
        >>> params = model.init(jax.random.key(0))
        >>> sorted(params)
        ['cell', 'distribution', 'start']
        >>> hidden, carry = model.step(params, model.initial_state(params, 3))
        >>> model.distribution.logits(params["distribution"], hidden).shape  # p(x_1), [B, V]
        (3, 5)
        >>> carry = model.feed(carry, jnp.array([0, 4, 2]))  # x_1, for the next step
        >>> cell, family = cells.gru(8), distributions.categorical(5)
        >>> given = grnn_jax.make_model(cell, family, conditions=[3, 0])
        >>> params = given.init(jax.random.key(0))
        >>> c = jnp.array([[2, 0.5], [0, -1.0]])  # a class and a number of each sequence
        >>> grnn_jax.log_prob(given, params, jnp.array([[0, 4], [1, 1]]), conditions=c).shape
        (2,)
    """
    first = cell if cell.layered is None else cell.layered.cells[0]
    sites_given = 1 if first.sitewise is None else first.sitewise.num_sites
    kinds = check_settings(conditions, condition_enters, sites_given)
    if conditioning_size < 0:
        raise ValueError(f"conditioning_size must not be negative, got {conditioning_size}")
    check_engine(cell, engine)
    if (distribution.token_table is None) != (distribution.num_tokens is None):
        raise ValueError(
            "a distribution must have both token_table and num_tokens, or neither, got "
            f"num_tokens={distribution.num_tokens} for {distribution.name}"
        )
    last = cell if cell.layered is None else cell.layered.cells[-1]
    num_sites = 0 if last.sitewise is None else last.sitewise.num_sites
    if distribution.num_sites not in (0, num_sites):
        raise ValueError(
            f"a distribution shared over {distribution.num_sites} sites needs a cell shared over "
            "as many (sitewise_lstm, sitewise_gru), got "
            + (f"{num_sites} sites" if num_sites else "none")
        )

    def init(key: PRNGKey) -> Params:
        check_key("key", key)
        cell_key, output_key, start_key, conditioning_key = jax.random.split(key, 4)
        params: Params = {
            "cell": cell.init(cell_key, distribution.encoding_size),
            "distribution": distribution.init(
                output_key, cell.hidden_size + skip_input * distribution.encoding_size
            ),
            "start": jax.random.normal(start_key, (distribution.encoding_size,), jnp.float32),
        }
        if conditioning_size:
            leaves = jax.tree.leaves(cell.initial_state(params["cell"], 1))
            lecun_normal = jax.nn.initializers.lecun_normal()
            params["conditioning"] = {
                f"kernel_{index}": lecun_normal(
                    jax.random.fold_in(conditioning_key, index),
                    (conditioning_size, leaf.shape[-1] * (2 if jnp.iscomplexobj(leaf) else 1)),
                    jnp.float32,
                )
                for index, leaf in enumerate(leaves)
            }
        if kinds.sizes:
            row = jax.ShapeDtypeStruct((1, distribution.encoding_size), jnp.float32)
            projected = jax.eval_shape(cell.project, params["cell"], row)
            # Folded, not split: other parameters are drawn as without conditions.
            params["conditions"] = init_conditions(
                jax.random.fold_in(key, CONDITIONS_FOLD), kinds, projected.shape[-1]
            )
        return params

    def initial_state(
        params: Params,
        batch_size: int,
        conditioning: Float[AnyArray, "..."] | None = None,
        conditions: Float[AnyArray, "..."] | None = None,
    ) -> Carry:
        check_params(init, params)
        params = widen(params)
        state = cell.initial_state(params["cell"], batch_size)
        if conditioning is not None:
            check_array("conditioning", conditioning)
        if (conditioning is not None) != bool(conditioning_size):
            given = "none" if conditioning is None else f"shape {conditioning.shape}"
            raise ValueError(
                f"conditioning must have size {conditioning_size} (0 is none), got {given}"
            )
        if conditioning is not None:
            if conditioning.shape != (batch_size, conditioning_size):
                raise ValueError(
                    f"conditioning must have shape {(batch_size, conditioning_size)}, "
                    f"got {conditioning.shape}"
                )
            leaves, tree = jax.tree.flatten(state)
            kernels = params["conditioning"]
            moved = []
            for index, leaf in enumerate(leaves):
                shift = jnp.matmul(conditioning, kernels[f"kernel_{index}"], precision=EXACT)
                if jnp.iscomplexobj(leaf):
                    shift = jax.lax.complex(*jnp.split(shift, 2, -1))
                moved.append(leaf + shift)
            state = jax.tree.unflatten(tree, moved)
        event = jax.tree.map(
            lambda spec, value: jnp.full((batch_size, *spec.shape), value, spec.dtype),
            distribution.event,
            filler(distribution),
        )
        entering = None
        if conditions is not None:
            check_conditions(kinds, conditions, batch_size)
            rows = jnp.broadcast_to(jnp.asarray(conditions), (batch_size, len(kinds.sizes)))
            entering = project_conditions(params["conditions"], kinds, rows)
        return Carry(state, event, jnp.zeros((batch_size,), bool), entering)

    def make_step(params: Params, num_events: int = 1) -> Step:
        check_params(init, params)
        params = widen(params)
        encode = make_encoder(distribution, params, cell=cell, num_events=num_events)

        def step(carry: Carry) -> tuple[Array, Carry]:
            inputs = encode(carry.event, carry.started)
            projected = inputs.project(cell, params["cell"])
            if kinds.sizes:
                if carry.conditions is None:
                    raise ValueError(NO_CONDITIONS)
                added = carry.conditions.at_step(carry.started)
                projected = projected + added
            state, hidden = cell.step(params["cell"], carry.cell_state, projected)
            if skip_input:
                hidden = jnp.concatenate([hidden, inputs.lookup()], -1)
            return hidden, carry._replace(cell_state=state)

        return step

    def step(params: Params, carry: Carry) -> tuple[Array, Carry]:
        return make_step(params)(carry)

    def feed(carry: Carry, event: PyTree) -> Carry:
        event = fill(distribution, *accept(distribution, event))
        return carry._replace(event=event, started=jnp.ones_like(carry.started))

    return Model(
        init,
        initial_state,
        step,
        feed,
        make_step,
        cell,
        distribution,
        engine,
        chunk_size,
        skip_input,
        kinds,
    )


def check_params(init: Callable[[PRNGKey], Params], params: Params) -> None:
    """Names the first array that is not as `Model.init` makes it; dtypes may differ.

    Args:
        init: of the model.
        params: what came.

    Raises:
        ValueError: for the parameters of another model.
    """
    check_tree("params", params, _shapes_of(init), "those of this model")


@functools.lru_cache(maxsize=256)
def _shapes_of(init: Callable[[PRNGKey], Params]) -> PyTree:
    return shapes_of_init(init)


def make_encoder(
    distribution: Distribution, params: Params, *, cell: Cell | None = None, num_events: int = 0
) -> Callable[[PyTree, Bool[Array, "..."]], Inputs]:
    """The one answer to "what enters the network": a token's row, an encoding or the start input.

    Args:
        distribution: says how its events are encoded.
        params: parameters of the model.
        cell: where a loop enters one event after another: the cell that they enter.
        num_events: about how many events the loop enters; the table of tokens is projected once,
            in front of it, where that is cheaper.

    Returns:
        Function (events [...], started [...]) -> `Inputs`: the events, and where not `started` the
        start input, for training, scoring and sampling alike.
    """
    output, start = params["distribution"], params["start"]
    if distribution.token_table is None:
        encode = distribution.encode
        return lambda event, started: Inputs(encode(output, event), start=start, started=started)
    table = distribution.token_table(output)
    projected = None
    if cell is not None and projecting_a_table_pays(table.shape[0], True, num_events):
        # Not left to the compiler: so it stands in front of the loop on every platform.
        projected = cell.project(params["cell"], table_with_start(table, start))
    return lambda event, started: Inputs(event, table, start, started, projected)
