"""Surrogates and controls of weak errors: their moments are what they are said to be."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

from jaxsde import (
    OptimizerProcess,
    Paired,
    RandomStart,
    SDEProcess,
    optimizers,
    oracles,
    sdes,
    simulate,
    theory,
)
from jaxsde.analysis.weak_error import _study, _surrogate
from jaxsde.engine import Draw, Index, Normal, Rademacher, StudentT, Uniform
from jaxsde.oracles import GaussianNoise, MinibatchNoise
from jaxsde.problems import LogisticRegression, Players, Quadratic, QuadraticGame
from jaxsde.processes import Refined

pytestmark = pytest.mark.usefixtures("x64")

HESSIAN, SIGMA, START = np.array([1.0, 2.0]), 0.5, np.ones(2)
ORACLE = GaussianNoise(Quadratic(HESSIAN), SIGMA)


def sgd(eta):
    return OptimizerProcess(optax.sgd, {"learning_rate": eta}, ORACLE)


def sgd_sde(eta):
    return sdes.SGD(ORACLE, eta)


def sign_pair(eta):
    return OptimizerProcess(optax.sign_sgd, {"learning_rate": eta}, ORACLE), sdes.SignSGD(
        ORACLE, eta
    )


def rmsprop_pair(eta):
    values = {"decay": 0.9, "eps": 1e-3}
    hyperparameters = {"learning_rate": eta, **values}
    return OptimizerProcess(optimizers.rmsprop, hyperparameters, ORACLE), sdes.RMSprop(
        ORACLE, eta, **values
    )


def oracle_pair(oracle):
    def pair(eta):
        return OptimizerProcess(optax.sgd, {"learning_rate": eta}, oracle), sdes.SGD(oracle, eta)

    return pair


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
    """Its covariance is the closed form."""
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


LOGISTIC = LogisticRegression(
    np.array([[1.0, 0.5], [-1.0, 0.3], [0.2, -1.0], [0.7, 1.0]]), np.array([1, 0, 0, 1]), 0.1
)
SCATTERED = RandomStart(Draw((2,), Normal()), lambda xi: 1 + 0.1 * xi)
GAME = GaussianNoise(QuadraticGame([1.0], [0.5], [0.5]), 0.3)


@pytest.mark.parametrize(
    ("pair", "x0", "warm_up"),
    [
        pytest.param(sign_pair, START, None, id="signs"),
        pytest.param(rmsprop_pair, START, 3, id="taking over"),
        pytest.param(oracle_pair(ORACLE), SCATTERED, None, id="random start"),
        pytest.param(oracle_pair(MinibatchNoise(LOGISTIC, 2)), START, None, id="batches"),
        pytest.param(
            oracle_pair(oracles.StudentTNoise(ORACLE.problem, 0.5, 5.0)), START, None, id="tails"
        ),
        pytest.param(
            oracle_pair(GAME), Players(np.ones(1), np.ones(1)), None, id="players",
        ),
    ],
)  # fmt: skip
def test_controls_have_mean_zero(pair, x0, warm_up):
    """Of chains padded from 6 to 8 steps; 6 x 6 statistics within 4.5 s.e.: alarm 2.5e-4."""
    process, sde = pair(0.1)
    chain = Refined(process, sde, 1, 2, warm_up)
    keys = jax.random.split(jax.random.key(3), 3)
    x0 = x0 if isinstance(x0, RandomStart) else jax.tree.map(jnp.asarray, x0)
    case = _study._case(chain, x0, 6, 8, keys, {"g": process.oracle.problem.loss})
    found = _study._run(case, x0, 4096, 1, _study._Bar(None, 0))["g"]
    mean, variance = found.mean[3:], np.diag(found.covariance)[3:]
    assert np.all(np.abs(mean) <= 4.5 * np.sqrt(variance / found.n))
    assert np.any(variance > 0)


def test_large_problems_run_without_surrogates():
    """No array of the fit grows with the square of the dimension."""
    oracle = GaussianNoise(Quadratic(np.ones(1000)), 0.1)
    process, sde = oracle_pair(oracle)(0.1)
    chain = Refined(process, sde, 1, 2)
    fitted = _surrogate.fit(chain, jnp.ones(1000), 4, 4, 16, jax.random.key(0))
    assert all(s.A.shape == (4, 1, 1) and s.B.shape == (4, 1, 0) for s in fitted)
