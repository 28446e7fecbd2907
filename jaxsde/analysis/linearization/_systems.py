"""Chains and SDEs as systems of n real numbers: the mean field, and the noise's covariance."""

import abc
import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxsde.analysis.linearization import _cases
from jaxsde.analysis.linearization._cases import Cases
from jaxsde.engine import Draw, Rademacher, noise
from jaxsde.oracles import Agents, Oracle
from jaxsde.processes import OptimizerProcess
from jaxsde.sdes import SDE


class System(eqx.Module):
    """s, the n floating numbers of a state in leaf order, with the drift G(s) and noise Q(s).

    For a chain G(s) = E step(s) - s and Q = Cov step(s), for an SDE G is the drift and Q = B Bᵀ.
    """

    chain: Any
    template: PyTree
    late: Array

    @abc.abstractmethod
    def field(self, s: Float[Array, " n"]) -> Float[Array, " n"]:
        """G."""

    @abc.abstractmethod
    def noise(self, s: Float[Array, " n"]) -> Float[Array, "n n"]:
        """Q."""

    @property
    def discrete(self) -> bool:
        """Whether it is a chain."""
        return True

    def state(self, s: Float[Array, " n"]) -> PyTree:
        """The state of these numbers."""
        leaves, treedef = jax.tree.flatten(self.template)
        ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
        parts = jnp.split(s, ends)
        return treedef.unflatten(
            part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)
        )

    def position(self, s: Float[Array, " n"]) -> PyTree:
        """x."""
        return self.chain.position(self.state(s))

    def of(self, chain: Any) -> "System":
        """The system of another chain or SDE of the same kind, in other hyperparameters."""
        return dataclasses.replace(self, chain=doubled(chain))


class Flow(System):
    """An SDE at a late time."""

    @property
    def discrete(self) -> bool:
        """False."""
        return False

    @property
    def sde(self) -> SDE:
        """The SDE."""
        return self.chain

    def field(self, s):
        """The drift."""
        y = self.state(s)
        drift = self.sde.drift(self.late, y, None)
        return flat(jax.tree.map(lambda b, y: jnp.broadcast_to(b, y.shape) + 0.0, drift, y))

    def noise(self, s):
        """B Bᵀ."""
        diffusion = self.sde.diffusion(self.late, self.state(s), None)
        w = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), diffusion.in_structure())
        B = [jnp.zeros((s.size, 0))]
        B += jax.tree.leaves(jax.jacfwd(lambda w: flat(diffusion.mv(w)))(w))
        B = jnp.concatenate([column.reshape(s.size, -1) for column in B], axis=1)
        return B @ B.T


class EulerChain(Flow):
    """An SDE under a scheme of Euler's, whose step has the mean s + b dt and the noise dt B Bᵀ."""

    @property
    def discrete(self) -> bool:
        """True."""
        return True

    @property
    def sde(self) -> SDE:
        """The SDE."""
        return self.chain.sde

    def field(self, s):
        """b dt."""
        return self.chain.dt * super().field(s)

    def noise(self, s):
        """dt B Bᵀ."""
        return self.chain.dt * super().noise(s)


class Chain(System):
    """A process at a late step, its draws averaged over cases.

    Whole numbers in the state that count its steps are late too; others stay as they are.
    """

    rest: PyTree
    cases: Cases | None
    counts: tuple[bool, ...] = eqx.field(static=True)

    def state(self, s):
        """The state of these numbers."""
        leaves, treedef = jax.tree.flatten(self.rest)
        rest = treedef.unflatten(
            jnp.full_like(leaf, self.late) if counts else leaf
            for leaf, counts in zip(leaves, self.counts, strict=True)
        )
        return eqx.combine(super().state(s), rest)

    def step(self, s: Float[Array, " n"], draw: PyTree) -> Float[Array, " n"]:
        """The state after a step."""
        return flat(self.chain.step(self.late, self.state(s), draw))

    def weights(self, s: Float[Array, " n"]) -> Float[Array, "p n"]:
        """Of the cases."""
        assert self.cases is not None
        return self.cases.weights

    def field(self, s):
        """E step(s) - s, block after block of the cases."""
        assert self.cases is not None
        cases = (self.cases.draws, self.weights(s))
        blocks = jax.tree.map(
            lambda leaf: leaf.reshape(-1, min(_cases.BLOCK, len(leaf)), *leaf.shape[1:]), cases
        )

        def add(total, block):
            draws, weights = block
            return total + jnp.sum(
                weights * (self._steps(s, draws, len(weights)) - s[None]), 0
            ), None

        return jax.lax.scan(add, jnp.zeros_like(s), blocks)[0]

    def noise(self, s):
        """Cov step(s)."""
        assert self.cases is not None
        weights = self.weights(s)
        y = self._steps(s, self.cases.draws, len(weights)) - s[None]
        deviation = y - jnp.sum(weights * y, axis=0, keepdims=True)
        return jnp.where(self.cases.together, (weights * deviation).T @ deviation, 0)

    def _steps(self, s, draws, count) -> Float[Array, "p n"]:
        return jax.vmap(lambda draw: self.step(s, draw), axis_size=count)(draws)


class Given(Oracle):
    """An oracle whose gradients are the draws themselves: all signs of those of another."""

    oracle: Oracle

    def __init__(self, oracle: Oracle):
        self.oracle = oracle

    @property
    def problem(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """Its problem."""
        return self.oracle.problem

    def noise(self, x0: Any) -> PyTree[Draw]:
        """±1 for each number of a sampled gradient."""
        draw = noise.structure(self.oracle.noise(x0), float)
        like = jax.eval_shape(self.oracle.sample_gradient, x0, draw)
        return jax.tree.map(lambda leaf: Draw(leaf.shape, Rademacher()), like)

    def negative(self, x: Any) -> PyTree[Array]:
        """P(g < 0), of all agents where it is many."""

        def one(oracle, _=None):
            return oracle.at(x).cdf(jax.tree.map(jnp.negative, oracle.gradient(x)))

        return self.oracle.each(one) if isinstance(self.oracle, Agents) else one(self.oracle)

    def sample_gradient(self, x: Any, draw: Any) -> Any:
        """The draw."""
        return draw

    def covariance(self, x: Any) -> Any:
        """The other's."""
        return self.oracle.covariance(x)

    def covariance_root(self, x: Any) -> Any:
        """The other's."""
        return self.oracle.covariance_root(x)


class SignChain(Chain):
    """An optimizer of which a step knows the gradient's signs alone.

    Each sign is -1 with probability P(g < 0), on its own: the cases are all that meet, and their
    weights, not the steps, are what depends on the gradient at s.
    """

    members: Int[Array, "n R"]

    def of(self, chain):
        """The same with the signs of its gradients."""
        return super().of(with_signs(chain))

    def weights(self, s):
        """The product of P and 1 - P."""
        assert self.cases is not None
        negative = self.chain.oracle.negative(self.position(s))
        return _cases.sign_weights(self.cases.draws, negative, self.members)


class Told(Chain):
    """A process that tells its mean map, and perhaps the covariance of a step."""

    def field(self, s):
        """`mean_step` - s."""
        return flat(self.chain.mean_step(self.late, self.state(s))) - s

    def noise(self, s):
        """`step_covariance`, or Cov step(s) over cases."""
        if self.cases is None:
            return jnp.asarray(self.chain.step_covariance(self.late, self.state(s)), float)
        return super().noise(s)


def flat(tree: PyTree) -> Float[Array, " n"]:
    """The floating arrays of the tree as one vector, in leaf order."""
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return jnp.concatenate([jnp.ravel(leaf).astype(float) for leaf in leaves])


def doubled(tree: PyTree) -> PyTree:
    """The tree with its floating arrays in float64."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, float) if eqx.is_inexact_array(leaf) else leaf, tree
    )


def with_signs(process: OptimizerProcess) -> OptimizerProcess:
    """The process whose draws are the signs of its gradients."""
    return eqx.tree_at(lambda p: p.oracle, process, Given(process.oracle))
