"""Problems by name, each with a start and a noise that make a good first run."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxsde import _checks
from jaxsde.problems._problem import Problem
from jaxsde.problems.landscapes import DoubleWell, EmbeddedSaddle, Rosenbrock
from jaxsde.problems.quadratic import Quadratic
from jaxsde.problems.regression import breast_cancer


class Named(NamedTuple):
    """A problem's factory, start x0, noise scale σ, number of paths and one line about it."""

    make: Callable[[], Problem]
    x0: np.ndarray
    scale: float
    paths: int
    about: str


NAMED = {
    "quadratic": Named(
        lambda: Quadratic(np.linspace(0.5, 5, 10)),
        np.ones(10, np.float32), 0.5, 20_000,
        "xᵀ H x / 2 in 10 dimensions, H = diag(0.5, ..., 5)",
    ),
    "rosenbrock": Named(
        lambda: Rosenbrock(5.0),
        np.array([-1.0, 1.5], np.float32), 0.5, 20_000,
        "the curved valley 5 (y - x²)² + (1 - x)²",
    ),
    "embedded-saddle": Named(
        EmbeddedSaddle,
        np.array([0.01, 1.0], np.float32), 0.2, 20_000,
        "a saddle at 0 inside a quartic bowl, two dimensions",
    ),
    "double-well": Named(
        DoubleWell,
        np.array([1.0], np.float32), 1.0, 20_000,
        "(x² - 1)²/4, started in the right well",
    ),
    "breast-cancer": Named(
        breast_cancer,
        np.zeros(31, np.float32), 0.1, 2_000,
        "logistic regression on scikit-learn's breast cancer data, 569 x 31",
    ),
}  # fmt: skip


def named(name: str) -> Named:
    """The problem of that name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    _checks.known("problem", name, NAMED)
    return NAMED[name]
