"""What a sweep found at one time."""

from typing import Any

import numpy as np

from jaxsde import _checks
from jaxsde.plotting._style import CYCLE, OPTIMIZER, tidy

FAMILY = len(CYCLE)  # curves that one panel can tell apart
WIDE = 10  # ratio of the largest to the smallest from which an axis is logarithmic


def sweep(
    dataset: Any, observable: str = "loss", *, step: int | None = None, title: str = ""
) -> Any:
    """The mean of an observable over the grid, at the last time unless a step is given.

    One hyperparameter: a curve with ± 2 standard errors. Two: a curve for each value of the
    shorter axis, a heat map where those are more than six. Axes are logarithmic where values are
    positive and span a decade. Points where paths diverged are left out, and counted in the label:
    means over the survivors say little.

    Args:
        dataset: of `analysis.sweep`; choose among more hyperparameters by its `sel` or `isel`.
        observable: a scalar one.
        step: a recorded one.
        title: over the figure.

    Returns:
        The matplotlib figure.

    Raises:
        InputError: an unknown observable, one that is no scalar, a step that was not recorded, or
            no or more than two hyperparameters.
        ImportError: matplotlib is missing (pip install 'jaxsde[plot]').
    """
    _checks.extra("matplotlib", "plot")
    from matplotlib.figure import Figure

    names = [str(name).removesuffix(".mean") for name in dataset if str(name).endswith(".mean")]
    _checks.known("observable", observable, names)
    steps = dataset["step"].values
    step = int(steps[-1]) if step is None else step
    if step not in steps:
        raise _checks.InputError(f"step {step} was not recorded; recorded are {steps.tolist()}")
    at = dataset.sel(step=step)
    mean, error = (at[f"{observable}.{kind}"] for kind in ("mean", "standard_error"))
    if any(str(dim).startswith(f"{observable}.") for dim in mean.dims):
        raise _checks.InputError(f"{observable} has components: choose one by the data set's isel")
    if mean.ndim not in (1, 2):
        raise _checks.InputError(
            f"a figure shows one or two hyperparameters, not {mean.ndim}: choose values of the "
            "others by the data set's sel or isel"
        )
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    label = f"expected {observable} after {step:,} steps"
    whole = at[f"{observable}.used"] == dataset.attrs["paths"]
    mean, missing = mean.where(whole), int((~whole).sum())
    if missing:
        label += f"\n({missing} points with diverged paths left out)"
    if mean.ndim == 1:
        _curves(axes, mean, error, label)
    elif min(mean.shape) <= FAMILY:
        along = mean.dims[int(np.argmax(mean.shape))]
        _curves(axes, mean.transpose(..., along), error.transpose(..., along), label)
    else:
        _heat_map(axes, mean, label)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _curves(axes: Any, mean: Any, error: Any, label: str) -> None:
    """A curve over the last axis for each entry of the first, if there is one."""
    x = _values(mean, mean.dims[-1])
    one = mean.ndim == 1
    rows = [(mean, error)] if one else list(zip(mean, error, strict=True))
    names = [None] if one else _labels(mean, mean.dims[0])
    colors = [OPTIMIZER] if one else CYCLE
    for (value, spread), name, color in zip(rows, names, colors, strict=False):
        axes.errorbar(
            x, value.values, 2 * spread.values, fmt="o-", ms=4, lw=1.2, capsize=2, color=color,
            label=name,
        )  # fmt: skip
    axes.set(xlabel=mean.dims[-1], ylabel=label)
    if mean.dims[-1] in mean.coords:
        axes.set_xscale("log" if _wide(x) else "linear")
    else:
        axes.set_xticks(x, _labels(mean, mean.dims[-1], "\n"))
    axes.set_yscale("log" if _wide(mean.values) else "linear")
    if not one:
        axes.legend(frameon=False)
    tidy(axes)


def _heat_map(axes: Any, mean: Any, label: str) -> None:
    from matplotlib.colors import LogNorm

    down, across = mean.dims
    x, y = _values(mean, across), _values(mean, down)
    values = np.ma.masked_invalid(mean.values)
    norm = LogNorm() if _wide(mean.values) else None
    axes.set_facecolor("0.85")
    mesh = axes.pcolormesh(_edges(x), _edges(y), values, norm=norm, cmap="viridis")
    axes.set(xlabel=across, ylabel=down)
    axes.set_xscale("log" if _wide(x) else "linear")
    axes.set_yscale("log" if _wide(y) else "linear")
    axes.figure.colorbar(mesh, label=label)


def _values(mean: Any, dim: str) -> np.ndarray:
    """An axis's values; numbers of points where it runs through several hyperparameters."""
    return mean[dim].values.astype(float) if dim in mean.coords else np.arange(mean.sizes[dim])


def _labels(mean: Any, dim: str, between: str = ", ") -> list[str]:
    """What each point of an axis is called."""
    names = dim.split(",")
    return [
        between.join(f"{name} = {float(mean[name][i]):.4g}" for name in names)
        for i in range(mean.sizes[dim])
    ]


def _wide(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)]
    return bool(known.size and known.min() > 0 and known.max() >= WIDE * known.min())


def _edges(values: np.ndarray) -> np.ndarray:
    """Where the cells around ascending or descending values end, halfway between them."""
    on_log = _wide(values)
    at = np.log(values) if on_log else values
    middle = (at[1:] + at[:-1]) / 2
    edges = np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])
    return np.exp(edges) if on_log else edges
