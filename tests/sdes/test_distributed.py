"""The SDEs of distributed SGD: coefficients against their formulas, and what is refused."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import erf

from jaxsde import InputError
from jaxsde.oracles import QSGD, Agents, BernoulliK, GaussianNoise, RandomK, Sign, StudentTNoise
from jaxsde.problems import Quadratic, Rosenbrock
from jaxsde.sdes import DCSGD, DSGD, DSignSGD, LinearizedDSignSGD, MajorityVote
from jaxsde.sdes.gradient_descent import SGD

H = np.array([0.5, 1.0, 3.0])
PROBLEM = Quadratic(H)
SCALES, ETA, N = [0.4, 0.9, 1.6], 0.05, 3
X = np.array([1.0, -0.6, 0.4])
GRADIENT = H * X


def agents(compressor=None, noise=GaussianNoise, **values):
    return Agents.of(N, noise, PROBLEM, compressor, scale=SCALES, **values)


def coefficients(sde, t=0.0):
    """b and s sᵀ at X."""
    y = sde.initial(jnp.asarray(X))
    root = sde.diffusion(t, y, None).as_matrix()
    return np.asarray(sde.drift(t, y, None).X), np.asarray(root @ root.T)


def mean_signs(nu):
    s = GRADIENT[None] / np.array(SCALES)[:, None]
    return erf(s / np.sqrt(2)) if np.isinf(nu) else 2 * scipy.stats.t.cdf(s, nu) - 1


def of_noise(nu):
    if np.isinf(nu):
        return agents()
    return agents(noise=StudentTNoise, degrees_of_freedom=nu)


def test_dsgd(x64):
    drift, diffusion = coefficients(DSGD(agents(RandomK(1)), ETA))  # the compressor is not used
    np.testing.assert_allclose(drift, -GRADIENT, rtol=1e-14)
    variance = np.mean(np.square(SCALES))
    np.testing.assert_allclose(diffusion, ETA / N * variance * np.eye(3), atol=1e-15)
    one = coefficients(SGD(GaussianNoise(PROBLEM, 0.4), ETA))
    same = coefficients(DSGD(Agents.of(1, GaussianNoise, PROBLEM, scale=0.4), ETA))
    for a, b in zip(one, same, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize("k", [1, 2])
def test_dcsgd_has_the_off_diagonal_part_of_random_k(k, x64):
    d, omega, variance = 3, 3 / k - 1, np.mean(np.square(SCALES))
    GG = np.outer(GRADIENT, GRADIENT)
    squares = np.diag(GRADIENT**2)
    expected = (1 + omega) * variance * np.eye(3) + omega * squares
    sparse = coefficients(DCSGD(agents(BernoulliK(k)), ETA))[1]
    np.testing.assert_allclose(sparse, ETA / N * expected, atol=1e-15)
    expected -= (d - k) / (k * (d - 1)) * (GG - squares)
    drift, fixed = coefficients(DCSGD(agents(RandomK(k)), ETA))
    np.testing.assert_allclose(fixed, ETA / N * expected, atol=1e-15)
    np.testing.assert_allclose(drift, -GRADIENT, rtol=1e-14)


@pytest.mark.parametrize("nu", [np.inf, 1.0, 3.0])
def test_dsign_sgd(nu, x64):
    m = mean_signs(nu)
    drift, diffusion = coefficients(DSignSGD(of_noise(nu), ETA))
    np.testing.assert_allclose(drift, -m.mean(0), rtol=1e-8)
    np.testing.assert_allclose(diffusion, ETA / N * np.diag(1 - np.mean(m**2, axis=0)), atol=1e-10)


@pytest.mark.parametrize("nu", [np.inf, 1.0])
def test_linearized_dsign_sgd_and_its_harmonic_means(nu, x64):
    slope = np.sqrt(2 / np.pi) if np.isinf(nu) else 2 / np.pi
    first, second = (np.mean(np.array(SCALES) ** -p) for p in (1.0, 2.0))
    flat = Quadratic(H / 20)  # so that nothing is clipped
    noise = {} if np.isinf(nu) else {"degrees_of_freedom": nu}
    oracle = StudentTNoise if noise else GaussianNoise
    sde = LinearizedDSignSGD(Agents.of(N, oracle, flat, scale=SCALES, **noise), ETA)
    drift, diffusion = coefficients(sde)
    g = GRADIENT / 20
    np.testing.assert_allclose(drift, -slope * first * g, rtol=1e-12)
    expected = ETA / N * (1 - slope**2 * second * g**2)
    np.testing.assert_allclose(np.diag(diffusion), expected, rtol=1e-12)
    clipped = coefficients(LinearizedDSignSGD(of_noise(nu), ETA))[1]
    assert clipped[2, 2] == 0


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_vote_is_the_sign_of_the_sum_of_all_signs(count, x64):
    members = [GaussianNoise(PROBLEM, s) for s in (0.4, 0.9, 1.6, 0.7)[:count]]
    up = np.stack([1 - oracle.cdf(jnp.asarray(-GRADIENT)) for oracle in members])
    mean = square = 0
    for signs in itertools.product([-1, 1], repeat=count):
        s = np.array(signs)[:, None]
        weight = np.prod(np.where(s > 0, up, 1 - up), axis=0)
        vote = np.sign(np.sum(s, axis=0))
        mean, square = mean + weight * vote, square + weight * vote**2
    drift, diffusion = coefficients(MajorityVote(Agents(members), ETA))
    np.testing.assert_allclose(drift, -mean, rtol=1e-12)
    np.testing.assert_allclose(np.diag(diffusion), ETA * (square - mean**2), atol=1e-14)


@pytest.mark.parametrize("count", [33, 34])
def test_votes_of_many_agents(count, x64):
    """Of equal agents, against the binomial law; the code has another way for more than 32."""
    own = Agents.of(count, GaussianNoise, PROBLEM, scale=4.0)
    p = (1 + erf(GRADIENT / 4 / np.sqrt(2))) / 2
    ayes, noes = (
        scipy.stats.binom.sf(count // 2, count, p),
        scipy.stats.binom.cdf((count - 1) // 2, count, p),
    )
    drift, diffusion = coefficients(MajorityVote(own, ETA))
    np.testing.assert_allclose(drift, noes - ayes, rtol=1e-12)
    expected = ayes + noes - (ayes - noes) ** 2
    np.testing.assert_allclose(np.diag(diffusion), ETA * expected, rtol=1e-11)


@pytest.mark.parametrize("make", [DSGD, DCSGD, DSignSGD, LinearizedDSignSGD, MajorityVote])
def test_a_schedule_scales_both_coefficients_in_sde_time(make, x64):
    plain = coefficients(make(agents(BernoulliK(2)), ETA))
    sde = make(agents(BernoulliK(2)), ETA, lambda k: 1 / jnp.sqrt(k + 1))
    psi = 1 / np.sqrt(0.4 / ETA + 1)
    drift, diffusion = coefficients(sde, t=0.4)
    np.testing.assert_allclose(drift, psi * plain[0], rtol=1e-14)
    np.testing.assert_allclose(diffusion, psi**2 * plain[1], rtol=1e-13)


def test_curvature_of_a_landscape(x64):
    landscape, x = Rosenbrock(5.0), jnp.asarray([0.3, -0.8])
    own = Agents.of(2, GaussianNoise, landscape, BernoulliK(1), scale=0.1)
    g = landscape.gradient(x)
    Hg = jax.hessian(landscape.loss)(x) @ g
    for make in (DSGD, DCSGD):
        for kappa in (-0.5, 0.5):
            sde = make(own, ETA, lambda k: 0.7, curvature=kappa)
            drift = sde.drift(0.0, sde.initial(x), None).X
            np.testing.assert_allclose(drift, -0.7 * g + kappa * ETA * 0.49 * Hg, rtol=1e-12)


def test_classical_curvature_is_nearest_to_gradient_descent_and_the_flipped_one_furthest(x64):
    """x on x²/2 at T = 2: e^{-r T} with r = 1 - κ η against (1 - η)^{T/η}."""
    errors = {}
    for eta in (0.2, 0.05):
        own, x = Agents.of(1, GaussianNoise, Quadratic([1.0]), scale=1.0), jnp.ones(1)
        for kappa in (None, -0.5, 0.5):
            sde = DSGD(own, eta, curvature=kappa)
            rate = float(sde.drift(0.0, sde.initial(x), None).X[0])
            errors[eta, kappa] = abs(np.exp(2 * rate) - (1 - eta) ** (2 / eta))
    orders = {k: np.log(errors[0.2, k] / errors[0.05, k]) / np.log(4) for k in (None, -0.5, 0.5)}
    assert orders[None] == pytest.approx(1, abs=0.1)
    assert orders[0.5] == pytest.approx(1, abs=0.1)
    assert orders[-0.5] == pytest.approx(2, abs=0.1)
    assert errors[0.05, 0.5] / errors[0.05, None] == pytest.approx(2, abs=0.1)
    assert errors[0.2, None] == pytest.approx(0.0280, abs=5e-5)
    assert errors[0.2, -0.5] == pytest.approx(0.0034, abs=5e-5)
    assert errors[0.2, 0.5] == pytest.approx(0.0579, abs=5e-5)


@pytest.mark.parametrize("hessian", [H, np.diag(H)])
def test_noise_that_outgrows_the_descent_is_named(hessian):
    own = Agents.of(2, GaussianNoise, Quadratic(hessian), RandomK(1), scale=1.0)  # ω = 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DCSGD(own, 0.66)
        DSGD(own, 6.0)
        DCSGD(own, 0.67, lambda k: 0.1)
        DCSGD(own, 0.67, curvature=-0.5)
    with pytest.warns(UserWarning, match="eigenvalue = 4.02 >= 2 N = 4") as caught:
        DCSGD(own, 0.67)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=r"\(omega/N \+1\) = 2.04 >= 2"):
        DCSGD(own, 0.34, curvature=0.5)
    shifted = [GaussianNoise(Quadratic(hessian, shift), 1.0) for shift in (0.0, 1.0)]
    with pytest.warns(UserWarning, match="outgrow the descent"):
        DCSGD(Agents(shifted, RandomK(1)), 0.67)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DSGD(agents(), 0.0), "learning_rate must be positive"),
        (lambda: DSGD(GaussianNoise(PROBLEM, 1.0), 0.1), "is of many agents"),
        (lambda: DSignSGD(GaussianNoise(PROBLEM, 1.0), 0.1), "is of many agents"),
        (lambda: DCSGD(agents(), 0.1, curvature=1.0), "curvature must be None, -1/2 or 1/2"),
        (lambda: DCSGD(agents(Sign()), 0.1), "Sign is biased"),
        (lambda: DSignSGD(agents(), 0.1, 0.5), "schedule must be a function"),
        (
            lambda: DCSGD(agents(RandomK(4)), 0.1, lambda k: 1).brownian_structure(jnp.zeros(3)),
            "4 of 3 coordinates cannot be kept",
        ),
        (
            lambda: DCSGD(
                agents(QSGD(2), StudentTNoise, degrees_of_freedom=5.0), 0.1
            ).brownian_structure(jnp.zeros(3)),
            "quantised messages is known for Gaussian noise only",
        ),
        (lambda: DSGD(of_noise(2.0), 0.1), "does not exist for Student-t noise with 2"),
        (lambda: DCSGD(of_noise(1.0), 0.1), "does not exist for Student-t noise with 1"),
        (
            lambda: DSignSGD(Agents([GaussianNoise(PROBLEM, covariance=np.eye(3))]), 0.1),
            "correlated noise has no law",
        ),
    ],
)
def test_what_has_no_such_sde_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_agents_of_correlated_noise_have_normals_of_their_own():
    full = Agents.of(2, GaussianNoise, PROBLEM, QSGD(2), covariance=[np.eye(3) + 0.1] * 2)
    structure = DCSGD(full, ETA).brownian_structure(jnp.asarray(X))
    assert [leaf.shape for leaf in structure] == [(2, 3), (3,)]
