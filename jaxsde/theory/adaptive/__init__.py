"""RMSprop(W) and Adam(W): loss levels, stationary laws on quadratics, moments along the way.

    v⁺ = β₂ v + (1 - β₂) g²,   m⁺ = β₁ m + (1 - β₁) g,   x⁺ = x - η m̂ / (√v̂ + ε) - η θ x,

θ the decoupled weight decay, β₁ = 0 for RMSprop; θ₂ is an L2 regularisation, θ₂|x|²/2 added to the
loss. Time is t = k η, η the learning rate, except for the moments of the batch-equivalent regime,
where t = k η². Everything is NumPy in float64 on the host, whatever JAX's precision.
"""

from jaxsde.theory.adaptive._averages import AverageMoments as AverageMoments
from jaxsde.theory.adaptive._averages import constant_gradient_moments as constant_gradient_moments
from jaxsde.theory.adaptive._batch_equivalent import AdamMoments as AdamMoments
from jaxsde.theory.adaptive._batch_equivalent import (
    batch_equivalent_adam_moments as batch_equivalent_adam_moments,
)
from jaxsde.theory.adaptive._batch_equivalent import (
    batch_equivalent_rmsprop_moments as batch_equivalent_rmsprop_moments,
)
from jaxsde.theory.adaptive._bounds import loss_level as loss_level
from jaxsde.theory.adaptive._frozen import FrozenLaw as FrozenLaw
from jaxsde.theory.adaptive._frozen import frozen_second_moment_law as frozen_second_moment_law
from jaxsde.theory.adaptive._stationary import stationary_loss as stationary_loss
from jaxsde.theory.adaptive._stationary import stationary_mean as stationary_mean
from jaxsde.theory.adaptive._stationary import stationary_variance as stationary_variance
