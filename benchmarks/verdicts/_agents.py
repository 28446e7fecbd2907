"""Agents' chains by enumeration: DSGD, DCSGD with random masks, DSignSGD on its lattice."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.stats
from numpy.polynomial import chebyshev, hermite_e

from benchmarks.verdicts._chains import backward, root
from jaxsde.problems import Problem
from jaxsde.theory import distributed

Masks = Sequence[tuple[float, np.ndarray]]  # of one message: probability, and factors (d,)


def bernoulli(omega: float, dimension: int = 1) -> Masks:
    """Every coordinate kept, times 1 + ω, with probability 1/(1 + ω)."""
    keep = 1 / (1 + omega)
    return [
        (float(np.prod(np.where(kept, keep, 1 - keep))), np.array(kept) / keep)
        for kept in itertools.product([1, 0], repeat=dimension)
    ]


def one_of(dimension: int) -> Masks:
    """Random-k, k = 1: one coordinate, times d."""
    return [(1 / dimension, dimension * e) for e in np.eye(dimension)]


class SecondMoment(NamedTuple):
    """M = E y yᵀ of y⁺ = y - (η/N) Σ Cᵢ(H y + Zᵢ): M⁺ = E A M Aᵀ + source, as one matrix."""

    map: np.ndarray
    source: np.ndarray

    def after(self, y0: np.ndarray, steps: int) -> np.ndarray:
        """M after the steps from y₀."""
        M = np.outer(y0, y0).ravel()
        for _ in range(steps):
            M = self.map @ M + self.source.ravel()
        return M.reshape(self.source.shape)

    def stationary(self) -> np.ndarray:
        """M as t → ∞."""
        M = np.linalg.solve(np.eye(len(self.map)) - self.map, self.source.ravel())
        return M.reshape(self.source.shape)

    def radius(self) -> float:
        """Of the map's spectrum: M stays bounded below 1."""
        return float(np.max(np.abs(np.linalg.eigvals(self.map))))


def second_moment(
    H: np.ndarray, covariances: Sequence[np.ndarray], masks: Masks, eta: float
) -> SecondMoment:
    """All masks of all agents, one covariance an agent, enumerated."""
    N, d = len(covariances), len(H)
    grown, source = np.zeros((d * d, d * d)), np.zeros((d, d))
    for each in itertools.product(masks, repeat=N):
        probability = np.prod([p for p, _ in each])
        A = np.eye(d) - eta / N * sum(np.diag(kept) for _, kept in each) @ H
        grown += probability * np.kron(A, A)
        for (_, kept), sigma in zip(each, covariances, strict=True):
            source += probability * (eta / N) ** 2 * np.outer(kept, kept) * sigma
    return SecondMoment(grown, source)


class Wave(Problem):
    """f = x²/2 + cos(2x)/2, f'' between -1 and 3."""

    def loss(self, x):
        """f."""
        return jnp.sum(x**2 / 2 + jnp.cos(2 * x) / 2)


def wave_gradient(x: np.ndarray) -> np.ndarray:
    """The gradient of `Wave`."""
    return x - np.sin(2 * x)


def wave_excess(x: float) -> float:
    """f(x) - inf f of `Wave`."""
    least = root(wave_gradient, 0.5, 1.5)
    return float(x**2 + np.cos(2 * x) - least**2 - np.cos(2 * least)) / 2


def mean_square_gradients(
    gradient: Callable, x0: float, etas: Sequence[float], sigma: float, agents: int, keep: float
) -> np.ndarray:
    """E f'(x_k)² before steps of these sizes, of DCSGD with Gaussian noise in one dimension."""
    reach, degree, N = 4.0, 200, agents
    x = reach * chebyshev.chebpts1(degree + 1)
    z, weights = hermite_e.hermegauss(24)
    counts = np.arange(N + 1) if keep < 1 else np.array([N])  # of agents that send anything
    chance = scipy.stats.binom.pmf(counts, N, keep)
    square = np.linalg.solve(chebyshev.chebvander(x / reach, degree), gradient(x) ** 2)
    row = chebyshev.chebvander(np.array([x0 / reach]), degree)
    means = []
    maps: dict[float, np.ndarray] = {}
    for eta in etas:
        means.append(float((row @ square)[0]))
        if eta not in maps:
            share = counts[:, None] / (N * keep)
            noise = np.sqrt(counts)[:, None] * sigma * z / (N * keep)
            step = share * gradient(x)[:, None, None] + noise
            moved = np.clip(x[:, None, None] - eta * step, -reach, reach)
            moved = moved.reshape(degree + 1, -1)  # clipped: it hardly ever gets there
            mass = np.ravel(chance[:, None] * weights / weights.sum())
            maps = {eta: backward(moved, np.broadcast_to(mass, moved.shape), reach, degree)}
        row = row @ maps[eta]
    return np.array(means)


def sign_cdfs(sigma: Sequence[float], nu: float = np.inf) -> list[Callable]:
    """The agents' Fᵢ, by scipy."""
    law = scipy.stats.norm if nu == np.inf else scipy.stats.t(nu)
    return [lambda z, s=s: law.cdf(z / s) for s in sigma]


def sign_moments(
    gradient: Callable, sigma: Sequence[float], nu: float, eta: float, x0: float, steps: int
) -> dict[str, np.ndarray]:
    """E x, E x² and E f'(x)² of DSignSGD after 0 .. `steps` steps, exact."""
    watched = {"x": lambda x: x, "x²": lambda x: x**2, "f'²": lambda x: gradient(x) ** 2}
    return distributed.lattice_moments(gradient, sign_cdfs(sigma, nu), eta, x0, steps, watched)
