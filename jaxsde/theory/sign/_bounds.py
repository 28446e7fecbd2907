"""Bounds on S_t = f(X_t) - f* under SignSGD's SDE, phase by phase (Lemma 3.5 of arXiv 2411.15958).

f is μ-strongly convex and tr ∇²f ≤ L_τ.
"""

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.theory import _laws
from jaxsde.theory.sign import _phases
from jaxsde.theory.sign._noise import batch_scale, slope


def phase1_loss_bound(
    initial_loss: float, time: ArrayLike, *, mu: float, published: bool = False
) -> Float[np.ndarray, "*T"]:
    """S_t ≤ (√S₀ - √(μ/2) t)² until it reaches 0, for dX = -sign(∇f(X)) dt.

    From dS = -|∇f|₁ dt and |∇f|₁ ≥ |∇f|₂ ≥ √(2 μ S). The published bound, (√μ t - 2 √S₀)² / 4 =
    (√S₀ - (√μ/2) t)², holds too and is weaker.

    Args:
        initial_loss: S₀.
        time: t.
        mu: μ.
        published: the published form.

    Raises:
        InputError: a constant that is not positive, or a negative time.
    """
    end = phase1_end(initial_loss, mu=mu, published=published)
    return initial_loss * np.maximum(1 - _laws.times(time) / end, 0) ** 2


def phase1_end(initial_loss: float, *, mu: float, published: bool = False) -> float:
    """The time √(2 S₀/μ) at which `phase1_loss_bound` is 0: phase 1 ends before.

    2 √(S₀/μ) as published.

    Raises:
        InputError: a constant that is not positive.
    """
    _checks.positive("initial_loss", initial_loss)
    _checks.positive("mu", mu)
    return float(2 * np.sqrt(initial_loss / mu) if published else np.sqrt(2 * initial_loss / mu))


def phase2_loss_bound(
    initial_loss: float,
    time: ArrayLike,
    *,
    learning_rate: float,
    mu: float,
    hessian_trace: float,
    sigma_max: float,
    dimension: int,
) -> Float[np.ndarray, "*T"]:
    """E S_t ≤ S₀ e^(-2μΔt) + (η/2) (L_τ - μ d q⁻²) / (2μΔ) (1 - e^(-2μΔt)), in phase 2.

    Δ = m / (√2 σ) + η μ m² / (4 σ²), with m and q⁻ the chord of `phase`. The drift's q⁻ is
    dropped, which leaves a slack of 2.6 to 3.5.

    Args:
        initial_loss: S₀.
        time: t.
        learning_rate: η.
        mu: μ.
        hessian_trace: L_τ.
        sigma_max: σ, the largest standard deviation of the (Gaussian) noise.
        dimension: d.

    Raises:
        InputError: a constant that is not positive, L_τ < μ d, or a negative time.
    """
    _check(initial_loss, learning_rate, mu, hessian_trace, sigma_max)
    d = _checks.at_least("dimension", dimension, 1)
    if hessian_trace < mu * d:
        raise _checks.InputError("hessian_trace must be at least mu * dimension")
    m, q_minus = _phases.CHORD_SLOPE, _phases.CHORD_INTERCEPT
    delta = m / (np.sqrt(2) * sigma_max) + learning_rate * mu * m**2 / (4 * sigma_max**2)
    source = learning_rate / 2 * (hessian_trace - mu * d * q_minus**2)
    return _laws.relaxed(initial_loss, source, 2 * mu * delta, time)


def phase3_loss_bound(
    initial_loss: float,
    time: ArrayLike,
    *,
    learning_rate: float,
    mu: float,
    hessian_trace: float,
    sigma_max: float,
    degrees_of_freedom: float = np.inf,
) -> Float[np.ndarray, "*T"]:
    """E S_t ≤ S₀ e^(-2μΔt) + (η/2) L_τ / (2μΔ) (1 - e^(-2μΔt)), for the linearised SDE.

    Δ = l/σ + η μ l² / (2 σ²), l = `slope`: √(2/π)/σ + η μ / (π σ²) for Gaussian noise, the
    published case. An equality for f isotropic quadratic. The level is linear in σ, about
    η L_τ σ / (4 μ l). The second term of Δ belongs to the linearised diffusion: the algorithm's
    level lies above, see `stationary_variance`. The linearised SDE is faster than SignSGD's own
    where |∇f|/σ is not small: from |∇f|/(√2 σ) = 1 on, as phase 3 begins, the algorithm
    exceeds the bound by up to 28 %.

    Args:
        initial_loss: S₀.
        time: t.
        learning_rate: η.
        mu: μ.
        hessian_trace: L_τ.
        sigma_max: σ, the largest scale of the noise.
        degrees_of_freedom: ν of the noise.

    Raises:
        InputError: a constant that is not positive, or a negative time.
    """
    _check(initial_loss, learning_rate, mu, hessian_trace, sigma_max)
    l_nu = slope(degrees_of_freedom)
    delta = l_nu / sigma_max + learning_rate * mu * l_nu**2 / (2 * sigma_max**2)
    return _laws.relaxed(initial_loss, learning_rate / 2 * hessian_trace, 2 * mu * delta, time)


def phase3_leading_loss_bound(
    initial_loss: float,
    time: ArrayLike,
    *,
    learning_rate: float,
    mu: float,
    smoothness: float,
    sigma_max: float,
    dimension: int,
    batch_size: int = 1,
    published: bool = False,
) -> Float[np.ndarray, "*T"]:
    """E S_t ≤ S₀ e^(-2μ l (√B/σ) t) + (η L d / (4 μ l)) σ/√B, l = √(2/π), to leading order in η.

    `phase3_loss_bound` with L_τ = L d, less the order η of Δ and the factor 1 - e^(-2μΔt).
    Published (equation 4 of the paper's poster) as
    S₀ e^(-2μ√B t) + (1 - e^(-2μ√B t)) (η L d / (4μ)) σ/√B: without the 1/σ and the l in the rate,
    and without 1/l = √(π/2) in the level, so that an isotropic quadratic exceeds it by the factor
    √(π/2).

    Args:
        initial_loss: S₀.
        time: t.
        learning_rate: η.
        mu: μ.
        smoothness: L.
        sigma_max: σ of one sample's (Gaussian) noise.
        dimension: d.
        batch_size: B.
        published: the form of the poster.

    Raises:
        InputError: a constant that is not positive, or a negative time.
    """
    _check(initial_loss, learning_rate, mu, smoothness, sigma_max)
    d = _checks.at_least("dimension", dimension, 1)
    sigma = batch_scale(sigma_max, batch_size)
    rate = 2 * mu * (np.sqrt(batch_size) if published else slope() / sigma)
    level = loss_level(
        learning_rate=learning_rate,
        mu=mu,
        hessian_trace=smoothness * d,
        sigma=sigma_max,
        batch_size=batch_size,
        published=published,
    )
    decay = np.exp(-rate * _laws.times(time))
    return initial_loss * decay + level * (1 - decay if published else 1)


def loss_level(
    *,
    learning_rate: float,
    mu: float,
    hessian_trace: float,
    sigma: ArrayLike,
    batch_size: ArrayLike = 1,
    published: bool = False,
) -> Float[np.ndarray, "..."]:
    """Where the loss settles as t → ∞: E S ≤ (η L_τ / (4 μ l)) σ/√B, l = √(2/π), linear in σ.

    The level of `phase3_leading_loss_bound`, for Gaussian noise and to leading order in η.
    Published (equation 4 of the paper's poster) without 1/l = √(π/2) = 1.2533, so that an isotropic
    quadratic exceeds it by that factor.

    Args:
        learning_rate: η.
        mu: μ.
        hessian_trace: L_τ.
        sigma: σ, the largest standard deviation of one sample's gradient noise, any shape.
        batch_size: B, any positive number (SVAG's are fractions), any shape.
        published: the form of the poster.

    Returns:
        The level, of the shape that sigma and batch_size broadcast to.

    Raises:
        InputError: a constant that is not positive.
    """
    _laws.check_positive(
        learning_rate=learning_rate,
        mu=mu,
        hessian_trace=hessian_trace,
        sigma=sigma,
        batch_size=batch_size,
    )
    scale = np.asarray(sigma, float) / np.sqrt(np.asarray(batch_size, float))
    return learning_rate * hessian_trace * scale / (4 * mu * (1 if published else slope()))


def _check(initial_loss, learning_rate, mu, curvature_bound, sigma_max):
    _checks.positive("initial_loss", initial_loss)
    _checks.positive("learning_rate", learning_rate)
    _checks.positive("mu", mu)
    _checks.positive("the bound on the hessian", curvature_bound)
    _checks.positive("sigma_max", sigma_max)
