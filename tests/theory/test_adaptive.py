"""Stationary laws of RMSprop(W) and Adam(W)."""

import numpy as np
import pytest
import scipy.linalg

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import adaptive

# Entries that float32 holds exactly, since problems live in JAX's precision.
ETA = 0.01
LAM = np.array([2.0, 0.5, 1.0])
VARIANCE = np.array([1.0, 4.0, 0.25])
MINIMIZER = np.array([0.5, -1.0, 0.0])
CENTRED, SHIFTED = Quadratic(LAM), Quadratic(LAM, MINIMIZER)
DECAYS = [
    {},
    {"weight_decay": 1.5},
    {"l2_regularization": 0.75},
    {"weight_decay": 0.5, "l2_regularization": 2.0},
]


def optimizer_moments(problem, variance, second_moment, b1=0.0, eps=0.0, eta=ETA, **decays):
    """Stationary E x, Var x and E g² of the optimizer with v frozen, by doubling its recursion.

    z = (1, x, m): m⁺ = β₁ m + (1 - β₁)(λ (x - x*) + θ₂ x + Z), then x⁺ with the new m.
    """
    theta, l2 = decays.get("weight_decay", 0.0), decays.get("l2_regularization", 0.0)
    found = []
    coordinates = zip(
        LAM, np.asarray(problem.minimizer, float), variance, second_moment, strict=True
    )
    for lam, minimizer, s2, v in coordinates:
        p = 1 / (np.sqrt(v) + eps)
        momentum = np.array([-(1 - b1) * lam * minimizer, (1 - b1) * (lam + l2), b1])
        position = np.array([0.0, 1 - eta * theta, 0.0]) - eta * p * momentum
        F = np.array([[1.0, 0.0, 0.0], position, momentum])
        noise = (1 - b1) * np.array([0.0, -eta * p, 1.0])
        second, power, source = np.diag([1.0, 0.0, 0.0]), F, s2 * np.outer(noise, noise)
        for _ in range(16):  # 2^16 steps
            source, power = source + power @ source @ power.T, power @ power
        second = power @ second @ power.T + source
        gradient = np.array([-lam * minimizer, lam + l2, 0.0])
        mean = second[0, 1]
        found.append([mean, second[1, 1] - mean**2, gradient @ second @ gradient + s2])
    return np.array(found).T


@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize("b1", [0.0, 0.5, 0.9])
def test_next_order_of_the_stationary_variance(b1, decays):
    """(exact/formula - 1)/η of the frozen recursion, extrapolated to η = 0, is as documented."""
    B = 4.0
    h = (LAM + decays.get("l2_regularization", 0.0)) / np.sqrt(VARIANCE / B)
    coefficients = []
    for eta in (4e-3, 2e-3):
        _, exact, _ = optimizer_moments(CENTRED, VARIANCE / B, VARIANCE / B, b1, eta=eta, **decays)
        formula = adaptive.stationary_variance(
            CENTRED, VARIANCE, eta, b1=b1, batch_size=B, **decays
        )
        coefficients.append((exact / formula - 1) / eta)
    pull = h + decays.get("weight_decay", 0.0)
    found = 2 * coefficients[1] - coefficients[0]
    np.testing.assert_allclose(found, pull * (1 - b1) / (2 * (1 + b1)), rtol=0.02, atol=2e-3)


def test_momentum_is_missing_in_the_published_variance():
    """Relative error of the printed law, and of the corrected one, at λ = σ = 1, η = 0.01."""
    problem, found = Quadratic(np.ones(1)), []
    for theta, b1 in [(1.0, 0.9), (1.0, 0.98), (4.0, 0.98)]:
        F = np.array([[1 - ETA * theta - ETA * (1 - b1), -ETA * b1], [1 - b1, b1]])
        noise = (1 - b1) * np.array([-ETA, 1.0])
        exact = scipy.linalg.solve_discrete_lyapunov(F, np.outer(noise, noise))[0, 0]
        laws = [
            adaptive.stationary_variance(
                problem, 1.0, ETA, b1=b1, weight_decay=theta, published=published
            )[0]
            for published in (True, False)
        ]
        found.append(exact / np.array(laws) - 1)
    np.testing.assert_allclose(np.array(found)[:, 0], [-0.082, -0.329, -0.662], atol=1e-3)
    np.testing.assert_allclose(np.array(found)[:, 1], 0, atol=1e-3)


def test_published_variance_is_the_lemma():
    """(η/2) (H Σ^(-1/2) + θ)⁻¹, and without decay (η/2) Σ^(1/2) H⁻¹."""
    law = adaptive.stationary_variance(
        CENTRED, VARIANCE, ETA, b1=0.9, weight_decay=1.5, published=True
    )
    np.testing.assert_allclose(law, ETA / 2 / (LAM / np.sqrt(VARIANCE) + 1.5), rtol=1e-12)
    for b1 in (0.0, 0.9):
        law = adaptive.stationary_variance(CENTRED, VARIANCE, ETA, b1=b1)
        np.testing.assert_allclose(law, ETA / 2 * np.sqrt(VARIANCE) / LAM, rtol=1e-12)


@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize("b1", [0.0, 0.9])
def test_stationary_mean_is_where_the_optimizer_rests(b1, decays):
    found = adaptive.stationary_mean(SHIFTED, VARIANCE, batch_size=4, **decays)
    mean, _, _ = optimizer_moments(SHIFTED, VARIANCE / 4, VARIANCE / 4, b1, **decays)
    np.testing.assert_allclose(found, mean, rtol=1e-10)


@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize("published", [False, True])
def test_stationary_loss_is_the_mean_loss(decays, published):
    moments = theory.Moments(
        adaptive.stationary_mean(SHIFTED, VARIANCE, batch_size=4, **decays),
        np.diag(
            adaptive.stationary_variance(
                SHIFTED, VARIANCE, ETA, b1=0.9, batch_size=4, published=published, **decays
            )
        ),
    )
    found = adaptive.stationary_loss(
        SHIFTED, VARIANCE, ETA, b1=0.9, batch_size=4, published=published, **decays
    )
    assert found == pytest.approx(float(theory.expected_loss(SHIFTED, moments)), rel=1e-12)


def test_flat_and_concave_directions_rest_by_decay():
    problem = Quadratic(np.array([0.0, -0.5]))
    found = adaptive.stationary_variance(problem, 1.0, ETA, weight_decay=1.0)
    np.testing.assert_allclose(found, ETA / 2 / np.array([1.0, 0.5]), rtol=1e-12)
    frozen = adaptive.frozen_second_moment_law(problem, 1.0, ETA, weight_decay=1.0)
    np.testing.assert_allclose(frozen.variance, found, rtol=5e-3)


SETTINGS = [
    {"b1": b1, "eps": eps, **decays}
    for (b1, eps), decays in zip(
        [(0.0, 0.0), (0.9, 0.25), (0.5, 0.0)] * 2, DECAYS[1:] * 2, strict=True
    )
] + [{}, {"b1": 0.9}]


@pytest.mark.parametrize("settings", SETTINGS)
def test_frozen_law_of_the_algorithm_by_its_recursion(settings):
    found = adaptive.frozen_second_moment_law(
        SHIFTED, VARIANCE, ETA, theory.discrete, batch_size=0.5, **settings
    )
    mean, variance, square = optimizer_moments(
        SHIFTED, VARIANCE / 0.5, found.second_moment, **settings
    )
    np.testing.assert_allclose(found.mean, mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-9)
    np.testing.assert_allclose(found.second_moment, square, rtol=1e-9)


def chain(lam, noise, p, theta, b1, published):
    """Drift matrix and noise vector of (x, m) under Adam's SDE, as its equations are written."""
    rho, root = (1 - b1) / ETA, np.sqrt(ETA)
    gradient, x, m = lam * np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    dm, dm_noise = rho * (gradient - m), root * rho * noise
    dx = -p * (m + ETA * rho * (gradient - m)) - theta * x
    dx_noise = 0.0 if published else -p * ETA * rho * root * noise
    return np.array([dx, dm]), np.array([dx_noise, dm_noise])


@pytest.mark.parametrize("dt", [0.0, 0.3 * ETA, ETA])
@pytest.mark.parametrize("published", [False, True])
def test_frozen_law_of_adams_sde_by_lyapunov(published, dt):
    theta, l2, eps, b1 = 0.5, 0.25, 0.125, 0.9
    law = theory.em(dt) if dt else theory.sde
    found = adaptive.frozen_second_moment_law(
        SHIFTED,
        VARIANCE,
        ETA,
        law,
        b1=b1,
        eps=eps,
        weight_decay=theta,
        l2_regularization=l2,
        published=published,
    )
    for i in range(3):
        p = 1 / (np.sqrt(found.second_moment[i]) + eps)
        A, b = chain(LAM[i] + l2, np.sqrt(VARIANCE[i]), p, theta, b1, published)
        if dt:
            C = scipy.linalg.solve_discrete_lyapunov(np.eye(2) + dt * A, dt * np.outer(b, b))
        else:
            C = scipy.linalg.solve_continuous_lyapunov(A, -np.outer(b, b))
        assert found.variance[i] == pytest.approx(C[0, 0], rel=1e-9)
    gradient = LAM * (found.mean - MINIMIZER) + l2 * found.mean
    rest = -gradient / (np.sqrt(found.second_moment) + eps) - theta * found.mean
    np.testing.assert_allclose(rest, 0, atol=1e-12)
    square = VARIANCE + gradient**2 + (LAM + l2) ** 2 * found.variance
    np.testing.assert_allclose(found.second_moment, square, rtol=1e-12)


@pytest.mark.parametrize("b1", [0.0, 0.9])
def test_one_euler_step_of_the_sde_is_the_algorithm(b1):
    settings = {"b1": b1, "weight_decay": 0.5, "eps": 0.125}
    euler = adaptive.frozen_second_moment_law(SHIFTED, VARIANCE, ETA, theory.em(ETA), **settings)
    exact = adaptive.frozen_second_moment_law(SHIFTED, VARIANCE, ETA, theory.discrete, **settings)
    for found, expected in zip(euler, exact, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_frozen_law_of_adams_sde_in_closed_form():
    theta, b1 = 0.5, 0.9
    for published in (False, True):
        found = adaptive.frozen_second_moment_law(
            CENTRED, VARIANCE, ETA, b1=b1, weight_decay=theta, published=published
        )
        p, rho = found.second_moment**-0.5, (1 - b1) / ETA
        H = p * LAM
        share = b1**2 if published else 1 + ETA * (1 - b1) * (H + theta)
        closed = ETA / 2 / (H + theta) * p**2 * VARIANCE * share / (1 + theta / rho + ETA * H)
        np.testing.assert_allclose(found.variance, closed, rtol=1e-11)


@pytest.mark.parametrize(
    ("b1", "eta", "without", "with_"),
    [(0.9, 1e-3, 0.809, 0.999), (0.99, 1e-3, 0.979, 0.999), (0.9, 1e-2, 0.802, 0.991)],
)
def test_published_adam_lacks_noise(b1, eta, without, with_):
    """Var x of the SDEs over the algorithm's, at λ = σ = 1."""
    problem = Quadratic(np.ones(1))
    exact = adaptive.frozen_second_moment_law(problem, 1.0, eta, theory.discrete, b1=b1).variance
    literal = adaptive.frozen_second_moment_law(problem, 1.0, eta, b1=b1, published=True).variance
    matched = adaptive.frozen_second_moment_law(problem, 1.0, eta, b1=b1).variance
    assert literal / exact == pytest.approx(without, abs=1e-3)
    assert matched / exact == pytest.approx(with_, abs=1e-3)


@pytest.mark.parametrize(
    ("b1", "law", "coefficient"),
    [
        (0.0, theory.sde, -1 / 4),
        (0.0, theory.discrete, -1 / 4 + 1 / 2),
        (0.9, theory.discrete, -1 / 4 + 1 / 38),
    ],
)
def test_gradients_in_v_and_steps_move_the_frozen_variance(b1, law, coefficient):
    """By the coefficient times η λ/σ, relative to the leading order."""
    eta, problem = 1e-5, Quadratic(np.array([2.0]))
    found = adaptive.frozen_second_moment_law(problem, 0.25, eta, law, b1=b1).variance[0]
    leading = adaptive.stationary_variance(problem, 0.25, eta, b1=b1)[0]
    assert (found / leading - 1) / (eta * 2 / 0.5) == pytest.approx(coefficient, rel=1e-3)


def test_gradients_in_v_keep_long_steps_stable():
    """At η λ/σ = 4 the chain with V = σ² diverges; its own V is above."""
    found = adaptive.frozen_second_moment_law(Quadratic(np.ones(1)), 1.0, 4.0, theory.discrete)
    V = found.second_moment[0]
    assert 4 / np.sqrt(V) < 2
    assert found.variance[0] == pytest.approx((4**2 / V) / (1 - (1 - 4 / np.sqrt(V)) ** 2))
    assert V == pytest.approx(1 + found.variance[0], rel=1e-12)


def test_what_has_no_law_is_refused():
    for law in (adaptive.stationary_variance, adaptive.frozen_second_moment_law):
        with pytest.raises(InputError, match="no stationary law"):
            law(Quadratic(np.array([1.0, 0.0])), 1.0, ETA)
        with pytest.raises(InputError, match="no stationary law"):
            law(Quadratic(np.array([1.0, -1.0])), 1.0, ETA, b1=0.9)
        with pytest.raises(InputError, match="diagonal hessian"):
            law(Quadratic(np.eye(2)), 1.0, ETA)
        with pytest.raises(InputError, match="variance must be a scalar"):
            law(CENTRED, np.ones(2), ETA)
        with pytest.raises(InputError, match="variance must be positive"):
            law(CENTRED, 0.0, ETA)
        with pytest.raises(InputError, match="learning_rate"):
            law(CENTRED, 1.0, 0.0)
        with pytest.raises(InputError, match="b1"):
            law(CENTRED, 1.0, ETA, b1=1.0)
        for name in ("weight_decay", "l2_regularization"):
            with pytest.raises(InputError, match=name):
                law(CENTRED, 1.0, ETA, **{name: -0.1})
        with pytest.raises(InputError, match="batch_size"):
            law(CENTRED, 1.0, ETA, batch_size=0)
    with pytest.raises(InputError, match="no stationary law"):
        adaptive.stationary_mean(Quadratic(np.array([-1.0])), 1.0)
    with pytest.raises(InputError, match="no stationary law: the chain is unstable"):
        adaptive.frozen_second_moment_law(CENTRED, 1.0, ETA, theory.discrete, weight_decay=201.0)
    with pytest.raises(InputError, match="unstable"):
        adaptive.frozen_second_moment_law(CENTRED, 1.0, ETA, theory.em(0.3), b1=0.9)
    with pytest.raises(InputError, match="published"):
        adaptive.frozen_second_moment_law(CENTRED, 1.0, ETA, theory.discrete, published=True)
    with pytest.raises(InputError, match="eps"):
        adaptive.frozen_second_moment_law(CENTRED, 1.0, ETA, eps=-1e-8)
    with pytest.raises(InputError, match="law must be"):
        adaptive.frozen_second_moment_law(CENTRED, 1.0, ETA, "sde")
