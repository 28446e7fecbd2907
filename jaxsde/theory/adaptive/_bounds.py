"""Where a bound on the loss under RMSprop(W) or Adam(W) settles."""

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.theory import _laws


def loss_level(
    *,
    learning_rate: float,
    mu: float,
    hessian_trace: float,
    sigma: ArrayLike,
    batch_size: ArrayLike = 1,
    weight_decay: float = 0.0,
    l2_regularization: float = 0.0,
    smoothness: float | None = None,
    published: bool = False,
) -> Float[np.ndarray, "..."]:
    """lim sup E S ≤ (η L_τ / 2) / (2 μ √B/σ + θ (1 + μ/L)) for S = f - f*, as t → ∞.

    For RMSprop(W) and Adam(W) alike, f μ-strongly convex and L-smooth with its minimiser at 0,
    ε = 0, and noise that dominates the gradient, so that √V = σ/√B. From dX = -(√B/σ) ∇f dt -
    θ X dt + √η dW, with -⟨∇f, X⟩ ≤ -(f - f*) - μ|X|²/2 ≤ -(1 + μ/L) S. Without decay it is linear
    in σ; decoupled decay keeps it below η L_τ / (2 θ (1 + μ/L)) for every σ. It does not hold for a
    minimiser x* ≠ 0, which decay leaves for 0: see `stationary_loss`.

    On the L2-regularised loss, of which S is still only f's part, it is

        (η L_τ σ / (4 μ)) / (√B (1 + θ₂ (L + μ) / (2 μ L))).

    Published (equation 5 of the paper's poster) without brackets, √B + θ₂ (L + μ) / (2 μ L): the
    same at B = 1, too large, hence still a bound, for B > 1, and too small for B < 1.

    Source: arXiv 2411.15958, equations 5 and 6 of its poster, with L_τ in the place of L d.

    Args:
        learning_rate: η.
        mu: μ.
        hessian_trace: L_τ ≥ tr ∇²f(x) everywhere.
        sigma: σ, the largest standard deviation of one sample's gradient noise, any shape.
        batch_size: B, any positive number (SVAG's are fractions), any shape.
        weight_decay: θ.
        l2_regularization: θ₂.
        smoothness: L, needed with either decay.
        published: the poster's form for θ₂ > 0.

    Returns:
        The level, of the shape that sigma and batch_size broadcast to.

    Raises:
        InputError: a constant out of its range, both decays at once, or no L with one of them.
    """
    _laws.check_positive(
        learning_rate=learning_rate,
        mu=mu,
        hessian_trace=hessian_trace,
        sigma=sigma,
        batch_size=batch_size,
    )
    _checks.nonnegative("weight_decay", weight_decay)
    _checks.nonnegative("l2_regularization", l2_regularization)
    if weight_decay and l2_regularization:
        raise _checks.InputError(
            "the bound holds for one decay: weight_decay or l2_regularization must be 0"
        )
    root_B, sigma = np.sqrt(np.asarray(batch_size, float)), np.asarray(sigma, float)
    pull = 0.0
    if weight_decay or l2_regularization:
        pull = 1 + mu / _smoothness(smoothness, mu)
    l2_scale = 1 if published else root_B
    rate = (2 * mu * root_B + l2_regularization * l2_scale * pull) / sigma + weight_decay * pull
    return learning_rate * hessian_trace / 2 / rate


def _smoothness(smoothness: float | None, mu: float) -> float:
    if smoothness is None:
        raise _checks.InputError("smoothness is needed with weight_decay or l2_regularization")
    _checks.positive("smoothness", smoothness)
    if smoothness < mu:
        raise _checks.InputError(f"smoothness must be at least mu = {mu:g}, got {smoothness:g}")
    return smoothness
