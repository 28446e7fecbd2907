import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsde import (
    InputError,
    OptimizerProcess,
    Paired,
    SDEProcess,
    optimizers,
    sdes,
    simulate,
    theory,
)
from jaxsde.oracles import SVAG, GaussianNoise, Oracle, StudentTNoise
from jaxsde.problems import Quadratic
from jaxsde.theory import gradient_descent, scaling

FLAT = Quadratic([0.0, 0.0, 0.0])
CURVATURE, X = [1.0, 2.0, 0.5], np.array([1.0, -1.0, 2.0])
PROBLEM = Quadratic(CURVATURE)
COVARIANCE = np.array([[1.0, 0.5, 0.0], [0.5, 2.0, -0.25], [0.0, -0.25, 0.5]])


@pytest.mark.parametrize("F", [1.0, 2.5, 4.0, 64.0])
def test_weights_have_the_moments_that_define_them(F, x64):
    r = np.array(SVAG(GaussianNoise(PROBLEM, 1.0), F).weights)
    moments = [1, F, (3 * F - 1) / 2, (F**2 + 2 * F - 1) / 2]
    for power, moment in enumerate(moments, start=1):
        np.testing.assert_allclose(np.sum(r**power), moment, rtol=1e-13)


@pytest.mark.parametrize("noise", [{"scale": [0.5, 1.0, 2.0]}, {"covariance": COVARIANCE}])
def test_covariance_is_that_of_the_gradient_and_the_mean_is_kept(noise, x64):
    oracle = GaussianNoise(Quadratic(CURVATURE), **noise)
    svag, x = SVAG(oracle, 9.0), jnp.asarray(X)
    make = type(svag.noise(x))
    at = lambda slots: svag.sample_gradient(x, make(*slots))  # noqa: E731
    np.testing.assert_allclose(at((jnp.zeros(3), jnp.zeros(3))), PROBLEM.gradient(x), rtol=1e-14)
    # The gradient is affine in its two normal slots, so its covariance is the Jacobian's square.
    J = jax.jacobian(lambda both: at((both[:3], both[3:])))(jnp.zeros(6))
    expected = 9 * oracle.covariance(x).as_matrix()
    np.testing.assert_allclose(J @ J.T, expected, atol=1e-13)
    np.testing.assert_allclose(svag.covariance(x).as_matrix(), expected, atol=1e-13)
    root = svag.covariance_root(x).as_matrix()
    np.testing.assert_allclose(root @ root.T, expected, atol=1e-13)
    np.testing.assert_allclose(svag.variance(x), np.diag(expected), atol=1e-13)


def test_a_pair_shares_the_noise_of_both_slots(key):
    """At dt = η SGD on SVAG and its SDE are then the same path."""
    svag = SVAG(GaussianNoise(PROBLEM, 0.5), 4.0)
    optimizer = OptimizerProcess(optax.sgd, {"learning_rate": 0.1}, svag)
    pair = Paired(optimizer, SDEProcess(sdes.SGD(svag, 0.1), 0.1))
    run = simulate(pair, X.astype(np.float32), steps=8, paths=64, key=key, records=1)
    assert np.all(run.variance("optimizer.position")[-1] > 1e-2)
    assert np.all(run.variance("difference.position")[-1] < 1e-12)


def test_amplification_one_is_the_oracle_on_its_second_slot(x64):
    oracle = StudentTNoise(PROBLEM, 0.5, 3.0)
    first, second = np.random.default_rng(1).normal(size=(2, 3))
    svag = SVAG(oracle, 1.0)
    got = svag.sample_gradient(jnp.asarray(X), type(svag.noise(X))(first, second))
    np.testing.assert_allclose(got, oracle.sample_gradient(jnp.asarray(X), second), rtol=1e-14)


def test_one_step_has_the_amplified_covariance(key):
    """Two slots with one noise would have variance 1, two with independent noise F."""
    process = OptimizerProcess(
        optax.sgd, {"learning_rate": 1.0}, SVAG(GaussianNoise(FLAT, 1.0), 9.0)
    )
    paths = 20_000
    run = simulate(process, np.zeros(3, np.float32), steps=1, paths=paths, key=key, records=1)
    # 3 independent sample variances: |z| > 4.5 somewhere has probability below 3e-5.
    z = (run.variance("position")[-1] / 9 - 1) * np.sqrt(paths / 2)
    assert np.abs(z).max() < 4.5


def test_it_runs_where_an_oracle_runs(key):
    svag = SVAG(GaussianNoise(PROBLEM, 0.5), 4.0)
    assert isinstance(svag, Oracle)
    process = OptimizerProcess(optimizers.adam, {"learning_rate": 0.01}, svag)
    run = simulate(process, X.astype(np.float32), steps=4, paths=64, key=key, records=1)
    assert run.used("loss")[-1] == 64


def test_sgd_under_svag_approaches_its_sde_as_one_over_l():
    """Without sampling, by the exact moments on a quadratic: slopes of mean and variance."""
    record, ls = {"learning_rate": 0.2, "batch_size": 1.0}, (4, 8)
    law = lambda record, form: gradient_descent.moments(  # noqa: E731
        Quadratic([1.0]), [0.5 / record["batch_size"]], record["learning_rate"], [1.0], 2.0, form
    )
    limit, errors = law(record, theory.sde), []
    for l in ls:  # noqa: E741
        values = scaling.svag(record, l, scaling.linear)
        r = np.array(SVAG(GaussianNoise(Quadratic([1.0]), 1.0), float(l)).weights)
        assert values["batch_size"] == pytest.approx(1 / np.sum(r**2), rel=1e-5)
        found = law(values, theory.discrete)
        errors.append([found.mean[0] - limit.mean[0], np.ptp([found.covariance, limit.covariance])])
    slopes = np.log2(np.abs(np.array(errors[0]) / errors[1]))
    np.testing.assert_allclose(slopes, 1, atol=0.06)


@pytest.mark.parametrize(("F", "message"), [(0.5, "at least 1, got 0.5"), (-1.0, "positive")])
def test_less_noise_is_refused(F, message):
    with pytest.raises(InputError, match=message):
        SVAG(GaussianNoise(PROBLEM, 1.0), F)
