"""Declared orders against measured slopes."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxsde import EulerMaruyama
from jaxsde.sdes import SDE

MU, SIGMA = -0.8, 0.7


class Linear(SDE):
    """dX = μ X dt + (σ X or σ) dW."""

    multiplicative: bool = eqx.field(static=True)
    t0: float = 0.0

    def drift(self, t, y, args):
        return MU * y

    def diffusion(self, t, y, args):
        return lx.DiagonalLinearOperator(SIGMA * y if self.multiplicative else SIGMA + 0 * y)

    def initial(self, x0):
        return x0

    def position(self, y):
        return y


def slopes(errors, steps):
    """The least-squares slope of log₂ error over log₂ step, of every column."""
    return np.polyfit(np.log2(steps), np.log2(errors), 1)[0]


@pytest.mark.usefixtures("x64")
def test_weak_order_noise_free():
    """E X² by quadrature of the scheme's own step, which is linear in X."""
    node, weight = np.polynomial.hermite_e.hermegauss(20)
    weight /= weight.sum()
    steps = 2.0 ** -np.arange(8, 14)
    errors = []
    for dt in steps:
        step = jax.vmap(lambda xi, dt=dt: EulerMaruyama().step(Linear(True), 0.0, 1.0, dt, xi))
        second = weight @ np.asarray(step(jnp.asarray(node))) ** 2
        errors.append(abs(second ** (1 / dt) - np.exp(2 * MU + SIGMA**2)))
    tail = np.diff(np.log2(errors))[-2:] / np.diff(np.log2(steps))[-2:]
    np.testing.assert_allclose(tail, EulerMaruyama.weak_order, atol=0.01)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("multiplicative", "order"), [(True, 0.5), (False, 1.0)])
def test_strong_order_on_one_brownian_path(multiplicative, order):
    """Additive noise gains half an order. 20 groups of paths give the slope's interval.

    Half-widths are 5 standard errors: a false alarm has probability 1e-4 (t, 19 degrees).
    """
    levels = np.arange(4, 9)
    rng = np.random.default_rng(12)
    fine = rng.normal(size=(2 ** levels[-1], 20, 200))
    sde, scheme = Linear(multiplicative), EulerMaruyama()

    def solve(level):
        dt = 2.0**-level
        xi = fine.reshape(2**level, -1, 20, 200).sum(1) / np.sqrt(2 ** (levels[-1] - level))

        def one(y, xi):
            return scheme.step(sde, 0.0, y, dt, xi), None

        return np.asarray(jax.lax.scan(one, jnp.ones((20, 200)), jnp.asarray(xi))[0])

    w = fine.sum(0) / 2 ** (levels[-1] / 2)
    solutions = [solve(level) for level in levels]
    if multiplicative:
        errors = [np.abs(x - np.exp(MU - SIGMA**2 / 2 + SIGMA * w)).mean(1) for x in solutions]
    else:  # differences of neighbours have the order of the error
        errors = [np.abs(a - b).mean(1) for a, b in itertools.pairwise(solutions)]
    slope = slopes(np.array(errors), 2.0 ** -levels[: len(errors)])
    half_width = 5 * slope.std(ddof=1) / np.sqrt(20)
    assert abs(slope.mean() - order) < half_width + 0.03  # the fit's own curvature
    assert half_width < 0.1
