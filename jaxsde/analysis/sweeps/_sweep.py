"""A process over a grid of hyperparameters, as one compiled function."""

import datetime
import inspect
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from jaxsde import _checks
from jaxsde.analysis.sweeps import _chunks
from jaxsde.engine import Ensemble, Process, Progress, RandomStart, noise
from jaxsde.engine.checkpoint import Checkpoint
from jaxsde.engine.devices import paths_mesh
from jaxsde.engine.inputs import PACKAGES, cast, start_point, struct, version
from jaxsde.engine.observables import Observable, resolve
from jaxsde.engine.plan import record_steps
from jaxsde.engine.statistics import Moments

TAKEN = ("step", "time")  # names that the data set has itself


def sweep(
    factory: Callable[..., Process],
    grid: Mapping[Any, Any],
    x0: PyTree | RandomStart,
    *,
    steps: int,
    paths: int,
    key: PRNGKeyArray,
    records: int | Sequence[int] | Int[np.ndarray, " T"] = 100,
    observables: Mapping[str, Callable | Observable] | None = None,
    points: int | None = None,
    chunk: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> Any:
    """Runs a process at every point of a grid of hyperparameters, on the same noise.

    The grid is one more axis of the compiled step: one compilation serves all points, and further
    sweeps with the same factory, names and shapes of chunks. Path i sees the same noise at every
    point (common random numbers), so that differences along the grid have little variance, and the
    errors of different points are correlated.

    Args:
        factory: `factory(**point)` builds the process of one point; it sees traced scalars, so
            that all it computes from a hyperparameter follows it: an SDE's dt, say. What sets a
            shape or a structure (a number of agents, an order) cannot be swept.
        grid: values by name, one-dimensional; all combinations of them are run. A tuple of names
            with values `(n, names)` goes through n combinations of its own, as one axis.
        x0: the start, one point for all paths or a `RandomStart`. Its dtype is the run's.
        steps: of the process, at every point.
        paths: at every point.
        key: `jax.random.key(seed)`.
        records: how many evenly spaced times to record besides the start, or the steps themselves.
        observables: as in `simulate`.
        points: grid points held in memory at a time; by default at most 64 or so, since the noise
            costs nothing any more when so many share it.
        chunk: paths held in memory at a time; by default what a core's cache holds.
        devices: that share the paths; all by default.
        progress: called after every block of points, paths and times.
        checkpoint: a file that keeps how far the sweep is, as in `simulate`. The same call after an
            interruption goes on from there and gives the same numbers.

    Returns:
        An `xarray.Dataset` over one dimension a hyperparameter (a tuple's is called by its names
        with commas between, which are coordinates along it) and `step`, with `time` t0 + k dt,
        which a hyperparameter may change, and `<name>.mean`, `.standard_error`, `.variance`,
        `.used` (and `.covariance` where it is kept) of every observable. Paths that diverge are
        counted (`used`), never averaged in; a mean is nan where none is left. Attributes: `paths`,
        and `settings`, every setting, seed and version as JSON.

    Raises:
        InputError: what `simulate` refuses; a grid that is empty, or not of finite numbers; names
            that the factory does not take; a point at which it refuses its hyperparameters; one
            that sets a shape or structure.
        ImportError: xarray is missing (pip install 'jaxsde[io]').
    """
    xarray = _checks.extra("xarray", "io")
    steps, paths = _checks.at_least("steps", steps, 1), _checks.at_least("paths", paths, 1)
    if steps >= 2**31 or paths > 2**31:
        raise _checks.InputError("the noise's counters hold 2³¹ - 1 steps and 2³¹ paths")
    chunk, points = (
        given if given is None else _checks.at_least(name, given, 1)
        for name, given in (("chunk", chunk), ("points", points))
    )
    records = record_steps(records, steps)
    axes = Grid.of(grid)
    x0, dtype = start_point(x0)
    first, clock = _checked(factory, axes)
    _check_traces(factory, axes)
    process, x = cast(first, dtype), struct(x0, dtype)
    resolve(process, observables, x)
    chain = _chunks.Chain(factory, x0, observables, dtype)
    mesh = paths_mesh(devices)
    blocks = _chunks.Blocks.of(process, x, dtype, axes.size, records, paths, chunk, points, mesh)
    words = noise.key_words(key)
    settings = {
        "steps": steps, "paths": paths, "key": [int(word) for word in words], "dtype": str(dtype),
        "points": blocks.points, "chunk": blocks.plan.chunk,
        "devices": [str(device.device_kind) for device in mesh.devices.flat],
        "versions": {name: version(name) for name in PACKAGES},
        "grid": {name: values.tolist() for name, values in axes.points.items()},
        "process": eqx.tree_pformat(first, short_arrays=False),
        "x0": eqx.tree_pformat(x0, short_arrays=False),
    }  # fmt: skip
    file = None
    if checkpoint is not None:
        program = _chunks.program(chain, axes.at(0))
        file = Checkpoint(checkpoint, settings | {"records": records.tolist(), "program": program})
    began = time.monotonic()
    moments = _chunks.run(chain, axes.points, words, blocks, mesh, progress, file)
    settings |= {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began, 3),
    }
    return _dataset(xarray, axes, clock, records, moments, paths, json.dumps(settings))


class Grid(NamedTuple):
    """Hyperparameters on axes.

    Fields:
        axes: the names on each axis, in order, with their values along it.
        points: every name's value at all points, in C order.
    """

    axes: dict[str, dict[str, np.ndarray]]
    points: dict[str, np.ndarray]

    @classmethod
    def of(cls, grid: Any) -> "Grid":
        """From what the user gives.

        Raises:
            InputError: it is empty, or its names or values cannot be used.
        """
        if not isinstance(grid, Mapping) or not grid:
            raise _checks.InputError(
                f"grid must map at least one hyperparameter's name to its values, got {grid!r}"
            )
        axes: dict[str, dict[str, np.ndarray]] = {}
        for names, values in grid.items():
            columns = _columns(names, values)
            for name in columns:
                if name in TAKEN or any(name in axis for axis in axes.values()):
                    raise _checks.InputError(f"the grid's name {name!r} is taken")
            axes[",".join(columns)] = columns
        shape = [len(next(iter(columns.values()))) for columns in axes.values()]
        places = np.indices(shape).reshape(len(shape), -1)
        points = {
            name: values[place]
            for place, columns in zip(places, axes.values(), strict=True)
            for name, values in columns.items()
        }
        return cls(axes, points)

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return tuple(len(next(iter(columns.values()))) for columns in self.axes.values())

    @property
    def size(self) -> int:
        """How many points there are."""
        return math.prod(self.shape)

    def at(self, index: int) -> dict[str, Any]:
        """One point, in numbers of Python's."""
        return {name: values[index].item() for name, values in self.points.items()}

    def coordinates(self) -> dict[str, tuple[str, np.ndarray]]:
        """What labels the axes."""
        return {
            name: (axis, values)
            for axis, columns in self.axes.items()
            for name, values in columns.items()
        }


def _columns(names: Any, values: Any) -> dict[str, np.ndarray]:
    """The values of the names on one axis."""
    several = isinstance(names, tuple)
    names = names if several else (names,)
    if not names or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise _checks.InputError(f"the grid's names must be words, got {names!r}")
    label = ", ".join(names)
    try:
        table = np.asarray(values)
    except ValueError:  # ragged
        table = np.empty(0)
    wanted = (table.size // len(names), len(names)) if several else (table.size,)
    if table.shape != wanted or not table.size:
        raise _checks.InputError(
            f"the values of {label} must be one-dimensional"
            + (f", or rows of {len(names)}" if several else "")
            + f", and at least one; got {values!r}"
        )
    if table.dtype.kind not in "iuf" or not np.all(np.isfinite(table)):
        raise _checks.InputError(f"the values of {label} must be finite numbers, got {values!r}")
    return dict(zip(names, table.reshape(-1, len(names)).T, strict=True))


def _checked(
    factory: Callable[..., Process], grid: Grid
) -> tuple[Process, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
    """The process of the first point, and t0 and dt of all, after the constructors' own checks.

    They see numbers here, and traced scalars in the run.
    """
    try:
        inspect.signature(factory).bind(**grid.at(0))
    except (TypeError, ValueError) as error:
        raise _checks.InputError(
            f"the factory does not take the grid's names {', '.join(grid.points)}: {error}"
        ) from error
    first, clock = None, np.empty((2, grid.size))
    for i in range(grid.size):
        where = ", ".join(f"{name} = {value:g}" for name, value in grid.at(i).items())
        try:
            process = factory(**grid.at(i))
        except _checks.InputError as error:
            raise _checks.InputError(f"at {where}: {error}") from error
        if not isinstance(process, Process):
            raise _checks.InputError(
                f"the factory must return a process, got {type(process).__name__} at {where}"
            )
        clock[:, i] = np.asarray(process.t0), np.asarray(process.dt)
        first = process if first is None else first
    assert first is not None
    return first, (clock[0], clock[1])


def _check_traces(factory: Callable[..., Process], grid: Grid) -> None:
    """Refuses hyperparameters whose values must be known before the run."""
    kinds = {name: jnp.asarray(values[:1])[0] for name, values in grid.points.items()}
    try:
        eqx.filter_eval_shape(lambda point: factory(**point), kinds)
    except (_checks.InputError, TypeError) as error:  # JAX's complaints about traced values
        raise _checks.InputError(
            "the factory works on numbers but not on traced scalars, so one of "
            f"{', '.join(grid.points)} sets a shape or a structure, or decides a branch: it cannot "
            f"be swept ({str(error).splitlines()[0]})"
        ) from error


def _dataset(
    xarray, grid: Grid, clock, records: np.ndarray, moments: dict[str, Moments], paths: int,
    settings: str,
) -> Any:  # fmt: skip
    """The labelled results; statistics are an `Ensemble`'s with a row a point and a time."""
    t0, dt = clock
    rows = (*grid.shape, len(records))
    dims = (*grid.axes, "step")
    flat = {name: Moments(*map(_chunks.flat, of)) for name, of in moments.items()}
    ensemble = Ensemble(np.empty(0), np.empty(0, int), flat, {}, paths, settings)
    variables: dict[str, Any] = {
        "time": (dims, (t0[:, None] + dt[:, None] * records).reshape(rows))
    }
    for name, of in flat.items():
        shape = [f"{name}.{i}" for i in range(of.mean.ndim - 1)]
        found = {
            "used": ([], of.used),
            "mean": (shape, ensemble.mean(name)),
            "standard_error": (shape, ensemble.standard_error(name)),
            "variance": (shape, ensemble.variance(name)),
        }
        if of.deviation.shape != of.mean.shape:
            found["covariance"] = ([f"{name}.row", f"{name}.column"], ensemble.covariance(name))
        for kind, (more, values) in found.items():
            labelled = ([*dims, *more], values.reshape(*rows, *values.shape[1:]))
            variables[f"{name}.{kind}"] = labelled
    coordinates = grid.coordinates() | {"step": ("step", records)}
    return xarray.Dataset(variables, coordinates, {"paths": paths, "settings": settings})
