"""Problems by name, each with a start and a noise that make a good first run."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

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
from jaxsde.problems.ready_made import (
    breast_cancer_mlp,
    digits_cnn,
    digits_resnet,
    digits_vit,
    text_transformer,
)
from jaxsde.problems.regression import breast_cancer

NO_RATES: Mapping[str, float] = MappingProxyType({})
NETWORK_RATES: Mapping[str, float] = MappingProxyType(
    {
        "sign_sgd": 1e-3, "dsign_sgd": 1e-3, "rmsprop": 1e-3, "adam": 1e-3,
        "heavy-ball": 0.02, "nesterov": 0.02, "": 0.1,
    }
)  # fmt: skip


class Named(NamedTuple):
    """A problem's factory, with settings that make a good first run.

    They are the start x0, or None for the problem's own; the noise scale σ; the numbers of paths,
    steps, substeps of the SDE in each, and recorded times; and learning rates, by how the names of
    optimizers begin, where those of the optimizers do not suit. `about` is one line.
    """

    make: Callable[[], Problem]
    x0: np.ndarray | Players | None
    scale: float
    paths: int
    about: str
    steps: int = 1000
    substeps: int = 4
    records: int = 100
    learning_rates: Mapping[str, float] = NO_RATES

    def start(self, problem: Any) -> Any:
        """x0, of the problem that `make` made."""
        return problem.x0 if self.x0 is None else self.x0

    def learning_rate(self, optimizer: str) -> float | None:
        """The first one that fits the optimizer's name; None where the optimizer's own suits."""
        rates = self.learning_rates.items()
        return next((rate for start, rate in rates if optimizer.startswith(start)), None)


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
    "breast-cancer-mlp": Named(
        breast_cancer_mlp,
        None, 0.01, 16,
        "ten dense layers on scikit-learn's breast cancer data",
        1500, 2, 30, NETWORK_RATES,
    ),
    "digits-cnn": Named(
        lambda: digits_cnn(images=256),
        None, 0.005, 16,
        "a convolutional network on 256 of scikit-learn's digits",
        250, 2, 25, NETWORK_RATES,
    ),
    "digits-resnet": Named(
        lambda: digits_resnet(images=256),
        None, 0.005, 16,
        "a residual network on 256 of scikit-learn's digits",
        250, 2, 25, NETWORK_RATES,
    ),
    "digits-vit": Named(
        lambda: digits_vit(images=256),
        None, 0.01, 16,
        "a vision transformer on 256 of scikit-learn's digits",
        200, 2, 20, NETWORK_RATES,
    ),
    "text-transformer": Named(
        lambda: text_transformer(sequences=128),
        None, 0.01, 16,
        "a transformer that predicts the characters of Python's help, 128 times 16",
        200, 2, 20, NETWORK_RATES,
    ),
}  # fmt: skip


def named(name: str) -> Named:
    """The problem of that name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    _checks.known("problem", name, NAMED)
    return NAMED[name]
