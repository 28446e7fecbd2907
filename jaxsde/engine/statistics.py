"""Means, variances and covariances over paths: streamed, merged stably, survivors counted."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Moments(NamedTuple):
    """Sums over the paths whose value and square are finite in every component.

    Fields (T records; `...` the observable's shape):
        used: how many paths those are, `(T,)`.
        mean: their mean, `(T, ...)`.
        deviation: Σ (v - mean)², or Σ (v - mean)(v - mean)ᵀ when covariances are kept, with
            shape `(T, ...)` or `(T, k, k)` for k components.
    """

    used: Int[Array, "..."] | np.ndarray
    mean: Float[Array, "..."] | np.ndarray
    deviation: Float[Array, "..."] | np.ndarray


def moments(
    value: Float[Array, "... paths"], counted: Bool[Array, " paths"], covariance: bool
) -> Moments:
    """The moments of one observable at one time, by two passes over the paths (axis -1)."""
    finite = jnp.isfinite(value) & jnp.isfinite(value * value)
    used = jnp.all(finite, axis=tuple(range(value.ndim - 1))) & counted
    weight = used.reshape((1,) * (value.ndim - 1) + used.shape)
    count = jnp.sum(used, dtype=jnp.int32)
    total = jnp.maximum(count, 1).astype(value.dtype)
    mean = jnp.sum(jnp.where(weight, value, 0), axis=-1) / total
    centred = jnp.where(weight, value - mean[..., None], 0)
    if not covariance:
        return Moments(count, mean, jnp.sum(centred**2, axis=-1))
    flat = centred.reshape(-1, value.shape[-1])
    return Moments(count, mean, flat @ flat.T)


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of two disjoint sets of paths together (Chan, Golub and LeVeque 1979), on the host.

    With δ = mean_b - mean_a and n = n_a + n_b:
    mean = mean_a + δ n_b/n,  deviation = deviation_a + deviation_b + δ² n_a n_b/n.
    """
    n = np.maximum(a.used + b.used, 1)
    delta = b.mean - a.mean
    flat = delta.reshape(len(delta), -1)
    if a.deviation.shape == delta.shape:
        square = delta**2
    else:
        square = flat[:, :, None] * flat[:, None, :]
    return Moments(
        a.used + b.used,
        a.mean + delta * _over(b.used / n, delta),
        a.deviation + b.deviation + square * _over(a.used * b.used / n, square),
    )


def _over(weight: np.ndarray, value: np.ndarray) -> np.ndarray:
    return weight.reshape(weight.shape + (1,) * (value.ndim - 1))
