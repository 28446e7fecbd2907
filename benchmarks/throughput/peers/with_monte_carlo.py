"""Plain JAX as the published SAM script does it: E u and the covariance from a few draws a step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.throughput.cases import Case
from benchmarks.throughput.peers import moments
from benchmarks.throughput.peers.with_jax import device as device

PACKAGES = ("jax", "jaxlib", "numpy")
DRAWS = 10


def build(case: Case, variant: str) -> Callable:
    """A jitted loop of one path's step under `vmap`, with u = (g + Z)/|g + Z|, Z ~ N(0, σ² I).

    dX = -(g + ρ H E u) dt - √η S^{1/2} dW,  S = σ² I + ρ (C + Cᵀ),  C = Cov(Z, H u).
    """
    p, dt = case.parameters, case.dt
    H, sigma, rho = jnp.asarray(p.H), p.sigma, p.rho

    def step(x, xi):
        g = H @ x
        Z = sigma * xi[:-1].reshape(3, DRAWS, case.d)
        u = (g + Z) / jnp.linalg.norm(g + Z, axis=-1, keepdims=True)
        drift = -(g + rho * H @ u[0].mean(0))
        C = Z[1].T @ ((u[1] - u[2].mean(0)) @ H) / DRAWS
        S = sigma**2 * jnp.eye(case.d) + rho * (C + C.T)
        eigenvalues, Q = jnp.linalg.eigh(S)
        noise = Q @ (jnp.sqrt(jnp.maximum(eigenvalues, 0)) * (Q.T @ xi[-1]))
        return x + dt * (drift - noise)  # √η √dt = dt

    @jax.jit
    def final_loss(key, steps):
        def body(k, x):
            shape = (case.paths, 3 * DRAWS + 1, case.d)
            return jax.vmap(step)(x, jax.random.normal(jax.random.fold_in(key, k), shape))

        x0 = jnp.broadcast_to(case.x0, (case.paths, case.d))
        x = jax.lax.fori_loop(0, steps, body, x0)
        return ((x @ H) * x).sum(1) / 2

    return lambda steps, seed: moments(np.asarray(final_loss(jax.random.key(seed), steps)))
