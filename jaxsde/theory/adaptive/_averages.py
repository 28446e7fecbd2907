"""The moving averages m and v while the gradient stays where it is."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxsde import _checks


class AverageMoments(NamedTuple):
    """First two moments of m_k and v_k at the steps asked for, the steps' shape."""

    m_mean: Float[np.ndarray, "*T"]
    m_variance: Float[np.ndarray, "*T"]
    v_mean: Float[np.ndarray, "*T"]
    v_variance: Float[np.ndarray, "*T"]
    covariance: Float[np.ndarray, "*T"]


def constant_gradient_moments(
    steps: ArrayLike,
    *,
    gradient: float,
    variance: float,
    b1: float = 0.0,
    b2: float,
    m0: float = 0.0,
    v0: float = 0.0,
) -> AverageMoments:
    """Law of m_k and v_k for g = a + s ξ at every step, a constant, ξ standard normal, exactly.

        E m_k = a + (m₀ - a) β₁^k,            Var m_k = s² (1 - β₁)² G(β₁²),
        E v_k = a² + s² + (v₀ - a² - s²) β₂^k, Var v_k = (4 a² s² + 2 s⁴) (1 - β₂)² G(β₂²),
        Cov(m_k, v_k) = 2 a s² (1 - β₁)(1 - β₂) G(β₁ β₂),

    G(q) = (1 - q^k) / (1 - q). By Var g² = 4 a² s² + 2 s⁴ and Cov(g, g²) = 2 a s². RMSprop's v has
    β₂ for its decay.

    Args:
        steps: k ≥ 0, whole numbers of any shape.
        gradient: a.
        variance: s².
        b1: β₁.
        b2: β₂.
        m0: m₀.
        v0: v₀ ≥ 0.

    Raises:
        InputError: an argument out of its range.
    """
    k = np.asarray(steps, float)
    if not (np.all(k >= 0) and np.all(k == np.rint(k))):
        raise _checks.InputError("steps must be whole numbers of at least 0")
    for name, beta in [("b1", b1), ("b2", b2)]:
        _checks.fraction(name, beta)
    for name, value in [("gradient", gradient), ("m0", m0)]:
        _checks.finite(name, value)
    for name, value in [("variance", variance), ("v0", v0)]:
        _checks.nonnegative(name, value)

    def gathered(q):
        return (1 - q**k) / (1 - q)

    square = gradient**2 + variance
    square_variance = 4 * gradient**2 * variance + 2 * variance**2
    return AverageMoments(
        m_mean=gradient + (m0 - gradient) * b1**k,
        m_variance=variance * (1 - b1) ** 2 * gathered(b1**2),
        v_mean=square + (v0 - square) * b2**k,
        v_variance=square_variance * (1 - b2) ** 2 * gathered(b2**2),
        covariance=2 * gradient * variance * (1 - b1) * (1 - b2) * gathered(b1 * b2),
    )
