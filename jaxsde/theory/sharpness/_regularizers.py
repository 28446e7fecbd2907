"""What sharpness-aware minimisation adds to the loss: the SDE's drift is -∇(f + regulariser).

g_c is one batch's gradient, ∇f its mean. To first order in ρ; on quadratics with additive noise
the drift is exact.
"""

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.theory.sharpness._gaussian import mean_norm


def usam_regularizer(
    gradient: ArrayLike, noise_trace: ArrayLike, rho: float, *, batch_size: int = 1
) -> Float[np.ndarray, "*N"]:
    """(ρ/2) E|g_c|² = (ρ/2) (|∇f|² + tr V/m), m the batch size of the perturbing gradient.

    With V the covariance of one sample's gradient: m = |c| for mini-batch USAM; the size of one
    micro-batch for m-USAM, whose regulariser grows as m falls; tr V = 0 for n-USAM, which perturbs
    by the full gradient. With m = 1, V may be one mini-batch's covariance Σ.

    Source: arXiv 2301.08203 (Σ), arXiv 2509.18001 (V/m).

    Args:
        gradient: ∇f, `(..., d)`.
        noise_trace: tr V at the same points, a shape that broadcasts with `(...)`; 0 for n-USAM.
        rho: ρ.
        batch_size: m.

    Raises:
        InputError: a negative trace, or a constant out of its range.
    """
    _checks.nonnegative("noise_trace", noise_trace)
    m = _checks.at_least("batch_size", batch_size, 1)
    squared_norm = _norm(gradient, rho) ** 2
    return rho / 2 * (squared_norm + np.asarray(noise_trace, float) / m)


def sam_regularizer(batch_gradients: ArrayLike, rho: float) -> Float[np.ndarray, "*N"]:
    """ρ E|g_c|, the mean over batches that are listed and equally likely.

    At least ρ |∇f|, with more the smaller the batch.

    Source: arXiv 2301.08203.

    Args:
        batch_gradients: g_c for each batch c, `(C, ..., d)`.
        rho: ρ.

    Raises:
        InputError: no batches, or ρ not positive.
    """
    norms = _norm(batch_gradients, rho)
    if norms.ndim == 0 or len(norms) == 0:
        raise _checks.InputError("batch_gradients must be (C, ..., d) with C of at least 1")
    return rho * np.mean(norms, axis=0)


def sam_gaussian_regularizer(
    gradient: ArrayLike, sigma: ArrayLike, rho: float
) -> Float[np.ndarray, "*N"]:
    """ρ E|∇f + Z| = ρ φ(|∇f|) for additive noise Z ~ N(0, σ² I); φ is `mean_norm`.

    Source: arXiv 2301.08203 for ρ E|g_c|; φ derived here.

    Args:
        gradient: ∇f, `(..., d)`.
        sigma: σ, a shape that broadcasts with `(...)`.
        rho: ρ.

    Raises:
        InputError: a constant out of its range.
    """
    return rho * mean_norm(_norm(gradient, rho), sigma, np.shape(gradient)[-1])


def dnsam_regularizer(gradient: ArrayLike, rho: float) -> Float[np.ndarray, "*N"]:
    """ρ |∇f|, that of DNSAM under additive noise, and of SAM and DNSAM without noise.

    As published. Where tr Σ depends on x, DNSAM's drift is -(∇f + (ρ/(2|∇f|)) ∇E|g_c|²), no
    gradient in general, and ρ |∇f| misses (ρ/(2|∇f|)) ∇tr Σ of it: an error of order ρ, without
    bound near critical points.

    Source: arXiv 2301.08203.

    Args:
        gradient: ∇f, `(..., d)`.
        rho: ρ.

    Raises:
        InputError: ρ is not positive.
    """
    return rho * _norm(gradient, rho)


def _norm(gradient: ArrayLike, rho: float) -> Float[np.ndarray, "*N"]:
    _checks.positive_number("rho", rho)
    gradient = np.asarray(gradient, float)
    if gradient.ndim == 0:
        raise _checks.InputError("a gradient must be (..., d), got one number")
    _checks.finite("gradient", gradient)
    return np.linalg.norm(gradient, axis=-1)
