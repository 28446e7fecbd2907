"""Linear chains that follow an optimizer and its SDE and have exactly known moments.

For each side, with its state z (all floating arrays in one vector) and features φ of its own noise,

    δ_{k+1} = A_k δ_k + B_k φ_k,    δ₀ = 0,    E φ = 0,    Cov φ = Φ known,

A_k and B_k from the least squares of z_{k+1} - E z_{k+1} on z_k - E z_k and φ_k over a pilot's
paths. Whatever they are, E δ = 0 and Cov δ = P with P_{k+1} = A P Aᵀ + B Φ Bᵀ exactly: the
better they fit, the more of z - E z is known.
"""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.stats
from jaxtyping import Array, Float, PyTree

from jaxsde import engine
from jaxsde.engine import Draw, Index, Normal, Rademacher, StudentT, Uniform
from jaxsde.engine.devices import paths_mesh
from jaxsde.engine.inputs import struct
from jaxsde.engine.noise import Law
from jaxsde.engine.sharding import compiled
from jaxsde.processes import Levels, PairedDraw, Refined

LARGEST = 64  # entries of a state, of a draw, or of a batch's counts that a surrogate follows
THRESHOLDS = np.array([-1.2, -0.6, 0.0, 0.6, 1.2])  # of the signs of a normal draw
CONDITION = 1e-10  # of the least squares, in units of the largest singular value


class Features(NamedTuple):
    """Functions of one entry of a draw, mean 0, and their covariance between each other."""

    of: Any
    covariance: Float[np.ndarray, "m m"]


NONE = Features(lambda value: jnp.zeros(0), np.zeros((0, 0)))


def features(law: Law, shape: tuple[int, ...]) -> Features:
    """φ of a draw, one function after the other, and Φ; none of a draw with many entries.

    Normal ξ: ξ, (ξ² - 1)/√2, and sign(ξ - a) less its mean at five a. Student-t: its sign.
    Rademacher: itself. Uniform u: √12 (u - 1/2), sign(u - 1/2). Index: how often each example is
    drawn, less its mean.
    """
    size = int(np.prod(shape))
    if size > LARGEST:
        return NONE
    match law:
        case Normal():
            fns, one = _of_normal()
        case Rademacher():
            fns, one = [lambda v: v], np.eye(1)
        case Uniform():
            fns = [lambda v: np.sqrt(12) * (v - 0.5), lambda v: jnp.sign(v - 0.5)]
            one = np.array([[1, np.sqrt(3) / 2], [np.sqrt(3) / 2, 1]])
        case StudentT():
            fns, one = [jnp.sign], np.eye(1)
        case Index() if law.n * size <= LARGEST:
            return _counts(law, size)
        case _:
            return NONE

    def of(value):
        return jnp.concatenate([jnp.ravel(fn(value)) for fn in fns])

    return Features(of, np.kron(one, np.eye(size)))


def _of_normal() -> tuple[list, Float[np.ndarray, "7 7"]]:
    """ξ, (ξ² - 1)/√2, and sign(ξ - a) less its mean at some a."""
    a, cdf, density = THRESHOLDS, scipy.stats.norm.cdf(THRESHOLDS), scipy.stats.norm.pdf(THRESHOLDS)

    def jump(at, mean):
        return lambda v: jnp.sign(v - at) - mean

    jumps = [jump(at, 1 - 2 * below) for at, below in zip(a, cdf, strict=True)]
    one = np.eye(2 + len(a))
    one[0, 2:] = one[2:, 0] = 2 * density
    one[1, 2:] = one[2:, 1] = np.sqrt(2) * a * density
    one[2:, 2:] = 1 - 2 * np.abs(cdf[:, None] - cdf) - np.outer(1 - 2 * cdf, 1 - 2 * cdf)
    return [lambda v: v, lambda v: (v**2 - 1) / np.sqrt(2), *jumps], one


def _counts(law: Index, size: int) -> Features:
    """Multinomial counts, hypergeometric without replacement."""
    n, b = law.n, law.batch
    finite = 1 if law.replace else (n - b) / max(n - 1, 1)
    one = finite * b * (np.eye(n) / n - 1 / n**2)

    def of(value):
        drawn = jnp.reshape(value, (size, 1, b)) == jnp.arange(n)[None, :, None]
        return jnp.ravel(jnp.sum(drawn, axis=-1) - b / n)

    return Features(of, np.kron(np.eye(size), one))


def vector(state: PyTree) -> Float[Array, " n"]:
    """z: the floating arrays of a state; one 0 in the place of a large one, which none follows."""
    floating = [jnp.ravel(leaf) for leaf in jax.tree.leaves(state) if eqx.is_inexact_array(leaf)]
    z = jnp.concatenate(floating)
    return z if z.size <= LARGEST else jnp.zeros(1)


def with_vector(state: PyTree, z: Float[Array, " n"]) -> PyTree:
    """The state with z in the place of its floating arrays."""
    floating, rest = eqx.partition(state, eqx.is_inexact_array)
    return eqx.combine(jax.flatten_util.ravel_pytree(floating)[1](z), rest)


def sides(levels: Levels) -> tuple:
    """The optimizer's state, then the SDE's at every level."""
    return (levels.optimizer, *levels.sdes)


def noises(chain: Refined, draw: PairedDraw) -> list[PyTree]:
    """What drives each side in a step: the optimizer's draw, the units of every level."""
    return [chain.pairs[-1].optimizer_draw(draw), *chain.units(draw)]


def declared(chain: Refined, x0: PyTree) -> list[list[Features]]:
    """The features of each side's draws; those of an SDE's substeps are ξ itself."""
    finest = chain.pairs[-1]
    own = [features(d.law, d.shape) for d in _draws(finest.optimizer.noise(x0))]
    unit = _draws(finest.noise(x0).unit[0])
    sizes = [int(np.prod(draw.shape)) for draw in unit]
    substep = [Features(jnp.ravel, np.eye(n)) if n <= LARGEST else NONE for n in sizes]
    return [own, *(substep * pair.substeps for pair in chain.pairs)]


def _draws(tree: PyTree) -> list[Draw]:
    return jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Draw))


def featured(chain: Refined, x0: PyTree, draw: PairedDraw) -> tuple[Float[Array, " m"], ...]:
    """φ of each side."""
    found = []
    for side, own in zip(noises(chain, draw), declared(chain, x0), strict=True):
        leaves = jax.tree.leaves(side)
        values = [feature.of(value) for feature, value in zip(own, leaves, strict=True)]
        found.append(jnp.concatenate([jnp.zeros(0), *values]))
    return tuple(found)


class Transition(NamedTuple):
    """A chain's state, and by side the vectors z_k and φ_k of the step that led to it."""

    levels: Levels
    before: tuple[Float[Array, " n"], ...]
    features: tuple[Float[Array, " m"], ...]


class Transitions(eqx.Module):
    """The chain, with what a linear model of each step is fitted to."""

    chain: Refined
    dt: Any = 1.0
    t0: Any = 0.0

    def noise(self, x0):
        """The chain's."""
        return self.chain.noise(x0)

    def init(self, x0, draw):
        """No step has been made."""
        levels = self.chain.init(x0, draw)
        before = tuple(vector(side) for side in sides(levels))
        return Transition(
            levels, before, tuple(jnp.zeros_like(phi) for phi in featured(self.chain, x0, draw))
        )

    def step(self, k, state, draw):
        """One step of the chain."""
        before = tuple(vector(side) for side in sides(state.levels))
        phi = featured(self.chain, self.chain.position(state.levels).optimizer, draw)
        return Transition(self.chain.step(k, state.levels, draw), before, phi)

    def position(self, state):
        """(z_k, φ_k, z_{k+1}) of each side."""
        return [
            jnp.concatenate([before, phi, vector(side)])
            for before, phi, side in zip(
                state.before, state.features, sides(state.levels), strict=True
            )
        ]


class Linear(NamedTuple):
    """A side's surrogate over K steps, and the mean and covariance after `steps` of them.

    Fields:
        A: `(K, n, n)`.
        B: `(K, n, m)`.
        mean: E z as the pilot has it, `(n,)`; no expectation below depends on it.
        covariance: P, exact, `(n, n)`.
    """

    A: Float[np.ndarray, "K n n"]
    B: Float[np.ndarray, "K n m"]
    mean: Float[np.ndarray, " n"]
    covariance: Float[np.ndarray, "n n"]


def fit(chain: Refined, x0: PyTree, steps: int, longest: int, paths: int, key) -> list[Linear]:
    """The surrogates of every side, from `paths` paths; arrays are padded to `longest` steps.

    A side has none, A = B = 0, where its state is large or its moments are not finite.
    """
    records = np.minimum(np.arange(1, longest + 1), steps).astype(np.int32)
    means, covariances = _moments(paths_mesh(None), chain, x0, key, paths, records)
    x, found = struct(x0, jnp.result_type(float)), []
    for mean, covariance, own in zip(means, covariances, declared(chain, x), strict=True):
        blocks = [feature.covariance for feature in own]
        m = sum(len(block) for block in blocks)
        n = (mean.shape[1] - m) // 2
        A, B, P = np.zeros((longest, n, n)), np.zeros((longest, n, m)), np.zeros((n, n))
        if np.all(np.isfinite(covariance)):
            model = _least_squares(covariance[:steps], n + m)
            P = _propagated(model[..., :n], model[..., n:], blocks)
            if np.all(np.isfinite(P)):
                A[:steps], B[:steps] = model[..., :n], model[..., n:]
        followed = np.any(A) or np.any(B)
        found.append(Linear(A, B, mean[steps - 1, n + m :], P if followed else np.zeros((n, n))))
    return found


@compiled
def _moments(mesh, chain, x0, key, paths: int, records):
    process = Transitions(chain)
    watched = {
        str(i): engine.with_covariance(functools.partial(_take, i))
        for i in range(len(chain.pairs) + 1)
    }
    started = engine.start(process, x0, key, paths)
    _, recorded = engine.evolve(process, started, key, 0, 0, records, watched)
    moments = [record.moments for record in recorded.values()]  # the samples are never made
    return [m.mean for m in moments], [m.deviation / m.used[:, None, None] for m in moments]


def _take(i: int, values: list) -> Array:
    return values[i]


def _least_squares(covariance: Float[np.ndarray, "K q q"], inputs: int) -> np.ndarray:
    """Cov(output, input) Cov(input)⁺ at every step, inputs in units of their spread."""
    scale = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)[:, :inputs])
    unit = 1 / np.where(scale > 0, scale, 1)
    within = unit[:, :, None] * covariance[:, :inputs, :inputs] * unit[:, None, :]
    across = covariance[:, inputs:, :inputs] * unit[:, None, :]
    inverse = np.linalg.pinv(within, rcond=CONDITION, hermitian=True)
    return across @ inverse * unit[:, None, :]


def _propagated(A: np.ndarray, B: np.ndarray, blocks: list[np.ndarray]) -> np.ndarray:
    """P after all steps."""
    P = np.zeros(A.shape[1:])
    phi = scipy.linalg.block_diag(np.zeros((0, 0)), *blocks)
    for a, b in zip(A, B, strict=False):
        P = a @ P @ a.T + b @ phi @ b.T
    return P
