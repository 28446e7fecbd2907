"""SGD and its SDE against their own laws, through the engine."""

import jax
import numpy as np
import optax
import pytest
import scipy.stats

from jaxsde import OptimizerProcess, SDEProcess, simulate, with_covariance
from jaxsde.engine.observables import position
from jaxsde.oracles import GaussianNoise, StudentTNoise
from jaxsde.problems import Quadratic
from jaxsde.sdes import SGD
from jaxsde.theory import discrete, em, gradient_descent, sde

HESSIAN = np.array([[2.0, 0.5], [0.5, 1.0]])
COVARIANCE = np.array([[0.5, -0.3], [-0.3, 0.4]])
ETA, X0 = 0.1, np.array([1.0, -2.0], np.float32)
PATHS, STEPS = 20_000, 60


def run(process, key, steps=STEPS):
    observables = {"x": with_covariance(position)}
    return simulate(
        process, X0, steps=steps, paths=PATHS, key=key, records=5, observables=observables
    )


def worst(ensemble, moments):
    """The largest standardised error of the means and of the covariances' entries, t > 0."""
    mean, error = ensemble.mean("x")[1:], ensemble.standard_error("x")[1:]
    covariance = ensemble.covariance("x")[1:]
    variance = np.diagonal(moments.covariance[1:], axis1=1, axis2=2)
    spread = variance[:, :, None] * variance[:, None, :] + moments.covariance[1:] ** 2
    return max(
        np.abs((mean - moments.mean[1:]) / error).max(),
        np.abs((covariance - moments.covariance[1:]) / np.sqrt(spread / PATHS)).max(),
    )


# 25 correlated normal statistics each: |z| > 5 somewhere has probability below 1.5e-5.
BOUND = 5


@pytest.mark.parametrize("order", [1, 2])
def test_each_chain_follows_its_own_law_and_no_other(order, key):
    problem = Quadratic(HESSIAN)
    oracle = GaussianNoise(problem, covariance=COVARIANCE)
    solved = run(SDEProcess(SGD(oracle, ETA, order), ETA / 2), key, 2 * STEPS)

    def law(form, order=1):
        return gradient_descent.moments(
            problem, COVARIANCE, ETA, X0, solved.time.round(6), form, order
        )

    assert worst(solved, law(em(ETA / 2), order)) < BOUND
    assert worst(solved, law(sde, order)) > 2 * BOUND
    assert worst(solved, law(discrete)) > 2 * BOUND
    if order == 1:
        optimizer = run(OptimizerProcess(optax.sgd, {"learning_rate": ETA}, oracle), key)
        assert worst(optimizer, law(discrete)) < BOUND
        assert worst(optimizer, law(em(ETA / 2))) > 2 * BOUND


@pytest.mark.parametrize("nu", [1.0, 2.0])
def test_sgd_without_moments_follows_its_exact_quantiles(nu, key):
    curvature, scale, steps, paths = 1.5, 0.4, 12, 4096
    oracle = StudentTNoise(Quadratic([curvature]), scale, nu)
    process = OptimizerProcess(optax.sgd, {"learning_rate": ETA}, oracle)
    run = simulate(process, X0[:1], steps=steps, paths=paths, key=key, records=[steps])
    probabilities = np.array([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
    exact = gradient_descent.student_t_quantile(
        probabilities, curvature=curvature, scale=scale, degrees_of_freedom=nu,
        learning_rate=ETA, x0=float(X0[0]), steps=steps,
    )  # fmt: skip
    below = (run.sample["position"][0, 0][:, None] <= exact[None, :]).sum(0)
    # 7 exact binomial tests: a false alarm has probability below 7e-5.
    tails = [scipy.stats.binomtest(int(b), paths, p).pvalue for b, p in zip(below, probabilities)]  # noqa: B905
    assert min(tails) > 1e-5
    inside = run.quantile("position", 0.5, confidence=0.9999)
    assert inside.lower[0, 0] <= exact[3] <= inside.upper[0, 0]


def test_sgd_under_cauchy_noise_is_not_averaged(key):
    from jaxsde import Paired
    from jaxsde.analysis import compare
    from jaxsde.sdes import LinearizedSignSGD

    oracle = StudentTNoise(Quadratic([1.0]), 0.5, 1.0)
    pair = Paired(
        OptimizerProcess(optax.sgd, {"learning_rate": ETA}, oracle),
        SDEProcess(LinearizedSignSGD(oracle, ETA), ETA),
    )
    ensemble = simulate(pair, X0[:1], steps=40, paths=4096, key=key, records=5)
    assert "compare quantiles" in compare(ensemble).verdict


def test_jax_arrays_and_lists_start_a_run_too(key):
    oracle = GaussianNoise(Quadratic([1.0, 2.0]), 0.1)
    process = OptimizerProcess(optax.sgd, {"learning_rate": ETA}, oracle)
    runs = [
        simulate(process, x0, steps=4, paths=64, key=key, records=2).mean("position")
        for x0 in (jax.numpy.ones(2), np.ones(2, np.float32))
    ]
    np.testing.assert_array_equal(*runs)
