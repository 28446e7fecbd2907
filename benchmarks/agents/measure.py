"""Has the engines run in turn, and makes a row of each."""

import functools
import importlib.metadata
import math
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.agents.cases import AGENTS, CASES, HAND_WRITTEN_KEEP, LEARNING_RATE, D, Size
from benchmarks.agents.engines import ENGINES, HAND_WRITTEN, with_jax, with_jaxsde, with_pytorch
from benchmarks.throughput import measure as throughput
from benchmarks.throughput.peers.with_jax import device
from jaxsde.engine import noise

PACKAGES = ("jaxsde", "jax", "jaxlib", "equinox", "optax", "numpy")


def measured(name: str, size: Size, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for every engine: first calls, a check of the results, then repeats A B C A B C ..."""
    processes, rows, runs = CASES[name].processes(), {}, {}
    for engine, build in _engines(name, processes, size.paths).items():
        tell(f"{name}: first calls of {engine}")
        rows[engine] = {"case": name, "peer": engine, "settings": ENGINES[engine], "status": "ok"}
        try:
            runs[engine] = build()
        except ModuleNotFoundError as error:
            rows[engine]["status"] = f"skipped: {error.name} is not installed"
            continue
        rows[engine] |= _first_calls(runs[engine], size, engine in HAND_WRITTEN)
    for repeat in range(1, size.repeats + 1):
        for engine, run in runs.items():
            tell(f"{name}: repeat {repeat} of {size.repeats}, {engine}")
            rows[engine]["seconds"].append(_timed(run, rows[engine]["steps"], repeat)[0])
    for engine in runs:
        rows[engine] |= _summary(rows[engine], size)
    rows["words"]["words_per_second"] = (
        size.paths * size.steps * _words(processes["words"]) / rows["words"]["median_seconds"]
    )
    throughput.compare([row for row in rows.values() if row["peer"] not in ("words", "sde")])
    _add_ratio(rows["jaxsde"], "of_words", rows["words"])
    _add_ratio(rows["sde"], "of_optimizer", rows["jaxsde"])
    return list(rows.values())


def _engines(name: str, processes: dict[str, Any], paths: int) -> dict[str, Callable]:
    engines = {
        engine: functools.partial(with_jaxsde, process, paths)
        for engine, process in processes.items()
    }
    if name in HAND_WRITTEN_KEEP:
        kept = HAND_WRITTEN_KEEP[name]
        engines["jax"] = functools.partial(with_jax, kept, paths)
        engines["pytorch"] = functools.partial(with_pytorch, kept, paths)
    return engines


def _timed(run: Callable, steps: int, seed: int) -> tuple[float, Any]:
    """Seconds, and what it gave."""
    time.sleep(throughput.PAUSE)
    began = time.perf_counter()
    result = run(steps, seed)
    return time.perf_counter() - began, result


def _first_calls(run: Callable, size: Size, few: bool) -> dict[str, Any]:
    first, (warm, (mean, variance)) = _timed(run, size.check, 0)[0], _timed(run, size.check, 0)
    return {
        "first_call_seconds": first, "compile_seconds": first - warm,
        "check_steps": size.check, "check_mean": mean, "check_variance": variance,
        "steps": size.check if few else size.steps, "seconds": [],
    }  # fmt: skip


def _summary(row: dict[str, Any], size: Size) -> dict[str, Any]:
    packages = ("torch", "numpy") if row["peer"] == "pytorch" else PACKAGES
    median = statistics.median(row["seconds"])
    return {
        "agents": AGENTS, "paths": size.paths, "d": D, "learning_rate": LEARNING_RATE,
        "dtype": "float32", "device": "cpu" if row["peer"] == "pytorch" else device()[0],
        "median_seconds": median,
        "agent_coordinates_per_second": size.paths * AGENTS * D * row["steps"] / median,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }  # fmt: skip


def _words(process: Any) -> int:
    """How many values one path draws a step."""
    draws = jax.tree.leaves(process.noise(jnp.ones(D)), is_leaf=noise.is_draw)
    return sum(math.prod(draw.shape) for draw in draws)


def _add_ratio(row: dict[str, Any], name: str, other: dict[str, Any]) -> None:
    """The row's seconds over the other's, each repeat by itself."""
    ratios = [a / b for a, b in zip(row["seconds"], other["seconds"], strict=True)]
    row[name], row[f"{name}_range"] = statistics.median(ratios), [min(ratios), max(ratios)]
