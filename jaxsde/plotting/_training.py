"""Training: the loss and what else is watched over the optimizer's steps."""

from typing import Any, NamedTuple

import numpy as np

from jaxsde import _checks
from jaxsde.analysis import Comparison
from jaxsde.analysis.compare import estimates
from jaxsde.engine import Ensemble
from jaxsde.plotting._style import CYCLE, LAW, OPTIMIZER, SDE, tidy
from jaxsde.plotting._track import symmetric_log

OLDER = CYCLE[2]
LABELS = {
    "loss": "loss",
    "gradient_norm": "gradient norm |∇f|",
    "accuracy": "accuracy",
    "noise_trace": "trace of the noise, tr Σ",
}
SPREAD = (0.1, 0.9)
BANDS = "dark bands: ± 2 standard errors; light bands: the middle 80 % of the paths"
LEFT = ["loss"] * 4 + ["difference"] * 2  # rows of the grid


class Tracked(NamedTuple):
    """A run of a `Paired` process, its comparison, and a line about the optimizer and its SDE."""

    ensemble: Ensemble
    comparison: Comparison
    about: str = ""


class Curve(NamedTuple):
    """One side of a run and how it is drawn."""

    label: str
    ensemble: Ensemble
    side: str
    color: str
    style: str


def others(ensemble: Ensemble) -> list[str]:
    """The scalar observables of a `Paired` process, but for the loss."""
    names = [name.removeprefix("sde.") for name in ensemble.names if name.startswith("sde.")]
    names = [
        *(name for name in LABELS if name in names),
        *(name for name in names if name not in LABELS),
    ]
    return [name for name in names if name != "loss" and ensemble.mean(f"sde.{name}").ndim == 1]


def training(tracked: Tracked, older: Tracked | None = None, *, title: str = "") -> Any:
    """Optimizer against SDE over the steps: the loss, its difference, and what else is watched.

    Dark bands are 2 standard errors about the mean, or median where the mean may not exist; light
    ones hold the middle 80 % of the paths.

    Args:
        tracked: the optimizer and its SDE.
        older: the optimizer and a baseline, on the same problem and noise.
        title: over the figure.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: matplotlib is missing (pip install 'jaxsde[plot]').
    """
    _checks.extra("matplotlib", "plot")
    from matplotlib.figure import Figure

    curves = [
        Curve("optimizer", tracked.ensemble, "optimizer", OPTIMIZER, "-"),
        Curve("SDE", tracked.ensemble, "sde", SDE, "--"),
    ]
    found = {"optimizer - SDE": (tracked, SDE)}
    if older is not None:
        curves.append(Curve("older SDE", older.ensemble, "sde", OLDER, "-."))
        found["optimizer - older SDE"] = (older, OLDER)
    right = others(tracked.ensemble)
    rows: list[Any] = [
        [name, *([right[i * len(right) // len(LEFT)]] if right else [])]
        for i, name in enumerate(LEFT)
    ]
    figure = Figure(figsize=(11 if right else 7.5, 6.6), layout="constrained")
    axes = figure.subplot_mosaic(rows, sharex=True, width_ratios=(3, 2) if right else None)
    for name in ("loss", *right):
        over_steps(axes[name], curves, name)
    differences(axes["difference"], found)
    for axis in (axes["difference"], *([axes[right[-1]]] if right else [])):
        axis.set_xlabel("step")
    axes["loss"].legend(frameon=False)
    axes["loss"].set_title(BANDS, loc="left", fontsize=9, color=LAW)
    axes["loss"].margins(x=0)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def over_steps(axes: Any, curves: list[Curve], observable: str) -> Any:
    """Means, or medians, ± 2 standard errors, and the middle 80 % of the paths."""
    lowest, top = np.inf, -np.inf
    for curve in curves:
        found, step = estimates(curve.ensemble, observable), curve.ensemble.step
        value, error = found.first if curve.side == "optimizer" else found.second
        low, high = (curve.ensemble.quantile(f"{curve.side}.{observable}", q).value for q in SPREAD)
        axes.fill_between(step, low, high, color=curve.color, alpha=0.1, lw=0)
        axes.fill_between(
            step, value - 2 * error, value + 2 * error, color=curve.color, alpha=0.3, lw=0
        )
        axes.plot(step, value, curve.style, color=curve.color, lw=1.6, label=curve.label)
        known = np.concatenate([value, low])
        lowest = min([lowest, *known[np.isfinite(known)]])
        top = max([top, *value[np.isfinite(value)]])
    if lowest > 0 and top > 10 * lowest and observable != "accuracy":
        axes.set_yscale("log")
    axes.set_ylabel(LABELS.get(observable, observable))
    tidy(axes)
    return axes


def differences(axes: Any, found: dict[str, tuple[Tracked, str]]) -> Any:
    """The optimizer's loss less that of each SDE, with its simultaneous confidence band."""
    axes.axhline(0, color="black", lw=0.8)
    ends = []
    for label, (run, color) in found.items():
        its, step = run.comparison.differences["loss"], run.ensemble.step
        axes.fill_between(step, its.lower, its.upper, color=color, alpha=0.25, lw=0)
        axes.plot(step, its.value, color=color, label=label)
        ends += [its.lower, its.upper]
    axes.set_ylabel("difference of losses")
    symmetric_log(axes, np.abs(ends))
    axes.legend(
        frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0,
        fontsize=9,
    )  # fmt: skip
    tidy(axes)
    return axes
