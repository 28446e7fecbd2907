"""Weak errors: exact controls, known errors inside their intervals, verdicts in words."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from jaxsde import InputError, OptimizerProcess, Paired, SDEProcess, oracles, sdes, simulate, theory
from jaxsde.analysis import ObservableError, WeakError, fit_order, weak_error
from jaxsde.analysis.weak_error import _study, _surrogate
from jaxsde.engine import Index, Normal, Rademacher, StudentT, Uniform
from jaxsde.problems import Quadratic
from jaxsde.processes import Refined

pytestmark = pytest.mark.usefixtures("x64")

HESSIAN, SIGMA, START = np.array([1.0, 2.0]), 0.5, np.ones(2)
ORACLE = oracles.GaussianNoise(Quadratic(HESSIAN), SIGMA)


def sgd(eta):
    return OptimizerProcess(optax.sgd, {"learning_rate": eta}, ORACLE)


def sgd_sde(eta):
    return sdes.SGD(ORACLE, eta)


def fourth(x):
    return jnp.sum(x**4)


def exact_fourth(eta, law):
    """E Σ xᵢ⁴ at t = 1, of Gaussian x: m⁴ + 6 m² v + 3 v²."""
    m, P = (
        of[0]
        for of in theory.gradient_descent.moments(
            Quadratic(HESSIAN), np.full(2, SIGMA**2), eta, START, np.array([1.0]), law
        )
    )
    v = np.diag(P)
    return np.sum(m**4 + 6 * m**2 * v + 3 * v**2)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(_study, "BLOCK", 256)
    monkeypatch.setattr(_study, "FIT", 512)


@pytest.mark.parametrize("law", [Normal(), Uniform(), Rademacher(), StudentT(1.5)])
def test_features_have_mean_zero_and_the_covariance_they_claim(law):
    """By quadrature over the law's quantiles."""
    u = (np.arange(2_000_000) + 0.5) / 2_000_000
    quantiles = {
        Normal: scipy.stats.norm.ppf, Uniform: lambda u: u, Rademacher: lambda u: np.sign(u - 0.5),
        StudentT: lambda u: scipy.stats.t.ppf(u, 1.5),
    }  # fmt: skip
    of, covariance = _surrogate.features(law, ())
    phi = np.reshape(of(quantiles[type(law)](u)), (-1, u.size))
    np.testing.assert_allclose(phi.mean(axis=1), 0, atol=2e-6)
    np.testing.assert_allclose(phi @ phi.T / u.size, covariance, atol=3e-5)


@pytest.mark.parametrize("replace", [True, False])
def test_counts_of_a_batch_have_the_covariance_they_claim(replace):
    """By enumeration of all batches of 2 from 4, for two independent batches at once."""
    of, covariance = _surrogate.features(Index(4, 2, replace), (2,))
    pairs = np.stack(np.meshgrid(np.arange(4), np.arange(4)), axis=-1).reshape(-1, 2)
    batches = pairs if replace else pairs[pairs[:, 0] != pairs[:, 1]]
    both = [np.stack([a, b]) for a in batches for b in batches]
    phi = np.array([of(value) for value in both])
    np.testing.assert_allclose(phi.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(phi.T @ phi / len(phi), covariance, atol=1e-12)


def test_every_level_is_the_euler_chain_at_its_step(key):
    """The finest is that of a pair with as many substeps; at one substep the SDE is SGD itself."""
    eta, steps = 0.1, 5
    refined = Refined(sgd(eta), sgd_sde(eta), 1, 3)
    settings = {"steps": steps, "paths": 32, "records": [steps], "key": key}
    levels = simulate(
        refined, START, **settings,
        observables={
            "optimizer": lambda x: x.optimizer,
            **{str(j): lambda x, j=j: x.sdes[j] for j in range(3)},
        },
    )  # fmt: skip
    np.testing.assert_allclose(levels.sample["0"], levels.sample["optimizer"], rtol=1e-12)
    pair = Paired(sgd(eta), SDEProcess(sgd_sde(eta), eta / 4), 4)
    finest = simulate(pair, START, **settings, observables={"x": lambda x: x})
    np.testing.assert_allclose(levels.sample["2"], finest.sample["sde.x"], rtol=1e-12)
    moments = theory.gradient_descent.moments(
        Quadratic(HESSIAN), np.full(2, SIGMA**2), eta, START, np.array([0.5]), theory.em(eta / 2)
    )
    middle = levels.sample["1"][0]
    z = (middle.mean(axis=1) - moments.mean[0]) / np.sqrt(np.diag(moments.covariance[0]) / 32)
    assert np.all(np.abs(z) < 4.5)  # false alarm: 1.4e-5


def test_on_a_linear_chain_the_surrogate_is_the_chain():
    """Its covariance is the closed form, and of a quadratic g nothing is left to chance."""
    eta, steps = 0.125, 8
    chain = Refined(sgd(eta), sgd_sde(eta), 1, 2)
    found = _surrogate.fit(chain, jnp.asarray(START), steps, steps, 512, jax.random.key(1))
    for surrogate, law in zip(
        found, (theory.discrete, theory.em(eta), theory.em(eta / 2)), strict=True
    ):
        exact = theory.gradient_descent.moments(
            Quadratic(HESSIAN), np.full(2, SIGMA**2), eta, START, np.array([1.0]), law
        )
        np.testing.assert_allclose(surrogate.covariance, exact.covariance[0], atol=1e-8)


def test_known_errors_lie_in_their_intervals(small_blocks, key):
    """E Σ x⁴ of SGD, whose error is known in closed form; 3 points at 99.9 %: alarm 0.3 %."""
    rates = [1 / 6, 1 / 12, 1 / 24, 1 / 48]
    study = weak_error(
        sgd, sgd_sde, START, learning_rates=rates, time=1.0, key=key, confidence=0.999,
        observables={"fourth": fourth, "loss": ORACLE.problem.loss}, paths=2048, levels=4,
    )  # fmt: skip
    found = study.errors["fourth"]
    exact = np.array(
        [exact_fourth(h, theory.discrete) - exact_fourth(h, theory.sde) for h in study.dt]
    )
    slack = np.abs(found.bias)
    assert np.all((found.lower - slack <= exact) & (exact <= found.upper + slack))
    assert np.all(slack < 0.01 * np.abs(exact))
    assert found.order.whole() == 1
    assert study.errors["loss"].order.whole() == 1
    assert np.all(found.gain > found.gain_by_pairing)
    assert np.all(study.errors["loss"].gain > 100)
    assert "order 1, and no other whole one" in study.verdict
    assert study.to_xarray()["loss.error"].dims == ("learning_rate",)
