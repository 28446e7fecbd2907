"""The law of a normalised Gaussian gradient, in the form that a step needs."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float, Scalar

NODES = 48  # of the fits; less than 1e-9 is left at d = 1, where they converge the slowest


class UnitVector(NamedTuple):
    """u = (g + Z)/|g + Z| for Z ~ N(0, σ² I), along g and across it.

    With s = |g|/σ, E u = α s ĝ; and of the regression of u on ξ = Z/σ, u - E u = B ξ + rest,
    B = α I + (β - α) ĝ ĝᵀ and Cov(rest) = across I + (along - across) ĝ ĝᵀ.
    """

    alpha: Scalar
    beta: Scalar
    across: Scalar
    along: Scalar


def unit_vector(s: Scalar, d: int) -> UnitVector:
    """The law at s = |g|/σ >= 0 in d dimensions.

    With q = s²/2, K_d = √2 Γ((d+1)/2)/(d Γ(d/2)) and Kummer's 1F1,

        α = K_d 1F1(1/2; d/2 + 1; -q),    β = d(α s)/ds = K_d 1F1(3/2; d/2 + 1; -q),
        τ = 1F1(1; d/2 + 1; -q)/d,        across = τ - α²,    along = p - (α s)² - β²,
        p = 1 - (d - 1) τ = τ + q/(d/2 + 1) 1F1(1; d/2 + 2; -q).

    Each is a Chebyshev series in q/(q + c), c = d/2 + 1, times a power of 1 + q/c, with an absolute
    error in float64 below 1e-9, and below 1e-11 from d = 3 on.
    """
    c, fits = _fits(d, float(jnp.finfo(s.dtype).eps))
    q = s**2 / 2
    at = (q - c) / (q + c)
    alpha, beta, across, along = (
        _clenshaw(coefficients, at) * (1 + q / c) ** -power for power, coefficients in fits
    )
    return UnitVector(alpha, beta, jnp.maximum(across, 0), jnp.maximum(along, 0))


@functools.lru_cache(maxsize=64)
def _fits(d: int, eps: float) -> tuple[float, tuple[tuple[float, tuple[float, ...]], ...]]:
    """c, and of α, β, across, along the power and the coefficients that matter beside eps."""
    c = d / 2 + 1
    at = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
    q = c * (1 + at) / (1 - at)
    values = zip((0.5, 1.5, 1.0, 1.0), _kummer(q, d), strict=True)
    fits = []
    for power, value in values:
        series = np.polynomial.chebyshev.chebfit(at, value * (1 + q / c) ** power, NODES - 1)
        series = np.polynomial.chebyshev.chebtrim(series, eps / 4 * np.abs(series).max())
        fits.append((power, tuple(map(float, series))))
    return c, tuple(fits)


def _kummer(q: Float[np.ndarray, " n"], d: int) -> tuple[Float[np.ndarray, " n"], ...]:
    F = scipy.special.hyp1f1
    K = np.sqrt(2) * np.exp(scipy.special.gammaln((d + 1) / 2) - scipy.special.gammaln(d / 2)) / d
    alpha = K * F(1 / 2, d / 2 + 1, -q)
    beta = K * F(3 / 2, d / 2 + 1, -q)
    tau = F(1, d / 2 + 1, -q) / d
    p = tau + q / (d / 2 + 1) * F(1, d / 2 + 2, -q)
    return alpha, beta, tau - alpha**2, p - 2 * q * alpha**2 - beta**2


def _clenshaw(coefficients: tuple[float, ...], x: Array) -> Array:
    """Σ cₖ Tₖ(x)."""
    ahead, further = jnp.zeros_like(x), jnp.zeros_like(x)
    for c in coefficients[:0:-1]:
        ahead, further = c + 2 * x * ahead - further, ahead
    return coefficients[0] + x * ahead - further
