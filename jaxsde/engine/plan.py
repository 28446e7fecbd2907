"""How a run is cut: chunks of paths, segments of time."""

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int

from jaxsde import _checks
from jaxsde.engine import noise
from jaxsde.engine.evolve import step_work
from jaxsde.engine.layout import IN_TURN, Work

LANES = 16  # a vector loop's remainder may round differently, so there is none
CPU_COORDINATES = 2**18  # of x and the draw that a core holds, so that they stay in its cache
COORDINATES = 2**24  # that an accelerator holds, and the activations that any device does
BLOCK = 2**28  # coordinate-steps of a device between reports of progress and checkpoints
ACTIVATIONS = 4  # arrays as large as the largest that paths side by side hold
PRODUCTS = 16  # multiplications in them in the time of a coordinate-step


class Segment(NamedTuple):
    """Some steps in a row.

    Fields:
        first: the step it begins at.
        stops: where it stops for statistics; the last is its end, repeated to a common length.
        kept: which stops were asked for.
    """

    first: int
    stops: Int[np.ndarray, " S"]
    kept: Bool[np.ndarray, " S"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The blocks of a run: every chunk of paths goes through all segments.

    Fields:
        paths: all.
        size: paths a device holds at a time.
        chunk: paths of a chunk, `size` on each device.
        records: recorded steps.
        segments: of time.
    """

    paths: int
    size: int
    chunk: int
    records: Int[np.ndarray, " T"]
    segments: list[Segment]

    @classmethod
    def of(cls, process, x0, dtype, records, paths: int, chunk: int | None, mesh) -> "Plan":
        """For a run from one path's x0 (shapes) on the mesh."""
        draws = noise.structure(process.noise(x0), dtype)
        coordinates = sum(leaf.size for leaf in jax.tree.leaves((x0, draws)))
        work = step_work(process, x0, process.noise(x0)) if _much(process, x0) else Work()
        if chunk is None:
            on_cpu = mesh.devices.flat[0].platform == "cpu"
            held = (CPU_COORDINATES if on_cpu else COORDINATES) // coordinates
            if not (on_cpu and work.in_turn):
                held = min(held, COORDINATES // (ACTIVATIONS * max(1, work.largest)))
            chunk = mesh.size * max(1, held)
        chunks = math.ceil(paths / _checks.at_least("chunk", chunk, 1))  # of equal size
        lanes = 1 if work.in_turn else LANES
        size = math.ceil(paths / (chunks * mesh.size * lanes)) * lanes
        segments = cut(records, max(1, BLOCK // (size * (coordinates + work.all // PRODUCTS))))
        return cls(paths, size, size * mesh.size, records, segments)

    @property
    def chunks(self) -> range:
        """The first path of each chunk."""
        return range(0, self.paths, self.chunk)

    def path_steps(self, chunk: int | None = None, segment: int = 0) -> int:
        """Those before this block, of all if none is given."""
        last = int(self.records[-1])
        if chunk is None or chunk == len(self.chunks):
            return self.paths * last
        first = self.chunks[chunk]
        at = self.segments[segment].first
        return first * last + min(self.chunk, self.paths - first) * at


def _much(process: Any, x0: Any) -> bool:
    """Whether products of x with data may be most of a step, and are worth counting."""
    size, data = (sum(map(np.size, jax.tree.leaves(tree))) for tree in (x0, process))
    return size * data >= IN_TURN


def record_steps(records: Any, steps: int) -> Int[np.ndarray, " T"]:
    """The steps to record: evenly spaced besides the start, or as given.

    Raises:
        InputError: a count below one, or steps that do not ascend within the run.
    """
    if np.ndim(records) == 0:
        count = _checks.at_least("records", records, 1)
        return np.rint(np.linspace(0, steps, min(count, steps) + 1)).astype(np.int64)
    chosen = np.asarray(records)
    whole = np.issubdtype(chosen.dtype, np.integer) and chosen.ndim == 1 and chosen.size > 0
    if not whole or chosen[0] < 0 or chosen[-1] > steps or np.any(np.diff(chosen) <= 0):
        raise _checks.InputError(f"records must be a count or ascending steps in [0, {steps}]")
    return chosen.astype(np.int64)


def cut(records: Int[np.ndarray, " T"], block: int) -> list[Segment]:
    """Segments of some `block` steps; longer gaps between records get stops of their own."""
    gaps = itertools.pairwise([0, *records.tolist()])
    between = [np.linspace(a, b, math.ceil((b - a) / block) + 1)[1:-1] for a, b in gaps]
    even = 2 * np.rint(np.concatenate(between) / 2).astype(np.int64)  # pairs share noise blocks
    stops = np.union1d(records, even[even > 0])
    count = min(len(stops), max(1, math.ceil(int(stops[-1]) / block)))
    parts = np.array_split(stops, count)
    ends = [0, *(int(part[-1]) for part in parts)]
    longest = _rounded(len(parts[0]))
    return [
        Segment(
            first,
            np.pad(part, (0, longest - len(part)), mode="edge").astype(np.int32),
            np.pad(np.isin(part, records), (0, longest - len(part))),
        )
        for first, part in zip(ends, parts, strict=False)
    ]


def _rounded(count: int) -> int:
    """A few more stops than needed, so that other numbers of records compile nothing new."""
    return 2 ** (count - 1).bit_length() if count <= 8 else -(-count // 8) * 8
