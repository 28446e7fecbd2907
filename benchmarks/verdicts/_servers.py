"""Agents as processes on a server, what is run on them, and what is read off."""

import jax.numpy as jnp
import numpy as np

import jaxsde
from benchmarks.verdicts import _chains
from benchmarks.verdicts._agents import Wave, wave_excess, wave_gradient
from jaxsde.oracles import Agents, BernoulliK, GaussianNoise, RandomK, StudentTNoise
from jaxsde.problems import Problem, Quadratic

ETAS = (0.1, 0.05, 0.025)
SIGMAS = np.array([0.5, 1.0, 1.0, 2.0])  # of four agents

FUNCTIONS = {  # f: makes the problem, its gradient, its smoothness, f less its infimum
    "x²/2 + cos(2x)/2": (Wave, wave_gradient, 3.0, wave_excess),
    "x²/2": (lambda: Quadratic(np.ones(1)), lambda x: x, 1.0, lambda x: x**2 / 2),
}


def first(x):
    """x₁."""
    return x[0]


def first_square(x):
    """x₁²."""
    return x[0] ** 2


def half_square(x):
    """x₁²/2."""
    return x[0] ** 2 / 2


def product(x):
    """x₁ x₂."""
    return x[0] * x[1]


def weighted_squares(x):
    """(x₁² + 1.5 x₂² + 2 x₃² + 3 x₄²)/2."""
    return jnp.sum(jnp.array([1.0, 1.5, 2.0, 3.0]) * x**2) / 2


def plain_squares(x):
    """E f for H = 2 I."""
    return jnp.sum(x**2)


def _wave_square(x):
    """f'² of `Wave`."""
    return jnp.sum((x - jnp.sin(2 * x)) ** 2)


def gradient_square(name: str):
    """f'² of that function."""
    return first_square if name == "x²/2" else _wave_square


def agents_on(problem: Problem, sigma, nu: float = np.inf, compressor=None) -> Agents:
    """One agent a scale."""
    if nu < np.inf:
        return Agents.of(len(sigma), StudentTNoise, problem, scale=sigma, degrees_of_freedom=nu)
    return Agents.of(len(sigma), GaussianNoise, problem, compressor, scale=sigma)


def agents_of(
    H, sigma, k: float | None = None, nu: float = np.inf, exactly: bool = False
) -> Agents:
    """On a quadratic, k coordinates kept of d."""
    compressor = None if k is None else (RandomK if exactly else BernoulliK)(k)
    return agents_on(Quadratic(np.asarray(H, float)), sigma, nu, compressor)


def run(optimizer, agents: Agents, eta: float, x0, steps: int, observable):
    """The mean of an observable after the steps."""
    process = jaxsde.OptimizerProcess(optimizer, {"learning_rate": eta}, agents)
    return _chains.simulated(process, np.asarray(x0, float), steps, observable)


def run_average(optimizer, agents: Agents, eta: float, x0: float, weights, observable):
    """The weighted mean of an observable over the steps' starts, in one dimension."""
    process = jaxsde.OptimizerProcess(optimizer, {"learning_rate": eta}, agents)
    return _chains.simulated_average(process, np.array([x0]), weights, observable)
