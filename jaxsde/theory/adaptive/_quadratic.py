"""What the laws on f = Σ λᵢ (xᵢ - x*ᵢ)² / 2 read off their arguments."""

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.problems import Quadratic
from jaxsde.theory import _laws


def coordinates(
    problem: Quadratic, variance: ArrayLike, batch_size: float = 1
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """λ, x* and the variance σ²/B of a batch's gradient noise, coordinate by coordinate."""
    lam, variance = _laws.coordinates(problem, "variance", variance)
    _checks.positive_number("batch_size", batch_size)
    return lam, np.asarray(problem.minimizer, float), variance / batch_size


def check_decays(weight_decay: float, l2_regularization: float) -> None:
    """Refuses a decay that is negative or infinite."""
    _checks.nonnegative("weight_decay", weight_decay)
    _checks.nonnegative("l2_regularization", l2_regularization)
