"""DSignSGD on f = Σ λᵢ (xᵢ - x*ᵢ)² / 2: moments of the linear theory and stationary laws."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.problems import Quadratic
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, Moments, sde
from jaxsde.theory.sign import curvature, slope


def vote_slope(agents: int) -> float:
    """N C(N-1, (N-1)/2) / 2^(N-1): how much steeper the majority's drift is than one agent's.

    With p = P(gᵢ > 0), the derivative of P(Bin(N, p) > N/2) at p = 1/2; √(2N/π) for large N.

    Raises:
        InputError: N is not odd.
    """
    N = _checks.at_least("agents", agents, 1)
    if N % 2 == 0:
        raise _checks.InputError(
            f"a majority vote without ties needs an odd number of agents, got {N}"
        )
    return N * math.comb(N - 1, (N - 1) // 2) / 2 ** (N - 1)


def sign_moments(
    problem: Quadratic,
    scale: ArrayLike,
    learning_rate: float,
    x0: ArrayLike,
    time: ArrayLike,
    law: Law = sde,
    degrees_of_freedom: float = np.inf,
    *,
    agents: int,
    majority_vote: bool = False,
) -> Moments:
    """E x and Cov x of the linear theory, valid while |λ (x - x*)| ≪ σᵢ.

    With y = x - x*, E sign(gᵢ) linearised to l λ y/σᵢ, a = l λ/σ_{H,1}, one step h has

        E y⁺  = (1 - h a) E y,
        E y⁺² = ((1 - h a)² - (h η/N) q) E y² + h η/N,    q = l² λ²/σ_{H,2}²,

    (h η/N) (1 - q y²) the variance of the step. `discrete` has h = η, `em(dt)` h = dt, and `sde` is
    the limit h → 0. At N = 1 it is `sign.moments`. A majority vote has N = 1 in the second line,
    a = `vote_slope` l λ/σ and q = a².

    Source: arXiv 2502.17009 (`sde`, without the vote).

    Args:
        problem: the quadratic, with a diagonal H `(d,)`; saddles are welcome.
        scale: σᵢ of the agents' noise, a scalar, `(N,)`, or `(N, d)` coordinate by coordinate.
        learning_rate: η.
        x0: the deterministic start, `(d,)`.
        time: t, any shape; multiples of the step for `discrete` and `em(dt)`.
        law: `discrete`, `em(dt)` or `sde`.
        degrees_of_freedom: ν of the noise; moments exist for every ν > 0.
        agents: N.
        majority_vote: steps -η sign(Σᵢ sign(gᵢ)), for odd N and agents of one scale.

    Returns:
        The mean `(..., d)` and the (diagonal) covariance `(..., d, d)`, `...` the shape of `time`.

    Raises:
        InputError: H is a matrix, shapes that do not fit, times off the chain's steps, or a vote of
            an even N or of unequal agents.
    """
    h, eta = _laws.step_size(law, learning_rate), learning_rate
    lam, step = _mean_step(problem, scale, degrees_of_freedom, agents, majority_vote)
    t = _laws.times(time)[..., None]
    minimizer = np.asarray(problem.minimizer, float)
    y0 = _laws.point("x0", x0, len(lam)) - minimizer
    mean = _laws.growth(-step.a, t, h) * y0
    rate = -2 * step.a + h * step.a**2 - eta / step.N * step.q
    second = _laws.growth(rate, t, h) * y0**2 + eta / step.N * _laws.accumulated(rate, t, h)
    return Moments(minimizer + mean, (second - mean**2)[..., None] * np.eye(len(lam)))


def sign_stationary_variance(
    problem: Quadratic,
    scale: ArrayLike,
    learning_rate: float,
    law: Law = sde,
    degrees_of_freedom: float = np.inf,
    *,
    agents: int,
    linearised: bool = False,
    majority_vote: bool = False,
) -> Float[np.ndarray, " d"]:
    """Var xⱼ as t → ∞: V₀ (1 + V₀ (κ b + N h a²/η - q)), V₀ = η / (2 N a), up to V₀³.

    a and q as in `sign_moments`, b = λ² mean(1/σᵢ³) / mean(1/σᵢ). With the mean drift m(y) =
    a y (1 - κ b y²/3 + ...), stationarity is 2 E[y m] = h E m² + (η/N) (1 - q E y²), and
    E y⁴ = 3 (E y²)² to this order. At N = 1 it is `sign.stationary_variance`. A majority vote has
    N = 1 and (κ + (N - 1) l²/2) (λ/σ)² for κ b.

    `linearised=True` takes m = a y: (η/N) / (2a - h a² + (η/N) q), exactly. Its `sde` case,
    (η/2N) / (a + (η/2N) q), is the published one. Corrected here, because it misses κ.

    Source: arXiv 2502.17009 (`sde`, linearised, without the vote).

    Args:
        problem: the quadratic, with a diagonal H `(d,)`, positive.
        scale: σᵢ of the agents' noise, a scalar, `(N,)`, or `(N, d)` coordinate by coordinate.
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        degrees_of_freedom: ν of the noise; finite for every ν > 0.
        agents: N.
        linearised: the exact law of the linearised chain.
        majority_vote: as in `sign_moments`.

    Raises:
        InputError: H is a matrix or has an entry ≤ 0, the linearised chain is unstable, or what
            `sign_moments` refuses.
    """
    h, eta = _laws.step_size(law, learning_rate), learning_rate
    lam, (a, q, bend, N) = _mean_step(problem, scale, degrees_of_freedom, agents, majority_vote)
    if np.any(lam <= 0):
        raise _checks.InputError("no stationary law: the hessian must be positive in every entry")
    if linearised:
        rate = 2 * a - h * a**2 + eta / N * q
        if np.any(rate <= 0) or np.any(h * rate >= 2):
            raise _checks.InputError("no stationary law: the linearised chain is unstable")
        return eta / N / rate
    v0 = eta / (2 * N * a)
    return v0 * (1 + v0 * (bend + N * h * a**2 / eta - q))


class _MeanStep(NamedTuple):
    """A step's mean -h a y (1 - bend y²/3 + ...) and variance (h η/N) (1 - q y² + ...)."""

    a: Float[np.ndarray, " d"]
    q: Float[np.ndarray, " d"]
    bend: Float[np.ndarray, " d"]
    N: int


def _mean_step(
    problem, scale, degrees_of_freedom, agents, majority_vote
) -> tuple[Float[np.ndarray, " d"], _MeanStep]:
    lam, sigma = _coordinates(problem, scale, agents)
    l_nu, kappa, N = slope(degrees_of_freedom), curvature(degrees_of_freedom), agents
    if majority_vote:
        steeper = vote_slope(N)
        if np.any(sigma != sigma[0]):
            raise _checks.InputError("a majority vote needs one scale for all agents")
        a = steeper * l_nu * lam / sigma[0]
        bend = (kappa + (N - 1) * l_nu**2 / 2) * (lam / sigma[0]) ** 2
        return lam, _MeanStep(a, a**2, bend, 1)
    a = l_nu * lam * np.mean(1 / sigma, axis=0)
    q = l_nu**2 * lam**2 * np.mean(1 / sigma**2, axis=0)
    bend = kappa * lam**2 * np.mean(1 / sigma**3, axis=0) / np.mean(1 / sigma, axis=0)
    return lam, _MeanStep(a, q, bend, N)


def _coordinates(
    problem, scale, agents
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "N d"]]:
    """λ, and σ agent by agent and coordinate by coordinate."""
    N = _checks.at_least("agents", agents, 1)
    lam = _laws.coordinates(problem, "scale", 1.0)[0]
    _checks.positive("scale", scale)
    sigma = np.asarray(scale, float)
    if sigma.shape not in ((), (N,), (N, len(lam))):
        raise _checks.InputError(
            f"scale must be a scalar, {(N,)} or {(N, len(lam))}, got {sigma.shape}"
        )
    return lam, np.broadcast_to(sigma[:, None] if sigma.ndim == 1 else sigma, (N, len(lam)))
