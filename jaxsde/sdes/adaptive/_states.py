"""States of the adaptive methods' SDEs in the papers' letters, and what the constructors share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Scalar

from jaxsde import _checks
from jaxsde.oracles import Oracle
from jaxsde.sdes._sde import check_order, check_variance

V_TIMINGS = ("new", "old")


class RMSpropState(NamedTuple):
    """X, the position; V, the second moment."""

    X: PyTree
    V: PyTree


class AdamState(NamedTuple):
    """X, the position; M, the momentum; V, the second moment."""

    X: PyTree
    M: PyTree
    V: PyTree


class BatchEquivalentRMSpropState(NamedTuple):
    """theta, the position; u = v/σ², the second moment in units of the noise."""

    theta: PyTree
    u: PyTree


class BatchEquivalentAdamState(NamedTuple):
    """theta, the position; m, the momentum; u = v/σ², the second moment in units of the noise."""

    theta: PyTree
    m: PyTree
    u: PyTree


class Noises(NamedTuple):
    """W drives the gradient, B the second moment."""

    W: PyTree
    B: PyTree


def check_form(oracle: Oracle, order: int, v_timing: str) -> None:
    """Refuses an unknown order or timing, and noise without a variance."""
    check_order(order)
    _checks.known("v_timing", v_timing, V_TIMINGS)
    check_variance(oracle)


def second_moment(initial: Any, eps: Any) -> Float[Array, "..."] | None:
    """v₀ as an array; refuses a negative one, and 0 where nothing else bounds the first step."""
    if initial is None:
        return None
    _checks.nonnegative("initial_second_moment", initial)
    known, floor = _checks.concrete(initial), _checks.concrete(eps)
    if known is not None and floor is not None and floor == 0 and np.any(known == 0):
        raise _checks.InputError(
            "initial_second_moment = 0 with eps = 0 divides by zero: give a positive one or a "
            "positive eps, or leave it out to start where the second moment is at rest"
        )
    return jnp.asarray(initial, float)


def start(t0: Any, singular: bool, step: Array) -> Float[Array, ""]:
    """t₀: by default 0, or one step where the bias correction is singular at 0.

    Raises:
        InputError: t₀ is negative, or 0 where that is singular.
    """
    if t0 is None:
        return step if singular else jnp.zeros(())
    _checks.nonnegative("t0", t0)
    known = _checks.concrete(t0)
    if singular and known is not None and known == 0:
        raise _checks.InputError(
            "the bias correction of this form divides by zero at t = 0: give a t0 > 0, or leave it "
            "out to start one step late"
        )
    return jnp.asarray(t0, float)


def like(value: Array, x: PyTree) -> PyTree:
    """The value broadcast to every array of x."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(value, leaf.shape).astype(leaf.dtype), x)


def gathered(b: Array, steps: Any) -> Array:
    """1 - βᵏ: the weight that an average of memory β has gathered after k steps, k real."""
    return -jnp.expm1(jnp.log(b) * steps)


def inverse_root(v: PyTree) -> PyTree:
    """1/√v where v > 0, else 0."""
    return jax.tree.map(lambda v: jnp.where(v > 0, jax.lax.rsqrt(jnp.where(v > 0, v, 1)), 0), v)


def share_below(v: PyTree, floor: PyTree) -> Scalar:
    """The share of entries of v below those of floor."""
    below = [
        jnp.ravel(v < f) for v, f in zip(jax.tree.leaves(v), jax.tree.leaves(floor), strict=True)
    ]
    return jnp.mean(jnp.concatenate(below))
