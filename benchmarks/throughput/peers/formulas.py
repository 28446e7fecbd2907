"""The SDEs in `jax.numpy`, for one path or for many with the paths first or last."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import erf

from benchmarks.throughput.cases import Case


class Layout(NamedTuple):
    """How parameters meet a state."""

    paths_last: bool

    def shape(self, case: Case) -> tuple[int, int]:
        """Of the state of all paths."""
        return (case.d, case.paths) if self.paths_last else (case.paths, case.d)

    def along(self, vector: np.ndarray) -> np.ndarray:
        """A vector of d against a state."""
        return vector[:, None] if self.paths_last else vector

    def product(self, A: np.ndarray, x: Array) -> Array:
        """A x."""
        return A @ x if self.paths_last else x @ A.T

    def total(self, x: Array) -> Array:
        """The sum over coordinates."""
        return x.sum(0 if self.paths_last else -1)


LAYOUTS = {"first": Layout(False), "last": Layout(True)}  # "first" serves a single path too


class Equation(NamedTuple):
    """dy = drift(t, y) dt + diffuse(t, y, dW); `start` makes y of x and `loss` reads it."""

    start: Callable[[Array], Any]
    drift: Callable[[Any, Any], Any]
    diffuse: Callable[[Any, Any, Array], Any]
    loss: Callable[[Any], Array]


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


def _dense(case: Case, layout: Layout) -> Equation:
    p, root_eta = case.parameters, float(np.sqrt(case.dt))

    def loss(x):
        return layout.total(x * layout.product(p.H, x)) / 2

    return Equation(
        lambda x: x,
        lambda t, x: -layout.product(p.H, x),
        lambda t, x, dW: root_eta * layout.product(p.root, dW),
        loss,
    )


_EQUATIONS = {"sign": _sign, "gbm": _gbm, "adamw": _adamw, "dense": _dense}
