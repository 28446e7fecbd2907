"""Means, variances and covariances over paths: streamed, merged stably, survivors counted."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


class Moments(NamedTuple):
    """Sums over the paths whose value and square are finite in every component.

    JAX arrays in the engine, NumPy's in an `Ensemble` (T records; `...` the observable's shape):
        used: how many paths those are, `(T,)`.
        mean: their mean, `(T, ...)`.
        deviation: Σ (v - mean)², or Σ (v - mean)(v - mean)ᵀ when covariances are kept, with
            shape `(T, ...)` or `(T, k, k)` for k components.
    """

    used: Any
    mean: Any
    deviation: Any


def moments(
    value: Float[Array, "... paths"], counted: Bool[Array, " paths"], covariance: bool
) -> Moments:
    """The moments of one observable at one time, by two passes over the paths (axis -1).

    Both passes are shifted by the first path's value, so that equal paths have no variance at all.
    """
    finite = jnp.isfinite(value) & jnp.isfinite(value * value)
    used = jnp.all(finite, axis=tuple(range(value.ndim - 1))) & counted
    weight = used.reshape((1,) * (value.ndim - 1) + used.shape)
    count = jnp.sum(used, dtype=jnp.int32)
    total = jnp.maximum(count, 1).astype(value.dtype)
    shift = jnp.where(finite[..., :1], value[..., :1], 0)
    shifted = jnp.where(weight, value - shift, 0)
    mean = jnp.sum(shifted, axis=-1, keepdims=True) / total
    centred = jnp.where(weight, shifted - mean, 0)
    mean = jnp.where(count > 0, (shift + mean)[..., 0], 0)
    if not covariance:
        return Moments(count, mean, jnp.sum(centred**2, axis=-1))
    flat = centred.reshape(-1, value.shape[-1])
    return Moments(count, mean, jnp.matmul(flat, flat.T, precision="highest"))


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of two disjoint sets of paths together (Chan et al. 1979), on the host.

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
        a.mean + delta * over(b.used / n, delta),
        a.deviation + b.deviation + square * over(a.used * b.used / n, square),
    )


def over(weight: np.ndarray, value: np.ndarray) -> np.ndarray:
    """A weight for each record, `(T,)`, with axes of length 1 to stand beside values `(T, ...)`."""
    return np.reshape(weight, np.shape(weight) + (1,) * (value.ndim - 1))
