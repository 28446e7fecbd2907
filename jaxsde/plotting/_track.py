"""Optimizer against SDE over time."""

from typing import Any

import numpy as np

from jaxsde import _checks
from jaxsde.analysis import Comparison
from jaxsde.analysis.compare import estimates
from jaxsde.engine import Ensemble
from jaxsde.families import Laws
from jaxsde.plotting._style import LAW, OPTIMIZER, SDE, tidy

LARGEST = 1e100  # beyond which a logarithmic axis fails


def track(
    ensemble: Ensemble,
    comparison: Comparison,
    laws: Laws | None = None,
    law_time: np.ndarray | None = None,
    *,
    title: str = "",
    observable: str = "loss",
) -> Any:
    """Optimizer against SDE: the expected observable, their difference, its law at the end.

    Args:
        ensemble: of a `Paired` process.
        comparison: of that ensemble.
        laws: what theory says.
        law_time: the times at which it says so.
        title: over the figure.
        observable: a scalar one.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: matplotlib is missing (pip install 'jaxsde[plot]').
    """
    _checks.extra("matplotlib", "plot")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.subplot_mosaic(
        [["mean", "law"], ["difference", "law"]], width_ratios=(2, 1), height_ratios=(3, 2)
    )
    expected(axes["mean"], ensemble, laws, law_time, observable)
    difference(axes["difference"], comparison, observable)
    final_law(axes["law"], ensemble, observable)
    axes["difference"].sharex(axes["mean"])
    if len(ensemble.time[_shown(ensemble.time)]) < len(ensemble.time):
        axes["mean"].set_xscale("log")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def expected(
    axes: Any,
    ensemble: Ensemble,
    laws: Laws | None = None,
    law_time: np.ndarray | None = None,
    observable: str = "loss",
) -> Any:
    """E of the observable on both sides, ± 2 standard errors, with the laws.

    Its medians, without laws, where the mean may not exist.
    """
    found = estimates(ensemble, observable)
    lowest, top, shown = np.inf, -np.inf, _shown(ensemble.time)
    time = ensemble.time[shown]
    sides = (("optimizer", found.first, OPTIMIZER, "-"), ("SDE", found.second, SDE, "--"))
    for label, estimate, color, style in sides:
        value, error = estimate.value[shown], 2 * estimate.standard_error[shown]
        axes.plot(time, value, style, color=color, label=label)
        axes.fill_between(time, value - error, value + error, color=color, alpha=0.2, lw=0)
        known = value[np.isfinite(value)]
        lowest, top = min([lowest, *known]), max([top, *known])
    means = found.statistic == "mean"
    if means and laws is not None and law_time is not None:
        _laws(axes, laws, law_time)
    if lowest > 0 and top > 10 * lowest:
        axes.set_yscale("log")
    axes.set_ylabel(
        f"expected {observable}" if means else f"median {observable}; the mean may not exist"
    )
    axes.legend(frameon=False)
    tidy(axes)
    return axes


def _laws(axes: Any, laws: Laws, time: np.ndarray) -> None:
    curves = (
        ("law of the optimizer", laws.optimizer, "o", OPTIMIZER),
        ("law of the SDE as solved", laws.solver, "s", SDE),
        ("law of the SDE", laws.sde, "D", LAW),
    )
    levels = {}
    for label, curve, marker, color in curves:
        if curve is None:
            continue
        if np.ndim(curve) == 0:
            levels.setdefault(float(curve), []).append((label, color))
            continue
        known, at = np.ravel(curve)[_shown(time)], time[_shown(time)]
        known = np.where(np.abs(known) < LARGEST, known, np.nan)
        axes.plot(at, known, marker, mfc="none", mec=color, ms=6, label=label)
    for level, lines in levels.items():
        text = "all laws" if len(lines) == len(curves) else " and ".join(name for name, _ in lines)
        axes.axhline(level, color=lines[0][1], lw=1, ls=":", label=f"{text}, stationary level")


def difference(axes: Any, comparison: Comparison, observable: str = "loss") -> Any:
    """Optimizer minus SDE with its simultaneous confidence band."""
    found, shown = comparison.differences[observable], _shown(comparison.time)
    time, lower, upper = (a[shown] for a in (comparison.time, found.lower, found.upper))
    axes.axhline(0, color="black", lw=0.8)
    axes.fill_between(
        time, lower, upper, color=LAW, alpha=0.25, lw=0,
        label=f"{comparison.confidence:.0%} band over all times",
    )  # fmt: skip
    axes.plot(time, found.value[shown], color=LAW)
    what = "" if found.statistic == "mean" else "median "
    axes.set(xlabel="time", ylabel=f"{what}{observable}: optimizer - SDE")
    if np.any(np.isfinite(upper) & (upper > lower)):
        symmetric_log(axes, np.abs([lower, upper]))
    axes.legend(frameon=False)
    tidy(axes)
    return axes


def symmetric_log(axes: Any, sizes: np.ndarray) -> None:
    """Logarithmic on both sides of 0, over two to three decades below the largest size."""
    reach = np.max(sizes[np.isfinite(sizes)], initial=0)
    decade = np.ceil(np.log10(max(reach / 300, 1e-300)))  # whole, or its ticks meet at 0
    axes.set_yscale("symlog", linthresh=10.0**decade)


def final_law(axes: Any, ensemble: Ensemble, observable: str = "loss") -> Any:
    """Histograms of the observable over the sampled paths at the last time, up to its 99 %."""
    samples = {side: ensemble.sample[f"{side}.{observable}"][-1] for side in ("optimizer", "sde")}
    finite = {side: values[np.isfinite(values)] for side, values in samples.items()}
    together = np.concatenate(list(finite.values()))
    axes.set(title=f"law at time {ensemble.time[-1]:.4g}", xlabel=observable, yticks=[])
    if not together.size:
        axes.text(0.5, 0.5, "no path is finite", transform=axes.transAxes, ha="center")
        return axes
    low, high = np.quantile(together, (0, 0.99))
    bins = np.linspace(low, high if high > low else low + 1, 36)
    for (side, values), color in zip(finite.items(), (OPTIMIZER, SDE), strict=True):
        if not np.any((values >= bins[0]) & (values <= bins[-1])):
            continue
        filled = side == "optimizer"
        axes.hist(
            values, bins, weights=np.full(values.size, 1 / (values.size * np.diff(bins)[0])),
            color=color, lw=1.5,
            histtype="stepfilled" if filled else "step", alpha=0.35 if filled else 1,
            label="SDE" if side == "sde" else side,
        )  # fmt: skip
    axes.legend(frameon=False)
    tidy(axes)
    return axes


def _shown(time: np.ndarray) -> slice:
    """Without a start at time 0, which a logarithmic axis cannot show."""
    return slice(1, None) if len(time) > 2 and time[0] <= 0 else slice(None)
