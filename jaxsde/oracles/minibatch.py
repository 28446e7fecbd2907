"""Gradients of a few terms of a sum."""

import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Int, PyTree

from jaxsde import _checks
from jaxsde.engine.noise import Draw, Index
from jaxsde.oracles._oracle import ENUMERABLE, Atoms, Oracle, columns_root
from jaxsde.problems import FiniteSum


class MiniBatch(Oracle):
    """∇ of the mean of B terms of f = (1/n) Σ fᵢ, drawn uniformly.

    With V(x) the covariance of one term's gradient, Σ(x) = V(x)/B with replacement, and without
    it V(x) (n - B)/((n - 1) B). Its root has a column a term, so its Brownian motion is `(n,)`.

    Args:
        problem: f, a finite sum such as `problems.LogisticRegression` or `problems.mean([...])`.
        batch_size: B.
        replace: whether a term may be drawn twice in one batch.

    Raises:
        InputError: a problem that is no finite sum, B below 1 or, without replacement, above n.
    """

    problem: FiniteSum
    batch_size: int = eqx.field(static=True)
    replace: bool = eqx.field(static=True)

    def __init__(self, problem, batch_size=1, replace=True):
        if not isinstance(problem, FiniteSum):
            raise _checks.InputError(
                f"{type(problem).__name__} is no finite sum: a MiniBatch needs a problem on data "
                "or problems.mean([...])"
            )
        self.problem = problem  # pyright: ignore[reportIncompatibleVariableOverride]
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
        """The covariance's diagonal."""
        return jax.tree.map(lambda column: jnp.sum(column**2, axis=0), self._columns(x))

    def covariance_root(self, x: Any) -> lx.FunctionLinearOperator:
        """The columns ∇fᵢ(x) - ∇f(x), each times √(Σ/V)/√n."""
        return columns_root(self._columns(x))

    def _columns(self, x: Any) -> PyTree[Array]:
        n, B = self.problem.count, self.batch_size
        shrunk = 1 / B if self.replace else (n - B) / (max(n - 1, 1) * B)
        terms = jax.vmap(lambda i: self.problem.part(i[None]).gradient(x))(jnp.arange(n))
        return jax.tree.map(
            lambda term: np.sqrt(shrunk / n) * (term - jnp.mean(term, axis=0, keepdims=True)), terms
        )

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
