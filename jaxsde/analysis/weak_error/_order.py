"""The order at which errors fall with the step, with its interval."""

from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats
from jaxtyping import ArrayLike, Float

from jaxsde import _checks

TERMS = 6  # of the series beside its leading one
LEAST = 0.25  # ρ at least, where the first term happens to be small
EXACT = 1e-9  # the relative error that stands for none
POOR = 0.01  # the probability of so poor a fit below which the residuals set the interval


class Order(NamedTuple):
    """The fit e(h) = C hᵖ (1 + a₁ h + a₂ h² + ...).

    Fields:
        value: p.
        lower: the interval's lower end.
        upper: its upper end.
        constant: C.
        correction: a₁.
        poor_fit: whether the points lie further from the model than their errors allow, so that
            the residuals set the interval.
        weights: ∂p/∂eᵢ.
    """

    value: float
    lower: float
    upper: float
    constant: float
    correction: float
    poor_fit: bool
    weights: Float[np.ndarray, " n"]

    def whole(self) -> int | None:
        """The whole number in the interval; None unless there is exactly one."""
        inside = range(int(np.ceil(self.lower)), int(np.floor(self.upper)) + 1)
        return inside[0] if len(inside) == 1 else None


def fit_order(
    steps: ArrayLike,
    errors: ArrayLike,
    standard_errors: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Order:
    """p of e(h) = C hᵖ (1 + a₁ h + a₂ h² + ...), by weighted least squares.

    A straight line in log e against log h takes the error's next orders for a part of p, of size
    a₁ h, and its interval does not cover. Here a₁ is free, and with ρ = max(|a₁|, its error) h at
    the largest h the later terms are unknowns of size aᵢ hⁱ = 0 ± ρⁱ: a series whose terms fall as
    the first one did. (The truncation error so becomes part of the interval, as in effective
    theories: Furnstahl et al. 2015, arXiv 1506.01343.) The interval is p ± z s.e. by the linearised
    covariance; where χ² is above its 99 % point the errors are scaled by √(χ²/ν), ν = points - 3.

    Args:
        steps: h > 0, at least three and all different.
        errors: e, of one sign but for noise.
        standard_errors: of e; None where e is exact.
        confidence: of the interval.

    Raises:
        InputError: too few points, repeated steps, numbers that are not finite.
    """
    h, e = np.asarray(steps, float), np.asarray(errors, float)
    s = EXACT * np.abs(e) if standard_errors is None else np.asarray(standard_errors, float)
    for name, value in (("steps", h), ("the errors' sizes", s)):
        _checks.positive(name, value)
    _checks.finite("errors", e)
    if h.ndim != 1 or not h.shape == e.shape == s.shape or len(np.unique(h)) < max(len(h), 3):
        raise _checks.InputError(
            "an order needs three or more different steps with an error each, got steps "
            f"{h}, errors {e}"
        )
    if not 0 < confidence < 1:
        raise _checks.InputError(f"confidence must lie between 0 and 1, got {confidence!r}")
    if not np.any(e):
        raise _checks.InputError("errors that are all 0 have no order")
    u, powers = h / h.max(), np.arange(2.0, TERMS + 1)
    found = _least_squares(u, e, s, LEAST**powers)
    for _ in range(2):  # until ρ is that of its own fit
        rho = np.clip(abs(found.x[2]), LEAST, 1.0)
        found = _least_squares(u, e, s, rho**powers)
    inverse = np.linalg.pinv(found.jac)
    chi_square, degrees = float(np.sum(found.fun**2)), len(h) - 3
    poor = degrees > 0 and bool(scipy.stats.chi2.sf(chi_square, degrees) < POOR)
    scatter = np.sqrt(chi_square / degrees) if poor else 1.0
    half = scatter * scipy.stats.norm.isf((1 - confidence) / 2) * np.linalg.norm(inverse[1])
    p, sign = float(found.x[1]), _sign(e, s)
    constant, correction = sign * np.exp(found.x[0]) * h.max() ** -p, found.x[2] / h.max()
    weights = inverse[1, : len(h)] / s
    return Order(
        p, float(p - half), float(p + half), float(constant), float(correction), poor, weights
    )


def _least_squares(u, e, s, rho) -> scipy.optimize.OptimizeResult:
    """(log|C|, p, a₁, ...) in units of the largest h, with aᵢ = 0 ± ρⁱ from the second on."""
    sign = _sign(e, s)

    def off(b):
        size = np.exp(b[0] + b[1] * np.log(u))
        series = np.polynomial.polynomial.polyval(u, [1.0, *b[2:]])
        return np.concatenate([(sign * size * series - e) / s, b[3:] / rho])

    floor = 1e-3 * np.abs(e).max()
    start = np.polyfit(np.log(u), np.log(np.maximum(sign * e, floor)), 1)
    return scipy.optimize.least_squares(
        off, [start[1], start[0], 0.0, *np.zeros(len(rho))],
        method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15, x_scale="jac",
    )  # fmt: skip


def _sign(e: np.ndarray, s: np.ndarray) -> float:
    return float(np.sign(np.sum(e / s**2))) or 1.0


def paths_for(
    width: float, h: np.ndarray, e: np.ndarray, deviation: np.ndarray, cost: np.ndarray,
    confidence: float,
) -> Float[np.ndarray, " n"]:  # fmt: skip
    """Paths a step so that the order's interval is `width` wide, at the least cost.

    Var p = Σ (∂p/∂eᵢ)² σᵢ²/nᵢ, beside the truncation's part, at a cost Σ cᵢ nᵢ:
    nᵢ ∝ |∂p/∂eᵢ| σᵢ/√cᵢ. Where truncation leaves no room, half of the variance asked for is
    aimed at.
    """
    reach = 2 * scipy.stats.norm.isf((1 - confidence) / 2)
    n = np.full(len(h), 1e4)
    for _ in range(4):  # the weights depend on the errors that the paths give
        found = fit_order(h, e, deviation / np.sqrt(n), confidence)
        parts = (found.weights * deviation) ** 2
        truncation = ((found.upper - found.lower) / reach) ** 2 - np.sum(parts / n)
        room = max((width / reach) ** 2 - truncation, (width / reach) ** 2 / 2)
        share = np.sqrt(np.maximum(parts, 1e-300) / cost)
        n = np.maximum(share * np.sum(parts / share) / room, 1)
    return n
