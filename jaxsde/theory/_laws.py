"""The three forms in which a law comes, and the affine recursion that all of them obey."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.problems import Quadratic


@dataclass(frozen=True)
class Law:
    """Which chain a closed form is about: take `discrete`, `em(dt)` or `sde`.

    Attributes:
        step: the chain's step h in time units; 0 is continuous time, None the learning rate.
    """

    step: float | None


discrete = Law(None)
"""The algorithm itself, one step every `learning_rate` of time."""

sde = Law(0.0)
"""Its SDE in continuous time."""


def em(dt: float) -> Law:
    """Euler-Maruyama of the SDE at step dt (time units).

    Raises:
        InputError: dt is not positive and finite.
    """
    _checks.positive("dt", dt)
    return Law(float(dt))


class Moments(NamedTuple):
    """First two moments of x at the times asked for, the times' shape leading."""

    mean: Float[np.ndarray, "*T d"]
    covariance: Float[np.ndarray, "*T d d"]


def expected_loss(problem: Quadratic, moments: Moments) -> Float[np.ndarray, "*T"]:
    """E f(x) = f(E x) + tr(H Cov x) / 2 on a quadratic, for any law of x with these moments.

    Args:
        problem: f(x) = (x - x*)ᵀ H (x - x*) / 2.
        moments: E x `(..., d)` and Cov x `(..., d, d)`.
    """
    H = hessian_matrix(problem)
    displacement = moments.mean - np.asarray(problem.minimizer, float)
    at_mean = np.einsum("...i,ij,...j->...", displacement, H, displacement) / 2
    return at_mean + np.einsum("ij,...ij->...", H, moments.covariance) / 2


def hessian_matrix(problem: Quadratic) -> Float[np.ndarray, "d d"]:
    """H in float64, as a matrix whichever way the problem stores it."""
    hessian = np.asarray(problem.hessian, float)
    return np.diag(hessian) if hessian.ndim == 1 else hessian


def coordinates(
    problem: Quadratic, name: str, value: ArrayLike
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """λ and a positive value of the noise, coordinate by coordinate.

    Raises:
        InputError: H is a matrix, or the value not positive or neither a scalar nor `(d,)`.
    """
    lam = np.asarray(problem.hessian, float)
    if lam.ndim != 1:
        raise _checks.InputError("this closed form needs a diagonal hessian, given as (d,)")
    _checks.positive(name, value)
    value = np.asarray(value, float)
    if value.shape not in ((), lam.shape):
        raise _checks.InputError(f"{name} must be a scalar or {lam.shape}, got {value.shape}")
    return lam, np.broadcast_to(value, lam.shape)


def covariance_matrix(covariance: ArrayLike, dimension: int) -> Float[np.ndarray, "d d"]:
    """Σ as a matrix; refuses what is not a covariance of that dimension."""
    sigma = np.asarray(covariance, float)
    if sigma.shape not in ((dimension,), (dimension, dimension)):
        raise _checks.InputError(
            f"covariance must be {(dimension,)} or {(dimension, dimension)}, got {sigma.shape}"
        )
    _checks.finite("covariance", sigma)
    sigma = np.diag(sigma) if sigma.ndim == 1 else sigma
    spread = np.max(np.abs(sigma))
    if not np.allclose(sigma, sigma.T, rtol=0, atol=1e-6 * spread):
        raise _checks.InputError("covariance must be symmetric")
    if np.linalg.eigvalsh(sigma)[0] < -1e-6 * spread:
        raise _checks.InputError("covariance must have no negative eigenvalue")
    return sigma


def check_positive(**constants: ArrayLike) -> None:
    """Refuses a constant that is not positive and finite in every entry, by its name."""
    for name, value in constants.items():
        _checks.positive(name, value)


def step_size(law: Law, learning_rate: float) -> float:
    """The step h of a law; 0 in continuous time.

    Raises:
        InputError: `law` is not a Law, or the learning rate is not positive.
    """
    if not isinstance(law, Law):
        raise _checks.InputError(
            f"law must be theory.discrete, theory.em(dt) or theory.sde, got {law!r}"
        )
    _checks.positive("learning_rate", learning_rate)
    return float(learning_rate) if law.step is None else law.step


def times(time: ArrayLike) -> Float[np.ndarray, "*T"]:
    """The times in float64; refuses negative or infinite ones."""
    time = np.asarray(time, float)
    if not (np.all(np.isfinite(time)) and np.all(time >= 0)):
        raise _checks.InputError("time must be finite and not negative")
    return time


def point(name: str, value: ArrayLike, dimension: int) -> Float[np.ndarray, " d"]:
    """The value in float64; refuses anything but a finite `(dimension,)` vector."""
    value = np.asarray(value, float)
    if value.shape != (dimension,):
        raise _checks.InputError(f"{name} must have shape {(dimension,)}, got {value.shape}")
    _checks.finite(name, value)
    return value


def step_count(time: Float[np.ndarray, "..."], step: float) -> Float[np.ndarray, "..."]:
    """Steps k = t / h, whole floats.

    Raises:
        InputError: a time is further than 10⁻⁶ (1 + k) steps from a multiple of the step.
    """
    k = np.rint(time / step)
    if not np.allclose(time / step, k, rtol=1e-6, atol=1e-6):
        raise _checks.InputError(f"time must hold multiples of the step {step:g} for this law")
    return k


def growth(
    rate: Float[np.ndarray, "..."], time: Float[np.ndarray, "..."], step: float
) -> Float[np.ndarray, "..."]:
    """What u⁺ = (1 + h r) u makes of u₀ = 1 by time t: (1 + h r)^(t/h); e^(r t) at h = 0."""
    if step == 0:
        return np.exp(rate * time)
    return (1 + step * rate) ** step_count(time, step)


def accumulated(
    rate: Float[np.ndarray, "..."], time: Float[np.ndarray, "..."], step: float
) -> Float[np.ndarray, "..."]:
    """What u⁺ = (1 + h r) u + h makes of u₀ = 0 by time t: ((1 + h r)^(t/h) - 1) / r.

    (e^(r t) - 1) / r at h = 0, and t at r = 0 for every h. Rates of any sign, also |1 + h r| > 1.
    """
    excess = _growth_less_one(rate, time, step)
    return np.where(rate == 0, time, excess / np.where(rate == 0, 1, rate))


def _growth_less_one(rate, time, step):
    """`growth` - 1, without cancellation where the rate is small."""
    if step == 0:
        return np.expm1(rate * time)
    slow = np.abs(step * rate) < 0.5
    k = step_count(time, step)
    near_one = np.expm1(k * np.log1p(np.where(slow, step * rate, 0)))
    return np.where(slow, near_one, (1 + step * rate) ** k - 1)


def relaxed(start: float, source: float, rate: float, time: ArrayLike) -> Float[np.ndarray, "*T"]:
    """start e^(-rate t) + (source/rate) (1 - e^(-rate t)), of S' = source - rate S, S(0) = start.

    Raises:
        InputError: a negative time.
    """
    decay = np.exp(-rate * times(time))
    return start * decay + source / rate * (1 - decay)
