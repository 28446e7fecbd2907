"""Statistics on the host, in float64, merged block by block."""

import jax
import numpy as np
from jaxtyping import Bool

from jaxsde.engine import statistics
from jaxsde.engine.evolve import SAMPLE, Record
from jaxsde.engine.statistics import Moments


class Tally:
    """What a run of `paths` paths with `records` recorded times has found so far.

    Fields:
        moments: of the chunks that are done, by observable.
        chunk: of the chunk under way `(devices, t, ...)`, one entry a segment.
        rows: how many of its recorded times are in.
        latest: of scalar observables, the mean over its paths at the last of these.
        sample: the first paths' values at all recorded times, as far as they are in.
    """

    def __init__(self, paths: int, records: int):
        self.paths = paths
        self.records = records
        self.moments: dict[str, Moments] = {}
        self.chunk: list[dict[str, Moments]] = []
        self.rows = 0
        self.latest: dict[str, float] = {}
        self.sample: dict[str, np.ndarray] = {}

    def add(
        self, first_path: int, recorded: dict[str, Record], kept: Bool[np.ndarray, " S"]
    ) -> None:
        """Takes in one segment of the chunk that begins at `first_path`: arrays of devices."""
        for name, record in recorded.items():
            self._keep_sample(name, first_path, record.sample, kept)
        self.chunk.append(
            {
                name: Moments(*(np.asarray(leaf)[:, kept] for leaf in record.moments))
                for name, record in recorded.items()
            }
        )
        self.rows += int(np.sum(kept))
        if np.any(kept):
            self.latest = {
                name: float(np.average(of.mean[:, -1], weights=of.used[:, -1]))
                for name, of in self.chunk[-1].items()
                if of.mean.ndim == 2 and np.any(of.used[:, -1])
            }

    def _keep_sample(self, name: str, at: int, values: jax.Array, kept: np.ndarray) -> None:
        size = min(SAMPLE, self.paths)
        shards = sorted(values.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        for shard in shards:
            if at >= size:
                return
            part = np.asarray(shard.data)[0, ..., : size - at]
            if name not in self.sample:
                self.sample[name] = np.empty((self.records, *part.shape[1:-1], size), part.dtype)
            rows = self.sample[name][self.rows :, ..., at : at + part.shape[-1]]
            for row, stop in zip(rows, np.flatnonzero(kept), strict=False):
                row[...] = part[stop]
            at += part.shape[-1]

    def close(self) -> None:
        """Merges the chunk, all of whose segments are in."""
        for name, moments in self._joined().items():
            for device in range(len(moments.used)):
                part = Moments(*(wide(leaf[device]) for leaf in moments))
                so_far = self.moments.get(name)
                self.moments[name] = part if so_far is None else statistics.merge(so_far, part)
        self.chunk, self.rows = [], 0

    def _joined(self) -> dict[str, Moments]:
        """The chunk's segments end to end."""
        return {
            name: Moments(
                *(
                    np.concatenate(parts, axis=1)
                    for parts in zip(*(segment[name] for segment in self.chunk), strict=True)
                )
            )
            for name in (self.chunk[0] if self.chunk else ())
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, by names that `restore` reads."""
        found = {f"sample/{name}": values for name, values in self.sample.items()}
        for room, moments in (("moments", self.moments), ("chunk", self._joined())):
            for name, of in moments.items():
                found |= {f"{room}/{name}/{field}": a for field, a in of._asdict().items()}
        return found | {"rows": np.array(self.rows)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes on what `arrays` gave."""
        rooms: dict[str, dict[str, dict]] = {"moments": {}, "chunk": {}}
        for key, array in arrays.items():
            room, *name = key.split("/")
            if room == "sample":
                self.sample[name[0]] = array
            elif room in rooms:
                rooms[room].setdefault(name[0], {})[name[1]] = array
        moments, chunk = (
            {name: Moments(**fields) for name, fields in room.items()} for room in rooms.values()
        )
        self.moments, self.chunk = moments, [chunk] if chunk else []
        self.rows = int(arrays["rows"])


def wide(leaf: np.ndarray) -> np.ndarray:
    """In 64 bits: products of counts overflow 32."""
    return leaf.astype(np.float64 if np.issubdtype(leaf.dtype, np.floating) else np.int64)
