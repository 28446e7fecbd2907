"""`jaxsde track`: an optimizer and its SDE over time."""

import dataclasses
from typing import Any

import numpy as np

from jaxsde import _checks, engine, plotting
from jaxsde.analysis import Comparison, compare, with_error
from jaxsde.analysis.compare import Estimates, doubt, estimates
from jaxsde.cli._console import progress_bar, say, table
from jaxsde.cli._options import Options, setup
from jaxsde.engine import Ensemble, Estimate
from jaxsde.families import Laws, Setting

ROWS = 9  # times in the printed table


@dataclasses.dataclass(frozen=True)
class Track(Options):
    """Run an optimizer and its SDE on a problem, driven by one noise, and compare them.

    Prints expected losses with their Monte Carlo error beside the laws they should follow, and a
    verdict; writes a figure (PNG) and all statistics (NetCDF).
    """

    steps: int = 1000
    """Optimizer steps."""

    substeps: int = 4
    """Euler-Maruyama steps of the SDE for each optimizer step."""

    warm_up: int | None = None
    """Optimizer steps before the SDE takes over; the optimizer's own default unless given."""

    records: int = 100
    """Recorded times, spaced evenly in log time."""


def track(options: Track) -> None:
    """Runs, prints, draws and saves one comparison."""
    run = setup(options)
    substeps = _checks.at_least("substeps", options.substeps, 1)
    pair = run.family.pair(
        run.oracle(), run.learning_rate, substeps, options.hyperparameters, options.warm_up
    )
    with progress_bar() as progress:
        ensemble = engine.simulate(
            pair, run.x0, steps=options.steps, paths=run.paths, records=_records(options),
            key=run.key, progress=progress, observables=pair.observables(),
        )  # fmt: skip
    comparison = compare(ensemble)
    rows = np.unique(np.linspace(0, len(ensemble.time) - 1, ROWS).astype(int))
    times = ensemble.time[rows]
    dt = run.family.step(run.learning_rate) / substeps
    laws = run.family.laws(
        Setting(run.oracle(), run.learning_rate, run.x0, dt, times, run.settings)
    )
    _print(run.about, ensemble, comparison, laws, rows)

    title = f"{run.about}, {ensemble.paths:,} paths"
    figure = plotting.track(ensemble, comparison, laws, times, title=title)
    stem = options.output / f"track-{options.optimizer}-{run.problem}"
    plotting.save(figure, f"{stem}.png")
    ensemble.save(f"{stem}.nc")
    print(f"figure: {stem}.png\nstatistics: {stem}.nc (jaxsde.load reads it)")


def _records(options: Track) -> np.ndarray:
    """The start and steps evenly spaced in log time, even ones where that is possible."""
    steps = _checks.at_least("steps", options.steps, 1)
    count = _checks.at_least("records", options.records, 1)
    stride = 2 if steps % 2 == 0 else 1
    spaced = np.geomspace(1, steps // stride, count) if count > 1 else np.array([steps // stride])
    return np.unique([0, *stride * np.rint(spaced).astype(int)])


def _print(
    about: str, ensemble: Ensemble, comparison: Comparison, laws: Laws, rows: np.ndarray
) -> None:
    found = estimates(ensemble, "loss")
    laws = laws if found.statistic == "mean" else _beside_medians(laws)
    say(f"\n{about}.\n{_heading(ensemble, found)}", wrap=True)
    table(_columns(ensemble, found, laws, rows))
    say(*_law_lines(laws, ensemble, rows), comparison.verdict)


def _heading(ensemble: Ensemble, found: Estimates) -> str:
    error = "in parentheses one standard\nerror in units of the last digits."
    if found.statistic == "mean":
        return f"Expected loss over {ensemble.paths:,} paths of each; {error}"
    size = ensemble.sample["difference.loss"].shape[-1]
    return f"Median loss over the first {size:,} paths of each; {error}\n{doubt(found.heaviest)}."


def _beside_medians(laws: Laws) -> Laws:
    """Without expected losses, which medians are not compared with."""
    if laws.optimizer is None and laws.solver is None and laws.sde is None:
        return laws
    return Laws(None, None, None, about="known of means only, so not shown beside medians")


def _columns(
    ensemble: Ensemble, found: Estimates, laws: Laws, rows: np.ndarray
) -> list[tuple[str, list[str]]]:
    """Headers and cells; a law known at all times stands to the right of the run it is about.

    Laws known at stationarity only make a last row.
    """
    diverged = ensemble.diverged("difference.loss")[rows]
    median = "\nmedian" if found.statistic == "median" else ""
    columns = [
        ("time", [f"{ensemble.time[t]:.4g}" for t in rows]),
        (f"optimizer{median}", _with_errors(found.first, rows)),
        ("its law", _curve(laws.optimizer)),
        (f"SDE{median}", _with_errors(found.second, rows)),
        ("law as\nsolved", _curve(laws.solver)),
        ("law", _curve(laws.sde)),
        ("optimizer\n- SDE", _with_errors(found.difference, rows)),
        ("diverged", [f"{count:,}" for count in diverged] if diverged.any() else []),
    ]
    columns = [(header, cells) for header, cells in columns if cells]
    if isinstance(laws.optimizer, float) and isinstance(laws.solver, float):
        gap = laws.optimizer - laws.solver
        last = ["∞, law", f"{laws.optimizer:.5g}", f"{laws.solver:.5g}", f"{gap:.1g}", ""]
        columns = [
            (header, [*cells, end]) for (header, cells), end in zip(columns, last, strict=False)
        ]
    return columns


def _curve(law: Any) -> list[str]:
    return [] if law is None or np.ndim(law) == 0 else [f"{value:.4g}" for value in law]


def _law_lines(laws: Laws, ensemble: Ensemble, rows: np.ndarray) -> list[str]:
    """How far the simulated means are from the laws that they should follow."""
    lines = [f"laws: {laws.about}."]
    if isinstance(laws.sde, float):
        return [*lines, f"      The SDE itself, in continuous time: {laws.sde:.5g}."]
    sides = (("optimizer", "optimizer", laws.optimizer), ("SDE as solved", "sde", laws.solver))
    for subject, side, curve in sides if laws.errors else ():
        if curve is None:
            continue
        mean = ensemble.mean(f"{side}.loss")[rows]
        error = ensemble.standard_error(f"{side}.loss")[rows]
        z = (np.abs(mean - curve) / np.where(error > 0, error, np.nan))[error > 0]
        if z.size:
            lines.append(
                f"      The {subject} is at most {z.max():.1f} standard errors off its own law, "
                f"over {z.size} times."
            )
    if laws.sde is not None:
        solved = ensemble.mean("sde.loss")[rows] if laws.solver is None else np.ravel(laws.solver)
        lines.append(_integrator_line(solved, laws.sde, ensemble.time[rows]))
    return lines


def _integrator_line(solved: np.ndarray, law: Any, time: np.ndarray) -> str:
    """The integrator's own error where it is largest, relative to the SDE's law."""
    with np.errstate(invalid="ignore"):
        off = np.where(np.isfinite(solved) & (law > 0), solved - law, 0) / np.where(law > 0, law, 1)
    at = int(np.argmax(np.abs(off)))
    return (
        f"      The integrator moves the SDE by at most {off[at]:+.2%} of its law, "
        f"at t = {time[at]:.4g}."
    )


def _with_errors(estimate: Estimate, rows: np.ndarray) -> list[str]:
    pairs = zip(estimate.value[rows], estimate.standard_error[rows], strict=True)
    return [with_error(*pair) for pair in pairs]
