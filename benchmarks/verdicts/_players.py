"""SGDA, SEG and SHGD step by step on linear games, F(z) = J z + ξ, and as processes."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsde
from benchmarks.verdicts import _chains
from benchmarks.verdicts._chains import Step
from jaxsde import optimizers
from jaxsde.engine import Estimate
from jaxsde.oracles import GaussianNoise, MultiplicativeNoise
from jaxsde.problems import Players, QuadraticGame
from jaxsde.theory import Moments
from jaxsde.theory.minimax import Method

SIGMA = 0.5
TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])  # F of x y
START = np.array([1.0, 0.5])  # of one pair, x and y

_OPTIMIZERS = {  # one object each, so that every setting of one is compiled once
    (False, False): optimizers.seg,
    (False, True): functools.partial(optimizers.seg, independent=True),
    (True, False): functools.partial(optimizers.shgd, batches=1),
    (True, True): functools.partial(optimizers.shgd, batches=2),
}


def game_of(a: float, lam: float) -> QuadraticGame:
    """One pair."""
    return QuadraticGame(jnp.array([lam], float), jnp.array([a], float))


def jacobian(game: QuadraticGame) -> np.ndarray:
    """J in float64."""
    return np.asarray(game.jacobian(), float)


def draws(method: Method) -> int:
    """How many gradients with noise of their own a step takes."""
    return 2 if method.independent else 1


def step_of(method: Method, J: np.ndarray, eta: float) -> Step:
    """z⁺ word for word; ξ holds the draws in their order, SEG's at z first."""

    def F(z, xi):
        return J @ z + xi

    def step(z, xi):
        first, last = (np.split(xi, draws(method))[i] for i in (0, -1))
        if method.rho is None:
            return z - eta * (J.T @ F(z, first) + J.T @ F(z, last)) / 2
        return z - eta * F(z - method.rho * F(z, first), last)

    return step


def half_square(z: Players) -> Any:
    """U = (x² + y²)/2, summed over pairs."""
    return (jnp.sum(z.x**2) + jnp.sum(z.y**2)) / 2


def after(
    method: Method,
    game: QuadraticGame,
    eta: float,
    steps: int,
    start: np.ndarray = START,
    psi: Callable[[int], float] = lambda k: 1.0,
) -> Moments:
    """E z and Cov z after the steps, step k with η ψ(k)."""
    J = jacobian(game)
    return _chains.scheduled_moments(
        lambda k: step_of(method, J, eta * psi(k)), _noise(method, J), start, steps
    )


def level(method: Method, game: QuadraticGame, eta: float) -> float:
    """E u as t → ∞."""
    J = jacobian(game)
    V = _chains.stationary(step_of(method, J, eta), _noise(method, J), len(J))
    return float(np.trace(V)) / 2


def radius(method: Method, game: QuadraticGame, eta: float) -> float:
    """The spectral radius of a step: stable below 1."""
    J = jacobian(game)
    return _chains.spectral_radius(step_of(method, J, eta), len(J), len(J) * draws(method))


def multiplicative_growth(method: Method, lam: float, sigma: float, eta: float) -> float:
    """E|z⁺|²/|z|² for F_c(z) = (λ + σ ζ) (y, -x), by Gauss-Hermite nodes of ζ: exact."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    weights = weights / weights.sum()
    growth, z = 0.0, START
    for each in itertools.product(range(5), repeat=draws(method)):
        first, last = ((lam + sigma * nodes[each[i]]) * TURN for i in (0, -1))
        if method.rho is None:
            moved = z - eta * (first.T @ (last @ z) + last.T @ (first @ z)) / 2
        else:
            moved = z - eta * last @ (z - method.rho * first @ z)
        growth += np.prod(weights[list(each)]) * (moved @ moved) / (z @ z)
    return float(growth)


def run(
    method: Method,
    game: QuadraticGame,
    eta: float,
    steps: int,
    observable: Callable = half_square,
    *,
    multiplicative: float | None = None,
    schedule: Callable | None = None,
    start: np.ndarray = START,
) -> Callable[[jax.Array], Estimate]:
    """E φ after the steps from the start, by simulation."""
    values = {"learning_rate": eta}
    if method.rho is not None:
        values["rho"] = method.rho
    if schedule is not None:
        values["schedule"] = schedule
    noise = GaussianNoise(game, SIGMA)
    if multiplicative is not None:
        noise = MultiplicativeNoise(game, multiplicative)
    optimizer = _OPTIMIZERS[method.rho is None, method.independent]
    z0 = Players(*(jnp.asarray(part, float) for part in np.split(start, 2)))
    process = jaxsde.OptimizerProcess(optimizer, values, noise)
    return _chains.simulated(process, z0, steps, observable)


def _noise(method: Method, J: np.ndarray) -> np.ndarray:
    return np.full(len(J) * draws(method), SIGMA**2)
