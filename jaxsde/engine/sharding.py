"""One shard of the paths a device."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, UInt32

from jaxsde.engine.batching import Paths
from jaxsde.engine.devices import CPU_OPTIONS


def specs(paths: Paths) -> Paths:
    """How each leaf is spread: the paths over devices, what is shared everywhere."""
    return jax.tree.map(
        lambda leaf, shared: (
            PartitionSpec() if shared else PartitionSpec(*[None] * (leaf.ndim - 1), "paths")
        ),
        paths,
        eqx.tree_at(lambda p: p.leaves, paths, list(paths.shared)),
    )


def compiled(fn: Callable) -> Callable:
    """`fn(mesh, ...)` compiled, for CPU with options of its own."""
    options: dict[str, Any] = {"compiler_options": CPU_OPTIONS}
    plain, on_cpu = eqx.filter_jit(fn), eqx.filter_jit(fn, **options)

    def call(mesh, *args):
        platform = mesh.devices.flat[0].platform
        return (on_cpu if platform == "cpu" else plain)(mesh, *args)

    return call


def first_of_shard(first_path: UInt32[Array, ""], size: int) -> UInt32[Array, ""]:
    """The global index of a device's first path, of `size` on each."""
    return first_path + jax.lax.axis_index("paths").astype(jnp.uint32) * np.uint32(size)


def sharded(fn: Callable, mesh, args: tuple, in_specs: tuple, out_specs: Any) -> Any:
    """`jax.shard_map` over arguments that hold more than arrays."""
    arrays, static = eqx.partition(args, eqx.is_array)

    def body(*arrays):
        return fn(*eqx.combine(arrays, static))

    mapped = jax.shard_map(body, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return mapped(*arrays)


def put(paths: Paths, leaves: list[np.ndarray]) -> Paths:
    """The paths in a saved state, on the devices where they were."""
    placed = [
        jax.device_put(leaf.view(like.dtype), like.sharding)
        for leaf, like in zip(leaves, paths.leaves, strict=True)
    ]
    return eqx.tree_at(lambda p: p.leaves, paths, placed)
