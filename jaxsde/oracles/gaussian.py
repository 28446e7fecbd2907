"""Gaussian gradient noise: independent, or with any covariance."""

import jax
import jax.numpy as jnp
import jax.scipy.special
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks
from jaxsde.engine.noise import Draw, Normal
from jaxsde.oracles._oracle import (
    Oracle,
    check_fits,
    check_problem,
    check_size,
    diagonal,
    noise_scale,
    over_coordinates,
    symmetric_root,
    unit_draws,
)
from jaxsde.problems import Problem


class GaussianNoise(Oracle):
    """∇f(x) + R ξ / √B with ξ ~ N(0, I) and a constant root R of the covariance Σ = R Rᵀ.

    Args:
        problem: f.
        scale: the standard deviation σ of every coordinate, a scalar or `(d,)`; R = diag(σ).
        covariance: Σ, a symmetric positive semidefinite `(d, d)` matrix, instead of `scale`; over
            all coordinates in leaf order where x is not one array.
        batch_size: B, which divides the covariance.

    Raises:
        InputError: neither or both of scale and covariance, a scale that is not positive, a
            covariance that is not symmetric positive semidefinite, B that is not positive.
    """

    problem: Problem
    scale: Float[Array, ""] | Float[Array, " d"] | None
    root: Float[Array, "d d"] | None
    batch_size: Float[Array, ""]

    def __init__(self, problem, scale=None, *, covariance=None, batch_size=1):
        if (scale is None) == (covariance is None):
            raise _checks.InputError("give GaussianNoise either a scale or a covariance")
        _checks.positive_number("batch_size", batch_size)
        check_problem(problem)
        self.problem = problem
        self.scale = None if scale is None else noise_scale("scale", scale)
        self.root = None if covariance is None else _root(covariance)
        self.batch_size = jnp.asarray(batch_size, float)

    @property
    def additive(self) -> bool:
        """True."""
        return True

    def noise(self, x0: PyTree) -> PyTree[Draw]:
        """ξ, with the shapes of x0."""
        if self.scale is not None:
            check_fits("scale", self.scale.shape, x0)
        if self.root is not None:
            check_size("covariance", self.root.shape, x0)
        return unit_draws(x0, Normal())

    def sample_gradient(self, x: PyTree, draw: PyTree) -> PyTree:
        """∇f(x) + R ξ / √B."""
        z = self.covariance_root(x).mv(draw)
        return jax.tree.map(jnp.add, self.gradient(x), z)

    def covariance(self, x: PyTree) -> lx.AbstractLinearOperator:
        """R Rᵀ / B."""
        if self.root is None:
            return diagonal(self._independent_scale() ** 2, x)
        matrix = self.root @ self.root.T / self.batch_size
        return over_coordinates(matrix, x, lx.positive_semidefinite_tag)

    def covariance_root(self, x: PyTree) -> lx.AbstractLinearOperator:
        """R / √B."""
        if self.root is None:
            return diagonal(self._independent_scale(), x)
        return over_coordinates(self.root / jnp.sqrt(self.batch_size), x)

    def squares_root(self, x: PyTree) -> lx.AbstractLinearOperator:
        """Q with Q Qᵀ = Cov(Z²), Cov(Zᵢ², Zⱼ²) = 2 Σᵢⱼ²; diag(√2 σ²) where Σ is diagonal."""
        covariance = self.covariance(x)
        if isinstance(covariance, lx.DiagonalLinearOperator):
            diagonal = jax.tree.map(lambda variance: np.sqrt(2) * variance, covariance.diagonal)
            return lx.DiagonalLinearOperator(diagonal)
        return over_coordinates(symmetric_root(2 * covariance.as_matrix() ** 2), x)

    def cdf(self, z: PyTree) -> PyTree:
        """P(Zᵢ <= zᵢ) = (1 + erf(zᵢ √B/(σᵢ √2)))/2.

        Raises:
            InputError: the coordinates are correlated.
        """
        scale = self._independent_scale() * np.sqrt(2)
        return jax.tree.map(lambda leaf: (1 + jax.scipy.special.erf(leaf / scale)) / 2, z)

    def density_at_zero(self) -> Float[Array, "..."]:
        """The density of Zᵢ at 0, √B/(σᵢ √(2π)).

        Raises:
            InputError: the coordinates are correlated.
        """
        return 1 / (self._independent_scale() * np.sqrt(2 * np.pi))

    def isotropic_scale(self) -> Float[Array, ""] | None:
        """σ/√B where all coordinates have one σ, else None."""
        if self.scale is None or self.scale.ndim > 0:
            return None
        return self.scale / jnp.sqrt(self.batch_size)

    def _independent_scale(self) -> Float[Array, "..."]:
        if self.scale is None:
            raise _checks.InputError(
                "correlated noise has no law of single coordinates here: give the oracle a scale "
                "instead of a covariance"
            )
        return self.scale / jnp.sqrt(self.batch_size)


def _root(covariance) -> Float[Array, "d d"]:
    matrix = jnp.asarray(covariance, float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise _checks.InputError(f"covariance must be (d, d), got shape {matrix.shape}")
    _checks.finite("covariance", matrix)
    known = _checks.concrete(matrix)
    if known is not None:
        largest = np.abs(known).max()
        if not np.allclose(known, known.T, atol=1e-6 * largest):
            raise _checks.InputError("covariance must be symmetric")
        if np.linalg.eigvalsh(known.astype(np.float64)).min() < -1e-6 * largest:
            raise _checks.InputError("covariance must be positive semidefinite")
    return symmetric_root(matrix)
