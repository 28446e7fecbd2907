"""Schemes: one step of an SDE from declared noise."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxsde.engine.noise import Draw, Normal


class EulerMaruyama(eqx.Module):
    """y + b(t, y) dt + s(t, y) ΔW with Gaussian ΔW = √dt ξ (Kloeden and Platen 1992, section 10.2).

    Weak order 1; strong order 1/2, and 1 where the noise is additive.
    """

    weak_order: ClassVar[float] = 1.0
    strong_order: ClassVar[float] = 0.5

    def noise(self, brownian: PyTree[jax.ShapeDtypeStruct]) -> PyTree[Draw]:
        """ξ, for a Brownian motion of this structure."""
        return jax.tree.map(lambda leaf: Draw(leaf.shape, Normal()), brownian)

    def step(self, sde: Any, t, y: PyTree, dt, draw: PyTree) -> PyTree:
        """The state at t + dt from the state y at t and unit normals `draw`."""
        increment = jax.tree.map(lambda xi: jnp.sqrt(dt) * xi, draw)
        drift = sde.drift(t, y, None)
        diffusion = sde.diffusion(t, y, None).mv(increment)
        return jax.tree.map(lambda y, b, s: y + b * dt + s, y, drift, diffusion)
