"""The SDEs of SignSGD."""

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks
from jaxsde.oracles import Oracle
from jaxsde.sdes._sde import PositionSDE, State, check_law, clipped_sqrt


def linearized_mean_sign(oracle: Oracle, gradient: PyTree) -> PyTree:
    """l ∇f/σ = 2 p(0) ∇f, elementwise, at a point with this ∇f; its sign where σ = 0."""
    p = oracle.density_at_zero()
    if jax.tree.structure(p) != jax.tree.structure(gradient):
        return jax.tree.map(lambda g: 2 * p * g, gradient)

    def mean(p, g):
        noisy = jnp.isfinite(p)
        return jnp.where(noisy, 2 * jnp.where(noisy, p, 0) * g, jnp.sign(g))

    return jax.tree.map(mean, p, gradient)


class SignSGD(PositionSDE):
    """The SDE of x⁺ = x - η sign(∇f(x) + Z), exact from the noise's law, in the clock t = k η.

    With P = P(∇f(X) + Z < 0), coordinate by coordinate, and independent coordinates of Z:

        dX = -(1 - 2P) dt - √η √(1 - (1 - 2P)²) dW,    1 - (1 - 2P)² = 4 P (1 - P).

    (Compagnoni et al. 2025, Theorem 3.2; Corollary 3.3 for Gaussian noise, where
    1 - 2P = erf(∇f/(σ√2)); Student-t noise of any degrees of freedom has a law here too.) Where
    ∇f + Z may be 0, as under mini-batches, half of that counts in P, and as the sign of 0 is 0 the
    radicand is 4 P (1 - P) - P(∇f + Z = 0); the linearised one below likewise.

    Args:
        oracle: f and the noise; it needs a `cdf`.
        learning_rate: η.

    Raises:
        InputError: η not positive, correlated noise, or an oracle without a `cdf`.
    """

    oracle: Oracle
    learning_rate: Float[Array, ""]

    def __init__(self, oracle, learning_rate):
        _checks.positive_number("learning_rate", learning_rate)
        check_law(oracle, lambda oracle: oracle.cdf(jnp.zeros(())))
        self.oracle = oracle
        self.learning_rate = jnp.asarray(learning_rate, float)

    def _law(self, x: PyTree) -> tuple[PyTree, PyTree]:
        """P(∇f + Z < 0), ties shared out, and P(∇f + Z = 0)."""
        oracle, gradient = self.oracle.at(x), self.oracle.gradient(x)
        P = oracle.cdf(jax.tree.map(lambda g: -g, gradient))
        return P, oracle.probability_zero(gradient)

    def drift(self, t, y: State, args) -> State:
        """-(1 - 2P)."""
        P, _ = self._law(y.X)
        return State(jax.tree.map(lambda p: -(1 - 2 * p), P))

    def diffusion(self, t, y: State, args) -> lx.DiagonalLinearOperator:
        """-√η √(4 P (1 - P) - P(∇f + Z = 0))."""
        eta, (P, zero) = self.learning_rate, self._law(y.X)
        diagonal = jax.tree.map(
            lambda p, z: -jnp.sqrt(eta) * clipped_sqrt(4 * p * (1 - p) - z), P, zero
        )
        return lx.DiagonalLinearOperator(State(diagonal))


class LinearizedSignSGD(PositionSDE):
    """SignSGD's SDE where the noise dominates (phase 3), in the clock t = k η.

    With l/σ = 2 p(0) for the density p of Z (l = √(2/π) for Gaussian noise), elementwise:

        dX = -l ∇f(X)/σ dt - √η √(1 - (l ∇f(X)/σ)²) dW,

    the radicand clipped at 0 (Compagnoni et al. 2025, the poster's equation 1; it turns negative
    for |∇f|/σ > 1/l, inside the region for which the published form is stated).

    Args:
        oracle: f and the noise; it needs a `density_at_zero`.
        learning_rate: η.

    Raises:
        InputError: η not positive, correlated noise, or an oracle without a
            `density_at_zero`.
    """

    oracle: Oracle
    learning_rate: Float[Array, ""]

    def __init__(self, oracle, learning_rate):
        _checks.positive_number("learning_rate", learning_rate)
        check_law(oracle, lambda oracle: oracle.density_at_zero())
        self.oracle = oracle
        self.learning_rate = jnp.asarray(learning_rate, float)

    def _law(self, x: PyTree) -> tuple[PyTree, PyTree]:
        """l ∇f/σ, and P(∇f + Z = 0)."""
        oracle, gradient = self.oracle.at(x), self.oracle.gradient(x)
        return linearized_mean_sign(oracle, gradient), oracle.probability_zero(gradient)

    def drift(self, t, y: State, args) -> State:
        """-l ∇f/σ."""
        return State(jax.tree.map(lambda m: -m, self._law(y.X)[0]))

    def diffusion(self, t, y: State, args) -> lx.DiagonalLinearOperator:
        """-√η √(1 - (l ∇f/σ)² - P(∇f + Z = 0))."""
        eta, (mean, zero) = self.learning_rate, self._law(y.X)
        diagonal = jax.tree.map(
            lambda m, z: -jnp.sqrt(eta) * clipped_sqrt(1 - m**2 - z), mean, zero
        )
        return lx.DiagonalLinearOperator(State(diagonal))
