"""Means of many terms, of which a mini-batch takes a few."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Scalar

from jaxsde import _checks
from jaxsde.problems._problem import Problem
from jaxsde.problems.games import Game, Players

Rows = Int[Array, " B"]
AT_ONCE = 2**20  # numbers in the gradients of terms that are held side by side


class FiniteSum(Problem):
    """f(x) = (1/n) Σᵢ fᵢ(x), a mean of n terms."""

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """n, the number of terms."""

    @abc.abstractmethod
    def part(self, rows: Rows) -> Problem:
        """(1/B) Σᵢ fᵢ over these terms, a problem of the same kind.

        Args:
            rows: which terms, each in 0 ... n - 1, `(B,)`; a term may be there more than once.
                They may be traced, and are then not checked to be in range.

        Raises:
            InputError: rows are no such array.
        """

    def terms(self, x: Any) -> Float[Array, " n"]:
        """f₁(x), ..., fₙ(x)."""
        return jax.vmap(lambda i: self.part(i[None]).loss(x))(jnp.arange(self.count))

    def weighted_gradient(self, x: Any, weights: Float[Array, " n"]) -> Any:
        """Σᵢ wᵢ ∇fᵢ(x) in one backward pass, with the structure of x; linear in w `(n,)`."""
        return jax.vjp(self.terms, x)[1](weights)[0]

    def gradient_variance(self, x: Any) -> Any:
        """(1/n) Σᵢ (∇fᵢ(x) - ∇f(x))², elementwise, with the structure of x.

        From the gradients of single terms, as many at a time as hold some million numbers.
        """
        mean, n = self.gradient(x), self.count
        at_once = max(1, AT_ONCE // sum(leaf.size for leaf in jax.tree.leaves(mean)))

        def squares(start, weights):
            rows = start + jnp.arange(weights.size)
            terms = jax.vmap(lambda i: self.part(i[None]).gradient(x))(rows)
            return jax.tree.map(
                lambda g, m: jnp.tensordot(weights.astype(g.dtype), (g - m[None]) ** 2, 1),
                terms, mean,
            )  # fmt: skip

        return sum_over_blocks(squares, jnp.full(n, 1 / n), at_once)


def sum_over_blocks(fn: Callable, weights: Float[Array, " n"], size: int) -> Any:
    """Σ fn(first row, weights) over equal blocks of at most `size` rows, held one at a time.

    The last block overlaps with the one before where n is no multiple; rows that were counted there
    have weight 0.
    """
    n = len(weights)
    if n <= size:
        return fn(0, weights)
    size = math.ceil(n / math.ceil(n / size))

    def block(first):
        start = jnp.minimum(first, n - size)
        own = jax.lax.dynamic_slice_in_dim(weights, start, size)
        return fn(start, jnp.where(start + jnp.arange(size) < first, 0, own))

    def add(total, first):
        return jax.tree.map(jnp.add, total, block(first)), None

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(block, jnp.int32(0))
    )
    return jax.lax.scan(add, zeros, jnp.arange(0, n, size))[0]


def check_rows(rows: Any, count: int) -> None:
    """Refuses what does not list at least one of `count` terms."""
    shape, dtype = np.shape(rows), getattr(rows, "dtype", None)
    if dtype is None or not np.issubdtype(dtype, np.integer) or len(shape) != 1 or shape[0] == 0:
        raise _checks.InputError(
            f"rows must be an array (B,) of whole numbers with B of at least 1, "
            f"got shape {shape} and dtype {dtype}"
        )
    known = _checks.concrete(rows)
    if known is not None and not (known.min() >= 0 and known.max() < count):
        raise _checks.InputError(
            f"rows must lie in 0 ... {count - 1}, got {known.min()} ... {known.max()}"
        )


class Supervised(FiniteSum):
    """A mean over rows of data, a row being its features and its label.

    Fields:
        features: A, rows aⱼ, `(n, d)`.
        labels: y, `(n,)`.
    """

    features: Float[Array, "n d"]
    labels: Float[Array, " n"]

    @property
    def count(self) -> int:
        """n, the number of rows."""
        return self.labels.size

    def part(self, rows: Rows) -> Self:
        """The same problem on these rows."""
        check_rows(rows, self.count)
        return eqx.tree_at(
            lambda problem: (problem.features, problem.labels),
            self,
            (self.features[rows], self.labels[rows]),
        )


def mean(problems: Sequence[Problem]) -> "Mean | MeanGame":
    """f = (1/n) Σᵢ fᵢ of n problems of one kind; a game if they are games.

    Args:
        problems: f₁, ..., fₙ of one class, with arrays of the same shapes. All their arrays are
            held, stacked.

    Returns:
        A problem that is a `FiniteSum`. The mean of games is a `Game` with the mean payoff and the
        mean field; its Hamiltonian is that of the mean field.

    Raises:
        InputError: no problems, or problems of several kinds.
    """
    problems = list(problems)
    if not problems or not all(isinstance(problem, Problem) for problem in problems):
        raise _checks.InputError("a mean needs a sequence of at least one problem")
    leaves, structures = zip(*[jax.tree.flatten(problem) for problem in problems], strict=True)
    if any(structure != structures[0] for structure in structures):
        raise _checks.InputError("the problems must be of one class, with the same settings")
    shapes = [tuple(np.shape(leaf) for leaf in own) for own in leaves]
    if any(own != shapes[0] for own in shapes):
        raise _checks.InputError("the problems must have arrays of the same shapes")
    if not leaves[0]:
        raise _checks.InputError(
            f"{type(problems[0]).__name__} has no arrays: all of these problems are the same"
        )
    members = jax.tree.map(lambda *own: jnp.stack(own), *problems)
    return MeanGame(members) if isinstance(members, Game) else Mean(members)


class _Mean(FiniteSum):
    members: Problem  # every array with a leading axis (n,)

    @property
    def count(self) -> int:
        """n, the number of problems."""
        return jax.tree.leaves(self.members)[0].shape[0]

    def part(self, rows: Rows) -> Self:
        """The mean of these problems."""
        check_rows(rows, self.count)
        return type(self)(jax.tree.map(lambda own: own[rows], self.members))

    def gradient(self, x: Any, /) -> Any:
        """(1/n) Σᵢ ∇fᵢ(x); of games, the mean field."""
        return self.average(lambda problem: problem.gradient(x))

    def weighted_gradient(self, x: Any, weights: Float[Array, " n"]) -> Any:
        """Σᵢ wᵢ ∇fᵢ(x), all ∇fᵢ held side by side; of games, of their fields."""
        each = jax.vmap(lambda problem: problem.gradient(x))(self.members)
        return jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), each)

    def average(self, fn: Callable[[Any], Any]) -> Any:
        """(1/n) Σᵢ fn(fᵢ), array by array."""
        return jax.tree.map(lambda each: jnp.mean(each, axis=0), jax.vmap(fn)(self.members))


class Mean(_Mean):
    """f(x) = (1/n) Σᵢ fᵢ(x) of problems of one kind, as `mean` makes it.

    Fields:
        members: the fᵢ as one, every array with a leading axis `(n,)`.
    """

    def loss(self, x: Any) -> Scalar:
        """(1/n) Σᵢ fᵢ(x)."""
        return self.average(lambda problem: problem.loss(x))


class MeanGame(_Mean, Game):
    """The game with payoff (1/n) Σᵢ fᵢ(x, y) of games of one kind, as `mean` makes it.

    Fields:
        members: the games as one, every array with a leading axis `(n,)`.
    """

    def payoff(self, z: Players) -> Scalar:
        """(1/n) Σᵢ fᵢ(x, y)."""
        return self.average(lambda game: game.payoff(z))
