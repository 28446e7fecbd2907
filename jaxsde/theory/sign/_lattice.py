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
    costs K² multiplications.

    Args:
        gradient: f', elementwise.
        cdf: F, the continuous CDF of the gradient noise, its scale included, elementwise.
        learning_rate: η.
        x0: the deterministic start.
        steps: K ≥ 0.

    Raises:
        InputError: the learning rate is not positive, x₀ not finite, or F outside [0, 1].
    """
    lattice, outcomes = _chain(gradient, cdf, learning_rate, x0, steps)
    last = deque(laws_by_step(outcomes, steps), maxlen=1)
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
    lattice, outcomes = _chain(gradient, cdf, learning_rate, x0, steps)
    return means_by_step(lattice, outcomes, steps, observables)


def sites(learning_rate: float, x0: float, steps: int, moves: int) -> Float[np.ndarray, " n"]:
    """x₀ + (η/m) j, |j| ≤ K m: what K steps of ±η in m + 1 equidistant values can pass.

    Raises:
        InputError: the learning rate is not positive, x₀ not finite, or K not a whole number ≥ 0.
    """
    _checks.positive("learning_rate", learning_rate)
    _checks.finite("x0", x0)
    K = _checks.at_least("steps", steps, 0)
    return x0 + learning_rate / moves * np.arange(-K * moves, K * moves + 1)


def rising(gradient: Function, cdf: Function, lattice: np.ndarray) -> Float[np.ndarray, " n"]:
    """P(g < 0) = F(-f'(x)) at each site.

    Raises:
        InputError: F outside [0, 1].
    """
    up = np.asarray(cdf(-np.asarray(gradient(lattice), float)), float)
    if not np.all((up >= 0) & (up <= 1)):
        raise _checks.InputError("cdf must return probabilities in [0, 1]")
    return up


def laws_by_step(
    outcomes: Float[np.ndarray, "m n"], steps: int
) -> Iterator[Float[np.ndarray, " k"]]:
    """The probabilities at the sites of `_reached`, step after step.

    Args:
        outcomes: P(step = (η/m) (2u - m)), u = 0 .. m the first axis, at each of `sites`.
        steps: K.
    """
    law, moves = np.ones(1), len(outcomes) - 1
    yield law
    for k in range(steps):
        moved = law * outcomes[:, _reached(k, steps, moves)]
        law = np.zeros(len(law) + moves)
        for u in range(moves + 1):
            law[u : u + moved.shape[1]] += moved[u]
        yield law


def means_by_step(
    lattice: Float[np.ndarray, " n"],
    outcomes: Float[np.ndarray, "m n"],
    steps: int,
    observables: Mapping[str, Function],
) -> dict[str, Float[np.ndarray, " k"]]:
    """E φ(x_k) for k = 0 .. K, for each observable φ, under `laws_by_step`."""
    values = {name: np.asarray(phi(lattice), float) for name, phi in observables.items()}
    means = {name: np.empty(steps + 1) for name in observables}
    for k, law in enumerate(laws_by_step(outcomes, steps)):
        for name, value in values.items():
            means[name][k] = law @ value[_reached(k, steps, len(outcomes) - 1)]
    return means


def _chain(gradient, cdf, learning_rate, x0, steps):
    """The 2K + 1 positions x₀ + η j, |j| ≤ K, and the probabilities of -η and +η at each."""
    lattice = sites(learning_rate, x0, steps, 1)
    up = rising(gradient, cdf, lattice)
    return lattice, np.array([1 - up, up])


def _reached(k: int, steps: int, moves: int) -> slice:
    """The lattice's sites that step k can reach: j = -k m, -k m + 2, .., k m."""
    return slice((steps - k) * moves, (steps + k) * moves + 1, 2)
