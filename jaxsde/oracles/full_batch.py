"""No noise."""

from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx

from jaxsde.oracles._oracle import Atoms, Oracle, check_problem
from jaxsde.problems import Problem


class FullBatch(Oracle):
    """∇f(x) itself: optimizers become deterministic, their SDEs ordinary differential equations.

    Args:
        problem: f.
    """

    problem: Problem

    def __init__(self, problem):
        check_problem(problem)
        self.problem = problem

    @property
    def additive(self) -> bool:
        """True."""
        return True

    def noise(self, x0: Any) -> tuple[()]:
        """Nothing."""
        return ()

    def sample_gradient(self, x: Any, draw: Any) -> Any:
        """∇f(x)."""
        return self.gradient(x)

    def covariance(self, x: Any) -> lx.DiagonalLinearOperator:
        """0."""
        return lx.DiagonalLinearOperator(jax.tree.map(jnp.zeros_like, x))

    def covariance_root(self, x: Any) -> lx.FunctionLinearOperator:
        """0, of no Brownian motion."""
        return lx.FunctionLinearOperator(lambda _: jax.tree.map(jnp.zeros_like, x), ())

    def atoms(self, x: Any) -> Atoms:
        """The one draw."""
        return Atoms((), jnp.ones(1))
