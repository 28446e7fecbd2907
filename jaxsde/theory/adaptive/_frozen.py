"""The exact stationary law of x and m on a quadratic, with the second moment at its mean."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.problems import Quadratic
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, Moments, sde
from jaxsde.theory.adaptive import _quadratic


class FrozenLaw(NamedTuple):
    """A stationary law with V held at its mean, coordinate by coordinate."""

    mean: Float[np.ndarray, " d"]
    variance: Float[np.ndarray, " d"]
    second_moment: Float[np.ndarray, " d"]

    @property
    def moments(self) -> Moments:
        """E x and Cov x, for `theory.expected_loss`."""
        return Moments(self.mean, np.diag(self.variance))


class _Chain(NamedTuple):
    """What one coordinate's chain needs beside V: each entry `(d,)` or a number."""

    lam: Float[np.ndarray, " d"]
    minimizer: Float[np.ndarray, " d"]
    noise: Float[np.ndarray, " d"]
    eta: float
    h: float
    b1: float
    eps: float
    theta: float
    l2: float
    matched: bool


def frozen_second_moment_law(
    problem: Quadratic,
    variance: ArrayLike,
    learning_rate: float,
    law: Law = sde,
    *,
    b1: float = 0.0,
    eps: float = 0.0,
    weight_decay: float = 0.0,
    l2_regularization: float = 0.0,
    batch_size: float = 1,
    published: bool = False,
) -> FrozenLaw:
    """E x and Var x as t → ∞ with v fixed at V = E g² = σ²/B + E(∇f + θ₂ x)², found with them.

    With p = 1/(√V + ε), Λ = λ + θ₂, ρ₁ = (1 - β₁)/η and y, m measured from their means, a step h is

        y⁺ = y - h [(θ + (1 - β₁) p Λ) y + β₁ p m] - √(η h) (1 - β₁) p (σ/√B) ξ,
        m⁺ = m + h ρ₁ (Λ y - m) + √(η h) ρ₁ (σ/√B) ξ.

    h = η is the algorithm; h = dt and h → 0 are Euler-Maruyama of, and, Adam's SDE with one ξ in
    both equations; at β₁ = 0, RMSprop's. E x = p λ x* / (p Λ + θ). Exact but for the fluctuations
    of v, which are small with 1 - β₂. In continuous time Var x is (η/2) / (H + θ), H = p Λ, times
    p² σ²/B (1 + η (1 - β₁) (H + θ)) / (1 + θ/ρ₁ + η H).

    Published (Theorem 3.12 of arXiv 2411.15958) without ξ in the first equation, the noise's share
    of the term η ρ₁ (∇f - M). The last numerator is then β₁²: 19 % too small at β₁ = 0.9, 2 % at
    0.99. RMSprop's SDE is as published.

    Args:
        problem: the quadratic, with a diagonal H `(d,)`.
        variance: σ² of one sample's gradient noise, a scalar or `(d,)`.
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        b1: β₁, 0 for RMSprop.
        eps: ε, outside the root.
        weight_decay: θ.
        l2_regularization: θ₂.
        batch_size: B, any positive number.
        published: the SDE of Adam as published.

    Returns:
        E x, Var x and V, each `(d,)`.

    Raises:
        InputError: H is a matrix, the chain is unstable, `published` with `discrete`, or an
            argument out of its range.
    """
    h = _laws.step_size(law, learning_rate)
    lam, minimizer, noise = _quadratic.coordinates(problem, variance, batch_size)
    _quadratic.check_decays(weight_decay, l2_regularization)
    _checks.positive_number("learning_rate", learning_rate)
    _checks.fraction("b1", b1)
    _checks.nonnegative("eps", eps)
    if published and law == _laws.discrete:
        raise _checks.InputError("published is an SDE's; the discrete law is the algorithm's own")
    chain = _Chain(
        lam,
        minimizer,
        noise,
        eta=learning_rate,
        h=h,
        b1=b1,
        eps=eps,
        theta=weight_decay,
        l2=l2_regularization,
        matched=not published,
    )
    V = _second_moment(chain)
    return FrozenLaw(_mean(chain, V), _variance(chain, V), V)


def _second_moment(chain: _Chain) -> Float[np.ndarray, " d"]:
    """The V at which V = E g², by bisection: the right side falls with V or grows slower."""
    unstable = _checks.InputError("no stationary law: the chain is unstable at every second moment")
    if chain.theta == 0 and np.any(chain.lam + chain.l2 <= 0):
        raise unstable
    low, high = chain.noise, chain.noise
    for _ in range(100):
        short = _excess(chain, high) > 0
        if not np.any(short):
            break
        high = np.where(short, 4 * high, high)
    else:
        raise unstable
    for _ in range(200):
        middle = np.sqrt(low) * np.sqrt(high)
        short = _excess(chain, middle) > 0
        low, high = np.where(short, middle, low), np.where(short, high, middle)
        if np.all(high <= low * (1 + 1e-15)):
            break
    return high


def _excess(chain: _Chain, V: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """E g² - V for the law at V; infinite where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = _mean(chain, V)
        mean_gradient = chain.lam * (mean - chain.minimizer) + chain.l2 * mean
        spread = (chain.lam + chain.l2) ** 2 * _variance(chain, V)
        excess = chain.noise + mean_gradient**2 + spread - V
    return np.where(np.isfinite(excess), excess, np.inf)


def _mean(chain: _Chain, V: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """p λ x* / (p Λ + θ)."""
    pull = chain.lam + chain.l2 + chain.theta * (np.sqrt(V) + chain.eps)
    return chain.lam / pull * chain.minimizer


def _variance(chain: _Chain, V: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """Var x by A C + C Aᵀ + h A C Aᵀ + b bᵀ = 0; infinite where the chain is unstable."""
    A, b = _system(chain, V)
    n = A.shape[-1]
    eye = np.eye(n)
    eigenvalues = np.linalg.eigvals(A)
    # 2 Re a + h |a|² < 0 is |1 + h a| < 1, and Re a < 0 in continuous time.
    stable = np.all(2 * eigenvalues.real + chain.h * np.abs(eigenvalues) ** 2 < 0, axis=-1)
    A = np.where(stable[:, None, None], A, -eye / (1 + chain.h))
    products = np.einsum("dij,kl->dikjl", A, eye) + np.einsum("ij,dkl->dikjl", eye, A)
    products = products + chain.h * np.einsum("dij,dkl->dikjl", A, A)
    source = np.einsum("di,dj->dij", b, b).reshape(-1, n * n, 1)
    C = np.linalg.solve(products.reshape(-1, n * n, n * n), -source)
    return np.where(stable, C[:, 0, 0], np.inf)


def _system(chain: _Chain, V: Float[np.ndarray, " d"]):
    """A `(d, n, n)` and b `(d, n)` of z⁺ = z + h A z + √h b ξ, z = (y, m), or y where β₁ = 0."""
    p, Lam, b1 = 1 / (np.sqrt(V) + chain.eps), chain.lam + chain.l2, chain.b1
    rho = (1 - b1) / chain.eta
    noise = np.sqrt(chain.eta * chain.noise)
    y_rate = -(chain.theta + (1 - b1) * p * Lam)
    if b1 == 0:
        return y_rate[:, None, None], (-p * noise)[:, None]
    A = np.empty((len(p), 2, 2))
    A[:, 0, 0], A[:, 0, 1] = y_rate, -b1 * p
    A[:, 1, 0], A[:, 1, 1] = rho * Lam, -rho
    shared = -(1 - b1) * p if chain.matched else np.zeros_like(p)
    return A, np.stack([shared, np.full_like(p, rho)], axis=-1) * noise[:, None]
