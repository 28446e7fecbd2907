"""Minimax games, linear ones with any Jacobian: moments, stationary laws, stability, bounds."""

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import BilinearGame, Forsaken, Players, QuadraticGame
from jaxsde.theory import minimax

ETA = 0.125
A = np.array([[1.0, 0.25], [0.25, 0.5]])
COUPLING = np.array([[1.0], [-0.5]])
Z0 = np.array([1.0, -0.5, 0.75])
ROOT = np.array([[1.0, 0.25, 0.0], [0.5, -1.0, 0.5], [0.25, 0.75, 1.5]])
SIGMA = ROOT @ ROOT.T
LAWS = [theory.discrete, theory.em(0.0625), theory.sde]
METHODS = [
    minimax.sgda(),
    minimax.seg(0.5),
    minimax.seg(-0.25),
    minimax.seg(0.5, independent=True),
    minimax.seg(-0.25, independent=True),
    minimax.shgd(),
    minimax.shgd(batches=2),
]
SEG = minimax.seg(0.5)


@pytest.fixture
def game():
    """Two x against one y, of different curvatures: J is not normal."""
    return QuadraticGame(COUPLING, A, 0.75)


def matrix():
    J = np.block([[A, COUPLING], [-COUPLING.T, 0.75 * np.eye(1)]])
    assert np.max(np.abs(J @ J.T - J.T @ J)) > 0.1
    return J


def step(z, xi_1, xi_2, method, J, eta=ETA):
    """A step from its definition, on the batches' noises."""

    def F(at, xi):
        return J @ at + xi

    if method.rho is None:
        return z - eta * (J.T @ F(z, xi_2) + J.T @ F(z, xi_1)) / 2
    return z - eta * F(z - method.rho * F(z, xi_2), xi_1)


def affine(method, J, eta=ETA):
    """The step as I - η B and as the covariance of what it adds."""
    none, basis = np.zeros(len(J)), np.eye(len(J))
    moved = np.array([step(e, none, none, method, J, eta) for e in basis]).T
    first = np.array([step(none, e, none, method, J, eta) for e in basis]).T
    second = np.array([step(none, none, e, method, J, eta) for e in basis]).T
    if method.independent:
        return moved, first @ SIGMA @ first.T + second @ SIGMA @ second.T
    return moved, (first + second) @ SIGMA @ (first + second).T


def drift_and_noise(method, J):
    """B and S of the SDE, read off the step."""
    moved, added = affine(method, J)
    return (np.eye(len(J)) - moved) / ETA, added / ETA**2


@pytest.mark.parametrize("method", METHODS)
def test_discrete_moments_by_looping_the_algorithm(game, method):
    P, Q = affine(method, matrix())
    mean, covariance = Z0, np.zeros((3, 3))
    steps = np.array([[0, 1], [13, 4]])
    found = minimax.moments(game, SIGMA, ETA, Z0, steps * ETA, theory.discrete, method=method)
    for k in range(14):
        if k in steps:
            i, j = np.argwhere(steps == k)[0]
            np.testing.assert_allclose(found.mean[i, j], mean, atol=1e-13)
            np.testing.assert_allclose(found.covariance[i, j], covariance, atol=1e-13)
        mean, covariance = P @ mean, P @ covariance @ P.T + Q


@pytest.mark.parametrize("method", METHODS)
def test_sde_and_em_moments_by_brute_force(game, method):
    B, S = drift_and_noise(method, matrix())
    dt, time = 0.25, np.array([3.0, 0.0])
    mean, covariance = Z0, np.zeros((3, 3))
    for _ in range(12):
        mean = mean - dt * B @ mean
        moved = np.eye(3) - dt * B
        covariance = moved @ covariance @ moved.T + dt * ETA * S

    def slope(_, state):
        m, C = state[:3], state[3:].reshape(3, 3)
        return np.append(-B @ m, (-B @ C - C @ B.T + ETA * S).ravel())

    start = np.append(Z0, np.zeros(9))
    solved = solve_ivp(slope, (0, 3), start, rtol=1e-11, atol=1e-13).y[:, -1]
    for law, m, C in [
        (theory.em(dt), mean, covariance),
        (theory.sde, solved[:3], solved[3:].reshape(3, 3)),
    ]:
        found = minimax.moments(game, SIGMA, ETA, Z0, time, law, method=method)
        np.testing.assert_allclose(found.mean[0], m, atol=1e-9)
        np.testing.assert_allclose(found.covariance[0], C, atol=1e-9)
        np.testing.assert_allclose(found.mean[1], Z0)
        np.testing.assert_array_equal(found.covariance[1], 0)


@pytest.mark.parametrize("method", METHODS)
def test_em_tends_to_the_sde(game, method):
    args = game, SIGMA, ETA, Z0, 2.0
    limit = minimax.moments(*args, method=method)
    coarse, fine = (minimax.moments(*args, theory.em(2.0**-k), method=method) for k in (11, 12))
    for limit_k, coarse_k, fine_k in zip(limit, coarse, fine, strict=True):
        np.testing.assert_allclose(2 * fine_k - coarse_k, limit_k, rtol=1e-4, atol=1e-7)
        assert np.max(np.abs(fine_k - limit_k)) > 1e-6


def test_long_times_neither_overflow_nor_cost(game):
    """10⁵ steps, and a time at which e^(Bt) is beyond float64, against the stationary law."""
    late = 1e5 * ETA
    for law in (theory.discrete, theory.sde):
        found = minimax.moments(game, SIGMA, ETA, Z0, late, law, method=SEG)
        level = minimax.stationary_covariance(game, SIGMA, ETA, law, method=SEG)
        np.testing.assert_allclose(found.covariance, level, rtol=1e-10)
        np.testing.assert_allclose(found.mean, 0, atol=1e-100)
    small = minimax.moments(game, SIGMA, 1e-6, Z0, 0.1, theory.discrete, method=SEG)
    same = minimax.moments(game, SIGMA, 1e-6, Z0, 0.1, method=SEG)
    np.testing.assert_allclose(small.mean, same.mean, rtol=1e-5)
    np.testing.assert_allclose(small.covariance, same.covariance, rtol=1e-5)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", METHODS)
def test_stationary_covariances_by_their_equation(game, law, method):
    B, S = drift_and_noise(method, matrix())
    h = {theory.discrete: ETA, theory.sde: 0}.get(law, law.step)
    V = minimax.stationary_covariance(game, SIGMA, ETA, law, method=method)
    np.testing.assert_allclose(B @ V + V @ B.T - h * B @ V @ B.T, ETA * S, atol=1e-13)
    np.testing.assert_allclose(V, V.T, atol=1e-14)
    assert np.linalg.eigvalsh(V)[0] > 0


def test_stability_of_bilinear_games():
    """SEG at η = 0.1 needs 2 ρ > η (1 + ρ² λ²), SHGD η λ² < 2; their SDEs any ρ > 0, any η."""
    one = BilinearGame([1.0])
    for rho, holds in [(0.03, False), (0.049, False), (0.052, True), (0.08, True), (19, True)]:
        for independent in (False, True):
            method = minimax.seg(rho, independent)
            assert minimax.is_stable(one, 0.1, theory.discrete, method=method) == holds
            assert minimax.is_stable(one, 0.1, theory.em(0.1), method=method) == holds
            assert minimax.is_stable(one, 0.1, method=method)
    edge = (1 + np.sqrt(1 - 0.1**2)) / 0.1
    for rho, holds in [(0.999 * edge, True), (1.001 * edge, False)]:
        assert minimax.is_stable(one, 0.1, theory.discrete, method=minimax.seg(rho)) == holds
    assert not minimax.is_stable(one, 0.1, method=minimax.seg(-0.05))
    for eta, holds in [(1.99, True), (2.01, False)]:
        assert minimax.is_stable(one, eta, theory.discrete, method=minimax.shgd()) == holds
        assert minimax.is_stable(one, eta, method=minimax.shgd())
    turned = BilinearGame([[1.0, 2.0, 0.5], [0.25, -1.0, 3.0], [2.0, 0.125, -1.0]])
    assert not minimax.is_stable(turned, 0.1, method=minimax.sgda())
    assert not minimax.is_stable(turned, 0.001, theory.discrete, method=minimax.sgda())
    assert minimax.is_stable(turned, 0.001, theory.discrete, method=minimax.seg(0.01))
    rng = np.random.default_rng(0)
    for _ in range(10):  # two x, three y: one direction of y is flat, up to rounding
        flat = BilinearGame(rng.normal(size=(2, 3)))
        for method in (minimax.sgda(), minimax.seg(0.5), minimax.shgd()):
            assert not minimax.is_stable(flat, 0.1, method=method)
            assert not minimax.is_stable(flat, 0.01, theory.discrete, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("eta", [0.5, 1.0, 1.5, 2.5])
def test_stability_is_the_spectral_radius(game, method, eta):
    moved, _ = affine(method, matrix(), eta)
    radius = np.max(np.abs(np.linalg.eigvals(moved)))
    assert abs(radius - 1) > 1e-3
    assert minimax.is_stable(game, eta, theory.discrete, method=method) == (radius < 1)


def test_means_over_a_law(game):
    """E|z|²/2 and E|F|²/2 from E z zᵀ."""
    law = minimax.moments(game, SIGMA, ETA, Z0, [0.0, 1.5], method=SEG)
    J = matrix()
    for i in range(2):
        second = law.covariance[i] + np.outer(law.mean[i], law.mean[i])
        assert minimax.mean_half_square(law)[i] == pytest.approx(np.trace(second) / 2)
        expected = np.trace(J @ second @ J.T) / 2
        assert minimax.mean_hamiltonian(game, law)[i] == pytest.approx(expected)


def test_a_start_may_be_two_players(game):
    players = Players(jax.numpy.array([1.0, -0.5]), np.array([0.75]))
    flat = minimax.moments(game, SIGMA, ETA, Z0, 1.0, method=SEG)
    for found, expected in zip(
        minimax.moments(game, SIGMA, ETA, players, 1.0, method=SEG), flat, strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", METHODS)
def test_identities_of_ito(game, method):
    """dE|z|²/2 = E⟨b, z⟩ + (η/2) tr S, dE Ham = E⟨b, ∇Ham⟩ + (η/2) tr(S ∇²Ham)."""
    J, t, dt = matrix(), 0.5, 1e-3
    B, S = drift_and_noise(method, J)
    law = minimax.moments(game, SIGMA, ETA, Z0, [t - dt, t, t + dt], method=method)
    second = law.covariance[1] + np.outer(law.mean[1], law.mean[1])
    for value, hessian in [
        (minimax.mean_half_square(law), np.eye(3)),
        (minimax.mean_hamiltonian(game, law), J.T @ J),
    ]:
        slope = -np.trace(hessian @ B @ second) + ETA / 2 * np.trace(S @ hessian)
        assert (value[2] - value[0]) / (2 * dt) == pytest.approx(slope, rel=1e-4)


TIME = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 16.0])
ISOTROPIC = 0.49 * np.eye(4)


@pytest.mark.parametrize("batches", [1, 2])
def test_the_hamiltonian_bound_of_shgd(batches):
    """An equality for one λ; a bound for two, μ the lower λ²; the algorithm ends higher."""
    method, start = minimax.shgd(batches), np.array([1.0, 0.5, -1.0, 0.25])
    for lam, mu in [([1.5, 1.5], 2.25), ([1.0, 1.5], 1.0)]:
        one = BilinearGame(lam)
        L = 2 * np.sum(np.array(lam) ** 4) * 0.49 / batches
        law = minimax.moments(one, ISOTROPIC, ETA, start, TIME, method=method)
        value = minimax.mean_hamiltonian(one, law)
        bound = minimax.hamiltonian_bound(value[0], TIME, learning_rate=ETA, mu=mu, noise_trace=L)
        if mu == 1:
            assert np.all(value[1:] < bound[1:])
            continue
        np.testing.assert_allclose(value, bound, rtol=1e-12)
        level = minimax.hamiltonian_level(learning_rate=ETA, mu=mu, noise_trace=L)
        V = minimax.stationary_covariance(one, ISOTROPIC, ETA, theory.discrete, method=method)
        algorithm = minimax.mean_hamiltonian(one, theory.Moments(np.zeros(4), V))
        assert algorithm == pytest.approx(level / (1 - ETA * mu / 2), rel=1e-12)


def test_the_hamiltonian_bound_of_seg(game):
    """μ the least eigenvalue of J - ρ J²'s symmetric part, L = tr(S Jᵀ J)."""
    J = matrix()
    for rho in (0.0, 0.25):
        method = minimax.seg(rho)
        B, S = drift_and_noise(method, J)
        mu, L = np.linalg.eigvalsh((B + B.T) / 2)[0], np.trace(S @ J.T @ J)
        assert mu > 0.1
        value = minimax.mean_hamiltonian(
            game, minimax.moments(game, SIGMA, ETA, Z0, TIME, method=method)
        )
        bound = minimax.hamiltonian_bound(value[0], TIME, learning_rate=ETA, mu=mu, noise_trace=L)
        assert np.all(value <= bound * (1 + 1e-12))


def test_the_half_square_bound():
    """Equalities for one pair twice, additive, and for multiplicative noise."""
    pair, rho = {"curvature": 0.5, "coupling": 1.5}, 0.75
    method = minimax.seg(rho, independent=True)
    r, c = 0.5 + rho * 2.0, 1 + rho**2 * 2.5
    expected = minimax.pair_half_square(0.8, TIME, ETA, **pair, sigma=0.7, method=method)
    constants = {"learning_rate": ETA, "monotonicity": r, "additive_noise": c * 0.49}
    found = minimax.half_square_bound(0.8, TIME, **constants)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    level = minimax.half_square_level(**constants)
    assert level == pytest.approx(ETA * c * 0.49 / (2 * r), rel=1e-14)
    s = 0.49 + rho**2 * 0.49 * (2 * 1.5**2 + 0.49)
    constants = {"learning_rate": ETA, "monotonicity": rho * 1.5**2, "multiplicative_noise": s}
    found = minimax.half_square_bound(0.8, TIME, additive_noise=0, **constants)
    expected = minimax.multiplicative_half_square(
        0.8, TIME, ETA, coupling=1.5, sigma=0.7, method=method
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    level = minimax.half_square_level(additive_noise=2.0, **constants)
    assert level == pytest.approx(ETA * 2 / (2 * rho * 1.5**2 - ETA * s), rel=1e-14)
    with pytest.raises(InputError, match=r"less than 2 monotonicity, got 3 >= 2"):
        minimax.half_square_bound(
            1.0, 1.0, learning_rate=0.1, monotonicity=1.0, additive_noise=1.0,
            multiplicative_noise=30.0,
        )  # fmt: skip


def test_what_is_no_law_is_refused(game):
    def refused(match, game=game, noise=SIGMA, eta=ETA, z0=Z0, time=1.0, law=theory.sde,
                method=SEG):  # fmt: skip
        with pytest.raises(InputError, match=match):
            minimax.moments(game, noise, eta, z0, time, law, method=method)

    refused("Forsaken has no constant jacobian", Forsaken())
    refused(r"covariance must be \(3,\) or \(3, 3\)", noise=np.ones(2))
    refused("learning_rate must be positive", eta=-0.1)
    refused("z0 must have shape", z0=np.ones(2))
    refused("multiples", time=0.3, law=theory.discrete)
    refused("time", time=-1.0)
    refused("law must be", law=0.1)
    refused("method must be minimax.sgda", method="seg")
    with pytest.raises(InputError, match="method must be minimax"):
        minimax.is_stable(game, ETA, method=SEG.rho)
    with pytest.raises(InputError, match="rho must be finite"):
        minimax.seg(np.nan)
    with pytest.raises(InputError, match="rho must be one number"):
        minimax.seg(np.ones(2))
    with pytest.raises(InputError, match="batches must be 1 or 2"):
        minimax.shgd(3)
    with pytest.raises(InputError, match="batches must be a whole number"):
        minimax.shgd(0)
    one = BilinearGame([2.0])
    noise = np.ones(2)
    with pytest.raises(InputError, match=r"eigenvalue -4[+-]2j, and its real part must be pos"):
        minimax.stationary_covariance(one, noise, ETA, method=minimax.seg(-1.0))
    with pytest.raises(InputError, match=r"must exceed step \* \|eigenvalue\|²: 0.4 against 0.505"):
        minimax.stationary_covariance(one, noise, ETA, theory.discrete, method=minimax.seg(0.05))
