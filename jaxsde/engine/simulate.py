"""The host's side of a run: path chunks, time segments, devices, progress."""

import dataclasses
import datetime
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int, PRNGKeyArray, PyTree, UInt32

from jaxsde import _checks
from jaxsde.engine import noise
from jaxsde.engine.batching import Paths
from jaxsde.engine.checkpoint import Checkpoint
from jaxsde.engine.devices import paths_mesh
from jaxsde.engine.ensemble import Ensemble
from jaxsde.engine.evolve import Beginning, Evolution, Process, RandomStart, Record
from jaxsde.engine.inputs import PACKAGES, cast, start_point, struct, version
from jaxsde.engine.observables import Observable, resolve
from jaxsde.engine.plan import LANES, Plan, record_steps
from jaxsde.engine.sharding import compiled, first_of_shard, put, sharded, specs
from jaxsde.engine.tally import Tally


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is.

    Fields:
        done: path-steps; those that a checkpoint had count too.
        total: path-steps of the whole run.
        elapsed: seconds.
        means: of scalar observables over the paths under way, at their last recorded time.
        resumed: path-steps that a checkpoint had.
    """

    done: int
    total: int
    elapsed: float
    means: Mapping[str, float] = dataclasses.field(default_factory=dict)
    resumed: int = 0

    @property
    def remaining(self) -> float:
        """Seconds left at the pace so far."""
        return (self.total - self.done) / max(self.rate, 1e-300)

    @property
    def rate(self) -> float:
        """Path-steps a second."""
        return (self.done - self.resumed) / max(self.elapsed, 1e-9)


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
    checkpoint: str | os.PathLike | None = None,
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
            where they read the state or their covariance is wanted, `clipped` where their mean may
            not exist. By default those that the process offers (`loss`), and `position` when it is
            small.
        chunk: paths held in memory at a time, rounded up to full vectors; by default what a core's
            cache holds, or some 16 million coordinates on an accelerator.
        devices: that share the paths; all by default.
        progress: called after every block of paths and times.
        checkpoint: a file that keeps how far the run is, written at most once a second and in at
            most a twentieth of the time. The same call after an interruption goes on from there and
            gives the same numbers; after the end it gives them at once, until the file is removed.

    Returns:
        The ensemble. Paths that diverge are counted in it (`used`), never averaged in.

    Raises:
        InputError: counts below one or beyond the noise's counters, records outside the run, x0 in
            float64 while JAX runs in float32, a step that changes shapes, an observable that does
            not return an array, a checkpoint that is damaged or another run's.
    """
    steps, paths = _checks.at_least("steps", steps, 1), _checks.at_least("paths", paths, 1)
    if steps >= 2**31 or paths > 2**31:
        raise _checks.InputError("the noise's counters hold 2³¹ - 1 steps and 2³¹ paths")
    records = record_steps(records, steps)
    if not isinstance(process, Process):
        raise _checks.InputError(
            f"{type(process).__name__} is no process: it needs init, step, position, noise, dt, t0"
        )
    x0, dtype = start_point(x0)
    process = cast(process, dtype)
    watched = cast(resolve(process, observables, struct(x0, dtype)), dtype)
    mesh = paths_mesh(devices)
    plan = Plan.of(process, struct(x0, dtype), dtype, records, paths, chunk, mesh)
    words = noise.key_words(key)
    settings = {
        "steps": steps,
        "paths": paths,
        "key": [int(word) for word in words],
        "dtype": str(dtype),
        "chunk": plan.chunk,
        "devices": [str(device.device_kind) for device in mesh.devices.flat],
        "versions": {name: version(name) for name in PACKAGES},
        "process": eqx.tree_pformat(process, short_arrays=False),
        "x0": eqx.tree_pformat(x0, short_arrays=False),
    }
    file = None
    if checkpoint is not None:
        program = {"records": records.tolist(), "program": _program(process, x0, dtype, watched)}
        file = Checkpoint(checkpoint, settings | program)
    began = time.monotonic()

    def report(blocks: list[At], tally: Tally) -> None:
        if progress is not None:
            resumed, done = (plan.path_steps(*at) for at in blocks)
            elapsed = time.monotonic() - began
            progress(Progress(done, plan.path_steps(), elapsed, tally.latest, resumed))

    tally = _run(process, x0, words, watched, plan, mesh, report, file)
    settings |= {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began, 3),
        **getattr(process, "settings", dict)(),
    }
    t = float(np.asarray(process.t0)) + records * float(np.asarray(process.dt))
    moments = {name: tally.moments[name] for name in watched}
    sample = {name: tally.sample[name] for name in watched}
    return Ensemble(t, records, moments, sample, paths, json.dumps(settings))


def _run(
    process, x0, words, watched, plan: Plan, mesh, report: Callable, checkpoint: Checkpoint | None
) -> Tally:
    """Every chunk of paths through all segments of time, from the checkpoint on if it has one."""
    tally = Tally(plan.paths, len(plan.records))
    at, leaves = _restore(tally, None if checkpoint is None else checkpoint.load())
    began = at
    for first_path in plan.chunks[at.chunk :]:
        paths = _start(mesh, process, x0, words, np.uint32(first_path), plan.size)
        if leaves:
            paths, leaves = put(paths, leaves), []
        for segment in plan.segments[at.segment :]:
            paths, recorded = _advance(
                mesh, process, paths, words, np.uint32(first_path), np.int32(segment.first),
                segment.stops, segment.kept, watched, np.uint32(plan.paths),
            )  # fmt: skip
            tally.add(first_path, recorded, segment.kept)
            at = At(at.chunk, at.segment + 1)
            if at.segment == len(plan.segments):
                tally.close()
                at = At(at.chunk + 1, 0)
            report([began, at], tally)
            if checkpoint is not None and (checkpoint.due() or at.chunk == len(plan.chunks)):
                state = paths.leaves if at.segment else []
                checkpoint.save(_arrays(tally, at, state))
    return tally


class At(NamedTuple):
    """The block that comes next."""

    chunk: int
    segment: int


def _arrays(tally: Tally, at: At, leaves: list[Array]) -> dict[str, np.ndarray]:
    state = {f"state/{i}": np.asarray(jax.device_get(leaf)) for i, leaf in enumerate(leaves)}
    return {"at": np.array(at), **state, **tally.arrays()}


def _restore(tally: Tally, saved: dict[str, np.ndarray] | None) -> tuple[At, list[np.ndarray]]:
    """Where a run goes on, and the state there unless a chunk begins."""
    if saved is None:
        return At(0, 0), []
    tally.restore(saved)
    states = sum(name.startswith("state/") for name in saved)
    return At(*saved["at"].tolist()), [saved[f"state/{i}"] for i in range(states)]


def _program(process, x0, dtype, observables) -> str:
    """A digest of the arithmetic: the traced start, step and observables with their constants."""
    beginning = Beginning.of(process, x0)
    paths = eqx.filter_eval_shape(beginning, jax.ShapeDtypeStruct((2,), np.uint32), LANES, 0)
    evolution = Evolution.of(process, paths, observables)
    digest = hashlib.sha256()
    for part in (beginning.init, evolution.step, evolution.watch):
        digest.update(re.sub(r"0x[0-9a-f]+", "", str(part.jaxpr)).encode())
    for leaf in jax.tree.leaves(eqx.filter((beginning, evolution), eqx.is_array)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


@compiled
def _start(mesh, process, x0, words: UInt32[Array, "2"], first_path, size: int) -> Paths:
    """`start` on every device, for `size` paths each; user code is traced outside shard_map."""
    beginning = Beginning.of(process, x0)

    def begin(beginning, words, first_path):
        return beginning(words, size, first_of_shard(first_path, size))

    args = (beginning, words, first_path)
    example = eqx.filter_eval_shape(lambda: beginning(words, size, first_path))
    return sharded(begin, mesh, args, (PartitionSpec(),) * 3, specs(example))


@compiled
def _advance(
    mesh, process, paths: Paths, words, first_path, first_step, stops, kept, observables, limit
) -> tuple[Paths, dict[str, Record]]:
    """`evolve` on every device; the records get a leading axis, one entry a device."""
    evolution = Evolution.of(process, paths, observables)

    def advance(evolution, paths, words, first_path, first_step, stops, kept, limit):
        first = first_of_shard(first_path, paths.size)
        paths, records = evolution(paths, words, first, first_step, stops, limit, kept)
        return paths, jax.tree.map(lambda leaf: leaf[None], records)

    args = (evolution, paths, words, first_path, first_step, stops, kept, limit)
    everywhere = PartitionSpec()
    in_specs = (everywhere, specs(paths), *[everywhere] * 6)
    return sharded(advance, mesh, args, in_specs, (specs(paths), PartitionSpec("paths")))
