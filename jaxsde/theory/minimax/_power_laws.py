"""Closed forms of pairs under step sizes that fall as a power of time: ψ = (1 + t)^(-p)."""

import itertools

import numpy as np
import scipy.integrate
import scipy.special
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.theory import _laws
from jaxsde.theory.minimax import _method
from jaxsde.theory.minimax._method import Method
from jaxsde.theory.minimax._pairs import half_squares, times_before, variance
from jaxsde.theory.minimax._schedules import Schedule


def power_law(power: float, learning_rate: float) -> Schedule:
    """ψ(k) = (1 + η k)^(-p), that is (1 + t)^(-p): a schedule for optimizers, SDEs and laws.

    Args:
        power: p ≥ 0.
        learning_rate: η.

    Raises:
        InputError: p negative, or η not positive.
    """
    p = _exponent("power", power)
    _checks.positive_number("learning_rate", learning_rate)
    return lambda k: (1 + learning_rate * k) ** -p


def power_law_half_square(
    start: ArrayLike,
    time: ArrayLike,
    learning_rate: float,
    *,
    power: float,
    curvature: ArrayLike,
    coupling: ArrayLike,
    sigma: ArrayLike,
    method: Method,
) -> Float[np.ndarray, "..."]:
    """u(t) of the SDE under ψ = (1 + t)^(-p): u' = -κ ψ u + c ψ², κ = 2r.

        p = 0:    u = b e^(-κt) + (c/κ) (1 - e^(-κt)),
        p = 1/2:  u = e^(-2κs) (b e^(2κ) + 2c (Ei(2κs) - Ei(2κ))),   s = √(1 + t),
        p = 1:    u = (1 + t)^(-κ) (b + c ((1 + t)^(κ-1) - 1)/(κ - 1)),
        any p:    u = e^(-κΨ) (b + c ∫₀ᵗ ψ² e^(κΨ) ds),   Ψ = ∫₀ᵗ ψ ds,

    r and c those of `pair_half_square`, Ei the exponential integral. The algorithm decays at
    2r - η ψ |B|² in the place of κ = 2r: off by the factor 1 - η |B|²/(2r) at first, by less and
    less as ψ falls. `scheduled_half_square` has it exactly.

    Source: arXiv 2402.12508 for p = 0, 1/2, 1 on bilinear games; any p derived here.

    Args:
        start: b = u(0).
        time: t, any shape.
        learning_rate: η.
        power: p ≥ 0.
        curvature: a.
        coupling: λ.
        sigma: σ of the noise in every coordinate of one F_c.
        method: `sgda()`, `seg(rho)` or `shgd()`.

    Returns:
        u, the shape of `time` leading, then the one that the pairs' constants broadcast to.

    Raises:
        InputError: a constant out of its range, or a negative time.
    """
    p, b = _exponent("power", power), half_squares(start)
    kappa, c = _rate_and_source(learning_rate, curvature, coupling, sigma, method)
    t = times_before(time, b, kappa, c)
    if p == 0:
        return b * np.exp(-kappa * t) + c * _laws.accumulated(-kappa, t, 0)
    if p == 1:
        return (1 + t) ** -kappa * (b + c * _laws.accumulated(kappa - 1, np.log1p(t), 0))
    Psi = np.expm1((1 - p) * np.log1p(t)) / (1 - p)
    decay = np.exp(-kappa * Psi)
    if p == 0.5 and np.all(kappa > 0):
        s = np.sqrt(1 + t)  # decay is e^(-2κ(s - 1))
        return b * decay + 2 * c * (_scaled_ei(2 * kappa * s) - decay * _scaled_ei(2 * kappa))
    return b * decay + c * np.vectorize(_noise_integral, otypes=[float])(kappa, Psi, t, p)


def power_law_tail(
    start: ArrayLike,
    time: ArrayLike,
    learning_rate: float,
    *,
    power: float,
    curvature: ArrayLike,
    coupling: ArrayLike,
    sigma: ArrayLike,
    method: Method,
) -> Float[np.ndarray, "..."]:
    """What `power_law_half_square` tends to, in ratio, as t → ∞, for κ > 0 and p ≤ 1.

        p < 1:         (c/κ) (1 + t)^(-p),
        p = 1, κ > 1:  (c/(κ - 1)) / (1 + t),
        p = 1, κ = 1:  c ln(1 + t) / (1 + t),
        p = 1, κ < 1:  (b + c/(1 - κ)) (1 + t)^(-κ), slower, and b is not forgotten.

    For p > 1 the steps have a finite sum, and u does not go to 0.

    Source: arXiv 2402.12508 for p = 1/2, 1 on bilinear games; the others derived here.

    Args:
        start: b = u(0).
        time: t, any shape.
        learning_rate: η.
        power: p in [0, 1].
        curvature: a.
        coupling: λ.
        sigma: σ of the noise in every coordinate of one F_c.
        method: `sgda()`, `seg(rho)` or `shgd()`.

    Returns:
        The tail, the shape of `time` leading, then the one that the pairs' constants broadcast to.

    Raises:
        InputError: p > 1, r ≤ 0, or a constant out of its range.
    """
    p, b = _exponent("power", power), half_squares(start)
    kappa, c = _rate_and_source(learning_rate, curvature, coupling, sigma, method)
    if p > 1:
        raise _checks.InputError(f"no tail: power must be at most 1, got {p:g}")
    if np.any(kappa <= 0):
        raise _checks.InputError(f"no tail: the rate r must be positive, got {np.min(kappa) / 2:g}")
    t = times_before(time, b, kappa, c)
    if p < 1:
        return c / kappa * (1 + t) ** -p
    gap = np.where(kappa == 1, 1, np.abs(kappa - 1))
    above = np.where(kappa == 1, c * np.log1p(t), c / gap)
    return np.where(kappa < 1, b + c / gap, above) * (1 + t) ** -np.minimum(kappa, 1)


def power_law_converges(power: float, rho_power: float = 0.0) -> bool:
    """Whether u → 0 under η_k = η (1 + t)^(-p), ρ_k = ρ (1 + t)^(-q): q < p and p + q ≤ 1.

    For SEG on bilinear pairs with ρ > 0, the algorithm as well as the SDE: Σ η_k ρ_k = ∞ and
    η_k/ρ_k → 0. With q = 0, that is 0 < p ≤ 1, for every method and pair with r > 0. So ρ must
    decay strictly slower than η. With q = p the SDE keeps the floor η σ²/(2 ρ λ²); with q > p,
    as when ρ alone decays, u grows.

    Source: arXiv 2402.12508 for q = 0; q > 0 derived here.

    Args:
        power: p ≥ 0.
        rho_power: q ≥ 0.

    Raises:
        InputError: a negative power.
    """
    p, q = _exponent("power", power), _exponent("rho_power", rho_power)
    return q < p and p + q <= 1


def _exponent(name: str, power: float) -> float:
    _checks.nonnegative(name, power)
    if np.ndim(power) != 0:
        raise _checks.InputError(f"{name} must be one number, got shape {np.shape(power)}")
    return float(power)


def _rate_and_source(
    learning_rate, curvature, coupling, sigma, method
) -> tuple[Float[np.ndarray, "*P"], Float[np.ndarray, "*P"]]:
    """κ = 2r and c."""
    _checks.positive_number("learning_rate", learning_rate)
    B, noise = _method.pair(method, curvature, coupling)
    return 2 * np.real(B), learning_rate * variance(sigma) * noise


def _scaled_ei(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """e⁻ˣ Ei(x), x > 0; beyond 50 Σ n!/xⁿ⁺¹, whose 30 terms are exact to rounding there."""
    far = x > 50
    near, large = np.where(far, 1, x), np.where(far, x, 50)
    series = np.ones_like(large)
    for n in range(30, 0, -1):
        series = 1 + n / large * series
    return np.where(far, series / large, np.exp(-near) * scipy.special.expi(near))


def _noise_integral(kappa: float, Psi: float, t: float, p: float) -> float:
    """∫₀ᵗ ψ² e^(-κ (Ψ(t) - Ψ(s))) ds, over w = Ψ(t) - Ψ(s), dw = -ψ ds."""

    def integrand(w):
        log = np.log1p((1 - p) * (Psi - w)) / (1 - p)  # ln(1 + s)
        return np.exp(-p * log - kappa * w)

    scales = np.array([1, 10, 100])
    breaks = np.append(scales / abs(kappa) if kappa else [], Psi - scales)
    edges = [0, *np.sort(breaks[(breaks > 0) & (breaks < Psi)]), Psi]
    least = (1 + t) ** -p * _laws.accumulated(np.array(-kappa), np.array(Psi), 0)
    parts = [
        scipy.integrate.quad(integrand, low, high, epsabs=1e-12 * least, epsrel=1e-11)[0]
        for low, high in itertools.pairwise(edges)
    ]
    return float(np.sum(parts))
