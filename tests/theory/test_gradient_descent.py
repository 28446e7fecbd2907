import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from scipy.integrate import quad, solve_ivp

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import gradient_descent as gd

# Entries that float32 holds exactly, since problems live in JAX's precision.
H = np.array([[2.0, 0.5, 0.25], [0.5, 1.0, -0.25], [0.25, -0.25, 0.5]])
SADDLE = H - np.diag([0.0, 0.0, 1.5])
COVARIANCE = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 2.0]])
MINIMIZER = np.array([0.5, -1.0, 0.25])
X0 = np.array([2.0, 1.0, -1.5])
ETA = 0.1


def modified(hessian, order):
    return hessian + (ETA / 2 * hessian @ hessian if order == 2 else 0)


def looped(hessian, step, steps):
    """E x and Cov x of x⁺ = x - h H (x - x*) + √(η h) Σ^(1/2) ξ, step by step."""
    A = np.eye(3) - step * hessian
    mean, cov = X0, np.zeros((3, 3))
    for _ in range(steps):
        mean = MINIMIZER + A @ (mean - MINIMIZER)
        cov = A @ cov @ A.T + ETA * step * COVARIANCE
    return mean, cov


@pytest.mark.parametrize("hessian", [H, SADDLE])
@pytest.mark.parametrize(
    ("law", "order", "step"),
    [(theory.discrete, 1, ETA), (theory.em(0.025), 1, 0.025), (theory.em(0.025), 2, 0.025)],
)
def test_moments_of_chains_by_looping(hessian, law, order, step):
    steps = [0, 4, 40]
    time = step * np.array(steps)
    found = gd.moments(Quadratic(hessian, MINIMIZER), COVARIANCE, ETA, X0, time, law, order)
    for k, mean, cov in zip(steps, *found, strict=True):
        expected_mean, expected_cov = looped(modified(hessian, order), step, k)
        np.testing.assert_allclose(mean, expected_mean, rtol=1e-12)
        np.testing.assert_allclose(cov, expected_cov, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("hessian", [H, SADDLE])
@pytest.mark.parametrize("order", [1, 2])
def test_moments_of_the_sde_by_integrating_their_equations(hessian, order):
    A, time = modified(hessian, order), np.array([0.5, 3.0])

    def rates(_, z):
        mean, cov = z[:3], z[3:].reshape(3, 3)
        return np.append(-A @ (mean - MINIMIZER), -A @ cov - cov @ A + ETA * COVARIANCE)

    start = np.append(X0, np.zeros(9))
    solved = solve_ivp(rates, (0, 3), start, t_eval=time, rtol=1e-10, atol=1e-12).y.T
    found = gd.moments(Quadratic(hessian, MINIMIZER), COVARIANCE, ETA, X0, time, theory.sde, order)
    np.testing.assert_allclose(found.mean, solved[:, :3], rtol=1e-8)
    np.testing.assert_allclose(found.covariance.reshape(2, 9), solved[:, 3:], rtol=1e-7, atol=1e-9)
    assert found.mean.dtype == np.float64


def test_diagonals_and_matrices_agree():
    h, c = np.array([2.0, -0.5]), np.array([0.5, 0.25])
    x0, time = np.array([1.0, -2.0]), np.array([[0.1, 0.2], [0.3, 2.0]])
    short = gd.moments(Quadratic(h), c, ETA, x0, time)
    long = gd.moments(Quadratic(np.diag(h)), np.diag(c), ETA, x0, time)
    assert short.mean.shape == (2, 2, 2)
    assert short.covariance.shape == (2, 2, 2, 2)
    np.testing.assert_allclose(short.mean, long.mean, rtol=1e-14)
    np.testing.assert_allclose(short.covariance, long.covariance, rtol=1e-14)


def test_singular_covariances_are_covariances():
    problem = Quadratic(np.array([2.0, 0.5]))
    found = gd.stationary_covariance(problem, np.ones((2, 2)), ETA)
    np.testing.assert_allclose(found, ETA / np.array([[4.0, 2.5], [2.5, 1.0]]), rtol=1e-12)


def test_flat_directions_diffuse():
    flat = gd.moments(Quadratic(np.zeros(2)), np.array([1.0, 4.0]), ETA, np.ones(2), 3.0)
    np.testing.assert_allclose(flat.mean, np.ones(2))
    np.testing.assert_allclose(flat.covariance, ETA * 3 * np.diag([1.0, 4.0]))


@pytest.mark.parametrize(("order", "slope"), [(1, 1), (2, 2)])
def test_the_sde_has_the_weak_order_it_claims(order, slope):
    """E f at t = 1; noise-free, so the slope is off by the next order in η only."""
    problem, errors = Quadratic(H, MINIMIZER), []
    for eta in (0.01, 0.005):
        chain = gd.moments(problem, COVARIANCE, eta, X0, 1.0, theory.discrete)
        sde = gd.moments(problem, COVARIANCE, eta, X0, 1.0, theory.sde, order)
        errors.append(theory.expected_loss(problem, chain) - theory.expected_loss(problem, sde))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(slope, abs=0.05)


@pytest.mark.parametrize("order", [1, 2])
def test_expected_loss_under_noise_of_covariance_hessian_squared(order):
    lam, x0, t = np.array([2.0, 0.5]), np.array([1.0, -3.0]), 0.7
    problem = Quadratic(lam)
    found = theory.expected_loss(
        problem, gd.moments(problem, lam**2, ETA, x0, t, theory.sde, order)
    )
    if order == 1:
        decay, level = np.exp(-2 * lam * t), ETA / 4 * lam**2
    else:
        decay = np.exp(-lam * (2 + ETA * lam) * t)
        level = ETA / 2 * lam**2 / (2 + ETA * lam)
    expected = np.sum(lam * x0**2 * decay / 2 + level * (1 - decay))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_stationary_covariance_of_the_sde_solves_lyapunov(order):
    A = modified(H, order)
    expected = scipy.linalg.solve_continuous_lyapunov(A, ETA * COVARIANCE)
    found = gd.stationary_covariance(Quadratic(H), COVARIANCE, ETA, theory.sde, order)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("law", "order", "step"), [(theory.discrete, 1, ETA), (theory.em(0.4), 2, 0.4)]
)
def test_stationary_covariance_of_chains_solves_lyapunov(law, order, step):
    A = np.eye(3) - step * modified(H, order)
    expected = scipy.linalg.solve_discrete_lyapunov(A, ETA * step * COVARIANCE)
    found = gd.stationary_covariance(Quadratic(H), COVARIANCE, ETA, law, order)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-15)


def test_stationary_covariance_in_one_dimension():
    problem, variance = Quadratic(np.array([2.0])), np.array([9.0])
    algorithm = gd.stationary_covariance(problem, variance, ETA, theory.discrete)
    assert algorithm[0, 0] == pytest.approx(ETA * 9 / (2 * (2 - ETA * 2)))
    assert gd.stationary_covariance(problem, variance, ETA)[0, 0] == pytest.approx(ETA * 9 / 4)


def bound(time, **changes):
    constants = {"learning_rate": ETA, "mu": 0.5, "hessian_trace": 3.5, "sigma_max": 1.5}
    return gd.loss_bound(2.0, time, **(constants | changes))


def test_loss_bound_is_an_equality_for_isotropic_quadratics():
    problem = Quadratic(np.full(3, 0.5))
    x0, time = np.array([2.0, 0.0, -2.0]), np.linspace(0, 5, 6)
    loss = theory.expected_loss(problem, gd.moments(problem, np.full(3, 1.125), ETA, x0, time))
    found = bound(time, hessian_trace=1.5, batch_size=2)
    np.testing.assert_allclose(found, loss, rtol=1e-12)


def test_loss_bound_holds_for_anisotropic_quadratics():
    problem = Quadratic(np.array([0.5, 1.0, 2.0]))
    x0, time = np.array([0.0, 0.0, np.sqrt(2.0)]), np.linspace(0.1, 9, 20)
    loss = theory.expected_loss(
        problem, gd.moments(problem, np.array([2.25, 1.0, 0.25]), ETA, x0, time)
    )
    assert np.all(loss < bound(time))


def test_student_t_covariance_is_the_variance():
    assert gd.student_t_covariance(3.0, 2.5) == pytest.approx(scipy.stats.t(2.5, scale=3.0).var())
    with pytest.raises(InputError, match="infinite"):
        gd.student_t_covariance(1.0, 2.0)


HEAVY = {"curvature": 1.5, "scale": 0.7, "learning_rate": 0.2, "x0": 2.0}
POINTS = np.array([-1e8, -30.0, -1.0, 0.2, 1.4, 1.400001, 1.7, 5.0, 1e4])


@pytest.mark.parametrize("nu", [0.3, 0.5, 1.0, 2.0, 3.7, 30.0, 100.0])
def test_student_t_after_one_step(nu):
    found = gd.student_t_cdf(POINTS, degrees_of_freedom=nu, steps=1, **HEAVY)
    exact = scipy.stats.t.cdf(POINTS, nu, loc=0.7 * 2, scale=0.2 * 0.7)
    np.testing.assert_allclose(found, exact, atol=1e-11, rtol=0)


@pytest.mark.parametrize("curvature", [1.5, 0.1, 7.5, -0.5])  # q = .7, .98, -.5, 1.1
@pytest.mark.parametrize("steps", [2, 40])
def test_student_t_of_one_degree_is_cauchy(curvature, steps):
    q = 1 - 0.2 * curvature
    scale = 0.2 * 0.7 * (1 - abs(q) ** steps) / (1 - abs(q))
    law = scipy.stats.cauchy(q**steps * 2, scale)
    settings = HEAVY | {"curvature": curvature, "degrees_of_freedom": 1.0, "steps": steps}
    found = gd.student_t_cdf(POINTS, **settings)
    np.testing.assert_allclose(found, law.cdf(POINTS), atol=1e-12, rtol=0)
    p = np.array([[1e-6, 0.025], [0.5, 0.999]])
    np.testing.assert_allclose(gd.student_t_quantile(p, **settings), law.ppf(p), rtol=1e-6)


@pytest.mark.parametrize("nu", [0.7, 1.5, 4.0])
@pytest.mark.parametrize("curvature", [1.5, 7.5])
def test_student_t_after_two_steps_by_convolution(nu, curvature):
    q, unit, t = 1 - 0.2 * curvature, 0.2 * 0.7, scipy.stats.t(nu)
    settings = HEAVY | {"curvature": curvature, "degrees_of_freedom": nu, "steps": 2}
    for x in (-0.3, 1.1, 4.0):

        def mass(angle, x=x):
            first = np.tan(angle)
            below = t.cdf((x - q**2 * 2 - unit * q * first) / unit)
            return t.pdf(first) * below / np.cos(angle) ** 2

        exact = quad(mass, -np.pi / 2, np.pi / 2, epsabs=1e-9, limit=200)[0]
        assert gd.student_t_cdf(x, **settings) == pytest.approx(exact, abs=1e-7)


def test_many_student_t_steps_with_variance_are_nearly_gaussian():
    """Excess kurtosis of the sum is 6/96 / 200: the CDFs differ by less than 10⁻⁴."""
    settings = {"curvature": 0.0, "scale": 1.0, "learning_rate": 0.1, "x0": 1.0}
    sd = 0.1 * np.sqrt(200 * gd.student_t_covariance(1.0, 100.0))
    x = 1 + sd * np.array([-2.0, -0.5, 1.0, 3.0])
    found = gd.student_t_cdf(x, degrees_of_freedom=100.0, steps=200, **settings)
    np.testing.assert_allclose(found, scipy.stats.norm.cdf(x, 1, sd), atol=1e-4, rtol=0)


def test_student_t_quantiles_reach_into_the_heaviest_tails():
    p = np.array([1e-8, 0.3, 1 - 1e-6])
    found = gd.student_t_quantile(p, degrees_of_freedom=0.2, steps=1, **HEAVY)
    exact = scipy.stats.t.ppf(p, 0.2, loc=0.7 * 2, scale=0.2 * 0.7)
    np.testing.assert_allclose(found, exact, rtol=1e-3)


def test_student_t_quantiles_invert_the_distribution():
    settings = HEAVY | {"degrees_of_freedom": 1.7, "steps": 25}
    p = np.array([1e-8, 0.1, 0.77, 1 - 1e-8])
    x = gd.student_t_quantile(p, **settings)
    np.testing.assert_allclose(gd.student_t_cdf(x, **settings), p, atol=1e-12, rtol=0)


def test_what_has_no_law_is_refused():
    problem, ones = Quadratic(np.array([1.0, 30.0])), np.ones(2)
    with pytest.raises(InputError, match="unstable"):
        gd.stationary_covariance(problem, ones, ETA, theory.discrete)
    with pytest.raises(InputError, match="eigenvalue -1"):
        gd.stationary_covariance(Quadratic(np.array([1.0, -1.0])), ones, ETA)
    with pytest.raises(InputError, match="eigenvalue 0"):
        gd.stationary_covariance(Quadratic(np.array([1.0, 0.0])), ones, ETA)
    with pytest.raises(InputError, match="order 2"):
        gd.moments(problem, ones, ETA, ones, 1.0, theory.discrete, order=2)
    with pytest.raises(InputError, match="order must be"):
        gd.moments(problem, ones, ETA, ones, 1.0, order=3)
    with pytest.raises(InputError, match="multiples"):
        gd.moments(problem, ones, ETA, ones, 0.15, theory.discrete)
    with pytest.raises(InputError, match="covariance must be"):
        gd.moments(problem, np.ones(3), ETA, ones, 1.0)
    with pytest.raises(InputError, match="symmetric"):
        gd.moments(problem, np.array([[1.0, 0.5], [0.0, 1.0]]), ETA, ones, 1.0)
    with pytest.raises(InputError, match="negative eigenvalue"):
        gd.moments(problem, np.array([1.0, -1.0]), ETA, ones, 1.0)
    with pytest.raises(InputError, match="x0 must have shape"):
        gd.moments(problem, ones, ETA, np.ones(3), 1.0)
    with pytest.raises(InputError, match="mu must be positive"):
        bound(1.0, mu=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"degrees_of_freedom": 101.0}, "at most 100"),
        ({"degrees_of_freedom": 0.0}, "degrees_of_freedom"),
        ({"steps": 0}, "steps"),
        ({"scale": -1.0}, "scale"),
        ({"probability": 0.0}, "probability"),
        ({"probability": 1.0}, "probability"),
    ],
)
def test_bad_arguments_of_student_t_laws_are_refused(change, message):
    settings = HEAVY | {"degrees_of_freedom": 2.0, "steps": 3, "probability": 0.5} | change
    with pytest.raises(InputError, match=message):
        gd.student_t_quantile(**settings)
