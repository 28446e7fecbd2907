"""Means and covariances of what one step makes of its draws, by enumeration or a fixed sample."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks
from jaxsde.engine import noise
from jaxsde.oracles import Oracle
from jaxsde.oracles._oracle import ENUMERABLE

KEY = np.array([0x6A09E667, 0xBB67AE85], np.uint32)  # of the fixed sample, and of no user's run


class StepLaw(NamedTuple):
    """Cases of a step's draws, a tuple of each `(m, ...)`, and weights `(m,)`.

    `mean` weighs means, `spread` the squares of deviations from them.
    """

    draws: tuple
    mean: Float[Array, " m"]
    spread: Float[Array, " m"]


def step_law(oracle: Oracle, x: Any, slots: int = 1, samples: int | None = None) -> StepLaw:
    """`slots` independent draws of the oracle, a tuple of them: all cases, or `samples` of them.

    The sample is one and the same at every time and on every path, so that an SDE made of it has
    deterministic coefficients.

    Raises:
        InputError: no sample is asked for and the draws cannot be enumerated.
    """
    if samples is not None:
        return _sampled(oracle, x, slots, samples)
    one = oracle.atoms(x)
    if one is None or len(one.weights) ** slots > ENUMERABLE:
        raise _checks.InputError(
            f"the draws of this {type(oracle).__name__} cannot be enumerated, and no closed form "
            "is known: give the SDE a number of `samples` to take its coefficients from, many more "
            "than x has coordinates"
        )
    places = np.indices((len(one.weights),) * slots).reshape(slots, -1)
    draws = tuple(jax.tree.map(lambda draw, own=own: draw[own], one.draws) for own in places)
    weights = jnp.prod(jnp.stack([one.weights[own] for own in places]), axis=0)
    return StepLaw(draws, weights, weights)


def _sampled(oracle: Oracle, x: Any, slots: int, samples: int) -> StepLaw:
    dtype = jnp.result_type(float, *jax.tree.leaves(x))
    declared = (oracle.noise(x),) * slots
    with jax.ensure_compile_time_eval():
        paths = jnp.arange(samples, dtype=jnp.uint32)
        packed = noise.blocks(declared, jnp.asarray(KEY), np.uint32(0), paths, dtype)
        values = noise.values(declared, packed, 0, dtype)
        draws = jax.tree.map(lambda value: jnp.moveaxis(value, -1, 0), values)
    mean, spread = (jnp.full(samples, 1 / count, dtype) for count in (samples, samples - 1))
    return StepLaw(draws, mean, spread)


def each(fn: Callable, law: StepLaw) -> PyTree[Array]:
    """fn(*draws) of every case, stacked."""
    return jax.vmap(lambda draws: fn(*draws), axis_size=law.mean.size)(law.draws)


def mean(values: PyTree[Array], law: StepLaw) -> PyTree[Array]:
    """E v of stacked values."""
    return jax.tree.map(lambda value: jnp.tensordot(law.mean, value, 1), values)


def deviations(values: PyTree[Array], law: StepLaw) -> PyTree[Array]:
    """v - E v of stacked values, weighted so that the sum of their products is Cov v."""
    return jax.tree.map(
        lambda value, centre: _over(jnp.sqrt(law.spread), value) * (value - centre[None]),
        values, mean(values, law),
    )  # fmt: skip


def _over(weights: Array, value: Array) -> Array:
    return weights.reshape(-1, *(1,) * (value.ndim - 1)).astype(value.dtype)
