"""What all figures share."""

import os
from typing import Any

from jaxsde import _files

OPTIMIZER, SDE, LAW = "#0072b2", "#d55e00", "#444444"  # distinct to the colour-blind
CYCLE = (OPTIMIZER, SDE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def tidy(axes: Any) -> None:
    """Takes the frame's top and right away."""
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: str | os.PathLike) -> None:
    """Writes the figure, in the format of the path's suffix, whole or not at all."""
    with _files.atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)
