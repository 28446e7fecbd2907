"""Weak errors without sampling: an optimizer and an SDE of the package on one Chebyshev grid."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from benchmarks.verdicts._verdict import Case
from jaxsde.engine import Estimate
from jaxsde.problems import Problem
from jaxsde.theory.transfer_operator import chain_expectation, diffusion_expectation

ATOMS = np.sqrt(3) * np.array([-1.0, 0.0, 1.0])
"""Values of noise with the standard normal's first five moments."""
WEIGHTS = np.array([1, 4, 1]) / 6
LATE = 1e3
"""A time at which nothing is left of a bias correction."""


class Wavy(Problem):
    """f' = 0.6 x + 0.3 sin x, which has derivatives of all orders."""

    def loss(self, x):
        return jnp.sum(0.3 * x**2 - 0.3 * jnp.cos(x))


def wavy_gradient(x: np.ndarray) -> np.ndarray:
    """The gradient of `Wavy`."""
    return 0.6 * x + 0.3 * np.sin(x)


class Grid(NamedTuple):
    """Where a chain and its SDEs are compared: one start, time 1, monomials of the state.

    Attributes:
        State: the SDE's state, of one coordinate each.
        update: (y `(N, n)`, z, τ) to the next states, one step of time τ of the optimizer.
        start: `(n,)`.
        observables: names and powers, {"x²": (2, 0)}.
        domain: as in `transfer_operator`.
        degree: as in `transfer_operator`.
        atoms: values of the noise z, their weights.
        weights: of the atoms.
    """

    State: Any
    update: Callable[[np.ndarray, Any, float], np.ndarray]
    start: tuple[float, ...]
    observables: dict[str, tuple[int, ...]]
    domain: Sequence[tuple[float, float]]
    degree: int | Sequence[int]
    atoms: Any = ATOMS
    weights: Any = WEIGHTS

    def of_chain(self, tau: float, steps: int) -> Float[np.ndarray, " m"]:
        """E of the observables after the steps."""
        return chain_expectation(
            lambda y, z: self.update(y, z, tau), self.atoms, self.weights, self._monomials,
            self.start, steps, self.domain, self.degree,
        )  # fmt: skip

    def of_sde(self, sde: Any, third_cumulant: Callable | None = None) -> Float[np.ndarray, " m"]:
        """E of the observables at time 1."""
        drift, covariance = (lambda y, i=i: _coefficients(sde, self.State, y)[i] for i in range(2))
        return diffusion_expectation(
            drift, covariance, self._monomials, self.start, 1.0, self.domain, self.degree,
            third_cumulant,
        )  # fmt: skip

    def _monomials(self, y: np.ndarray) -> np.ndarray:
        powers = np.array(list(self.observables.values()))
        return np.prod(y[:, None, :] ** powers, axis=-1)


def cases(
    grid: Grid,
    sde: Callable[[float], Any],
    steps: Sequence[int],
    small: Callable[[int], tuple[str, float]],
    corrected: Callable[[float], np.ndarray] | None = None,
    simulate: Callable[[float, int], dict[str, Callable[[jax.Array], Estimate]]] | None = None,
    chain_steps: Callable[[int], int] = lambda n: n,
) -> list[Case]:
    """One sweep an observable: E of the SDE as published, E of the chain as the exact law.

    Args:
        grid: the comparison.
        sde: of the step τ = 1/n.
        steps: n, increasing.
        small: what n makes of the small parameter, in words and as a number.
        corrected: the corrected expectations of the step τ.
        simulate: of τ and n, by observable.
        chain_steps: how many steps the chain makes in time 1, where it is not n.
    """
    sweeps: dict[str, list[Case]] = {name: [] for name in grid.observables}
    for n in steps:
        tau, (words, number) = 1 / n, small(n)
        published, exact = grid.of_sde(sde(tau)), grid.of_chain(1 / chain_steps(n), chain_steps(n))
        better = None if corrected is None else corrected(tau)
        simulated = {} if simulate is None else simulate(tau, n)
        for i, (name, sweep) in enumerate(sweeps.items()):
            sweep.append(
                Case(
                    f"E {name}, {words}", float(published[i]), float(exact[i]),
                    None if better is None else float(better[i]), simulated.get(name),
                    small=number,
                )
            )  # fmt: skip
    return [case for sweep in sweeps.values() for case in sweep]


@eqx.filter_jit
def _coefficients(sde: Any, State: Any, points: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Drift and G Gᵀ at every point."""

    def at(point):
        y = State(*point[:, None])
        diffusion = sde.diffusion(LATE, y, None)
        unit, unravel = jax.flatten_util.ravel_pytree(
            jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), diffusion.in_structure())
        )
        columns = [_flat(diffusion.mv(unravel(e))) for e in jnp.eye(unit.size)]
        return _flat(sde.drift(LATE, y, None)), jnp.stack(columns, 1) @ jnp.stack(columns)

    return jax.vmap(at)(points)


def _flat(tree: Any) -> jax.Array:
    return jax.flatten_util.ravel_pytree(tree)[0]
