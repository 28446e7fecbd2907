"""DSGD and DCSGD on quadratics: moments, stationary laws, stability."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.special
from scipy.integrate import solve_ivp

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import distributed
from jaxsde.theory import gradient_descent as gd

ETA = 0.125
X0 = np.array([1.25, -1.0, 0.5])
MINIMIZER = np.array([0.5, 0.0, -1.0])
FULL = np.array([[2.0, 0.5, -0.75], [0.5, 1.0, 0.25], [-0.75, 0.25, 1.5]])
ROOTS = np.array(  # Σᵢ = Aᵢ Aᵢᵀ for two agents, with two directions of noise each
    [[[1.0, 0.25], [0.5, -1.0], [0.0, 0.75]], [[0.5, 0.0], [-0.25, 0.5], [1.5, 1.0]]]
)
SIGMAS = ROOTS @ np.swapaxes(ROOTS, 1, 2)
LAWS = [theory.discrete, theory.em(0.0625), theory.sde]


def masks(d, omega, fixed_count):
    """The diagonal of C as (probability, values): every set of kept coordinates."""
    for kept in itertools.product([0, 1], repeat=d):
        values = np.array(kept) * (1 + omega)
        if not fixed_count:
            p = 1 / (1 + omega)
            yield p ** sum(kept) * (1 - p) ** (d - sum(kept)), values
        elif sum(kept) == round(d / (1 + omega)):
            yield 1 / scipy.special.comb(d, sum(kept)), values


def by_enumeration(H, omegas, fixed_count, steps):
    """E y and E y yᵀ of the algorithm: all masks and all signs of the noise, for two agents."""
    y, weight = (X0 - MINIMIZER)[None], np.ones(1)
    messages = [
        [
            (p / 4, mask, ROOTS[i] @ np.array(signs))
            for p, mask in masks(3, omegas[i], fixed_count)
            for signs in itertools.product([1, -1], repeat=2)
        ]
        for i in range(2)
    ]
    for _ in range(steps):
        G = y @ H
        moved, weights = [], []
        for (p, C, z), (q, D, w) in itertools.product(*messages):
            moved.append(y - ETA / 2 * (C * (G + z) + D * (G + w)))
            weights.append(weight * p * q)
        y, weight = np.concatenate(moved), np.concatenate(weights)
    assert np.sum(weight) == pytest.approx(1)
    return weight @ y, np.einsum("n,ni,nj->ij", weight, y, y)


@pytest.mark.parametrize("H", [np.diag(FULL), FULL])
@pytest.mark.parametrize(
    ("omegas", "fixed_count"),
    [([2.0, 0.5], True), ([2.0, 2.0], True), ([0.5, 3.0], False), ([0.0, 2.0], False)],
)
def test_discrete_moments_by_enumerating_masks_and_signs(H, omegas, fixed_count):
    found = distributed.moments(
        Quadratic(H, MINIMIZER), SIGMAS, ETA, X0, [0, ETA, 2 * ETA], theory.discrete,
        agents=2, omega=omegas, fixed_count=fixed_count,
    )  # fmt: skip
    for k in range(3):
        H_matrix = np.diag(H) if H.ndim == 1 else H
        mean, second = by_enumeration(H_matrix, omegas, fixed_count, k)
        np.testing.assert_allclose(found.mean[k], MINIMIZER + mean, atol=1e-12)
        expected = second - np.outer(mean, mean)
        np.testing.assert_allclose(found.covariance[k], expected, atol=1e-12)


def message_covariance(sigma, gradient, omega, fixed_count):
    """Cov C(g) by masks: E D (Σ + G Gᵀ) D - G Gᵀ."""
    second = sigma + gradient
    kept = [p * np.outer(c, c) * second for p, c in masks(3, omega, fixed_count)]
    return np.sum(kept, axis=0) - gradient


def moment_rate(M, H, h, omegas, fixed_count):
    gradient = H @ M @ H
    each = [message_covariance(SIGMAS[i], gradient, omegas[i], fixed_count) for i in range(2)]
    return -H @ M - M @ H + h * gradient + ETA / 2 * np.mean(each, axis=0)


@pytest.mark.parametrize("H", [np.diag(FULL), FULL, FULL - 1.2 * np.eye(3)])
@pytest.mark.parametrize(("omegas", "fixed_count"), [([2.0, 0.5], True), ([0.5, 3.0], False)])
def test_sde_and_em_moments_by_brute_force(H, omegas, fixed_count):
    """The equation of E y yᵀ solved, and stepped, with covariances from the masks themselves."""
    problem, y0 = Quadratic(H, MINIMIZER), X0 - MINIMIZER
    matrix, time, dt = np.asarray(theory._laws.hessian_matrix(problem)), np.array([0.0, 3.0]), 0.25
    M = start = np.outer(y0, y0)
    for _ in range(12):
        M = M + dt * moment_rate(M, matrix, dt, omegas, fixed_count)
    solved = solve_ivp(
        lambda _, m: moment_rate(m.reshape(3, 3), matrix, 0, omegas, fixed_count).ravel(),
        (0, 3.0), start.ravel(), rtol=1e-10, atol=1e-12,
    ).y[:, -1].reshape(3, 3)  # fmt: skip
    for law, second, decay in [
        (theory.em(dt), M, np.linalg.matrix_power(np.eye(3) - dt * matrix, 12)),
        (theory.sde, solved, scipy.linalg.expm(-3 * matrix)),
    ]:
        found = distributed.moments(
            problem, SIGMAS, ETA, X0, time, law, agents=2, omega=omegas, fixed_count=fixed_count
        )
        mean = decay @ y0
        np.testing.assert_allclose(found.mean[1], MINIMIZER + mean, rtol=1e-10)
        np.testing.assert_allclose(found.covariance[1], second - np.outer(mean, mean), atol=1e-8)
        np.testing.assert_allclose(found.covariance[0], 0, atol=1e-14)


@pytest.mark.parametrize("H", [np.diag(FULL), FULL])
def test_em_tends_to_the_sde(H):
    args = Quadratic(H), SIGMAS, ETA, X0, 2.0
    options = {"agents": 2, "omega": [2.0, 0.5], "fixed_count": True}
    limit = distributed.moments(*args, **options).covariance
    coarse, fine = (
        distributed.moments(*args, theory.em(2.0**-k), **options).covariance for k in (9, 10)
    )
    np.testing.assert_allclose(2 * fine - coarse, limit, rtol=1e-4)
    np.testing.assert_allclose((coarse - limit) / (fine - limit), 2, rtol=0.02)


def test_moments_by_hand():
    """The closed form of one coordinate, N = 4, and its stationary values."""
    lam, sigma, omega, N, t = 1.5, 0.7, 3.0, 4, 2.0
    for h, law in [(ETA, theory.discrete), (0, theory.sde)]:
        r = -2 * lam + (h + ETA * omega / N) * lam**2
        growth = (1 + h * r) ** (t / h) if h else np.exp(r * t)
        mean = (1 - h * lam) ** (t / h) if h else np.exp(-lam * t)
        second = growth * 0.8**2 + ETA / N * (1 + omega) * sigma**2 * (growth - 1) / r
        args = Quadratic(np.array([lam])), np.array([sigma**2]), ETA
        found = distributed.moments(*args, [0.8], t, law, agents=N, omega=omega)
        assert found.mean[0] == pytest.approx(mean * 0.8, rel=1e-12)
        assert found.covariance[0, 0] == pytest.approx(second - (mean * 0.8) ** 2, rel=1e-11)
    level = distributed.stationary_covariance(*args, agents=N, omega=omega)[0, 0]
    assert level == pytest.approx(
        ETA / (2 * N) * (1 + omega) * sigma**2 / lam / (1 - ETA * omega * lam / (2 * N)), rel=1e-12
    )
    level = distributed.stationary_covariance(*args, theory.discrete, agents=N, omega=omega)[0, 0]
    assert level == pytest.approx(
        ETA / N * (1 + omega) * sigma**2 / (2 * lam - ETA * lam**2 * (1 + omega / N)), rel=1e-12
    )


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("H", [np.diag(FULL), FULL])
@pytest.mark.parametrize("fixed_count", [False, True])
def test_without_compression_it_is_gradient_descent(H, law, fixed_count):
    problem, mean_noise = Quadratic(H, MINIMIZER), np.mean(SIGMAS, axis=0) / 2
    time = np.array([[0.0, 1.0], [0.5, 4.0]])
    options = {"agents": 2, "fixed_count": fixed_count}
    found = distributed.moments(problem, SIGMAS, ETA, X0, time, law, **options)
    expected = gd.moments(problem, mean_noise, ETA, X0, time, law)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-10)
    np.testing.assert_allclose(found.covariance, expected.covariance, atol=1e-12)
    found = distributed.stationary_covariance(problem, SIGMAS, ETA, law, **options)
    expected = gd.stationary_covariance(problem, mean_noise, ETA, law)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_covariances_for_all_agents_or_one_by_one():
    problem, options = Quadratic(FULL), {"agents": 3, "omega": [0.5, 2.0, 0.5], "fixed_count": True}
    diagonal = np.array([1.0, 0.5, 2.0])
    found = [
        distributed.stationary_covariance(problem, noise, ETA, **options)
        for noise in (diagonal, np.diag(diagonal), np.tile(np.diag(diagonal), (3, 1, 1)))
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], found[2], rtol=1e-14)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("H", [np.diag(FULL), FULL])
@pytest.mark.parametrize("fixed_count", [False, True])
def test_stationary_covariances_are_the_limit_of_the_moments(H, law, fixed_count):
    options = {"agents": 2, "omega": [2.0, 0.5], "fixed_count": fixed_count}
    late = distributed.moments(Quadratic(H), SIGMAS, ETA, X0, 60.0, law, **options).covariance
    level = distributed.stationary_covariance(Quadratic(H), SIGMAS, ETA, law, **options)
    np.testing.assert_allclose(late, level, rtol=1e-9, atol=1e-12)
    other = distributed.stationary_covariance(
        Quadratic(H), SIGMAS, ETA, law, **(options | {"fixed_count": not fixed_count})
    )
    assert np.max(np.abs(other - level)) > 1e-3


def test_random_k_and_bernoulli_have_one_variance_on_diagonal_hessians():
    noise = np.array([1.0, 0.5, 2.0])
    both = [
        distributed.stationary_covariance(
            Quadratic(np.diag(FULL)), noise, ETA, agents=2, omega=2.0, fixed_count=fixed_count
        )
        for fixed_count in (False, True)
    ]
    np.testing.assert_allclose(np.diag(both[0]), np.diag(both[1]), rtol=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_the_largest_learning_rate_is_the_edge_of_stability(law):
    options = {"agents": 2, "omega": np.array([1.0, 5.0])}
    edge = distributed.largest_learning_rate(2.5, law=law, **options)
    diagonal, noise = Quadratic(np.array([2.5, 1.0])), np.ones(2)
    assert distributed.is_stable(diagonal, 0.999 * edge, law, **options)
    assert not distributed.is_stable(diagonal, 1.001 * edge, law, **options)
    assert np.all(
        np.diag(distributed.stationary_covariance(diagonal, noise, 0.999 * edge, law, **options))
        > 0
    )
    with pytest.raises(InputError, match=r"moments grow; .* here it is 2.00"):
        distributed.stationary_covariance(diagonal, noise, 1.001 * edge, law, **options)
    pair = {"agents": 2, "omega": 1.0, "fixed_count": True}
    beyond = 1.001 * distributed.largest_learning_rate(2.5, law=law, agents=2, omega=1.0)
    with pytest.raises(InputError, match=r"moments grow; .* here it is 2.00"):
        distributed.stationary_covariance(diagonal, noise, beyond, law, **pair)
    c, s = np.cos(0.6), np.sin(0.6)
    rotated = Quadratic(np.array([[c, -s], [s, c]]) @ np.diag([2.5, 1.0]) @ [[c, s], [-s, c]])
    assert distributed.is_stable(rotated, 1.001 * edge, law, **options)  # it is sufficient only
    assert not distributed.is_stable(rotated, 3 * edge, law, **options)
    with pytest.raises(InputError, match="moments grow"):
        distributed.stationary_covariance(rotated, noise, 3 * edge, law, **options)


def test_largest_learning_rates_by_hand():
    found = distributed.largest_learning_rate
    assert found(2.0, agents=4, omega=3.0) == pytest.approx(2 * 4 / (3 * 2))
    assert found(2.0, agents=4, omega=3.0, law=theory.discrete) == pytest.approx(1 / 1.75)
    assert found(2.0, agents=4, omega=3.0, law=theory.em(0.25)) == pytest.approx(4 * 1.5 / 6)
    assert found(2.0, agents=4) == np.inf
    assert found(2.0, agents=4, law=theory.discrete) == 1
    assert not distributed.is_stable(Quadratic(np.array([1.0, -1.0])), ETA, agents=1)


def test_figures_of_a_compressed_quadratic():
    """Simulations: the loss along the way to 2 %, three ways to undo compression to 0.6 %."""
    problem, noise, eta = Quadratic(np.array([1.0, 1.5, 2.0, 3.0])), np.ones(4), 0.02

    def loss(covariance):
        return np.trace(theory._laws.hessian_matrix(problem) @ covariance) / 2

    law = distributed.moments(
        problem, noise, eta, np.ones(4), [1.0, 2.0, 4.0, 16.0], theory.discrete, agents=2, omega=3.0
    )
    expected = [0.169, 0.0525, 0.0420, 0.0418]
    np.testing.assert_allclose(theory.expected_loss(problem, law), expected, rtol=0.02)

    def level(eta=eta, N=2, B=1, omega=3.0):
        return loss(
            distributed.stationary_covariance(
                problem, noise / B, eta, theory.discrete, agents=N, omega=omega
            )
        )

    found = [level(), level(eta=eta / 4), level(B=4), level(N=8)]
    np.testing.assert_allclose(
        np.array(found) / level(omega=0.0), [4.10, 0.993, 1.030, 1.008], rtol=0.006
    )


def test_what_is_no_law_is_refused():
    problem, noise, x0 = Quadratic(np.ones(3)), np.ones(3), np.ones(3)

    def refused(match, problem=problem, noise=noise, x0=x0, time=1.0, law=theory.sde, **options):
        options = {"agents": 2} | options
        with pytest.raises(InputError, match=match):
            distributed.moments(problem, noise, ETA, x0, time, law, **options)

    refused("agents must be a whole number", agents=0)
    refused(r"omega must be a scalar or \(2,\)", omega=np.ones(3))
    refused("omega must be finite and not negative", omega=-1.0)
    refused(r"covariance must be \(3,\) or \(3, 3\)", noise=np.ones(2))
    refused(r"or \(2, 3, 3\)", noise=np.ones((3, 3, 3)))
    refused("no negative eigenvalue", noise=np.stack([np.eye(3), -np.eye(3)]))
    refused("symmetric", noise=np.triu(np.ones((3, 3))))
    refused("x0 must have shape", x0=np.ones(2))
    refused("multiples", time=0.3, law=theory.discrete)
    refused("time", time=-1.0)
    refused("whole k between 1 and d = 3", omega=1.0, fixed_count=True)
    refused("whole k between 1 and d = 3", omega=[0.5, 5.0], fixed_count=True)
    big = np.eye(33) + 0.01
    refused("at most 32 dimensions", Quadratic(big), np.ones(33), np.ones(33))
    with pytest.raises(InputError, match="eigenvalue 0"):
        distributed.stationary_covariance(
            Quadratic(np.array([1.0, 0.0])), np.ones(2), 0.1, agents=1
        )
    with pytest.raises(InputError, match="no learning rate is stable: step"):
        distributed.largest_learning_rate(2.0, agents=1, omega=1.0, law=theory.em(1.0))
    with pytest.raises(InputError, match="curvature"):
        distributed.largest_learning_rate(0.0, agents=1)


def test_one_dimension_has_no_random_k_but_the_identity():
    args = Quadratic(np.ones(1)), np.ones(1), ETA
    found = distributed.stationary_covariance(*args, agents=1, fixed_count=True)
    assert found == distributed.stationary_covariance(*args, agents=1)
    with pytest.raises(InputError, match="whole k"):
        distributed.stationary_covariance(*args, agents=1, omega=1.0, fixed_count=True)
