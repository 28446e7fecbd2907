"""SAM's perturbation under isotropic Gaussian noise: u = (g + Z) / |g + Z|, Z ~ N(0, σ² I).

Its laws depend on g through r = |g| alone, q = r² / (2σ²); ĝ = g / r. Derived here.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Bool, Float
from numpy.polynomial.polynomial import polyval
from scipy.special import hyp1f1, poch

from jaxsde import _checks


class Axes(NamedTuple):
    """The eigenvalues of along ĝ ĝᵀ + across (I - ĝ ĝᵀ)."""

    along: Float[np.ndarray, "..."]
    across: Float[np.ndarray, "..."]


def direction_slope(dimension: int) -> float:
    """K_d = √2 Γ((d+1)/2) / (d Γ(d/2)), so that E u = K_d g/σ + O(|g|³).

    √(2/π) = 0.798 for d = 1, 0.627 for d = 2; K_d √d → 1.

    Raises:
        InputError: the dimension d is no whole number of at least 1.
    """
    d = _checks.at_least("dimension", dimension, 1)
    return float(np.sqrt(2) * poch(d / 2, 1 / 2) / d)


def mean_norm(
    gradient_norm: ArrayLike, sigma: ArrayLike, dimension: int
) -> Float[np.ndarray, "..."]:
    """φ(r) = E|g + Z| = σ d K_d ₁F₁(-1/2; d/2; -q) = r a + σ² tr M, M with the eigenvalues below.

    The second form, E u·(g + Z) by Stein's identity, is the one computed: it has no cancellation.

    Args:
        gradient_norm: r ≥ 0, any shape.
        sigma: σ of one (mini-)batch's noise, a shape that broadcasts with r's.
        dimension: d.

    Raises:
        InputError: an argument out of its range.
    """
    r, sigma = _norm_and_scale(gradient_norm, sigma)
    M = direction_jacobian(r, sigma, dimension)
    return r * mean_direction(r, sigma, dimension) + sigma**2 * (
        M.along + (dimension - 1) * M.across
    )


def mean_direction(
    gradient_norm: ArrayLike, sigma: ArrayLike, dimension: int
) -> Float[np.ndarray, "..."]:
    """a(r) = φ'(r) = K_d (r/σ) ₁F₁(1/2; d/2+1; -q), from E u = a ĝ. K_d r/σ near 0, 1 far out.

    Args:
        gradient_norm: r ≥ 0, any shape.
        sigma: σ, a shape that broadcasts with r's.
        dimension: d.

    Raises:
        InputError: an argument out of its range.
    """
    r, sigma = _norm_and_scale(gradient_norm, sigma)
    d, q = dimension, (r / sigma) ** 2 / 2
    return direction_slope(d) * (r / sigma) * _kummer(1 / 2, d, q)


def direction_jacobian(gradient_norm: ArrayLike, sigma: ArrayLike, dimension: int) -> Axes:
    """M = ∂E u/∂g = ∇² φ: a'(r) along the gradient, a(r)/r across it; Cov(Z, u) = σ² M (Stein).

    a' = (K_d/σ) ₁F₁(3/2; d/2+1; -q),  a/r = (K_d/σ) ₁F₁(1/2; d/2+1; -q): both K_d/σ at r = 0, 0
    and 1/r for r ≫ σ.

    Args:
        gradient_norm: r ≥ 0, any shape.
        sigma: σ, a shape that broadcasts with r's.
        dimension: d.

    Raises:
        InputError: an argument out of its range.
    """
    r, sigma = _norm_and_scale(gradient_norm, sigma)
    d, q = dimension, (r / sigma) ** 2 / 2
    slope = direction_slope(d) / sigma
    return Axes(along=slope * _kummer(3 / 2, d, q), across=slope * _kummer(1 / 2, d, q))


def direction_covariance(gradient_norm: ArrayLike, sigma: ArrayLike, dimension: int) -> Axes:
    """Cov u: p - a² along the gradient, τ across it.

    τ = (1/d) ₁F₁(1; d/2+1; -q),  p = E(u·ĝ)² = 1 - (d-1) τ. Both are 1/d at r = 0. For r ≫ σ they
    are 1/(2q) and (d-1)/(8q²); p - a² then comes from its expansion in 1/q.

    Args:
        gradient_norm: r ≥ 0, any shape.
        sigma: σ, a shape that broadcasts with r's.
        dimension: d.

    Raises:
        InputError: an argument out of its range.
    """
    r, sigma = _norm_and_scale(gradient_norm, sigma)
    d, q = dimension, (r / sigma) ** 2 / 2
    tau = _kummer(1, d, q) / d
    p, a = 1 - (d - 1) * tau, mean_direction(r, sigma, d)
    near = np.maximum(p - a**2, 0)
    far = _far(q, d)
    return Axes(np.where(far, _variance_far_out(np.where(far, q, np.inf), d), near), tau)


def effective_rho(rho: float, sigma: ArrayLike, dimension: int) -> Float[np.ndarray, "..."]:
    """ρ K_d/σ, the radius with which USAM has SAM's drift where |g| ≪ σ; ρ/(σ√d) for large d.

    Args:
        rho: ρ of SAM.
        sigma: σ, any shape.
        dimension: d.

    Raises:
        InputError: an argument out of its range.
    """
    _checks.positive_number("rho", rho)
    _checks.positive("sigma", sigma)
    return rho * direction_slope(dimension) / np.asarray(sigma, float)


def sam_drift(
    hessian: ArrayLike, gradient: ArrayLike, sigma: float, rho: float
) -> Float[np.ndarray, "*N d"]:
    """-(g + ρ H E u) = -(g + ρ (a/r) H g) = -∇(f + ρ φ(|∇f|)), SAM's mean step divided by η.

    Exact where f is quadratic, up to O(ρ²) elsewhere.

    Args:
        hessian: H, `(d,)` if diagonal, or `(d, d)`.
        gradient: g, `(..., d)`.
        sigma: σ.
        rho: ρ.

    Raises:
        InputError: shapes that do not fit, H not symmetric, or a constant out of its range.
    """
    H, g, r = _hessian_and_gradient(hessian, gradient, sigma, rho)
    pull = direction_jacobian(r, sigma, len(H)).across[..., None]
    return -(g + rho * pull * (g @ H))


def sam_covariance(
    hessian: ArrayLike,
    gradient: ArrayLike,
    sigma: float,
    rho: float,
    *,
    first_order: bool = False,
) -> Float[np.ndarray, "*N d d"]:
    """S = Cov(Z + ρ H u) = σ² (I + ρ (M H + H M)) + ρ² H Cov(u) H, that of a step divided by η.

    Exact where f is quadratic. `first_order` leaves out the last term, which gives the covariance
    S₁ of the approximation theorem in arXiv 2301.08203, dX = b dt + √(η S₁) dW: indefinite near a
    saddle with 1 + 2 ρ K_d λ/σ < 0, and too small by ρ² λ²/d next to σ² near a critical point.

    Args:
        hessian: H, `(d,)` if diagonal, or `(d, d)`.
        gradient: g, `(..., d)`.
        sigma: σ.
        rho: ρ.
        first_order: S₁ instead of S.

    Raises:
        InputError: shapes that do not fit, H not symmetric, or a constant out of its range.
    """
    H, g, r = _hessian_and_gradient(hessian, gradient, sigma, rho)
    d = len(H)
    M = _around(g, r, direction_jacobian(r, sigma, d))
    S = sigma**2 * (np.eye(d) + rho * (M @ H + H @ M))
    if first_order:
        return S
    return S + rho**2 * H @ _around(g, r, direction_covariance(r, sigma, d)) @ H


_TERMS = 30  # of the expansions in 1/q: what they leave out is below rounding where q is `_far`


def _far(q: Float[np.ndarray, "..."], d: int) -> Bool[np.ndarray, "..."]:
    return q > max(50, 10 * d)


def _expansion(a: float, b: float) -> Float[np.ndarray, " n"]:
    """(a)ₙ (a-b+1)ₙ / n!, so that ₁F₁(a; b; -q) = Γ(b)/Γ(b-a) q⁻ᵃ Σ (a)ₙ (a-b+1)ₙ / n! q⁻ⁿ."""
    n = np.arange(1, _TERMS)
    return np.cumprod(np.append(1, (a + n - 1) * (a - b + n) / n))


def _kummer(a: float, d: int, q: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """₁F₁(a; d/2+1; -q). For large q SciPy's is slow, then undefined, and does not end at d = 1."""
    b, far = d / 2 + 1, _far(q, d)
    z = np.where(far, q, np.inf)
    expanded = poch(b - a, a) * z**-a * polyval(1 / z, _expansion(a, b))
    return np.where(far, expanded, hyp1f1(a, b, -np.where(far, 0, q)))


def _variance_far_out(q: Float[np.ndarray, "..."], d: int) -> Float[np.ndarray, "..."]:
    """p - a² = 1 - (d-1) τ - a², of which the orders 0 and 1 in 1/q are 0."""
    a, tau = _expansion(1 / 2, d / 2 + 1), _expansion(1, d / 2 + 1)
    coefficients = -np.convolve(a, a)[:_TERMS]
    coefficients[1:] -= (d - 1) / 2 * tau[:-1]
    coefficients[:2] = 0
    return polyval(1 / q, coefficients)


def _norm_and_scale(gradient_norm, sigma):
    _checks.nonnegative("gradient_norm", gradient_norm)
    _checks.positive("sigma", sigma)
    return np.asarray(gradient_norm, float), np.asarray(sigma, float)


def _hessian_and_gradient(hessian, gradient, sigma, rho):
    """H as a matrix, g and |g| in float64."""
    _checks.positive_number("sigma", sigma)
    _checks.positive_number("rho", rho)
    H, g = np.asarray(hessian, float), np.asarray(gradient, float)
    _checks.finite("hessian", H)
    _checks.finite("gradient", g)
    d = g.shape[-1] if g.ndim else 0
    if H.shape not in ((d,), (d, d)):
        raise _checks.InputError(
            f"hessian must be {(d,)} or {(d, d)} for a gradient of shape {g.shape}, got {H.shape}"
        )
    if H.ndim == 1:
        H = np.diag(H)
    if not np.allclose(H, H.T, rtol=0, atol=1e-6 * np.max(np.abs(H), initial=0)):
        raise _checks.InputError("hessian must be symmetric")
    return H, g, np.linalg.norm(g, axis=-1)


def _around(gradient, norm, axes: Axes) -> Float[np.ndarray, "*N d d"]:
    """Along ĝ ĝᵀ + across (I - ĝ ĝᵀ); along = across where g = 0."""
    unit = gradient / np.where(norm == 0, 1, norm)[..., None]
    along, across = (axis[..., None, None] for axis in axes)
    projection = unit[..., :, None] * unit[..., None, :]
    return across * np.eye(unit.shape[-1]) + (along - across) * projection
