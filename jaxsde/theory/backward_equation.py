"""Expectations under a one-dimensional SDE without sampling: the backward Kolmogorov equation."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import ArrayLike, Float
from scipy.interpolate import CubicSpline
from scipy.linalg import get_lapack_funcs

from jaxsde import _checks

Function = Callable[[np.ndarray], np.ndarray]

_gttrf, _gttrs = get_lapack_funcs(("gttrf", "gttrs"))
_FEWEST, _MOST = 256, 8192  # grid intervals, and as many time steps


def expectation(
    observable: Function,
    drift: Function,
    diffusion: Function,
    x0: ArrayLike,
    time: float,
    *,
    domain: tuple[float, float],
    tolerance: float = 1e-8,
) -> Float[np.ndarray, "..."]:
    """E φ(X_T) given X_0 = x₀, for dX = b(X) dt + s(X) dW (Itô) reflected at the domain's ends.

    u(t, x) = E[φ(X_t) | X_0 = x] solves u_t = b u_x + (s²/2) u_xx, u(0, x) = φ(x). Central
    differences and Crank-Nicolson, after four implicit half steps (Rannacher) that damp the kink
    of φ at the reflecting ends; grid and time step are halved together, and extrapolated
    (Richardson), until two extrapolated values agree to the tolerance at every x₀. Float64 on
    the host, milliseconds for smooth coefficients.

    Args:
        observable: φ, elementwise and smooth. A kink or jump converges fast in the middle of the
            domain only, where every grid has a point; a jump takes its mean value there.
        drift: b, elementwise.
        diffusion: s, elementwise.
        x0: starts, any shape.
        time: T.
        domain: low and high end, so far out that X hardly ever gets there.
        tolerance: absolute error of the numerical solution on that domain.

    Raises:
        InputError: a start outside the domain, or a tolerance that the finest grid (8192
            intervals) does not reach.
    """
    low, high = domain
    x0 = np.asarray(x0, float)
    _checks.finite("domain", domain)
    _checks.positive("time", time)
    _checks.positive("tolerance", tolerance)
    if not np.all((low <= x0) & (x0 <= high)):
        raise _checks.InputError(f"x0 must lie in the domain [{low:g}, {high:g}]")
    previous = np.inf
    for value in _extrapolated(observable, drift, diffusion, x0, time, domain):
        if np.all(np.abs(value - previous) <= tolerance):
            return value
        previous = value
    raise _checks.InputError(
        f"the tolerance {tolerance:g} is not reached on {_MOST} intervals: raise it, narrow the "
        "domain, or smooth the observable"
    )


def _extrapolated(observable, drift, diffusion, x0, time, domain) -> Iterator[np.ndarray]:
    """(4 u_{2n} - u_n) / 3 at x₀ for n = 256, 512, ..: the errors of order 1/n² cancel."""
    coarse, n = None, _FEWEST
    while n <= _MOST:
        x = np.linspace(domain[0], domain[1], n + 1)
        fine = CubicSpline(x, _solve(observable(x), drift(x), diffusion(x), x[1] - x[0], time))(x0)
        if coarse is not None:
            yield (4 * fine - coarse) / 3
        coarse, n = fine, 2 * n


def _solve(u, b, s, dx, time):
    """u(T, ·) from u(0, ·), on the grid and with as many time steps as intervals."""
    steps = len(u) - 1
    dt = time / steps
    generator = _generator(b, s, dx)
    implicit = _factored(generator, dt / 2)
    for _ in range(4):
        u = _gttrs(*implicit, u)[0]
    for _ in range(steps - 2):
        u = _gttrs(*implicit, u + dt / 2 * _apply(generator, u))[0]
    return u


def _generator(b, s, dx):
    """Bands (lower, diagonal, upper) of b ∂x + (s²/2) ∂xx, with u_x = 0 at both ends.

    At an end where the path is driven inwards and hardly diffuses (|b| dx > s²), u_x = 0 would
    make a layer that the grid cannot resolve and whose oscillations travel inwards; there the
    one-sided b ∂x is taken alone.
    """
    D, advection = s**2 / (2 * dx**2), b / (2 * dx)
    lower, diagonal, upper = D - advection, -2 * D, D + advection
    upper[0], lower[-1] = 2 * D[0], 2 * D[-1]
    if b[0] * dx > s[0] ** 2:
        upper[0], diagonal[0] = b[0] / dx, -b[0] / dx
    if -b[-1] * dx > s[-1] ** 2:
        lower[-1], diagonal[-1] = -b[-1] / dx, b[-1] / dx
    return lower[1:], diagonal, upper[:-1]


def _factored(generator, dt):
    """LU factors of I - dt L."""
    lower, diagonal, upper = generator
    return _gttrf(-dt * lower, 1 - dt * diagonal, -dt * upper)[:-1]


def _apply(generator, u):
    """L u."""
    lower, diagonal, upper = generator
    result = diagonal * u
    result[1:] += lower * u[:-1]
    result[:-1] += upper * u[1:]
    return result
