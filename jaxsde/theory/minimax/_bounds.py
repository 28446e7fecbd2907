"""Bounds on E|F|²/2 and E|z - z*|²/2 for the SDE dZ = b dt + √η S^(1/2) dW of any game."""

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.theory import _laws


def hamiltonian_bound(
    initial_hamiltonian: float,
    time: ArrayLike,
    *,
    learning_rate: float,
    mu: float,
    noise_trace: float,
) -> Float[np.ndarray, "*T"]:
    """E Ham(Z_t) ≤ Ham₀ e^(-2μt) + (η L/(4μ)) (1 - e^(-2μt)),   Ham = |F|²/2.

    From dE Ham = E⟨b, ∇Ham⟩ dt + (η/2) E tr(S ∇²Ham) dt, ∇Ham = Jᵀ F, where

        -⟨b, ∇Ham⟩ = |∇Ham|²           (SHGD),
        -⟨b, ∇Ham⟩ = Fᵀ (J - ρ J²) F   (SEG; ρ = 0 is SGDA).

    An equality for SHGD on bilinear games with one λ: μ = λ² and L = 2 λ⁴ σ² a pair, half of it
    with two batches. SHGD itself ends higher there, by the factor 1/(1 - η λ²/2).

    Source: arXiv 2402.12508 for SHGD; derived here for SEG.

    Args:
        initial_hamiltonian: Ham₀.
        time: t.
        learning_rate: η.
        mu: μ with -⟨b, ∇Ham⟩ ≥ 2 μ Ham everywhere; for SHGD, |∇Ham|² ≥ 2 μ Ham.
        noise_trace: L ≥ tr(S ∇²Ham) everywhere.

    Raises:
        InputError: a constant that is not positive, or a negative time.
    """
    _laws.check_positive(initial_hamiltonian=initial_hamiltonian)
    level = hamiltonian_level(learning_rate=learning_rate, mu=mu, noise_trace=noise_trace)
    return _laws.relaxed(initial_hamiltonian, 2 * mu * level, 2 * mu, time)


def hamiltonian_level(*, learning_rate: float, mu: float, noise_trace: float) -> float:
    """Where `hamiltonian_bound` settles as t → ∞: η L/(4μ).

    Source: arXiv 2402.12508.

    Args:
        learning_rate: η.
        mu: μ of `hamiltonian_bound`.
        noise_trace: L of `hamiltonian_bound`.

    Raises:
        InputError: a constant that is not positive.
    """
    _laws.check_positive(learning_rate=learning_rate, mu=mu, noise_trace=noise_trace)
    return learning_rate * noise_trace / (4 * mu)


def half_square_bound(
    initial_half_square: float,
    time: ArrayLike,
    *,
    learning_rate: float,
    monotonicity: float,
    additive_noise: float,
    multiplicative_noise: float = 0.0,
) -> Float[np.ndarray, "*T"]:
    """U ≤ U₀ e^(-rt) + (η s₀/r) (1 - e^(-rt)), r = 2m - η s₁, for U = E|Z - z*|²/2.

    From U' = E⟨b, Z - z*⟩ + (η/2) E tr S. There is a constant step without a floor where s₀ = 0:
    noise that vanishes at z* costs only rate. An equality for a linear game whose b and S are
    isotropic, such as pairs with one a and one λ.

    Source: derived here from the identities of arXiv 2402.12508.

    Args:
        initial_half_square: U₀.
        time: t.
        learning_rate: η.
        monotonicity: m with ⟨b, z - z*⟩ ≤ -m |z - z*|² everywhere.
        additive_noise: s₀ ≥ 0 with tr S ≤ 2 s₀ + s₁ |z - z*|² everywhere.
        multiplicative_noise: s₁ ≥ 0.

    Raises:
        InputError: a constant out of its range, r ≤ 0, or a negative time.
    """
    _laws.check_positive(initial_half_square=initial_half_square)
    rate = _rate(learning_rate, monotonicity, additive_noise, multiplicative_noise)
    return _laws.relaxed(initial_half_square, learning_rate * additive_noise, rate, time)


def half_square_level(
    *,
    learning_rate: float,
    monotonicity: float,
    additive_noise: float,
    multiplicative_noise: float = 0.0,
) -> float:
    """Where `half_square_bound` settles as t → ∞: η s₀/(2m - η s₁).

    Source: derived here.

    Args:
        learning_rate: η.
        monotonicity: m of `half_square_bound`.
        additive_noise: s₀ of `half_square_bound`.
        multiplicative_noise: s₁ of `half_square_bound`.

    Raises:
        InputError: a constant out of its range, or 2m ≤ η s₁.
    """
    rate = _rate(learning_rate, monotonicity, additive_noise, multiplicative_noise)
    return learning_rate * additive_noise / rate


def _rate(learning_rate, monotonicity, additive_noise, multiplicative_noise) -> float:
    """r = 2m - η s₁ > 0."""
    _laws.check_positive(learning_rate=learning_rate, monotonicity=monotonicity)
    _checks.nonnegative("additive_noise", additive_noise)
    _checks.nonnegative("multiplicative_noise", multiplicative_noise)
    rate = 2 * monotonicity - learning_rate * multiplicative_noise
    if rate <= 0:
        raise _checks.InputError(
            "no bound: learning_rate * multiplicative_noise must be less than 2 monotonicity, got "
            f"{learning_rate * multiplicative_noise:g} >= {2 * monotonicity:g}"
        )
    return rate
