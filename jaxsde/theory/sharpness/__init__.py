"""Sharpness-aware minimisation: SAM, its unnormalised variant USAM, its deterministic one DNSAM.

    x⁺ = x - η g_c(x + ρ p),    p = g_c (USAM), g_c/|g_c| (SAM), g_c/|∇f| (DNSAM),

g_c = ∇f + Z the gradient of one batch, the same one in both places, of noise Z (arXiv 2301.08203).
Σ = Cov Z, or σ² I, belongs to the whole batch: its size is already inside. The laws are those of
quadratics, f = (x - x*)ᵀ H (x - x*) / 2, with Z independent of x. Time is t = k η throughout, η the
learning rate. Everything is NumPy in float64 on the host, whatever JAX's precision.
"""

from jaxsde.theory.sharpness._dnsam import dnsam_has_second_moment as dnsam_has_second_moment
from jaxsde.theory.sharpness._dnsam import dnsam_lyapunov_rate as dnsam_lyapunov_rate
from jaxsde.theory.sharpness._dnsam import dnsam_reaches_origin as dnsam_reaches_origin
from jaxsde.theory.sharpness._dnsam import dnsam_working_scale as dnsam_working_scale
from jaxsde.theory.sharpness._gaussian import Axes as Axes
from jaxsde.theory.sharpness._gaussian import direction_covariance as direction_covariance
from jaxsde.theory.sharpness._gaussian import direction_jacobian as direction_jacobian
from jaxsde.theory.sharpness._gaussian import direction_slope as direction_slope
from jaxsde.theory.sharpness._gaussian import effective_rho as effective_rho
from jaxsde.theory.sharpness._gaussian import mean_direction as mean_direction
from jaxsde.theory.sharpness._gaussian import mean_norm as mean_norm
from jaxsde.theory.sharpness._gaussian import sam_covariance as sam_covariance
from jaxsde.theory.sharpness._gaussian import sam_drift as sam_drift
from jaxsde.theory.sharpness._regularizers import dnsam_regularizer as dnsam_regularizer
from jaxsde.theory.sharpness._regularizers import (
    sam_gaussian_regularizer as sam_gaussian_regularizer,
)
from jaxsde.theory.sharpness._regularizers import sam_regularizer as sam_regularizer
from jaxsde.theory.sharpness._regularizers import usam_regularizer as usam_regularizer
from jaxsde.theory.sharpness._sam import sam_capture_radius as sam_capture_radius
from jaxsde.theory.sharpness._sam import sam_capture_rho as sam_capture_rho
from jaxsde.theory.sharpness._sam import sam_cycle_amplitude as sam_cycle_amplitude
from jaxsde.theory.sharpness._sam import sam_hitting_time as sam_hitting_time
from jaxsde.theory.sharpness._sam import sam_stationary_covariance as sam_stationary_covariance
from jaxsde.theory.sharpness._usam import usam_capture_rho as usam_capture_rho
from jaxsde.theory.sharpness._usam import usam_escape_time as usam_escape_time
from jaxsde.theory.sharpness._usam import usam_is_stable as usam_is_stable
from jaxsde.theory.sharpness._usam import usam_moments as usam_moments
from jaxsde.theory.sharpness._usam import (
    usam_published_stationary_covariance as usam_published_stationary_covariance,
)
from jaxsde.theory.sharpness._usam import (
    usam_stationary_covariance as usam_stationary_covariance,
)
