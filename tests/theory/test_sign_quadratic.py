"""SignSGD on quadratics: moments and stationary laws."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from scipy.integrate import cumulative_simpson, simpson, solve_ivp

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import sign

INF = np.inf
ETA = 0.1
LAM = np.array([2.0, 0.5, -1.0])
SIGMA = np.array([3.0, 2.0, 4.0])
MINIMIZER = np.array([0.5, 0.0, -1.0])
X0 = np.array([1.25, -1.0, -0.5])
PROBLEM = Quadratic(LAM, MINIMIZER)


def noise(nu):
    return scipy.stats.norm if nu == INF else scipy.stats.t(nu)


@pytest.mark.parametrize("nu", [1.0, INF])
def test_discrete_moments_are_exact_for_uniform_noise(nu):
    """Uniform noise on ±σ/l has E sign(g) = l λ y/σ: the linear theory is its exact lattice law."""
    time = ETA * np.array([0, 1, 12])
    found = sign.moments(PROBLEM, SIGMA, ETA, X0, time, theory.discrete, nu)
    for i in range(3):
        width = SIGMA[i] / sign.slope(nu)
        exact = sign.lattice_moments(
            lambda x, i=i: LAM[i] * (x - MINIMIZER[i]),
            lambda z, w=width: np.clip(0.5 + z / (2 * w), 0, 1),
            ETA,
            X0[i],
            12,
            {"x": lambda x: x, "xx": np.square},
        )
        mean, second = exact["x"][[0, 1, 12]], exact["xx"][[0, 1, 12]]
        np.testing.assert_allclose(found.mean[:, i], mean, rtol=1e-12)
        np.testing.assert_allclose(found.covariance[:, i, i], second - mean**2, atol=1e-13)
    off_diagonal = found.covariance * (1 - np.eye(3))
    np.testing.assert_array_equal(off_diagonal, 0)


def test_em_moments_by_enumerating_two_point_noise():
    """Noise ±1 has the two moments of a Gaussian, and its paths can be counted."""
    dt, steps = 0.04, 8
    a = np.sqrt(2 / np.pi) * LAM / SIGMA
    paths = []
    for signs in itertools.product([1, -1], repeat=steps):
        y = X0 - MINIMIZER
        for xi in signs:
            y = y - dt * a * y + np.sqrt(dt * ETA * (1 - (a * y) ** 2)) * xi
        paths.append(MINIMIZER + y)
    found = sign.moments(PROBLEM, SIGMA, ETA, X0, dt * steps, theory.em(dt))
    np.testing.assert_allclose(found.mean, np.mean(paths, axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.diag(found.covariance), np.var(paths, axis=0), rtol=1e-11)


@pytest.mark.parametrize("nu", [1.0, INF])
def test_sde_moments_by_integrating_their_equations(nu):
    a, time = 2 * noise(nu).pdf(0) * LAM / SIGMA, np.array([0.5, 4.0])

    def rates(_, z):
        mean, second = z[:3], z[3:]
        return np.append(-a * mean, -2 * a * second + ETA * (1 - a**2 * second))

    start = np.append(X0 - MINIMIZER, (X0 - MINIMIZER) ** 2)
    solved = solve_ivp(rates, (0, 4), start, t_eval=time, rtol=1e-10, atol=1e-12).y.T
    mean, second = solved[:, :3], solved[:, 3:]
    found = sign.moments(PROBLEM, SIGMA, ETA, X0, time, degrees_of_freedom=nu)
    np.testing.assert_allclose(found.mean, MINIMIZER + mean, rtol=1e-8)
    variance = np.diagonal(found.covariance, axis1=1, axis2=2)
    np.testing.assert_allclose(variance, second - mean**2, rtol=1e-6)


def test_sde_moments_are_the_published_lemma():
    lam, sigma, x0, t = LAM[:2], SIGMA[:2], X0[:2], 1.7
    a = np.sqrt(2 / np.pi) * lam / sigma
    b = ETA / np.pi * lam**2 / sigma**2
    M = np.exp(-2 * (a + b) * t)
    found = sign.moments(Quadratic(lam), sigma, ETA, x0, t)
    np.testing.assert_allclose(found.mean, np.exp(-a * t) * x0, rtol=1e-12)
    published = (M - np.exp(-2 * a * t)) * x0**2 + ETA / 2 / (a + b) * (1 - M)
    np.testing.assert_allclose(np.diag(found.covariance), published, rtol=1e-12)
    level = sign.stationary_variance(Quadratic(lam), sigma, ETA, linearised=True)
    np.testing.assert_allclose(level, ETA / 2 / (a + b), rtol=1e-12)


@pytest.mark.parametrize("law", [theory.discrete, theory.em(0.25), theory.sde])
@pytest.mark.parametrize("nu", [1.0, INF])
def test_linearised_stationary_variance_is_the_limit_of_the_moments(law, nu):
    problem = Quadratic(LAM[:2])
    late = sign.moments(problem, SIGMA[:2], ETA, X0[:2], 200.0, law, nu)
    level = sign.stationary_variance(problem, SIGMA[:2], ETA, law, nu, linearised=True)
    np.testing.assert_allclose(np.diag(late.covariance), level, rtol=1e-9)


def discrete_variance(sigma, nu, offset=0.3):
    """η = λ = 1: the stationary lattice law on ℤ + offset, by detailed balance."""
    n = 50 + int(60 * np.sqrt(sigma))
    x = np.arange(-n, n + 1) + offset
    log_up, log_down = noise(nu).logcdf(-x / sigma), noise(nu).logcdf(x / sigma)
    log_p = np.append(0, np.cumsum(log_up[:-1] - log_down[1:]))
    p = np.exp(log_p - np.max(log_p))
    return p @ x**2 / np.sum(p)


def sde_variance(sigma, nu):
    """η = λ = 1: the stationary density exp(∫ 2 drift / D) / D, D = 1 - m²."""
    x = 20 * np.sqrt(sigma) * np.linspace(-1, 1, 20_001)
    m = 2 * noise(nu).cdf(x / sigma) - 1
    exponent = cumulative_simpson(-2 * m / (1 - m**2), x=x, initial=0)
    p = np.exp(exponent - np.max(exponent)) / (1 - m**2)
    return simpson(p * x**2, x=x) / simpson(p, x=x)


def em_variance(sigma, nu, dt=0.5):
    """η = λ = 1: the left eigenvector of the Euler-Maruyama chain's kernel on a grid."""
    x = 7.5 * np.sqrt(sigma) * np.linspace(-1, 1, 401)
    m = 2 * noise(nu).cdf(x / sigma) - 1
    z = (x - (x - dt * m)[:, None]) / np.sqrt(dt * (1 - m**2))[:, None]
    kernel = np.exp(-(z**2) / 2)
    kernel /= np.sum(kernel, axis=1, keepdims=True)
    balance = kernel.T - np.eye(len(x))
    balance[0] = 1
    p = np.linalg.solve(balance, np.eye(len(x))[0])
    return p @ x**2


@pytest.mark.parametrize("nu", [1.0, 3.0, INF])
@pytest.mark.parametrize(
    ("law", "exact"),
    [
        (theory.discrete, discrete_variance),
        (theory.em(0.5), em_variance),
        (theory.sde, sde_variance),
    ],
)
def test_next_order_of_the_stationary_variance(law, exact, nu):
    """(Var / leading - 1) / v₀ of the exact laws, extrapolated to v₀ = 0, is the coefficient."""
    coefficients = []
    for sigma in (40.0, 80.0):
        leading = sigma / (2 * sign.slope(nu))
        v0 = leading / sigma**2
        formula = sign.stationary_variance(Quadratic(np.ones(1)), sigma, 1.0, law, nu)[0]
        coefficients.append([(exact(sigma, nu) / leading - 1) / v0, (formula / leading - 1) / v0])
    (exact_coarse, formula_coarse), (exact_fine, formula_fine) = coefficients
    assert formula_fine == pytest.approx(formula_coarse, abs=1e-9)
    assert 2 * exact_fine - exact_coarse == pytest.approx(formula_fine, abs=4e-3)


def test_stationary_variance_scales():
    """Away from η = λ = 1: (σ/λ)² times a function of η λ/σ and h/η alone."""
    unit = sign.stationary_variance(Quadratic(np.ones(1)), 5.0, 1.0, theory.em(0.25))[0]
    found = sign.stationary_variance(Quadratic(np.array([4.0])), 2.0, 0.1, theory.em(0.025))[0]
    assert found == pytest.approx(unit / 25 * (2 / 4) ** 2, rel=1e-12)


def test_stationary_variance_of_the_algorithm_down_to_the_noiseless_floor():
    ratios = np.array([1 / 3, 1, 10 / 3, 10, 100])  # η λ / σ
    offsets = (np.arange(32) + 0.5) / 32
    exact = [np.mean([discrete_variance(1 / r, INF, u) for u in offsets]) for r in ratios]
    np.testing.assert_allclose(exact, [2.08, 0.839, 0.421, 0.343, 0.333], atol=2.5e-3)
    assert exact[-1] == pytest.approx(sign.noiseless_variance(0.1) / 0.1**2, rel=2e-4)
    formula = sign.stationary_variance(Quadratic(np.ones(1)), 3.0, 1.0, theory.discrete)
    assert formula[0] == pytest.approx(exact[0], rel=5e-3)


def test_noiseless_chains_alternate():
    """Their variance over both phases of the alternation and over starts is the floor."""
    starts = ETA * (np.arange(32) + 0.5) / 32
    second = [
        sign.lattice_moments(
            lambda x: 3 * x, lambda z: np.heaviside(z, 0.5), ETA, u, 7, {"xx": np.square}
        )["xx"][-2:]
        for u in starts
    ]
    assert np.mean(second) == pytest.approx(sign.noiseless_variance(ETA), rel=5e-4)


def test_published_variance_misses_the_algorithm():
    """At η λ/σ = 0.2: the published formula by 15 %, the corrected one by less than 0.2 %."""
    problem, sigma = Quadratic(np.ones(1)), 5.0
    exact = discrete_variance(sigma, INF)
    published = sign.stationary_variance(problem, sigma, 1.0, linearised=True)[0]
    corrected = sign.stationary_variance(problem, sigma, 1.0, theory.discrete)[0]
    assert exact / published - 1 == pytest.approx(0.148, abs=2e-3)
    assert exact / corrected - 1 == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize("nu", [1.0, INF])
def test_stationary_excess_loss_solves_lyapunov(nu):
    H = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.25], [0.0, -0.25, 0.5]])
    drift = 2 * noise(nu).pdf(0) / 1.7 * H
    cov = scipy.linalg.solve_continuous_lyapunov(drift, ETA * np.eye(3))
    found = sign.stationary_excess_loss(3, ETA, 1.7, nu)
    assert found == pytest.approx(np.trace(H @ cov) / 2, rel=1e-12)


def test_stationary_excess_loss_is_the_leading_order_of_the_variances():
    lam = np.array([0.5, 2.0])
    variance = sign.stationary_variance(Quadratic(lam), 3.0, 1e-8)
    assert sign.stationary_excess_loss(2, 1e-8, 3.0) == pytest.approx(lam @ variance / 2, rel=1e-7)


def test_what_has_no_law_is_refused():
    problem, x0 = Quadratic(np.ones(2)), np.ones(2)
    with pytest.raises(InputError, match="diagonal hessian"):
        sign.moments(Quadratic(np.eye(2)), 1.0, ETA, x0, 1.0)
    with pytest.raises(InputError, match="scale must be a scalar"):
        sign.moments(problem, np.ones(3), ETA, x0, 1.0)
    with pytest.raises(InputError, match="scale must be positive"):
        sign.moments(problem, 0.0, ETA, x0, 1.0)
    with pytest.raises(InputError, match="x0 must have shape"):
        sign.moments(problem, 1.0, ETA, np.ones(3), 1.0)
    with pytest.raises(InputError, match="multiples"):
        sign.moments(problem, 1.0, ETA, x0, 0.25, theory.discrete)
    with pytest.raises(InputError, match="positive in every entry"):
        sign.stationary_variance(Quadratic(np.array([1.0, 0.0])), 1.0, ETA)
    with pytest.raises(InputError, match="unstable"):
        sign.stationary_variance(problem, 0.07, ETA, theory.discrete, linearised=True)
    with pytest.raises(InputError, match="unstable"):
        sign.stationary_variance(problem, 0.1, ETA, theory.em(0.5), linearised=True)
    with pytest.raises(InputError, match="dimension"):
        sign.stationary_excess_loss(0, ETA, 1.0)
    with pytest.raises(InputError, match="learning_rate"):
        sign.noiseless_variance(0.0)
