"""The host's side of a run: path chunks, time segments, devices, progress."""

import dataclasses
import datetime
import importlib.metadata
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int, PRNGKeyArray, PyTree, UInt32

from jaxsde import _checks
from jaxsde.engine import noise, statistics
from jaxsde.engine.batching import Paths
from jaxsde.engine.devices import paths_mesh
from jaxsde.engine.ensemble import Ensemble
from jaxsde.engine.evolve import SAMPLE, Beginning, Evolution, Process, RandomStart, Record
from jaxsde.engine.observables import Observable, resolve

PACKAGES = ("jaxsde", "jax", "jaxlib", "equinox", "optax", "diffrax", "lineax", "numpy")
SEGMENTS = 20  # time segments of a run, so that progress moves
LANES = 16  # a vector loop's remainder may round differently, so there is none
CHUNK_COORDINATES = 2**22  # state coordinates a device holds by default


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is; `total` and `done` count path-steps, times are in seconds."""

    done: int
    total: int
    elapsed: float

    @property
    def remaining(self) -> float:
        """Seconds left at the pace so far."""
        return self.elapsed * (self.total - self.done) / max(self.done, 1)


def simulate(
    process: Process,
    x0: PyTree | RandomStart,
    *,
    steps: int,
    paths: int,
    key: PRNGKeyArray,
    records: int | Sequence[int] | Int[np.ndarray, " T"] = 100,
    observables: Mapping[str, Callable | Observable] | None = None,
    chunk: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Ensemble:
    """Runs many paths of a process and keeps their statistics at recorded times.

    Args:
        process: an optimizer on an oracle, an SDE under a scheme, the two paired, or any chain of
            yours with the methods of `Process`.
        x0: the start, one point for all paths or a `RandomStart`. Its dtype is the run's.
        steps: of the process; step k leads from time t0 + k dt to t0 + (k + 1) dt.
        paths: how many.
        key: `jax.random.key(seed)`. Path i's noise depends on the key and i only.
        records: how many evenly spaced times to record besides the start, or the steps themselves.
        observables: functions of the position by name, marked by `of_state` or `with_covariance`
            where they read the state or their covariance is wanted. By default those that the
            process offers (`loss`), and `position` when it is small.
        chunk: paths held in memory at a time, rounded up to full vectors; by default some four
            million coordinates a device.
        devices: that share the paths; all by default.
        progress: called after every block of paths and times.

    Returns:
        The ensemble. Paths that diverge are counted in it (`used`), never averaged in.

    Raises:
        InputError: counts below one, records outside the run, x0 in float64 while JAX runs in
            float32, a step that changes shapes, an observable that does not return an array.
    """
    steps, paths = _checks.at_least("steps", steps, 1), _checks.at_least("paths", paths, 1)
    if steps >= 2**31 or paths > 2**31:
        raise _checks.InputError("the noise's counters hold 2³¹ - 1 steps and 2³¹ paths")
    record_steps = _record_steps(records, steps)
    if not isinstance(process, Process):
        raise _checks.InputError(
            f"{type(process).__name__} is no process: it needs init, step, position, noise, dt, t0"
        )
    x0, dtype = _start_point(x0)
    process = _cast(process, dtype)
    watched = _cast(resolve(process, observables, _struct(x0, dtype)), dtype)
    mesh = paths_mesh(devices)
    size = _paths_per_device(process, x0, dtype, paths, chunk, mesh.size)
    began = time.monotonic()

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(Progress(done, total, time.monotonic() - began))

    words = noise.key_words(key)
    tally = _run(process, x0, words, record_steps, watched, paths, size, mesh, report)
    settings = {
        "process": eqx.tree_pformat(process, short_arrays=False),
        "x0": eqx.tree_pformat(x0, short_arrays=False),
        "steps": steps,
        "paths": paths,
        "key": [int(word) for word in words],
        "dtype": str(dtype),
        "chunk": size * mesh.size,
        "devices": [str(device.device_kind) for device in mesh.devices.flat],
        "versions": {name: _version(name) for name in PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began, 3),
        **getattr(process, "settings", dict)(),
    }
    t = float(np.asarray(process.t0)) + record_steps * float(np.asarray(process.dt))
    moments = {name: tally.moments[name] for name in watched}
    return Ensemble(t, record_steps, moments, tally.sample(), paths, json.dumps(settings))


def _run(
    process, x0, words, record_steps, watched, paths: int, size: int, mesh, report: Callable
) -> "_Tally":
    """Chunks of paths through segments of time, `size` paths a device at once."""
    segments = np.array_split(record_steps, min(SEGMENTS, len(record_steps)))
    last = int(record_steps[-1])
    tally = _Tally(paths)
    for first_path in range(0, paths, size * mesh.size):
        state = _start(process, x0, words, np.uint32(first_path), mesh, size)
        here = min(size * mesh.size, paths - first_path)
        blocks, at = [], 0
        for segment in segments:
            stops = np.pad(segment, (0, len(segments[0]) - len(segment)), mode="edge")
            state, recorded = _advance(
                process, state, words, np.uint32(first_path), np.int32(at),
                stops.astype(np.int32), watched, np.uint32(paths), mesh,
            )  # fmt: skip
            at = int(segment[-1])
            blocks.append(jax.block_until_ready(tally.wanted(first_path, recorded, len(segment))))
            report(first_path * last + here * at, paths * last)
        tally.add(blocks)
    return tally


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"


def _record_steps(records: Any, steps: int) -> Int[np.ndarray, " T"]:
    if np.ndim(records) == 0:
        count = _checks.at_least("records", records, 1)
        return np.rint(np.linspace(0, steps, min(count, steps) + 1)).astype(np.int64)
    chosen = np.asarray(records)
    whole = np.issubdtype(chosen.dtype, np.integer) and chosen.ndim == 1 and chosen.size > 0
    if not whole or chosen[0] < 0 or chosen[-1] > steps or np.any(np.diff(chosen) <= 0):
        raise _checks.InputError(f"records must be a count or ascending steps in [0, {steps}]")
    return chosen.astype(np.int64)


def _start_point(x0: Any) -> tuple[RandomStart | PyTree, Any]:
    default = jnp.result_type(float)
    if isinstance(x0, RandomStart):
        return _cast(x0, default), default
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


def _cast(tree: PyTree, dtype) -> PyTree:
    """The tree with its floating arrays in the run's dtype."""

    def cast(leaf):
        return jnp.asarray(leaf, dtype) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(cast, tree)


def _struct(x0: PyTree | RandomStart, dtype) -> PyTree[jax.ShapeDtypeStruct]:
    return x0.struct(dtype) if isinstance(x0, RandomStart) else jax.eval_shape(lambda: x0)


def _paths_per_device(process, x0, dtype, paths: int, chunk: int | None, devices: int) -> int:
    if chunk is None:
        draw = noise.structure(process.noise(_struct(x0, dtype)), dtype)
        leaves = jax.tree.leaves((_struct(x0, dtype), draw))
        chunk = devices * max(1, CHUNK_COORDINATES // sum(leaf.size for leaf in leaves))
    chunk = min(_checks.at_least("chunk", chunk, 1), paths)
    return -(-chunk // (devices * LANES)) * LANES


def _specs(paths: Paths) -> Paths:
    return jax.tree.map(
        lambda leaf, shared: (
            PartitionSpec() if shared else PartitionSpec(*[None] * (leaf.ndim - 1), "paths")
        ),
        paths,
        eqx.tree_at(lambda p: p.leaves, paths, list(paths.shared)),
    )


@eqx.filter_jit
def _start(process, x0, words: UInt32[Array, "2"], first_path, mesh, size: int) -> Paths:
    """`start` on every device, for `size` paths each; user code is traced outside shard_map."""
    beginning = Beginning.of(process, x0)

    def begin(beginning, words, first_path):
        return beginning(words, size, _first_of_shard(first_path, size))

    args = (beginning, words, first_path)
    example = eqx.filter_eval_shape(lambda: beginning(words, size, first_path))
    return _sharded(begin, mesh, args, (PartitionSpec(),) * 3, _specs(example))


@eqx.filter_jit
def _advance(
    process, paths: Paths, words, first_path, first_step, stops, observables, limit, mesh
) -> tuple[Paths, dict[str, Record]]:
    """`evolve` on every device; the records get a leading axis, one entry a device."""
    evolution = Evolution.of(process, paths, observables)

    def advance(evolution, paths, words, first_path, first_step, stops, limit):
        first = _first_of_shard(first_path, paths.size)
        paths, records = evolution(paths, words, first, first_step, stops, limit)
        return paths, jax.tree.map(lambda leaf: leaf[None], records)

    args = (evolution, paths, words, first_path, first_step, stops, limit)
    everywhere = PartitionSpec()
    in_specs = (everywhere, _specs(paths), *[everywhere] * 5)
    return _sharded(advance, mesh, args, in_specs, (_specs(paths), PartitionSpec("paths")))


def _first_of_shard(first_path: UInt32[Array, ""], size: int) -> UInt32[Array, ""]:
    return first_path + jax.lax.axis_index("paths").astype(jnp.uint32) * np.uint32(size)


def _sharded(fn: Callable, mesh, args: tuple, in_specs: tuple, out_specs: Any) -> Any:
    """`jax.shard_map` over arguments that hold more than arrays."""
    arrays, static = eqx.partition(args, eqx.is_array)

    def body(*arrays):
        return fn(*eqx.combine(arrays, static))

    mapped = jax.shard_map(body, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return mapped(*arrays)


class _Tally:
    """Statistics on the host in float64, merged block by block."""

    def __init__(self, paths: int):
        self.paths = paths
        self.moments: dict[str, statistics.Moments] = {}
        self.samples: dict[str, list[np.ndarray]] = {}

    def wanted(self, first_path: int, recorded: dict[str, Record], records: int) -> dict:
        """What is kept of a block `(devices, T, ...)`: no padded times, no late samples."""
        if first_path >= SAMPLE:
            recorded = {name: record._replace(sample=None) for name, record in recorded.items()}
        return jax.tree.map(lambda leaf: leaf[:, :records], recorded)

    def add(self, segments: list[dict[str, Record]]) -> None:
        """Takes in one chunk of paths, its time segments in order."""
        host = jax.device_get(segments)
        joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *host)
        for name, record in joined.items():
            for device in range(len(record.moments.used)):
                part = jax.tree.map(lambda leaf, d=device: _wide(leaf[d]), record.moments)
                so_far = self.moments.get(name)
                self.moments[name] = part if so_far is None else statistics.merge(so_far, part)
            if record.sample is not None:
                self.samples.setdefault(name, []).extend(record.sample)

    def sample(self) -> dict[str, np.ndarray]:
        """The values of the first paths, `(T, ..., min(paths, SAMPLE))`."""
        return {
            name: np.concatenate(parts, axis=-1)[..., : min(SAMPLE, self.paths)]
            for name, parts in self.samples.items()
        }


def _wide(leaf: np.ndarray) -> np.ndarray:
    """In 64 bits: products of counts overflow 32."""
    return leaf.astype(np.float64 if np.issubdtype(leaf.dtype, np.floating) else np.int64)
