import numpy as np
import pytest
from scipy.integrate import quad

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import _laws

RATES = np.array([-9.0, -4.0, -2.5, -0.3, -1e-9, 0.0, 1e-9, 0.7, 3.0])
STEP = 0.25  # 1 + h r is negative at -9, zero at -4


@pytest.mark.parametrize("steps", [0, 1, 2, 7])
def test_affine_recursion_by_looping(steps):
    unit, sourced = np.ones_like(RATES), np.zeros_like(RATES)
    for _ in range(steps):
        unit = (1 + STEP * RATES) * unit
        sourced = (1 + STEP * RATES) * sourced + STEP
    t = np.array(steps * STEP)
    np.testing.assert_allclose(_laws.growth(RATES, t, STEP), unit, rtol=1e-13)
    np.testing.assert_allclose(_laws.accumulated(RATES, t, STEP), sourced, rtol=1e-13)


def test_affine_recursion_in_continuous_time_by_quadrature():
    t = 1.75
    integral = [quad(lambda s, r=r: np.exp(r * s), 0, t, epsabs=1e-14)[0] for r in RATES]
    np.testing.assert_allclose(_laws.growth(RATES, np.array(t), 0), np.exp(RATES * t), rtol=1e-14)
    np.testing.assert_allclose(_laws.accumulated(RATES, np.array(t), 0), integral, rtol=1e-12)


@pytest.mark.parametrize("step", [0.0, 1e-3])
@pytest.mark.parametrize("rate", [1e-300, -1e-13, 1e-8])
def test_small_rates_lose_no_digits(rate, step):
    t = np.array(2.0)
    second_order = t + rate * t * (t - step) / 2
    accumulated = _laws.accumulated(np.array(rate), t, step)
    np.testing.assert_allclose(accumulated, second_order, rtol=1e-13)


def test_em_tends_to_the_sde_at_order_one():
    t, r = np.array(1.0), np.array(-1.5)
    error = [
        _laws.accumulated(r, t, theory.em(dt).step) - _laws.accumulated(r, t, theory.sde.step)
        for dt in (1e-3, 5e-4)
    ]
    np.testing.assert_allclose(error[0] / error[1], 2, rtol=2e-3)


def test_expected_loss_averages_the_loss_over_points_of_those_moments():
    H = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.25], [0.0, -0.25, -0.5]])
    minimizer = np.array([0.5, -1.0, 0.25])
    means = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])
    roots = np.array([np.diag([1.0, 2.0, 0.5]), [[1.0, 0, 0], [0.5, 0.5, 0], [1.0, -1.0, 2.0]]])
    moments = theory.Moments(means, roots @ np.swapaxes(roots, 1, 2))
    averages = []
    for mean, root in zip(means, roots, strict=True):
        spread = np.sqrt(3) * root.T  # mean ± √d (columns of the root) has these two moments
        y = np.concatenate([mean + spread, mean - spread]) - minimizer
        averages.append(np.mean([v @ H @ v / 2 for v in y]))
    loss = theory.expected_loss(Quadratic(H, minimizer), moments)
    np.testing.assert_allclose(loss, averages, rtol=1e-12)


def test_expected_loss_of_a_diagonal_hessian_at_one_time():
    moments = theory.Moments(np.array([1.0, 3.0]), np.diag([0.5, 0.25]))
    loss = theory.expected_loss(Quadratic(np.array([2.0, 4.0]), 1.0), moments)
    np.testing.assert_allclose(loss, (2 * 0.5 + 4 * (4 + 0.25)) / 2)


def test_bad_laws_and_times_are_refused():
    with pytest.raises(InputError, match="dt must be positive"):
        theory.em(0.0)
    with pytest.raises(InputError, match="law must be"):
        _laws.step_size("sde", 0.1)
    with pytest.raises(InputError, match="learning_rate"):
        _laws.step_size(theory.sde, -0.1)
    with pytest.raises(InputError, match="multiples of the step"):
        _laws.growth(RATES[:1], np.array([0.1, 0.15]), 0.1)
    with pytest.raises(InputError, match="not negative"):
        _laws.times([-1.0])
    with pytest.raises(InputError, match="not negative"):
        _laws.times([np.inf])


def test_times_in_float32_are_multiples_still():
    t = np.float32(0.01) * np.arange(10_000, dtype=np.float32)
    np.testing.assert_array_equal(_laws.step_count(_laws.times(t), 0.01), np.arange(10_000))
