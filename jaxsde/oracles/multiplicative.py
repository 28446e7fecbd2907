"""Noise in what couples the players of a game."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float

from jaxsde import _checks
from jaxsde.engine.noise import Draw, Normal, is_draw
from jaxsde.oracles._oracle import ENUMERABLE, Atoms, Oracle
from jaxsde.problems import Players, QuadraticGame
from jaxsde.problems.games import check_players


class MultiplicativeNoise(Oracle):
    """F(z) + σ (Ξ y, -Ξ'ᵀ x): the coupling B of a quadratic game, plus σ times unit normals.

    Ξ is diagonal, as a diagonal B is, or a matrix of independent entries. The two players see one
    Ξ = Ξ', or each one of their own. The noise vanishes at z = 0 (arXiv 2402.12508, in one pair).

    Args:
        problem: the game, a `QuadraticGame`.
        scale: σ.
        matrix: whether Ξ is a matrix where B is diagonal.
        shared: whether Ξ' = Ξ.

    Raises:
        InputError: a problem that is no quadratic game, or σ not positive.
    """

    problem: QuadraticGame
    scale: Float[Array, ""]
    matrix: bool = eqx.field(static=True)
    shared: bool = eqx.field(static=True)

    def __init__(self, problem, scale, matrix=False, shared=True):
        if not isinstance(problem, QuadraticGame):
            raise _checks.InputError(
                f"{type(problem).__name__} is no quadratic game: this noise is in the coupling of "
                "problems.QuadraticGame or problems.BilinearGame"
            )
        _checks.positive_number("scale", scale)
        self.problem = problem  # pyright: ignore[reportIncompatibleVariableOverride]
        self.scale = jnp.asarray(scale, float)
        self.matrix = bool(matrix) or problem.coupling.ndim == 2
        self.shared = shared

    def noise(self, x0: Players) -> Players | Draw:
        """Ξ, or Ξ and Ξ'."""
        check_players(x0)
        shape = (*x0.x.shape, *x0.y.shape) if self.matrix else x0.x.shape
        draw = Draw(shape, Normal())
        return draw if self.shared else Players(draw, draw)

    def sample_gradient(self, x: Players, draw: Any) -> Players:
        """F(z) + σ (Ξ y, -Ξ'ᵀ x)."""
        return jax.tree.map(jnp.add, self.gradient(x), self.covariance_root(x).mv(draw))

    def covariance(self, x: Players) -> lx.AbstractLinearOperator:
        """R Rᵀ of the root R."""
        root = self.covariance_root(x)
        return lx.TaggedLinearOperator(root @ root.T, lx.positive_semidefinite_tag)

    def covariance_root(self, x: Players) -> lx.FunctionLinearOperator:
        """Ξ ↦ σ (Ξ y, -Ξ'ᵀ x)."""

        def apply(draw):
            Xi, Xi_y = Players(draw, draw) if self.shared else draw
            if self.matrix:
                return Players(self.scale * (Xi @ x.y), -self.scale * (Xi_y.T @ x.x))
            return Players(self.scale * Xi * x.y, -self.scale * Xi_y * x.x)

        structure = jax.tree.map(
            lambda draw: jax.ShapeDtypeStruct(draw.shape, x.x.dtype),
            self.noise(x), is_leaf=is_draw,
        )  # fmt: skip
        return lx.FunctionLinearOperator(apply, structure)

    def atoms(self, x: Players) -> Atoms | None:
        """The product of 3-point Gauss-Hermite rules, exact up to degree 5 in every normal.

        None where it has more than some thousands of points.
        """
        structure = self.covariance_root(x).in_structure()
        flat, unravel = jax.flatten_util.ravel_pytree(
            jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), structure)
        )
        if 3**flat.size > ENUMERABLE:
            return None
        nodes, weights = np.polynomial.hermite_e.hermegauss(3)
        points = np.array(list(itertools.product(nodes, repeat=flat.size)))
        masses = np.array(list(itertools.product(weights / weights.sum(), repeat=flat.size)))
        draws = jax.vmap(unravel)(jnp.asarray(points, flat.dtype))
        return Atoms(draws, jnp.asarray(masses.prod(axis=1)))
