"""What holds a direction of negative curvature back."""

import numpy as np

from jaxsde.problems import Quadratic
from jaxsde.theory import _laws


def weakest_repulsion(problem: Quadratic) -> float:
    """|λ*|, λ* the negative eigenvalue of H nearest to 0; inf where none is negative."""
    lam = np.linalg.eigvalsh(_laws.hessian_matrix(problem))
    return float(np.min(-lam[lam < 0], initial=np.inf))
