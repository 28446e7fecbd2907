"""Noise in the coupling of a bilinear game: second moments, intervals and best values of ρ."""

import functools
import itertools

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.theory import minimax

ETA, LAM, SIGMA = 0.125, 1.5, 0.75
STEPS = {theory.discrete: ETA, theory.em(0.0625): 0.0625, theory.sde: 0.0}
METHODS = [
    minimax.sgda(),
    minimax.seg(0.5),
    minimax.seg(0.5, independent=True),
    minimax.seg(-0.25, independent=True),
    minimax.shgd(),
    minimax.shgd(batches=2),
]
FIGURE = {"coupling": 2.0, "sigma": 1.0}
MEASURED = {0.0: -0.05, 0.5: 3.963, 1.0: 8.01, 2.0: 16.20}


@functools.cache
def jacobians(d, degree, shared):
    """J_c and its weights, on a grid exact up to this degree in every normal (1 or 4)."""
    nodes, weights = (
        ([-1, 1], [0.5, 0.5]) if degree == 1 else ([-(3**0.5), 0, 3**0.5], [1 / 6, 2 / 3, 1 / 6])
    )
    count = d * d if shared else 2 * d * d
    Xi = np.array(list(itertools.product(nodes, repeat=count))).reshape(-1, count // d**2, d, d)
    weight = np.array(list(itertools.product(weights, repeat=count))).prod(-1)
    Lam_x, Lam_y = LAM * np.eye(d) + SIGMA * Xi[:, 0], LAM * np.eye(d) + SIGMA * Xi[:, -1]
    zero = np.zeros_like(Lam_x)
    return np.block([[zero, Lam_x], [-np.swapaxes(Lam_y, 1, 2), zero]]), weight


def step_moments(method, d, shared):
    """E G and E GᵀG of the step z⁺ = z - η G z, by enumerating one or two batches."""

    def G(J_1, J_2):
        if method.rho is None:
            return (np.swapaxes(J_1, 1, 2) @ J_2 + np.swapaxes(J_2, 1, 2) @ J_1) / 2
        return J_1 @ (np.eye(2 * d) - method.rho * J_2)

    J, weight = jacobians(d, 1 if method.independent else 4, shared)
    mean = square = np.zeros((2 * d, 2 * d))
    for one, p in zip(J, weight, strict=True) if method.independent else [(J, 1)]:
        each = G(J, np.broadcast_to(one, J.shape))
        mean = mean + p * np.einsum("n,nij->ij", weight, each)
        square = square + p * np.einsum("n,nji,njk->ik", weight, each, each)
    return mean, square


@pytest.mark.parametrize(("d", "shared"), [(1, True), (1, False), (2, True), (2, False), (3, True)])
@pytest.mark.parametrize("method", METHODS)
def test_rates_by_enumerating_the_noise(method, d, shared):
    """κ |z|² = 2 zᵀ E G z - h |E G z|² - η tr Cov(G z), for every z."""
    mean, square = step_moments(method, d, shared)
    if not shared and method == minimax.seg(0.5):
        method = minimax.seg(0.5, independent=True)
    for law, h in STEPS.items():
        K = mean + mean.T - h * mean.T @ mean - ETA * (square - mean.T @ mean)
        kappa = minimax.multiplicative_rate(
            ETA, law, coupling=LAM, sigma=SIGMA, method=method, dimension=d
        )
        np.testing.assert_allclose(K, kappa * np.eye(2 * d), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_half_squares_follow_the_rates(method):
    coupling, t = np.array([1.0, 1.5, -2.0]), np.array([[0.0], [2.0]])
    pair = {"coupling": coupling, "sigma": SIGMA, "method": method}
    b = np.array([0.5, 0.0, 2.0])
    for law, h in STEPS.items():
        kappa = minimax.multiplicative_rate(ETA, law, **pair)
        found = minimax.multiplicative_half_square(b, t, ETA, law, **pair)
        assert found.shape == (2, 1, 3)
        factor = (1 - h * kappa) ** round(2 / h) if h else np.exp(-2 * kappa)
        np.testing.assert_allclose(found[:, 0], [b, b * factor], rtol=1e-12)


def test_published_rates_by_hand():
    """λ = 2, σ = 1, η = 0.01: ρ = 0.5, 1, 2 and SHGD; simulations to 0.5 %."""
    for rho, expected in [(0.0, -0.01), (0.5, 3.9675), (1.0, 7.9), (2.0, 15.63)]:
        method = minimax.seg(rho, independent=True)
        assert minimax.multiplicative_rate(0.01, **FIGURE, method=method) == pytest.approx(expected)
        kappa = minimax.multiplicative_rate(0.01, theory.discrete, **FIGURE, method=method)
        assert -np.log1p(-0.01 * kappa) / 0.01 == pytest.approx(MEASURED[rho], rel=5e-3)
    method = minimax.shgd(2)
    assert minimax.multiplicative_rate(0.01, **FIGURE, method=method) == pytest.approx(7.91)
    kappa = minimax.multiplicative_rate(0.01, theory.discrete, **FIGURE, method=method)
    assert -np.log1p(-0.01 * kappa) / 0.01 == pytest.approx(8.07, rel=5e-3)
    for rho, same in [(1.0, 2 * 5 - 0.01 * (1 + 18)), (0.25, 2 * 0.25 * 5 - 0.01 * (1 + 18 / 16))]:
        found = minimax.multiplicative_rate(0.01, **FIGURE, method=minimax.seg(rho))
        assert found == pytest.approx(same, rel=1e-12)


def test_published_interval_and_the_true_one():
    interval = functools.partial(minimax.multiplicative_stable_rho, 0.01, **FIGURE)
    found = interval(independent=True)
    np.testing.assert_allclose(found, [0.00125, 88.9], rtol=2e-3)
    m, root = 9, np.sqrt(16 - 0.01**2 * 9)
    np.testing.assert_allclose(found, [(4 - root) / (0.01 * m), (4 + root) / (0.01 * m)], rtol=1e-9)
    np.testing.assert_allclose(
        interval(theory.discrete, independent=True), [0.00625, 32.0], rtol=2e-3
    )
    best = functools.partial(minimax.multiplicative_best_rho, 0.01, **FIGURE, independent=True)
    assert best() == pytest.approx(4 / (0.01 * m))
    assert best(theory.discrete) == pytest.approx(4 / (0.01 * 25))


@pytest.mark.parametrize("law", STEPS)
@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("d", [1, 3])
def test_intervals_and_best_rho_by_search(law, independent, d):
    constants = {"coupling": LAM, "sigma": SIGMA, "dimension": d}

    def kappa(rho):
        method = minimax.seg(rho, independent)
        return float(minimax.multiplicative_rate(ETA, law, **constants, method=method))

    constants_rho = constants | {"independent": independent}
    low, high = minimax.multiplicative_stable_rho(ETA, law, **constants_rho)
    assert kappa(low) == pytest.approx(0, abs=1e-12)
    assert kappa(high) == pytest.approx(0, abs=1e-11)
    best = minimax.multiplicative_best_rho(ETA, law, **constants_rho)
    search = minimize_scalar(lambda rho: -kappa(rho), bounds=(low, high), options={"xatol": 1e-9})
    assert best == pytest.approx(search.x, abs=1e-6)
    assert kappa(best) > 0


def test_what_does_not_converge_is_refused():
    with pytest.raises(InputError, match="no rho is stable"):
        minimax.multiplicative_stable_rho(1.0, coupling=1.0, sigma=1.0)
    with pytest.raises(InputError, match="no rho is stable"):
        minimax.multiplicative_best_rho(1.0, theory.discrete, coupling=1.0, sigma=0.5)
    with pytest.raises(InputError, match="must be numbers here"):
        minimax.multiplicative_best_rho(ETA, coupling=np.ones(2), sigma=1.0)
    with pytest.raises(InputError, match="sigma must be positive"):
        minimax.multiplicative_rate(ETA, coupling=1.0, sigma=0.0, method=minimax.shgd())
    with pytest.raises(InputError, match="dimension must be a whole number"):
        minimax.multiplicative_rate(ETA, **FIGURE, method=minimax.shgd(), dimension=0)
    with pytest.raises(InputError, match="method must be"):
        minimax.multiplicative_rate(ETA, **FIGURE, method="shgd")
