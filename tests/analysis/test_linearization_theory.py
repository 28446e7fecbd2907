"""One function behind the closed forms: every leading-order one in theory/, to 1e-6.

Where a form is of leading order in η it is compared at η = 1e-7 or so, where what it leaves out is
below 1e-6, or in the regime that its docstring names. One case a family runs always, all with
-m slow: most of their time is compilation.
"""

import jax
import numpy as np
import optax
import pytest

from jaxsde import OptimizerProcess, SDEProcess, optimizers, sdes, theory
from jaxsde.analysis import linearize
from jaxsde.oracles import (
    GaussianNoise,
    StudentTNoise,
)
from jaxsde.problems import Quadratic

pytestmark = pytest.mark.usefixtures("x64")


def slow(*values):
    """A case for -m slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


H, SIGMA = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, 0.3], [0.3, 0.5]])
LAM, SCALE = np.array([2.0, 0.7]), np.array([1.0, 0.6])
X0 = np.array([0.8, -0.5])
TINY = 1e-7
with jax.enable_x64(True):
    FULL = Quadratic(H, [1.0, -2.0])
    DIAGONAL = Quadratic(LAM)
    CORRELATED = GaussianNoise(FULL, covariance=SIGMA)
    INDEPENDENT = GaussianNoise(DIAGONAL, SCALE)
LAWS = {"discrete": theory.discrete, "em": theory.em(0.02), "sde": theory.sde}


def optimizer(factory, oracle, learning_rate, **values):
    return OptimizerProcess(factory, {"learning_rate": learning_rate, **values}, oracle)


def close(covariance, expected, rtol=1e-6):
    """In units of the deviations."""
    expected = np.atleast_2d(expected)
    deviation = np.sqrt(np.diag(expected))
    assert np.all(np.abs(covariance - expected) <= rtol * np.outer(deviation, deviation))


def form(law, process, sde, em_dt=0.02):
    """The chain or SDE that a law is of."""
    return {"discrete": lambda: process, "em": lambda: SDEProcess(sde, em_dt), "sde": lambda: sde}[
        law
    ]()


# gradient descent


@pytest.mark.parametrize(
    ("law", "order"), [("discrete", 1), slow("em", 1), ("sde", 1), slow("sde", 2)]
)
def test_gradient_descent(law, order):
    sde = sdes.SGD(CORRELATED, 0.1, order)
    found = linearize(form(law, optimizer(optax.sgd, CORRELATED, 0.1), sde), X0)
    np.testing.assert_allclose(state(found), FULL.minimizer, rtol=1e-10)
    expected = theory.gradient_descent.stationary_covariance(FULL, SIGMA, 0.1, LAWS[law], order)
    close(found.covariance, expected, 1e-10)
    if law != "em":
        loss = theory.expected_loss(FULL, theory.Moments(np.asarray(FULL.minimizer), expected))
        np.testing.assert_allclose(found.expected(FULL.loss), loss, rtol=1e-10)
    slowest = np.linalg.eigh(H)[1][:, 0]
    moments = theory.gradient_descent.moments(
        FULL, SIGMA, 0.1, FULL.minimizer + slowest, 2.0, LAWS[law], order
    )
    left = np.linalg.norm(moments.mean - FULL.minimizer)
    np.testing.assert_allclose(np.exp(-2 / found.relaxation_times[0]), left, rtol=1e-10)


def state(found):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found.fixed_point)])


@pytest.mark.slow
def test_gradient_descent_levels():
    mu, sigma = 0.8, 1.3
    isotropic = GaussianNoise(
        Quadratic(mu * np.eye(2), [1.0, -2.0]), covariance=sigma**2 * np.eye(2)
    )
    found = linearize(sdes.SGD(isotropic, 0.1), X0)
    level = theory.gradient_descent.loss_level(
        learning_rate=0.1, mu=mu, hessian_trace=2 * mu, sigma=sigma
    )
    np.testing.assert_allclose(found.expected(isotropic.problem.loss), level, rtol=1e-10)
    heavy = StudentTNoise(DIAGONAL, SCALE, 3.0)
    variance = theory.gradient_descent.student_t_covariance(SCALE, 3.0)
    close(
        linearize(optimizer(optax.sgd, heavy, 0.1), X0).covariance,
        theory.gradient_descent.stationary_covariance(DIAGONAL, variance, 0.1, theory.discrete),
    )


@pytest.mark.slow
def test_momentum_has_no_closed_form_here_but_obeys_its_recursion():
    """(x, a) of a⁺ = β a + g, x⁺ = x - η a⁺, squared by hand."""
    eta, beta, eye = 0.1, 0.8, np.eye(2)
    found = linearize(optimizer(optax.sgd, CORRELATED, eta, momentum=beta), X0)
    A = np.block([[eye - eta * H, -eta * beta * eye], [H, beta * eye]])
    b = np.concatenate([-eta * eye, eye])
    np.testing.assert_allclose(found.jacobian, A, atol=1e-12)
    C = found.covariance
    np.testing.assert_allclose(A @ C @ A.T + b @ SIGMA @ b.T, C, atol=1e-10)
    assert found.autocovariance(0.2) == pytest.approx(A @ A @ C)


# signs


@pytest.mark.parametrize("law", ["discrete", slow("em"), slow("sde")])
def test_sign(law):
    sde = sdes.SignSGD(INDEPENDENT, TINY)
    chain = form(law, optimizer(optax.sign_sgd, INDEPENDENT, TINY), sde, em_dt=TINY / 4)
    law = theory.em(TINY / 4) if law == "em" else LAWS[law]
    found = linearize(chain, X0)
    close(found.covariance, np.diag(theory.sign.stationary_variance(DIAGONAL, SCALE, TINY, law)))
    linear = theory.sign.stationary_variance(DIAGONAL, SCALE, TINY, law, linearised=True)
    close(found.covariance, np.diag(linear))
    rates = theory.sign.slope() * LAM / SCALE
    np.testing.assert_allclose(1 / found.relaxation_times, np.sort(rates), rtol=1e-6)


@pytest.mark.slow
def test_sign_levels():
    eta, sigma, B, mu = 0.1, 1.3, 4, 0.8
    oracle = GaussianNoise(Quadratic([mu, mu]), [sigma, sigma], batch_size=B)
    found = linearize(sdes.SignSGD(oracle, eta), X0)
    level = found.expected(oracle.problem.loss)
    batch = float(theory.sign.batch_scale(sigma, B))
    excess = theory.sign.stationary_excess_loss(2, eta, batch)
    np.testing.assert_allclose(level, excess, rtol=1e-6)
    bound = theory.sign.loss_level(
        learning_rate=eta, mu=mu, hessian_trace=2 * mu, sigma=sigma, batch_size=B
    )
    np.testing.assert_allclose(level, bound, rtol=1e-6)


@pytest.mark.slow
def test_sign_of_cauchy_noise():
    """The slope l_ν and its level at ν = 1, where the noise has no mean."""
    found = linearize(optimizer(optax.sign_sgd, StudentTNoise(DIAGONAL, SCALE, 1.0), TINY), X0)
    expected = theory.sign.stationary_variance(
        DIAGONAL, SCALE, TINY, theory.discrete, degrees_of_freedom=1.0
    )
    close(found.covariance, np.diag(expected))


# adaptive methods


ADAM = {"b1": 0.9, "b2": 1 - 1e-7, "eps": 1e-3}
RMSPROP = {"decay": 1 - 1e-7, "eps": 1e-3}
DECAYS = {"weight_decay": 0.5, "l2_regularization": 0.3}


def second_moment_held(law, learning_rate, **values):
    frozen = {name: value for name, value in values.items() if name not in ("decay", "b2")}
    return theory.adaptive.frozen_second_moment_law(
        DIAGONAL, SCALE**2, learning_rate, law, **frozen
    )


@pytest.mark.parametrize("decays", [{}, DECAYS])
@pytest.mark.parametrize(
    ("law", "factory", "sde", "values"),
    [
        slow("discrete", optimizers.rmsprop, None, RMSPROP),
        ("discrete", optimizers.adam, None, ADAM),
        slow("sde", None, sdes.RMSprop, RMSPROP),
        slow("sde", None, sdes.Adam, ADAM),
        slow("em", None, sdes.Adam, ADAM),
    ],
)
def test_adaptive_with_the_second_moment_held(law, factory, sde, values, decays):
    """β₂ → 1 and η → 0: v is at rest at σ², and its fluctuations are gone."""
    values = {"weight_decay": 0.0, "l2_regularization": 0.0, **values, **decays}
    chain = sde and sde(INDEPENDENT, TINY, **values)
    process = factory and optimizer(factory, INDEPENDENT, TINY, **values)
    found = linearize(form(law, process, chain, em_dt=TINY / 2), X0)
    law = theory.em(TINY / 2) if law == "em" else LAWS[law]
    expected = second_moment_held(law, TINY, **values)
    close(found.position_covariance, np.diag(expected.variance))
    v = state(found)[-2:]
    np.testing.assert_allclose(v, expected.second_moment, rtol=1e-6)


@pytest.mark.slow
def test_published_adam():
    found = linearize(sdes.Adam(INDEPENDENT, TINY, **ADAM, **DECAYS, published=True), X0)
    expected = second_moment_held(theory.sde, TINY, **ADAM, **DECAYS, published=True)
    close(found.position_covariance, np.diag(expected.variance))


def test_adamw_s_factor():
    """1 + β₁ θ/ρ₁ = 1.5 where 1 - β₁ and η θ go to 0 together, for the algorithm."""
    eta, b1, theta = 1e-8, 1 - 1e-4, 5e3
    problem = Quadratic(1e3 * LAM)
    values = {**ADAM, "eps": 0.0, "b1": b1, "weight_decay": theta, "l2_regularization": 0.0}
    process = optimizer(optimizers.adam, GaussianNoise(problem, SCALE), eta, **values)
    decays = {"b1": b1, "weight_decay": theta}
    expected = theory.adaptive.stationary_variance(problem, SCALE**2, eta, **decays)
    close(linearize(process, X0).position_covariance, np.diag(expected))


@pytest.mark.slow
def test_adaptive_means_and_levels():
    """x* small beside σ, so that V = σ²: the mean; isotropic and x* = 0: the levels."""
    values = {**RMSPROP, "eps": 0.0, **DECAYS}
    shifted = Quadratic(LAM, [1e-4, -2e-4])
    found = linearize(sdes.RMSprop(GaussianNoise(shifted, SCALE), TINY, **values), X0)
    mean = theory.adaptive.stationary_mean(shifted, SCALE**2, **DECAYS)
    np.testing.assert_allclose(found.fixed_point.X, mean, rtol=1e-6)
    frozen = theory.adaptive.frozen_second_moment_law(
        Quadratic(LAM, [1.0, -2.0]), SCALE**2, 1e-9, **DECAYS
    )
    far = GaussianNoise(Quadratic(LAM, [1.0, -2.0]), SCALE)
    found = linearize(sdes.RMSprop(far, TINY, **values), X0)
    np.testing.assert_allclose(found.fixed_point.X, frozen.mean, rtol=1e-6)

    problem, sigma = Quadratic([0.8, 0.8]), np.array([1.3, 1.3])
    decay = {"weight_decay": 0.5, "l2_regularization": 0.0}
    oracle = GaussianNoise(problem, sigma)
    found = linearize(sdes.RMSprop(oracle, 0.1, **{**values, **decay}), X0)
    loss = theory.adaptive.stationary_loss(problem, sigma**2, 0.1, **decay)
    level = theory.adaptive.loss_level(
        learning_rate=0.1, mu=0.8, hessian_trace=1.6, sigma=1.3, smoothness=0.8, **decay
    )
    np.testing.assert_allclose(found.expected(problem.loss), loss, rtol=1e-6)
    np.testing.assert_allclose(loss, level, rtol=1e-12)


def test_moving_averages():
    """m and v at a gradient that stays where it is: x moves with η = 1e-9."""
    b1, b2 = 0.8, 0.9
    problem = Quadratic(LAM, [1.0, -2.0])
    values = {"b1": b1, "b2": b2, "eps": 0.0, "weight_decay": 2.0, "l2_regularization": 0.0}
    process = optimizer(optimizers.adam, GaussianNoise(problem, SCALE), 1e-9, **values)
    found = linearize(process, X0)
    a = np.asarray(problem.gradient(found.fixed_point.x))
    assert np.all(np.abs(a) > 0.3)
    C = found.covariance
    for i in range(2):
        law = theory.adaptive.constant_gradient_moments(
            10_000, gradient=a[i], variance=SCALE[i] ** 2, b1=b1, b2=b2
        )
        m, v = 2 + i, 4 + i
        assert C[m, m] == pytest.approx(law.m_variance, rel=1e-6)
        assert C[v, v] == pytest.approx(law.v_variance, rel=1e-6)
        assert C[m, v] == pytest.approx(law.covariance, rel=1e-6)


@pytest.mark.slow
def test_batch_equivalent_regime():
    eta, t = 0.1, np.array(400.0)
    common = {"eps": 1e-2}
    rmsprop = linearize(sdes.BatchEquivalentRMSprop(INDEPENDENT, eta, 0.99, **common), X0)
    law = theory.adaptive.batch_equivalent_rmsprop_moments(
        DIAGONAL, SCALE**2, eta, X0, t, decay=0.99, **common
    )
    close(rmsprop.position_covariance, law.covariance)
    adam = linearize(sdes.BatchEquivalentAdam(INDEPENDENT, eta, 0.97, 0.99, **common), X0)
    law = theory.adaptive.batch_equivalent_adam_moments(
        DIAGONAL, SCALE**2, eta, X0, t, b1=0.97, b2=0.99, t0=0.01, **common
    )
    close(adam.position_covariance, law.x.covariance)
    close(adam.covariance[2:4, 2:4], law.m.covariance)
    cross = np.diag(adam.covariance[:2, 2:4])
    scale = np.sqrt(np.diag(law.x.covariance) * np.diag(law.m.covariance))
    np.testing.assert_allclose(cross / scale, law.cross_covariance / scale, atol=1e-6)
