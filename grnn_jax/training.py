"""One training step and one evaluation step: pure functions of a state and a batch."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from grnn_jax import likelihood
from grnn_jax.array_types import Array, Batch, Bool, Float, Int, Params, PRNGKey, PyTree
from grnn_jax.config import Config
from grnn_jax.model import Carry, Model
from grnn_jax.optimizer import has_updated, make_schedule
from grnn_jax.sharding import (
    REPLICATED,
    AnyMesh,
    Rules,
    batch_sharding,
    replicated,
    tree_shardings,
    value_and_grad_over_rows,
)


class SavedCarry(NamedTuple):
    """The carry of a checkpoint: conditions come with the windows, and are not carried."""

    cell_state: PyTree
    event: PyTree
    started: Bool[Array, " B"]


@flax.struct.dataclass
class TrainState:
    """Everything that a training step reads and writes.

    Attributes:
        step: training steps done, an int32 scalar.
        params: parameters, nested dicts of float32 arrays.
        opt_state: state of the optax chain.
        key: typed random key of the run; the key of a step is folded from it.
        carry: recurrent state of every stream, every leaf [B, ...], carried from window to window.
        averaged_params: exponential moving average of the parameters, or None.
        learning_rate_scale: product of the reductions on plateaus so far, a float32 scalar.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    key: PRNGKey
    carry: Carry
    averaged_params: Params | None
    learning_rate_scale: Float[Array, ""]

    # The same tree also holds shapes and shardings, which no runtime checker would let pass.
    __no_type_check__: ClassVar[bool] = True

    @property
    def evaluated_params(self) -> Params:
        """The parameters that are evaluated and sampled from."""
        return self.params if self.averaged_params is None else self.averaged_params

    def split(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The state as the two items of a checkpoint: parameters, and everything else."""
        rest = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        params = {name: rest.pop(name) for name in ("params", "averaged_params")}
        rest["carry"] = SavedCarry(*self.carry[:3])
        return params, rest

    @classmethod
    def join(cls, params: dict[str, Any], rest: dict[str, Any]) -> "TrainState":
        """The state that `split` took apart."""
        return cls(**params, **rest | {"carry": Carry(*rest["carry"])})


def init_train_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    config: Config,
    params: PyTree | None = None,
) -> TrainState:
    """The state before the first step; without `params` a function of the configuration alone.

    Args:
        model: the model.
        optimizer: the gradient method.
        config: `seed`, `batch_size` and `ema_decay` are read.
        params: the parameters to begin with; None initialises them.

    Returns:
        The state.
    """
    key = jax.random.key(config.seed)
    if params is None:
        params = model.init(jax.random.fold_in(key, 0))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        key=jax.random.fold_in(key, 1),
        carry=model.initial_state(params, config.batch_size),
        averaged_params=jax.tree.map(jnp.copy, params) if config.ema_decay else None,
        learning_rate_scale=jnp.ones((), jnp.float32),
    )


def train_state_shardings(state: PyTree, mesh: AnyMesh, rules: Rules = REPLICATED) -> Any:
    """How a state lies on a mesh: parameters by the rules, streams split over "data".

    Args:
        state: a state, or its shapes.
        mesh: mesh with the axis "data".
        rules: partition rules of the parameters; they apply to the moments of the optimizer too.

    Returns:
        A state with a sharding for each array.
    """
    whole: Any = replicated(mesh)
    split = batch_sharding(mesh)
    return TrainState(
        step=whole,
        params=tree_shardings(state.params, mesh, rules),
        opt_state=tree_shardings(state.opt_state, mesh, rules),
        key=whole,
        carry=jax.tree.map(lambda _: split, state.carry),
        averaged_params=tree_shardings(state.averaged_params, mesh, rules),
        learning_rate_scale=whole,
    )


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def update_average(average: PyTree, params: PyTree, decay: float, updates: Array) -> PyTree:
    r"""One step of the exponential moving average of the parameters.

    $$\bar\theta \leftarrow d\,\bar\theta + (1-d)\,\theta, \qquad
      d = \min\!\big(\mathrm{decay}, \tfrac{1+n}{10+n}\big)$$

    so that the random initial parameters are forgotten early on.

    Args:
        average: the average so far.
        params: the parameters after the update.
        decay: largest decay.
        updates: n, number of updates before this one.

    Returns:
        The new average.
    """
    n = updates.astype(jnp.float32)
    d = jnp.minimum(decay, (1 + n) / (10 + n))
    return optax.incremental_update(params, average, 1 - d)


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    config: Config,
    mesh: AnyMesh | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    r"""Makes the training step.

    What is minimised is $-\frac{1}{BT} \sum_{bt} m_{bt} \log p(x_{bt} \mid \cdot)$, with the
    number of steps of the window, B times T, as a constant divisor: every scored event weighs the
    same, so that the nearly empty window at the end of an epoch makes a small update, not a noisy
    one of full size. The metric `loss` is the mean over the scored events,
    $-\sum_{bt} m_{bt} \log p(x_{bt} \mid \cdot) / \sum_{bt} m_{bt}$, in nats per event. The
    recurrent state at the end starts the next window; no gradient flows back through it.

    Args:
        model: the model.
        optimizer: the gradient method.
        config: dropout, accumulation and averaging are read.
        mesh: the devices that share the rows of a batch; None for one device.

    Returns:
        Pure function (state, batch) -> (state, metrics). Metrics are scalars: nats (their sum),
        num_events, loss (nats per event), grad_norm (before clipping), learning_rate and finite
        (False where the new state holds, or came from, a NaN or an infinity).
    """
    schedule = make_schedule(config)
    draws = config.dropout > 0 or config.recurrent_dropout > 0 or config.zoneout > 0

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step) if draws else None
        num_events = jnp.sum(batch.mask, dtype=jnp.int32)
        start = jax.lax.stop_gradient(state.carry)

        def loss_fn(
            params: PyTree, key: Array | None, rows: tuple[PyTree, Batch], first_row: Array | int
        ) -> tuple[Array, PyTree]:
            log_probs, carry = likelihood.event_log_probs(
                model, params, *rows, key=key, first_row=first_row
            )
            return -jnp.sum(log_probs) / num_steps, carry

        num_steps = batch.mask.size
        value_and_grad = value_and_grad_over_rows(loss_fn, mesh)
        (loss, carry), grads = value_and_grad(state.params, key, (start, batch))
        nats = loss * num_steps
        loss = nats / jnp.maximum(num_events, 1)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        updates = jax.tree.map(lambda update: update * state.learning_rate_scale, updates)
        params = optax.apply_updates(state.params, updates)

        averaged = state.averaged_params
        if averaged is not None:
            done = state.step // config.accumulate_steps
            new = update_average(averaged, params, config.ema_decay, done)
            moved = has_updated(opt_state)
            averaged = jax.tree.map(lambda a, b: jnp.where(moved, a, b), new, averaged)

        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & _all_finite((params, carry))
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            carry=jax.lax.stop_gradient(carry),
            averaged_params=averaged,
        )
        metrics = {
            "nats": nats,
            "num_events": num_events,
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": schedule(state.step) * state.learning_rate_scale,
            "finite": finite,
        }
        return new_state, metrics

    return train_step


def make_train_steps(
    train_step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]],
) -> Callable[[TrainState, Batch, Int[Array, ""]], tuple[TrainState, dict[str, Array]]]:
    """Makes several training steps one function, so that a device runs them without the host.

    Their number is an argument, not a constant: each step is the same compiled code however many
    there are of them, and with it the same to the bit however a run is cut into calls.

    Args:
        train_step: of `make_train_step`.

    Returns:
        Pure function (state, batches, n) -> (state, metrics): batches are arrays [N, B, ...], of
        which the first n ≤ N are used; metrics are arrays [N], 0 after the first n.
    """

    def train_steps(
        state: TrainState, batches: Batch, num_steps: Int[Array, ""]
    ) -> tuple[TrainState, dict[str, Array]]:
        def batch_of(index: Array | int) -> Batch:
            return jax.tree.map(
                lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), batches
            )

        def step(
            index: Array, loop: tuple[TrainState, dict[str, Array]]
        ) -> tuple[TrainState, dict[str, Array]]:
            state, metrics = loop
            state, of_step = train_step(state, batch_of(index))
            written = {name: metrics[name].at[index].set(of_step[name]) for name in metrics}
            return state, written

        size = batches.mask.shape[0]
        _, shapes = jax.eval_shape(train_step, state, jax.eval_shape(batch_of, 0))
        nothing = {
            name: jnp.zeros((size, *each.shape), each.dtype) for name, each in shapes.items()
        }
        result: tuple[TrainState, dict[str, Array]] = jax.lax.fori_loop(
            0, num_steps, step, (state, nothing)
        )
        return result

    return train_steps


def make_eval_step(
    model: Model,
) -> Callable[[PyTree, PyTree, Batch], tuple[PyTree, dict[str, Array]]]:
    """Makes the evaluation step.

    Args:
        model: the model.

    Returns:
        Pure function (params, carry, batch) -> (carry, metrics) with the scalars nats and
        num_events, sums over the batch.
    """

    def eval_step(params: PyTree, carry: PyTree, batch: Batch) -> tuple[PyTree, dict[str, Array]]:
        log_probs, carry = likelihood.event_log_probs(model, params, carry, batch)
        num_events = jnp.sum(batch.mask, dtype=jnp.int32)
        return carry, {"nats": -jnp.sum(log_probs), "num_events": num_events}

    return eval_step
