"""The SDEs in `jax.numpy`, for one path or for many with the paths first or last."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import Array
from jax.scipy.special import erf

from benchmarks.throughput.cases import Case

INTERVALS = 4096  # of the table of a unit vector's law
SMALL = 4  # up to this d a product is a sum of columns, which fuses with what is around it


class Layout(NamedTuple):
    """How parameters meet a state."""

    paths_last: bool

    def shape(self, case: Case) -> tuple[int, int]:
        """Of the state of all paths."""
        return (case.d, case.paths) if self.paths_last else (case.paths, case.d)

    def x0(self, case: Case, shape: tuple[int, ...]) -> Array:
        """x at the start, of all paths or one."""
        return jnp.broadcast_to(self.along(case.x0), shape)

    def along(self, vector: np.ndarray) -> np.ndarray:
        """A vector of d against a state."""
        return vector[:, None] if self.paths_last else vector

    def product(self, A: np.ndarray, x: Array) -> Array:
        """A x, of a matrix or its diagonal."""
        if A.ndim == 1:
            return self.along(A) * x
        if len(A) <= SMALL:
            rows = x if self.paths_last else jnp.moveaxis(x, -1, 0)[..., None]
            return sum(self.along(column) * row for column, row in zip(A.T, rows, strict=True))
        return A @ x if self.paths_last else x @ A.T

    def total(self, x: Array, keepdims: bool = False) -> Array:
        """The sum over coordinates."""
        return x.sum(0 if self.paths_last else -1, keepdims=keepdims)

    def norm(self, x: Array) -> Array:
        """|x|, to go with a state."""
        return jnp.sqrt(self.total(x**2, keepdims=True))


LAYOUTS = {"first": Layout(False), "last": Layout(True)}  # "first" serves a single path too


def noise_shape(case: Case, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a step's noise, for x of that shape: the same, or several of it on a first axis."""
    return shape if case.motions == 1 else (case.motions, *shape)


class Equation(NamedTuple):
    """dy = drift(t, y) dt + diffuse(t, y, dW); `start` makes y of x and `loss` reads it."""

    start: Callable[[Array], Any]
    drift: Callable[[Any, Any], Any]
    diffuse: Callable[[Any, Any, Array], Any]
    loss: Callable[[Any], Array]


class Preconditioned(NamedTuple):
    """Position, second moment."""

    X: Array
    V: Array


class Adaptive(NamedTuple):
    """Position, momentum, second moment."""

    X: Array
    M: Array
    V: Array


def equation(case: Case, layout: Layout) -> Equation:
    """The case's SDE."""
    return _EQUATIONS[case.equation](case, layout)


def quadratic_loss(case: Case, layout: Layout) -> Callable[[Array], Array]:
    """Σ h x²/2."""
    h = layout.along(case.parameters.h)
    return lambda x: layout.total(h * x**2) / 2


def _sign(case: Case, layout: Layout) -> Equation:
    eta, sigma = case.dt, case.parameters.sigma
    h = layout.along(case.parameters.h)

    def mean_sign(x):
        return erf(h * x / (sigma * np.sqrt(2)).astype(np.float32))

    def diffuse(t, x, dW):
        return np.float32(np.sqrt(eta)) * jnp.sqrt(1 - mean_sign(x) ** 2) * dW

    return Equation(lambda x: x, lambda t, x: -mean_sign(x), diffuse, quadratic_loss(case, layout))


def _gbm(case: Case, layout: Layout) -> Equation:
    mu, s = layout.along(case.parameters.mu), layout.along(case.parameters.s)
    return Equation(lambda x: x, lambda t, x: mu * x, lambda t, x, dW: s * x * dW, layout.total)


def _adamw(case: Case, layout: Layout) -> Equation:
    p, eta = case.parameters, case.dt
    h, loss = layout.along(p.h), quadratic_loss(case, layout)
    rho1, rho2 = (1 - p.b1) / eta, (1 - p.b2) / eta

    def gamma(rho, t):
        return -jnp.expm1(-rho * (t + eta))

    def start(x):
        return Adaptive(x, jnp.zeros_like(x), gamma(rho2, 0.0) * ((h * x) ** 2 + p.sigma**2))

    def drift(t, y):
        g = h * y.X
        gamma1, root2 = gamma(rho1, t), jnp.sqrt(gamma(rho2, t))
        P = jnp.sqrt(y.V) + p.eps * root2
        dX = -root2 / gamma1 * (y.M + eta * rho1 * (g - y.M)) / P - p.weight_decay * y.X
        return Adaptive(dX, rho1 * (g - y.M), rho2 * (g**2 + p.sigma**2 - y.V))

    def diffuse(t, y, dW):
        zero = jnp.zeros_like(y.X)
        return Adaptive(zero, float(np.sqrt(eta)) * rho1 * p.sigma * dW, zero)

    return Equation(start, drift, diffuse, lambda y: loss(y.X))


def _adam_order_2(case: Case, layout: Layout) -> Equation:
    p, eta = case.parameters, case.dt
    h, loss, s = layout.along(p.h), quadratic_loss(case, layout), p.sigma**2
    rho1, rho2, root_eta = (1 - p.b1) / eta, (1 - p.b2) / eta, float(np.sqrt(eta))

    def gamma(b, t):
        """1 - βⁿ and the slope of its logarithm in t; t runs from 0 here, so n = t/η + 2."""
        gathered = -jnp.expm1(np.log(b) * (t / eta + 2))
        return gathered, -np.log(b) / eta * (1 - gathered) / gathered

    def start(x):
        g = h * x
        return Adaptive(x, (1 - p.b1) * g, (1 - p.b2) * (g**2 + s))

    def drift(t, y):
        (gamma1, slope1), (gamma2, slope2) = gamma(p.b1, t), gamma(p.b2, t)
        g, floor = h * y.X, (1 - p.b2) * s
        root = jnp.sqrt(jnp.maximum(y.V, floor))
        P = root + p.eps * jnp.sqrt(gamma2)
        D = jnp.sqrt(gamma2) / gamma1 / P
        dM, dV, hDM = rho1 * (g - y.M), rho2 * (g**2 + s - y.V), h * D * y.M
        changed = (slope2 / 2 * root / P - slope1) * y.M  # of D in t
        dX = -D * (y.M + eta / 2 * (dM - changed))
        dX += eta * jnp.where(y.V > floor, 0.25, 0.5) * D * y.M * dV / (P * root)
        return Adaptive(
            dX,
            dM + eta * rho1 / 2 * (hDM + dM),
            dV + eta * rho2 / 2 * (2 * g * hDM + dV),
        )

    def diffuse(t, y, dW):
        W, B = dW
        dV = 2 * h * y.X * p.sigma * W + float(np.sqrt(2)) * s * B
        return Adaptive(jnp.zeros_like(y.X), root_eta * rho1 * p.sigma * W, root_eta * rho2 * dV)

    return Equation(start, drift, diffuse, lambda y: loss(y.X))


def _rmsprop(case: Case, layout: Layout) -> Equation:
    p, root_eta = case.parameters, float(np.sqrt(case.dt))
    s, loss = layout.along(p.variance), _matrix_loss(case, layout)

    def start(x):
        return Preconditioned(x, layout.product(p.H, x) ** 2 + s)

    def drift(t, y):
        g = layout.product(p.H, y.X)
        return Preconditioned(-g / (jnp.sqrt(y.V) + p.eps), p.rho * (g**2 + s - y.V))

    def diffuse(t, y, dW):
        P = jnp.sqrt(y.V) + p.eps
        return Preconditioned(-root_eta * layout.product(p.root, dW) / P, jnp.zeros_like(y.V))

    return Equation(start, drift, diffuse, lambda y: loss(y.X))


def _rmsprop_order_2(case: Case, layout: Layout) -> Equation:
    p, eta, first = case.parameters, case.dt, _rmsprop(case, layout)
    s, scale = layout.along(p.variance), float(np.sqrt(case.dt)) * p.rho

    def root(V):
        return jnp.sqrt(jnp.maximum(V, eta * p.rho * s))

    def drift(t, y):
        g, r = layout.product(p.H, y.X), root(y.V)
        D, away = 1 / (r + p.eps), g**2 + s - y.V
        HDg = layout.product(p.H, D * g)
        dX = -D * (g + eta / 2 * HDg + eta * p.rho / 4 * D * g / r * away)
        return Preconditioned(dX, p.rho * ((1 + eta * p.rho / 2) * away + eta * g * HDg))

    def diffuse(t, y, dW):
        (W, B), g = dW, layout.product(p.H, y.X)
        RW, QB = layout.product(p.root, W), layout.product(p.squares_root, B)
        dX = -float(np.sqrt(eta)) * RW / (root(y.V) + p.eps)
        return Preconditioned(dX, scale * (2 * g * RW + QB))

    return Equation(first.start, drift, diffuse, first.loss)


def _matrix_loss(case: Case, layout: Layout) -> Callable[[Array], Array]:
    H = case.parameters.H
    return lambda x: layout.total(x * layout.product(H, x)) / 2


def _dense(case: Case, layout: Layout) -> Equation:
    p, root_eta = case.parameters, float(np.sqrt(case.dt))
    return Equation(
        lambda x: x,
        lambda t, x: -layout.product(p.H, x),
        lambda t, x, dW: root_eta * layout.product(p.root, dW),
        _matrix_loss(case, layout),
    )


def _usam(case: Case, layout: Layout) -> Equation:
    p, root_eta = case.parameters, float(np.sqrt(case.dt))
    K = p.gain
    KH = K @ p.H
    return Equation(
        lambda x: x,
        lambda t, x: -layout.product(KH, x),
        lambda t, x, dW: -root_eta * p.sigma * layout.product(K, dW),
        _matrix_loss(case, layout),
    )


def _dnsam(case: Case, layout: Layout) -> Equation:
    p, root_eta = case.parameters, float(np.sqrt(case.dt))

    def gain(g, v):
        return v + p.rho / layout.norm(g) * layout.product(p.H, v)

    def drift(t, x):
        g = layout.product(p.H, x)
        return -gain(g, g)

    def diffuse(t, x, dW):
        return -root_eta * p.sigma * gain(layout.product(p.H, x), dW)

    return Equation(lambda x: x, drift, diffuse, _matrix_loss(case, layout))


def _sam(case: Case, layout: Layout) -> Equation:
    p, root_eta, table = case.parameters, float(np.sqrt(case.dt)), _unit_vectors(case.d)

    def law(g):
        """α, β, √c, √l, by linear interpolation."""
        s = layout.norm(g) / p.sigma
        at = INTERVALS * s / (s + float(np.sqrt(case.d)))
        i = jnp.minimum(at.astype(int), INTERVALS - 1)
        return [row[i] + (at - i) * (row[i + 1] - row[i]) for row in table]

    def drift(t, x):
        g = layout.product(p.H, x)
        return -(g + p.rho * law(g)[0] / p.sigma * layout.product(p.H, g))

    def diffuse(t, x, dW):
        (W, B), g = dW, layout.product(p.H, x)
        (alpha, beta, across, along), unit = law(g), g / layout.norm(g)
        projection = layout.total(unit * ((beta - alpha) * W + (along - across) * B), True)
        u = alpha * W + across * B + projection * unit
        return -root_eta * (p.sigma * W + p.rho * layout.product(p.H, u))

    return Equation(lambda x: x, drift, diffuse, _matrix_loss(case, layout))


def _unit_vectors(d: int) -> Array:
    """α, β, √c, √l of `cases.SharpnessAware` over an even grid of s/(s + √d) from 0 to 1."""
    F, at = scipy.special.hyp1f1, np.arange(INTERVALS) / INTERVALS
    s = np.sqrt(d) * at / (1 - at)
    K = np.sqrt(2) * scipy.special.poch(d / 2, 0.5) / d
    alpha, beta = (K * F(a, d / 2 + 1, -(s**2) / 2) for a in (0.5, 1.5))
    tau = F(1, d / 2 + 1, -(s**2) / 2) / d
    across, along = tau - alpha**2, 1 - (d - 1) * tau - (alpha * s) ** 2 - beta**2
    roots = np.sqrt(np.maximum([across, along], 0))
    at_infinity = np.zeros((4, 1))
    return jnp.asarray(np.hstack([[alpha, beta, *roots], at_infinity]), jnp.float32)


_EQUATIONS = {
    "sign": _sign,
    "gbm": _gbm,
    "adamw": _adamw,
    "adam-order-2": _adam_order_2,
    "rmsprop": _rmsprop,
    "rmsprop-order-2": _rmsprop_order_2,
    "dense": _dense,
    "usam": _usam,
    "dnsam": _dnsam,
    "sam": _sam,
}
