"""USAM, x⁺ = x - η g(x + ρ g(x)), on quadratics: exact moments, stationary law, escape.

With one draw Z of the noise in both gradients, the gradient at the perturbed point is
K H (x - x*) + K Z, K = I + ρ H.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.problems import Quadratic
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, Moments, sde
from jaxsde.theory.sharpness._saddles import weakest_repulsion


def usam_moments(
    problem: Quadratic,
    covariance: ArrayLike,
    learning_rate: float,
    rho: float,
    x0: ArrayLike,
    time: ArrayLike,
    law: Law = sde,
    *,
    full_perturbation: bool = False,
    micro_batches: int = 1,
) -> Moments:
    """E x and Cov x on f = (x - x*)ᵀ H (x - x*) / 2 under gradient noise of constant covariance Σ.

    One step h of the chain is y⁺ = (I - h K H) y + √(η h) K Σ^(1/2) ξ for y = x - x*, K = I + ρ H.
    In H's eigenbasis, with eigenvalues λᵢ, κᵢ = 1 + ρ λᵢ and aᵢ = λᵢ κᵢ,

        E yᵢ(t)      = (1 - h aᵢ)^(t/h) yᵢ(0),
        Cov(yᵢ, yⱼ)  = η κᵢ κⱼ Σᵢⱼ ((1 + h rᵢⱼ)^(t/h) - 1) / rᵢⱼ,   rᵢⱼ = -(aᵢ + aⱼ) + h aᵢ aⱼ.

    `em(dt)` has h = dt; `sde` is the limit h → 0; `discrete` is the algorithm, h = η, under any
    noise of covariance Σ. Saddles (λ ≤ 0) are welcome. Variants:

    - n-USAM perturbs by the full gradient: the same drift, Σ in the place of K Σ K.
    - m-USAM averages M micro-batches, each with its own perturbation: K Σ K / M. M = 1 is USAM.

    Source: the SDE of USAM, arXiv 2301.08203; the variants, arXiv 2509.18001; moments derived here.

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
        covariance: Σ of the noise of one (micro-)batch's gradient, `(d,)` if diagonal, or `(d, d)`.
        learning_rate: η.
        rho: ρ.
        x0: the deterministic start, `(d,)`.
        time: t = k η, any shape; multiples of the step for `discrete` and `em(dt)`.
        law: `discrete`, `em(dt)` or `sde`.
        full_perturbation: n-USAM.
        micro_batches: M.

    Returns:
        The mean `(..., d)` and the covariance `(..., d, d)`, `...` the shape of `time`.

    Raises:
        InputError: shapes that do not fit, Σ not a covariance, times off the chain's steps, or a
            constant out of its range.
    """
    chain = _chain(problem, learning_rate, rho, law)
    lam, V, a, h = chain
    noise = _step_noise(chain, covariance, rho, full_perturbation, micro_batches)
    t = _laws.times(time)[..., None]
    minimizer = np.asarray(problem.minimizer, float)
    y0 = V.T @ (_laws.point("x0", x0, len(lam)) - minimizer)
    mean = _laws.growth(-a, t, h) * y0
    cov = learning_rate * noise * _laws.accumulated(_pair_rates(a, h), t[..., None], h)
    return Moments(minimizer + mean @ V.T, V @ cov @ V.T)


def usam_stationary_covariance(
    problem: Quadratic,
    covariance: ArrayLike,
    learning_rate: float,
    rho: float,
    law: Law = sde,
    *,
    full_perturbation: bool = False,
    micro_batches: int = 1,
) -> Float[np.ndarray, "d d"]:
    """Cov x as t → ∞ on a quadratic: η κᵢ κⱼ Σᵢⱼ / (aᵢ + aⱼ - h aᵢ aⱼ) in H's eigenbasis.

    The letters are those of `usam_moments`. It solves A C + C A = η K Σ K for A = K H (`sde`) and
    C = (I - h A) C (I - h A) + h η K Σ K (chains). One direction alone has (η/2) σ² κ/λ under the
    SDE and η σ² κ / (λ (2 - η λ κ)) under the algorithm. It exists where 0 < λ κ and h λ κ < 2 for
    every λ: at minima, and at saddles for ρ > `usam_capture_rho`.

    For Σ = σ² I the SDE's expected loss is (η σ²/4) (d + ρ tr H).

    Source: arXiv 2301.08203 for diagonal H and Σ = σ² I (`sde`); derived here in general.

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
        covariance: Σ of the noise of one (micro-)batch's gradient, `(d,)` if diagonal, or `(d, d)`.
        learning_rate: η.
        rho: ρ.
        law: `discrete`, `em(dt)` or `sde`.
        full_perturbation: n-USAM.
        micro_batches: M.

    Raises:
        InputError: ρ outside the range above, the chain's step too large, or what `usam_moments`
            refuses.
    """
    chain = _chain(problem, learning_rate, rho, law)
    _require_stable(chain, rho)
    noise = _step_noise(chain, covariance, rho, full_perturbation, micro_batches)
    V = chain.basis
    return V @ (learning_rate * noise / -_pair_rates(chain.rates, chain.step)) @ V.T


def usam_published_stationary_covariance(
    problem: Quadratic, covariance: ArrayLike, learning_rate: float, rho: float
) -> Float[np.ndarray, "d d"]:
    """(η/2) H⁻¹ (I + ρ H) Σ, the SDE's stationary covariance where H and Σ commute.

    Published for diagonal H and Σ = σ² I. For other Σ the product is right on the diagonal in H's
    eigenbasis, so that E f is right too, and off it too large by the factor
    (λᵢ κᵢ + λⱼ κⱼ) / (2 λᵢ κⱼ), which differs from the one of (j, i): it is not even symmetric.
    `usam_stationary_covariance` is right for every Σ.

    Source: arXiv 2301.08203.

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
        covariance: Σ of the noise of one batch's gradient, `(d,)` if diagonal, or `(d, d)`.
        learning_rate: η.
        rho: ρ.

    Raises:
        InputError: as `usam_stationary_covariance`.
    """
    chain = _chain(problem, learning_rate, rho, sde)
    _require_stable(chain, rho)
    lam, V = chain.eigenvalues, chain.basis
    sigma = _laws.covariance_matrix(covariance, len(lam))
    return learning_rate / 2 * (V * ((1 + rho * lam) / lam)) @ V.T @ sigma


def usam_is_stable(problem: Quadratic, learning_rate: float, rho: float, law: Law = sde) -> bool:
    """Whether `usam_stationary_covariance` exists: 0 < λ (1 + ρ λ) and h λ (1 + ρ λ) < 2, every λ.

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
        learning_rate: η.
        rho: ρ.
        law: `discrete`, `em(dt)` or `sde`.

    Raises:
        InputError: a constant out of its range.
    """
    a, h = _chain(problem, learning_rate, rho, law)[2:]
    return bool(np.all((a > 0) & (h * a < 2)))


def usam_capture_rho(problem: Quadratic) -> float:
    """1/|λ*|, above which every direction of negative curvature attracts: the saddle captures.

    λ* is the negative eigenvalue nearest to 0; 0 where none is negative. A chain must also have
    h λ (1 + ρ λ) < 2, see `usam_is_stable`. Directions with λ = 0 attract for no ρ.

    Source: arXiv 2301.08203.

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
    """
    return 1 / weakest_repulsion(problem)


def usam_escape_time(
    curvature: ArrayLike,
    sigma: ArrayLike,
    learning_rate: float,
    rho: float,
    x0: ArrayLike,
    radius: ArrayLike,
    law: Law = sde,
) -> Float[np.ndarray, "..."]:
    """The time at which E y² reaches R² in one direction of curvature λ, y = x - x*.

    A step h makes E y⁺² = (1 + h r) E y² + h s, with a = λ (1 + ρ λ), r = -2a + h a² and
    s = η σ² (1 + ρ λ)², so that

        t = h ln(1 + r (R² - y₀²) / (r y₀² + s)) / ln(1 + h r).

    h → 0 for the SDE: for λ < 0, with α = |λ| (1 - ρ |λ|) and s₂ = η σ² (1 - ρ |λ|) / (2 |λ|),

        t = ln((R² + s₂) / (y₀² + s₂)) / (2α),    ln(R/|y₀|) / α without noise.

    It grows beyond bounds as ρ → 1/|λ|, so that USAM escapes later than SGD; inf where E y² stays
    below R². A chain's t is that of the curve through its steps: the first step with E y² ≥ R² is
    the next multiple of h.

    Source: derived here.

    Args:
        curvature: λ, of any sign.
        sigma: σ ≥ 0, the standard deviation of the noise in that direction.
        learning_rate: η.
        rho: ρ.
        x0: the start y₀, measured from the critical point.
        radius: R ≥ |y₀|.
        law: `discrete`, `em(dt)` or `sde`.

    Returns:
        The time, of the shape that the arrays broadcast to.

    Raises:
        InputError: R < |y₀|, or a constant out of its range.
    """
    h = _laws.step_size(law, learning_rate)
    _checks.nonnegative_number("rho", rho)
    _checks.finite("curvature", curvature)
    _checks.nonnegative("sigma", sigma)
    _checks.finite("x0", x0)
    _checks.positive("radius", radius)
    lam, sigma, y0, R = (np.asarray(v, float) for v in (curvature, sigma, x0, radius))
    if np.any(np.abs(y0) > R):
        raise _checks.InputError("radius must be at least |x0|")
    kappa = 1 + rho * lam
    r = _pair_rate(lam * kappa, lam * kappa, h)
    s = learning_rate * sigma**2 * kappa**2
    with np.errstate(divide="ignore", invalid="ignore"):
        distance, speed = R**2 - y0**2, r * y0**2 + s
        source = np.where(speed > 0, distance / speed, np.inf)
        t = _accumulation_time(np.where(distance == 0, 0, source), r, h)
    return np.where(np.isnan(t), np.inf, t)


def _accumulation_time(value, rate, step):
    """The t at which `_laws.accumulated` has that value; nan where it never has."""
    exponent = rate if step == 0 else np.log1p(step * rate) / step
    return np.where(rate == 0, value, np.log1p(rate * value) / exponent)


class _Chain(NamedTuple):
    """y⁺ = (I - h a) y + noise in H's eigenbasis."""

    eigenvalues: Float[np.ndarray, " d"]
    basis: Float[np.ndarray, "d d"]
    rates: Float[np.ndarray, " d"]
    step: float


def _chain(problem: Quadratic, learning_rate: float, rho: float, law: Law) -> _Chain:
    h = _laws.step_size(law, learning_rate)
    _checks.nonnegative_number("rho", rho)
    lam, V = np.linalg.eigh(_laws.hessian_matrix(problem))
    return _Chain(lam, V, lam * (1 + rho * lam), h)


def _step_noise(
    chain: _Chain, covariance: ArrayLike, rho: float, full_perturbation: bool, micro_batches: int
) -> Float[np.ndarray, "d d"]:
    """K Σ K / M, or Σ / M where the perturbation has no noise, in H's eigenbasis."""
    lam, V = chain.eigenvalues, chain.basis
    M = _checks.at_least("micro_batches", micro_batches, 1)
    kappa = np.ones_like(lam) if full_perturbation else 1 + rho * lam
    sigma = V.T @ _laws.covariance_matrix(covariance, len(lam)) @ V
    return np.outer(kappa, kappa) * sigma / M


def _require_stable(chain: _Chain, rho: float) -> None:
    lam, a, h = chain.eigenvalues, chain.rates, chain.step
    if np.any(a <= 0):
        weakest = np.max(lam[lam <= 0])
        need = f"rho must exceed {-1 / weakest:g}, got {rho:g}" if weakest < 0 else "whatever rho"
        raise _checks.InputError(
            f"no stationary law: the curvature {weakest:g} does not attract, {need}"
        )
    if np.any(h * a >= 2):
        raise _checks.InputError(
            "no stationary law: the chain is unstable, "
            f"step * curvature * (1 + rho * curvature) = {np.max(h * a):g} >= 2"
        )


def _pair_rates(a: Float[np.ndarray, " d"], h: float) -> Float[np.ndarray, "d d"]:
    return _pair_rate(a[:, None], a[None, :], h)


def _pair_rate(a, b, h):
    """r of 1 + h r = (1 - h a) (1 - h b): -(a + b) + h a b."""
    return -(a + b) + h * a * b
