from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxsde
from jaxsde import InputError, OptimizerProcess, SDEProcess, optimizers, sdes, theory
from jaxsde.analysis import linearize, sensitivity, stationary_sensitivity
from jaxsde.oracles import Agents, BernoulliK, FullBatch, GaussianNoise, StudentTNoise
from jaxsde.problems import Problem, Quadratic

pytestmark = pytest.mark.usefixtures("x64")

LAM, SCALE, X0 = np.array([2.0, 0.7]), np.array([1.0, 0.6]), np.array([0.8, -0.5])
H = 1e-5  # of central differences, whose error is of the order of H²
with jax.enable_x64(True):
    PROBLEM = Quadratic(LAM)
    ORACLE = GaussianNoise(PROBLEM, SCALE)
    SILENT = FullBatch(PROBLEM)


def sgd(learning_rate, oracle=ORACLE):
    return OptimizerProcess(optax.sgd, {"learning_rate": learning_rate}, oracle)


def silent_sgd(learning_rate):
    return sgd(learning_rate, SILENT)


def adamw(learning_rate, b1, weight_decay):
    values = {"b1": b1, "weight_decay": weight_decay, "b2": 0.95, "eps": 1e-6}
    return OptimizerProcess(optimizers.adam, {"learning_rate": learning_rate, **values}, ORACLE)


def rmsprop_sde(learning_rate, decay):
    return SDEProcess(sdes.RMSprop(ORACLE, learning_rate, decay=decay), learning_rate / 2)


def sign_sgd(learning_rate, sigma):
    oracle = GaussianNoise(PROBLEM, sigma * jnp.asarray(SCALE))
    return OptimizerProcess(optax.sign_sgd, {"learning_rate": learning_rate}, oracle)


def difference(fn, values, name):
    """∂fn/∂name, centrally."""
    up, down = (fn(values | {name: values[name] + h}) for h in (H, -H))
    return (np.asarray(up) - np.asarray(down)) / (2 * H)


def test_without_noise_it_is_the_closed_form():
    """x_k = (1 - η λ)^k x₀ and ∂x_k/∂η = -k λ (1 - η λ)^(k-1) x₀: no Monte Carlo error."""
    found = sensitivity(
        silent_sgd, {"learning_rate": 0.1}, X0, steps=12, paths=2, key=jax.random.key(0),
        records=[0, 5, 12],
    )  # fmt: skip
    k, q = found.step[:, None], 1 - 0.1 * LAM
    np.testing.assert_allclose(found.value("position").value, q**k * X0, rtol=1e-12)
    slope = -k * LAM * q ** (k - 1) * X0
    derivative = found.derivative("position", "learning_rate")
    np.testing.assert_allclose(derivative.value, slope, rtol=1e-12)
    np.testing.assert_array_equal(derivative.standard_error, 0)
    loss = found.derivative("loss", "learning_rate").value
    np.testing.assert_allclose(loss, np.sum(LAM * q**k * X0 * slope, axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.time, 0.1 * found.step)


def test_expected_loss_of_sgd():
    """At 5 standard errors, false alarm rate 4 · 6e-7."""
    found = sensitivity(
        sgd, {"learning_rate": 0.1}, X0, steps=20, paths=4000, key=jax.random.key(1), records=4
    )

    def loss(eta):
        moments = theory.gradient_descent.moments(
            PROBLEM, SCALE**2, eta, X0, eta * found.step, theory.discrete
        )
        return theory.expected_loss(PROBLEM, moments)

    exact = (loss(0.1 + H) - loss(0.1 - H)) / (2 * H)
    value, error = found.derivative("loss", "learning_rate")
    assert np.all(np.abs(value - exact) <= 5 * error + 1e-9)
    assert np.all(error[1:] < 0.1 * np.max(np.abs(exact)))
    assert np.all(error[1:] > 0)


@pytest.mark.parametrize(
    ("factory", "values"),
    [
        (adamw, {"learning_rate": 0.05, "b1": 0.8, "weight_decay": 0.4}),
        pytest.param(rmsprop_sde, {"learning_rate": 0.05, "decay": 0.9}, marks=pytest.mark.slow),
    ],
)
def test_against_differences_under_one_key(factory, values):
    """The limit of differences of the same paths: to H², not to a Monte Carlo error."""
    run = {"steps": 15, "paths": 50, "key": jax.random.key(2), "records": 3}
    found = sensitivity(factory, values, X0, **run)

    def loss(values):
        return jaxsde.simulate(factory(**values), X0, **run).mean("loss")

    for name in values:
        expected = difference(loss, values, name)
        derivative = found.derivative("loss", name).value
        np.testing.assert_allclose(derivative, expected, rtol=1e-5, atol=1e-8)
        assert np.any(expected != 0)


@pytest.mark.slow
def test_observables_of_the_state_and_agents_whose_draws_jump():
    """A compressor jumps in its draws alone, which stay where they are."""

    def compressed(learning_rate, sigma):
        agents = Agents.of(2, GaussianNoise, PROBLEM, BernoulliK(1.0), scale=[sigma, 2 * sigma])
        return OptimizerProcess(optimizers.dcsgd, {"learning_rate": learning_rate}, agents)

    values = {"learning_rate": 0.1, "sigma": 0.5}
    run = {"steps": 5, "paths": 20, "key": jax.random.key(3), "records": 1}
    run["observables"] = {"square": jaxsde.of_state(lambda state: jnp.sum(state.x**2))}
    found = sensitivity(compressed, values, X0, **run)

    def square(values):
        return jaxsde.simulate(compressed(**values), X0, **run).mean("square")

    for name in values:
        np.testing.assert_allclose(
            found.derivative("square", name).value, difference(square, values, name), rtol=1e-6
        )


@pytest.mark.parametrize(
    ("factory", "values"),
    [
        pytest.param(
            adamw, {"learning_rate": 0.05, "b1": 0.8, "weight_decay": 0.4}, marks=pytest.mark.slow
        ),
        (sign_sgd, {"learning_rate": 0.05, "sigma": 1.5}),
    ],
)
def test_stationary_moments_against_differences(factory, values):
    found = stationary_sensitivity(factory, values, X0)

    def covariance(values):
        return linearize(factory(**values), X0).covariance

    def loss(values):
        theory = linearize(factory(**values), X0)
        return theory.expected(PROBLEM.loss)

    for name in values:
        expected = difference(covariance, values, name)
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(found.covariance[name], expected, atol=1e-6 * scale)
        np.testing.assert_allclose(
            found.derivative["loss"][name], difference(loss, values, name), rtol=1e-6
        )


def test_stationary_moments_of_an_sde():
    """C = η σ²/(2λ) about x*: by η, by σ and by where the minimum is; a skew observable too."""

    def sde(learning_rate, sigma, centre):
        problem = Quadratic(LAM, centre * jnp.ones(2))
        return sdes.SGD(GaussianNoise(problem, sigma), learning_rate)

    eta, sigma, centre = 0.1, 0.8, 0.3
    found = stationary_sensitivity(
        sde, {"learning_rate": eta, "sigma": sigma, "centre": centre}, X0,
        observables={"cube": lambda x: jnp.sum(x**3)},
    )  # fmt: skip
    C = eta * sigma**2 / (2 * LAM)
    np.testing.assert_allclose(found.position_covariance["learning_rate"], np.diag(C / eta))
    np.testing.assert_allclose(found.position_covariance["sigma"], np.diag(2 * C / sigma))
    np.testing.assert_allclose(found.position_covariance["centre"], 0, atol=1e-15)
    np.testing.assert_allclose(found.position["centre"], 1)
    assert found.value["cube"] == pytest.approx(np.sum(centre**3 + 3 * centre * C))
    cube = found.derivative["cube"]
    assert cube["learning_rate"] == pytest.approx(np.sum(3 * centre * C / eta))
    assert cube["centre"] == pytest.approx(np.sum(3 * centre**2 + 3 * C))


class Quartic(Problem):
    """x⁴/4 - θ x: x* = θ^(1/3), f'' = 3 x*²."""

    theta: Any

    def loss(self, x):
        return jnp.sum(x**4 / 4 - self.theta * x)


def test_the_fixed_point_takes_curvature_and_shift_along():
    """C = η σ²/(6 x*²) and E x = x* - C/x*, by θ."""
    eta, sigma, theta = 0.01, 0.8, 1.7

    def sde(theta):
        return sdes.SGD(GaussianNoise(Quartic(theta), sigma), eta)

    found = stationary_sensitivity(
        sde, {"theta": theta}, np.ones(1), observables={"x": lambda x: x[0]}
    )
    c = eta * sigma**2 / 6
    np.testing.assert_allclose(found.position["theta"], [theta ** (-2 / 3) / 3])
    np.testing.assert_allclose(found.covariance["theta"], [[-2 / 3 * c * theta ** (-5 / 3)]])
    assert found.value["x"] == pytest.approx(theta ** (1 / 3) - c / theta)
    slope = theta ** (-2 / 3) / 3 + c / theta**2
    assert found.derivative["x"]["theta"] == pytest.approx(slope)


@pytest.mark.slow
def test_the_best_rho_of_extragradient_is_stationary():
    """∂tr C/∂ρ = 0 at `least_variance_rho`, for the SDE and for the algorithm."""
    a, lam, eta = 0.5, 1.5, 0.05
    game = jaxsde.problems.QuadraticGame(lam * np.eye(1), a * np.eye(1))
    oracle = GaussianNoise(game, 0.7)
    z0 = jaxsde.problems.Players(np.ones(1), np.ones(1))

    def chain(rho):
        return OptimizerProcess(optimizers.seg, {"learning_rate": eta, "rho": rho}, oracle)

    def sde(rho):
        return sdes.SEG(oracle, eta, rho)

    for factory, law in [(chain, theory.discrete), (sde, theory.sde)]:
        rho = theory.minimax.least_variance_rho(eta, law, curvature=a, coupling=lam)
        best = stationary_sensitivity(factory, {"rho": rho}, z0).covariance["rho"]
        other = stationary_sensitivity(factory, {"rho": rho / 2}, z0).covariance["rho"]
        assert abs(np.trace(best)) < 1e-9 < 1e-3 < -np.trace(other)


def test_refusals():
    run = {"steps": 2, "paths": 2, "key": jax.random.key(0)}
    with pytest.raises(InputError, match=r"jumps: it has sign of what depends on the state"):
        sensitivity(sign_sgd, {"learning_rate": 0.1, "sigma": 1.0}, X0, **run)
    indicator = {"above": lambda x: x[0] > 0.3}
    with pytest.raises(InputError, match=r"an observable jumps: it has .*gt"):
        sensitivity(sgd, {"learning_rate": 0.1}, X0, observables=indicator, **run)

    def heavy(degrees_of_freedom):
        return sgd(0.1, StudentTNoise(PROBLEM, SCALE, degrees_of_freedom))

    for refused in (
        lambda: sensitivity(heavy, {"degrees_of_freedom": 5.0}, X0, **run),
        lambda: stationary_sensitivity(heavy, {"degrees_of_freedom": 5.0}, X0),
    ):
        with pytest.raises(InputError, match="law of the draws depends on 'degrees_of_freedom'"):
            refused()
    with pytest.raises(InputError, match="at least one name"):
        sensitivity(sgd, {}, X0, **run)
    with pytest.raises(InputError, match="learning_rate must be one finite number"):
        sensitivity(sgd, {"learning_rate": "fast"}, X0, **run)
    with pytest.raises(InputError, match="must make a process"):
        sensitivity(lambda eta: sdes.SGD(ORACLE, eta), {"eta": 0.1}, X0, **run)
    with pytest.raises(InputError, match="no stationary law"):
        stationary_sensitivity(sgd, {"learning_rate": 1.5}, X0)
