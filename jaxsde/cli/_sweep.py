"""`jaxsde sweep`: an optimizer and its SDE over a grid of hyperparameters."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxsde import _checks, _files, plotting
from jaxsde.analysis import sweep as run_over
from jaxsde.analysis import with_error
from jaxsde.cli._console import progress_bar, say, table
from jaxsde.cli._options import Options, Setup, either, setup
from jaxsde.processes import Paired

MOST = 30  # rows of the printed table
SIDES = ("optimizer", "sde", "difference")


@dataclasses.dataclass(frozen=True)
class Sweep(Options):
    """Run an optimizer and its SDE at every point of a grid of hyperparameters, on one noise.

    Prints the final expected losses with their Monte Carlo error; writes a figure (PNG, of one or
    two hyperparameters) and all statistics (NetCDF, read by xarray).
    """

    grid: dict[str, str] = dataclasses.field(default_factory=dict)
    """What varies, as NAME VALUES pairs: learning_rate 0.001:0.1:8 scale 0.1,1,10. Values are a
    list, or LOW:HIGH:COUNT, evenly spaced in the logarithm. Names are learning_rate, scale and the
    optimizer's other hyperparameters; all combinations are run."""

    steps: int | None = None
    """Optimizer steps at every point; as many as for track unless given."""

    substeps: int | None = None
    """Euler-Maruyama steps of the SDE for each optimizer step; 4 unless given, on networks 2."""

    warm_up: int | None = None
    """Optimizer steps before the SDE takes over; the optimizer's own default unless given."""

    records: int = 20
    """Recorded times besides the start, spaced evenly."""

    checkpoint: Path | None = None
    """File that keeps how far the sweep is; the same command goes on from there after a stop."""


def sweep(options: Sweep) -> None:
    """Runs, prints, draws and saves one sweep."""
    run = setup(options)
    grid = _grid(options, run)
    substeps = _checks.at_least("substeps", either(options.substeps, run.named.substeps), 1)

    def factory(**point: Any) -> Paired:
        rest = {name: value for name, value in point.items() if name in run.settings}
        return run.family.pair(
            run.oracle(point.get("scale")), point.get("learning_rate", run.learning_rate),
            substeps, run.settings | rest, options.warm_up, run.variance_every,
        )  # fmt: skip

    first = factory(**{name: float(values[0]) for name, values in grid.items()})
    steps = either(options.steps, run.named.steps)
    with progress_bar() as progress:
        found = run_over(
            factory, grid, run.x0, steps=steps, paths=run.paths, key=run.key,
            records=options.records, observables=first.observables(), progress=progress,
            checkpoint=options.checkpoint,
        )  # fmt: skip
    _print(run, grid, found)

    stem = options.output / f"sweep-{options.optimizer}-{run.problem}"
    if len(grid) <= 2:
        title = f"{run.family.about} on {run.problem}, {run.paths:,} paths"
        plotting.save(plotting.sweep(found, "optimizer.loss", title=title), f"{stem}.png")
        print(f"figure: {stem}.png")
    with _files.atomic(f"{stem}.nc") as temporary:
        found.to_netcdf(temporary, engine="h5netcdf")
    print(f"statistics: {stem}.nc (xarray.open_dataset reads it)")


def _grid(options: Sweep, run: Setup) -> dict[str, np.ndarray]:
    """The values by name.

    Raises:
        InputError: no grid, a name that is unknown or given twice, or values that are no numbers.
    """
    if not options.grid:
        raise _checks.InputError("give --grid NAME VALUES, such as --grid learning_rate 0.01,0.1")
    given = set(options.hyperparameters)
    given |= {name for name in ("learning_rate", "scale") if getattr(options, name) is not None}
    scale = ["scale"] if run.scale is not None else []
    for name in options.grid:
        _checks.known("hyperparameter", name, ["learning_rate", *scale, *run.settings])
        if name in given:
            raise _checks.InputError(f"{name} is given twice: in the grid and by itself")
    return {name: _values(name, text) for name, text in options.grid.items()}


def _values(name: str, text: str) -> np.ndarray:
    try:
        if ":" not in text:
            return np.array([float(part) for part in text.split(",")])
        low, high, count = text.split(":")
        ends, size = (float(low), float(high)), int(count)
    except ValueError:
        raise _checks.InputError(
            f"the values of {name} must be a list 0.1,1,10 or LOW:HIGH:COUNT, got {text!r}"
        ) from None
    if not (min(ends) > 0 and np.all(np.isfinite(ends)) and size >= 1):
        raise _checks.InputError(
            f"LOW and HIGH of {name} must be positive and finite, COUNT at least 1, got {text!r}"
        )
    return np.geomspace(*ends, size)


def _print(run: Setup, grid: dict[str, np.ndarray], found: Any) -> None:
    """The last recorded time, all points or some of them."""
    end = found.isel(step=-1).stack(point=list(grid))
    rows = np.unique(np.linspace(0, end.sizes["point"] - 1, MOST).round().astype(int))
    some = "" if len(rows) == end.sizes["point"] else f" at {len(rows)} of its points"
    say(
        f"\n{run.about}, but for the grid.\nExpected loss{some} after {int(end['step']):,} steps, "
        f"over {run.paths:,} paths of each side; in parentheses one standard error in units of the "
        "last digits.",
        wrap=True,
    )
    columns = [(name, [f"{value:.4g}" for value in end[name].values[rows]]) for name in grid]
    for side, header in zip(SIDES, ("optimizer", "SDE", "optimizer\n- SDE"), strict=True):
        mean, error = (end[f"{side}.loss.{kind}"].values for kind in ("mean", "standard_error"))
        columns.append((header, [with_error(mean[i], error[i]) for i in rows]))
    diverged = run.paths - end["difference.loss.used"].values
    if diverged.any():
        columns.append(("diverged", [f"{count:,}" for count in diverged[rows]]))
    table(columns)
