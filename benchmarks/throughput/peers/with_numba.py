"""Numba: one fused kernel, parallel over paths, SplitMix64 and Box-Muller by hand.

By hand because `np.random.normal` in a kernel is less than half as fast.
"""

import math
from collections.abc import Callable

import numba
import numpy as np

from benchmarks.throughput.cases import Case
from benchmarks.throughput.peers import moments
from benchmarks.throughput.peers.numba_steps import EQUATIONS, f32, njit

PACKAGES = ("numba", "llvmlite", "numpy")
u64 = np.uint64
TILE = 64  # coordinates that a loop goes over
GOLDEN, TURN = u64(0x9E3779B97F4A7C15), f32(2 * math.pi * 2.0**-32)


def build(case: Case, variant: str) -> Callable | None:
    """The equation's kernel, with its parameters for so many steps."""
    if case.equation not in EQUATIONS:
        return None
    advance, parameters, rows = EQUATIONS[case.equation]
    dense = hasattr(case.parameters, "H")
    kernel, loss = _kernel(advance), _dense_loss if dense else _loss
    tile = 1 if dense else max(1, TILE // case.d)  # paths side by side
    start = np.tile(rows(case), tile)

    def run(steps, seed):
        given = parameters(case, steps, tile)
        x = kernel(start, -(-case.paths // tile), steps, seed, given)
        return moments(loss(case, x.reshape(-1, case.d)[: case.paths]))

    return run


def device() -> tuple[str, None]:
    """The threads."""
    return f"cpu, {numba.get_num_threads()} threads", None


@njit
def _mix(z):
    z = (z ^ (z >> u64(30))) * u64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> u64(27))) * u64(0x94D049BB133111EB)
    return z ^ (z >> u64(31))


@njit
def _normals(counter, xi):
    """Fills xi, of even length, from one 64-bit word a pair; returns the next counter."""
    for i in range(0, len(xi), 2):
        counter += GOLDEN
        word = _mix(counter)
        u = (f32(np.uint32(word >> u64(32))) + f32(0.5)) * f32(2.0**-32)
        angle = f32(np.uint32(word & u64(0xFFFFFFFF))) * TURN
        radius = math.sqrt(f32(-2) * math.log(u))
        xi[i], xi[i + 1] = radius * math.cos(angle), radius * math.sin(angle)
    return counter


def _kernel(advance: Callable) -> Callable:
    @numba.njit(parallel=True, fastmath=True)
    def kernel(start, tiles, steps, seed, parameters):
        d = start.shape[1]
        final = np.empty((tiles, d), np.float32)
        for tile in numba.prange(tiles):
            counter = _mix(_mix(u64(seed)) + u64(tile))
            state, xi = start.copy(), np.empty((2, d), np.float32)
            for k in range(steps):
                if k % 2 == 0:
                    counter = _normals(counter, xi.reshape(2 * d))
                advance(state, xi[k % 2], k, parameters)
            final[tile] = state[0]
        return final

    return kernel


def _loss(case: Case, x: np.ndarray) -> np.ndarray:
    return x.sum(1) if case.equation == "gbm" else (case.parameters.h * x**2).sum(1) / 2


def _dense_loss(case: Case, x: np.ndarray) -> np.ndarray:
    return (x * (x @ case.parameters.H)).sum(1) / 2
