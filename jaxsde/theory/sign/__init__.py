"""SignSGD, x⁺ = x - η sign(g): phases and bounds, moments, stationary laws, exact lattice laws.

Time is t = k η throughout, η the learning rate. Noise is independent across coordinates, Z =
scale · t_ν with ν the degrees of freedom; ν = inf, the default, is Gaussian. Everything is NumPy
in float64 on the host, whatever JAX's precision.
"""

from jaxsde.theory.sign._bounds import loss_level as loss_level
from jaxsde.theory.sign._bounds import phase1_end as phase1_end
from jaxsde.theory.sign._bounds import phase1_loss_bound as phase1_loss_bound
from jaxsde.theory.sign._bounds import phase2_loss_bound as phase2_loss_bound
from jaxsde.theory.sign._bounds import phase3_leading_loss_bound as phase3_leading_loss_bound
from jaxsde.theory.sign._bounds import phase3_loss_bound as phase3_loss_bound
from jaxsde.theory.sign._lattice import lattice_law as lattice_law
from jaxsde.theory.sign._lattice import lattice_moments as lattice_moments
from jaxsde.theory.sign._noise import batch_scale as batch_scale
from jaxsde.theory.sign._noise import centred_cdf as centred_cdf
from jaxsde.theory.sign._noise import curvature as curvature
from jaxsde.theory.sign._noise import slope as slope
from jaxsde.theory.sign._phases import CHORD_INTERCEPT as CHORD_INTERCEPT
from jaxsde.theory.sign._phases import CHORD_SLOPE as CHORD_SLOPE
from jaxsde.theory.sign._phases import TANGENT_INTERCEPT as TANGENT_INTERCEPT
from jaxsde.theory.sign._phases import TANGENT_POINT as TANGENT_POINT
from jaxsde.theory.sign._phases import phase as phase
from jaxsde.theory.sign._phases import phase2_concentration as phase2_concentration
from jaxsde.theory.sign._phases import phase2_drift_bounds as phase2_drift_bounds
from jaxsde.theory.sign._phases import signal_to_noise as signal_to_noise
from jaxsde.theory.sign._quadratic import moments as moments
from jaxsde.theory.sign._quadratic import noiseless_variance as noiseless_variance
from jaxsde.theory.sign._quadratic import stationary_excess_loss as stationary_excess_loss
from jaxsde.theory.sign._quadratic import stationary_variance as stationary_variance
