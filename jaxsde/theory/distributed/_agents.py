"""What the agents' laws and bounds read off their arguments."""

from collections.abc import Callable

import numpy as np
import scipy.integrate
from jaxtyping import ArrayLike, Float

from jaxsde import _checks

Schedule = Callable[[float], float]


def per_agent(name: str, value: ArrayLike, agents: int) -> Float[np.ndarray, " N"]:
    """The value agent by agent.

    Raises:
        InputError: `agents` is not a whole number N ≥ 1, or the value neither a scalar nor `(N,)`.
    """
    N = _checks.at_least("agents", agents, 1)
    value = np.asarray(value, float)
    if value.shape not in ((), (N,)):
        raise _checks.InputError(
            f"{name} must be a scalar or {(N,)}, one entry an agent, got shape {value.shape}"
        )
    return np.broadcast_to(value, (N,))


def deviations(sigma: ArrayLike, agents: int) -> Float[np.ndarray, " N"]:
    """σᵢ > 0, agent by agent."""
    _checks.positive("sigma", sigma)
    return per_agent("sigma", sigma, agents)


def compressions(omega: ArrayLike, agents: int) -> Float[np.ndarray, " N"]:
    """ωᵢ ≥ 0, agent by agent."""
    _checks.nonnegative("omega", omega)
    return per_agent("omega", omega, agents)


def schedule_integrals(
    schedule: Schedule | None, time: ArrayLike, learning_rate: float, largest: float = np.inf
) -> tuple[Float[np.ndarray, "*T"], Float[np.ndarray, "*T"]]:
    """φ₁ = ∫₀ᵗ ψ ds and φ₂ = ∫₀ᵗ ψ² ds of ψ = ψ(s/η); t both without a schedule.

    Raises:
        InputError: a time that is not positive, or ψ not in (0, largest) where it is evaluated.
    """
    _checks.positive("time", time)
    t = np.asarray(time, float)

    def psi(s):
        value = 1.0 if schedule is None else schedule(s / learning_rate)
        _checks.positive_number("schedule", value)
        if value >= largest:
            raise _checks.InputError(
                f"no bound: learning_rate * smoothness * omega * schedule must stay below "
                f"2 agents, the schedule below {largest:g}; it is {float(value):g} at time {s:g}"
            )
        return float(value)

    def integral(power):
        quad = np.vectorize(
            lambda end: scipy.integrate.quad(lambda s: psi(s) ** power, 0, end, limit=200)[0],
            otypes=[float],
        )
        return quad(t)

    return integral(1), integral(2)
