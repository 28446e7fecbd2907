"""The exact law of one-dimensional DSignSGD: a Markov chain on the lattice x₀ + (η/N) ℤ."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxsde import _checks
from jaxsde.theory.sign import _lattice
from jaxsde.theory.sign._lattice import Function


def lattice_law(
    gradient: Function,
    cdfs: Sequence[Callable[[np.ndarray], np.ndarray]],
    learning_rate: float,
    x0: float,
    steps: int,
    *,
    majority_vote: bool = False,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Where x_K can be, n = K N + 1 positions x₀ + (η/N) (2j - K N), and with what probability.

    From x, the step is (η/N) (2u - N) with u the number of agents whose gradient is negative, each
    with probability Fᵢ(-f'(x)) on its own. A majority vote steps by η sign(2u - N) instead, 0 at a
    tie: n = K + 1 positions for odd N, x₀ + (η/2) (2j - 2K) for even N, n = 2K + 1. Exact to
    rounding; costs N (N + 1) K²/2 multiplications (N = 1 or 2 for a vote) and (N + 1)(2 K N + 1)
    numbers.

    Args:
        gradient: f', elementwise.
        cdfs: Fᵢ, agent by agent the continuous CDF of the gradient noise, its scale included.
        learning_rate: η.
        x0: the deterministic start.
        steps: K ≥ 0.
        majority_vote: as above.

    Raises:
        InputError: the learning rate is not positive, x₀ not finite, no agents, or an Fᵢ outside
            [0, 1].
    """
    lattice, outcomes = _chain(gradient, cdfs, learning_rate, x0, steps, majority_vote)
    last = deque(_lattice.laws_by_step(outcomes, steps), maxlen=1)
    return lattice[::2], last.pop()


def lattice_moments(
    gradient: Function,
    cdfs: Sequence[Callable[[np.ndarray], np.ndarray]],
    learning_rate: float,
    x0: float,
    steps: int,
    observables: Mapping[str, Function],
    *,
    majority_vote: bool = False,
) -> dict[str, Float[np.ndarray, " n"]]:
    """E φ(x_k) for k = 0 .. K, n = K + 1, under the law of `lattice_law`, for each observable φ.

    At N = 1 it is `sign.lattice_moments`.

    Args:
        gradient: f', elementwise.
        cdfs: Fᵢ, agent by agent the continuous CDF of the gradient noise, its scale included.
        learning_rate: η.
        x0: the deterministic start.
        steps: K ≥ 0.
        observables: φ by name, each elementwise.
        majority_vote: as in `lattice_law`.

    Raises:
        InputError: as `lattice_law`.
    """
    lattice, outcomes = _chain(gradient, cdfs, learning_rate, x0, steps, majority_vote)
    return _lattice.means_by_step(lattice, outcomes, steps, observables)


def _chain(gradient, cdfs, learning_rate, x0, steps, majority_vote):
    """The lattice's sites, and at each the probabilities of the steps, lowest first."""
    N = len(cdfs)
    if N == 0:
        raise _checks.InputError("cdfs must hold one CDF an agent, and is empty")
    moves = (1 if N % 2 else 2) if majority_vote else N
    lattice = _lattice.sites(learning_rate, x0, steps, moves)
    votes = np.ones((1, len(lattice)))
    for cdf in cdfs:
        up = _lattice.rising(gradient, cdf, lattice)
        nobody = np.zeros((1, len(lattice)))
        votes = np.append(votes * (1 - up), nobody, 0) + np.append(nobody, votes * up, 0)
    if not majority_vote:
        return lattice, votes
    tie = [] if N % 2 else [votes[N // 2]]
    return lattice, np.array(
        [np.sum(votes[: (N + 1) // 2], 0), *tie, np.sum(votes[N // 2 + 1 :], 0)]
    )
