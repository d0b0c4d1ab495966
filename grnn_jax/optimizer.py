"""The gradient method of a run: an optax chain and a schedule made from a configuration."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from grnn_jax.config import Config

# Vectors are biases and gains; a learned initial state is not a weight, whatever its shape.
_NOT_DECAYED = re.compile(r"initial_state|bias|scale")


def make_schedule(config: Config) -> optax.Schedule:
    r"""Learning rate as a function of the training step.

    With $\eta$ the learning rate, $w$ the warm-up steps, $f$ the final fraction, $N$ the number of
    steps and $s$ the step, counted from 0:

    $$\eta_s = \eta \frac{s+1}{w+1} \quad (s < w)$$

    and then, with $r = s - w$: constant $\eta$; cosine
    $\eta\,(f + (1-f)\,\tfrac12(1+\cos(\pi \min(1, r/(N-w)))))$; step
    $\eta\,\mathrm{decay\_factor}^{\lfloor r/\mathrm{decay\_every}\rfloor}$.

    Args:
        config: `schedule`, `learning_rate`, `warmup_steps` and what the schedule needs.

    Returns:
        Function from the step (an integer) to the learning rate (float32).
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        main = optax.cosine_decay_schedule(
            peak, max(1, config.last_step - warmup), alpha=config.final_learning_rate_fraction
        )
    elif config.schedule == "step":
        main = optax.exponential_decay(
            peak, config.decay_every, config.decay_factor, staircase=True
        )
    else:
        main = optax.constant_schedule(peak)

    def schedule(step: Int[Array, ""] | int) -> Float[Array, ""]:
        step = jnp.asarray(step)
        rising = peak * (step + 1) / float(warmup + 1)  # One more than 32 bits may hold.
        after = main(jnp.maximum(step - warmup, 0))
        return jnp.where(step < warmup, rising, after).astype(jnp.float32)

    return schedule


def decay_mask(params: PyTree) -> PyTree:
    """Says which parameters weight decay applies to: matrices, but no learned initial state.

    Args:
        params: nested dicts of arrays.

    Returns:
        The same structure with a bool for each array.
    """

    def decays(path: tuple, leaf: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return leaf.ndim >= 2 and not _NOT_DECAYED.search(name)

    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(config: Config) -> optax.GradientTransformation:
    r"""Clipping, the gradient method, weight decay, the schedule and accumulation, in this order.

    A gradient $g$ whose global norm exceeds $c$ becomes $g\,c/\lVert g\rVert$. adamw decays the
    weights beside the update (decoupled: $-\eta\lambda\theta$, Loshchilov and Hutter 2019); the
    other methods add $\lambda\theta$ to the clipped gradient, as L2 regularisation does. With
    `accumulate_steps` $k > 1$ the mean of $k$ gradients makes one update, at every k-th step;
    the schedule keeps counting training steps.

    Args:
        config: the settings of a run.

    Returns:
        The transformation. Its updates are added to the parameters.
    """
    every = config.accumulate_steps
    per_step = make_schedule(config)

    def learning_rate(update: Int[Array, ""] | int) -> Float[Array, ""]:
        return per_step((update + 1) * every - 1)

    parts = []
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    decay = optax.add_decayed_weights(config.weight_decay, mask=decay_mask)
    if config.optimizer in ("adam", "adamw"):
        method = optax.scale_by_adam(b1=config.b1, b2=config.b2)
    elif config.optimizer == "rmsprop":
        method = optax.chain(
            optax.scale_by_rms(decay=config.b2),
            optax.trace(decay=config.momentum) if config.momentum else optax.identity(),
        )
    else:
        method = optax.trace(decay=config.momentum) if config.momentum else optax.identity()
    if not config.weight_decay:
        parts.append(method)
    elif config.optimizer == "adamw":
        parts += [method, decay]
    else:
        parts += [decay, method]
    parts.append(optax.scale_by_learning_rate(learning_rate))
    chain = optax.chain(*parts)
    if every == 1:
        return chain
    return optax.MultiSteps(chain, every_k_schedule=every).gradient_transformation()


def has_updated(opt_state: PyTree) -> Array:
    """True where the last step moved the parameters, False in the middle of an accumulation.

    Args:
        opt_state: state of a transformation of `make_optimizer`.

    Returns:
        Scalar bool.
    """
    if isinstance(opt_state, optax.MultiStepsState):
        return jnp.logical_and(opt_state.mini_step == 0, opt_state.gradient_step > 0)
    return jnp.asarray(True)
