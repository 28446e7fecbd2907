"""SVAG: more gradient noise from the same gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree, Scalar

from jaxsde import _checks
from jaxsde.oracles._oracle import Oracle
from jaxsde.problems import Problem


class Pair(NamedTuple):
    """Two independent draws of one oracle."""

    first: PyTree
    second: PyTree


class SVAG(Oracle):
    """r₁ g₁ + r₂ g₂ of two independent gradients at one point, with noise of covariance F Σ.

    r₁,₂ = (1 ∓ √(2F - 1))/2, so that r₁ + r₂ = 1 and r₁² + r₂² = F. Each optimizer step gets F
    times the noise at the cost of two gradients. With hyperparameters made for a batch F times
    smaller it approaches the optimizer's SDE as F grows, from the algorithm's own noise: that
    noise's third cumulants fall, in units of its standard deviation by (3F - 1)/(2 F^{3/2}), while
    its excess kurtosis is halved and stays.

    | optimizer | F | hyperparameters | steps | weak error to the SDE |
    |---|---|---|---|---|
    | SGD | l | `theory.scaling.linear` with 1/l: η/l | l K | O(1/l) |
    | RMSprop, Adam | l² | `square_root` with 1/l²: η/l, (1 - β)/l², l ε | l² K | O(1/l²) |

    Any real l >= 1; `theory.scaling.svag` makes the hyperparameters. l = 1 is the optimizer itself,
    with a gradient to spare. (Li, Malladi and Arora 2021 for SGD; Malladi et al. 2022, Definition
    6.1 and Theorem 6.3.)

    Args:
        oracle: the oracle whose noise is amplified.
        amplification: F >= 1.

    Raises:
        InputError: F below 1.
    """

    oracle: Oracle
    amplification: Float[Array, ""]

    def __init__(self, oracle, amplification):
        _checks.positive_number("amplification", amplification)
        known = _checks.concrete(amplification)
        if known is not None and known < 1:
            raise _checks.InputError(f"amplification must be at least 1, got {known:g}")
        self.oracle = oracle
        self.amplification = jnp.asarray(amplification, float)

    @property
    def problem(self) -> Problem:  # pyright: ignore[reportIncompatibleVariableOverride]
        """f."""
        return self.oracle.problem

    @property
    def additive(self) -> bool:
        """As the oracle's."""
        return self.oracle.additive

    @property
    def weights(self) -> tuple[Scalar, Scalar]:
        """r₁, r₂."""
        root = jnp.sqrt(2 * self.amplification - 1)
        return (1 - root) / 2, (1 + root) / 2

    def noise(self, x0: Any) -> Pair:
        """Two slots of the oracle's draws."""
        draws = self.oracle.noise(x0)
        return Pair(draws, draws)

    def sample_gradient(self, x: Any, draw: Pair) -> Any:
        """r₁ g₁ + r₂ g₂."""
        r1, r2 = self.weights
        g1, g2 = (self.oracle.sample_gradient(x, slot) for slot in draw)
        return jax.tree.map(lambda g1, g2: r1 * g1 + r2 * g2, g1, g2)

    def brownian(self, x: Any, draw: Pair) -> Any:
        """(r₁ W₁ + r₂ W₂)/√F of the oracle's own W."""
        r1, r2 = self.weights
        W1, W2 = (self.oracle.brownian(x, slot) for slot in draw)
        root = jnp.sqrt(self.amplification)
        return jax.tree.map(lambda W1, W2: (r1 * W1 + r2 * W2) / root, W1, W2)

    def covariance(self, x: Any) -> lx.AbstractLinearOperator:
        """F Σ(x)."""
        return _scaled(self.oracle.covariance(x), self.amplification)

    def variance(self, x: Any) -> Any:
        """F diag Σ(x)."""
        return jax.tree.map(lambda s: self.amplification * s, self.oracle.variance(x))

    def covariance_root(self, x: Any) -> lx.AbstractLinearOperator:
        """√F Σ(x)^{1/2}."""
        return _scaled(self.oracle.covariance_root(x), jnp.sqrt(self.amplification))


def _scaled(operator: lx.AbstractLinearOperator, factor: Scalar) -> lx.AbstractLinearOperator:
    if isinstance(operator, lx.DiagonalLinearOperator):
        return lx.DiagonalLinearOperator(jax.tree.map(lambda d: factor * d, operator.diagonal))
    return operator * factor
