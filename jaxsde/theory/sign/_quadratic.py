"""SignSGD on f = Σ λᵢ (xᵢ - x*ᵢ)² / 2: moments of the linear theory and stationary laws."""

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.problems import Quadratic
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, Moments, sde
from jaxsde.theory.sign._noise import check_degrees_of_freedom, curvature, slope


def moments(
    problem: Quadratic,
    scale: ArrayLike,
    learning_rate: float,
    x0: ArrayLike,
    time: ArrayLike,
    law: Law = sde,
    degrees_of_freedom: float = np.inf,
) -> Moments:
    """E x and Cov x of the linear theory, valid while |λ (x - x*)| ≪ σ.

    With y = x - x*, E sign(g) linearised to a y, a = l_ν λ/σ, one step h has

        E y⁺  = (1 - h a) E y,
        E y⁺² = ((1 - h a)² - h η a²) E y² + h η,    h η (1 - (a y)²) the variance of the step.

    `sde` is the limit h → 0: E y = e^(-at) y₀, Cov y = (M - e^(-2at)) y₀² + (η/2)(1 - M)/(a + b),
    b = η a²/2, M = e^(-2(a+b)t), which is Lemma 3.7 of arXiv 2411.15958 and exact for the
    linearised SDE (as long as its diffusion needs no clipping). `em(dt)` has h = dt. `discrete`
    has h = η and no b: sign² = 1, so that E y⁺² = (1 - 2 η a) E y² + η².

    Args:
        problem: the quadratic, with a diagonal H `(d,)`; saddles are welcome.
        scale: σ of the noise, a scalar or `(d,)`.
        learning_rate: η.
        x0: the deterministic start, `(d,)`.
        time: t, any shape; multiples of the step for `discrete` and `em(dt)`.
        law: `discrete`, `em(dt)` or `sde`.
        degrees_of_freedom: ν of the noise; moments exist for every ν > 0.

    Returns:
        The mean `(..., d)` and the (diagonal) covariance `(..., d, d)`, `...` the shape of `time`.

    Raises:
        InputError: H is a matrix, shapes that do not fit, or times off the chain's steps.
    """
    h, eta = _laws.step_size(law, learning_rate), learning_rate
    lam, sigma = _laws.coordinates(problem, "scale", scale)
    a = slope(degrees_of_freedom) * lam / sigma
    t = _laws.times(time)[..., None]
    minimizer = np.asarray(problem.minimizer, float)
    y0 = _laws.point("x0", x0, len(lam)) - minimizer
    mean = _laws.growth(-a, t, h) * y0
    rate = -2 * a + (h - eta) * a**2
    second = _laws.growth(rate, t, h) * y0**2 + eta * _laws.accumulated(rate, t, h)
    return Moments(minimizer + mean, (second - mean**2)[..., None] * np.eye(len(lam)))


def stationary_variance(
    problem: Quadratic,
    scale: ArrayLike,
    learning_rate: float,
    law: Law = sde,
    degrees_of_freedom: float = np.inf,
    *,
    linearised: bool = False,
) -> Float[np.ndarray, " d"]:
    """Var xᵢ as t → ∞: (σ/λ)² v₀ (1 + (κ - (1 - h/η) l²) v₀), v₀ = η λ / (2 l σ), up to v₀³.

    With s = λ y/σ, the drift m(s) = 2 Ξ(s) = l s (1 - κ s²/3 + ...) and a step h, stationarity is
    2 (σ/λ) E[s m(s)] = η - (η - h) E m(s)², and E s⁴ = 3 (E s²)² to this order. h = η is the
    algorithm (κ alone), h = dt Euler-Maruyama of the SDE with the noise's CDF, h = 0 that SDE.

    `linearised=True` takes m(s) = l s instead, with a = l λ/σ: η / (2a + (η - h) a²), exactly.
    Its `sde` case, (η/2)/(a + b) with b = η a²/2, is Lemma 3.7 of arXiv 2411.15958. Corrected
    here, because it misses κ: at h = η the next order of the algorithm, +κ v₀, has the opposite
    sign to the published -l² v₀.

    Needs η λ ≪ σ; for small σ see `noiseless_variance`.

    Args:
        problem: the quadratic, with a diagonal H `(d,)`, positive.
        scale: σ of the noise, a scalar or `(d,)`.
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        degrees_of_freedom: ν of the noise; finite for every ν > 0.
        linearised: the exact law of the linearised chain.

    Raises:
        InputError: H is a matrix or has an entry ≤ 0, or the linearised chain is unstable.
    """
    h, eta = _laws.step_size(law, learning_rate), learning_rate
    lam, sigma = _laws.coordinates(problem, "scale", scale)
    if np.any(lam <= 0):
        raise _checks.InputError("no stationary law: the hessian must be positive in every entry")
    l_nu, kappa = slope(degrees_of_freedom), curvature(degrees_of_freedom)
    if linearised:
        a = l_nu * lam / sigma
        rate = 2 * a + (eta - h) * a**2
        if np.any(rate <= 0) or np.any(h * rate >= 2):
            raise _checks.InputError("no stationary law: the linearised chain is unstable")
        return eta / rate
    v0 = eta * lam / (2 * l_nu * sigma)
    return (sigma / lam) ** 2 * v0 * (1 + (kappa - (1 - h / eta) * l_nu**2) * v0)


def noiseless_variance(learning_rate: float) -> float:
    """η²/3, the algorithm's stationary variance as σ → 0, where every SDE's formula goes to 0.

    x alternates between u and u - η, u in [0, η) the start's offset on the lattice; η²/3 is the
    mean over offsets and over the two, x uniform on [-η, η].

    Raises:
        InputError: the learning rate is not positive.
    """
    _checks.positive("learning_rate", learning_rate)
    return learning_rate**2 / 3


def stationary_excess_loss(
    dimension: int, learning_rate: float, scale: float, degrees_of_freedom: float = np.inf
) -> float:
    """E f(x) - f* = η σ d / (4 l_ν) as t → ∞ near any nondegenerate minimum, to leading order in η.

    Noise of one scale σ in all coordinates. dX = -(l/σ) H X dt + √η dW has the covariance
    C = η σ / (2 l) H⁻¹, by (l/σ)(H C + C H) = η I, and the loss tr(H C)/2 sees no H, diagonal or
    not. Needs η ‖H‖ ≪ σ.

    Args:
        dimension: d.
        learning_rate: η.
        scale: σ.
        degrees_of_freedom: ν of the noise.

    Raises:
        InputError: a value that is not positive.
    """
    d = _checks.at_least("dimension", dimension, 1)
    _checks.positive("learning_rate", learning_rate)
    _checks.positive("scale", scale)
    return learning_rate * scale * d / (4 * slope(check_degrees_of_freedom(degrees_of_freedom)))
