"""The engines that are compared.

A peer is a module with `PACKAGES` (whose versions matter) and `build(case, variant)`, which returns
`run(steps, seed) -> (mean, variance)` of f over the paths after that many steps, in full, or None
where the peer has no such case; and optionally `device() -> (name, peak bytes or None)`.
"""

import dataclasses
from typing import Any

import numpy as np

AT_END = "f at the end: mean, variance"


@dataclasses.dataclass(frozen=True)
class Peer:
    """Where an engine is and how it is used; `equations` names those it has, all if empty."""

    name: str
    module: str
    variant: str = ""
    settings: str = ""
    statistics: str = AT_END
    environment: tuple[tuple[str, str], ...] = ()
    equations: tuple[str, ...] = ()


def _ours(name: str, module: str, variant: str, settings: str, **rest: Any) -> Peer:
    return Peer(name, f"benchmarks.throughput.peers.{module}", variant, settings, **rest)


_DIFFRAX = "Euler, ForwardMode, ConstantStepSize, SaveAt(t1=True), no throw, jit; "
_JAX = "jit, fori_loop, jax.random.normal every step; "
PEERS = {
    peer.name: peer
    for peer in (
        _ours(
            "jaxsde", "with_jaxsde", "", "simulate(records=1), use_all_cores()",
            statistics="f at the start and the end: mean, variance, the first 4,096 paths' values",
        ),
        _ours("jax-paths-last", "with_jax", "last", _JAX + "state (d, paths)"),
        _ours("jax-paths-first", "with_jax", "first", _JAX + "state (paths, d), optax vmapped"),
        _ours("diffrax-unsafe", "with_diffrax", "unsafe", _DIFFRAX + "UnsafeBrownianPath, vmap"),
        _ours(
            "jax-monte-carlo", "with_monte_carlo", "",
            "jit, fori_loop, vmap; 10 draws each for the drift, the first-order covariance and the "
            "mean in it, as the published script; eigh every step",
            equations=("sam",),
        ),
        _ours(
            "diffrax-unsafe-joint", "with_diffrax", "joint",
            _DIFFRAX + "UnsafeBrownianPath, one solve of a (d, paths) state",
        ),
        _ours(
            "diffrax-tree", "with_diffrax", "tree",
            _DIFFRAX + "VirtualBrownianTree(tol=dt/2), vmap",
        ),
        _ours(
            "torchsde", "with_torchsde", "",
            "sdeint(method='euler'), BrownianInterval, no_grad, all threads",
        ),
        _ours("pytorch", "with_pytorch", "", "in-place operations, no_grad, all threads"),
        _ours(
            "numpy", "with_numpy", "", "SFC64, out=, blocks that fit the cache, a thread a core",
            environment=(("OPENBLAS_NUM_THREADS", "1"),),  # each of our threads calls it
        ),
        _ours("numba", "with_numba", "", "one fused kernel, prange over paths, fastmath"),
    )
}  # fmt: skip


def moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and variance over paths, in float64."""
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.var(ddof=1))
