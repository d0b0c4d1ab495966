"""Special functions against SciPy, of arguments and of constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from grnn_jax.ops.special import log_gamma


@pytest.mark.optimized
@pytest.mark.parametrize("is_constant", [False, True])
def test_log_gamma_of_what_a_function_closes_over(is_constant):
    """Masked and transposed first, as the events of a batch are."""
    counts = np.random.default_rng(0).integers(0, 8, (5, 4, 2))
    mask = np.arange(4) < np.array([[3], [2], [1], [3], [4]])

    def run(counts):
        masked = jnp.where(mask[:, :, None], counts, 0)
        return log_gamma(jnp.swapaxes(masked, 0, 1).astype(jnp.float32) + 1)

    found = jax.jit(lambda: run(counts))() if is_constant else jax.jit(run)(counts)
    expected = scipy.special.gammaln((counts * mask[:, :, None]).swapaxes(0, 1) + 1.0)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
