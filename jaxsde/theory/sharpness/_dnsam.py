"""DNSAM, x⁺ = x - η g(x + ρ g(x)/|∇f(x)|), on quadratics under noise N(0, σ² I).

With y = x - x* and n = |H y|, one Euler-Maruyama step at dt = η of the SDE

    dX = -(I + ρ H/n) H Y dt + √η σ (I + ρ H/n) dW

is one step of the algorithm.
"""

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.problems import Quadratic
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, sde


def dnsam_working_scale(
    problem: Quadratic, sigma: float, learning_rate: float, rho: float
) -> float:
    """n* = (η σ² ρ tr(H²)/2)^(1/3), the gradient norm around which DNSAM's SDE works.

    There the two terms in ρ that matter near a critical point balance in d/dt E|Y|²/2
    (`dnsam_lyapunov_rate`): -ρ n and η σ² ρ² tr(H²)/(2 n²). So X keeps its distance from the point,
    and stays near a saddle where n* ≪ ρ |λ*| and d > 2; with d <= 2 its chains jump out. For
    H = λ I, of either sign, and n ≪ ρ |λ|, stationary n³ has the Gamma law of shape (d+2)/3 and
    scale 3 n*³/d, with E n³ = (1 + 2/d) n*³.

    Source: derived here.

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
        sigma: σ of one (mini-)batch's noise.
        learning_rate: η.
        rho: ρ.

    Raises:
        InputError: a constant that is not positive.
    """
    _check(sigma, rho, learning_rate)
    squares = np.sum(_laws.hessian_matrix(problem) ** 2)
    return float(np.cbrt(learning_rate * sigma**2 * rho * squares / 2))


def dnsam_lyapunov_rate(
    problem: Quadratic,
    x: ArrayLike,
    sigma: float,
    learning_rate: float,
    rho: float,
    law: Law = sde,
) -> Float[np.ndarray, "*N"]:
    """The rate of E|Y|²/2 at X = x; averaged over samples of X_t it is d/dt E|Y_t|²/2.

        -yᵀ H y - ρ n + (η σ²/2) (d + 2 ρ tr(H)/n + ρ² tr(H²)/n²) + (h/2) |(I + ρ H/n) H y|²

    Exact for each law: of a chain of step h, (E|Y⁺|² - |y|²)/(2h), `discrete` being the algorithm
    (h = η) under any noise of covariance σ² I; h = 0 for the SDE. Where its mean is to exist, see
    `dnsam_has_second_moment`.

    Source: derived here.

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
        x: where X is, `(..., d)`, not a critical point.
        sigma: σ.
        learning_rate: η.
        rho: ρ.
        law: `discrete`, `em(dt)` or `sde`.

    Raises:
        InputError: shapes that do not fit, H y = 0, or a constant out of its range.
    """
    h, eta = _laws.step_size(law, learning_rate), learning_rate
    _check(sigma, rho, learning_rate)
    H = _laws.hessian_matrix(problem)
    d, x = len(H), np.asarray(x, float)
    if x.shape[-1:] != (d,):
        raise _checks.InputError(f"x must have shape (..., {d}), got {x.shape}")
    y = x - np.asarray(problem.minimizer, float)
    g = y @ H
    n = np.linalg.norm(g, axis=-1)
    if np.any(n == 0):
        raise _checks.InputError("x must not be a critical point, where DNSAM is not defined")
    noise = d + 2 * rho * np.trace(H) / n + rho**2 * np.sum(H**2) / n**2
    drift = g + rho * g @ H / n[..., None]
    rate = -np.sum(y * g, axis=-1) - rho * n + eta * sigma**2 / 2 * noise
    return rate + h / 2 * np.sum(drift**2, axis=-1)


def dnsam_has_second_moment(dimension: int) -> bool:
    """Whether E|x|² of the algorithm (and of any Euler-Maruyama chain) is finite: for d > 2 only.

    From its second step on, by E 1/|H y|² under a density positive at the critical point. For
    d ≤ 2 compare medians and quantiles. A singular H has its rank in the place of d.

    Source: derived here.

    Raises:
        InputError: the dimension d is no whole number of at least 1.
    """
    return _checks.at_least("dimension", dimension, 1) > 2


def dnsam_reaches_origin(dimension: int) -> bool:
    """Whether DNSAM's SDE hits the critical point of an isotropic H: for d = 1 only.

    Near it |Y|²/2 is √η σ ρ times a Bessel process of dimension 1 + d/2, which hits 0 below
    dimension 2. For d = 1 the SDE crosses a point where its noise is infinite. From there
    Euler-Maruyama and the algorithm leap: at a maximum they leave |y| < ρ that way, which the
    SDE never does, since drift and noise are 0 at |y| = ρ.

    Source: derived here.

    Raises:
        InputError: the dimension d is no whole number of at least 1.
    """
    return _checks.at_least("dimension", dimension, 1) == 1


def _check(sigma: float, rho: float, learning_rate: float) -> None:
    for name, value in [("sigma", sigma), ("rho", rho), ("learning_rate", learning_rate)]:
        _checks.positive_number(name, value)
