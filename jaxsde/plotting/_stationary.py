"""Runs from several starts, and the law they settle in."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxsde import _checks
from jaxsde.analysis.stationarity import _densities as densities
from jaxsde.analysis.stationarity._stationary import Stationary
from jaxsde.plotting._style import CYCLE, LAW, tidy

MOST, BINS = 4, 50  # rows of a figure, bins of a histogram


def stationary(
    result: Stationary, laws: Mapping[str, Any] | None = None, *, title: str = ""
) -> Any:
    """Each observable over time from each start, and its law from each at the end.

    The first four components of all observables, scalars first: means, or medians where no variance
    is shown to exist, with ± 2 standard errors, the window shaded; histograms at the end.

    Args:
        result: what is shown.
        laws: frozen laws of `scipy.stats`, or densities, by observable; those of an observable of
            several components in a list.
        title: over the figure.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: matplotlib is missing (pip install 'jaxsde[plot]').
        InputError: laws of what was not observed.
    """
    _checks.extra("matplotlib", "plot")
    from matplotlib.figure import Figure

    laws = laws or {}
    for name in laws:
        _checks.known("observable", name, result.evidence)
    shapes = {name: e.shape for name, e in result.evidence.items()}
    rows = [
        (name, index)
        for name in sorted(shapes, key=lambda name: len(shapes[name]))
        for index in np.ndindex(shapes[name])
    ][:MOST]
    figure = Figure(figsize=(11, 0.8 + 2.7 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False, width_ratios=(2, 1))
    for (curve, law), (name, index) in zip(axes, rows, strict=True):
        _curves(curve, result, name, index)
        given = laws.get(name)
        density = _density_of(given[index[0]] if index and given is not None else given)
        _laws(law, result, name, index, density)
    axes[0, 0].legend(frameon=False)
    axes[0, 0].set_title(result.conclusion, loc="left", fontsize=10)
    axes[0, 1].set_title(f"law at time {result.time[-1]:.4g}", fontsize=10)
    axes[-1, 0].set_xlabel("time")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _curves(axes: Any, result: Stationary, name: str, index: tuple[int, ...]) -> None:
    time, lowest, top = result.time, np.inf, -np.inf
    for start, color in zip(result.starts, _colors(result), strict=True):
        value, error = (part[(slice(None), *index)] for part in result.curve(name, start))
        axes.plot(time, value, color=color, label=f"from {start}")
        axes.fill_between(time, value - 2 * error, value + 2 * error, color=color, alpha=0.2, lw=0)
        known = value[np.isfinite(value) & (time > time[0])]
        lowest, top = min([lowest, *known]), max([top, *known])
    if lowest > 0 and top > 10 * lowest:
        axes.set_yscale("log")
    axes.axvspan(*time[result.window][[0, -1]], color=LAW, alpha=0.08, lw=0)
    axes.set_ylabel(f"{result.evidence[name].statistic} {_label(name, index)}")
    tidy(axes)


def _laws(
    axes: Any, result: Stationary, name: str, index: tuple[int, ...], density: Callable | None
) -> None:
    """Histograms on common bins, and the law's density."""
    samples = [result.sample(name, start)[(slice(None), *index)] for start in result.starts]
    together = np.concatenate(samples).astype(float)
    axes.set(xlabel=_label(name, index), yticks=[])
    tidy(axes)
    if not together.size:
        axes.text(0.5, 0.5, "no path is finite", transform=axes.transAxes, ha="center")
        return
    edges = densities.histogram(together, BINS).edges
    for values, color in zip(samples, _colors(result), strict=True):
        if values.size:
            found = densities.histogram(values, edges)
            axes.stairs(found.density, found.edges, color=color, lw=1.5)
    if density is not None:
        x = np.linspace(edges[0], edges[-1], 400)
        axes.plot(x, density(x), color=LAW, lw=1.2, ls="--", label="given law")
        axes.legend(frameon=False)


def _density_of(law: Any) -> Callable | None:
    return getattr(law, "pdf", law)


def _colors(result: Stationary) -> list[str]:
    return [CYCLE[i % len(CYCLE)] for i in range(len(result.starts))]


def _label(name: str, index: tuple[int, ...]) -> str:
    return f"{name}{list(index)}" if index else name
