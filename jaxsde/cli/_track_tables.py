"""What `jaxsde track` prints: the run beside its laws, or the loss and what else is watched."""

from typing import Any

import numpy as np

from jaxsde import _checks
from jaxsde.analysis import with_error
from jaxsde.analysis.compare import Estimates, doubt, estimates
from jaxsde.cli._console import say, table
from jaxsde.cli._options import Setup
from jaxsde.engine import Ensemble, Estimate
from jaxsde.families import Laws
from jaxsde.plotting import Tracked, others

ROWS = 9  # times in the printed tables
NAMES = {"gradient_norm": "|∇f|", "accuracy": "accuracy", "noise_trace": "tr Σ"}


def rows_of(ensemble: Ensemble) -> np.ndarray:
    """The times that are printed."""
    return np.unique(np.linspace(0, len(ensemble.time) - 1, ROWS).astype(int))


def print_beside_laws(about: str, tracked: Tracked, laws: Laws) -> None:
    """Expected losses beside the laws that they should follow, and the verdict."""
    ensemble, rows = tracked.ensemble, rows_of(tracked.ensemble)
    found = estimates(ensemble, "loss")
    laws = laws if found.statistic == "mean" else _beside_medians(laws)
    say(f"\n{about}.\n{_heading(ensemble, found)}", wrap=True)
    table(_columns(ensemble, found, laws, rows))
    say(*_law_lines(laws, ensemble, rows), tracked.comparison.verdict)


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


def print_training(run: Setup, tracked: Tracked, older: Tracked | None) -> None:
    """Losses of the optimizer and of its SDEs, whatever else is watched, and the verdicts."""
    ensemble, rows = tracked.ensemble, rows_of(tracked.ensemble)
    found = estimates(ensemble, "loss")
    say(f"\n{run.about}.\n{_heading(ensemble, found)}", wrap=True)
    table(_loss_columns(tracked, older, rows))
    watched = others(ensemble)
    for i in range(0, len(watched), 2):
        table(_other_columns(ensemble, watched[i : i + 2], rows))
    if "noise_trace" not in watched:
        say(f"tr Σ = {_trace(run)} at every point.\n")
    say(f"The SDE: {run.family.about}.", tracked.comparison.verdict, wrap=True)
    if older is not None:
        say(f"\nThe older SDE: {older.about}.", older.comparison.verdict, wrap=True)


def _loss_columns(
    tracked: Tracked, older: Tracked | None, rows: np.ndarray
) -> list[tuple[str, list[str]]]:
    sides = [("SDE", tracked)] + ([] if older is None else [("older SDE", older)])
    found = {name: estimates(side.ensemble, "loss") for name, side in sides}
    broken = {name: name.replace(" ", "\n") for name in found}
    first = found["SDE"]
    columns = [("step", [f"{tracked.ensemble.step[t]:,}" for t in rows])]
    columns += [(f"optimizer{_median(first)}", _with_errors(first.first, rows))]
    for name, its in found.items():
        columns.append((f"{broken[name]}{_median(its)}", _with_errors(its.second, rows)))
    for name, its in found.items():
        columns.append((f"optimizer\n- {name}", _with_errors(its.difference, rows)))
    return columns


def _median(found: Estimates) -> str:
    return "\nmedian" if found.statistic == "median" else ""


def _other_columns(
    ensemble: Ensemble, names: list[str], rows: np.ndarray
) -> list[tuple[str, list[str]]]:
    """|∇f|, accuracy, tr Σ or what else is watched, the optimizer's and the SDE's."""
    columns = [("step", [f"{ensemble.step[t]:,}" for t in rows])]
    for name in names:
        found, label = estimates(ensemble, name), NAMES.get(name, name)
        for side, estimate in (("optimizer", found.first), ("SDE", found.second)):
            columns.append((f"{label}\n{side}{_median(found)}", _with_errors(estimate, rows)))
    return columns


def _trace(run: Setup) -> str:
    """tr Σ of noise that is everywhere the same."""
    try:
        return f"{float(run.oracle().trace(run.x0)):.4g}"
    except _checks.InputError:
        return "∞"
