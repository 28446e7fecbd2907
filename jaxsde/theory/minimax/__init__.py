"""Minimax games: SGDA, SEG and SHGD on min over x, max over y of f(x, y) (arXiv 2402.12508).

With z = (x, y), the field F = (∂f/∂x, -∂f/∂y), J its Jacobian and F_c = F + ξ on a batch c,

    SGDA  z⁺ = z - η F_c(z),
    SEG   z⁺ = z - η F_c₁(z - ρ F_c₂(z)),
    SHGD  z⁺ = z - η (J_c₁ᵀ F_c₂ + J_c₂ᵀ F_c₁)/2.

Laws are given for linear games, F(z) = J z: for any J and additive noise (`moments`); pair by pair
for isotropic noise (`pair_...`), also under schedules (`scheduled_half_square`); and for noise in
the coupling of a bilinear game (`multiplicative_...`). A pair is f = a x²/2 + λ x y - a y²/2 with
the curvature a and the coupling λ, and what is plotted of it is u = E(x² + y²)/2. A method is one
of `sgda()`, `seg(rho)` and `shgd()`. Time is t = k η throughout, η the learning rate. Everything is
NumPy in float64 on the host, whatever JAX's precision.
"""

from jaxsde.theory.minimax._bounds import half_square_bound as half_square_bound
from jaxsde.theory.minimax._bounds import half_square_level as half_square_level
from jaxsde.theory.minimax._bounds import hamiltonian_bound as hamiltonian_bound
from jaxsde.theory.minimax._bounds import hamiltonian_level as hamiltonian_level
from jaxsde.theory.minimax._linear import is_stable as is_stable
from jaxsde.theory.minimax._linear import mean_half_square as mean_half_square
from jaxsde.theory.minimax._linear import mean_hamiltonian as mean_hamiltonian
from jaxsde.theory.minimax._linear import moments as moments
from jaxsde.theory.minimax._linear import stationary_covariance as stationary_covariance
from jaxsde.theory.minimax._method import Method as Method
from jaxsde.theory.minimax._method import seg as seg
from jaxsde.theory.minimax._method import sgda as sgda
from jaxsde.theory.minimax._method import shgd as shgd
from jaxsde.theory.minimax._multiplicative import (
    multiplicative_best_rho as multiplicative_best_rho,
)
from jaxsde.theory.minimax._multiplicative import (
    multiplicative_half_square as multiplicative_half_square,
)
from jaxsde.theory.minimax._multiplicative import multiplicative_rate as multiplicative_rate
from jaxsde.theory.minimax._multiplicative import (
    multiplicative_stable_rho as multiplicative_stable_rho,
)
from jaxsde.theory.minimax._pairs import Pairs as Pairs
from jaxsde.theory.minimax._pairs import pair_frequency as pair_frequency
from jaxsde.theory.minimax._pairs import pair_half_square as pair_half_square
from jaxsde.theory.minimax._pairs import pair_is_stable as pair_is_stable
from jaxsde.theory.minimax._pairs import pair_level as pair_level
from jaxsde.theory.minimax._pairs import pair_noise as pair_noise
from jaxsde.theory.minimax._pairs import pair_rate as pair_rate
from jaxsde.theory.minimax._pairs import pairs as pairs
from jaxsde.theory.minimax._power_laws import power_law as power_law
from jaxsde.theory.minimax._power_laws import power_law_converges as power_law_converges
from jaxsde.theory.minimax._power_laws import power_law_half_square as power_law_half_square
from jaxsde.theory.minimax._power_laws import power_law_tail as power_law_tail
from jaxsde.theory.minimax._rho import least_variance_rho as least_variance_rho
from jaxsde.theory.minimax._rho import matching_rho as matching_rho
from jaxsde.theory.minimax._rho import stable_rho as stable_rho
from jaxsde.theory.minimax._schedules import quasi_static_half_square as quasi_static_half_square
from jaxsde.theory.minimax._schedules import scheduled_half_square as scheduled_half_square
