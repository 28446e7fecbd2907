"""Problems by name, each with a start and a noise that make a good first run."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxsde import _checks
from jaxsde.problems._problem import Problem
from jaxsde.problems.games import (
    AlmostBilinear,
    BilinearGame,
    DegreeEight,
    Forsaken,
    Players,
    QuadraticGame,
)
from jaxsde.problems.landscapes import DoubleWell, EmbeddedSaddle, Rosenbrock
from jaxsde.problems.quadratic import Quadratic
from jaxsde.problems.regression import breast_cancer


class Named(NamedTuple):
    """A problem's factory, start x0, noise scale σ, number of paths and one line about it."""

    make: Callable[[], Problem]
    x0: np.ndarray | Players
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
    "quadratic-game": Named(
        lambda: QuadraticGame([1.0, 2.0], [0.5, 0.5]),
        Players(np.ones(2, np.float32), np.ones(2, np.float32)), 0.2, 20_000,
        "two players, xᵀ A x/2 + xᵀ B y - yᵀ A y/2, A = diag(0.5, 0.5), B = diag(1, 2)",
    ),
    "bilinear": Named(
        lambda: BilinearGame([2.0]),
        Players(np.array([0.1], np.float32), np.array([0.1], np.float32)), 0.01, 20_000,
        "two players, 2 x y",
    ),
    "forsaken": Named(
        Forsaken,
        Players(np.array([1.0], np.float32), np.array([0.5], np.float32)), 0.1, 20_000,
        "two players whom descent ascent keeps circling, x (y - 0.45) + h(x) - h(y)",
    ),
    "almost-bilinear": Named(
        AlmostBilinear,
        Players(np.array([0.5], np.float32), np.array([0.5], np.float32)), 0.1, 20_000,
        "two players, x y - 0.01 (y²/2 - y⁴/4)",
    ),
    "degree-8": Named(
        DegreeEight,
        Players(np.array([0.5], np.float32), np.array([0.5], np.float32)), 0.1, 20_000,
        "two players, x y + h(x) - h(y) with h of degree 8",
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
