"""Special functions as XLA computes them rightly."""

import jax
from jax.scipy.special import gammaln

from grnn_jax.array_types import Array, Float


def log_gamma(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Log Γ(z).

    What is known when a program is compiled, as events that a function closes over, XLA computes
    beforehand, and with jax 0.12 on a CPU permutes the results of this function where the events
    were transposed: Poisson likelihoods were nats off. Behind the barrier nothing is known.
    """
    value: Array = gammaln(jax.lax.optimization_barrier(z))
    return value
