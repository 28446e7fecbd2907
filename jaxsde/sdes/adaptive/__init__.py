"""The SDEs of RMSprop(W) and Adam(W), in the ballistic and the batch-equivalent regime.

| | ballistic | batch-equivalent |
|---|---|---|
| classes | `RMSprop`, `Adam` | `BatchEquivalentRMSprop`, `BatchEquivalentAdam` |
| clock | t = k η | t = k η² |
| held fixed as η → 0 | ρ = (1 - β)/η, ε, Σ | c = (1 - β)/η², ε₀ = η ε, σ₀ = η σ |
| second moment follows | (∇f)² + diag Σ | diag Σ |
| source | Compagnoni et al. 2025 | Malladi et al. 2022 |

The second moment divides, so a start at V = 0 is singular: with gradients of variance σ² it grows
as V ≈ ρ σ² t, and Var ∫ V^{-1/2} dW = ∫ dt/(ρ σ² t) diverges at 0, logarithmically. Optimizers
start there all the same. Three ways out, all here: start where V's drift vanishes (the default),
give both sides one `initial_second_moment` (with an ε of some size it may be 0), or let the
optimizer run its first k₀ steps and hand its state over, `Paired(..., warm_up=k0)`.

In float32 an average stops short of its target q by 3e-8 to 6e-8 q/(ρ dt), where its increments
round to nothing: up to 0.6 % at ρ dt = 10⁻⁵. Slower averages need float64.
"""

from jaxsde.sdes.adaptive._adam import Adam as Adam
from jaxsde.sdes.adaptive._adam import BatchEquivalentAdam as BatchEquivalentAdam
from jaxsde.sdes.adaptive._rmsprop import BatchEquivalentRMSprop as BatchEquivalentRMSprop
from jaxsde.sdes.adaptive._rmsprop import RMSprop as RMSprop
from jaxsde.sdes.adaptive._states import AdamState as AdamState
from jaxsde.sdes.adaptive._states import BatchEquivalentAdamState as BatchEquivalentAdamState
from jaxsde.sdes.adaptive._states import BatchEquivalentRMSpropState as BatchEquivalentRMSpropState
from jaxsde.sdes.adaptive._states import Noises as Noises
from jaxsde.sdes.adaptive._states import RMSpropState as RMSpropState
