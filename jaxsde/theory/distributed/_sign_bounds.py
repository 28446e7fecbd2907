"""Bounds for DSignSGD, x⁺ = x - (η/N) Σᵢ sign(gᵢ) (arXiv 2502.17009).

f is μ-strongly convex and tr ∇²f ≤ L_τ. Phase 1, in which every sign is the gradient's, knows no
noise and no N: its bound is `sign.phase1_loss_bound`.
"""

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.theory import _laws
from jaxsde.theory.distributed._agents import Schedule, deviations, schedule_integrals
from jaxsde.theory.sign import CHORD_INTERCEPT, CHORD_SLOPE, batch_scale, slope


def harmonic_mean(sigma: ArrayLike, power: float = 1) -> Float[np.ndarray, "..."]:
    """σ_{H,p} = (mean 1/σᵢᵖ)^(-1/p) over the first axis, the agents: the quietest ones dominate.

    Args:
        sigma: σᵢ, `(N, ...)`.
        power: p, 1 for the drift of DSignSGD and 2 for its diffusion.

    Raises:
        InputError: a σᵢ or p that is not positive, or no axis of agents.
    """
    _checks.positive("sigma", sigma)
    _checks.positive_number("power", power)
    sigma = np.asarray(sigma, float)
    if sigma.ndim == 0 or len(sigma) == 0:
        raise _checks.InputError(f"sigma must be (agents, ...), got shape {sigma.shape}")
    return np.mean(sigma**-power, axis=0) ** (-1 / power)


def sign_loss_bound(
    initial_loss: float,
    time: ArrayLike,
    *,
    learning_rate: float,
    mu: float,
    hessian_trace: float,
    sigma: ArrayLike,
    agents: int,
    degrees_of_freedom: float = np.inf,
) -> Float[np.ndarray, "*T"]:
    """E S_t ≤ S₀ e^(-2μΔt) + (η/2N) L_τ / (2μΔ) (1 - e^(-2μΔt)), for the linearised SDE.

    Δ = l/σ_{H,1} + η μ l² / (2 N σ_{H,2}²), l = `sign.slope`, σ_{H,p} the `harmonic_mean`: phase 3.
    An equality for f isotropic quadratic. The speed knows no N, and the level is linear in σ and
    1/N. The second term of Δ belongs to the linearised diffusion. The algorithm has (η μ l²/2)
    (1/(N σ_{H,2}²) - 1/σ_{H,1}²) ≤ 0 in its place, so that its level lies above: see
    `sign_stationary_variance`.

    Source: arXiv 2502.17009; at N = 1 it is `sign.phase3_loss_bound`.

    Args:
        initial_loss: S₀.
        time: t.
        learning_rate: η.
        mu: μ.
        hessian_trace: L_τ.
        sigma: σᵢ, the largest scale of the agent's noise, a scalar or `(N,)`.
        agents: N.
        degrees_of_freedom: ν of the noise, any ν > 0.

    Raises:
        InputError: a constant that is not positive, lengths that are not N, or a negative time.
    """
    source = _source(initial_loss, learning_rate, mu, hessian_trace, agents)
    delta = _delta(slope(degrees_of_freedom), learning_rate, mu, deviations(sigma, agents))
    return _laws.relaxed(initial_loss, source, 2 * mu * delta, time)


def sign_phase2_loss_bound(
    initial_loss: float,
    time: ArrayLike,
    *,
    learning_rate: float,
    mu: float,
    hessian_trace: float,
    sigma: ArrayLike,
    agents: int,
    dimension: int,
) -> Float[np.ndarray, "*T"]:
    """E S_t ≤ S₀ e^(-2μΔt) + (η/2N) (L_τ - μ d q⁻²) / (2μΔ) (1 - e^(-2μΔt)), in phase 2.

    Δ = m / (√2 σ_{H,1}) + η μ m² / (4 N σ_{H,2}²), with m and q⁻ the chord of `sign.phase`, while
    the ratio |∂ⱼf| / (√2 σᵢ) of every agent and coordinate is in [1, 3/2]. Gaussian noise.

    Source: arXiv 2502.17009; at N = 1 it is `sign.phase2_loss_bound`.

    Args:
        initial_loss: S₀.
        time: t.
        learning_rate: η.
        mu: μ.
        hessian_trace: L_τ.
        sigma: σᵢ, the largest standard deviation of the agent's noise, a scalar or `(N,)`.
        agents: N.
        dimension: d.

    Raises:
        InputError: a constant that is not positive, L_τ < μ d, lengths that are not N, or a
            negative time.
    """
    d = _checks.at_least("dimension", dimension, 1)
    _source(initial_loss, learning_rate, mu, hessian_trace, agents)
    if hessian_trace < mu * d:
        raise _checks.InputError("hessian_trace must be at least mu * dimension")
    source = learning_rate / (2 * agents) * (hessian_trace - mu * d * CHORD_INTERCEPT**2)
    delta = _delta(CHORD_SLOPE / np.sqrt(2), learning_rate, mu, deviations(sigma, agents))
    return _laws.relaxed(initial_loss, source, 2 * mu * delta, time)


def sign_loss_level(
    *,
    learning_rate: float,
    mu: float,
    hessian_trace: float,
    sigma: ArrayLike,
    agents: int,
    batch_size: int = 1,
    degrees_of_freedom: float = np.inf,
) -> float:
    """Where `sign_loss_bound` settles: η L_τ σ_{H,1} / (4 μ N l √B), to leading order in η.

    Linear in σ where DCSGD's `loss_level` is quadratic, and finite for every ν > 0. At N = 1 it is
    `sign.loss_level`.

    Source: arXiv 2502.17009.

    Args:
        learning_rate: η.
        mu: μ.
        hessian_trace: L_τ.
        sigma: σᵢ, the largest scale of one sample's noise, a scalar or `(N,)`.
        agents: N.
        batch_size: B of each agent; 1 unless the noise is Gaussian.
        degrees_of_freedom: ν of the noise.

    Raises:
        InputError: a constant that is not positive, lengths that are not N, or B > 1 with
            Student-t noise.
    """
    _laws.check_positive(learning_rate=learning_rate, mu=mu, hessian_trace=hessian_trace)
    scales = batch_scale(deviations(sigma, agents), batch_size, degrees_of_freedom)
    pull = slope(degrees_of_freedom) / harmonic_mean(scales)
    return float(learning_rate * hessian_trace / (4 * mu * agents * pull))


def sign_gradient_bound(
    initial_loss: float,
    time: ArrayLike,
    *,
    learning_rate: float,
    hessian_trace: float,
    sigma: ArrayLike,
    agents: int,
    degrees_of_freedom: float = np.inf,
    schedule: Schedule | None = None,
) -> Float[np.ndarray, "*T"]:
    """E |∇f(X_τ)|² ≤ (σ_{H,1}/l) (S₀ + (η L_τ / (2N)) φ₂) / φ₁, for the linearised SDE.

    f need not be convex. φ₁ = ∫₀ᵗ ψ ds, φ₂ = ∫₀ᵗ ψ² ds, ψ = ψ(s/η); τ has the density ψ/φ₁ on
    [0, t]. From dE S ≤ -(l/σ_{H,1}) ψ E|∇f|² dt + (η L_τ / (2N)) ψ² dt. With ψ(k) = 1/√(k + 1) it
    goes to 0, for every ν. The algorithm is slower than the linearised SDE where |∇f| is not small
    against σ.

    Source: arXiv 2502.17009, smooth non-convex case.

    Args:
        initial_loss: S₀ = f(x₀) - inf f.
        time: t > 0, any shape.
        learning_rate: η.
        hessian_trace: L_τ ≥ the sum of ∇²f(x)'s positive diagonal entries everywhere.
        sigma: σᵢ, the largest scale of the agent's noise, a scalar or `(N,)`.
        agents: N.
        degrees_of_freedom: ν of the noise, any ν > 0.
        schedule: ψ > 0, a function of the step k as the optimizers' and SDEs' is; 1 by default.

    Raises:
        InputError: a constant or ψ that is not positive, or lengths that are not N.
    """
    source = _source(initial_loss, learning_rate, 1.0, hessian_trace, agents)
    pull = slope(degrees_of_freedom) / harmonic_mean(deviations(sigma, agents))
    phi_1, phi_2 = schedule_integrals(schedule, time, learning_rate)
    return (initial_loss + source * phi_2) / (pull * phi_1)


def _delta(l, learning_rate, mu, sigma) -> float:  # noqa: E741
    """Δ = l/σ_{H,1} + η μ l² / (2 N σ_{H,2}²)."""
    artefact = learning_rate * mu * l**2 / (2 * len(sigma) * harmonic_mean(sigma, 2) ** 2)
    return float(l / harmonic_mean(sigma) + artefact)


def _source(initial_loss, learning_rate, mu, hessian_trace, agents) -> float:
    """η L_τ / (2N), after the checks."""
    _laws.check_positive(
        initial_loss=initial_loss, learning_rate=learning_rate, mu=mu, hessian_trace=hessian_trace
    )
    return learning_rate * hessian_trace / (2 * _checks.at_least("agents", agents, 1))
