"""Simulated values of cases: one compiled program for all settings of one optimizer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsde
from jaxsde.engine import Estimate

PATHS = 200_000


def of_position(
    process: Any,
    x0: Any,
    steps: int,
    observable: Callable,
    *,
    offset: float = 0.0,
    paths: int | None = None,
) -> Callable[[jax.Array], Estimate]:
    """The mean of a function of the position after so many steps, in float32.

    Args:
        process: an optimizer or an SDE; made by a factory and numbers, it compiles once.
        x0: the start, `(d,)`.
        steps: how many.
        observable: a module-level function of the position; a new one compiles anew.
        offset: a known number taken off it, the squared mean of a variance.
        paths: how many, `PATHS` if not said.
    """

    def simulate(key: jax.Array) -> Estimate:
        ensemble = jaxsde.simulate(
            process, jnp.asarray(np.asarray(x0), jnp.float32), steps=steps,
            paths=paths or PATHS, key=key, records=[steps], observables={"value": observable},
        )  # fmt: skip
        return Estimate(ensemble.mean("value")[-1] - offset, ensemble.standard_error("value")[-1])

    return simulate


def first(x: jax.Array) -> jax.Array:
    """x₁."""
    return x[0]


def square(x: jax.Array) -> jax.Array:
    """x₁²."""
    return x[0] ** 2
