"""DSGD and DCSGD with random sparsification on quadratics: exact moments, stationary laws."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.problems import Quadratic
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, Moments, sde
from jaxsde.theory.distributed._agents import compressions

_LARGEST_DIMENSION = 32  # of a full H: its d (d + 1) / 2 second moments move by one matrix


def moments(
    problem: Quadratic,
    covariance: ArrayLike,
    learning_rate: float,
    x0: ArrayLike,
    time: ArrayLike,
    law: Law = sde,
    *,
    agents: int,
    omega: ArrayLike = 0.0,
    fixed_count: bool = False,
) -> Moments:
    """E x and Cov x on f = (x - x*)ᵀ H (x - x*) / 2 under random sparsification, exact.

    With y = x - x* and M = E y yᵀ, one step h is E y⁺ = (I - h H) E y and

        M⁺ = (I - h H) M (I - h H) + (h η/N) S(M),
        S(M) = mean [(1 - cᵢ) Σᵢ + (ωᵢ + cᵢ) diag(Σᵢ + H M H) - cᵢ H M H],

    S the mean covariance of the agents' messages; cᵢ = 0 where each coordinate is kept with
    probability 1/(1 + ωᵢ) on its own (Bernoulli), cᵢ = ωᵢ/(d - 1) where exactly k = d/(1 + ωᵢ) are
    (random-k, `fixed_count`). `em(dt)` has h = dt; `sde` is the limit h → 0; `discrete` is the
    algorithm, h = η. On a diagonal H the entries of M are independent of one another, and

        M_ii(t) = (1 + h r)^(t/h) y₀² + (η/N) S(0)_ii ((1 + h r)^(t/h) - 1) / r,
        r = -2 λ + (h + η ω̄/N) λ²,    S(0)_ii = mean (1 + ωⱼ) Σⱼ,ii.

    Without compression it is `gradient_descent.moments` at the covariance mean Σᵢ/N. A full H
    costs d⁶/8 operations a time asked for (`sde`) or a doubling of t/h (chains). Saddles are
    welcome.

    Source: arXiv 2502.17009 (DCSGD on quadratics); the covariance of random-k by counting masks.

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
        covariance: Σ of one gradient's noise, the same for all agents, `(d,)` if diagonal, or
            `(d, d)`; or Σᵢ agent by agent, `(N, d, d)`.
        learning_rate: η.
        x0: the deterministic start, `(d,)`.
        time: t, any shape; multiples of the step for `discrete` and `em(dt)`.
        law: `discrete`, `em(dt)` or `sde`.
        agents: N.
        omega: ωᵢ, a scalar or `(N,)`; 0 is DSGD.
        fixed_count: random-k instead of Bernoulli sparsification.

    Returns:
        The mean `(..., d)` and the covariance `(..., d, d)`, `...` the shape of `time`.

    Raises:
        InputError: shapes that do not fit, Σ not a covariance, d/(1 + ω) not whole for random-k,
            times off the chain's steps, or a full H of more than 32 dimensions.
    """
    recursion = _recursion(problem, learning_rate, law, agents, omega, fixed_count)
    h, H = recursion.step, recursion.hessian
    source = learning_rate / agents * _message_noise(covariance, agents, omega, fixed_count, len(H))
    t = _laws.times(time)
    minimizer = np.asarray(problem.minimizer, float)
    y0 = _laws.point("x0", x0, len(H)) - minimizer
    lam, V = np.linalg.eigh(H)
    mean = (_laws.growth(-lam, t[..., None], h) * (V.T @ y0)) @ V.T
    second = _second_moment(recursion, source, np.outer(y0, y0), t)
    return Moments(minimizer + mean, second - mean[..., :, None] * mean[..., None, :])


def stationary_covariance(
    problem: Quadratic,
    covariance: ArrayLike,
    learning_rate: float,
    law: Law = sde,
    *,
    agents: int,
    omega: ArrayLike = 0.0,
    fixed_count: bool = False,
) -> Float[np.ndarray, "d d"]:
    """Cov x as t → ∞ on a quadratic: the fixed point M of `moments`.

    On a diagonal H, (η/N) mean (1 + ωⱼ) Σⱼ,ii / (2 λ - (h + η ω̄/N) λ²) on the diagonal: for the
    SDE (η/2N)(1 + ω) Σ H⁻¹ (I - (η ω/(2N)) H)⁻¹, which exists for η ω λ_max < 2N; for the algorithm
    η λ_max (1 + ω/N) < 2 is needed, and h λ_max + η ω λ_max / N < 2 in general. That suffices for a
    full H, of which the spectrum of the map M → M⁺ decides.

    Source: arXiv 2502.17009 (`sde`, diagonal H).

    Args:
        problem: the quadratic, H positive definite, `(d,)` or `(d, d)`.
        covariance: Σ for all agents, `(d,)` or `(d, d)`, or Σᵢ agent by agent, `(N, d, d)`.
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        agents: N.
        omega: ωᵢ, a scalar or `(N,)`; 0 is DSGD.
        fixed_count: random-k instead of Bernoulli sparsification.

    Raises:
        InputError: H has an eigenvalue ≤ 0, the second moments grow, or what `moments` refuses.
    """
    recursion = _recursion(problem, learning_rate, law, agents, omega, fixed_count)
    H = recursion.hessian
    source = learning_rate / agents * _message_noise(covariance, agents, omega, fixed_count, len(H))
    lam = np.linalg.eigvalsh(H)
    if lam[0] <= 0:
        raise _checks.InputError(f"no stationary law: the hessian has the eigenvalue {lam[0]:g}")
    if _growth_rate(recursion) >= 0:
        reach = lam[-1] * (recursion.step + recursion.spread)
        raise _checks.InputError(
            "no stationary law: the second moments grow; curvature * (step + learning_rate * "
            f"omega / agents) < 2 prevents it, here it is {reach:g}"
        )
    if _diagonal(H):
        return source / -_rates(recursion)
    upper = np.triu_indices(len(H))
    return _matrix(np.linalg.solve(_generator(recursion), -source[upper]), len(H))


def is_stable(
    problem: Quadratic,
    learning_rate: float,
    law: Law = sde,
    *,
    agents: int,
    omega: ArrayLike = 0.0,
    fixed_count: bool = False,
) -> bool:
    """Whether `stationary_covariance` exists.

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        agents: N.
        omega: ωᵢ, a scalar or `(N,)`.
        fixed_count: random-k instead of Bernoulli sparsification.

    Raises:
        InputError: what `moments` refuses.
    """
    recursion = _recursion(problem, learning_rate, law, agents, omega, fixed_count)
    positive = np.linalg.eigvalsh(recursion.hessian)[0] > 0
    return bool(positive and _growth_rate(recursion) < 0)


def largest_learning_rate(
    curvature: float, *, agents: int, omega: ArrayLike = 0.0, law: Law = sde
) -> float:
    """The η below which E|x - x*|² stays bounded on all quadratics with 0 < H ≤ λ.

    From -2 λ + h λ² + η ω̄ λ²/N < 0: 2 / (λ (1 + ω̄/N)) for `discrete`, 2N / (ω̄ λ) for `sde` and
    N (2 - λ dt) / (ω̄ λ) for `em(dt)`, both inf without compression. The SDE alone allows steps that
    the algorithm does not. Sharp for a diagonal H with the eigenvalue λ; a full one
    is no worse, since E|C(g) - ∇f|² is (1 + ω) tr Σ + ω |∇f|² in every basis.

    Source: arXiv 2502.17009 (`sde`).

    Args:
        curvature: λ, the largest eigenvalue of H.
        agents: N.
        omega: ωᵢ, a scalar or `(N,)`.
        law: `discrete`, `em(dt)` or `sde`.

    Raises:
        InputError: a value out of its range, or λ dt ≥ 2, which no η makes stable.
    """
    _checks.positive_number("curvature", curvature)
    share = np.mean(compressions(omega, agents)) / agents
    if law == _laws.discrete:
        return float(2 / (curvature * (1 + share)))
    room = 2 - curvature * _laws.step_size(law, 1.0)
    if room <= 0:
        raise _checks.InputError(
            f"no learning rate is stable: step * curvature = {2 - room:g} >= 2"
        )
    return float(room / (curvature * share)) if share > 0 else np.inf


class _Recursion(NamedTuple):
    """The linear part of M⁺ = M + h (A(M) + source).

    A(M) = -(H M + M H) + (h - back) H M H + (back + spread) diag(H M H), back = (η/N) mean cᵢ and
    spread = (η/N) mean ωᵢ.
    """

    hessian: Float[np.ndarray, "d d"]
    step: float
    back: float
    spread: float


def _recursion(problem, learning_rate, law, agents, omega, fixed_count) -> _Recursion:
    H = _laws.hessian_matrix(problem)
    if not _diagonal(H) and len(H) > _LARGEST_DIMENSION:
        raise _checks.InputError(
            f"a full hessian may have at most {_LARGEST_DIMENSION} dimensions here, got {len(H)}; "
            "without compression take gradient_descent"
        )
    h = _laws.step_size(law, learning_rate)
    omega = compressions(omega, agents)
    back = learning_rate / agents * np.mean(_losses(omega, agents, fixed_count, len(H)))
    return _Recursion(H, h, float(back), float(learning_rate / agents * np.mean(omega)))


def _losses(omega, agents, fixed_count, dimension) -> Float[np.ndarray, " N"]:
    """cᵢ; refuses an ω that no whole k = d/(1 + ω) ≥ 1 has."""
    omega = compressions(omega, agents)
    if not fixed_count:
        return np.zeros(agents)
    k = dimension / (1 + omega)
    if np.any(np.rint(k) < 1) or not np.allclose(k, np.rint(k), rtol=1e-6):
        raise _checks.InputError(
            f"with fixed_count, omega must be d/k - 1 for whole k between 1 and d = {dimension}"
        )
    return omega / max(dimension - 1, 1)


def _message_noise(covariance, agents, omega, fixed_count, dimension) -> Float[np.ndarray, "d d"]:
    """S(0) = mean [(1 - cᵢ) Σᵢ + (ωᵢ + cᵢ) diag Σᵢ]."""
    sigma, N, d = np.asarray(covariance, float), agents, dimension
    if sigma.ndim == 3 and sigma.shape != (N, d, d):
        raise _checks.InputError(
            f"covariance must be {(d,)} or {(d, d)} for all agents, or {(N, d, d)}, "
            f"got {sigma.shape}"
        )
    each = sigma if sigma.ndim == 3 else [sigma]
    sigma = np.broadcast_to([_laws.covariance_matrix(one, d) for one in each], (N, d, d))
    c = _losses(omega, N, fixed_count, d)[:, None, None]
    omega = compressions(omega, N)[:, None, None]
    return np.mean((1 - c) * sigma + (omega + c) * sigma * np.eye(d), axis=0)


def _second_moment(recursion, source, start, time) -> Float[np.ndarray, "*T d d"]:
    """M at the times, from M(0) = start."""
    if _diagonal(recursion.hessian):
        rates, t, h = _rates(recursion), time[..., None, None], recursion.step
        return _laws.growth(rates, t, h) * start + source * _laws.accumulated(rates, t, h)
    d = len(start)
    upper = np.triu_indices(d)
    generator = np.zeros((len(upper[0]) + 1,) * 2)
    generator[:-1, :-1] = _generator(recursion)
    generator[:-1, -1] = source[upper]
    distinct, where = np.unique(time, return_inverse=True)
    states = _evolved(generator, np.append(start[upper], 1), distinct, recursion.step)
    return _matrix(states[where.reshape(time.shape), :-1], d)


def _rates(recursion: _Recursion) -> Float[np.ndarray, "d d"]:
    """r of M⁺ᵢⱼ = (1 + h rᵢⱼ) Mᵢⱼ + ..., for a diagonal H."""
    H, h, back, spread = recursion
    lam = np.diag(H)
    products = np.outer(lam, lam)
    return (
        -np.add.outer(lam, lam)
        + (h - back) * products
        + (back + spread) * products * np.eye(len(H))
    )


def _generator(recursion: _Recursion) -> Float[np.ndarray, "n n"]:
    """A as a matrix on the n = d (d + 1) / 2 entries of M on and above the diagonal."""
    H, h, back, spread = recursion
    i, j = np.triu_indices(len(H))
    unit, n = np.zeros((len(i), *H.shape)), np.arange(len(i))
    unit[n, i, j] = unit[n, j, i] = 1
    curved = H @ unit @ H
    moved = -(H @ unit + unit @ H) + (h - back) * curved + (back + spread) * curved * np.eye(len(H))
    return moved[:, i, j].T


def _growth_rate(recursion: _Recursion) -> float:
    """The largest eigenvalue of A, which decides: M → M⁺ maps positive semidefinite M to such."""
    if _diagonal(recursion.hessian):
        return float(np.max(np.diag(_rates(recursion))))
    return float(np.max(np.linalg.eigvals(_generator(recursion)).real))


def _evolved(generator, start, time, step) -> Float[np.ndarray, "T n"]:
    """e^(Gt) u₀, or (1 + h G)^(t/h) u₀ by squaring."""
    if step == 0:
        return np.array([scipy.linalg.expm(generator * t) @ start for t in time])
    k = _laws.step_count(time, step).astype(int)
    states, power = np.tile(start, (len(k), 1)), np.eye(len(start)) + step * generator
    while np.any(k):
        odd = k % 2 == 1
        states[odd] = states[odd] @ power.T
        k = k // 2
        if np.any(k):
            power = power @ power
    return states


def _matrix(upper: Float[np.ndarray, "*T n"], dimension: int) -> Float[np.ndarray, "*T d d"]:
    """The symmetric matrix with these entries on and above its diagonal."""
    i, j = np.triu_indices(dimension)
    matrix = np.empty((*upper.shape[:-1], dimension, dimension))
    matrix[..., i, j] = matrix[..., j, i] = upper
    return matrix


def _diagonal(H: Float[np.ndarray, "d d"]) -> bool:
    return bool(np.all(H == np.diag(np.diag(H))))
