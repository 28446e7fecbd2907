"""N agents on one objective: DSGD, DCSGD and DSignSGD (arXiv 2502.17009).

    x⁺ = x - (η/N) Σᵢ Cᵢ(gᵢ),    i = 1 .. N.

Agent i has noise of covariance Σᵢ, or of scale σᵢ, independent of the others'. Cᵢ is the identity
(DSGD), an unbiased compressor with E|C(g) - g|² ≤ ωᵢ |g|² (DCSGD), or the sign (DSignSGD; with
`majority_vote` the step is η times the sign of their sum). What differs between agents is given as
`(N,)`, what they share as a scalar, N always as `agents`; a bar is the mean over agents. Time is
t = k η throughout, η the learning rate. Everything is NumPy in float64 on the host, whatever JAX's
precision.
"""

from jaxsde.theory.distributed._bounds import gradient_bound as gradient_bound
from jaxsde.theory.distributed._bounds import loss_bound as loss_bound
from jaxsde.theory.distributed._bounds import loss_level as loss_level
from jaxsde.theory.distributed._lattice import lattice_law as lattice_law
from jaxsde.theory.distributed._lattice import lattice_moments as lattice_moments
from jaxsde.theory.distributed._quadratic import is_stable as is_stable
from jaxsde.theory.distributed._quadratic import largest_learning_rate as largest_learning_rate
from jaxsde.theory.distributed._quadratic import moments as moments
from jaxsde.theory.distributed._quadratic import stationary_covariance as stationary_covariance
from jaxsde.theory.distributed._sign_bounds import harmonic_mean as harmonic_mean
from jaxsde.theory.distributed._sign_bounds import sign_gradient_bound as sign_gradient_bound
from jaxsde.theory.distributed._sign_bounds import sign_loss_bound as sign_loss_bound
from jaxsde.theory.distributed._sign_bounds import sign_loss_level as sign_loss_level
from jaxsde.theory.distributed._sign_bounds import sign_phase2_loss_bound as sign_phase2_loss_bound
from jaxsde.theory.distributed._sign_quadratic import sign_moments as sign_moments
from jaxsde.theory.distributed._sign_quadratic import (
    sign_stationary_variance as sign_stationary_variance,
)
from jaxsde.theory.distributed._sign_quadratic import vote_slope as vote_slope
