"""NumPy with `out=` everywhere, in blocks of paths that fit the cache, shared by all cores."""

import concurrent.futures
import functools
import os
from collections.abc import Callable

import numpy as np

from benchmarks.throughput.cases import Case
from benchmarks.throughput.peers import moments
from benchmarks.throughput.peers.numpy_loops import LOOPS

PACKAGES = ("numpy", "scipy")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
BLOCK = 2**15  # coordinates


def build(case: Case, variant: str) -> Callable | None:
    """A loop over arrays (d, paths of a block), one block a task."""
    simulate = LOOPS.get(case.equation)
    if simulate is None:
        return None
    rounds = max(1, round(case.paths * case.d / (BLOCK * CORES)))
    sizes = [len(part) for part in np.array_split(np.arange(case.paths), rounds * CORES)]
    pool = concurrent.futures.ThreadPoolExecutor(CORES)

    def run(steps, seed):
        def block(size, seed):
            x = np.repeat(case.x0[:, None], size, 1)
            xi = np.empty_like(x)
            generator = np.random.Generator(np.random.SFC64(seed))
            draw = functools.partial(generator.standard_normal, dtype=np.float32, out=xi)
            return simulate(case, x, draw, steps)

        seeds = np.random.SeedSequence(seed).spawn(len(sizes))
        return moments(np.concatenate(list(pool.map(block, sizes, seeds))))

    return run


def device() -> tuple[str, None]:
    """The cores."""
    return f"cpu, {CORES} threads", None
