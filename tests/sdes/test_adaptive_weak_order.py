"""Weak orders of RMSprop's and Adam's SDEs, without sampling.

The chain is the optimizer with three-point noise, which has the normal's first five moments. Its
expectations and the SDE's, from the package's coefficients, are taken on one Chebyshev grid.

What is asserted is the slope at the last halving of the step, of the error's root mean square over
9 or 12 starts. At one start the error may pass through 0 and show any slope; the mean square
cannot. The grids' own errors are below 5 % of the smallest error used, seen from finer grids.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde.oracles import SVAG, GaussianNoise
from jaxsde.problems import Problem
from jaxsde.sdes import (
    Adam,
    BatchEquivalentAdam,
    BatchEquivalentRMSprop,
    RMSprop,
    modified_equation,
)
from jaxsde.sdes.adaptive import (
    AdamState,
    BatchEquivalentAdamState,
    BatchEquivalentRMSpropState,
    RMSpropState,
)
from jaxsde.theory import scaling
from jaxsde.theory.transfer_operator import chain_expectation, diffusion_expectation

SCALE, EPS, C1, C2 = 0.7, 0.2, 1.0, 0.5
STEPS = (1 / 32, 1 / 64)  # τ; the time is 1
LATE = 1e3  # where nothing is left of the bias correction
ATOMS, WEIGHTS = np.sqrt(3) * np.array([-1.0, 0.0, 1.0]), np.array([1, 4, 1]) / 6


class Wavy(Problem):
    """f' = 0.6 x + 0.2 sin x."""

    def loss(self, x):
        return jnp.sum(0.3 * x**2 - 0.2 * jnp.cos(x))


gradient = Wavy().gradient


def rmsprop(t, y, z, h, new=False):
    g = gradient(y.X) + SCALE * z
    V = y.V + C2 * h * (g**2 - y.V)
    return RMSpropState(y.X - h * g / (jnp.sqrt(V if new else y.V) + EPS), V)


def rmsprop_new(t, y, z, h):
    return rmsprop(t, y, z, h, True)


def adam(t, y, z, h):
    g = gradient(y.X) + SCALE * z
    M, V = y.M + C1 * h * (g - y.M), y.V + C2 * h * (g**2 - y.V)
    return AdamState(y.X - h * M / (jnp.sqrt(y.V) + EPS), M, V)


def scaled_rmsprop(t, y, z, h):
    hg = h * gradient(y.theta) + SCALE * z
    u = y.u + C2 * h**2 * (hg**2 / SCALE**2 - y.u)
    return BatchEquivalentRMSpropState(y.theta - h * hg / (SCALE * jnp.sqrt(y.u) + EPS), u)


def scaled_adam(t, y, z, h):
    hg = h * gradient(y.theta) + SCALE * z
    m, u = y.m + C1 * h * (hg - h * y.m), y.u + C2 * h**2 * (hg**2 / SCALE**2 - y.u)
    return BatchEquivalentAdamState(y.theta - h**2 * m / (SCALE * jnp.sqrt(y.u) + EPS), m, u)


@eqx.filter_jit
def coefficients(sde, State, points):
    """Drift and G Gᵀ at every point."""

    def at(point):
        y = State(*point[:, None])
        diffusion = sde.diffusion(LATE, y, None)
        unit, unravel = jax.flatten_util.ravel_pytree(
            jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), diffusion.in_structure())
        )
        G = [jnp.concatenate(diffusion.mv(unravel(e))) for e in jnp.eye(unit.size)]
        return jnp.concatenate(sde.drift(LATE, y, None)), jnp.stack(G, 1) @ jnp.stack(G)

    return jax.vmap(at)(points)


@eqx.filter_jit
def third_cumulants(equation, State, points):
    kappa = lambda p: equation.excess_third_cumulant(0.0, State(*p[:, None]))  # noqa: E731
    return jax.vmap(kappa)(points)


class Setting:
    """A grid, starts and observables, on which a chain and its SDEs are compared."""

    def __init__(self, State, update, domain, degree, starts, powers):
        self.State, self.update = State, update
        self.shared = (self._observables, starts)
        self.domain, self.degree, self.powers = domain, degree, np.asarray(powers)
        self.step = jax.jit(jax.vmap(self._step, in_axes=(0, None, None)))

    def _observables(self, y):
        return np.prod(y[:, None, :] ** self.powers, axis=-1)

    def _step(self, point, z, h):
        y = self.State(*point[:, None])
        return jnp.concatenate(self.update(0.0, y, z[None], h))

    def chain(self, h, steps, atoms=ATOMS, weights=WEIGHTS):
        update = lambda y, z: self.step(y, z, h)  # noqa: E731
        return chain_expectation(
            update, atoms, weights, *self.shared, steps, self.domain, self.degree
        )

    def diffusion(self, sde, third_cumulant=None):
        drift, covariance = (lambda y, i=i: coefficients(sde, self.State, y)[i] for i in range(2))
        return diffusion_expectation(
            drift, covariance, *self.shared, 1.0, self.domain, self.degree, third_cumulant
        )


def slopes(errors):
    """Of the root mean square over the starts, from one step to its half, by observable."""
    coarse, fine = (np.sqrt(np.mean(e**2, axis=0)) for e in errors[-2:])
    return np.log2(coarse / fine)


PLANE = np.array([(x, v) for x in (-0.8, 0.4, 1.0) for v in (0.6, 1.0, 1.4)])
SPACE = np.array([(x, m, v) for x in (-0.8, 0.4, 1.0) for m in (-0.5, 0.5) for v in (0.6, 1.4)])
POWERS = {  # X, X², V, V², X² V;  X, X², M, M², V, V², M V
    2: [(1, 0), (2, 0), (0, 1), (0, 2), (2, 1)],
    3: [(1, 0, 0), (2, 0, 0), (0, 1, 0), (0, 2, 0), (0, 0, 1), (0, 0, 2), (0, 1, 1)],
}


def ballistic_setting(update):
    if update is adam:
        domain = [(-1.6, 1.6), (-1.7, 1.7), (0.25, 2.5)]
        return Setting(AdamState, adam, domain, 7, SPACE, POWERS[3])
    return Setting(RMSpropState, update, [(-2.0, 2.0), (0.25, 3.0)], 10, PLANE, POWERS[2])


def ballistic_sde(update, oracle, tau, order):
    if update is adam:
        return Adam(
            oracle, tau, 1 - C1 * tau, 1 - C2 * tau, EPS,
            bias_correction=False, v_timing="old", order=order,
        )  # fmt: skip
    timing = "new" if update is rmsprop_new else "old"
    return RMSprop(oracle, tau, 1 - C2 * tau, EPS, v_timing=timing, order=order)


@pytest.mark.parametrize("update", [rmsprop, rmsprop_new, adam])
def test_ballistic(update, x64):
    setting, oracle = ballistic_setting(update), GaussianNoise(Wavy(), SCALE)
    chain = [setting.chain(tau, round(1 / tau)) for tau in STEPS]
    for order in (1, 2):
        errors = [
            value - setting.diffusion(ballistic_sde(update, oracle, tau, order))
            for tau, value in zip(STEPS, chain, strict=True)
        ]
        np.testing.assert_allclose(slopes(errors), order, atol=0.1)


def scaled_setting(update):
    if update is scaled_adam:
        domain = [(-1.7, 1.7), (-2.5, 2.5), (0.3, 2.2)]
        return Setting(BatchEquivalentAdamState, update, domain, (7, 7, 6), SPACE, POWERS[3])
    domain = [(-3.0, 3.0), (0.3, 2.5)]
    return Setting(BatchEquivalentRMSpropState, update, domain, 9, PLANE, POWERS[2])


def scaled_sde(update, tau, order):
    eta = tau**0.5
    oracle = GaussianNoise(Wavy(), SCALE / eta)
    shared = {"eps": EPS / eta, "noise_scale": SCALE / eta, "order": order}
    if update is scaled_adam:
        betas = (1 - C1 * tau, 1 - C2 * tau)
        return BatchEquivalentAdam(oracle, eta, *betas, **shared, v_timing="old")
    return BatchEquivalentRMSprop(oracle, eta, 1 - C2 * tau, **shared)


@pytest.mark.parametrize("update", [scaled_rmsprop, scaled_adam])
def test_batch_equivalent(update, x64):
    """Order 2 but for the third cumulant; with its operator order 2 without exception.

    Without it, X, V and V² are of order 2 (X up to what it does to the small wave in ∇f), and X²,
    M² of order 1, as is X² V.
    """
    setting = scaled_setting(update)
    equation = modified_equation(
        update, STEPS[0] ** 0.5, regime="batch-equivalent", noise=jnp.zeros(1)
    )
    kappa = np.asarray(third_cumulants(equation, setting.State, _points(setting)))
    errors = {"order 1": [], "order 2": [], "with the cumulant": []}
    for tau in STEPS:
        chain = setting.chain(tau**0.5, round(1 / tau))
        first, second = (scaled_sde(update, tau, order) for order in (1, 2))
        errors["order 1"].append(chain - setting.diffusion(first))
        errors["order 2"].append(chain - setting.diffusion(second))
        full = setting.diffusion(second, lambda y, tau=tau: tau * kappa)
        errors["with the cumulant"].append(chain - full)
    found = {name: slopes(error) for name, error in errors.items()}
    np.testing.assert_allclose(found["order 1"], 1, atol=0.1)
    np.testing.assert_allclose(found["with the cumulant"], 2, atol=0.11)
    second_order, first_order = (
        ([0, 4, 5], [1, 3]) if update is scaled_adam else ([0, 2, 3], [1, 4])
    )
    np.testing.assert_allclose(found["order 2"][second_order], 2, atol=0.1)
    np.testing.assert_allclose(found["order 2"][first_order], 1, atol=0.15)


def _points(setting):
    seen = []
    chain_expectation(
        lambda y, z: seen.append(y) or y, [0.0], [1.0], *setting.shared, 0,
        setting.domain, setting.degree,
    )  # fmt: skip
    return seen[0]


SKEWED = np.array([2.0, -0.5]), np.array([0.2, 0.8])  # mean 0, variance 1, skewness 1.5


def test_svag_restores_the_order_that_skewness_takes(x64):
    """RMSprop with noise of two points, at η²/l², l = 4, 8: X and X².

    Two gradients with SVAG's weights: an error of order η²/l². The same noise at scale l σ, which
    is not of low skewness: of order η/l.
    """
    setting, record = scaled_setting(scaled_rmsprop), {"decay": 1 - C2 / 8, "eps": EPS * 8**0.5}
    record["learning_rate"] = eta = 8**-0.5
    oracle = GaussianNoise(Wavy(), SCALE / eta)
    pairs, chances = (np.stack(np.meshgrid(a, a), -1).reshape(-1, 2) for a in SKEWED)
    with_svag, without = [], []
    for l in (4, 8):  # noqa: E741
        amplified = SVAG(oracle, l**2)
        scaled = scaling.svag(record, l, scaling.square_root)
        sde = BatchEquivalentRMSprop(amplified, **scaled, noise_scale=l * SCALE / eta)
        value, h, steps = setting.diffusion(sde), eta / l, 8 * l**2
        z = pairs @ np.asarray(amplified.weights) / l
        with_svag.append(setting.chain(h, steps, z, chances.prod(axis=1)) - value)
        without.append(setting.chain(h, steps, *SKEWED) - value)
    np.testing.assert_allclose(slopes(with_svag)[:2] / 2, 1, atol=0.05)
    np.testing.assert_allclose(slopes(without)[:2] / 2, 0.5, atol=0.05)
