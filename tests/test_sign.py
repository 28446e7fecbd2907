"""SignSGD and its SDEs against their stationary laws, through the engine."""

import numpy as np
import optax
import pytest

from jaxsde import OptimizerProcess, SDEProcess, simulate
from jaxsde.oracles import GaussianNoise, StudentTNoise
from jaxsde.problems import Quadratic
from jaxsde.sdes import LinearizedSignSGD, SignSGD
from jaxsde.theory import discrete, em, sign

SIGMA, ETA = 0.5, 0.02
RATIOS = np.array([0.05, 0.1, 0.2])  # η λ/σ
PROBLEM = Quadratic(RATIOS * SIGMA / ETA)
STEPS, PATHS = 300, 100_000  # e^(-0.05 · 0.64 · 2 · 300) = 5e-9 of the start is left


def oracle(nu):
    return GaussianNoise(PROBLEM, SIGMA) if np.isinf(nu) else StudentTNoise(PROBLEM, SIGMA, nu)


def variances(process, key, steps=STEPS):
    """Stationary variances and their standard errors, from the sampled fourth moment."""
    run = simulate(
        process, np.zeros(3, np.float32), steps=steps, paths=PATHS, key=key, records=[steps],
        observables={"x²": lambda x: x**2},
    )  # fmt: skip
    return run.mean("x²")[0], run.standard_error("x²")[0]


def lattice_variances(nu):
    def variance(lam):
        return sign.lattice_moments(
            lambda x: lam * x,
            lambda z: 0.5 + sign.centred_cdf(z / SIGMA, nu),
            ETA, 0.0, STEPS, {"x²": np.square},
        )["x²"][-1]  # fmt: skip

    return np.array([variance(lam) for lam in np.asarray(PROBLEM.hessian, float)])


# Each assertion below is on 3 normal statistics: |z| > 4.5 somewhere has probability 2e-5.
BOUND = 4.5


@pytest.mark.parametrize("nu", [np.inf, 1.0, 2.0, 3.0])
def test_the_optimizers_stationary_variance_is_the_corrected_one(nu, key):
    process = OptimizerProcess(optax.sign_sgd, {"learning_rate": ETA}, oracle(nu))
    simulated, error = variances(process, key)
    assert np.all(np.abs(simulated - lattice_variances(nu)) < BOUND * error)

    corrected = sign.stationary_variance(PROBLEM, SIGMA, ETA, discrete, nu)
    published = sign.stationary_variance(
        PROBLEM, SIGMA, ETA, degrees_of_freedom=nu, linearised=True
    )
    next_order = corrected * (RATIOS / (2 * sign.slope(nu))) ** 2  # v₀², relative
    assert np.all(np.abs(simulated - corrected) < BOUND * error + 2 * next_order)
    assert np.all((np.abs(simulated - published) > 3 * BOUND * error)[1:])


def test_the_linearised_sdes_variance_is_its_exact_law(key):
    dt, nu = ETA / 2, np.inf
    simulated, error = variances(
        SDEProcess(LinearizedSignSGD(oracle(nu), ETA), dt), key, steps=2 * STEPS
    )
    exact = sign.stationary_variance(PROBLEM, SIGMA, ETA, em(dt), nu, linearised=True)
    assert np.all(np.abs(simulated - exact) < BOUND * error)
    elsewhere = sign.stationary_variance(PROBLEM, SIGMA, ETA, discrete, nu, linearised=True)
    assert np.abs(simulated - elsewhere)[-1] > 2 * BOUND * error[-1]


def test_the_exact_sdes_variance_is_the_corrected_one(key):
    dt, nu = ETA / 2, np.inf
    simulated, error = variances(SDEProcess(SignSGD(oracle(nu), ETA), dt), key, steps=2 * STEPS)
    exact = sign.stationary_variance(PROBLEM, SIGMA, ETA, em(dt), nu)
    next_order = exact * (RATIOS / (2 * sign.slope(nu))) ** 2
    assert np.all(np.abs(simulated - exact) < BOUND * error + 2 * next_order)
    algorithm = sign.stationary_variance(PROBLEM, SIGMA, ETA, discrete, nu)
    assert np.abs(simulated - algorithm)[-1] > 2 * BOUND * error[-1]
