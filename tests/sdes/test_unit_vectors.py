"""The law of the unit vector of a normal one, u = (g + Z)/|g + Z|."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde.sdes._unit_vectors import unit_vector

law_of = jax.jit(unit_vector, static_argnums=1)


@partial(jax.jit, static_argnums=1)
def laws_of(s, d):
    return jax.vmap(lambda s: unit_vector(s, d))(s)


@pytest.mark.parametrize("d", [2, 3, 20, 300])
def test_the_unit_vectors_law_by_quadrature(d, x64):
    """In polar coordinates about g + Z = 0; the angle to g has density in sin^(d - 2)."""
    at, weight = np.polynomial.legendre.leggauss(400)
    for s in (0.0, 0.3, 1.0, 4.0, 40.0):
        centre = np.sqrt(s**2 + d)
        low, high = max(centre - 12, 0), centre + 12
        r, wr = low + (at + 1) * (high - low) / 2, weight[:, None]
        angle = (at + 1) * np.pi / 2 * (1 if s < 10 else 0.5)
        cos, sin = np.cos(angle), np.sin(angle)
        log_p = (d - 1) * np.log(r)[:, None] + (d - 2) * np.log(sin)
        log_p = log_p - (r[:, None] ** 2 - 2 * s * r[:, None] * cos + s**2) / 2
        p = wr * weight * np.exp(log_p - log_p.max())
        p /= p.sum()
        xi = r[:, None] * cos - s  # the noise along g
        mean, shared, square = np.sum(p * cos), np.sum(p * xi * cos), np.sum(p * cos**2)
        across = np.sum(p * r[:, None] * sin**2) / (d - 1)  # E of noise times u, one direction
        law = law_of(jnp.asarray(s), d)
        found = [law.alpha, law.beta, law.across, law.along]
        tau = (1 - square) / (d - 1)
        known = [across, shared, tau - across**2, square - mean**2 - shared**2]
        np.testing.assert_allclose(law.alpha * s, mean, atol=1e-10)
        np.testing.assert_allclose(found, known, atol=2e-10)


def test_the_unit_vectors_law_holds_in_single_precision():
    for d in (1, 2, 20):
        s = np.geomspace(1e-4, 1e4, 60)
        single = laws_of(jnp.asarray(s, jnp.float32), d)
        with jax.enable_x64(True):
            double = laws_of(jnp.asarray(s), d)
        for found, known in zip(single, double, strict=True):
            assert found.dtype == jnp.float32
            np.testing.assert_allclose(found, known, atol=2e-6)
