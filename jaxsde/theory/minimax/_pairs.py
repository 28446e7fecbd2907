"""Pairs f = a x²/2 + λ x y - a y²/2 under additive noise of covariance σ² I: the table."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import ArrayLike, Bool, Float

from jaxsde import _checks
from jaxsde.problems import Players, QuadraticGame
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, sde
from jaxsde.theory.minimax import _method
from jaxsde.theory.minimax._linear import flat_point, jacobian
from jaxsde.theory.minimax._method import Method

_NORMAL = 1e-5  # J's departure from it, in units of its largest eigenvalue: float32 may hold J


class Pairs(NamedTuple):
    """A game's pairs, in the order of their curvature and then of their coupling."""

    curvature: Float[np.ndarray, " p"]
    coupling: Float[np.ndarray, " p"]
    half_square: Float[np.ndarray, " p"]


def pairs(game: QuadraticGame, z0: ArrayLike | Players | None = None) -> Pairs:
    """The pairs (aᵢ, λᵢ) that a linear game falls into, and bᵢ = (xᵢ² + yᵢ²)/2 of a start.

    J is orthogonally similar to blocks [[a, λ], [-λ, a]], λ ≥ 0, when it is normal and its real
    eigenvalues come twice each; then aᵢ ± iλᵢ are its eigenvalues. So it is for bilinear games with
    as many x as y, λᵢ the singular values of the coupling, and for games with the same curvature
    for x and y, if it commutes with a symmetric coupling. Noise of covariance σ² I is the same in
    the pairs, so that E|z|²/2 is the sum of the pairs' u.

    Source: arXiv 2402.12508 for commuting matrices; derived here for normal J.

    Args:
        game: a game with a constant `jacobian()`.
        z0: the start, `(n,)` with x first and then y, or `problems.Players`; 0 by default.

    Raises:
        InputError: the game has no such pairs, as when x and y have different curvatures or these
            do not commute with the coupling: take `moments`.
    """
    J = jacobian(game)
    z0 = np.zeros(len(J)) if z0 is None else flat_point(z0, len(J))
    T, Q = scipy.linalg.schur(J, output="complex")[:2]
    a, lam = np.real(np.diag(T)), np.imag(np.diag(T))
    squares = np.abs(Q.conj().T @ z0) ** 2
    rounding = _NORMAL * np.max(np.abs(np.diag(T)))
    turning, still = lam > rounding, np.flatnonzero(np.abs(lam) <= rounding)
    still = still[np.argsort(a[still])]
    one, other = still[::2], still[1::2]
    if (
        np.linalg.norm(np.triu(T, 1)) > rounding
        or len(one) != len(other)
        or np.any(np.abs(a[one] - a[other]) > rounding)
    ):
        raise _checks.InputError(
            "this game does not fall into pairs: x and y need the same curvature, commuting with "
            "the coupling; use moments"
        )
    curvature = np.append(a[turning], (a[one] + a[other]) / 2)
    coupling = np.append(lam[turning], np.zeros(len(one)))
    half_square = np.append(squares[turning], (squares[one] + squares[other]) / 2)
    order = np.lexsort((coupling, curvature))
    return Pairs(curvature[order], coupling[order], half_square[order])


def pair_half_square(
    start: ArrayLike,
    time: ArrayLike,
    learning_rate: float,
    law: Law = sde,
    *,
    curvature: ArrayLike,
    coupling: ArrayLike,
    sigma: ArrayLike,
    method: Method,
) -> Float[np.ndarray, "..."]:
    """u(t) = E(x² + y²)/2 of pairs, from u(0) = b: u' = -2 r u + c, or u⁺ = q u + h c.

        u(t) = b e^(-2rt) + (c/(2r)) (1 - e^(-2rt))                            (`sde`),
        u(t) = b qᵏ + h c (1 - qᵏ)/(1 - q),   q = |1 - h B|² = 1 - 2 r h + h² |B|²,  k = t/h,

    with h = η for `discrete` and h = dt for `em(dt)`; r of `pair_rate`, c = η σ² times
    `pair_noise`, and at j = a + iλ: B = j (SGDA), j - ρ j² (SEG), |j|² (SHGD). With b = 0 it is
    the variance of x and of y, which have no covariance.

    The SDE's level is too low, by the factor 1 - η |B|²/(2r). Where that is not positive the
    algorithm diverges, and the SDE tells another story: SGDA on a bilinear pair grows as
    (1 + η² λ²)ᵏ, that is e^(η λ² t), and not linearly as u = b + η σ² t.

    Source: arXiv 2402.12508 (`sde`); the chains derived here.

    Args:
        start: b.
        time: t, any shape; multiples of the step for `discrete` and `em(dt)`.
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        curvature: a, of any sign.
        coupling: λ.
        sigma: σ of the noise in every coordinate of one F_c.
        method: `sgda()`, `seg(rho)` or `shgd()`.

    Returns:
        u, the shape of `time` leading, then the one that the pairs' constants broadcast to.

    Raises:
        InputError: a constant out of its range, or times off the chain's steps.
    """
    h = _laws.step_size(law, learning_rate)
    b = half_squares(start)
    B, noise = _method.pair(method, curvature, coupling)
    c = learning_rate * variance(sigma) * noise
    t = times_before(time, b, c, B)
    rate = -2 * np.real(B) + h * np.abs(B) ** 2
    return _laws.growth(rate, t, h) * b + c * _laws.accumulated(rate, t, h)


def pair_level(
    learning_rate: float,
    law: Law = sde,
    *,
    curvature: ArrayLike,
    coupling: ArrayLike,
    sigma: ArrayLike,
    method: Method,
) -> Float[np.ndarray, "*P"]:
    """Where u of `pair_half_square` settles: c/(2r - h |B|²), c/(2r) for the SDE.

    In units of η σ² the SDE has 1/(2a) for SGDA; ((1 - ρa)² + ρ²λ²) / (2 (a + ρ (λ² - a²))) for SEG
    with one batch; 1/2 for SHGD with one batch and 1/4 with two, whatever the game. The
    algorithm's is the SDE's over 1 - η |B|²/(2r).

    Source: arXiv 2402.12508 (`sde`, one batch); the others derived here.

    Args:
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        curvature: a.
        coupling: λ.
        sigma: σ.
        method: `sgda()`, `seg(rho)` or `shgd()`.

    Raises:
        InputError: a pair without a stationary law, see `pair_is_stable`, or a constant out of its
            range.
    """
    h = _laws.step_size(law, learning_rate)
    B, noise = _method.pair(method, curvature, coupling)
    fall, growth = 2 * np.real(B), h * np.abs(B) ** 2
    if np.any(fall <= growth):
        worst = np.unravel_index(np.argmin(fall - growth), B.shape)
        raise _checks.InputError(
            f"no stationary law: 2 r must exceed step * |B|², here 2 r = {fall[worst]:.6g} and "
            f"step * |B|² = {growth[worst]:.6g}"
        )
    return learning_rate * variance(sigma) * noise / (fall - growth)


def pair_is_stable(
    learning_rate: float,
    law: Law = sde,
    *,
    curvature: ArrayLike,
    coupling: ArrayLike,
    method: Method,
) -> Bool[np.ndarray, "*P"]:
    """Whether `pair_level` exists: r > 0 for the SDE, q = |1 - h B|² < 1 for the chains.

    q < 1 is 2 r > h |B|²: a > 0 is not enough for SGDA, it takes 2 a > η (a² + λ²); SHGD, stable
    under its SDE, needs η (a² + λ²) < 2; for SEG see `stable_rho`.

    Source: the published condition is r > 0 (arXiv 2402.12508); q < 1 derived here.

    Args:
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        curvature: a.
        coupling: λ.
        method: `sgda()`, `seg(rho)` or `shgd()`.

    Raises:
        InputError: a constant out of its range.
    """
    h = _laws.step_size(law, learning_rate)
    B, _ = _method.pair(method, curvature, coupling)
    return 2 * np.real(B) > h * np.abs(B) ** 2


def pair_rate(
    learning_rate: float,
    law: Law = sde,
    *,
    curvature: ArrayLike,
    coupling: ArrayLike,
    method: Method,
) -> Float[np.ndarray, "*P"]:
    """The rate r at which |E z| decays, and 2r at which u nears its level.

    For the SDE r = Re B: a (SGDA), a + ρ (λ² - a²) (SEG), a² + λ² (SHGD). For the chains
    r = -ln|1 - h B|/h, less by about h (|B|² - 2 (Re B)²)/2. A negative r is growth.

    Source: arXiv 2402.12508 (`sde`).

    Args:
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        curvature: a.
        coupling: λ.
        method: `sgda()`, `seg(rho)` or `shgd()`.

    Raises:
        InputError: a constant out of its range.
    """
    h = _laws.step_size(law, learning_rate)
    B, _ = _method.pair(method, curvature, coupling)
    if h == 0:
        return np.real(B)
    with np.errstate(divide="ignore"):  # one step may reach 0
        return -np.log(np.abs(1 - h * B)) / h


def pair_noise(
    *, curvature: ArrayLike, coupling: ArrayLike, method: Method
) -> Float[np.ndarray, "*P"]:
    """c/(η σ²), the source of u in `pair_half_square`, the same for every law.

    1 (SGDA); (1 - ρa)² + ρ²λ² (SEG, one batch); 1 + ρ² (a² + λ²) (SEG, independent batches);
    (a² + λ²)/batches (SHGD). For bilinear pairs both samplings of SEG have 1 + ρ²λ².

    Source: arXiv 2402.12508 (one batch); the others derived here.

    Args:
        curvature: a.
        coupling: λ.
        method: `sgda()`, `seg(rho)` or `shgd()`.

    Raises:
        InputError: a constant that is not finite.
    """
    return _method.pair(method, curvature, coupling)[1]


def pair_frequency(
    learning_rate: float,
    law: Law = sde,
    *,
    curvature: ArrayLike,
    coupling: ArrayLike,
    method: Method,
) -> Float[np.ndarray, "*P"]:
    """The angle by which E z turns in a unit of time: E z(t) = e^(-rt) R(ωt) z₀.

    For the SDE ω = |Im B|: |λ| (SGDA), |λ (1 - 2ρa)| (SEG), 0 (SHGD); for the chains
    ω = |arg(1 - h B)|/h.

    Source: derived here.

    Args:
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        curvature: a.
        coupling: λ.
        method: `sgda()`, `seg(rho)` or `shgd()`.

    Raises:
        InputError: a constant out of its range.
    """
    h = _laws.step_size(law, learning_rate)
    B, _ = _method.pair(method, curvature, coupling)
    return np.abs(np.imag(B)) if h == 0 else np.abs(np.angle(1 - h * B)) / h


def times_before(time: ArrayLike, *pairs: np.ndarray) -> Float[np.ndarray, "..."]:
    """The times, with one more axis for each of those that the pairs' constants broadcast to."""
    return _laws.times(time)[(..., *(None,) * np.broadcast(*pairs).ndim)]


def half_squares(start: ArrayLike) -> Float[np.ndarray, "*P"]:
    """b ≥ 0."""
    _checks.nonnegative("start", start)
    return np.asarray(start, float)


def variance(sigma: ArrayLike) -> Float[np.ndarray, "*P"]:
    """σ², of a positive σ."""
    _checks.positive("sigma", sigma)
    return np.asarray(sigma, float) ** 2
