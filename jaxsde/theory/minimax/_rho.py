"""The extra step ρ of SEG on a pair: where it is stable, least noisy, or as fast as SHGD."""

import numpy as np

from jaxsde import _checks
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, sde


def stable_rho(
    learning_rate: float, law: Law = sde, *, curvature: float, coupling: float
) -> tuple[float, float]:
    """The open interval of ρ for which SEG on a pair has a stationary law, either sampling.

    With N = a² + λ², D = λ² - a² and the step h (η for `discrete`, dt for `em(dt)`, 0 for `sde`),

        h N² ρ² - 2 (D + h a N) ρ + h N - 2a < 0.

    The SDE has the half-line ρ D > -a: every ρ > 0 for a bilinear pair. The algorithm has an
    interval, there 2 ρ > η (1 + ρ² λ²): from about η/2 up to about 2/(η λ²).

    Source: the published condition is the SDE's (arXiv 2402.12508); the chains' derived here.

    Args:
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        curvature: a.
        coupling: λ.

    Returns:
        Its ends, infinite ones among them.

    Raises:
        InputError: no ρ is stable, or a constant out of its range.
    """
    h, (a, _, N, D) = _laws.step_size(law, learning_rate), _pair(curvature, coupling)
    return negative_between(h * N**2, D + h * a * N, h * N - 2 * a)


def least_variance_rho(
    learning_rate: float,
    law: Law = sde,
    *,
    curvature: float,
    coupling: float,
    independent: bool = False,
) -> float:
    """The ρ with the lowest `pair_level` under SEG, the paper's ρ^V for one batch.

    One batch: ρ = 1/(a + |λ|), the same for every law; under the SDE the rate is then |λ| and the
    level η σ² |λ|/(a + |λ|)². Independent batches: with N = a² + λ² and D = λ² - a² + h a N,

        ρ = (-a N + √(a² N² + N D²)) / (N D),

    which is 1/|λ| too for a = 0, but not otherwise: -0.1155 instead of 0.25 for a = 3, λ = 1 and
    0.8911 instead of 1 for a = -1, λ = 2 (`sde`).

    Source: arXiv 2402.12508 for one batch. Corrected here for independent batches, to which the
    published ρ^V does not apply, and extended to the chains.

    Args:
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        curvature: a.
        coupling: λ, not 0.
        independent: two independent batches a step instead of one.

    Raises:
        InputError: no ρ is stable at this step, no ρ is best, or a constant out of its range.
    """
    h, (a, lam, N, D) = _laws.step_size(law, learning_rate), _pair(curvature, coupling)
    stable_rho(learning_rate, law, curvature=a, coupling=lam)
    if lam == 0:
        raise _checks.InputError("no rho is best for a pair without coupling")
    if not independent:
        return 1 / (a + abs(lam))
    D = D + h * a * N
    root = np.sqrt(a**2 * N**2 + N * D**2)
    return float(D / (a * N + root) if a > 0 else (root - a * N) / (N * D))


def matching_rho(
    learning_rate: float, law: Law = sde, *, curvature: float, coupling: float
) -> float:
    """The ρ at which SEG on a pair decays as fast as SHGD, the paper's ρ^H.

    For the SDE (a² + λ² - a)/(λ² - a²), where the rates are equal. For the chains the factors
    |1 - h B|² are: with N = a² + λ² and D = λ² - a² + h a N, the root of

        h N² ρ² - 2 D ρ + 2N - 2a + h N - h N² = 0

    that stays as h → 0. There is none where SEG's fastest decay is slower than SHGD's.

    Source: arXiv 2402.12508 (`sde`); the chains derived here.

    Args:
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        curvature: a.
        coupling: λ.

    Raises:
        InputError: there is none, under the SDE for λ² = a², or a constant out of its range.
    """
    h, (a, _, N, D) = _laws.step_size(law, learning_rate), _pair(curvature, coupling)
    D = D + h * a * N
    constant = 2 * N - 2 * a + h * N - h * N**2
    square = D**2 - h * N**2 * constant
    if D == 0 or square < 0:
        raise _checks.InputError(
            f"no rho makes SEG as fast as SHGD for curvature {a:g} and coupling {coupling:g}"
        )
    return float(constant / (D + np.copysign(np.sqrt(square), D)))


def negative_between(square: float, half: float, constant: float) -> tuple[float, float]:
    """Where square ρ² - 2 half ρ + constant < 0, for square ≥ 0: the roots, in order.

    Raises:
        InputError: nowhere.
    """
    if square == half == 0 and constant < 0:
        return -np.inf, np.inf
    discriminant = half**2 - square * constant
    if discriminant <= 0:
        raise _checks.InputError("no rho is stable at this learning rate and law")
    far = half + np.copysign(np.sqrt(discriminant), half)
    roots = constant / far, far / square if square > 0 else np.copysign(np.inf, far)
    return float(min(roots)), float(max(roots))


def _pair(curvature: float, coupling: float) -> tuple[float, float, float, float]:
    """a, λ, N = a² + λ² and D = λ² - a²."""
    for name, value in (("curvature", curvature), ("coupling", coupling)):
        _checks.finite(name, value)
        if np.ndim(value) != 0:
            raise _checks.InputError(f"{name} must be one number, got shape {np.shape(value)}")
    a, lam = float(curvature), float(coupling)
    return a, lam, a**2 + lam**2, lam**2 - a**2
