"""Asymptotic loss against noise and batch size."""

from typing import Any

import numpy as np

from jaxsde import _checks
from jaxsde.analysis.sweeps._noise_resilience import NoiseResilience
from jaxsde.plotting._style import tidy

NAMES = {
    "sgd": "SGD",
    "sign_sgd": "SignSGD",
    "adam": "Adam",
    "adam-l2": "Adam on the L2 loss",
    "adamw": "AdamW",
}
ROWS = (
    ("scale", "batch_size", "noise σ", "B = {:g}"),
    ("batch_size", "scale", "batch size B", "σ = {:.3g}"),
)
MOST = 4  # curves of a panel


def noise_resilience(found: NoiseResilience, *, title: str = "") -> Any:
    """The loss against σ, above, and against B, below: a panel for each optimizer.

    Circles are simulated, ± 2 standard errors (open ones are not stationary); solid lines are
    laws, dotted ones bounds, dashed ones bounds as published where they differ.

    Args:
        found: what `analysis.noise_resilience` returned.
        title: over the figure.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: matplotlib is missing (pip install 'jaxsde[plot]').
    """
    _checks.extra("matplotlib", "plot")
    from matplotlib.figure import Figure

    data = found.dataset.assign(stationary=found.stationary)
    methods = data["optimizer"].values
    figure = Figure(figsize=(3 * len(methods), 6.4), layout="constrained")
    panels = figure.subplots(2, len(methods), sharey=True, sharex="row")
    for row, (along, other, label, name) in zip(panels, ROWS, strict=True):
        for axes, method in zip(row, methods, strict=True):
            _panel(axes, data.sel(optimizer=method), along, other, name)
            axes.set_xlabel(label)
        row[0].set_ylabel("asymptotic expected loss")
    panels[0, 0].legend(frameon=False, fontsize="small")
    panels[1, -1].legend(frameon=False, fontsize="small", loc="upper right")
    for axes, method in zip(panels[0], methods, strict=True):
        exponent = float(found.exponent.sel(optimizer=method).isel(batch_size=0))
        axes.set_title(
            f"{NAMES[method]}\n$\\propto\\sigma^{{{exponent:.2f}}}$ at the largest", fontsize=11
        )
    _key(panels[0][-1])
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _panel(axes: Any, data: Any, along: str, other: str, name: str) -> None:
    import matplotlib

    chosen = np.unique(np.linspace(0, data.sizes[other] - 1, MOST).round().astype(int))
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(chosen)))
    x = data[along].values
    for index, color in zip(chosen, colors, strict=True):
        part = data.isel({other: index})
        loss, error = part["loss"].values, 2 * part["standard_error"].values
        still = part["stationary"].values
        axes.plot(x, part["law"], color=color, lw=1.2)
        axes.plot(x, part["bound"], ":", color=color, lw=1.5)
        if not np.allclose(part["bound"], part["published"], equal_nan=True):
            axes.plot(x, part["published"], "--", color=color, lw=1)
        label = name.format(float(part[other]))
        axes.errorbar(
            x[still],
            loss[still],
            error[still],
            fmt="o",
            ms=3.5,
            capsize=2,
            color=color,
            label=label,
        )
        axes.errorbar(
            x[~still],
            loss[~still],
            error[~still],
            fmt="o",
            ms=3.5,
            capsize=2,
            mfc="none",
            color=color,
        )
    axes.set(xscale="log", yscale="log")
    tidy(axes)


def _key(axes: Any) -> None:
    """What the lines are."""
    from matplotlib.lines import Line2D

    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("simulated ± 2 errors", {"marker": "o", "ls": "", "ms": 3.5}),
        ("law", {"ls": "-"}),
        ("bound", {"ls": ":"}),
        ("bound as published", {"ls": "--"}),
    )
    lines = [Line2D([], [], color="black", label=label, **style) for label, style in kinds]
    axes.legend(handles=lines, frameon=False, fontsize="small")
