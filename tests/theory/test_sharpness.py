"""USAM on quadratics, and what sharpness-aware minimisation adds to the loss."""

import itertools

import numpy as np
import pytest
import scipy.linalg

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import sharpness

ETA, RHO = 0.125, 0.375
X0 = np.array([1.25, -1.0, 0.5])
MINIMIZER = np.array([0.5, 0.0, -1.0])
MINIMUM = np.array([[2.0, 0.5, -0.75], [0.5, 1.0, 0.25], [-0.75, 0.25, 1.5]])
SADDLE = np.array([[1.0, 0.5, -0.75], [0.5, -2.0, 0.25], [-0.75, 0.25, 1.5]])
ROOT = np.array([[1.0, 0.25], [0.5, -1.0], [0.0, 0.75]])  # Σ = ROOT ROOTᵀ, of rank 2
SIGMA = ROOT @ ROOT.T
LAWS = [theory.discrete, theory.em(0.0625), theory.sde]
VARIANTS = [
    {},
    {"full_perturbation": True},
    {"micro_batches": 2},
    {"full_perturbation": True, "micro_batches": 2},
]


def sharpened(H, rho=RHO):
    """A = K H and K = I + ρ H."""
    K = np.eye(len(H)) + rho * H
    return K @ H, K


def step_noise(H, full_perturbation=False, micro_batches=1, rho=RHO):
    K = np.eye(len(H)) if full_perturbation else sharpened(H, rho)[1]
    return K @ SIGMA @ K / micro_batches


def mean_gradient(H, y, draws, full_perturbation):
    """The step of the algorithm, word for word: one perturbed gradient for each draw, averaged."""
    perturbed = [H @ (y + RHO * (H @ y + (0 if full_perturbation else z))) + z for z in draws]
    return np.mean(perturbed, axis=0)


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("H", [MINIMUM, SADDLE, np.diag([2.0, -0.5, 0.0])])
def test_discrete_moments_by_enumerating_two_point_noise(H, options):
    M = options.get("micro_batches", 1)
    signs = itertools.product(itertools.product([1, -1], repeat=2), repeat=M)
    draws = [[ROOT @ np.array(s) for s in each] for each in signs]
    paths = [X0 - MINIMIZER]
    found = sharpness.usam_moments(
        Quadratic(H, MINIMIZER), SIGMA, ETA, RHO, X0, ETA * np.arange(3), theory.discrete, **options
    )
    for k in range(3):
        mean = np.mean(paths, axis=0)
        covariance = np.cov(paths, rowvar=False, ddof=0) if k else np.zeros((3, 3))
        np.testing.assert_allclose(found.mean[k], MINIMIZER + mean, atol=1e-13)
        np.testing.assert_allclose(found.covariance[k], covariance, atol=1e-13)
        paths = [
            y - ETA * mean_gradient(H, y, z, "full_perturbation" in options)
            for y in paths
            for z in draws
        ]


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("H", [MINIMUM, SADDLE])
def test_moments_of_em_and_of_the_sde(H, options):
    """Em by its recursion in matrices, the SDE by its Lyapunov equation."""
    (A, _), noise, h, y0 = sharpened(H), ETA * step_noise(H, **options), 0.0625, X0 - MINIMIZER
    mean, covariance, B = y0, np.zeros((3, 3)), np.eye(3) - h * A
    for _ in range(12):
        mean, covariance = B @ mean, B @ covariance @ B.T + h * noise
    level = scipy.linalg.solve_continuous_lyapunov(A, noise)
    decay = scipy.linalg.expm(-12 * h * A)
    args = Quadratic(H, MINIMIZER), SIGMA, ETA, RHO, X0, [[0, 12 * h]]
    for law, expected in [
        (theory.em(h), (mean, covariance)),
        (theory.sde, (decay @ y0, level - decay @ level @ decay)),
    ]:
        found = sharpness.usam_moments(*args, law, **options)
        np.testing.assert_allclose(found.mean, [[X0, MINIMIZER + expected[0]]], rtol=1e-12)
        np.testing.assert_allclose(found.covariance[0, 1], expected[1], rtol=1e-10, atol=1e-13)
        np.testing.assert_array_equal(found.covariance[0, 0], 0)


def test_em_tends_to_the_sde():
    args = Quadratic(SADDLE), SIGMA, ETA, RHO, X0, 2.0
    limit = sharpness.usam_moments(*args)
    for part in ("mean", "covariance"):
        coarse, fine = (
            getattr(sharpness.usam_moments(*args, theory.em(2.0**-k)), part) for k in (11, 12)
        )
        np.testing.assert_allclose(2 * fine - coarse, getattr(limit, part), rtol=1e-5)
        error = np.max(np.abs(coarse - getattr(limit, part)))
        assert error / np.max(np.abs(fine - getattr(limit, part))) == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize(("H", "rho"), [(MINIMUM, RHO), (SADDLE, 0.75)])
def test_stationary_covariances_solve_their_lyapunov_equations(H, rho, options):
    problem, A = Quadratic(H, MINIMIZER), sharpened(H, rho)[0]
    noise = ETA * step_noise(H, rho=rho, **options)
    for law, expected in [
        (theory.sde, scipy.linalg.solve_continuous_lyapunov(A, noise)),
        *(
            (law, scipy.linalg.solve_discrete_lyapunov(np.eye(3) - h * A, h * noise))
            for law, h in [(theory.discrete, ETA), (theory.em(0.0625), 0.0625)]
        ),
    ]:
        found = sharpness.usam_stationary_covariance(problem, SIGMA, ETA, rho, law, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
        late = sharpness.usam_moments(problem, SIGMA, ETA, rho, X0, 256.0, law, **options)
        np.testing.assert_allclose(late.covariance, found, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(late.mean, MINIMIZER, atol=1e-9)


def test_one_direction_by_hand():
    """A minimum and a captured saddle, and the loss of isotropic noise."""
    for lam, rho in [(2.0, 0.25), (-2.0, 0.75)]:
        kappa, sigma = 1 + rho * lam, 0.5
        args = Quadratic(np.array([lam])), np.array([sigma**2]), ETA, rho
        level = sharpness.usam_stationary_covariance(*args)[0, 0]
        assert level == pytest.approx(ETA * sigma**2 * kappa / (2 * lam), rel=1e-14)
        exact = sharpness.usam_stationary_covariance(*args, theory.discrete)[0, 0]
        expected = ETA * sigma**2 * kappa / (lam * (2 - ETA * lam * kappa))
        assert exact == pytest.approx(expected, rel=1e-14)
    problem = Quadratic(MINIMUM, MINIMIZER)
    covariance = sharpness.usam_stationary_covariance(problem, 0.25 * np.eye(3), ETA, RHO)
    loss = theory.expected_loss(problem, theory.Moments(MINIMIZER, covariance))
    assert loss == pytest.approx(ETA * 0.25 / 4 * (3 + RHO * np.trace(MINIMUM)), rel=1e-13)


def test_the_published_covariance_is_right_where_hessian_and_noise_commute():
    problem, noise = Quadratic(MINIMUM), 0.25 * np.eye(3) + 0.5 * MINIMUM
    exact = sharpness.usam_stationary_covariance(problem, noise, ETA, RHO)
    published = sharpness.usam_published_stationary_covariance(problem, noise, ETA, RHO)
    np.testing.assert_allclose(published, exact, rtol=1e-12, atol=1e-15)

    published = sharpness.usam_published_stationary_covariance(problem, SIGMA, ETA, RHO)
    expected = ETA / 2 * np.linalg.solve(MINIMUM, sharpened(MINIMUM)[1] @ SIGMA)
    np.testing.assert_allclose(published, expected, rtol=1e-12)
    exact = sharpness.usam_stationary_covariance(problem, SIGMA, ETA, RHO)
    lam, V = np.linalg.eigh(MINIMUM)
    kappa = 1 + RHO * lam
    factor = np.add.outer(lam * kappa, lam * kappa) / (2 * np.outer(lam, kappa))
    np.testing.assert_allclose(V.T @ published @ V, factor * (V.T @ exact @ V), atol=1e-15)
    np.testing.assert_allclose(np.trace(MINIMUM @ published), np.trace(MINIMUM @ exact))
    assert np.max(np.abs(published - published.T)) > 0.05 * np.max(np.abs(exact))


@pytest.mark.parametrize("law", LAWS)
def test_the_edges_of_stability(law):
    """Capture of a saddle from below; from above, the step, which the SDE does not see."""
    problem, lam = Quadratic(SADDLE), np.linalg.eigvalsh(SADDLE)
    args = problem, SIGMA, ETA
    edge = sharpness.usam_capture_rho(problem)
    assert edge == pytest.approx(1 / -lam[0], rel=1e-12)
    assert sharpness.usam_is_stable(problem, ETA, 1.001 * edge, law)
    assert not sharpness.usam_is_stable(problem, ETA, 0.999 * edge, law)
    sharpness.usam_stationary_covariance(*args, 1.001 * edge, law)
    with pytest.raises(InputError, match=r"curvature -2\.\d+ does not attract, rho must exceed"):
        sharpness.usam_stationary_covariance(*args, 0.999 * edge, law)
    with pytest.raises(InputError, match="does not attract"):
        sharpness.usam_published_stationary_covariance(*args, 0.999 * edge)
    h = ETA if law == theory.discrete else law.step
    highest = np.min((2 / h - lam) / lam**2) if h else 1e3
    assert sharpness.usam_is_stable(problem, ETA, 0.999 * highest, law)
    B = np.eye(3) - h * sharpened(SADDLE, 1.001 * highest)[0]
    assert not h or np.max(np.abs(np.linalg.eigvals(B))) > 1
    assert sharpness.usam_is_stable(problem, ETA, 1.001 * highest, law) == (h == 0)
    if h:
        with pytest.raises(InputError, match=r"unstable, step \* .* = 2\.00\d* >= 2"):
            sharpness.usam_stationary_covariance(*args, 1.001 * highest, law)


def test_capture_needs_the_weakest_direction():
    assert sharpness.usam_capture_rho(Quadratic(np.array([1.0, -4.0, -0.5]))) == 2
    assert sharpness.usam_capture_rho(Quadratic(np.array([1.0, 3.0]))) == 0
    with pytest.raises(InputError, match=r"curvature -0.5 does not attract, rho must exceed 2,"):
        sharpness.usam_stationary_covariance(
            Quadratic(np.array([1.0, -4.0, -0.5])), np.ones(3), ETA, 1.0
        )
    with pytest.raises(InputError, match="curvature 0 does not attract, whatever rho"):
        sharpness.usam_stationary_covariance(Quadratic(np.array([1.0, 0.0])), np.ones(2), ETA, 9.0)


@pytest.mark.parametrize("law", [theory.discrete, theory.em(0.03125)])
@pytest.mark.parametrize(
    ("lam", "rho", "sigma", "y0"),
    [
        (-2.0, 0.25, 0.5, 0.125),
        (-2.0, 0.25, 0.0, 0.125),
        (-2.0, 0.25, 0.5, 0.0),
        (-2.0, 0.75, 0.5, 0.0),
        (0.0, 0.25, 0.5, 0.5),
        (1.0, 0.25, 0.5, -0.03125),
        (-1.0, 16.0, 0.5, 0.125),
    ],
)
def test_escape_times_invert_the_looped_recursion(lam, rho, sigma, y0, law):
    h = ETA if law == theory.discrete else law.step
    kappa, second = 1 + rho * lam, y0**2
    for k in range(1, 6):
        second = (1 - h * lam * kappa) ** 2 * second + h * ETA * sigma**2 * kappa**2
        time = sharpness.usam_escape_time(lam, sigma, ETA, rho, y0, np.sqrt(second), law)
        assert time == pytest.approx(k * h, rel=1e-9)


def test_escape_times_of_the_sde():
    rho, sigma, y0, radius = np.array([0.125, 0.25, 0.375]), 0.5, 0.125, np.array([0.5, 2.0])
    times = np.array([sharpness.usam_escape_time(-2.0, sigma, ETA, r, y0, radius) for r in rho])
    alpha, s2 = 2 * (1 - 2 * rho), ETA * sigma**2 * (1 - 2 * rho) / 4
    alpha, s2 = alpha[:, None], s2[:, None]
    expected = np.log((radius**2 + s2) / (y0**2 + s2)) / (2 * alpha)
    np.testing.assert_allclose(times, expected, rtol=1e-13)
    assert np.all(np.diff(times, axis=0) > 0)
    for i, r in enumerate(rho):
        found = sharpness.usam_moments(
            Quadratic(np.array([-2.0])), np.array([sigma**2]), ETA, r, [y0], times[i]
        )
        second = found.mean[:, 0] ** 2 + found.covariance[:, 0, 0]
        np.testing.assert_allclose(second, radius**2, rtol=1e-12)
        coarse, fine = (
            sharpness.usam_escape_time(-2.0, sigma, ETA, r, y0, radius, theory.em(2.0**-k))
            for k in (9, 10)
        )
        np.testing.assert_allclose(2 * fine - coarse, times[i], rtol=1e-5)
        assert np.all(coarse > fine)
    free = sharpness.usam_escape_time(-2.0, 0.0, ETA, 0.25, [y0, -y0, 0.0], 1.0)
    np.testing.assert_allclose(free, [np.log(8), np.log(8), np.inf], rtol=1e-13)
    assert sharpness.usam_escape_time(0.0, sigma, ETA, 0.25, 0.0, 1.0) == 1 / (ETA * sigma**2)


@pytest.mark.parametrize("law", LAWS)
def test_escape_takes_for_ever_towards_capture(law):
    near = [
        sharpness.usam_escape_time(-2.0, 0.5, ETA, 0.5 - e, 0.125, 1.0, law) for e in (1e-3, 1e-5)
    ]
    assert near[1] / near[0] == pytest.approx(100, rel=0.05)
    assert sharpness.usam_escape_time(-2.0, 0.5, ETA, 0.5, 0.125, 1.0, law) == np.inf
    level = sharpness.usam_stationary_covariance(
        Quadratic(np.array([-2.0])), np.array([0.25]), ETA, 0.75, law
    )[0, 0]
    escape = sharpness.usam_escape_time(
        -2.0, 0.5, ETA, 0.75, 0.0, np.sqrt(level) * np.array([0.99, 1.01]), law
    )
    assert escape[0] < np.inf
    assert escape[1] == np.inf
    assert sharpness.usam_escape_time(-2.0, 0.5, ETA, 0.75, 1.0, 1.0, law) == 0


# Three functions xᵀAx/2 + bᵀx + Σ c x³ whose batches are listed, none a quadratic.
A = np.array([[[1.0, 0.5], [0.5, -2.0]], [[2.0, -1.0], [-1.0, 0.5]], [[-0.5, 0.25], [0.25, 3.0]]])
b = np.array([[1.0, -0.5], [-2.0, 0.25], [0.5, 1.5]])
c = np.array([[0.25, -0.5], [0.5, 0.125], [-0.75, 0.5]])
POINT = np.array([0.375, -0.625])


def gradients(x):
    """∇fᵢ(x) for the three functions, `(3, 2)`, each at its own x."""
    x = np.broadcast_to(x, (3, 2))
    return np.einsum("nij,nj->ni", A, x) + b + 3 * c * x**2


def batch_gradients(x, size):
    """Batches of `size` with replacement: `(3**size, 2)`; x the same or one for each batch."""
    batches = list(itertools.product(range(3), repeat=size))
    x = np.broadcast_to(x, (len(batches), 2))
    return np.array(
        [np.mean([gradients(y)[i] for i in s], axis=0) for y, s in zip(x, batches, strict=True)]
    )


def drift_slope(perturbation, size):
    """The derivative in ρ at 0 of the mean of g_c(x + ρ p_c), central differences."""
    p, e = perturbation(batch_gradients(POINT, size)), 1e-4
    up, down = (np.mean(batch_gradients(POINT + s * p, size), axis=0) for s in (e, -e))
    return (up - down) / (2 * e)


def slope(value):
    """∇ value at the point, central differences."""
    e = 1e-5 * np.eye(2)
    return np.array([(value(POINT + d) - value(POINT - d)) / 2e-5 for d in e])


def noise_trace(x):
    return np.sum(np.var(gradients(x), axis=0))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_usam_descends_on_the_regularised_loss(size):
    def regularizer(x):
        return sharpness.usam_regularizer(
            np.mean(gradients(x), axis=0), noise_trace(x), 1.0, batch_size=size
        )

    np.testing.assert_allclose(slope(regularizer), drift_slope(lambda g: g, size), rtol=1e-6)


def test_full_perturbation_has_no_trace():
    def regularizer(x):
        return sharpness.usam_regularizer(np.mean(gradients(x), axis=0), 0.0, 1.0)

    mean_step = drift_slope(lambda g: np.mean(g, axis=0), 1)
    np.testing.assert_allclose(slope(regularizer), mean_step, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2])
def test_sam_descends_on_the_regularised_loss(size):
    def regularizer(x):
        return sharpness.sam_regularizer(batch_gradients(x, size), 1.0)

    def unit(g):
        return g / np.linalg.norm(g, axis=-1, keepdims=True)

    np.testing.assert_allclose(slope(regularizer), drift_slope(unit, size), rtol=1e-6)


def test_dnsam_descends_on_the_published_loss_under_additive_noise_only():
    full = np.mean(gradients(POINT), axis=0)
    mean_step = drift_slope(lambda g: g / np.linalg.norm(full), 1)
    published = slope(lambda x: sharpness.dnsam_regularizer(np.mean(gradients(x), axis=0), 1.0))
    missing = slope(noise_trace) / (2 * np.linalg.norm(full))
    np.testing.assert_allclose(published + missing, mean_step, rtol=1e-6)
    assert np.linalg.norm(missing) > 0.1 * np.linalg.norm(mean_step)
    additive = drift_slope(lambda g: full[None] / np.linalg.norm(full), 1)  # as without noise
    np.testing.assert_allclose(published, additive, rtol=1e-6)


def test_regularizers_by_hand():
    g = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(sharpness.usam_regularizer(g, 2.0, 0.5), [6.75, 0.5])
    np.testing.assert_allclose(
        sharpness.usam_regularizer(g, [2.0, 6.0], 0.5, batch_size=4), [6.375, 0.375]
    )
    np.testing.assert_allclose(sharpness.dnsam_regularizer(g, 0.5), [2.5, 0])
    np.testing.assert_allclose(sharpness.sam_regularizer(g, 0.5), 1.25)
    np.testing.assert_allclose(sharpness.sam_regularizer(g[:, None], 0.5), [1.25])


QUADRATIC = Quadratic(MINIMUM)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sharpness.usam_moments(QUADRATIC, SIGMA, ETA, -0.1, X0, 1.0), "not negative"),
        (lambda: sharpness.usam_moments(QUADRATIC, SIGMA, ETA, [0.1], X0, 1.0), "rho must be one"),
        (lambda: sharpness.usam_moments(QUADRATIC, SIGMA, -ETA, RHO, X0, 1.0), "learning_rate"),
        (lambda: sharpness.usam_moments(QUADRATIC, SIGMA, ETA, RHO, X0[:2], 1.0), "x0 must have"),
        (lambda: sharpness.usam_moments(QUADRATIC, np.ones(2), ETA, RHO, X0, 1.0), "covariance"),
        (
            lambda: sharpness.usam_moments(QUADRATIC, SIGMA, ETA, RHO, X0, 0.1, theory.discrete),
            "multiples of the step",
        ),
        (
            lambda: sharpness.usam_moments(QUADRATIC, SIGMA, ETA, RHO, X0, 1.0, micro_batches=0),
            "micro_batches",
        ),
        (lambda: sharpness.usam_is_stable(QUADRATIC, ETA, -1.0), "not negative"),
        (lambda: sharpness.usam_is_stable(QUADRATIC, ETA, RHO, "sde"), "law must be"),
        (lambda: sharpness.usam_escape_time(-1.0, 1.0, ETA, RHO, 1.0, 0.5), "at least |x0|"),
        (lambda: sharpness.usam_escape_time(-1.0, -1.0, ETA, RHO, 0.0, 0.5), "sigma"),
        (lambda: sharpness.usam_escape_time(np.inf, 1.0, ETA, RHO, 0.0, 0.5), "curvature"),
        (lambda: sharpness.usam_escape_time(-1.0, 1.0, ETA, -0.1, 0.0, 0.5), "rho"),
        (lambda: sharpness.usam_regularizer(X0, -1.0, RHO), "noise_trace"),
        (lambda: sharpness.usam_regularizer(X0, 1.0, 0.0), "rho"),
        (lambda: sharpness.usam_regularizer(X0, 1.0, RHO, batch_size=0), "batch_size"),
        (lambda: sharpness.usam_regularizer(1.0, 1.0, RHO), "one number"),
        (lambda: sharpness.sam_regularizer(X0, RHO), "batch_gradients"),
        (lambda: sharpness.sam_regularizer(np.ones((0, 3)), RHO), "batch_gradients"),
        (lambda: sharpness.dnsam_regularizer(X0, -RHO), "rho"),
        (lambda: sharpness.dnsam_regularizer([np.nan], RHO), "gradient must be finite"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError) as raised:
        call()
    assert words in str(raised.value)
