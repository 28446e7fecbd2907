"""The exact law of one-dimensional SignSGD: a Markov chain on the lattice x₀ + η ℤ."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Float

from jaxsde import _checks

Function = Callable[[np.ndarray], np.ndarray]


def lattice_law(
    gradient: Function, cdf: Function, learning_rate: float, x0: float, steps: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Where x_K can be, n = K + 1 positions x₀ + η (2j - K), and with what probability.

    From x, the step is +η with probability P(g < 0) = F(-f'(x)), else -η. Exact to rounding;
    costs K²/2 multiplications.

    Args:
        gradient: f', elementwise.
        cdf: F, the continuous CDF of the gradient noise, its scale included, elementwise.
        learning_rate: η.
        x0: the deterministic start.
        steps: K ≥ 0.

    Raises:
        InputError: the learning rate is not positive, x₀ not finite, or F outside [0, 1].
    """
    lattice, up = _lattice(gradient, cdf, learning_rate, x0, steps)
    last = deque(_laws_by_step(up), maxlen=1)
    return lattice[::2], last.pop()


def lattice_moments(
    gradient: Function,
    cdf: Function,
    learning_rate: float,
    x0: float,
    steps: int,
    observables: Mapping[str, Function],
) -> dict[str, Float[np.ndarray, " n"]]:
    """E φ(x_k) for k = 0 .. K, n = K + 1, under the law of `lattice_law`, for each observable φ.

    Args:
        gradient: f', elementwise.
        cdf: F, the continuous CDF of the gradient noise, its scale included, elementwise.
        learning_rate: η.
        x0: the deterministic start.
        steps: K ≥ 0.
        observables: φ by name, each elementwise.

    Raises:
        InputError: as `lattice_law`.
    """
    lattice, up = _lattice(gradient, cdf, learning_rate, x0, steps)
    values = {name: np.asarray(phi(lattice), float) for name, phi in observables.items()}
    means = {name: np.empty(steps + 1) for name in observables}
    for k, law in enumerate(_laws_by_step(up)):
        for name, value in values.items():
            means[name][k] = law @ value[_reached(k, steps)]
    return means


def _lattice(gradient, cdf, learning_rate, x0, steps):
    """The 2K + 1 positions x₀ + η j, |j| ≤ K, and the probability of +η at each."""
    _checks.positive("learning_rate", learning_rate)
    _checks.finite("x0", x0)
    K = _checks.at_least("steps", steps, 0)
    lattice = x0 + learning_rate * np.arange(-K, K + 1)
    up = np.asarray(cdf(-np.asarray(gradient(lattice), float)), float)
    if not np.all((up >= 0) & (up <= 1)):
        raise _checks.InputError("cdf must return probabilities in [0, 1]")
    return lattice, up


def _reached(k: int, steps: int) -> slice:
    """The lattice's sites that step k can reach: j = -k, -k + 2, .., k."""
    return slice(steps - k, steps + k + 1, 2)


def _laws_by_step(up: Float[np.ndarray, " n"]) -> Iterator[Float[np.ndarray, " k"]]:
    """The probabilities at the sites of `_reached`, step after step."""
    steps = len(up) // 2
    law = np.ones(1)
    yield law
    for k in range(steps):
        rising = law * up[_reached(k, steps)]
        law = np.append(law - rising, 0) + np.append(0, rising)
        yield law
