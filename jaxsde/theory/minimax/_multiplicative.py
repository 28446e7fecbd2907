"""Noise in the coupling of a bilinear game: F_c = (Λ_c y, -Λ_cᵀ x), Λ_c = λ I + σ Ξ.

Ξ has independent unit normal entries, d x d; d = 1 is one pair, or noise that is diagonal in the
basis of the pairs. J_c is Λ_c, -Λ_cᵀ off the diagonal, and the products of J's below are multiples
of I. With A = λ² + d σ² and M = σ² (2 λ² + d σ²), so that A² = λ⁴ + d M,

    E J_cᵀ J_c = A,   E |J_c₁ J_c₂ z|² = A² |z|²,   E |J_c² z|² = (A² + (d + 1) M) |z|²,
    E |(J_c₁ᵀ J_c₂ + J_c₂ᵀ J_c₁) z|²/4 = (λ⁴ + (d + 1) M/2) |z|².
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, sde
from jaxsde.theory.minimax import _method
from jaxsde.theory.minimax._method import Method
from jaxsde.theory.minimax._pairs import half_squares, times_before
from jaxsde.theory.minimax._rho import negative_between


def multiplicative_rate(
    learning_rate: float,
    law: Law = sde,
    *,
    coupling: ArrayLike,
    sigma: ArrayLike,
    method: Method,
    dimension: int = 1,
) -> Float[np.ndarray, "*P"]:
    """κ of u' = -κ u, or u⁺ = (1 - h κ) u, for u = E|z|²/2: convergence to 0 where κ > 0.

    κ = 2 r - h (r² + ω²) - η s with the drift r, the turning ω and the noise E|ζ|² = s |z|²:

        method                     r       ω      s
        SGDA                       0       λ      d σ²
        SEG, independent batches   ρ λ²    λ      d σ² + ρ² d M
        SEG, one batch             ρ A     λ      d σ² + ρ² (d + 1) M
        SHGD, two batches          λ²      0      (d + 1) M/2
        SHGD, one batch            A       0      (d + 1) M

    where A = λ² + d σ², M = σ² (2λ² + d σ²), and h is η for `discrete`, dt for `em(dt)`, 0 for
    `sde`. There is no floor, and SGDA always diverges. One batch adds d σ² to λ² in the drift.

    Ξ is one draw for x and y. If each player sees a draw of its own, SEG with one batch obeys the
    line of independent batches, and the others their own. From d = 1 one gets to d by d σ² for σ²
    with independent batches of SEG; with two of SHGD that gives the noise d M, too much by
    2d/(d + 1).

    Source: arXiv 2402.12508 (`sde`, d = 1, independent batches); the others derived here.

    Args:
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        coupling: λ.
        sigma: σ.
        method: `sgda()`, `seg(rho)` or `shgd()`.
        dimension: d of a full d x d matrix of noise; 1 for noise diagonal in the pairs.

    Raises:
        InputError: a constant out of its range.
    """
    h, eta = _laws.step_size(law, learning_rate), learning_rate
    lam2, A, M, d = _letters(coupling, sigma, dimension)
    _method.check(method)
    if method.rho is None:
        r, omega2 = lam2 if method.independent else A, 0
        s = (d + 1) * M / (2 if method.independent else 1)
    else:
        rho = method.rho
        r, omega2 = rho * (lam2 if method.independent else A), lam2
        s = A - lam2 + rho**2 * (d if method.independent else d + 1) * M
    return 2 * r - h * (r**2 + omega2) - eta * s


def multiplicative_half_square(
    start: ArrayLike,
    time: ArrayLike,
    learning_rate: float,
    law: Law = sde,
    *,
    coupling: ArrayLike,
    sigma: ArrayLike,
    method: Method,
    dimension: int = 1,
) -> Float[np.ndarray, "..."]:
    """u(t) = b e^(-κt), or b (1 - h κ)^(t/h), with κ of `multiplicative_rate`.

    Source: arXiv 2402.12508 (`sde`, d = 1, independent batches); the others derived here.

    Args:
        start: b = u(0).
        time: t, any shape; multiples of the step for `discrete` and `em(dt)`.
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        coupling: λ.
        sigma: σ.
        method: `sgda()`, `seg(rho)` or `shgd()`.
        dimension: d of a full d x d matrix of noise; 1 for noise diagonal in the pairs.

    Returns:
        u, the shape of `time` leading, then the one that the pairs' constants broadcast to.

    Raises:
        InputError: a constant out of its range, or times off the chain's steps.
    """
    b = half_squares(start)
    kappa = multiplicative_rate(
        learning_rate, law, coupling=coupling, sigma=sigma, method=method, dimension=dimension
    )
    t = times_before(time, b, kappa)
    return b * _laws.growth(-kappa, t, _laws.step_size(law, learning_rate))


def multiplicative_stable_rho(
    learning_rate: float,
    law: Law = sde,
    *,
    coupling: float,
    sigma: float,
    independent: bool = False,
    dimension: int = 1,
) -> tuple[float, float]:
    """The open interval of ρ for which SEG's κ of `multiplicative_rate` is positive.

    κ = -(ρ² Q - 2 ρ R + P) with, for independent batches and for one,

        P = h λ² + η d σ²,   R = λ²,   Q = h λ⁴ + η d M;        R = A,   Q = h A² + η (d + 1) M.

    Published for the SDE, h = 0, where both ends can be far off: with η = 0.01, λ = 2, σ = 1 and
    independent batches the SDE has (0.00125, 88.9) and the algorithm, h = η, (0.00625, 32.0).

    Source: arXiv 2402.12508 (`sde`, d = 1, independent batches); the others derived here.

    Args:
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        coupling: λ.
        sigma: σ.
        independent: two independent batches a step instead of one.
        dimension: d of a full d x d matrix of noise; 1 for noise diagonal in the pairs.

    Raises:
        InputError: no ρ is stable, or a constant out of its range.
    """
    P, R, Q = _parabola(learning_rate, law, coupling, sigma, independent, dimension)
    return negative_between(Q, R, P)


def multiplicative_best_rho(
    learning_rate: float,
    law: Law = sde,
    *,
    coupling: float,
    sigma: float,
    independent: bool = False,
    dimension: int = 1,
) -> float:
    """The ρ at which SEG converges fastest, R/Q in the letters of `multiplicative_stable_rho`.

    For d = 1 and independent batches λ²/(η σ² (2λ² + σ²)) under the SDE and λ²/(η (λ² + σ²)²) for
    the algorithm: it has no use for the larger steps that the SDE asks for when σ is small.

    Source: derived here.

    Args:
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        coupling: λ.
        sigma: σ.
        independent: two independent batches a step instead of one.
        dimension: d of a full d x d matrix of noise; 1 for noise diagonal in the pairs.

    Raises:
        InputError: no ρ is stable, or a constant out of its range.
    """
    P, R, Q = _parabola(learning_rate, law, coupling, sigma, independent, dimension)
    negative_between(Q, R, P)
    return R / Q


class _Letters(NamedTuple):
    lam2: Float[np.ndarray, "*P"]
    A: Float[np.ndarray, "*P"]
    M: Float[np.ndarray, "*P"]
    d: int


def _letters(coupling: ArrayLike, sigma: ArrayLike, dimension: int) -> _Letters:
    """λ², A = λ² + d σ², M = σ² (2λ² + d σ²) and d."""
    _checks.finite("coupling", coupling)
    _checks.positive("sigma", sigma)
    d = _checks.at_least("dimension", dimension, 1)
    lam2, variance = np.asarray(coupling, float) ** 2, np.asarray(sigma, float) ** 2
    return _Letters(lam2, lam2 + d * variance, variance * (2 * lam2 + d * variance), d)


def _parabola(
    learning_rate, law, coupling, sigma, independent, dimension
) -> tuple[float, float, float]:
    """P, R and Q."""
    h, eta = _laws.step_size(law, learning_rate), learning_rate
    lam2, A, M, d = _letters(coupling, sigma, dimension)
    if np.ndim(M) != 0:
        raise _checks.InputError(f"coupling and sigma must be numbers here, got shape {M.shape}")
    R = lam2 if independent else A
    Q = h * R**2 + eta * (d if independent else d + 1) * M
    return float(h * lam2 + eta * (A - lam2)), float(R), float(Q)
