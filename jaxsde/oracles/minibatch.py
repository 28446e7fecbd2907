"""Gradients of a few terms of a sum."""

import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.special
import lineax as lx
import numpy as np
from jaxtyping import Array, Int, PyTree

from jaxsde import _checks
from jaxsde.engine.noise import Draw, Index
from jaxsde.oracles._oracle import ENUMERABLE, Atoms, Oracle
from jaxsde.problems import FiniteSum


class MinibatchNoise(Oracle):
    """∇ of the mean of B terms of f = (1/n) Σ fᵢ, drawn uniformly.

    With V(x) the covariance of one term's gradient, Σ(x) = V(x)/B with replacement, and without
    it V(x) (n - B)/((n - 1) B). No matrix of the size of x is formed:

        Σ(x)^{1/2} w = √(Σ/V)/√n Σᵢ (wᵢ - w̄) ∇fᵢ(x),    w `(n,)`,

    is one backward pass with a weight for each term, so that the Brownian motion is `(n,)`; the
    diagonal of Σ(x) takes the gradients of single terms, some at a time.

    The noise's law is taken for Gaussian with these variances where an SDE asks for it, as the
    central limit theorem has it for large B. It varies with x, and is asked of `at(x)`.

    Args:
        problem: f, a finite sum such as `problems.LogisticRegression`, `problems.Network` or
            `problems.mean([...])`.
        batch_size: B.
        replace: whether a term may be drawn twice in one batch.

    Raises:
        InputError: a problem that is no finite sum, B below 1 or, without replacement, above n.
    """

    problem: FiniteSum
    held: PyTree[Array] | None
    batch_size: int = eqx.field(static=True)
    replace: bool = eqx.field(static=True)

    def __init__(self, problem, batch_size=1, replace=True):
        if not isinstance(problem, FiniteSum):
            raise _checks.InputError(
                f"{type(problem).__name__} is no finite sum: MinibatchNoise needs a problem on "
                "data or problems.mean([...])"
            )
        self.problem = problem  # pyright: ignore[reportIncompatibleVariableOverride]
        self.held = None
        self.batch_size = _checks.at_least("batch_size", batch_size, 1)
        self.replace = replace
        self._law()

    def _law(self) -> Index:
        return Index(self.problem.count, self.batch_size, self.replace)

    def noise(self, x0: Any) -> Draw:
        """The batch's terms, `(B,)`."""
        return Draw((), self._law())

    def sample_gradient(self, x: Any, draw: Int[Array, " B"]) -> Any:
        """(1/B) Σ ∇fᵢ(x) over the batch."""
        return self.problem.part(draw).gradient(x)

    def covariance(self, x: Any) -> lx.AbstractLinearOperator:
        """V(x)/B, without replacement V(x) (n - B)/((n - 1) B)."""
        root = self.covariance_root(x)
        return lx.TaggedLinearOperator(root @ root.T, lx.positive_semidefinite_tag)

    def variance(self, x: Any) -> Any:
        """diag Σ(x), or what is held of it."""
        if self.held is not None:
            return self.held
        return jax.tree.map(lambda v: self._shrunk * v, self.problem.gradient_variance(x))

    def covariance_root(self, x: Any) -> lx.FunctionLinearOperator:
        """w ↦ √(Σ/V)/√n Σᵢ (wᵢ - w̄) ∇fᵢ(x)."""
        n = self.problem.count

        def apply(w):
            return self.problem.weighted_gradient(
                x, math.sqrt(self._shrunk / n) * (w - jnp.mean(w))
            )

        dtype = jnp.result_type(*jax.tree.leaves(x))
        return lx.FunctionLinearOperator(apply, jax.ShapeDtypeStruct((n,), dtype))

    @property
    def _shrunk(self) -> float:
        """Σ/V."""
        n, B = self.problem.count, self.batch_size
        return 1 / B if self.replace else (n - B) / (max(n - 1, 1) * B)

    def holding(self, variance: Any) -> "MinibatchNoise":
        """The same oracle with this as `variance`, so for the law too; Σ and its root stay."""
        return eqx.tree_at(lambda own: own.held, self, variance, is_leaf=lambda leaf: leaf is None)

    def at(self, x: Any) -> "MinibatchNoise":
        """The oracle with the law of its noise at x."""
        return self.holding(self.variance(x))

    def cdf(self, z: Any) -> Any:
        """P(Zᵢ <= zᵢ) = (1 + erf(zᵢ/√(2 Σᵢᵢ)))/2, Gaussian; a step where Σᵢᵢ = 0."""

        def below(z, s):
            noisy = s > 0
            gaussian = (1 + jax.scipy.special.erf(z / jnp.sqrt(2 * jnp.where(noisy, s, 1)))) / 2
            return jnp.where(noisy, gaussian, (1 + jnp.sign(z)) / 2)

        return jax.tree.map(below, z, self._at_a_point())

    def probability_zero(self, gradient: Any) -> Any:
        """1 where ∇ᵢf = Σᵢᵢ = 0, as for the weights of units that no input wakes; else 0."""

        def rests(g, s):
            return ((g == 0) & (s == 0)).astype(g.dtype)

        return jax.tree.map(rests, gradient, self._at_a_point())

    def density_at_zero(self) -> Any:
        """The density of Zᵢ at 0, 1/√(2π Σᵢᵢ), with the structure of x; ∞ where Σᵢᵢ = 0."""
        return jax.tree.map(lambda s: 1 / jnp.sqrt(2 * np.pi * s), self._at_a_point())

    def _at_a_point(self) -> Any:
        if self.held is None:
            raise _checks.InputError("the noise of mini-batches has a law at a point: ask at(x)")
        return self.held

    def atoms(self, x: Any) -> Atoms | None:
        """All batches, where they are not more than some thousands."""
        n, B = self.problem.count, self.batch_size
        if (n**B if self.replace else math.comb(n, B)) > ENUMERABLE:
            return None
        batches = (
            itertools.product(range(n), repeat=B)
            if self.replace
            else itertools.combinations(range(n), B)
        )
        draws = jnp.asarray(list(batches), jnp.int32)
        return Atoms(draws, jnp.full(len(draws), 1 / len(draws)))
