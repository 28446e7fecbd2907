"""Linear games F(z) = J z with additive noise: exact moments, stationary laws, stability."""

import numpy as np
import scipy.linalg
from jaxtyping import ArrayLike, Complex, Float

from jaxsde import _checks
from jaxsde.problems import Players, QuadraticGame
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, Moments, sde
from jaxsde.theory.minimax import _method
from jaxsde.theory.minimax._method import Method

_ROUNDING = 1e-13  # of eigenvalues, in units of the largest


def moments(
    game: QuadraticGame,
    covariance: ArrayLike,
    learning_rate: float,
    z0: ArrayLike | Players,
    time: ArrayLike,
    law: Law = sde,
    *,
    method: Method,
) -> Moments:
    """E z and Cov z on a linear game F(z) = J z under additive noise of constant covariance Σ.

    One step h of the chain is z⁺ = (I - h B) z + √(η h) S^(1/2) ξ, hence

        E z⁺   = (I - h B) E z,
        Cov z⁺ = (I - h B) Cov z (I - h B)ᵀ + h η S,

        SGDA                     B = J,         S = Σ,
        SEG, one batch           B = J - ρ J²,  S = (I - ρ J) Σ (I - ρ J)ᵀ,
        SEG, independent batches B = J - ρ J²,  S = Σ + ρ² J Σ Jᵀ,
        SHGD                     B = Jᵀ J,      S = Jᵀ Σ J / batches.

    `em(dt)` has h = dt; `sde` is the limit h → 0, dZ = -B Z dt + √η S^(1/2) dW; `discrete` has
    h = η: with Gaussian noise the algorithm and Euler-Maruyama at dt = η are the same chain, and
    its moments are these under any noise of covariance Σ. J may be any matrix, normal or not, and
    the law stationary or not. The cost is n³ log(t/h) a time asked for, exact to rounding.

    Source: arXiv 2402.12508, the SDEs of SGDA, SEG and SHGD; independent batches derived here.

    Args:
        game: a game with a constant `jacobian()` J `(n, n)`, such as `problems.QuadraticGame`.
        covariance: Σ of the noise of one F_c, x first and then y, `(n,)` if diagonal, or `(n, n)`.
        learning_rate: η.
        z0: the deterministic start, `(n,)` with x first and then y, or `problems.Players`.
        time: t, any shape; multiples of the step for `discrete` and `em(dt)`.
        law: `discrete`, `em(dt)` or `sde`.
        method: `sgda()`, `seg(rho)` or `shgd()`.

    Returns:
        The mean `(..., n)` and the covariance `(..., n, n)`, `...` the shape of `time`.

    Raises:
        InputError: a game without a constant Jacobian, shapes that do not fit, Σ not a covariance,
            η not positive, or times off the chain's steps.
    """
    h = _laws.step_size(law, learning_rate)
    J = jacobian(game)
    B, S = _drift_and_noise(J, covariance, method)
    z0 = flat_point(z0, len(J))
    t = _laws.times(time)
    distinct, where = np.unique(t, return_inverse=True)
    if h == 0:
        Phi, C = _flow(B, learning_rate * S, distinct)
    else:
        k = _laws.step_count(distinct, h).astype(int)
        Phi, C = _powers(np.eye(len(B)) - h * B, h * learning_rate * S, k)
    where = where.reshape(t.shape)
    return Moments((Phi @ z0)[where], C[where])


def stationary_covariance(
    game: QuadraticGame,
    covariance: ArrayLike,
    learning_rate: float,
    law: Law = sde,
    *,
    method: Method,
) -> Float[np.ndarray, "n n"]:
    """Cov z as t → ∞: the V with B V + V Bᵀ - h B V Bᵀ = η S, letters as in `moments`.

    Solved as K V + V Kᵀ = η C S Cᵀ, C = (I - h B/2)⁻¹ and K = C B, which holds for every h.

    Source: arXiv 2402.12508 (`sde`, bilinear and quadratic games).

    Args:
        game: a game with a constant `jacobian()`.
        covariance: Σ of the noise of one F_c, `(n,)` if diagonal, or `(n, n)`.
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        method: `sgda()`, `seg(rho)` or `shgd()`.

    Raises:
        InputError: an eigenvalue of B that forbids it, see `is_stable`, or what `moments` refuses.
    """
    h = _laws.step_size(law, learning_rate)
    B, S = _drift_and_noise(jacobian(game), covariance, method)
    stable, worst = _stability(B, h)
    if not stable:
        raise _checks.InputError(
            f"no stationary law: the drift matrix has the eigenvalue {worst:.6g}, and "
            + ("its real part must be positive" if h == 0 else _chain_bound(worst, h))
        )
    C = np.linalg.inv(np.eye(len(B)) - h / 2 * B)
    return scipy.linalg.solve_continuous_lyapunov(C @ B, learning_rate * C @ S @ C.T)


def is_stable(game: QuadraticGame, learning_rate: float, law: Law = sde, *, method: Method) -> bool:
    """Whether `stationary_covariance` exists: 2 Re β > h |β|² for all eigenvalues β of B.

    For the SDE, Re β > 0; for the chains |1 - h β| < 1, which is more to ask. A bilinear game with
    coupling λ has a stationary law under SEG's SDE for every ρ > 0, but under SEG itself only for
    2 ρ > η (1 + ρ² λ²); under SHGD's SDE always, but under SHGD itself only for η λ² < 2.

    Source: the published condition is that of the SDE (arXiv 2402.12508); the chains' derived here.

    Args:
        game: a game with a constant `jacobian()`.
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        method: `sgda()`, `seg(rho)` or `shgd()`.

    Raises:
        InputError: what `moments` refuses.
    """
    _method.check(method)
    B = _method.drift(method, jacobian(game))
    return _stability(B, _laws.step_size(law, learning_rate))[0]


def mean_half_square(moments: Moments) -> Float[np.ndarray, "*T"]:
    """u = E|z|²/2 = (|E z|² + tr Cov z) / 2, the sum of the pairs' u.

    Args:
        moments: E z `(..., n)` and Cov z `(..., n, n)`.
    """
    square = np.sum(moments.mean**2, axis=-1)
    return (square + np.trace(moments.covariance, axis1=-2, axis2=-1)) / 2


def mean_hamiltonian(game: QuadraticGame, moments: Moments) -> Float[np.ndarray, "*T"]:
    """E|F(z)|²/2 = (|J E z|² + tr(J Cov z Jᵀ)) / 2, what a game reports as its loss.

    Args:
        game: a game with a constant `jacobian()`.
        moments: E z `(..., n)` and Cov z `(..., n, n)`.

    Raises:
        InputError: a game without a constant Jacobian.
    """
    J = jacobian(game)
    return mean_half_square(Moments(moments.mean @ J.T, J @ moments.covariance @ J.T))


def jacobian(game: QuadraticGame) -> Float[np.ndarray, "n n"]:
    """J in float64."""
    if not hasattr(game, "jacobian"):
        raise _checks.InputError(
            f"{type(game).__name__} has no constant jacobian(): this law is for linear games, "
            "such as problems.QuadraticGame"
        )
    return np.asarray(game.jacobian(), float)


def flat_point(z: ArrayLike | Players, dimension: int) -> Float[np.ndarray, " n"]:
    """The point as one vector, x first and then y."""
    flat = np.concatenate(z) if isinstance(z, Players) else z
    return _laws.point("z0", flat, dimension)


def _drift_and_noise(J, covariance, method) -> tuple[np.ndarray, np.ndarray]:
    """B and S."""
    _method.check(method)
    sigma = _laws.covariance_matrix(covariance, len(J))
    return _method.drift(method, J), _method.noise(method, J, sigma)


def _stability(B: Float[np.ndarray, "n n"], h: float) -> tuple[bool, complex]:
    """Whether 2 Re β > h |β|² throughout, and the β with the least margin."""
    beta: Complex[np.ndarray, " n"] = np.linalg.eigvals(B)
    margin = 2 * np.real(beta) - h * np.abs(beta) ** 2
    return bool(np.min(margin) > _ROUNDING * np.max(np.abs(beta))), beta[np.argmin(margin)]


def _chain_bound(beta: complex, h: float) -> str:
    return (
        "twice its real part must exceed step * |eigenvalue|²: "
        f"{2 * beta.real:.6g} against {h * abs(beta) ** 2:.6g}"
    )


def _flow(B, source, time) -> tuple[Float[np.ndarray, "T n n"], Float[np.ndarray, "T n n"]]:
    """Φ = e^(-Bt) and C = ∫₀ᵗ e^(-Bs) Q e^(-Bᵀs) ds: Van Loan's exponential, doubled m times.

    exp([[-B, Q], [0, Bᵀ]] t) = [[Φ, C Φ⁻ᵀ], [0, Φ⁻ᵀ]] would overflow at once for large t.
    """
    n, reach = len(B), np.linalg.norm(B) * np.max(time, initial=0)
    doublings = int(np.ceil(np.log2(max(reach, 1))))
    block = np.block([[-B, source], [np.zeros((n, n)), B.T]])
    block = scipy.linalg.expm(block * (time / 2**doublings)[:, None, None])
    Phi = block[:, :n, :n]
    C = block[:, :n, n:] @ _transpose(Phi)
    for _ in range(doublings):
        Phi, C = Phi @ Phi, C + Phi @ C @ _transpose(Phi)
    return Phi, C


def _powers(
    P: Float[np.ndarray, "n n"], Q: Float[np.ndarray, "n n"], k: Float[np.ndarray, " T"]
) -> tuple[Float[np.ndarray, "T n n"], Float[np.ndarray, "T n n"]]:
    """Φ = Pᵏ and C = Σ_{j<k} Pʲ Q Pʲᵀ, by squaring."""
    Phi, C = np.tile(np.eye(len(P)), (len(k), 1, 1)), np.zeros((len(k), *P.shape))
    while np.any(k):
        odd = k % 2 == 1
        Phi[odd], C[odd] = P @ Phi[odd], Q + P @ C[odd] @ P.T
        k = k // 2
        if np.any(k):
            P, Q = P @ P, Q + P @ Q @ P.T
    return Phi, C


def _transpose(matrix: Float[np.ndarray, "*T n n"]) -> Float[np.ndarray, "*T n n"]:
    return np.swapaxes(matrix, -1, -2)
