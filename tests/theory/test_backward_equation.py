import numpy as np
import pytest
from scipy.special import erf, ndtr
from scipy.stats import norm

from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import sign
from jaxsde.theory.backward_equation import expectation

RATE, NOISE, TIME = 1.3, 0.6, 0.9
STARTS = np.array([-1.0, 0.0, 0.5, 2.0])
MEAN = np.exp(-RATE * TIME) * STARTS
VARIANCE = NOISE**2 * (1 - np.exp(-2 * RATE * TIME)) / (2 * RATE)


def ornstein_uhlenbeck(observable, **settings):
    return expectation(
        observable,
        lambda x: -RATE * x,
        lambda x: np.full_like(x, NOISE),
        STARTS,
        TIME,
        **({"domain": (-8, 8)} | settings),
    )


@pytest.mark.parametrize(
    ("observable", "exact"),
    [
        (lambda x: x, MEAN),
        (lambda x: x**2, MEAN**2 + VARIANCE),
        (np.cos, np.cos(MEAN) * np.exp(-VARIANCE / 2)),
    ],
)
def test_ornstein_uhlenbeck(observable, exact):
    np.testing.assert_allclose(ornstein_uhlenbeck(observable), exact, atol=1e-10, rtol=0)


def test_jumps_and_kinks_in_the_middle_of_the_domain():
    z = MEAN / np.sqrt(VARIANCE)
    positive = ornstein_uhlenbeck(lambda x: np.heaviside(x, 0.5), tolerance=1e-6)
    np.testing.assert_allclose(positive, ndtr(z), atol=1e-6, rtol=0)
    kinked = ornstein_uhlenbeck(lambda x: np.maximum(x, 0), tolerance=1e-6)
    exact = MEAN * ndtr(z) + np.sqrt(VARIANCE) * norm.pdf(z)
    np.testing.assert_allclose(kinked, exact, atol=1e-6, rtol=0)


def test_multiplicative_noise_and_growth():
    """Geometric Brownian motion: E X² = x₀² e^((2b + s²) T)."""
    second = expectation(
        np.square, lambda x: 0.2 * x, lambda x: 0.3 * x, np.array([0.5, 1.0]), 1.0, domain=(0, 16)
    )
    np.testing.assert_allclose(second, np.array([0.25, 1.0]) * np.exp(0.49), rtol=1e-7)


def test_ends_reflect():
    """Drift D' for D = s²/2 makes the stationary law on [0, 1] uniform."""
    mean_square = expectation(
        np.square,
        lambda x: np.full_like(x, 0.5),
        lambda x: np.sqrt(1 + x),
        np.array([0.0, 0.3, 1.0]),
        8.0,
        domain=(0, 1),
        tolerance=1e-9,
    )
    np.testing.assert_allclose(mean_square, 1 / 3, atol=1e-9, rtol=0)


def test_starts_where_nothing_diffuses():
    """Sign descent far out is a drift of -1 with no noise; the lattice law bounds the level."""
    eta, curvature, scale = 0.02, 5.0, 0.5

    def mean_sign(x):
        return erf(curvature * x / scale / np.sqrt(2))

    loss = [
        expectation(
            lambda x: curvature * x**2 / 2,
            lambda x: -mean_sign(x),
            lambda x: np.sqrt(eta * (1 - mean_sign(x) ** 2)),
            1.0,
            time,
            domain=(-2, 2),
            tolerance=1e-5,
        )
        for time in (0.4, 4.0)
    ]
    assert loss[0] == pytest.approx(curvature * 0.6**2 / 2, rel=1e-6)  # x = 1 - t
    level = sign.stationary_variance(Quadratic([curvature]), scale, eta)[0] * curvature / 2
    assert loss[1] == pytest.approx(level, rel=0.02)  # its next order, v₀² = 0.016


def test_weak_error_of_sign_descent_is_of_order_one():
    """Exact lattice law against this solver: f = x²/2, σ = 1, x₀ = T = 1.5, no sampling."""
    learning_rates = np.array([0.1, 0.05, 0.025, 0.0125])
    observables = {"x": lambda x: x, "f": lambda x: x**2 / 2}
    error = {name: [] for name in observables}
    for eta in learning_rates:
        steps = round(1.5 / eta)
        chain = sign.lattice_moments(lambda x: x, ndtr, eta, 1.5, steps, observables)
        for name, observable in observables.items():
            sde = expectation(
                observable,
                lambda x: -erf(x / np.sqrt(2)),
                lambda x, eta=eta: np.sqrt(eta * (1 - erf(x / np.sqrt(2)) ** 2)),
                1.5,
                1.5,
                domain=(-3, 4),
                tolerance=1e-9,
            )
            error[name].append(float(sde - chain[name][-1]))
    np.testing.assert_allclose(error["x"] / learning_rates, [0.156, 0.155, 0.154, 0.154], atol=6e-4)
    np.testing.assert_allclose(error["f"] / learning_rates, [0.072, 0.077, 0.080, 0.081], atol=6e-4)
    slope = {name: np.log2(e[-2] / e[-1]) for name, e in error.items()}
    assert slope["x"] == pytest.approx(1, abs=0.005)
    assert slope["f"] == pytest.approx(1, abs=0.03)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="x0 must lie in the domain"):
        ornstein_uhlenbeck(np.cos, domain=(-1, 1))
    with pytest.raises(InputError, match="tolerance"):
        ornstein_uhlenbeck(np.cos, tolerance=0.0)
    with pytest.raises(InputError, match="not reached"):
        ornstein_uhlenbeck(lambda x: (x > 0.313) * 1.0, tolerance=1e-9)
