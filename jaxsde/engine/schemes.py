"""Schemes: one step of an SDE from declared noise."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxsde.engine.noise import Draw, Law, Normal, Rademacher


class Scheme(eqx.Module):
    """How an SDE takes a step.

    `weak_order` is that of expectations of smooth functions, `strong_order` that of paths (None:
    no path converges).
    """

    weak_order: ClassVar[float]
    strong_order: ClassVar[float | None]

    @abc.abstractmethod
    def noise(self, brownian: PyTree[jax.ShapeDtypeStruct]) -> PyTree[Draw]:
        """ξ, for a Brownian motion of this structure."""

    @abc.abstractmethod
    def step(self, sde: Any, t, y: PyTree, dt, draw: PyTree) -> PyTree:
        """The state at t + dt from the state y at t and the unit noise `draw`."""


class EulerMaruyama(Scheme):
    """y + b(t, y) dt + s(t, y) √dt ξ with Gaussian ξ (Kloeden and Platen 1992, section 10.2).

    Weak order 1; strong order 1/2, and 1 where the noise is additive.
    """

    weak_order: ClassVar[float] = 1.0
    strong_order: ClassVar[float | None] = 0.5

    def noise(self, brownian):
        """Unit normals."""
        return _unit(brownian, Normal())

    def step(self, sde, t, y, dt, draw):
        """One step."""
        return _euler(sde, t, y, dt, draw)


class SimplifiedWeakEuler(Scheme):
    """y + b(t, y) dt + s(t, y) √dt ξ with ξ = ±1 (Kloeden and Platen 1992, section 14.1).

    Weak order 1, as Euler-Maruyama, from one random bit a coordinate instead of 32: for means,
    moments and losses, which are expectations of smooth functions.

    Only those. ξ has the first three moments of a normal, not the fourth (1 for 3), and no path
    converges. After n steps a coordinate has at most 2ⁿ values, none beyond n increments: its
    density, quantiles, tails, exit times, and the mean of anything that jumps (a sign, an
    indicator) are the scheme's, not the SDE's. In a pair it cannot share an optimizer's Gaussian
    noise.
    """

    weak_order: ClassVar[float] = 1.0
    strong_order: ClassVar[float | None] = None

    def noise(self, brownian):
        """Signs."""
        return _unit(brownian, Rademacher())

    def step(self, sde, t, y, dt, draw):
        """One step."""
        return _euler(sde, t, y, dt, draw)


def _unit(brownian: PyTree[jax.ShapeDtypeStruct], law: Law) -> PyTree[Draw]:
    return jax.tree.map(lambda leaf: Draw(leaf.shape, law), brownian)


def _euler(sde: Any, t, y: PyTree, dt, xi: PyTree) -> PyTree:
    increment = jax.tree.map(lambda xi: jnp.sqrt(dt) * xi, xi)
    drift = sde.drift(t, y, None)
    diffusion = sde.diffusion(t, y, None).mv(increment)
    return jax.tree.map(lambda y, b, s: y + b * dt + s, y, drift, diffusion)
