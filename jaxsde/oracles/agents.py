"""Many agents, each with a gradient oracle and a compressor of its own."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
from jaxtyping import PyTree, Scalar

from jaxsde import _checks
from jaxsde.engine.noise import Draw, is_draw
from jaxsde.oracles._oracle import Oracle
from jaxsde.oracles._stacked import Stacked
from jaxsde.oracles.compressors import Compressor, Identity, Unbiased, Vector
from jaxsde.problems import Problem


class AgentsDraw(NamedTuple):
    """The agents' draws, each `(N, ...)`: of their gradients and of their compressors."""

    gradient: PyTree
    compression: PyTree


class Normals(NamedTuple):
    """Of the agents' noise, `(N, ...)` where it is correlated, and the rest, `(d,)` or `(N, d)`."""

    noise: PyTree
    rest: Any


class Agents(Oracle):
    """N agents that draw independent gradients at one point and send them compressed to a server.

    Agent i has its own oracle, gᵢ = ∇fᵢ(x) + Zᵢ, and compressor Cᵢ; f = (1/N) Σ fᵢ. A sample is
    all agents' gradients, stacked `(N, ...)`, of which `compress` makes messages. The law
    (`gradient`, `covariance` and its root) is that of the mean message (1/N) Σ Cᵢ(gᵢ).

    What all agents share (the problem, say) is held and computed once; what differs is one more
    axis of the same arrays, and `each` maps over it.

    Args:
        oracles: one an agent, of one kind: they may differ in numbers (scale, batch size, data),
            not in the law of their draws.
        compressor: one for all, or one an agent, of one kind; `Identity()` by default.

    Raises:
        InputError: no agent, agents or compressors of different kinds or shapes, or not as many
            compressors as agents.
    """

    members: Stacked
    compressors: Stacked
    count: int = eqx.field(static=True)
    one_problem: bool = eqx.field(static=True)

    def __init__(self, oracles: Sequence[Oracle], compressor=None):
        oracles = _members("agents", Oracle, oracles)
        self.count = len(oracles)
        self.members = Stacked.of("agents", oracles)
        problems = Stacked.of("problems", [oracle.problem for oracle in oracles])
        self.one_problem = not any(problems.differs)
        self.compressors = _compressors(compressor, self.count)

    @classmethod
    def of(
        cls, count: int, oracle: Callable[..., Oracle], problem: Problem, compressor=None, **values
    ) -> "Agents":
        """`count` agents on one problem: oracle(problem, **values) each.

        Args:
            count: N.
            oracle: `GaussianNoise`, `StudentTNoise`, ...
            problem: f, every agent's.
            compressor: as in the class.
            values: the oracle's other arguments: a number is every agent's, a sequence or array has
                one entry an agent. An array for all, such as a covariance, is `[array] * count`.

        Raises:
            InputError: N below 1, sequences of another length than N, or what the oracle refuses.
        """
        count = _checks.at_least("agents", count, 1)
        many = {
            name: value for name, value in values.items()
            if isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0
        }  # fmt: skip
        for name, value in many.items():
            if len(value) != count:
                raise _checks.InputError(
                    f"{name} has {len(value)} entries for {count} agents: give one number for "
                    "all, or one entry an agent, [value] * agents where all have one array"
                )
        values = {  # one array for all, which `Stacked` knows again where it is traced
            name: jnp.asarray(value, float) if isinstance(value, float) else value
            for name, value in values.items()
        }
        own = [{name: value[i] for name, value in many.items()} for i in range(count)]
        return cls([oracle(problem, **(values | mine)) for mine in own], compressor)

    def with_compressor(self, compressor: Compressor | Sequence[Compressor]) -> "Agents":
        """The same agents with another compressor."""
        return eqx.tree_at(
            lambda agents: agents.compressors, self, _compressors(compressor, self.count)
        )

    @property
    def problem(self) -> Problem:  # pyright: ignore[reportIncompatibleVariableOverride]
        """f."""
        return self.members.first.problem if self.one_problem else MeanProblem(self)

    def each(self, fn: Callable, *args: PyTree, out_axes: Any = 0) -> PyTree:
        """fn(oracle, compressor, *args) of every agent, stacked; args are stacked too."""

        def one(oracle, compressor, args):
            return fn(self.members.one(oracle), self.compressors.one(compressor), *args)

        over_agents = jax.vmap(one, out_axes=out_axes, axis_size=self.count)
        return over_agents(self.members.own, self.compressors.own, args)

    def noise(self, x0: PyTree) -> AgentsDraw:
        """N slots of an agent's draws, and N of its compressor's.

        Raises:
            InputError: the agents' noise differs in law, or a level does not suit x0.
        """
        self.members.first.noise(x0)
        try:
            gradient = self.each(lambda oracle, _: oracle.noise(x0), out_axes=None)
        except ValueError as error:
            raise _checks.InputError(
                "the agents' draws must have one law (one number of degrees of freedom, say): "
                "only what scales them may differ"
            ) from error
        size = sum(leaf.size for leaf in jax.tree.leaves(x0))
        compression = self.compressors.tree.noise(size)

        def slots(draw):
            return Draw((self.count, *draw.shape), draw.law)

        return jax.tree.map(slots, AgentsDraw(gradient, compression), is_leaf=is_draw)

    def sample_gradient(self, x: Any, draw: AgentsDraw) -> Any:
        """gᵢ = ∇fᵢ(x) + Zᵢ of all agents, stacked `(N, ...)`."""
        return self.each(lambda oracle, _, z: oracle.sample_gradient(x, z), draw.gradient)

    def brownian(self, x: Any, draw: AgentsDraw) -> Any:
        """W = Σ Rᵢ Wᵢ/√(Σ Rᵢ²), which moves (1/N) Σ Zᵢ; all Wᵢ where a covariance is a matrix."""
        W = self.each(lambda oracle, _, xi: oracle.brownian(x, xi), draw.gradient)
        if not self._independent(x):
            return W

        def noise(oracle, _, W):
            root = oracle.covariance_root(x)
            return root.mv(W), jax.tree.map(jnp.square, root.diagonal)

        moved, variance = self.each(noise, W)
        return jax.tree.map(
            lambda z, v: jnp.sum(z, axis=0) / jnp.sqrt(jnp.sum(v, axis=0)), moved, variance
        )

    def _independent(self, x: Any) -> bool:
        """Whether every agent's noise has independent coordinates."""
        return isinstance(self.members.first.covariance(x), lx.DiagonalLinearOperator)

    def compress(self, gradients: Any, draw: AgentsDraw) -> Any:
        """The messages Cᵢ(gᵢ), stacked `(N, ...)`."""

        def message(oracle, compressor, g, u):
            flat, unravel = jax.flatten_util.ravel_pytree(g)
            return unravel(compressor.apply(flat, u))

        return self.each(message, gradients, draw.compression)

    def gradient(self, x: Any) -> Any:
        """∇f(x) = (1/N) Σ ∇fᵢ(x)."""
        return self.problem.gradient(x)

    def covariance(self, x: Any) -> lx.AbstractLinearOperator:
        """(1/N²) Σ Cov Cᵢ(gᵢ).

        Raises:
            InputError: a biased compressor, or noise without a covariance.
        """
        root = self.covariance_root(x)
        if isinstance(root, lx.DiagonalLinearOperator):
            return lx.DiagonalLinearOperator(jax.tree.map(jnp.square, root.diagonal))
        return lx.TaggedLinearOperator(root @ root.T, lx.positive_semidefinite_tag)

    def covariance_root(self, x: Any) -> lx.AbstractLinearOperator:
        """R with R Rᵀ = (1/N²) Σ Cov Cᵢ(gᵢ), Cov Cᵢ(gᵢ) = (1 - cᵢ) Σᵢ + diag(Dᵢ) - cᵢ Gᵢ Gᵢᵀ.

        Diagonal where all Σᵢ are and no compressor couples coordinates. Otherwise a sum of factors
        without a factorisation, each on normals of its own (`Normals`): √(1 - cᵢ) Σᵢ^{1/2}/N for
        every agent where Σᵢ is a matrix (a diagonal one joins Dᵢ), and a closed root of
        diag(Dᵢ) - cᵢ Gᵢ Gᵢᵀ, once where all agents have one ∇f, else for every agent.

        Raises:
            InputError: a biased compressor, or noise without a covariance.
        """
        self.check_unbiased()
        compressor, first, N = self.compressors.tree, self.members.first, self.count
        compressor.check_noise(first)
        unravel = jax.flatten_util.ravel_pytree(x)[1]
        c, D, G = self.each(lambda oracle, compressor: compressor.induced_by(oracle, x))
        independent = self._independent(x)
        if independent:
            D += (1 - c)[:, None] * self.each(lambda oracle, _: _ravel(oracle.variance(x)))
        if independent and not compressor.couples:
            return lx.DiagonalLinearOperator(unravel(jnp.sqrt(jnp.sum(D, axis=0)) / N))
        if self.one_problem or not compressor.couples:
            rest = functools.partial(_downdated, jnp.sum(D, axis=0), jnp.sum(c), G[0])
            shape = D.shape[1:]
        else:
            rest, shape = functools.partial(_sum_downdated, D, c, G), D.shape
        if independent and shape == D.shape[1:]:
            return lx.FunctionLinearOperator(
                lambda w: unravel(rest(_ravel(w)) / N), jax.eval_shape(lambda: x)
            )

        def noise(oracle, _, c, w):
            return jnp.sqrt(1 - c) * _ravel(oracle.covariance_root(x).mv(w))

        def apply(normals):
            moved = rest(normals.rest)
            if not independent:
                moved += jnp.sum(self.each(noise, c, normals.noise), axis=0)
            return unravel(moved / N)

        own = None if independent else self._stacked(first.covariance_root(x).in_structure())
        structure = Normals(own, jax.ShapeDtypeStruct(shape, D.dtype))
        return lx.FunctionLinearOperator(apply, structure)

    def _stacked(self, structure: PyTree) -> PyTree:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((self.count, *leaf.shape), leaf.dtype), structure
        )

    def check_unbiased(self) -> None:
        """Refuses a biased compressor, whose mean message is not ∇f."""
        if not isinstance(self.compressors.tree, Unbiased):
            raise _checks.InputError(
                f"{type(self.compressors.tree).__name__} is biased, and this needs an unbiased "
                "compressor; the SDE of signs is DSignSGD"
            )


class MeanProblem(Problem):
    """f(x) = (1/N) Σ fᵢ(x) of agents with problems of their own."""

    agents: Agents

    def loss(self, x: Any) -> Scalar:
        """(1/N) Σ fᵢ(x)."""
        return jnp.mean(self.agents.each(lambda oracle, _: oracle.problem.loss(x)))

    def gradient(self, x: Any) -> Any:
        """(1/N) Σ ∇fᵢ(x)."""
        gradients = self.agents.each(lambda oracle, _: oracle.gradient(x))
        return jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)


def _downdated(D: Vector, c: Scalar, G: Vector, w: Vector) -> Vector:
    """R w with R Rᵀ = diag(D) - c G Gᵀ, positive semidefinite: √D (w - (u·w) u/(1 + √(1 - |u|²))).

    u = √c G/√D, so that R = √D √(I - u uᵀ).
    """
    root = jnp.sqrt(D)
    u = jnp.where(D > 0, jnp.sqrt(c) * G / jnp.where(D > 0, root, 1), 0)
    left = jnp.sqrt(jnp.maximum(1 - jnp.sum(u**2), 0))
    return root * (w - jnp.sum(u * w) * u / (1 + left))


def _sum_downdated(D, c, G, w):
    return jnp.sum(jax.vmap(_downdated)(D, c, G, w), axis=0)


def _ravel(tree: PyTree) -> Vector:
    return jax.flatten_util.ravel_pytree(tree)[0]


def _compressors(given: Any, count: int) -> Stacked:
    if given is None or isinstance(given, Compressor):
        given = [Identity() if given is None else given] * count
    members = _members("compressors", Compressor, given)
    if len(members) != count:
        raise _checks.InputError(
            f"{len(members)} compressors for {count} agents: give one for all, or one an agent"
        )
    return Stacked.of("compressors", members)


def _members(name: str, kind: type, given: Any) -> list:
    """The list; refuses what is no list of such objects."""
    members = list(given) if isinstance(given, Iterable) else None
    if members is None or not all(isinstance(member, kind) for member in members):
        raise _checks.InputError(f"{name} must be a list of jaxsde {kind.__name__}s, got {given!r}")
    if not members:
        raise _checks.InputError(f"{name} must be at least one")
    return members
