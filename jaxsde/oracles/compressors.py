"""Compressors: what an agent sends of its gradient, and the covariance that it makes."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, PyTree, Scalar

from jaxsde import _checks
from jaxsde.engine.noise import Draw, Uniform
from jaxsde.oracles._oracle import Oracle

Vector = Float[Array, " d"]
_ZERO = 0.5 - np.sqrt(1 / 12)  # of B₂, where the trapezoidal rule's first error at a kink is 0
_NODES = 0.4 * (np.arange(-12, 12) + _ZERO)
_WEIGHTS = np.exp(-(_NODES**2) / 2) / np.sum(np.exp(-(_NODES**2) / 2))
_PAIRWISE_UP_TO = 32  # coordinates whose ranks are counted pair by pair
_HALVINGS = 25  # after which two values are together in one draw of 2²⁵/(k + 7√k + 30)


class Compressor(eqx.Module):
    """C(g) of a gradient g in d coordinates (all arrays of x together), random by declared draws.

    Unbiased ones have E C(g) = g and E |C(g) - g|² <= ω |g|². Levels are array leaves: agents
    may have one each, and other values do not recompile.
    """

    def noise(self, d: int) -> PyTree[Draw]:
        """What one message of d coordinates consumes; nothing where C is no random map."""
        return ()

    @abc.abstractmethod
    def apply(self, g: Vector, draw: Any) -> Vector:
        """C(g)."""

    @abc.abstractmethod
    def omega(self, d: int) -> Scalar:
        """The smallest known ω with E |C(g) - g|² <= ω |g|² for all g; infinite if there is none.

        Raises:
            InputError: a level that d coordinates cannot have.
        """

    @abc.abstractmethod
    def covariance(self, oracle: Oracle, x: Any) -> lx.AbstractLinearOperator:
        """Cov C(g) of the oracle's gradient g = ∇f(x) + Z, over Z and C."""


class Induced(NamedTuple):
    """Cov C(g) = (1 - c) Σ + diag(D) - c G Gᵀ at G = ∇f(x), Σ = Cov Z: c, `()`, and D, `(d,)`."""

    c: Scalar
    D: Vector


class Unbiased(Compressor):
    """A compressor with E C(g) = g.

    `couples` says whether it couples coordinates (c is not 0).
    """

    couples: ClassVar[bool]

    @abc.abstractmethod
    def induced(self, G: Vector, variance: Vector) -> Induced:
        """c and D at the mean gradient G under noise with these variances diag Σ.

        Raises:
            InputError: a level that so many coordinates cannot have.
        """

    def check_noise(self, oracle: Oracle) -> None:
        """Refuses noise under which c and D are not known."""

    def induced_by(self, oracle: Oracle, x: Any) -> tuple[Scalar, Vector, Vector]:
        """c, D and G of the oracle's gradient at x."""
        G, variance = (
            jax.flatten_util.ravel_pytree(tree)[0]
            for tree in (oracle.gradient(x), oracle.variance(x))
        )
        c, D = self.induced(G, variance)
        return c, D, G

    def covariance(self, oracle: Oracle, x: Any) -> lx.AbstractLinearOperator:
        """(1 - c) Σ + diag(D) - c G Gᵀ; diagonal where Σ is and no coordinates are coupled."""
        self.check_noise(oracle)
        c, D, G = self.induced_by(oracle, x)
        Sigma, unravel = oracle.covariance(x), jax.flatten_util.ravel_pytree(x)[1]
        if isinstance(Sigma, lx.DiagonalLinearOperator) and not self.couples:
            return lx.DiagonalLinearOperator(jax.tree.map(jnp.add, Sigma.diagonal, unravel(D)))

        def apply(v):
            Sv, v = (jax.flatten_util.ravel_pytree(tree)[0] for tree in (Sigma.mv(v), v))
            return unravel((1 - c) * Sv + D * v - c * G * jnp.sum(G * v))

        return lx.FunctionLinearOperator(apply, Sigma.in_structure(), lx.positive_semidefinite_tag)


class Identity(Unbiased):
    """C(g) = g, ω = 0."""

    couples: ClassVar[bool] = False

    def apply(self, g, draw):
        """g."""
        return g

    def omega(self, d):
        """0."""
        return jnp.zeros(())

    def induced(self, G, variance):
        """c = 0, D = 0."""
        return Induced(jnp.zeros(()), jnp.zeros_like(G))


class _Sparsifier(Unbiased):
    """(d/k) gᵢ or 0, kept by uniforms of its own; k of d coordinates, at least on average."""

    k: Float[Array, ""]

    def noise(self, d):
        """One uniform a coordinate."""
        self._check(d)
        return Draw((d,), Uniform())

    def omega(self, d):
        """d/k - 1."""
        self._check(d)
        return d / self.k - 1

    def _check(self, d: int) -> None:
        known = _checks.concrete(self.k)
        if known is not None and np.any(known > d):
            raise _checks.InputError(
                f"k must lie in 1, ..., d: {np.max(known):g} of {d} coordinates cannot be kept"
            )


class RandomK(_Sparsifier):
    """(d/k) g on k of the d coordinates, chosen uniformly; 0 on the others. ω = d/k - 1.

    With c = (d - k)/(k (d - 1)) the message has the covariance

        (1 - c) Σ + c d (diag Σ + diag(G)²) - c G Gᵀ,

    which for diagonal Σ is (1 + ω) Σ + c (d diag(G)² - G Gᵀ): that exactly k coordinates are kept
    makes them negatively dependent. Of more than 32 coordinates one more is kept in one draw of
    2²⁵/(k + 7√k + 30).

    Args:
        k: how many coordinates are kept, a whole number from 1 to d.

    Raises:
        InputError: k is not positive and whole, or (when it meets x) above d.
    """

    couples: ClassVar[bool] = True

    def __init__(self, k):
        self.k = _level("k", k)

    def apply(self, g, draw):
        """(d/k) g where the uniform is among the k smallest."""
        return jnp.where(_among_smallest(draw, self.k), g.size / self.k * g, 0)

    def induced(self, G, variance):
        """c = (d - k)/(k (d - 1)), D = c d (diag Σ + G²)."""
        d, k = G.size, self.k
        self._check(d)
        c = (d - k) / (k * max(d - 1, 1))
        return Induced(c, c * d * (variance + G**2))


class BernoulliK(_Sparsifier):
    """(d/k) gᵢ with probability k/d, else 0, each coordinate by itself. ω = d/k - 1.

    The message has the covariance Σ + ω (diag Σ + diag(G)²).

    Args:
        k: how many coordinates are kept on average, a number from 1 to d.

    Raises:
        InputError: k is below 1, or (when it meets x) above d.
    """

    couples: ClassVar[bool] = False

    def __init__(self, k):
        _checks.positive_number("k", k)
        known = _checks.concrete(k)
        if known is not None and known < 1:
            raise _checks.InputError(f"k must be at least 1, got {known}")
        self.k = jnp.asarray(k, float)

    def apply(self, g, draw):
        """(d/k) g where the uniform is at most k/d."""
        return jnp.where(draw <= self.k / g.size, g.size / self.k * g, 0)

    def induced(self, G, variance):
        """c = 0, D = ω (diag Σ + G²)."""
        return Induced(jnp.zeros(()), self.omega(G.size) * (variance + G**2))


class QSGD(Unbiased):
    """|g| sign(gᵢ) lᵢ/s with lᵢ the level rᵢ = s |gᵢ|/|g| rounded up or down at random, unbiased.

    With pᵢ = rᵢ - ⌊rᵢ⌋, the message has the covariance Σ + diag(D), Dᵢ = E |g|² pᵢ (1 - pᵢ)/s².
    (Alistarh et al. 2017.)

    ω = √d/s - 1 for s <= √d/2 and for s = 1, where it is attained, and the bound d/(4 s²) above:
    less than the published min(d/s², √d/s). It bounds Σ p (1 - p)/s² under Σ r² = s²: as a function
    of r², p (1 - p) lies below the concave r - r² up to r = 1/2 and 1/4 beyond.

    Args:
        levels: s, a whole number of at least 1.

    Raises:
        InputError: s is not positive and whole.
    """

    levels: Float[Array, ""]
    couples: ClassVar[bool] = False

    def __init__(self, levels):
        self.levels = _level("levels", levels)

    def noise(self, d):
        """One uniform a coordinate."""
        return Draw((d,), Uniform())

    def apply(self, g, draw):
        """|g| sign(g) (⌊r⌋ + 1{u <= p})/s."""
        s, norm = self.levels, jnp.sqrt(jnp.sum(g**2))
        per_norm = s / jnp.where(norm > 0, norm, 1)
        r = jnp.abs(g) * per_norm
        floor = jnp.floor(r)
        size = jnp.where(draw <= r - floor, floor + 1, floor) * (norm / s)
        return jnp.where(g < 0, -size, size)

    def omega(self, d):
        """√d/s - 1 for s <= √d/2 and s = 1, else d/(4 s²); 0 for d = 1, where p = 0."""
        s = self.levels
        if d == 1:
            return jnp.zeros_like(s)
        return jnp.where((s <= np.sqrt(d) / 2) | (s == 1), np.sqrt(d) / s - 1, d / (4 * s**2))

    def check_noise(self, oracle):
        """Refuses Student-t noise, of which the other coordinates' squares have no variance."""
        if hasattr(oracle, "degrees_of_freedom"):
            raise _checks.InputError(
                "the covariance of quantised messages is known for Gaussian noise only: under "
                "Student-t noise run the optimizer without its SDE, or sparsify"
            )

    def induced(self, G, variance):
        """c = 0, D = E |g|² p (1 - p)/s² for Gaussian noise, exact without noise.

        Over gᵢ by the trapezoidal rule, over the square of the other coordinates by two nodes of
        the Gamma law with its mean m and variance v: 48 evaluations a coordinate, for every agent
        that differs. From ten coordinates of comparable noise on it is good to 1.5 % of the
        message's variance, in three to 7 %. Where noise differs a hundredfold between coordinates
        it can miss a quiet one's by half, and their sum by a tenth.
        """
        s, sigma = self.levels, jnp.sqrt(variance)
        m = _of_others(variance + G**2)
        v = _of_others(2 * variance**2 + 4 * variance * G**2)
        theta = jnp.where(m > 0, v / jnp.where(m > 0, m, 1), 0)
        spread = jnp.sqrt(v + theta**2)
        tilt = jnp.where(spread > 0, theta / jnp.where(spread > 0, spread, 1), 0)
        g = G[None, :] + sigma[None, :] * _NODES.astype(G.dtype)[:, None]
        D = jnp.zeros_like(G)
        for side in (-1, 1):
            norm2 = g**2 + jnp.maximum(m + theta + side * spread, 0)[None, :]
            r = s * jnp.abs(g) / jnp.sqrt(jnp.where(norm2 > 0, norm2, 1))
            p = r - jnp.floor(r)
            mean = jnp.sum(_WEIGHTS.astype(G.dtype)[:, None] * norm2 * p * (1 - p), axis=0)
            D += (1 - side * tilt) / 2 * mean / s**2
        return Induced(jnp.zeros(()), D)


class Ternary(QSGD):
    """|g| sign(gᵢ) with probability |gᵢ|/|g|, else 0: `QSGD` with one level. ω = √d - 1.

    Its D is E |g| |gᵢ| - E gᵢ².
    """

    def __init__(self):
        super().__init__(1)


class Sign(Compressor):
    """sign(g), coordinate by coordinate: biased, so that no ω bounds it.

    With P = P(∇f(x) + Z < 0) and independent coordinates of Z the message has the mean 1 - 2P and
    the covariance diag(1 - (1 - 2P)²) = diag(4 P (1 - P)).
    """

    def apply(self, g, draw):
        """sign(g)."""
        return jnp.sign(g)

    def omega(self, d):
        """∞: |sign(g) - g|²/|g|² has no bound as g → 0."""
        return jnp.asarray(jnp.inf)

    def mean(self, oracle: Oracle, gradient: Any) -> Any:
        """1 - 2P at a point with this ∇f."""
        P = oracle.cdf(jax.tree.map(lambda g: -g, gradient))
        return jax.tree.map(lambda P: 1 - 2 * P, P)

    def covariance(self, oracle, x):
        """diag(1 - (1 - 2P)²)."""
        oracle, gradient = oracle.at(x), oracle.gradient(x)
        mean, zero = self.mean(oracle, gradient), oracle.probability_zero(gradient)
        return lx.DiagonalLinearOperator(jax.tree.map(lambda m, z: 1 - m**2 - z, mean, zero))


def _level(name: str, value: Any) -> Float[Array, ""]:
    _checks.positive_number(name, value)
    known = _checks.concrete(value)
    if known is not None and known != np.rint(known):
        raise _checks.InputError(f"{name} must be a whole number, got {known}")
    return jnp.asarray(value, float)


def _among_smallest(u: Vector, k: Scalar) -> Array:
    """Which k of the values are smallest."""
    if u.size <= _PAIRWISE_UP_TO:
        earlier = np.tri(u.size, k=-1, dtype=bool)  # breaks ties
        before = jnp.where(earlier, u[None, :] <= u[:, None], u[None, :] < u[:, None])
        return jnp.sum(before.astype(u.dtype), axis=1) < k
    beyond = (k + 7 * jnp.sqrt(k) + 30) / u.size  # the k-th is above with a probability of 1e-12
    low, high = jnp.zeros_like(u[0]), jnp.minimum(beyond, 1).astype(u.dtype)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = jnp.sum((u <= middle).astype(u.dtype)) >= k
        low, high = jnp.where(enough, low, middle), jnp.where(enough, middle, high)
    return u <= high


def _of_others(value: Vector) -> Vector:
    """Σⱼ valueⱼ over j ≠ i."""
    return jnp.sum(value) - value
