"""A chain's moments by its own step and no formula, and by simulation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Float
from numpy.polynomial import chebyshev

import jaxsde
from jaxsde.engine import Estimate
from jaxsde.theory import Moments, backward_equation

Step = Callable[[np.ndarray, np.ndarray], np.ndarray]  # z and the draw ξ, to the next z
PATHS = 2**15


def affine(step: Step, n: int, m: int) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n m"]]:
    """P and G of a step z⁺ = P z + G ξ, n and m the sizes of z and ξ, column by column."""
    P = [step(e, np.zeros(m)) for e in np.eye(n)]
    G = [step(np.zeros(n), e) for e in np.eye(m)]
    return np.transpose(P), np.transpose(G)


def moments(step: Step, covariance: Any, z0: Any, steps: int) -> Moments:
    """E z and Cov z after the steps of an affine step, looped; Σ of ξ is diagonal or a matrix."""
    return scheduled_moments(lambda k: step, covariance, z0, steps)


def scheduled_moments(
    step_at: Callable[[int], Step], covariance: Any, z0: Any, steps: int
) -> Moments:
    """The same where step k = 0, 1, ... is `step_at(k)`."""
    z, sigma = np.asarray(z0, float), _matrix(covariance)
    V = np.zeros((len(z), len(z)))
    for k in range(steps):
        P, G = affine(step_at(k), len(z), len(sigma))
        z, V = P @ z, P @ V @ P.T + G @ sigma @ G.T
    return Moments(z, V)


def stationary(step: Step, covariance: Any, n: int) -> Float[np.ndarray, "n n"]:
    """Cov z as an affine step is repeated: V = P V Pᵀ + G Σ Gᵀ."""
    sigma = _matrix(covariance)
    P, G = affine(step, n, len(sigma))
    return scipy.linalg.solve_discrete_lyapunov(P, G @ sigma @ G.T)


def spectral_radius(step: Step, n: int, m: int) -> float:
    """The largest modulus of P's eigenvalues; an affine step is stable below 1."""
    return float(np.max(np.abs(np.linalg.eigvals(affine(step, n, m)[0]))))


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of opposite signs at the two ends is 0."""
    return float(scipy.optimize.brentq(function, low, high, xtol=1e-14, rtol=1e-12))


def backward(
    moved: Float[np.ndarray, "x w"], mass: Float[np.ndarray, "x w"], reach: float, degree: int
) -> Float[np.ndarray, "n n"]:
    """u ↦ E u(x⁺) on Chebyshev coefficients over [-R, R].

    Args:
        moved: x⁺ from each of the degree + 1 nodes x = R cos(...), `chebpts1`, draw by draw.
        mass: the draws' weights.
        reach: R.
        degree: of the polynomials.
    """
    values = np.einsum("xw,xwj->xj", mass, chebyshev.chebvander(moved / reach, degree))
    nodes = chebyshev.chebpts1(degree + 1)
    return np.linalg.solve(chebyshev.chebvander(nodes, degree), values)


def relaxed(start: float, source: float, rate: float, t: float) -> float:
    """u(t) of u' = source - rate u, the second moment of a linear SDE."""
    return source / rate + (start - source / rate) * float(np.exp(-rate * t))


def relaxed_mean(start: float, source: float, rate: float, t: float) -> float:
    """The mean of that u over [0, t]."""
    return source / rate - (start - source / rate) * float(np.expm1(-rate * t)) / (rate * t)


def diffusion_mean(
    observable: Callable, drift: Callable, diffusion: Callable, x0: float, t: float, reach: float
) -> float:
    """The mean over [0, t] of E φ(X_s), dX = b dt + s dW in one dimension over [-R, R]."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    values = [
        backward_equation.expectation(
            observable, drift, diffusion, x0, float(s), domain=(-reach, reach), tolerance=1e-7
        )
        for s in t * (nodes + 1) / 2
    ]
    return float(weights @ np.array(values)) / 2


def slope(function: Callable[[float], float], x: float, h: float = 1e-3) -> float:
    """f'(x) by central differences at h and h/2, extrapolated: exact to h⁴."""
    coarse, fine = ((function(x + d) - function(x - d)) / (2 * d) for d in (h, h / 2))
    return (4 * fine - coarse) / 3


def simulated(
    process: Any, x0: Any, steps: int, observable: Callable, scale: float = 1, shift: float = 0
) -> Callable[[jax.Array], Estimate]:
    """From a key to `scale` E φ + `shift` after the steps, and its standard error, in float32.

    One function φ, the observable, for many settings is compiled once.
    """

    def simulate(key: jax.Array) -> Estimate:
        ensemble = jaxsde.simulate(
            process, _single(x0), steps=steps, paths=PATHS, key=key, records=[steps],
            observables={"value": observable},
        )  # fmt: skip
        mean, error = ensemble.mean("value")[-1], ensemble.standard_error("value")[-1]
        return Estimate(scale * mean + shift, abs(scale) * error)

    return simulate


def simulated_average(
    process: Any, x0: Any, weights: Float[np.ndarray, " K"], observable: Callable
) -> Callable[[jax.Array], Estimate]:
    """From a key to Σ wₖ E φ(x_k)/Σ wₖ over the K steps' starts, and an error that is no smaller.

    The errors of the steps are added up as if they were one and the same.
    """
    share, steps = weights / np.sum(weights), len(weights)

    def simulate(key: jax.Array) -> Estimate:
        ensemble = jaxsde.simulate(
            process, _single(x0), steps=steps, paths=PATHS, key=key, records=np.arange(steps),
            observables={"value": observable},
        )  # fmt: skip
        return Estimate(share @ ensemble.mean("value"), share @ ensemble.standard_error("value"))

    return simulate


def _single(x0: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float32), x0)


def _matrix(covariance: Any) -> Float[np.ndarray, "m m"]:
    covariance = np.asarray(covariance, float)
    return np.diag(covariance) if covariance.ndim == 1 else covariance
