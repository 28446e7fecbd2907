"""What a run is given, in its dtype, and what made it."""

import functools
import importlib.metadata
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxsde import _checks
from jaxsde.engine.evolve import RandomStart

PACKAGES = ("jaxsde", "jax", "jaxlib", "equinox", "optax", "diffrax", "lineax", "numpy")


def start_point(x0: Any) -> tuple[RandomStart | PyTree, Any]:
    """x0 as arrays, and the run's dtype.

    Raises:
        InputError: float64 without x64, numbers that are not finite, mixed or complex dtypes.
    """
    default = jnp.result_type(float)
    if isinstance(x0, RandomStart):
        return cast(x0, default), default
    for leaf in jax.tree.leaves(x0):
        if getattr(leaf, "dtype", None) == np.float64 and default != np.float64:
            raise _checks.InputError(
                "x0 is float64 but JAX runs in float32: call "
                'jax.config.update("jax_enable_x64", True) first, or pass x0 as float32'
            )
        _checks.finite("x0", leaf)
    x0 = jax.tree.map(jnp.asarray, x0)
    leaves = jax.tree.leaves(x0)
    dtypes = {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)}
    if len(dtypes) > 1 or not leaves:
        raise _checks.InputError("x0 must hold arrays of one floating dtype")
    dtype = dtypes.pop() if dtypes else default
    if dtype not in (np.float32, np.float64):
        raise _checks.InputError(f"x0 must be real, in float32 or float64, not {dtype}")
    return jax.tree.map(lambda leaf: leaf.astype(dtype), x0), dtype


def cast(tree: PyTree, dtype) -> PyTree:
    """The tree with its floating arrays in the run's dtype."""

    def cast(leaf):
        return jnp.asarray(leaf, dtype) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(cast, tree)


def struct(x0: PyTree | RandomStart, dtype) -> PyTree[jax.ShapeDtypeStruct]:
    """The shapes of one path's x0."""
    return x0.struct(dtype) if isinstance(x0, RandomStart) else jax.eval_shape(lambda: x0)


@functools.cache
def version(package: str) -> str:
    """The installed version."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"
