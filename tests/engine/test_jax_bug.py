"""jax-ml/jax#39103: reductions over vmapped matrix-vector products were wrong on CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde.problems import Quadratic

HESSIAN = np.array([[2.0, 0.5, -0.25], [0.5, 1.0, 0.75], [-0.25, 0.75, 3.0]])


def three(H, problem, x):
    """Reductions of H x on one path."""
    y = H @ x
    return jnp.sum(y**2), jnp.sum(x * y), jnp.sum(y), problem.loss(x)


@jax.jit
def every(H, problem, x):
    first = jax.vmap(three, (None, None, 0))(H, problem, x)
    last = jax.vmap(three, (None, None, -1))(H, problem, x.T)
    return first, last


@pytest.mark.parametrize("n", [16385, 32769, 40000])
def test_reductions_over_products_are_right(n, precision):
    x = np.random.default_rng(n).standard_normal((n, 3)).astype(precision)
    y = x.astype(np.float64) @ HESSIAN
    known = np.sum(y**2, 1), np.sum(x * y, 1), np.sum(y, 1), np.sum(x * y, 1) / 2
    problem, H = Quadratic(HESSIAN), jnp.asarray(HESSIAN, precision)
    # Twelve products and sums, of terms that may cancel.
    tolerance = 20 * np.finfo(precision).eps
    for found in every(H, problem, x):
        for value, exact in zip(found, known, strict=True):
            scale = 10 * np.sum(x.astype(np.float64) ** 2, 1) + np.sum(np.abs(y), 1)
            assert np.all(np.abs(value - exact) <= tolerance * scale)
