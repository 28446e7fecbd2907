"""Stationary laws of RMSprop(W) and Adam(W) on quadratics, to leading order in η."""

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.problems import Quadratic
from jaxsde.theory.adaptive import _quadratic


def stationary_mean(
    problem: Quadratic,
    variance: ArrayLike,
    *,
    weight_decay: float = 0.0,
    l2_regularization: float = 0.0,
    batch_size: float = 1,
) -> Float[np.ndarray, " d"]:
    """E x as t → ∞: h x* / (h + r), where h = λ √B/σ and r = θ + θ₂ √B/σ.

    Either decay draws x from the minimiser to 0. Valid while the gradient there is small beside
    the noise, so that √V = σ/√B; `frozen_second_moment_law` needs no such condition.

    Source: arXiv 2411.15958, its stationary laws, moved to x* ≠ 0.

    Args:
        problem: the quadratic, with a diagonal H `(d,)`.
        variance: σ² of one sample's gradient noise, a scalar or `(d,)`.
        weight_decay: θ.
        l2_regularization: θ₂.
        batch_size: B, any positive number.

    Raises:
        InputError: H is a matrix, h + r ≤ 0, or an argument out of its range.
    """
    h, r = _pulls(problem, variance, weight_decay, l2_regularization, batch_size)
    return h / (h + r) * np.asarray(problem.minimizer, float)


def stationary_variance(
    problem: Quadratic,
    variance: ArrayLike,
    learning_rate: float,
    *,
    b1: float = 0.0,
    weight_decay: float = 0.0,
    l2_regularization: float = 0.0,
    batch_size: float = 1,
    published: bool = False,
) -> Float[np.ndarray, " d"]:
    """Var xᵢ as t → ∞: (η/2) / ((h + r) (1 + β₁ θ/ρ₁)), ρ₁ = (1 - β₁)/η, with V at rest at σ²/B.

    h = λ √B/σ and r = θ + θ₂ √B/σ. Published (Lemmas C.52 and C.57 of arXiv 2411.15958) without the
    last factor, which momentum puts in against decoupled decay: at η θ = 0.01 it is 1.09 for
    β₁ = 0.9 and 1.49 for β₁ = 0.98. RMSprop(W) is β₁ = 0 and has none, and momentum without
    decoupled decay (L2 included) leaves no trace.

    The law of Adam's SDE without its term η ρ₁ (∇f - M) has 1 + θ/ρ₁ instead. The two differ by
    η θ, an order that this formula neglects; with β₁ the formula is the algorithm's to within a
    relative η (h + θ) (1 - β₁) / (2 (1 + β₁)) + O(η²) at fixed β₁ and frozen V. Not in it either
    is the gradient in V, a relative -η λ √B / (4 σ): `frozen_second_moment_law` has both.

    Args:
        problem: the quadratic, with a diagonal H `(d,)`.
        variance: σ² of one sample's gradient noise, a scalar or `(d,)`.
        learning_rate: η.
        b1: β₁, 0 for RMSprop.
        weight_decay: θ.
        l2_regularization: θ₂.
        batch_size: B, any positive number.
        published: without the factor 1 + β₁ θ/ρ₁.

    Raises:
        InputError: H is a matrix, h + r ≤ 0, or an argument out of its range.
    """
    _checks.positive_number("learning_rate", learning_rate)
    _checks.fraction("b1", b1)
    h, r = _pulls(problem, variance, weight_decay, l2_regularization, batch_size)
    memory = 0.0 if published else learning_rate * b1 / (1 - b1)  # β₁/ρ₁
    return learning_rate / 2 / ((h + r) * (1 + weight_decay * memory))


def stationary_loss(
    problem: Quadratic,
    variance: ArrayLike,
    learning_rate: float,
    *,
    b1: float = 0.0,
    weight_decay: float = 0.0,
    l2_regularization: float = 0.0,
    batch_size: float = 1,
    published: bool = False,
) -> float:
    """E f(x) - f* as t → ∞: Σ λᵢ ((r x*ᵢ/(hᵢ + r))² + Var xᵢ) / 2, f without its L2 term.

    By `stationary_mean` and `stationary_variance`, whose letters these are. For x* ≠ 0 it goes to
    f(0) - f* and noise as σ → ∞, and may exceed `loss_level`. It leaves the gradient at the mean
    out of V: where that is not small beside σ/√B, as for strong decay and x* ≠ 0, take
    `frozen_second_moment_law`.

    Args:
        problem: the quadratic, with a diagonal H `(d,)`.
        variance: σ² of one sample's gradient noise, a scalar or `(d,)`.
        learning_rate: η.
        b1: β₁, 0 for RMSprop.
        weight_decay: θ.
        l2_regularization: θ₂.
        batch_size: B, any positive number.
        published: the variance as published.

    Raises:
        InputError: as `stationary_variance`.
    """
    decays = {"weight_decay": weight_decay, "l2_regularization": l2_regularization}
    spread = stationary_variance(
        problem,
        variance,
        learning_rate,
        b1=b1,
        batch_size=batch_size,
        published=published,
        **decays,
    )
    mean = stationary_mean(problem, variance, batch_size=batch_size, **decays)
    shift = mean - np.asarray(problem.minimizer, float)
    return float(np.asarray(problem.hessian, float) @ (shift**2 + spread) / 2)


def _pulls(
    problem: Quadratic,
    variance: ArrayLike,
    weight_decay: float,
    l2_regularization: float,
    batch_size: float,
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """The speeds h towards x* and r towards 0."""
    lam, _, variance = _quadratic.coordinates(problem, variance, batch_size)
    _quadratic.check_decays(weight_decay, l2_regularization)
    h = lam / np.sqrt(variance)
    r = weight_decay + l2_regularization / np.sqrt(variance)
    if np.any(h + r <= 0):
        raise _checks.InputError(
            "no stationary law: curvature and decay must add up to a pull in every coordinate"
        )
    return h, r
