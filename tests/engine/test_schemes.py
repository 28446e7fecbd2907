"""Declared orders against measured slopes."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest
import scipy.stats

from jaxsde import (
    EulerMaruyama,
    OptimizerProcess,
    Paired,
    SDEProcess,
    SimplifiedWeakEuler,
    simulate,
)
from jaxsde.engine import Normal, Rademacher
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic
from jaxsde.sdes import SDE, SGD

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


def unit_law(scheme):
    """Nodes and weights of the scheme's ξ, by the law that it declares."""
    draw = scheme.noise(jax.ShapeDtypeStruct((), np.float64))
    if isinstance(draw.law, Rademacher):
        return np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    assert isinstance(draw.law, Normal)
    node, weight = np.polynomial.hermite_e.hermegauss(20)
    return node, weight / weight.sum()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scheme", [EulerMaruyama(), SimplifiedWeakEuler()], ids=repr)
@pytest.mark.parametrize("power", [1, 2, 3, 4])
def test_weak_order_noise_free(scheme, power):
    """E Xᵖ by quadrature of the scheme's own step, which is linear in X."""
    node, weight = unit_law(scheme)
    steps = 2.0 ** -np.arange(8, 14)
    exact = np.exp(power * MU + power * (power - 1) * SIGMA**2 / 2)
    errors = []
    for dt in steps:
        step = jax.vmap(lambda xi, dt=dt: scheme.step(Linear(True), 0.0, 1.0, dt, xi))
        moment = weight @ np.asarray(step(jnp.asarray(node))) ** power
        errors.append(abs(moment ** (1 / dt) - exact))
    tail = np.diff(np.log2(errors))[-2:] / np.diff(np.log2(steps))[-2:]
    np.testing.assert_allclose(tail, scheme.weak_order, atol=0.02)


@pytest.mark.usefixtures("x64")
def test_two_point_increments_match_three_moments_of_a_normal_not_four():
    node, weight = unit_law(SimplifiedWeakEuler())
    moments = [weight @ node**power for power in (1, 2, 3, 4)]
    assert moments == [0, 1, 0, 1]


def test_two_point_increments_in_the_engine_take_every_value_equally_often():
    """X = σ √dt Σ (1 + μ dt)^(n - 1 - k) ±1: each of the 2ⁿ values equally often.

    χ² over 64 values in each of 40 coordinates; false alarms 2e-6.
    """
    n, dt, paths = 6, 0.25, 4096
    process = SDEProcess(Linear(False), dt, SimplifiedWeakEuler())
    drift = (1 + MU * dt) ** np.arange(n)[::-1]
    ensemble = simulate(
        process, jnp.zeros(40), steps=n, paths=paths, key=jax.random.key(2), records=[n],
        observables={"x": lambda x: x},
    )  # fmt: skip
    x = ensemble.sample["x"][0]
    signs = np.array(list(itertools.product([-1, 1], repeat=n)))
    values = SIGMA * np.sqrt(dt) * signs @ drift
    nearest = np.abs(x[..., None] - values).argmin(-1)
    np.testing.assert_allclose(x, values[nearest], atol=1e-5)
    counts = np.stack([np.bincount(row, minlength=64) for row in nearest])
    chi2 = np.sum((counts - paths / 64) ** 2, axis=1) / (paths / 64)
    assert np.all(chi2 < scipy.stats.chi2(63).isf(1e-6 / 40))
    assert np.all(chi2 > scipy.stats.chi2(63).ppf(1e-6 / 40))


def test_two_point_increments_are_not_taken_for_the_optimizers_chain():
    oracle = GaussianNoise(Quadratic([1.0, 2.0]), 0.5)
    optimizer = OptimizerProcess(optax.sgd, {"learning_rate": 0.1}, oracle)
    for scheme, same in ((EulerMaruyama(), True), (SimplifiedWeakEuler(), False)):
        sde = SDEProcess(SGD(oracle, 0.1), 0.1, scheme)
        assert (sde.settings()["chain"] == optimizer.settings()["chain"]) is same
    pair = Paired(optimizer, SDEProcess(SGD(oracle, 0.1), 0.1, SimplifiedWeakEuler()))
    assert isinstance(pair.noise(jnp.zeros(2)).own.law, Normal)


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
