"""The three phases of SignSGD under Gaussian noise (Lemma 3.4 of arXiv 2411.15958).

The signal-to-noise ratio is y = ∇f / (√2 σ), coordinate by coordinate, and the SDE's drift is
-Erf(y). On 1 ≤ y ≤ 3/2 the concave Erf lies between its chord m y + q⁻ and the parallel tangent
m y + q⁺, which touches it at y*; the published lemma only says that such m, q⁻, q⁺ exist.
"""

import numpy as np
from jaxtyping import ArrayLike, Float, Int
from scipy.special import erf

from jaxsde import _checks
from jaxsde.theory import _laws

_m = (erf(3 / 2) - erf(1)) / (3 / 2 - 1)
_y = np.sqrt(np.log(2 / (np.sqrt(np.pi) * _m)))

CHORD_SLOPE = float(_m)
"""m = (Erf(3/2) - Erf(1)) / (1/2)."""
CHORD_INTERCEPT = float(erf(1) - _m)
"""q⁻ = Erf(1) - m."""
TANGENT_POINT = float(_y)
"""y* = √(ln(2 / (√π m))), where Erf' = m."""
TANGENT_INTERCEPT = float(erf(_y) - _m * _y)
"""q⁺ = Erf(y*) - m y*."""


def signal_to_noise(gradient: ArrayLike, scale: ArrayLike) -> Float[np.ndarray, "..."]:
    """The ratio y = ∇f / (√2 σ), with the √2 that the thresholds of `phase` are made for.

    Raises:
        InputError: a scale σ that is not positive.
    """
    _checks.positive("scale", scale)
    return np.asarray(gradient, float) / (np.sqrt(2) * np.asarray(scale, float))


def phase(y: ArrayLike) -> Int[np.ndarray, "..."]:
    """1 where |y| > 3/2, 2 where 1 < |y| ≤ 3/2, 3 where |y| ≤ 1, coordinate by coordinate.

    1: dX = -sign(∇f) dt. 2: drift between two lines (`phase2_drift_bounds`). 3: the linearised
    SDE, drift -(2/√π) y, diffusion η (1 - (4/π) y²), which is negative for |y| > √π/2 = 0.886,
    inside the phase, and must be clipped at 0 there.
    """
    magnitude = np.abs(np.asarray(y, float))
    return np.where(magnitude > 3 / 2, 1, np.where(magnitude > 1, 2, 3))


def phase2_drift_bounds(
    y: ArrayLike,
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Lower and upper bound on the drift -Erf(y) of phase 2, coordinate by coordinate.

    -m y - q⁺ ≤ drift ≤ -m y - q⁻ for y > 0; for y < 0, -m y + q⁻ ≤ drift ≤ -m y + q⁺.

    Raises:
        InputError: |y| outside [1, 3/2], where the bounds do not hold.
    """
    y = _in_phase2(y)
    m, q_minus, q_plus = CHORD_SLOPE, CHORD_INTERCEPT, TANGENT_INTERCEPT
    lower = np.where(y > 0, -m * y - q_plus, -m * y + q_minus)
    upper = np.where(y > 0, -m * y - q_minus, -m * y + q_plus)
    return lower, upper


def phase2_concentration(
    threshold: float,
    y: ArrayLike,
    time: ArrayLike,
    *,
    learning_rate: float,
    published: bool = False,
) -> Float[np.ndarray, "*T"]:
    """P(|X_t - E X_t|² > a) ≤ (η t / a) Σᵢ (1 - (m |yᵢ| + q⁻)²), while phase 2 lasts.

    By d tr Cov X / dt ≤ η Σᵢ (1 - Erf(yᵢ)²) for separable convex f and Markov's inequality. The
    published lemma has no t: X moves at unit speed, so that η / a is 1 / time and the bound
    without t is not a number. Corrected here by that factor.

    Args:
        threshold: a.
        y: the signal-to-noise ratio `(d,)`, each coordinate the smallest on the way.
        time: t since phase 2 began, any shape.
        learning_rate: η.
        published: leave out the factor t.

    Raises:
        InputError: |y| outside [1, 3/2], or a constant out of its range.
    """
    _checks.positive("threshold", threshold)
    _checks.positive("learning_rate", learning_rate)
    m, q_minus = CHORD_SLOPE, CHORD_INTERCEPT
    variance_rate = learning_rate * np.sum(1 - (m * np.abs(_in_phase2(y)) + q_minus) ** 2)
    t = _laws.times(time)
    return variance_rate * (np.ones_like(t) if published else t) / threshold


def _in_phase2(y: ArrayLike) -> Float[np.ndarray, "..."]:
    y = np.asarray(y, float)
    if not np.all((np.abs(y) >= 1) & (np.abs(y) <= 3 / 2)):
        raise _checks.InputError("|y| must lie in [1, 3/2], which is phase 2")
    return y
