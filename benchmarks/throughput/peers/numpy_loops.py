"""Each equation's loop in NumPy; `draw()` gives the next ξ, always in the same memory."""

import math
from collections.abc import Callable

import numpy as np
from scipy.special import erf

from benchmarks.throughput.cases import Case


def _quadratic_loss(h: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (h * x**2).sum(0) / 2


def _sign(case: Case, x: np.ndarray, draw: Callable, steps: int) -> np.ndarray:
    h, dt = case.parameters.h[:, None], np.float32(case.dt)
    slope = h / np.float32(case.parameters.sigma * math.sqrt(2))
    mean, root = np.empty_like(x), np.empty_like(x)
    for _ in range(steps):
        erf(np.multiply(slope, x, out=mean), out=mean)
        np.sqrt(np.subtract(1, np.multiply(mean, mean, out=root), out=root), out=root)
        root *= draw()  # times √η √dt = dt
        root -= mean
        root *= dt
        x += root
    return _quadratic_loss(h, x)


def _gbm(case: Case, x: np.ndarray, draw: Callable, steps: int) -> np.ndarray:
    growth = 1 + np.float32(case.dt) * case.parameters.mu[:, None]
    s = np.float32(math.sqrt(case.dt)) * case.parameters.s[:, None]
    for _ in range(steps):
        xi = draw()
        xi *= s
        xi += growth
        x *= xi
    return x.sum(0)


def _adamw(case: Case, x: np.ndarray, draw: Callable, steps: int) -> np.ndarray:
    p, eta, h = case.parameters, case.dt, case.parameters.h[:, None]
    rho1, rho2 = (1 - p.b1) / eta, (1 - p.b2) / eta
    V = ((h * x) ** 2 + np.float32(p.sigma**2)) * np.float32(-math.expm1(-rho2 * eta))
    M, g, P, moved = np.zeros((4, *x.shape), np.float32)
    for k in range(1, steps + 1):
        gamma1, root2 = -math.expm1(-rho1 * eta * k), math.sqrt(-math.expm1(-rho2 * eta * k))
        np.multiply(h, x, out=g)
        np.sqrt(V, out=P)
        P += p.eps * root2
        V *= 1 - rho2 * eta
        x *= 1 - p.weight_decay * eta
        np.subtract(g, M, out=moved)
        np.multiply(g, g, out=g)
        g += p.sigma**2
        g *= rho2 * eta
        V += g
        moved *= eta * rho1
        np.add(M, moved, out=g)
        g *= -eta * root2 / gamma1
        g /= P
        x += g
        M += moved
        xi = draw()
        xi *= eta * rho1 * p.sigma
        M += xi
    return _quadratic_loss(h, x)


def _matrix_loss(H: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (x * (H @ x)).sum(0) / 2


def _dense(case: Case, x: np.ndarray, draw: Callable, steps: int) -> np.ndarray:
    p = case.parameters
    return _matrix_loss(p.H, _linear(case.dt, p.H, p.root, x, draw, steps))


def _usam(case: Case, x: np.ndarray, draw: Callable, steps: int) -> np.ndarray:
    p = case.parameters
    return _matrix_loss(p.H, _linear(case.dt, p.gain @ p.H, p.sigma * p.gain, x, draw, steps))


def _linear(
    dt: float, A: np.ndarray, root: np.ndarray, x: np.ndarray, draw: Callable, steps: int
) -> np.ndarray:
    """x - A x dt + root ξ dt; √η √dt = dt."""
    decay = np.eye(len(A), dtype=np.float32) - np.float32(dt) * A
    root, after, kick = np.float32(dt) * root, np.empty_like(x), np.empty_like(x)
    for _ in range(steps):
        np.matmul(decay, x, out=after)
        after += np.matmul(root, draw(), out=kick)
        x, after = after, x
    return x


def _dnsam(case: Case, x: np.ndarray, draw: Callable, steps: int) -> np.ndarray:
    p, g, Hv = case.parameters, np.empty_like(x), np.empty_like(x)
    for _ in range(steps):
        np.matmul(p.H, x, out=g)
        norm = np.sqrt(np.einsum("ij,ij->j", g, g))
        v = draw()
        v *= p.sigma
        v += g
        np.matmul(p.H, v, out=Hv)
        Hv *= p.rho / norm
        v += Hv
        v *= case.dt
        x -= v
    return _matrix_loss(p.H, x)


def _sign_optimizer(case: Case, x: np.ndarray, draw: Callable, steps: int) -> np.ndarray:
    h, sigma = case.parameters.h[:, None], np.float32(case.parameters.sigma)
    dt, g = np.float32(case.dt), np.empty_like(x)
    for _ in range(steps):
        xi = draw()
        xi *= sigma
        xi += np.multiply(h, x, out=g)
        x -= np.copysign(dt, xi, out=g)
    return _quadratic_loss(h, x)


def _adamw_optimizer(case: Case, x: np.ndarray, draw: Callable, steps: int) -> np.ndarray:
    p, eta, h = case.parameters, case.dt, case.parameters.h[:, None]
    M, V, g = np.zeros_like(x), np.zeros_like(x), np.empty_like(x)
    for k in range(1, steps + 1):
        xi = draw()
        xi *= p.sigma
        xi += np.multiply(h, x, out=g)
        M *= p.b1
        M += np.multiply(xi, 1 - p.b1, out=g)
        V *= p.b2
        np.multiply(xi, xi, out=xi)
        xi *= 1 - p.b2
        V += xi
        np.sqrt(V, out=g)
        g /= math.sqrt(1 - p.b2**k)
        g += p.eps
        np.divide(M, g, out=g)
        g *= eta / (1 - p.b1**k)
        x *= 1 - eta * p.weight_decay
        x -= g
    return _quadratic_loss(h, x)


LOOPS = {
    "sign": _sign,
    "gbm": _gbm,
    "adamw": _adamw,
    "dense": _dense,
    "usam": _usam,
    "dnsam": _dnsam,
    "sign-optimizer": _sign_optimizer,
    "adamw-optimizer": _adamw_optimizer,
}
