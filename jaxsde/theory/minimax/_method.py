"""The methods on a linear game F(z) = J z with additive noise ξ of covariance Σ.

Each is z⁺ = z - η (B z + ζ), Cov ζ = S, on a matrix J or on the eigenvalue j = a + iλ of a pair.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Complex, Float, Inexact

from jaxsde import _checks


@dataclass(frozen=True)
class Method:
    """Which method a law is about: take `sgda()`, `seg(rho)` or `shgd()`.

    Attributes:
        rho: the extra step ρ of SEG; 0 is SGDA, None is SHGD.
        independent: whether the two evaluations of F in a step see two batches, or one.
    """

    rho: float | None
    independent: bool


def sgda() -> Method:
    """Stochastic gradient descent ascent: B = J, S = Σ. The same as `seg(0)`."""
    return Method(0.0, False)


def seg(rho: float, independent: bool = False) -> Method:
    """Stochastic extragradient: B = J - ρ J², S = (I - ρ J) Σ (I - ρ J)ᵀ.

    With two independent batches S = Σ + ρ² J Σ Jᵀ instead: there is no term of first order in ρ.

    Args:
        rho: ρ, of any sign.
        independent: two batches, c₁ and c₂ independent, instead of one, c₁ = c₂.

    Raises:
        InputError: ρ is not one finite number.
    """
    _checks.finite_number("rho", rho)
    return Method(float(rho), bool(independent))


def shgd(batches: int = 1) -> Method:
    """Stochastic Hamiltonian gradient descent: B = Jᵀ J, S = Jᵀ Σ J / batches.

    Args:
        batches: 1 for c₁ = c₂, as the published experiments with additive noise have it; 2 for c₁
            and c₂ independent, which is unbiased under any noise, Σ the covariance of each.

    Raises:
        InputError: another number of batches.
    """
    if _checks.at_least("batches", batches, 1) > 2:
        raise _checks.InputError(f"batches must be 1 or 2, got {batches}")
    return Method(None, batches == 2)


def check(method: Any) -> None:
    """Refuses what is no Method."""
    if not isinstance(method, Method):
        raise _checks.InputError(
            f"method must be minimax.sgda(), minimax.seg(rho) or minimax.shgd(), got {method!r}"
        )


def drift(
    method: Method, J: Inexact[np.ndarray, "*P n n"], factor: ArrayLike = 1.0
) -> Inexact[np.ndarray, "*P n n"]:
    """B = J - ρ J², or Jᴴ J; `factor` multiplies ρ."""
    if method.rho is None:
        return _adjoint(J) @ J
    return J - _rho(method, factor) * (J @ J)


def noise(
    method: Method,
    J: Inexact[np.ndarray, "*P n n"],
    sigma: Float[np.ndarray, "n n"],
    factor: ArrayLike = 1.0,
) -> Inexact[np.ndarray, "*P n n"]:
    """S = (I - ρ J) Σ (I - ρ J)ᴴ, Σ + ρ² J Σ Jᴴ, or Jᴴ Σ J / batches."""
    if method.rho is None:
        return _adjoint(J) @ sigma @ J / (2 if method.independent else 1)
    rho = _rho(method, factor)
    if method.independent:
        return sigma + rho**2 * (J @ sigma @ _adjoint(J))
    G = np.eye(len(sigma)) - rho * J
    return G @ sigma @ _adjoint(G)


def pair(
    method: Method, curvature: ArrayLike, coupling: ArrayLike, factor: ArrayLike = 1.0
) -> tuple[Complex[np.ndarray, "*P"], Float[np.ndarray, "*P"]]:
    """B and S / σ² of pairs, at j = a + iλ as a matrix of one entry."""
    check(method)
    _checks.finite("curvature", curvature)
    _checks.finite("coupling", coupling)
    j = np.asarray(curvature, float) + 1j * np.asarray(coupling, float)
    J = j[..., None, None]
    B, S = drift(method, J, factor), noise(method, J, np.eye(1), factor)
    return B[..., 0, 0], np.broadcast_to(np.real(S[..., 0, 0]), B.shape[:-2])


def _rho(method: Method, factor: ArrayLike) -> Float[np.ndarray, "*P 1 1"]:
    return method.rho * np.asarray(factor, float)[..., None, None]


def _adjoint(matrix: Inexact[np.ndarray, "*P n m"]) -> Inexact[np.ndarray, "*P m n"]:
    return np.conj(np.swapaxes(matrix, -1, -2))
