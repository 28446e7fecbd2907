"""SAM, x⁺ = x - η g(x + ρ g(x)/|g(x)|): near critical points with noise, anywhere without.

Without noise DNSAM is the same algorithm. On quadratics, y = x - x* and n = |H y|.
"""

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.problems import Quadratic
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, sde
from jaxsde.theory.sharpness._gaussian import direction_slope, effective_rho
from jaxsde.theory.sharpness._saddles import weakest_repulsion


def sam_stationary_covariance(
    problem: Quadratic,
    sigma: float,
    learning_rate: float,
    rho: float,
    law: Law = sde,
    *,
    first_order: bool = False,
) -> Float[np.ndarray, "d d"]:
    """Cov x as t → ∞ near the critical point, n ≪ σ, under noise N(0, σ² I): η s/(2a - h a²).

    In H's eigenbasis, with ρ' = ρ K_d/σ (`effective_rho`),

        a = λ (1 + ρ' λ),    s = σ² (1 + 2 ρ' λ) + ρ² λ²/d,

    the drift and the covariance of SAM at g = 0, h the chain's step: η for `discrete`, 0 for `sde`.
    The relative error is of the order of λ² Var x / σ², that is of η λ, and more where ρ' λ is
    near -1. It exists where 0 < a and h a < 2: at minima, and at saddles for ρ > `sam_capture_rho`.

    `first_order` has the covariance of the approximation theorem in arXiv 2301.08203, without
    ρ² λ²/d. That is too small by ρ² λ² / (d s), and negative for ρ' λ < -1/2, hence at every saddle
    that captures.

    Source: derived here.

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
        sigma: σ of one (mini-)batch's noise.
        learning_rate: η.
        rho: ρ.
        law: `discrete`, `em(dt)` or `sde`.
        first_order: the theorem's covariance.

    Raises:
        InputError: ρ outside the range above, the chain's step too large, a negative first-order
            variance, or a constant out of its range.
    """
    h = _laws.step_size(law, learning_rate)
    _checks.positive_number("sigma", sigma)
    lam, V = np.linalg.eigh(_laws.hessian_matrix(problem))
    d = len(lam)
    rho_eff = effective_rho(rho, sigma, d)
    a = lam * (1 + rho_eff * lam)
    s = sigma**2 * (1 + 2 * rho_eff * lam)
    if not first_order:
        s = s + rho**2 * lam**2 / d
    if np.any(a <= 0):
        weakest = np.max(lam[lam <= 0])
        bound = sigma / direction_slope(d) / -weakest if weakest < 0 else np.inf
        raise _checks.InputError(
            f"no stationary law: the curvature {weakest:g} attracts for rho > {bound:g} only, "
            f"got rho = {rho:g}"
        )
    if np.any(h * a >= 2):
        raise _checks.InputError(
            "no stationary law: the chain is unstable, "
            f"step * curvature * (1 + effective rho * curvature) = {np.max(h * a):g} >= 2"
        )
    if np.any(s < 0):
        raise _checks.InputError(
            "the first-order variance is negative: effective rho * curvature = "
            f"{np.min(rho_eff * lam):g} < -1/2"
        )
    return (V * (learning_rate * s / (2 * a - h * a**2))) @ V.T


def sam_capture_rho(problem: Quadratic, sigma: float) -> float:
    """σ/(K_d |λ*|), above which SAM's critical point attracts every direction that repels SGD.

    λ* is the negative eigenvalue nearest to 0; 0 where none is negative. Noise N(0, σ² I). It is
    the threshold of USAM, 1/|λ*|, at the radius `effective_rho`: about σ√d/|λ*| for large d.
    Without noise every ρ captures from n < `sam_capture_radius` on.

    Source: derived here.

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
        sigma: σ.

    Raises:
        InputError: σ is not positive.
    """
    _checks.positive_number("sigma", sigma)
    d = len(np.asarray(problem.minimizer))
    return sigma / (direction_slope(d) * weakest_repulsion(problem))


def sam_capture_radius(problem: Quadratic, rho: float) -> float:
    """The gradient norm ρ |λ*| below which noise-free SAM is drawn to the critical point.

    Under dX = -H (I + ρ H/n) Y dt every |yᵢ|, λᵢ ≠ 0, falls while n < ρ |λ*|, λ* the negative
    eigenvalue nearest to 0; so n falls, the region is never left, and n = 0 is reached in finite
    time, minimum, saddle and maximum alike. On the axis of λ*, n = ρ |λ*|, which is |y| = ρ, is an
    unstable equilibrium. Inf where no eigenvalue is negative.

    Source: arXiv 2301.08203.

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
        rho: ρ.

    Raises:
        InputError: ρ is not positive.
    """
    _checks.positive_number("rho", rho)
    return rho * weakest_repulsion(problem)


def sam_hitting_time(
    curvature: ArrayLike,
    radius: ArrayLike,
    learning_rate: float,
    rho: float,
    law: Law = sde,
) -> Float[np.ndarray, "..."]:
    """The time at which noise-free SAM reaches the critical point of f = λ |y|²/2 from |y| = r.

    The ODE dr/dt = -λ (r + s ρ), s = sign λ, and its Euler chain of step h take

        t = ln(1 + s r/ρ) / λ,    t = ln(1 + s r/ρ) / (-ln(1 - h λ)/h);

    in one dimension or along an eigenvector of any H. Inf for λ < 0 and r ≥ ρ: r = ρ is an unstable
    equilibrium, from r > ρ the path escapes. A chain's t is that of the curve through its steps,
    which then cross over: the first step beyond the point is the next multiple of h. Where they
    go, see `sam_cycle_amplitude`.

    Source: derived here.

    Args:
        curvature: λ ≠ 0, any shape.
        radius: r > 0 at the start, a shape that broadcasts with λ's.
        learning_rate: η; it matters to `discrete` alone.
        rho: ρ.
        law: `discrete`, `em(dt)`, or `sde` for the ODE.

    Raises:
        InputError: λ = 0, h λ ≥ 1 (the first step crosses over), or a constant out of its range.
    """
    h = _laws.step_size(law, learning_rate)
    _checks.positive_number("rho", rho)
    _checks.positive("radius", radius)
    _checks.finite("curvature", curvature)
    lam, r = np.asarray(curvature, float), np.asarray(radius, float)
    if np.any(lam == 0):
        raise _checks.InputError("curvature must not be 0")
    if np.any(h * lam >= 1):
        raise _checks.InputError(
            f"the first step crosses over: step * curvature = {np.max(h * lam):g} >= 1"
        )
    s = np.sign(lam)
    rate = lam if h == 0 else -np.log1p(-h * lam) / h
    arrives = (s > 0) | (r < rho)
    return np.where(arrives, np.log1p(np.where(arrives, s * r / rho, 0)) / rate, np.inf)


def sam_cycle_amplitude(
    curvature: ArrayLike, learning_rate: float, rho: float
) -> Float[np.ndarray, "..."]:
    """|y| = η λ ρ/(2 - η λ), where noise-free SAM ends along an eigenvector of eigenvalue λ > 0.

    It alternates between the two signs for ever; the ODE stays at 0. The distance to the cycle
    shrinks by |1 - η λ| a step. For λ < 0 and η |λ| ≤ 1 there is no such attractor: SAM, once
    captured, stays within |y| ≤ η |λ| ρ and keeps wandering.

    Source: derived here.

    Args:
        curvature: λ, any shape.
        learning_rate: η.
        rho: ρ.

    Raises:
        InputError: η λ ≥ 2, where the cycle repels, or a constant that is not positive.
    """
    _laws.check_positive(curvature=curvature, learning_rate=learning_rate, rho=rho)
    reach = learning_rate * np.asarray(curvature, float)
    if np.any(reach >= 2):
        raise _checks.InputError(
            f"the cycle repels: learning_rate * curvature = {np.max(reach):g} >= 2"
        )
    return reach * rho / (2 - reach)
