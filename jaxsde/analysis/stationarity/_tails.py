"""How heavy a law's tail is, and so which of its moments exist."""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from jaxsde import _checks

SURE = 3.0  # standard errors; a moment of a law without it is called existing once in some 700
SHORTEST = -0.5  # ξ that stands for all shorter tails too


class Tail(NamedTuple):
    """The tail P(|v - median| > x) ~ x^(-α) with the tail index α = 1/ξ.

    E|v|^p exists for p < α and not for p > α. ξ <= 0 stands for tails lighter than any power,
    and then α = ∞.

    Fields:
        shape: ξ.
        lower: of ξ, `SURE` standard errors below.
        upper: of ξ, `SURE` standard errors above.
        exceedances: k, the values that it is known from.
    """

    shape: float
    lower: float
    upper: float
    exceedances: int

    @property
    def alpha(self) -> tuple[float, float, float]:
        """α and its ends, α = 1/ξ; infinite for ξ <= 0."""
        ends = (self.shape, self.upper, self.lower)
        value, low, high = (1 / xi if xi > 0 else np.inf for xi in ends)
        return value, low, high

    def shows(self, order: float) -> bool:
        """Whether a moment of this order is shown to exist: all of α's interval is above it."""
        return bool(self.upper * order < 1)

    def excludes(self, order: float) -> bool:
        """Whether it is shown not to exist: all of α's interval is below the order."""
        return bool(self.lower * order > 1)

    def __str__(self) -> str:
        value, low, high = self.alpha
        if low == np.inf:
            return "tails lighter than any power"
        if high == np.inf:
            return f"tail index above {low:.1f}"
        return f"tail index {value:.2f} [{low:.2f}, {high:.2f}]"


def tail_index(values: Float[np.ndarray, " n"]) -> Tail:
    """The tail index of independent values, by the peaks over a threshold (Pickands 1975).

    The k largest |v - median| exceed the next one, u, by y with nearly the generalised Pareto law
    P(y > x) = (1 + ξ x/σ)^(-1/ξ), fitted by maximum likelihood. The standard error is (1 + ξ)/√k
    (Smith 1987), and the interval {ξ : |estimate - ξ| <= SURE (1 + ξ)/√k}. Unlike Hill's, the
    estimate does not take exponential tails for powers. k = n/10 (DuMouchel 1983), at least 200
    but not more than n/5: a heavy tail that begins farther out than that is not seen.

    Args:
        values: independent; those that are not finite are left out.

    Raises:
        InputError: values that are no `(n,)`.
    """
    if np.ndim(values) != 1:
        raise _checks.InputError(f"values must be an array (n,), got shape {np.shape(values)}")
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    n = values.size
    k = int(max(n / 10, min(n / 5, 200)))
    if k < 1:
        return Tail(np.nan, -np.inf, np.inf, 0)
    with np.errstate(over="ignore"):
        deviation = np.sort(np.abs(values - np.median(values)))
    excess = deviation[-k:] - deviation[-k - 1]
    excess = excess[(excess > 0) & (excess < np.inf)]
    if excess.size:  # else atoms, which are no tail
        k = excess.size
    shape, c = _shape(excess), SURE / float(np.sqrt(k))
    return Tail(shape, (shape - c) / (1 + c), (shape + c) / (1 - c) if c < 1 else np.inf, k)


def _shape(excess: Float[np.ndarray, " k"]) -> float:
    """ξ of the generalised Pareto law by maximum likelihood, which is regular for ξ > -1/2."""
    if excess.size == 0 or np.ptp(excess) == 0:
        return SHORTEST
    unit = excess / np.median(excess)
    guess = float(np.mean(np.log1p(unit)))
    with np.errstate(all="ignore"):
        shape = float(scipy.stats.genpareto.fit(unit, guess, floc=0, scale=1.0)[0])
    return max(shape, SHORTEST)
