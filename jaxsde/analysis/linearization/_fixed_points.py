"""Where the mean field of a system vanishes."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxsde import _checks
from jaxsde.analysis.linearization._cases import run_once
from jaxsde.analysis.linearization._systems import System

SMALL = 16  # numbers in a state up to which compiling takes longer than running
_ITERATIONS = 500
_POLISH = 4  # of Newton's steps after a small one


class Coefficients(NamedTuple):
    """G(s), its Jacobian and Q(s) at some s."""

    field: Float[np.ndarray, " n"]
    slope: Float[np.ndarray, "n n"]
    noise: Float[np.ndarray, "n n"]


def coefficients(system: System, s: Float[np.ndarray, " n"]) -> Coefficients:
    """G, G' and Q at s; float64 must be on."""
    compiled = _coefficients_at_once if s.size <= SMALL else _coefficients
    return Coefficients(*map(np.asarray, compiled(system, jnp.asarray(s))))


def _plain_coefficients(system: System, s: Float[Array, " n"]) -> tuple[Array, Array, Array]:
    return system.field(s), jax.jacfwd(system.field)(s), system.noise(s)


_coefficients, _coefficients_at_once = (
    eqx.filter_jit(_plain_coefficients),
    run_once(_plain_coefficients),
)


def fixed_point_from(
    system: System, s: Float[np.ndarray, " n"], follow: bool
) -> Float[np.ndarray, " n"]:
    """The zero of G to which s' = G(s) leads, from s on, or Newton's method alone.

    (r - G') δ = G is Euler's implicit step of length 1/r, and Newton's for r = 0. G(s + δ)
    should be r δ; what it differs by would correct δ by ε. A step is taken where |ε| <= |δ|/2, and
    then r falls with ε, so that the last steps are Newton's (Deuflhard 2011).

    Raises:
        InputError: none is found.
    """
    here, start = coefficients(system, s), np.max(np.abs(s))
    r = 0.0
    if follow:  # no further than s is long, nor than a fast mode takes
        r = float(np.linalg.norm(np.nan_to_num(here.slope), 2))
        r = max(r, float(np.max(np.abs(here.field))) / max(start, 1e-300))
    for _ in range(_ITERATIONS):
        if not _finite(here):
            break
        size = max(start, np.max(np.abs(s)), np.sqrt(np.max(np.abs(here.noise))))
        if _close(here, size):
            found = _polished(system, s, here, size)
            if found is not None:
                return found
        step = _newton(here, r)
        there = coefficients(system, s + step)
        off = there._replace(field=there.field - r * step, slope=here.slope)
        error = np.linalg.norm(_newton(off, r)) if _finite(there) else np.inf
        if follow and error > np.linalg.norm(step) / 2:
            r = 4 * max(r, 1e-6 * float(np.linalg.norm(here.slope, 2)))
            continue
        r *= float(np.clip(4 * error / max(np.linalg.norm(step), 1e-300), 1e-3, 1 / 2))
        s, here = s + step, there
    raise _checks.InputError(
        "no fixed point of the mean was found from here: start from an x0 nearer to it, or give a "
        "fixed_point; a chain that runs off or goes round has none"
    )


def _close(at: Coefficients, size: float) -> bool:
    """Whether Newton's step is short and solves its equation, which it cannot where G' = 0."""
    step = _newton(at)
    solves = np.linalg.norm(at.field + at.slope @ step) <= 1e-6 * np.linalg.norm(at.field)
    return bool(np.max(np.abs(step)) <= 1e-6 * size and (solves or _settled(at, size)))


def _settled(at: Coefficients, size: float) -> bool:
    """Whether |G| is the rounding of E step - s."""
    return bool(np.max(np.abs(at.field)) <= 1e-14 * size)


def _newton(at: Coefficients, r: float = 0.0) -> Float[np.ndarray, " n"]:
    """δ of (r - G') δ = G, the shortest one where a direction is flat."""
    return np.linalg.lstsq(r * np.eye(len(at.field)) - at.slope, at.field, rcond=1e-13)[0]


def _polished(
    system: System, s: Float[np.ndarray, " n"], here: Coefficients, size: float
) -> Float[np.ndarray, " n"] | None:
    """The limit of Newton's method, if its steps shrink at once."""
    first = np.max(np.abs(_newton(here)))
    for _ in range(_POLISH):
        there = coefficients(system, s + _newton(here))
        if not _finite(there):  # as a norm has no derivative at 0 itself
            return s if _settled(here, size) else None
        s, here = s + _newton(here), there
    shrunk = np.max(np.abs(_newton(here))) <= 1e-6 * first
    return s if shrunk or _settled(here, size) else None


def _finite(at: Coefficients) -> bool:
    return bool(np.all(np.isfinite(at.field)) and np.all(np.isfinite(at.slope)))
