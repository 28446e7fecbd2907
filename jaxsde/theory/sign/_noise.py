"""What the sign of a noisy gradient needs of the noise: its CDF, slope and curvature at 0."""

import numpy as np
import scipy.special
from jaxtyping import ArrayLike, Float

from jaxsde import _checks


def slope(degrees_of_freedom: float = np.inf) -> float:
    """l_ν = 2 p(0) = 2 Γ((ν+1)/2) / (√(πν) Γ(ν/2)), so that E sign(s + Z) = l_ν s + O(s³).

    p is the density of Student-t noise Z of unit scale; √(2/π) for Gaussian noise (ν = inf).

    Raises:
        InputError: ν ≤ 0.
    """
    nu = check_degrees_of_freedom(degrees_of_freedom)
    if np.isinf(nu):
        return float(np.sqrt(2 / np.pi))
    return float(2 * scipy.special.poch(nu / 2, 0.5) / np.sqrt(np.pi * nu))


def curvature(degrees_of_freedom: float = np.inf) -> float:
    """κ_ν = -p''(0) / (2 p(0)) = (ν+1)/(2ν), so that E sign(s + Z) = l_ν s (1 - κ_ν s²/3) + O(s⁵).

    1/2 for Gaussian noise (ν = inf).

    Raises:
        InputError: ν ≤ 0.
    """
    nu = check_degrees_of_freedom(degrees_of_freedom)
    return 0.5 if np.isinf(nu) else (nu + 1) / (2 * nu)


def centred_cdf(x: ArrayLike, degrees_of_freedom: float = np.inf) -> Float[np.ndarray, "..."]:
    """Ξ_ν(x) = P(Z ≤ x) - 1/2 for Student-t noise Z of unit scale; E sign(s + Z) = 2 Ξ_ν(s).

    By the regularised incomplete beta function, Ξ_ν(x) = sign(x) I(x²/(ν+x²); 1/2, ν/2) / 2,
    instead of the published, equal, form in ₂F₁. Erf(x/√2) / 2 for Gaussian noise (ν = inf).

    Source: SignSGD's SDE under Student-t noise, arXiv 2411.15958.

    Raises:
        InputError: ν ≤ 0.
    """
    nu = check_degrees_of_freedom(degrees_of_freedom)
    x = np.asarray(x, float)
    if np.isinf(nu):
        return scipy.special.erf(x / np.sqrt(2)) / 2
    return np.sign(x) * scipy.special.betainc(0.5, nu / 2, x**2 / (nu + x**2)) / 2


def batch_scale(
    scale: ArrayLike, batch_size: int, degrees_of_freedom: float = np.inf
) -> Float[np.ndarray, "..."]:
    """σ/√B, the scale of the mean of B Gaussian noises: what to pass as `scale` for batches.

    SignSGD's stationary level η σ/√B stays when B → δ B and η → √δ η.

    Raises:
        InputError: B > 1 with Student-t noise, whose mean is no Student-t (at ν = 1 its scale
            does not shrink at all).
    """
    _checks.positive("scale", scale)
    B = _checks.at_least("batch_size", batch_size, 1)
    if B > 1 and np.isfinite(check_degrees_of_freedom(degrees_of_freedom)):
        raise _checks.InputError(
            "a mean of Student-t noises is not Student-t: batch_size must be 1"
        )
    return np.asarray(scale, float) / np.sqrt(B)


def check_degrees_of_freedom(degrees_of_freedom: float) -> float:
    """ν as a float; refuses anything but a positive number or inf."""
    if degrees_of_freedom != np.inf:
        _checks.positive("degrees_of_freedom", degrees_of_freedom)
    return float(degrees_of_freedom)
