"""What every oracle can do."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree, Scalar

from jaxsde import _checks
from jaxsde.engine.noise import Draw, Law
from jaxsde.problems import Problem

ENUMERABLE = 4096  # draws up to which a law is enumerated


class Atoms(NamedTuple):
    """A law of finitely many draws: each `(m, ...)`, and their probabilities `(m,)`."""

    draws: PyTree
    weights: Float[Array, " m"]


class Oracle(eqx.Module):
    """Noisy gradients ∇f(x) + Z of a problem, the randomness explicit.

    One draw may serve two points and two draws one point: `sample_gradient(x, draw)` is a
    function. An oracle whose coordinates are independent also has the noise's law, `cdf(z)` and
    `density_at_zero()`; where it varies with x, `at(x)` has it.
    """

    problem: eqx.AbstractVar[Problem]

    @abc.abstractmethod
    def noise(self, x0: Any) -> PyTree[Draw]:
        """What one gradient consumes, from the shapes in x0."""

    @abc.abstractmethod
    def sample_gradient(self, x: Any, draw: Any) -> Any:
        """∇f(x) + Z(x, draw)."""

    @abc.abstractmethod
    def covariance(self, x: Any) -> lx.AbstractLinearOperator:
        """Σ(x) = Cov Z."""

    @abc.abstractmethod
    def covariance_root(self, x: Any) -> lx.AbstractLinearOperator:
        """R(x) with R Rᵀ = Σ(x)."""

    def variance(self, x: Any) -> Any:
        """diag Σ(x), with the structure of x."""
        covariance = self.covariance(x)
        if isinstance(covariance, lx.DiagonalLinearOperator):
            return covariance.diagonal
        return jax.flatten_util.ravel_pytree(x)[1](lx.diagonal(covariance))

    def trace(self, x: Any) -> Scalar:
        """tr Σ(x) = E |Z|², over all coordinates."""
        return jnp.asarray(optax.tree.sum(self.variance(x)))

    def squares_root(self, x: Any) -> lx.AbstractLinearOperator:
        """Q(x) with Q Qᵀ = Cov(Z²), elementwise squares, where E ZᵢZⱼZₖ = 0.

        Raises:
            InputError: the oracle has none.
        """
        raise _checks.InputError(
            f"{type(self).__name__} has no covariance of its squared noise: SDEs of order 2 need "
            "an oracle with a squares_root(x), as GaussianNoise has it"
        )

    def at(self, x: Any) -> "Oracle":
        """The oracle with its noise's law at x, to be asked for `cdf` and `density_at_zero`."""
        return self

    def cdf(self, z: Any) -> Any:
        """P(Zᵢ <= zᵢ) coordinate by coordinate, where the coordinates are independent.

        Raises:
            InputError: the oracle has none.
        """
        raise _checks.InputError(
            f"{type(self).__name__} has no distribution function: this needs an oracle with a "
            "cdf(z), as GaussianNoise and StudentTNoise have it"
        )

    def density_at_zero(self) -> Any:
        """The density of Zᵢ at 0, a scalar or `(d,)`, where the coordinates are independent.

        Raises:
            InputError: the oracle has none.
        """
        raise _checks.InputError(
            f"{type(self).__name__} has no density: this needs an oracle with a density_at_zero(), "
            "as GaussianNoise and StudentTNoise have it"
        )

    def probability_zero(self, gradient: Any) -> Any:
        """P(∇f + Z = 0), coordinate by coordinate, at this ∇f; 0 where Z has a density."""
        return jax.tree.map(jnp.zeros_like, gradient)

    @property
    def additive(self) -> bool:
        """Whether Z does not depend on x, so that a draw's Jacobian is that of the mean."""
        return False

    def atoms(self, x: Any) -> Atoms | None:
        """The law of a draw where it is one of finitely many, else None.

        Oracles whose draws are polynomials in normals may give a quadrature that is exact for what
        is made of them, and say so.
        """
        return None

    def brownian(self, x: Any, draw: Any) -> Any:
        """The unit normals that an SDE shares with a normal draw, which moves ∇f + Z as they do."""
        return draw

    def gradient(self, x: Any) -> Any:
        """∇f(x) = E sample_gradient(x, draw)."""
        return self.problem.gradient(x)


def check_problem(problem: Any) -> None:
    """Refuses what has no loss and gradient."""
    if not (hasattr(problem, "loss") and hasattr(problem, "gradient")):
        raise _checks.InputError(
            f"{type(problem).__name__} is no problem: subclass jaxsde.problems.Problem with a loss"
        )


def unit_draws(x0: PyTree, law: Law) -> PyTree[Draw]:
    """One draw for every array of x."""
    return jax.tree.map(lambda leaf: Draw(leaf.shape, law), x0)


def noise_scale(name: str, value: Any) -> Float[Array, ""] | Float[Array, " d"]:
    """A positive scalar or vector of standard deviations.

    Raises:
        InputError: not positive and finite, or of higher rank.
    """
    _checks.positive(name, value)
    scale = jnp.asarray(value, float)
    if scale.ndim > 1:
        raise _checks.InputError(
            f"{name} must be a scalar or (d,), got shape {scale.shape}; pass a matrix as covariance"
        )
    return scale


def check_fits(name: str, shape: tuple[int, ...], x0: PyTree) -> None:
    """Refuses a parameter of shape (d,) or (d, d) on a point that is not one (d,) array."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(x0)]
    if shape and shapes != [shape[:1]]:
        raise _checks.InputError(f"{name} has shape {shape} but x has {shapes}")


def check_size(name: str, shape: tuple[int, ...], x0: PyTree) -> None:
    """Refuses a parameter of shape (d, d) on a point of another number of coordinates."""
    size = sum(np.size(leaf) for leaf in jax.tree.leaves(x0))
    if shape[0] != size:
        raise _checks.InputError(f"{name} has shape {shape} but x has {size} coordinates")


def over_coordinates(
    matrix: Float[Array, "d d"], x: PyTree, tags: Any = frozenset()
) -> lx.AbstractLinearOperator:
    """The matrix as an operator on points like x, over their coordinates in leaf order."""
    if isinstance(x, jax.Array | np.ndarray) and jnp.ndim(x) == 1:
        return lx.MatrixLinearOperator(matrix, tags)
    unravel = jax.flatten_util.ravel_pytree(x)[1]
    return lx.FunctionLinearOperator(
        lambda v: unravel(matrix @ jax.flatten_util.ravel_pytree(v)[0]),
        jax.eval_shape(lambda: x), tags,
    )  # fmt: skip


def diagonal(value: Array, x: PyTree) -> lx.DiagonalLinearOperator:
    """The operator diag(value), value broadcast to every array of x."""
    return lx.DiagonalLinearOperator(
        jax.tree.map(lambda leaf: jnp.broadcast_to(value, leaf.shape).astype(leaf.dtype), x)
    )


def columns_root(columns: PyTree[Array]) -> lx.FunctionLinearOperator:
    """w ↦ Σ_c w_c column_c, a root of Σ_c column_c column_cᵀ, of columns stacked `(m, ...)`."""
    leaves = jax.tree.leaves(columns)
    structure = jax.ShapeDtypeStruct(leaves[0].shape[:1], jnp.result_type(*leaves))

    def apply(w):
        return jax.tree.map(lambda column: jnp.tensordot(w, column, 1), columns)

    return lx.FunctionLinearOperator(apply, structure)


def symmetric_root(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """V diag(√λ) Vᵀ, which exists for singular matrices too; negative λ count as 0."""
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0))[None, :]) @ vectors.T
