"""The fitted order: closed forms without noise, and coverage of its interval."""

import numpy as np
import pytest

from jaxsde import InputError, theory
from jaxsde.analysis import fit_order
from jaxsde.analysis.weak_error import _study
from jaxsde.analysis.weak_error._order import paths_for
from jaxsde.problems import Quadratic

STEPS = np.array([10, 14, 20, 28, 40, 56])


def quadratic_errors(h, order):
    """E f of SGD less that of its SDE at t = 1, exactly."""
    problem, variance = Quadratic(np.array([1.0, 2.0])), np.array([0.25, 0.25])

    def loss(eta, law, order):
        moments = theory.gradient_descent.moments(
            problem, variance, eta, np.ones(2), np.array([1.0]), law, order
        )
        return theory.expected_loss(problem, moments)[0]

    return np.array([loss(eta, theory.discrete, 1) - loss(eta, theory.sde, order) for eta in h])


@pytest.mark.parametrize("order", [1, 2])
def test_exact_errors_of_sgd_have_the_order_of_its_sde(order):
    h = 1 / STEPS
    found = fit_order(h, quadratic_errors(h, order))
    assert found.lower < order < found.upper
    assert found.upper - found.lower < 0.1
    assert found.whole() == order
    # the plain slope, by contrast, is off by more than that interval
    slope = np.polyfit(np.log(h), np.log(np.abs(quadratic_errors(h, order))), 1)[0]
    assert not found.lower < slope < found.upper


def test_the_wrong_sde_is_found_out():
    h = 1 / STEPS
    mixed = quadratic_errors(h, 2) + 0.02 * quadratic_errors(h, 1)  # 2 % of a first-order term
    found = fit_order(h, mixed)
    assert found.whole() != 2


@pytest.mark.parametrize(
    "error", [lambda h: h * np.exp(-2 * h), lambda h: np.sin(2 * h), lambda h: h / (1 + 2 * h)]
)
@pytest.mark.parametrize("relative", [1e-3, 1e-2])
def test_the_interval_covers_the_order(error, relative):
    """100 repeats; at 95 % fewer than 88 cover with probability 0.002, and truncation adds."""
    rng, h = np.random.default_rng(0), 1 / STEPS
    e = error(h)
    covered = 0
    for _ in range(100):
        found = fit_order(h, e + relative * e * rng.normal(size=h.size), relative * np.abs(e))
        covered += found.lower <= 1 <= found.upper
    assert covered >= 88


def test_weights_are_derivatives():
    h = 1 / STEPS
    e, s = h * np.exp(-h), 1e-3 * h
    found, moved = fit_order(h, e, s), np.empty(h.size)
    for i in range(h.size):
        up, down = (fit_order(h, e + sign * 1e-7 * np.eye(h.size)[i], s) for sign in (1, -1))
        moved[i] = (up.value - down.value) / 2e-7
    np.testing.assert_allclose(found.weights, moved, rtol=2e-2, atol=1e-2 * np.abs(moved).max())


def test_points_that_do_not_lie_on_the_curve_widen_the_interval():
    h = 1 / STEPS
    e = h * (1 + 0.05 * (-1.0) ** np.arange(h.size))
    found = fit_order(h, e, 1e-4 * h)
    assert found.poor_fit
    assert found.upper - found.lower > 0.1


def test_paths_give_the_width_at_the_least_cost():
    h = 1 / STEPS
    e, deviation, cost = h * np.exp(-h), np.full(h.size, 0.02), STEPS.astype(float)
    n = paths_for(0.1, h, e, deviation, cost, 0.95)
    found = fit_order(h, e, deviation / np.sqrt(n))
    assert found.upper - found.lower == pytest.approx(0.1, rel=0.1)
    even = np.full(h.size, np.sum(cost * n) / cost.sum())  # the same cost, spread evenly
    other = fit_order(h, e, deviation / np.sqrt(even))
    assert other.upper - other.lower > found.upper - found.lower


@pytest.mark.parametrize(
    ("steps", "errors", "words"),
    [
        ([0.1, 0.2], [1.0, 2.0], "three or more"),
        ([0.1, 0.1, 0.2], [1.0, 1.0, 2.0], "different"),
        ([0.1, 0.2, 0.3], [1.0, np.nan, 2.0], "finite"),
        ([-0.1, 0.2, 0.3], [1.0, 2.0, 3.0], "steps"),
    ],
)
def test_bad_points_are_refused(steps, errors, words):
    with pytest.raises(InputError, match=words):
        fit_order(steps, errors, np.full(len(steps), 0.1))


def test_extrapolation_and_its_last_correction():
    """Of a(h) = 1 + 2 h + 3 h² at h = 1, 1/2, 1/4; without h = 1 it is 2 a(1/4) - a(1/2) = 5/8."""
    a = np.array([6.0, 2.75, 1.6875])
    assert _study.extrapolation(3) @ a == pytest.approx(1)
    assert _study._difference(3) @ [7, *a] == pytest.approx(6)
    assert _study._correction(3) @ [7, *a] == pytest.approx(1 - 5 / 8)


def test_what_independent_runs_would_give_is_split_at_best():
    """Variances 1 and 4 at costs 1 and 4: (1 + 4)²/cost, found here by trying all splits."""
    sample = _study.Sample(np.zeros(3), np.diag([1.0, 9.0, 9.0, 4.0]), 10, np.zeros((4, 1)))
    cost = 10 * (1 + 1 + 2 + 4)
    share = np.linspace(0.001, 0.999, 999)
    tried = np.sqrt(1 / (share * cost) + 4 / ((1 - share) * cost / 4))
    assert _study._independent(sample, [1, 2, 4]) == pytest.approx(tried.min(), rel=1e-5)
