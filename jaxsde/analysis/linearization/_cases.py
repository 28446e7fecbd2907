"""Finitely many cases of a step's draws, weighted so that means over them are expectations."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxsde import _checks
from jaxsde.engine import Draw, Index, Normal, Rademacher, StudentT, Uniform
from jaxsde.engine.noise import is_draw

CASES = 4096  # at most
BLOCK = 64  # cases are a multiple of it, or fewer
_SMOOTH = (Normal, Uniform, StudentT)


class Cases(NamedTuple):
    """Cases of a step's draws, each `(p, ...)`, and their weights in each of n numbers it makes.

    Draws that meet in no number are independent for all that follows, so they are not combined
    with one another: one case holds a node of each. `together` says which numbers share draws;
    the others have no covariance.
    """

    draws: PyTree
    weights: Float[Array, "p n"]
    together: Bool[Array, "n n"]


class Groups(NamedTuple):
    """The U single draws in groups that meet.

    Fields:
        axis: of each single draw, its place in its group, `(U,)`.
        members: of each number, the single draws of its group, `(n, R)`, U for none.
        together: which numbers have a group in common.
    """

    axis: Int[np.ndarray, " U"]
    members: Int[np.ndarray, "n R"]
    together: Bool[np.ndarray, "n n"]


def groups(touched: Bool[np.ndarray, "U n"]) -> Groups:
    """The connected parts of the relation `touched`: draw u moves number i."""
    U, n = touched.shape
    graph = (
        scipy.sparse.block_array([[None, touched], [touched.T, None]]) if U else np.zeros((n, n))
    )
    label = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    axis = np.zeros(U, int)
    for part in np.unique(label[:U]):
        axis[label[:U] == part] = np.arange(np.sum(label[:U] == part))
    members = np.full((label.max() + 1, np.max(axis, initial=-1) + 1), U)
    members[label[:U], axis] = np.arange(U)
    of_number = label[U:]
    return Groups(axis, members[of_number], of_number[:, None] == of_number[None, :])


def quadrature(declared: PyTree[Draw], found: Groups, coarse: bool = False) -> Cases:
    """Cases for E y and Cov y of smooth functions y of the draws.

    R draws that meet get the product of rules with m points each, 128 for R = 1 and as many as make
    m^R <= 4096 beyond. That of normals is the trapezoidal rule up to 9.5 for m >= 48 (its error
    where y has a pole at distance a from the real axis is e^(-2πa/h), h the spacing) and Gauss's,
    of degree 2m - 1, below; that of uniform draws Gauss's; that of Student-t the trapezoidal rule
    after τ = sinh((π/2) sinh u) (Takahasi and Mori 1974). Finite laws have all their values. Where
    m < 6 is left and all are normal, there is a rule of degree 5 with 2R² + 1 points (McNamee and
    Stenger 1967): exact where y is of degree 2, since Cov y is then of degree 4.

    Args:
        declared: the draws.
        found: which of them meet.
        coarse: other cases, as many, to see from the difference how exact the first are: 3m/4
            points, or the rule of degree 5 turned.

    Raises:
        InputError: too many draws meet, or a law that has no rule.
    """
    leaves, treedef = jax.tree.flatten(declared, is_leaf=is_draw)
    for draw in leaves:
        if isinstance(draw.law, StudentT) and float(draw.law.degrees_of_freedom) <= 2:
            raise _checks.InputError(
                f"Student-t noise with {float(draw.law.degrees_of_freedom):g} degrees of freedom "
                "has infinite variance: such a step has no covariance"
            )
    R = found.members.shape[1]
    smooth = any(isinstance(draw.law, _SMOOTH) for draw in leaves)
    m = _nodes(R)
    if smooth and m < 6 and all(isinstance(draw.law, Normal) for draw in leaves):
        places, weight = _degree_five(R, coarse)
        values = [places[:, own] for own in _axes(leaves, found)]
        weights = np.broadcast_to(weight[:, None], (len(weight), len(found.members)))
        return _padded(treedef, values, weights, found, len(weight))
    per_axis = int(CASES ** (1 / max(R, 1)) + 1e-9)
    rules = [_rule(draw.law, max(2, 3 * m // 4) if coarse else m) for draw in leaves]
    longest = max((len(weights) for _, weights in rules), default=1)
    if longest > per_axis or (smooth and m < 4):
        raise _checks.InputError(
            f"{R} draws meet in one number of the state, too many to average over: at most "
            f"{CASES} cases are taken; give the process a mean_step and a step_covariance"
        )
    whole = longest if not (smooth and coarse) else max(longest, m)
    index = np.indices((longest,) * R).reshape(R, longest**R).T
    values, own_weights = [], [np.full((len(index), 1), 1 / longest)]
    for (nodes, weights), own in zip(rules, _axes(leaves, found), strict=True):
        short = longest - len(weights)
        nodes = np.concatenate([nodes, np.repeat(nodes[-1:], short, axis=0)])
        values.append(nodes[index[:, own]])
        weights = np.append(weights, np.zeros(short))[index[:, own]]
        own_weights.insert(-1, weights.reshape(len(index), -1))
    each = np.concatenate(own_weights, axis=1)
    return _padded(treedef, values, np.prod(each[:, found.members], axis=2), found, whole**R)


def sign_weights(
    signs: PyTree[Float[Array, "p ..."]],
    negative: PyTree[Float[Array, "..."]],
    members: Int[Array, "n R"],
) -> Float[Array, "p n"]:
    """The weights `(p, n)` of all ±1 that meet, each -1 with the probability `negative`."""

    def weigh(sign, P):
        return jnp.where(sign < 0, P[None], 1 - P[None]).reshape(len(sign), -1)

    each = jax.tree.leaves(jax.tree.map(weigh, signs, negative))
    unused = jnp.full((len(each[0]), 1), 1 / 2)
    return jnp.prod(jnp.concatenate([*each, unused], axis=1)[:, members], axis=2)


def touched(step: Callable, declared: PyTree[Draw]) -> Bool[np.ndarray, "U n"]:
    """Which single draw moves which number of step(draw) `(n,)`.

    Seen by changing it, to another value and to nan, which spreads to all that is computed from
    it. Whole numbers are taken to move everything.
    """
    leaves, treedef = jax.tree.flatten(declared, is_leaf=is_draw)
    sizes = [int(np.prod(draw.shape)) for draw in leaves]
    U, rng, found = sum(sizes), np.random.default_rng(0), False
    for _ in range(2):
        stacks = []
        for i, draw in enumerate(leaves):
            nodes = _rule(draw.law, 8)[0]
            base, other = rng.integers(0, len(nodes), (2, sizes[i]))
            other = np.where(other == base, (base + 1) % len(nodes), other)
            stack = np.repeat(nodes[base][None], 1 + 2 * U, axis=0)
            first, each = 1 + sum(sizes[:i]), np.arange(sizes[i])
            stack[first + each, each] = nodes[other]
            floating = np.issubdtype(nodes.dtype, np.floating)
            stack[U + first + each, each] = np.nan if floating else nodes[other]
            stacks.append(stack.reshape(1 + 2 * U, *draw.shape, *nodes.shape[1:]))
        y = at_each(step, treedef.unflatten(map(jnp.asarray, stacks)))
        moved = y[1:] != y[0]
        found = found | moved[:U] | moved[U:]
    whole = [isinstance(draw.law, Index) for draw in leaves]
    return found | np.repeat(whole, sizes).astype(bool)[:, None]


def at_each(step: Callable, draws: PyTree[Array]) -> Float[np.ndarray, "p n"]:
    """step(draw) of all draws; compiled once for all numbers if it is an `equinox.Module`."""
    return (
        np.asarray(_each(step, draws)) if jax.tree.leaves(draws) else np.asarray(step(draws))[None]
    )


def run_once(fn: Callable) -> Callable:
    """fn compiled as fast as can be where it runs on a CPU, since it runs once or twice."""
    plain = eqx.filter_jit(fn)
    options: dict[str, Any] = {"compiler_options": {"xla_backend_optimization_level": 0}}
    at_once = eqx.filter_jit(fn, **options)

    def call(*args):
        return (at_once if jax.default_backend() == "cpu" else plain)(*args)

    return call


@run_once
def _each(step, draws):
    return jax.vmap(step)(draws)


def sample(declared: PyTree[Draw], size: int, seed: int) -> PyTree[Array]:
    """`size` cases of all draws, each at random from the middle nodes of its law."""
    rng = np.random.default_rng(seed)

    def some(draw):
        nodes = _rule(draw.law, 16)[0]
        nodes = nodes[4:12] if isinstance(draw.law, _SMOOTH) else nodes
        return jnp.asarray(nodes[rng.integers(0, len(nodes), (size, *draw.shape))])

    return jax.tree.map(some, declared, is_leaf=is_draw)


def _nodes(R: int) -> int:
    """128, or for R > 1 the largest even m with m^R <= 4096."""
    m = 128 if R < 2 else int(CASES ** (1 / R) + 1e-9)
    return m - m % 2


def _axes(leaves: list[Draw], found: Groups) -> list[Int[np.ndarray, "..."]]:
    ends = np.cumsum([int(np.prod(draw.shape)) for draw in leaves])[:-1]
    own = np.split(found.axis, ends) if leaves else []
    return [axis.reshape(draw.shape) for axis, draw in zip(own, leaves, strict=True)]


def _padded(treedef: Any, values: list, weights: np.ndarray, found: Groups, size: int) -> Cases:
    """At least `size` cases in full blocks, those added of weight 0."""
    size = size if size <= BLOCK else -(-size // BLOCK) * BLOCK
    more = size - len(weights)
    draws = [np.concatenate([value, np.repeat(value[:1], more, axis=0)]) for value in values]
    weights = np.concatenate([weights, np.zeros((more, weights.shape[1]))])
    draws = treedef.unflatten(map(jnp.asarray, draws))
    return Cases(draws, jnp.asarray(weights), jnp.asarray(found.together))


def _rule(law: Any, m: int) -> tuple[np.ndarray, Float[np.ndarray, " m"]]:
    """The values of one draw and their weights."""
    if isinstance(law, Normal):
        nodes, weights = np.polynomial.hermite_e.hermegauss(m)
        if m >= 48:
            nodes = np.linspace(-9.5, 9.5, m)
            weights = np.exp(-(nodes**2) / 2)
        return nodes, weights / weights.sum()
    if isinstance(law, Uniform):
        nodes, weights = np.polynomial.legendre.leggauss(m)
        return (nodes + 1) / 2, weights / 2
    if isinstance(law, StudentT):
        return _student_t(float(law.degrees_of_freedom), m)
    if isinstance(law, Rademacher):
        return np.array([-1.0, 1.0]), np.full(2, 1 / 2)
    if isinstance(law, Index):
        return _batches(law)
    raise _checks.InputError(f"no rule to average over draws of law {type(law).__name__}")


def _student_t(nu: float, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Even steps of u in τ = sinh((π/2) sinh u), up to where E τ² is gathered to rounding.

    That is ln|τ| = 39/(ν - 2) above ln √ν.
    """
    largest = np.log(2 * np.sqrt(nu)) + 39 / (nu - 2 if nu > 2 else nu)
    u = np.linspace(-1, 1, m) * np.arcsinh(2 / np.pi * largest)
    v = np.pi / 2 * np.sinh(u)
    log_density = -(nu + 1) / 2 * np.log1p(np.exp(2 * np.log(np.abs(np.sinh(v))) - np.log(nu)))
    weights = np.exp(log_density + np.log(np.cosh(v))) * np.cosh(u)
    return np.sinh(v), weights / weights.sum()


def _batches(law: Index) -> tuple[Int[np.ndarray, "m B"], Float[np.ndarray, " m"]]:
    n, B = law.n, law.batch
    if (n**B if law.replace else scipy.special.comb(n, B)) > CASES:
        raise _checks.InputError(
            f"more than {CASES} batches, too many to average over: give the process a mean_step "
            "and a step_covariance, or take a smaller batch"
        )
    choose = (
        itertools.product(range(n), repeat=B)
        if law.replace
        else itertools.combinations(range(n), B)
    )
    batches = np.array(list(choose), np.int32)
    return batches, np.full(len(batches), 1 / len(batches))


def _degree_five(R: int, turned: bool) -> tuple[Float[np.ndarray, "p R"], Float[np.ndarray, " p"]]:
    """0, ±√3 eᵢ and ±√3 eᵢ ± √3 eⱼ with the weights 1 + R (R - 7)/18, (4 - R)/18 and 1/36."""
    if 2 * R**2 + 1 > CASES:
        raise _checks.InputError(
            f"{R} normals meet in one number of the state, too many to average over: at most 45 "
            "may; give the process a mean_step and a step_covariance"
        )
    unit = np.eye(R)
    i, j = np.triu_indices(R, 1)
    pairs = [a * unit[i] + b * unit[j] for a in (1, -1) for b in (1, -1)]
    places = np.sqrt(3) * np.concatenate([np.zeros((1, R)), unit, -unit, *pairs])
    weights = np.full(len(places), 1 / 36)
    weights[0], weights[1 : 2 * R + 1] = 1 + R * (R - 7) / 18, (4 - R) / 18
    if turned:
        places = places @ np.linalg.qr(np.random.default_rng(0).normal(size=(R, R)))[0]
    return places, weights
