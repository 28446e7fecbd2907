"""The figure: rates by case, a bar a peer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxsde import _files

COLOURS = {
    "jaxsde": "#d55e00",
    "jax-paths-last": "#0072b2",
    "jax-paths-first": "#56b4e9",
    "jax-monte-carlo": "#b2d8f0",
    "diffrax-unsafe": "#009e73",
    "diffrax-unsafe-joint": "#66c2a5",
    "diffrax-tree": "#b3e2cd",
    "torchsde": "#cc79a7",
    "pytorch": "#882255",
    "numpy": "#999999",
    "numba": "#e6b800",
}
OTHER = "#444444"


def draw(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Horizontal bars on a logarithmic scale, each with jaxsde's rate over the peer's."""
    from matplotlib.figure import Figure

    ran = [row for row in rows if row["status"] == "ok"]
    groups = {row["case"]: [r for r in ran if r["case"] == row["case"]] for row in ran}
    figure = Figure(figsize=(9, 1.2 + 0.2 * len(ran) + 0.25 * len(groups)), layout="constrained")
    axes, place, centres = figure.subplots(), 0.0, []
    for group in groups.values():
        group = sorted(group, key=lambda row: -row["coordinate_steps_per_second"])
        centres.append(place + (len(group) - 1) / 2)
        for row in group:
            _bar(axes, place, row)
            place += 1
        place += 1.2
    axes.set_yticks(centres, [f"{case}\n{_size(group[0])}" for case, group in groups.items()])
    axes.set_ylim(place - 1.2, -1)
    axes.set_xscale("log")
    rates = [row["coordinate_steps_per_second"] for row in ran]
    axes.set_xlim(min(rates) / 2, max(rates) * 6)
    axes.set_xlabel("coordinate-steps a second; in brackets, how many times as fast jaxsde is")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    with _files.atomic(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _bar(axes: Any, place: float, row: dict[str, Any]) -> None:
    rate, ratio = row["coordinate_steps_per_second"], row.get("jaxsde_ratio")
    axes.barh(place, rate, height=0.9, color=COLOURS.get(row["peer"], OTHER))
    label = row["peer"]
    if row["peer"] != "jaxsde" and ratio is not None:
        label += f"  ({ratio:.3g} x)"
    if row["agrees"] is False:
        label += "  DISAGREES"
    weight = "bold" if row["peer"] == "jaxsde" else "normal"
    axes.text(rate * 1.05, place, label, va="center", fontsize=8, fontweight=weight)


def _size(row: dict[str, Any]) -> str:
    return f"d = {row['d']}, {row['paths']:,} paths"
