"""The weak error against the step, with its order."""

from typing import Any

import numpy as np

from jaxsde import _checks
from jaxsde.analysis.weak_error import ObservableError, WeakError
from jaxsde.plotting._style import CYCLE, LAW, OPTIMIZER, SDE, tidy


def weak_error(study: WeakError, *, title: str = "") -> Any:
    """|E g(x_k) - E g(X_t)| of every observable against dt, its fit, and the integrator's share.

    Filled points are shown to differ from 0, hollow ones lie below the noise: their upper bound is
    drawn. Triangles point down where the error is negative.

    Args:
        study: of `jaxsde.weak_error`.
        title: over the figure.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: matplotlib is missing (pip install 'jaxsde[plot]').
    """
    _checks.extra("matplotlib", "plot")
    from matplotlib.figure import Figure

    count = len(study.errors)
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(9.0, 4.8 * columns), 1.0 + 4.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (name, found) in zip(axes, study.errors.items(), strict=False):
        against_step(ax, study, found)
        ax.set_title(name)
    for ax in axes[count:]:
        ax.remove()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def against_step(axes: Any, study: WeakError, found: ObservableError) -> Any:
    """One observable on logarithmic axes."""
    size, shown = np.abs(found.error), found.shown
    reach = found.upper - found.error
    for below, marker in ((False, "^"), (True, "v")):
        chosen = shown & ((found.error < 0) == below)
        if chosen.any():
            axes.errorbar(
                study.dt[chosen], size[chosen], reach[chosen], fmt=marker, color=OPTIMIZER, ms=6,
                capsize=3, label=f"optimizer - SDE {'<' if below else '>'} 0",
            )  # fmt: skip
    if not shown.all():
        bound = np.maximum(np.abs(found.lower), np.abs(found.upper))[~shown]
        axes.plot(
            study.dt[~shown], bound, "o", mfc="none", mec=OPTIMIZER,
            label=f"below the noise: {study.confidence:.0%} bound",
        )  # fmt: skip
    if found.order is not None:
        order, h = found.order, np.geomspace(study.dt.min(), study.dt.max(), 60)
        leading = np.abs(order.constant) * h**order.value
        interval = f"{order.value:.3f} ({order.lower:.3f} to {order.upper:.3f})"
        axes.plot(h, leading, "--", color=SDE, label=f"leading term, order {interval}")
    axes.plot(study.dt, np.abs(found.bias), ":", color=LAW, label="integrator's last correction")
    axes.plot(study.dt, found.standard_error, "-.", color=CYCLE[2], lw=1, label="standard error")
    axes.set(xscale="log", yscale="log", xlabel="step dt", ylabel="|weak error|")
    axes.set_xticks(study.dt, [f"{dt:.3g}" for dt in study.dt], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    return axes
