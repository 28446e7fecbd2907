"""SAM: its perturbation under Gaussian noise, the law near critical points, noise-free paths."""

import numpy as np
import pytest
import scipy.stats
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.legendre import leggauss
from scipy.integrate import solve_ivp

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import sharpness

SIGMA, RHO = 0.25, 0.125
MINIMUM = np.array([[2.0, 0.5], [0.5, 1.0]])
SADDLE = np.array([[1.0, 0.75], [0.75, -2.0]])
NODES = leggauss(200)
LAWS = [theory.discrete, theory.em(0.5), theory.sde]


def polar(r, d):
    """Quadrature over w = g + Z in units of σ, d ≥ 2: s = |w|, the angle θ of w to g, weights.

    The density of (s, θ) is s^(d-1) sin^(d-2)θ e^(-(s² + r² - 2 s r cos θ)/2) up to a constant,
    which the weights leave out.
    """
    x, weight = NODES
    radius, angle = np.hypot(r, np.sqrt(d)), np.arctan2(np.sqrt(d - 1), r)
    s_ends = np.maximum(radius + np.array([-14, 14]), 0)
    theta_ends = np.clip(angle + np.array([-14, 14]) / radius, 0, np.pi)
    s, theta = (np.mean(ends) + np.diff(ends) / 2 * x for ends in (s_ends, theta_ends))
    s, theta = s[:, None], theta[None, :]
    log = (d - 1) * np.log(s) + (d - 2) * np.log(np.sin(theta)) - 2 * s * r * np.sin(theta / 2) ** 2
    log = log - (s - r) ** 2 / 2
    density = weight[:, None] * weight * np.exp(log - np.max(log))
    return s, theta, density / np.sum(density)


@pytest.mark.parametrize("d", [2, 3, 20, 1000])
@pytest.mark.parametrize("r", [1e-6, 0.3, 1.0, 4.0, 9.9, 10.1, 20.1, 60.0])
def test_the_direction_of_a_noisy_gradient_by_quadrature(d, r):
    """Both sides of q = r²/2 = 50 and 200, where the expansions begin for d = 2, 3 and for 20."""
    s, theta, weight = polar(r, d)

    def mean(values):
        return np.sum(weight * values)

    g, lack = r * SIGMA, 2 * np.sin(theta / 2) ** 2  # 1 - cos θ
    along, across = s * np.cos(theta) - r, s * np.sin(theta)  # of Z
    a = 1 - mean(lack)
    assert sharpness.mean_norm(g, SIGMA, d) == pytest.approx(SIGMA * mean(s), rel=1e-11)
    # a ~ r is a small difference of the quadrature's where r is small
    assert sharpness.mean_direction(g, SIGMA, d) == pytest.approx(a, rel=1e-11, abs=1e-13)
    M = sharpness.direction_jacobian(g, SIGMA, d)
    assert M.along == pytest.approx(mean(along * (mean(lack) - lack)) / SIGMA, rel=1e-9)
    assert M.across == pytest.approx(mean(across * np.sin(theta)) / (d - 1) / SIGMA, rel=1e-11)
    C = sharpness.direction_covariance(g, SIGMA, d)
    assert C.along == pytest.approx(mean((lack - mean(lack)) ** 2), rel=1e-9 * max(d / 10, 1))
    assert C.across == pytest.approx(mean(np.sin(theta) ** 2) / (d - 1), rel=1e-11)


def test_the_direction_in_one_dimension():
    r = np.array([0.0, 1e-9, 0.5, 2.0, 5.0, 50.0])
    normal, g = scipy.stats.norm, r * SIGMA
    folded = 2 * normal.pdf(r) + r * (1 - 2 * normal.cdf(-r))
    np.testing.assert_allclose(sharpness.mean_norm(g, SIGMA, 1), SIGMA * folded, rtol=1e-14)
    a = np.array([2 * (normal.cdf(x) - 0.5) if x > 1e-3 else 2 * x * normal.pdf(0) for x in r])
    np.testing.assert_allclose(sharpness.mean_direction(g, SIGMA, 1), a, rtol=1e-14)
    jacobian = sharpness.direction_jacobian(g, SIGMA, 1).along
    np.testing.assert_allclose(jacobian, 2 * normal.pdf(r) / SIGMA, rtol=1e-12)
    variance = sharpness.direction_covariance(g, SIGMA, 1).along
    np.testing.assert_allclose(variance, 1 - a**2, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("d", [1, 2, 3, 20, 10_000])
def test_limits_of_the_direction(d):
    """At g = 0, and r²/σ² = 10¹⁶ where only the leading terms are left."""
    slope = sharpness.direction_slope(d)
    assert np.all(np.array(sharpness.direction_covariance(0.0, SIGMA, d)) == pytest.approx(1 / d))
    M = sharpness.direction_jacobian(0.0, SIGMA, d)
    assert M == pytest.approx((slope / SIGMA, slope / SIGMA), rel=1e-13)
    assert sharpness.mean_norm(0.0, SIGMA, d) == pytest.approx(
        SIGMA * scipy.stats.chi(d).mean(), rel=1e-11
    )
    r = SIGMA * 1e8
    assert sharpness.mean_norm(r, SIGMA, d) == pytest.approx(r, rel=1e-11)
    assert sharpness.mean_direction(r, SIGMA, d) == pytest.approx(1, rel=1e-11)
    M = sharpness.direction_jacobian(r, SIGMA, d)
    assert M.across == pytest.approx(1 / r, rel=1e-11)
    assert M.along == pytest.approx((d - 1) * SIGMA**2 / r**3, rel=1e-10, abs=1e-300)
    C = sharpness.direction_covariance(r, SIGMA, d)
    assert C.across == pytest.approx(1e-16, rel=1e-11)
    assert C.along == pytest.approx((d - 1) / 2 * 1e-32, rel=1e-10)


def test_slopes_by_hand():
    for d, slope in [(1, np.sqrt(2 / np.pi)), (2, np.sqrt(np.pi / 8)), (3, np.sqrt(8 / np.pi) / 3)]:
        assert sharpness.direction_slope(d) == pytest.approx(slope, rel=1e-14)
        found = sharpness.effective_rho(RHO, np.array([SIGMA, 2 * SIGMA]), d)
        np.testing.assert_allclose(found, RHO * slope / SIGMA * np.array([1, 0.5]), rtol=1e-14)
    assert sharpness.direction_slope(10**6) * 1e3 == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("H", [MINIMUM, SADDLE, np.diag([1.0, -3.0])])
@pytest.mark.parametrize("gradient", [[0.0, 0.0], [0.125, -0.25], [3.0, 1.0]])
def test_drift_and_covariance_are_those_of_one_step(H, gradient):
    """Mean and covariance of g + Z + ρ H (g + Z)/|g + Z| by quadrature over the plane."""
    g = np.array(gradient)
    r = np.linalg.norm(g)
    s, theta, weight = polar(r / SIGMA, 2)
    unit = g / r if r else np.array([1.0, 0.0])
    normal = np.array([-unit[1], unit[0]])
    theta, weight = np.stack([theta, -theta])[..., None], np.stack([weight, weight]) / 2
    u = np.cos(theta) * unit + np.sin(theta) * normal

    def covariance(rho):
        step = SIGMA * s[..., None] * u + rho * u @ H
        mean = np.einsum("snm,snmi->i", weight, step)
        centred = step - mean
        return mean, np.einsum("snm,snmi,snmj->ij", weight, centred, centred)

    mean, S = covariance(RHO)
    np.testing.assert_allclose(sharpness.sam_drift(H, g, SIGMA, RHO), -mean, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(sharpness.sam_covariance(H, g, SIGMA, RHO), S, atol=1e-12)
    linear = SIGMA**2 * np.eye(2) + (S - covariance(-RHO)[1]) / 2
    found = sharpness.sam_covariance(H, g, SIGMA, RHO, first_order=True)
    np.testing.assert_allclose(found, linear, atol=1e-12)


def test_many_gradients_at_once():
    H, g = np.array([1.0, -3.0]), np.array([[[0.0, 0.0]], [[0.5, 1.0]]])
    drift, S = sharpness.sam_drift(H, g, SIGMA, RHO), sharpness.sam_covariance(H, g, SIGMA, RHO)
    assert S.shape == (2, 1, 2, 2)
    for i in range(2):
        one = np.diag(H), g[i, 0], SIGMA, RHO
        np.testing.assert_allclose(drift[i, 0], sharpness.sam_drift(*one), rtol=1e-14)
        np.testing.assert_allclose(S[i, 0], sharpness.sam_covariance(*one), rtol=1e-14)


def test_the_drift_descends_on_the_regularised_loss():
    H = np.array([[2.0, 0.5, -0.75], [0.5, -1.0, 0.25], [-0.75, 0.25, 1.5]])
    x, e = np.array([0.25, -0.125, 0.5]), 1e-4 * np.eye(3)
    for sigma in [0.05, 0.5, 5.0]:

        def loss(x, sigma=sigma):
            g = H @ x
            return x @ g / 2 + sharpness.sam_gaussian_regularizer(g, sigma, RHO)

        slope = [(loss(x + d) - loss(x - d)) / 2e-4 for d in e]
        drift = sharpness.sam_drift(H, H @ x, sigma, RHO)
        np.testing.assert_allclose(drift, -np.array(slope), rtol=1e-6)


def gaussian_plane(covariance):
    """Nodes and weights of N(0, C) in the plane."""
    x, weight = hermegauss(20)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    weights = np.outer(weight, weight).ravel() / (2 * np.pi)
    return grid @ np.linalg.cholesky(covariance).T, weights


def imbalance(H, eta, rho, law, first_order):
    """How fast E y yᵀ of SAM moves away from the law N(0, V), as a share of V."""
    V = sharpness.sam_stationary_covariance(
        Quadratic(H), SIGMA, eta, rho, law, first_order=first_order
    )
    y, weight = gaussian_plane(V)
    b = sharpness.sam_drift(H, y @ H, SIGMA, rho)
    S = sharpness.sam_covariance(H, y @ H, SIGMA, rho, first_order=first_order)
    h = eta if law == theory.discrete else law.step
    yb, bb = (np.einsum("n,ni,nj->ij", weight, z, b) for z in (y, b))
    moved = yb + yb.T + h * bb + eta * np.einsum("n,nij->ij", weight, S)
    return np.linalg.norm(moved) / np.linalg.norm(V)


@pytest.mark.parametrize("step", ["discrete", "em", "sde"])
@pytest.mark.parametrize(
    ("H", "rho", "first_order"),
    [(MINIMUM, RHO, False), (MINIMUM, RHO, True), (SADDLE, 0.75, False)],
)
def test_stationary_covariances_balance_near_critical_points(H, rho, first_order, step):
    """What the linear theory leaves out is of order η: it halves with η, and h for em is η/4."""
    shares = []
    for eta in (2.0**-9, 2.0**-10, 2.0**-11):
        law = theory.em(eta / 4) if step == "em" else getattr(theory, step)
        shares.append(imbalance(H, eta, rho, law, first_order))
    assert shares[2] < 0.02
    np.testing.assert_allclose(np.divide(shares[:-1], shares[1:]), 2, rtol=0.05)


def test_stationary_variances_by_hand():
    eta, rho, lam, slope = 0.125, 0.0625, np.array([1.0, 0.5]), np.sqrt(np.pi / 8)
    kappa = 1 + rho * slope / SIGMA * lam
    full = SIGMA**2 * (1 + 2 * rho * slope / SIGMA * lam) + rho**2 * lam**2 / 2
    args = Quadratic(lam), SIGMA, eta, rho
    v = eta * full / (2 * lam * kappa)
    np.testing.assert_allclose(sharpness.sam_stationary_covariance(*args), np.diag(v), atol=1e-16)
    np.testing.assert_allclose(
        np.diag(sharpness.sam_stationary_covariance(*args, theory.discrete)),
        v / (1 - eta * lam * kappa / 2),
    )
    theorem = sharpness.sam_stationary_covariance(*args, first_order=True)
    np.testing.assert_allclose(1 - np.diag(theorem) / v, rho**2 * lam**2 / 2 / full)


@pytest.mark.parametrize("d", [1, 2, 20])
def test_the_edge_of_capture(d):
    """Where the drift across the saddle, next to it, turns round."""
    lam = np.linspace(-0.5, -3.0, d)
    problem, gradient = Quadratic(lam), np.eye(d)[0] * -0.5e-3
    edge = sharpness.sam_capture_rho(problem, SIGMA)
    attracted = [
        sharpness.sam_drift(lam, gradient, SIGMA, s * edge)[0] < 0 for s in (0.9999, 1.0001)
    ]
    assert attracted == [False, True]
    with pytest.raises(InputError, match=f"-0.5 attracts for rho > {edge:g} only"):
        sharpness.sam_stationary_covariance(problem, SIGMA, 0.01, 0.9999 * edge)
    sharpness.sam_stationary_covariance(problem, SIGMA, 0.01, 1.0001 * edge)
    with pytest.raises(InputError, match="first-order variance is negative"):
        sharpness.sam_stationary_covariance(problem, SIGMA, 0.01, 1.5 * edge, first_order=True)
    assert sharpness.sam_capture_rho(Quadratic(-lam), SIGMA) == 0


@pytest.mark.parametrize("rho", [0.03125, 0.125])
@pytest.mark.parametrize("lam", [2.0, -1.0])
def test_hitting_times_by_integrating_the_ode(lam, rho):
    start, small = 0.03, 1e-6
    H, x0 = lam * np.eye(2), start * np.array([0.6, 0.8])

    def rate(_, x):
        return -H @ (x + rho * H @ x / np.linalg.norm(H @ x))

    def arrival(_, x):
        return np.linalg.norm(x) - small

    arrival.terminal = True
    end = solve_ivp(rate, (0, 100), x0, rtol=1e-11, atol=1e-13, events=arrival).t[-1]
    found = sharpness.sam_hitting_time(lam, start, 0.1, rho)
    assert found == pytest.approx(end + small / (abs(lam) * rho), rel=1e-7)


@pytest.mark.parametrize("law", [theory.discrete, theory.em(0.0625)])
@pytest.mark.parametrize("lam", [2.0, -1.0])
def test_hitting_times_of_the_chain(lam, law):
    """From starts found by running the steps backwards from the point, and between them."""
    eta, rho, s, r = 0.125, 0.25, np.sign(lam), 0.0
    h = eta if law == theory.discrete else law.step
    starts = []
    for _ in range(6):
        r = (r + h * lam * s * rho) / (1 - h * lam)
        starts.append(r)
    found = sharpness.sam_hitting_time(lam, starts, eta, rho, law)
    np.testing.assert_allclose(found, h * np.arange(1, 7), rtol=1e-12)
    for start in np.linspace(0.02, 0.2, 7):
        x, k = start, 0
        while x > 0:
            x, k = x - h * lam * (x + rho * np.sign(lam * x)), k + 1
        found = sharpness.sam_hitting_time(lam, start, eta, rho, law)
        assert (k - 1) * h < found <= k * h


def test_hitting_times_of_em_tend_to_the_odes():
    for lam in (2.0, -1.0):
        args = lam, np.array([0.02, 0.1]), 0.125, 0.25
        coarse, fine = (sharpness.sam_hitting_time(*args, theory.em(2.0**-k)) for k in (9, 10))
        np.testing.assert_allclose(2 * fine - coarse, sharpness.sam_hitting_time(*args), rtol=1e-5)


@pytest.mark.parametrize("law", LAWS)
def test_the_unstable_equilibrium_is_never_left_inwards(law):
    found = sharpness.sam_hitting_time(-1.0, [0.249, 0.25, 0.5], 0.125, 0.25, law)
    np.testing.assert_array_equal(np.isinf(found), [False, True, True])
    x = np.array([0.25, 0.5])
    moved = x + 0.125 * (x - 0.25)  # the algorithm's step for λ = -1
    np.testing.assert_array_equal(moved > x, [False, True])


@pytest.mark.parametrize("reach", [0.25, 1.0, 1.75])
def test_the_two_cycle(reach):
    eta, rho = 0.125, 0.25
    lam, x = reach / eta, np.array([1e-3, 0.07, -3.0])
    for _ in range(400):
        before, x = x, x - eta * lam * (x + rho * np.sign(x))
    amplitude = sharpness.sam_cycle_amplitude(lam, eta, rho)
    np.testing.assert_allclose(np.abs(x), amplitude, rtol=1e-12)
    np.testing.assert_allclose(x, -before, rtol=1e-12)


def test_the_band_at_a_captured_maximum():
    eta, rho, lam = 0.125, 0.25, -2.0
    x = np.linspace(-0.99 * rho, 0.99 * rho, 101)
    for _ in range(400):
        x = x - eta * lam * (x + rho * np.sign(lam * x))
    assert np.max(np.abs(x)) <= eta * 2 * rho * (1 + 1e-12)
    assert np.std(np.abs(x)) > 0.1 * eta * 2 * rho


def test_within_the_capture_radius_the_gradient_falls():
    H = np.array([[1.0, 0.5, -0.75], [0.5, -2.0, 0.25], [-0.75, 0.25, -0.5]])
    lam, V = np.linalg.eigh(H)
    assert np.sum(lam < 0) == 2
    rho = 0.25
    radius = sharpness.sam_capture_radius(Quadratic(H), rho)
    assert radius == pytest.approx(rho * -np.max(lam[lam < 0]), rel=1e-12)

    def rate(_, x):
        g = H @ x
        return -(g + rho * H @ g / np.linalg.norm(g))

    def norms(direction, size, end):
        x0 = size * radius * np.linalg.solve(H, direction / np.linalg.norm(direction))
        path = solve_ivp(rate, (0, end), x0, rtol=1e-9, atol=1e-12, max_step=0.05).y
        return np.linalg.norm(H @ path, axis=0)

    weakest = V[:, lam == np.max(lam[lam < 0])][:, 0]
    rng = np.random.default_rng(0)
    for direction in [weakest, *rng.normal(size=(5, 3))]:
        n = norms(direction, 0.99, 0.1)
        assert np.all(np.diff(n) < 0)
    assert np.all(np.diff(norms(weakest, 1.01, 1.0)) > 0)
    assert sharpness.sam_capture_radius(Quadratic(np.array([1.0, 2.0])), rho) == np.inf


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sharpness.direction_slope(0), "dimension"),
        (lambda: sharpness.mean_norm(-1.0, 1.0, 2), "gradient_norm"),
        (lambda: sharpness.mean_norm(1.0, 0.0, 2), "sigma"),
        (lambda: sharpness.mean_direction(1.0, 1.0, 1.5), "dimension"),
        (lambda: sharpness.direction_jacobian(np.nan, 1.0, 2), "gradient_norm"),
        (lambda: sharpness.direction_covariance(1.0, -1.0, 2), "sigma"),
        (lambda: sharpness.effective_rho(0.0, 1.0, 2), "rho"),
        (lambda: sharpness.sam_drift(np.eye(3), np.ones(2), 1.0, 0.1), "hessian must be (2,)"),
        (lambda: sharpness.sam_drift(np.eye(2), 1.0, 1.0, 0.1), "hessian must be (0,)"),
        (
            lambda: sharpness.sam_covariance([[1.0, 2.0], [0.0, 1.0]], np.ones(2), 1.0, 0.1),
            "hessian must be symmetric",
        ),
        (lambda: sharpness.sam_covariance(np.eye(2), np.ones(2), 0.0, 0.1), "sigma"),
        (lambda: sharpness.sam_covariance(np.eye(2), np.ones(2), 1.0, -0.1), "rho"),
        (
            lambda: sharpness.sam_stationary_covariance(Quadratic([1.0]), SIGMA, 0.1, 0.0),
            "rho must be positive",
        ),
        (
            lambda: sharpness.sam_stationary_covariance(Quadratic([1.0]), [SIGMA], 0.1, RHO),
            "sigma must be one number",
        ),
        (
            lambda: sharpness.sam_stationary_covariance(Quadratic([1.0, 0.0]), SIGMA, 0.1, RHO),
            "the curvature 0 attracts for rho > inf only",
        ),
        (
            lambda: sharpness.sam_stationary_covariance(
                Quadratic([16.0]), SIGMA, 0.125, RHO, theory.discrete
            ),
            "unstable, step * curvature",
        ),
        (lambda: sharpness.sam_capture_rho(Quadratic([1.0]), 0.0), "sigma"),
        (lambda: sharpness.sam_capture_radius(Quadratic([1.0]), 0.0), "rho"),
        (lambda: sharpness.sam_hitting_time(0.0, 1.0, 0.1, RHO), "curvature must not be 0"),
        (lambda: sharpness.sam_hitting_time(1.0, 0.0, 0.1, RHO), "radius"),
        (lambda: sharpness.sam_hitting_time(1.0, 1.0, 0.1, 0.0), "rho"),
        (
            lambda: sharpness.sam_hitting_time(10.0, 1.0, 0.125, RHO, theory.discrete),
            "crosses over: step * curvature = 1.25 >= 1",
        ),
        (lambda: sharpness.sam_cycle_amplitude(-1.0, 0.1, RHO), "curvature must be positive"),
        (lambda: sharpness.sam_cycle_amplitude(16.0, 0.125, RHO), "curvature = 2 >= 2"),
        (lambda: sharpness.sam_gaussian_regularizer(np.ones(2), 0.0, RHO), "sigma"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError) as raised:
        call()
    assert words in str(raised.value)
