"""How a sweep runs: blocks of grid points and paths, each compiled once."""

import dataclasses
import hashlib
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int, PyTree, UInt32

from jaxsde.engine import Process, RandomStart, evolve, noise, start, statistics
from jaxsde.engine.batching import Paths
from jaxsde.engine.checkpoint import Checkpoint
from jaxsde.engine.evolve import Beginning, Evolution
from jaxsde.engine.inputs import cast
from jaxsde.engine.observables import resolve
from jaxsde.engine.plan import BLOCK, COORDINATES, CPU_COORDINATES, LANES, Plan, Segment, cut
from jaxsde.engine.sharding import compiled, first_of_shard, put, sharded, specs
from jaxsde.engine.simulate import Progress
from jaxsde.engine.statistics import Moments
from jaxsde.engine.tally import wide

TOGETHER = 40  # points that share their noise; beyond, it costs next to nothing already


class Chain(eqx.Module):
    """What is run: `factory(**point)` from x0, and what is read off it."""

    factory: Callable[..., Process]
    x0: PyTree | RandomStart
    observables: Mapping[str, Any] | None
    dtype: Any = eqx.field(static=True)

    def process(self, point: Mapping[str, Any]) -> Process:
        """The process of one point, in the run's precision."""
        return cast(self.factory(**point), self.dtype)

    def begin(
        self, point: Mapping[str, Array], words: UInt32[Array, "2"], first_path, size: int, mesh
    ) -> Paths:
        """`size` paths on every device at step 0."""
        beginning = Beginning.of(self.process(point), self.x0)

        def begin(beginning, words, first_path):
            return beginning(words, size, first_of_shard(first_path, size))

        args = (beginning, words, first_path)
        example = eqx.filter_eval_shape(lambda: beginning(words, size, first_path))
        return sharded(begin, mesh, args, (PartitionSpec(),) * 3, specs(example))

    def advance(
        self, point, paths: Paths, words, first_path, first_step, stops, limit, mesh
    ) -> tuple[Paths, dict[str, Moments]]:
        """The paths at the last stop, and the moments at all of them, one entry a device.

        The first paths' values are left out here, so that none are kept in the compiled loop.
        """
        process = self.process(point)
        watched = cast(resolve(process, self.observables, paths.start.tree), self.dtype)
        evolution = Evolution.of(process, paths, watched)

        def advance(evolution, paths, words, first_path, first_step, stops, limit):
            first = first_of_shard(first_path, paths.size)
            paths, records = evolution(paths, words, first, first_step, stops, limit)
            moments = {name: record.moments for name, record in records.items()}
            return paths, jax.tree.map(lambda leaf: leaf[None], moments)

        args = (evolution, paths, words, first_path, first_step, stops, limit)
        in_specs = (PartitionSpec(), specs(paths), *[PartitionSpec()] * 5)
        out_specs = (specs(paths), PartitionSpec("paths"))
        return sharded(advance, mesh, args, in_specs, out_specs)


@compiled
def _begin(mesh, chain: Chain, points, words, first_path, size: int) -> Paths:
    return jax.vmap(lambda point: chain.begin(point, words, first_path, size, mesh))(points)


@compiled
def _advance(
    mesh, chain: Chain, points, paths: Paths, words, first_path, first_step, stops, limit
) -> tuple[Paths, dict[str, Moments]]:
    def advance(point, paths):
        return chain.advance(point, paths, words, first_path, first_step, stops, limit, mesh)

    return jax.vmap(advance)(points, paths)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How a sweep is cut: chunks of points, in each chunks of paths, in each segments of time.

    Fields:
        count: grid points.
        points: that run together.
        plan: chunks of paths and segments of time.
    """

    count: int
    points: int
    plan: Plan

    @classmethod
    def of(
        cls, process: Process, x0, dtype, count: int, records: Int[np.ndarray, " T"], paths: int,
        chunk: int | None, points: int | None, mesh,
    ) -> "Blocks":  # fmt: skip
        """For `count` points like `process` on the mesh, each from one path's x0 (shapes)."""
        draws = noise.structure(process.noise(x0), dtype)
        coordinates = sum(leaf.size for leaf in jax.tree.leaves((x0, draws)))
        on_cpu = mesh.devices.flat[0].platform == "cpu"
        limit = (CPU_COORDINATES if on_cpu else COORDINATES) // coordinates  # points times paths
        if points is None:
            held = LANES if chunk is None else chunk / mesh.size
            points = limit // max(held, LANES)
            if chunk is None:
                points = min(points, max(TOGETHER, limit // (paths / mesh.size)))
        points = math.ceil(count / math.ceil(count / max(1, points)))  # chunks of equal size
        if chunk is None:
            chunk = mesh.size * max(1, limit // points)
        plan = Plan.of(process, x0, dtype, records, paths, chunk, mesh)
        block = max(1, BLOCK // (coordinates * plan.size * points))
        return cls(count, points, dataclasses.replace(plan, segments=cut(records, block)))

    def __len__(self) -> int:
        plan = self.plan
        return math.ceil(self.count / self.points) * len(plan.chunks) * len(plan.segments)

    def __getitem__(self, index: int) -> "Block":
        chunk, segment = divmod(index, len(self.plan.segments))
        points, paths = divmod(chunk, len(self.plan.chunks))
        return Block(points * self.points, self.plan.chunks[paths], segment)

    def path_steps(self, block: "Block") -> int:
        """How many are done after the block."""
        plan, steps = self.plan, int(self.plan.records[-1])
        points = min(self.points, self.count - block.first_point)
        paths = min(plan.chunk, plan.paths - block.first_path)
        to = int(plan.segments[block.segment].stops[-1])
        before = block.first_point * plan.paths + points * block.first_path
        return before * steps + points * paths * to


class Block(NamedTuple):
    """Some points and paths over one segment of time."""

    first_point: int
    first_path: int
    segment: int


def run(
    chain: Chain, points: Mapping[str, np.ndarray], words: UInt32[Array, "2"],
    blocks: Blocks, mesh, progress: Callable[[Progress], None] | None,
    checkpoint: Checkpoint | None,
) -> dict[str, Moments]:  # fmt: skip
    """The moments of every observable, rows `(points, T)` leading, from the checkpoint on."""
    plan = blocks.plan
    whole = blocks.count * plan.paths * int(plan.records[-1])
    saved = None if checkpoint is None else checkpoint.load()
    totals = Totals(blocks.count, plan.records)
    done, state, seconds = _restored(saved, totals)
    began, paths = time.monotonic() - seconds, None
    for index in range(done, len(blocks)):
        block = blocks[index]
        first_path, segment = np.uint32(block.first_path), plan.segments[block.segment]
        here = np.minimum(block.first_point + np.arange(blocks.points), blocks.count - 1)
        mine = {name: values[here] for name, values in points.items()}
        if paths is None or block.segment == 0:
            paths = _begin(mesh, chain, mine, words, first_path, plan.size)
        if state:
            paths, state = put(paths, state), []
        paths, moments = _advance(
            mesh, chain, mine, paths, words, first_path, np.int32(segment.first), segment.stops,
            np.uint32(plan.paths),
        )  # fmt: skip
        totals.add(block.first_point, segment, jax.device_get(moments))
        if progress is not None:
            progress(Progress(blocks.path_steps(block), whole, time.monotonic() - began))
        if checkpoint is not None and (checkpoint.due() or index + 1 == len(blocks)):
            between = (index + 1) % len(plan.segments) == 0
            leaves = [] if between else paths.leaves
            checkpoint.save(_saved(totals, index + 1, leaves, time.monotonic() - began))
    return totals.moments


def program(chain: Chain, point: Mapping[str, np.ndarray]) -> str:
    """A digest of the arithmetic of one point, traced: start, step and observables."""

    def traced(point):
        process, words = chain.process(point), jnp.zeros(2, jnp.uint32)
        paths = start(process, chain.x0, words, LANES)
        return evolve(process, paths, words, 0, 0, jnp.arange(2), chain.observables)[1]

    closed = jax.make_jaxpr(traced)(point)
    digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", str(closed.jaxpr)).encode())
    for constant in closed.consts:
        digest.update(np.asarray(constant).tobytes())
    return digest.hexdigest()


class Totals:
    """Moments of all points at all recorded times, arrays `(points, T, ...)` in float64.

    Fields:
        moments: by observable.
    """

    def __init__(self, points: int, records: Int[np.ndarray, " T"]):
        self.points = points
        self.records = records
        self.moments: dict[str, Moments] = {}

    def add(self, first_point: int, segment: Segment, block: dict[str, Moments]) -> None:
        """Merges one block, arrays `(points, devices, stops, ...)`; what is beyond is padding."""
        rows = np.searchsorted(self.records, segment.stops[segment.kept])
        if not rows.size:
            return
        for name, moments in block.items():
            totals = self._of(name, moments)
            here = slice(first_point, first_point + len(moments.used))
            where = (here, slice(rows[0], rows[-1] + 1))
            so_far = [leaf[where] for leaf in totals]
            size = len(so_far[0])
            merged = Moments(*map(flat, so_far))
            for device in range(moments.used.shape[1]):
                part = [wide(leaf[:size, device][:, segment.kept]) for leaf in moments]
                merged = statistics.merge(merged, Moments(*map(flat, part)))
            for total, leaf, before in zip(totals, merged, so_far, strict=True):
                total[where] = leaf.reshape(before.shape)

    def _of(self, name: str, like: Moments) -> Moments:
        if name not in self.moments:
            rows, kinds = (self.points, len(self.records)), (np.int64, float, float)
            self.moments[name] = Moments(
                *(
                    np.zeros((*rows, *a.shape[3:]), kind)
                    for a, kind in zip(like, kinds, strict=True)
                )
            )
        return self.moments[name]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, by names that `restore` reads."""
        named = {name: moments._asdict() for name, moments in self.moments.items()}
        return {f"{kind}/{name}": a for name, of in named.items() for kind, a in of.items()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes on what `arrays` gave."""
        for key in arrays:
            kind, _, name = key.partition("/")
            if kind == "used":
                self.moments[name] = Moments(*(arrays[f"{f}/{name}"] for f in Moments._fields))


def flat(leaf: np.ndarray) -> np.ndarray:
    """With points and times on one axis."""
    return leaf.reshape(-1, *leaf.shape[2:])


def _restored(
    saved: dict[str, np.ndarray] | None, totals: Totals
) -> tuple[int, list[np.ndarray], float]:
    """How many blocks are done, the paths' state there unless a chunk begins, and the seconds."""
    if saved is None:
        return 0, [], 0.0
    totals.restore(saved)
    states = sum(name.startswith("state/") for name in saved)
    state = [saved[f"state/{i}"] for i in range(states)]
    return int(saved["done"]), state, float(saved["seconds"])


def _saved(totals: Totals, done: int, leaves: list[Array], seconds: float) -> dict[str, np.ndarray]:
    state = {f"state/{i}": np.asarray(leaf) for i, leaf in enumerate(jax.device_get(leaves))}
    return {"done": np.array(done), "seconds": np.array(seconds), **state, **totals.arrays()}
