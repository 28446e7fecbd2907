"""Schedules on pairs under additive noise: η_k = η ψ(k) and, for SEG, ρ_k = ρ ψ_ρ(k)."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.integrate
from jaxtyping import ArrayLike, Complex, Float

from jaxsde import _checks
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, sde
from jaxsde.theory.minimax import _method
from jaxsde.theory.minimax._method import Method
from jaxsde.theory.minimax._pairs import half_squares, variance

Schedule = Callable[[float], float]


def scheduled_half_square(
    start: ArrayLike,
    time: ArrayLike,
    learning_rate: float,
    law: Law = sde,
    *,
    curvature: ArrayLike,
    coupling: ArrayLike,
    sigma: ArrayLike,
    method: Method,
    schedule: Schedule,
    rho_schedule: Schedule | None = None,
) -> Float[np.ndarray, "..."]:
    """u(t) = E(x² + y²)/2 of pairs under any schedules ψ of η and ψ_ρ of ρ.

        u' = -2 ψ r u + ψ² c                    (`sde`),  ψ = ψ(t/η),
        u⁺ = |1 - h ψ B|² u + h ψ² c            (chains), ψ = ψ(j h/η) at their step j,

    with h = η for `discrete` and h = dt for `em(dt)`; B, r = Re B and c of `pair_half_square`, at
    ρ ψ_ρ. The SDE is dZ = ψ b dt + ψ √η S^(1/2) dW; its equation is solved numerically, to about
    10⁻⁹ of the largest u. The recursion is looped.

    Source: arXiv 2402.12508 (`sde`, ψ); the chains and ψ_ρ derived here.

    Args:
        start: b = u(0).
        time: t, any shape; multiples of the step for `discrete` and `em(dt)`.
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        curvature: a.
        coupling: λ.
        sigma: σ of the noise in every coordinate of one F_c.
        method: `sgda()`, `seg(rho)` or `shgd()`.
        schedule: ψ > 0, a function of the step k as the optimizers' and SDEs' is.
        rho_schedule: ψ_ρ > 0, likewise; 1 by default.

    Returns:
        u, the shape of `time` leading, then the one that the pairs' constants broadcast to.

    Raises:
        InputError: a constant out of its range, times off the chain's steps, a schedule that is no
            function or not positive at some step, or a rho_schedule for SHGD.
    """
    h, eta = _laws.step_size(law, learning_rate), learning_rate
    b = half_squares(start)
    coefficients = functools.partial(
        _coefficients, eta * variance(sigma), curvature, coupling, method, schedule, rho_schedule
    )
    u = np.broadcast_to(b, np.broadcast_shapes(b.shape, coefficients(np.zeros(())).c.shape))
    t = _laws.times(time)
    distinct, where = np.unique(t, return_inverse=True)
    if h == 0:
        u = _solved(coefficients, u, distinct, eta)
    else:
        u = _looped(coefficients, u, distinct, h, eta)
    return u[where.reshape(t.shape)]


def quasi_static_half_square(
    time: ArrayLike,
    learning_rate: float,
    law: Law = sde,
    *,
    curvature: ArrayLike,
    coupling: ArrayLike,
    sigma: ArrayLike,
    method: Method,
    schedule: Schedule,
    rho_schedule: Schedule | None = None,
) -> Float[np.ndarray, "..."]:
    """Where u would settle if the schedules stopped: ψ c/(2r - h ψ |B|²), B, r and c at ρ ψ_ρ.

    `scheduled_half_square` follows it where the schedules change little in the time 1/(ψ r). For
    SEG's SDE on a bilinear pair it is η σ² ψ (1 + ρ² ψ_ρ² λ²)/(2 ρ ψ_ρ λ²).

    Source: derived here.

    Args:
        time: t, any shape.
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        curvature: a.
        coupling: λ.
        sigma: σ of the noise in every coordinate of one F_c.
        method: `sgda()`, `seg(rho)` or `shgd()`.
        schedule: ψ > 0, a function of the step k.
        rho_schedule: ψ_ρ > 0, likewise; 1 by default.

    Returns:
        The level, the shape of `time` leading, then the one that the pairs' constants broadcast to.

    Raises:
        InputError: 2r ≤ h ψ |B|² at some time, or what `scheduled_half_square` refuses.
    """
    h, eta = _laws.step_size(law, learning_rate), learning_rate
    c_scale, k = eta * variance(sigma), _laws.times(time) / eta
    psi, B, c = _coefficients(c_scale, curvature, coupling, method, schedule, rho_schedule, k)
    margin = 2 * np.real(B) - h * psi * np.abs(B) ** 2
    if np.any(margin <= 0):
        raise _checks.InputError(
            "no level: 2 r must exceed step * schedule * |B|² at all these times, it falls short "
            f"by {-np.min(margin):.6g}"
        )
    return psi * c / margin


class _Coefficients(NamedTuple):
    """ψ, B and c at some steps, these leading."""

    psi: Float[np.ndarray, "..."]
    B: Complex[np.ndarray, "..."]
    c: Float[np.ndarray, "..."]


def _coefficients(c_scale, curvature, coupling, method, schedule, rho_schedule, k) -> _Coefficients:
    _method.check(method)
    if rho_schedule is not None and method.rho is None:
        raise _checks.InputError("rho_schedule is for SEG: SHGD has no rho")
    pairs = (1,) * np.broadcast(curvature, coupling, c_scale).ndim
    psi = _values("schedule", schedule, k).reshape((*k.shape, *pairs))
    psi_rho = np.ones(())
    if rho_schedule is not None:
        psi_rho = _values("rho_schedule", rho_schedule, k).reshape(psi.shape)
    B, noise = _method.pair(method, curvature, coupling, psi_rho)
    return _Coefficients(psi, B, c_scale * noise)


def _values(name: str, schedule: Schedule, k: Float[np.ndarray, "*K"]) -> Float[np.ndarray, " n"]:
    """ψ at each of the steps."""
    if not callable(schedule):
        raise _checks.InputError(f"{name} must be a function of the step, got {schedule!r}")
    values = np.array([schedule(float(step)) for step in k.flat], float)
    if values.shape != (k.size,):
        raise _checks.InputError(f"{name} must return one number, got shape {values.shape[1:]}")
    refused = values[~((values > 0) & (values < np.inf))]
    if refused.size:
        raise _checks.InputError(f"{name} must be positive and finite, got {refused[0]:g}")
    return values


def _solved(coefficients, u, time, eta) -> Float[np.ndarray, "T *P"]:
    """u' = -2 ψ r u + ψ² c."""

    def slope(t, u_flat):
        psi, B, c = coefficients(np.asarray(t / eta))
        return np.ravel(-2 * psi * np.real(B) * u_flat.reshape(u.shape) + psi**2 * c)

    scale = np.max(u, initial=0) + np.max(coefficients(np.zeros(())).c, initial=0)
    solution = scipy.integrate.solve_ivp(
        slope, (0, np.max(time, initial=eta)), np.ravel(u), t_eval=time,
        method="LSODA", rtol=1e-11, atol=1e-14 * scale,
    )  # fmt: skip
    return solution.y.T.reshape(-1, *u.shape)


def _looped(coefficients, u, time, h, eta) -> Float[np.ndarray, "T *P"]:
    """u⁺ = |1 - h ψ B|² u + h ψ² c."""
    k = _laws.step_count(time, h).astype(int)
    psi, B, c = coefficients(np.arange(np.max(k, initial=0)) * (h / eta))
    q, source = np.abs(1 - h * psi * B) ** 2, np.broadcast_to(h * psi**2 * c, (psi * c).shape)
    path = [u]
    for j in range(len(q)):
        path.append(q[j] * path[-1] + source[j])
    return np.array(path)[k]
