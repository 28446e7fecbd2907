"""Bounds on the loss and the gradient under the SDE of DSGD and DCSGD (arXiv 2502.17009).

dX = -∇f dt + √(η/N) Σ̃^(1/2) dW, Σ̃ the mean over agents of the compressed gradients' covariance,
tr Σ̃ᵢ ≤ (1 + ωᵢ) tr Σᵢ + ωᵢ |∇f|². f is L-smooth, and Σᵢ ≤ σᵢ² I.
"""

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.theory import _laws
from jaxsde.theory.distributed._agents import (
    Schedule,
    compressions,
    deviations,
    schedule_integrals,
)


def loss_bound(
    initial_loss: float,
    time: ArrayLike,
    *,
    learning_rate: float,
    mu: float,
    smoothness: float,
    sigma: ArrayLike,
    agents: int,
    omega: ArrayLike = 0.0,
    dimension: int | None = None,
    hessian_trace: float | None = None,
    batch_size: float = 1,
    sharp: bool = True,
) -> Float[np.ndarray, "*T"]:
    """E S_t ≤ S₀ e^(-rt) + (1 - e^(-rt)) (η L d V / (2N)) / r,   V = mean σᵢ² (1 + ωᵢ) / B.

    S = f - f*, and ω̄ = mean ωᵢ slows the decay even without noise:

        r = 2μ - η μ L ω̄/N,   by |∇f|² ≥ 2 μ S, for η L ω̄ < 2N      (`sharp`),
        r = 2μ - η L² ω̄/N,    by |∇f|² ≤ 2 L S, for η L² ω̄ < 2 μ N.

    From dE S = -E|∇f|² dt + (η/2N) E tr(∇²f Σ̃) dt. `hessian_trace` puts L_τ in the place of L d,
    which holds without compression and for random sparsification of either kind (whose covariance
    of Σᵢ is at most (1 + ωᵢ) σᵢ² coordinate by coordinate), but not for dithering. With it and
    `sharp`, an equality for isotropic noise, Bernoulli sparsification and f = μ|x|²/2.

    Source: arXiv 2502.17009, its loss bounds for DSGD (ω = 0) and DCSGD.

    Args:
        initial_loss: S₀ = f(x₀) - f*.
        time: t.
        learning_rate: η.
        mu: the Polyak-Łojasiewicz constant, |∇f|² ≥ 2 μ S.
        smoothness: L ≥ ‖∇²f(x)‖ everywhere.
        sigma: σᵢ, the largest standard deviation of one sample's noise, a scalar or `(N,)`.
        agents: N.
        omega: ωᵢ, a scalar or `(N,)`; 0 is DSGD.
        dimension: d.
        hessian_trace: L_τ ≥ the sum of ∇²f(x)'s positive eigenvalues everywhere, instead of d.
        batch_size: B of each agent.
        sharp: which rate.

    Raises:
        InputError: a constant out of its range, L < μ, both or neither of d and L_τ, lengths that
            are not N, a negative time, or a rate that is not positive.
    """
    _laws.check_positive(initial_loss=initial_loss)
    source, rate = _source_and_rate(
        learning_rate, mu, smoothness, sigma, agents, omega,
        dimension, hessian_trace, batch_size, sharp,
    )  # fmt: skip
    return _laws.relaxed(initial_loss, source, rate, time)


def loss_level(
    *,
    learning_rate: float,
    mu: float,
    smoothness: float,
    sigma: ArrayLike,
    agents: int,
    omega: ArrayLike = 0.0,
    dimension: int | None = None,
    hessian_trace: float | None = None,
    batch_size: float = 1,
    sharp: bool = True,
) -> float:
    """Where `loss_bound` settles as t → ∞: (η L d V / (2N)) / r, V = mean σᵢ² (1 + ωᵢ) / B.

    η L d σ̄² / (4 μ N B) without compression, σ̄² = mean σᵢ²; compression multiplies it by 1 + ω and
    by 2μ/r. Infinite variance has no level, see `sign_loss_level`.

    Source: arXiv 2502.17009.

    Args:
        learning_rate: η.
        mu: the Polyak-Łojasiewicz constant, |∇f|² ≥ 2 μ S.
        smoothness: L ≥ ‖∇²f(x)‖ everywhere.
        sigma: σᵢ, the largest standard deviation of one sample's noise, a scalar or `(N,)`.
        agents: N.
        omega: ωᵢ, a scalar or `(N,)`; 0 is DSGD.
        dimension: d.
        hessian_trace: L_τ ≥ the sum of ∇²f(x)'s positive eigenvalues everywhere, instead of d.
        batch_size: B of each agent.
        sharp: which rate of `loss_bound`.

    Raises:
        InputError: as `loss_bound`.
    """
    source, rate = _source_and_rate(
        learning_rate, mu, smoothness, sigma, agents, omega,
        dimension, hessian_trace, batch_size, sharp,
    )  # fmt: skip
    return source / rate


def gradient_bound(
    initial_loss: float,
    time: ArrayLike,
    *,
    learning_rate: float,
    smoothness: float,
    sigma: ArrayLike,
    agents: int,
    omega: ArrayLike = 0.0,
    dimension: int | None = None,
    hessian_trace: float | None = None,
    batch_size: float = 1,
    schedule: Schedule | None = None,
) -> Float[np.ndarray, "*T"]:
    """E |∇f(X_τ)|² ≤ (S₀ + (η L d V / (2N)) φ₂) / (φ₁ - (η L ω̄ / (2N)) φ₂), f not convex.

    φ₁ = ∫₀ᵗ ψ ds, φ₂ = ∫₀ᵗ ψ² ds, ψ = ψ(s/η), for dX = -ψ ∇f dt + ψ √(η/N) Σ̃^(1/2) dW, with V and
    ω̄ of `loss_bound`, and τ of density proportional to ψ - (η L ω̄ / (2N)) ψ² on [0, t]. From
    dE S ≤ -(ψ - (η L ω̄ / (2N)) ψ²) E|∇f|² dt + (η L d V / (2N)) ψ² dt, S = f - inf f ≥ 0. It goes
    to 0 where φ₂/φ₁ does and φ₁ → ∞, as for ψ(k) = 1/√(k + 1).

    Source: arXiv 2502.17009, smooth non-convex case.

    Args:
        initial_loss: S₀.
        time: t > 0, any shape.
        learning_rate: η.
        smoothness: L ≥ ‖∇²f(x)‖ everywhere.
        sigma: σᵢ, the largest standard deviation of one sample's noise, a scalar or `(N,)`.
        agents: N.
        omega: ωᵢ, a scalar or `(N,)`; 0 is DSGD.
        dimension: d.
        hessian_trace: L_τ in the place of L d, as in `loss_bound`.
        batch_size: B of each agent.
        schedule: ψ > 0, a function of the step k as the optimizers' and SDEs' is; 1 by default.

    Raises:
        InputError: a constant or ψ out of its range, both or neither of d and L_τ, lengths that are
            not N, or η L ω̄ ψ ≥ 2N at some time.
    """
    _laws.check_positive(initial_loss=initial_loss)
    _check(learning_rate, smoothness, sigma, agents, omega, batch_size)
    source = learning_rate * _spread(smoothness, dimension, hessian_trace)
    source *= _variance(sigma, agents, omega, batch_size) / (2 * agents)
    omega_mean = float(np.mean(compressions(omega, agents)))
    slowing = learning_rate * smoothness * omega_mean / (2 * agents)
    largest = 1 / slowing if slowing > 0 else float("inf")
    phi_1, phi_2 = schedule_integrals(schedule, time, learning_rate, largest)
    return (initial_loss + source * phi_2) / (phi_1 - slowing * phi_2)


def _source_and_rate(
    learning_rate, mu, smoothness, sigma, agents, omega,
    dimension, hessian_trace, batch_size, sharp,
) -> tuple[float, float]:  # fmt: skip
    """η L d V / (2N) and r, after the checks."""
    _laws.check_positive(mu=mu)
    _check(learning_rate, smoothness, sigma, agents, omega, batch_size)
    eta, L, N = learning_rate, smoothness, agents
    if L < mu:
        raise _checks.InputError(f"smoothness must be at least mu = {mu:g}, got {L:g}")
    omega_mean = np.mean(compressions(omega, N))
    if sharp and eta * L * omega_mean >= 2 * N:
        raise _checks.InputError(
            "no sharp bound: learning_rate * smoothness * omega must be less than 2 agents, got "
            f"{eta * L * omega_mean:g} >= {2 * N}"
        )
    if not sharp and eta * L**2 * omega_mean >= 2 * mu * N:
        raise _checks.InputError(
            "no loose bound: learning_rate * smoothness² * omega must be less than 2 mu agents, "
            f"got {eta * L**2 * omega_mean:g} >= {2 * mu * N:g}"
        )
    rate = 2 * mu - eta * (mu * L if sharp else L**2) * omega_mean / N
    spread = _spread(L, dimension, hessian_trace)
    return eta * spread * _variance(sigma, N, omega, batch_size) / (2 * N), rate


def _variance(sigma, agents, omega, batch_size) -> float:
    """V = mean σᵢ² (1 + ωᵢ) / B."""
    squares = deviations(sigma, agents) ** 2 * (1 + compressions(omega, agents))
    return float(np.mean(squares) / batch_size)


def _spread(smoothness, dimension, hessian_trace) -> float:
    """L d or L_τ."""
    if (dimension is None) == (hessian_trace is None):
        raise _checks.InputError("give one of dimension and hessian_trace")
    if hessian_trace is None:
        return smoothness * _checks.at_least("dimension", dimension, 1)
    _checks.positive("hessian_trace", hessian_trace)
    return hessian_trace


def _check(learning_rate, smoothness, sigma, agents, omega, batch_size):
    _laws.check_positive(learning_rate=learning_rate, smoothness=smoothness)
    _checks.positive_number("batch_size", batch_size)
    deviations(sigma, agents)
    compressions(omega, agents)
