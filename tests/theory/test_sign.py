"""Noise, phases, bounds and lattice laws of SignSGD."""

import itertools

import numpy as np
import pytest
import scipy.stats
from scipy.integrate import solve_ivp
from scipy.special import erf, hyp2f1
from scipy.special import gamma as Gamma

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import sign

INF = np.inf
FREEDOMS = [0.5, 1.0, 2.0, 3.0, 30.0, INF]
S = np.array([-40.0, -1.3, -1e-3, 0.0, 0.2, 2.0, 7.0])


def noise(nu):
    return scipy.stats.norm if nu == INF else scipy.stats.t(nu)


@pytest.mark.parametrize("nu", FREEDOMS)
def test_slope_and_curvature_are_those_of_the_density(nu):
    p, h = noise(nu).pdf, 1e-3
    assert sign.slope(nu) == pytest.approx(2 * p(0), rel=1e-12)
    second = (p(h) - 2 * p(0) + p(-h)) / h**2
    assert sign.curvature(nu) == pytest.approx(-second / (2 * p(0)), rel=1e-5)


def test_slopes_known():
    found = [sign.slope(nu) for nu in (1, 2, 3, 5, 30, INF)]
    known = [0.63662, 0.70711, 0.73511, 0.75921, 0.79126, 0.79788]
    np.testing.assert_allclose(found, known, atol=5e-6)
    assert sign.slope(1e12) == pytest.approx(sign.slope(), rel=1e-11)


@pytest.mark.parametrize("nu", FREEDOMS)
def test_centred_cdf(nu):
    np.testing.assert_allclose(sign.centred_cdf(S, nu), noise(nu).cdf(S) - 0.5, atol=4e-12, rtol=0)


def test_centred_cdf_in_closed_form():
    np.testing.assert_allclose(2 * sign.centred_cdf(S, 1), 2 / np.pi * np.arctan(S), rtol=1e-13)
    np.testing.assert_allclose(2 * sign.centred_cdf(S, 2), S / np.sqrt(2 + S**2), rtol=1e-13)
    np.testing.assert_allclose(2 * sign.centred_cdf(S), erf(S / np.sqrt(2)), rtol=1e-13)
    nu = 3.5
    published = Gamma((nu + 1) / 2) / (np.sqrt(np.pi * nu) * Gamma(nu / 2)) * S
    published = published * hyp2f1(0.5, (nu + 1) / 2, 1.5, -(S**2) / nu)
    np.testing.assert_allclose(sign.centred_cdf(S, nu), published, rtol=1e-12)


def test_batches_divide_gaussian_scales_only():
    np.testing.assert_allclose(sign.batch_scale([1.0, 3.0], 16), [0.25, 0.75])
    assert sign.batch_scale(2.0, 1, degrees_of_freedom=1.0) == 2
    with pytest.raises(InputError, match="not Student-t"):
        sign.batch_scale(2.0, 2, degrees_of_freedom=3.0)
    with pytest.raises(InputError, match="batch_size"):
        sign.batch_scale(2.0, 0)


def test_bad_degrees_of_freedom_are_refused():
    for nu in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match="degrees_of_freedom"):
            sign.slope(nu)
        with pytest.raises(InputError, match="degrees_of_freedom"):
            sign.centred_cdf(0.0, nu)


def test_phase_constants():
    found = [
        sign.CHORD_SLOPE,
        sign.CHORD_INTERCEPT,
        sign.TANGENT_POINT,
        sign.TANGENT_INTERCEPT,
    ]
    np.testing.assert_allclose(found, [0.2468087, 0.5958921, 1.2328520, 0.6144779], atol=6e-8)


def test_phases():
    y = np.array([[-4.0, -1.5001, -1.5, -1.0001], [-1.0, 0.0, 1.2, 1.6]])
    np.testing.assert_array_equal(sign.phase(y), [[1, 1, 2, 2], [3, 3, 2, 1]])
    np.testing.assert_allclose(sign.signal_to_noise([3.0, -2.0], 2.0), [1.0606602, -0.7071068])
    with pytest.raises(InputError, match="scale"):
        sign.signal_to_noise([1.0], 0.0)


def test_phase2_sandwich():
    y = np.linspace(1, 1.5, 101)
    for side in (1, -1):
        lower, upper = sign.phase2_drift_bounds(side * y)
        drift = -erf(side * y)
        assert np.all(lower <= drift + 1e-15)
        assert np.all(drift <= upper + 1e-15)
        assert np.all(upper - lower < 0.0186)
    ends = np.array([1, 1.5, -1, -1.5])
    chord = np.where(ends > 0, *sign.phase2_drift_bounds(ends)[::-1])
    np.testing.assert_allclose(chord, -erf(ends), rtol=1e-14)
    touching = sign.TANGENT_POINT * np.array([1, -1])
    tangent = np.where(touching > 0, *sign.phase2_drift_bounds(touching))
    np.testing.assert_allclose(tangent, -erf(touching), rtol=1e-14)
    with pytest.raises(InputError, match="phase 2"):
        sign.phase2_drift_bounds([1.2, 0.9])
    with pytest.raises(InputError, match="phase 2"):
        sign.phase2_drift_bounds(-1.6)


def test_phase2_concentration():
    """Constant gradient at y = ±1, ±3/2: tr Cov = η t Σ (1 - Erf(y)²) exactly."""
    y, time = np.array([1.0, -1.5, -1.0]), np.array([0.5, 2.0])
    trace = 0.01 * time * np.sum(1 - erf(y) ** 2)
    found = sign.phase2_concentration(0.3, y, time, learning_rate=0.01)
    np.testing.assert_allclose(found, trace / 0.3, rtol=1e-12)
    published = sign.phase2_concentration(0.3, y, time, learning_rate=0.01, published=True)
    np.testing.assert_allclose(published, trace / time / 0.3, rtol=1e-12)
    with pytest.raises(InputError, match="threshold"):
        sign.phase2_concentration(0.0, y, 1.0, learning_rate=0.01)


def test_phase1_is_an_equality_in_one_dimension():
    """On λ x²/2, dx = -sign(x) dt."""
    lam, x0, t = 3.0, 2.0, np.array([0.0, 0.5, 1.9, 2.0, 5.0])
    loss = lam / 2 * np.maximum(x0 - t, 0) ** 2
    initial = lam / 2 * x0**2
    np.testing.assert_allclose(sign.phase1_loss_bound(initial, t, mu=lam), loss, atol=1e-14)
    assert sign.phase1_end(initial, mu=lam) == pytest.approx(2)
    published = sign.phase1_loss_bound(initial, t, mu=lam, published=True)
    before = t < sign.phase1_end(initial, mu=lam, published=True)
    expected = (np.sqrt(lam) * t - 2 * np.sqrt(initial)) ** 2 / 4
    np.testing.assert_allclose(published, np.where(before, expected, 0), rtol=1e-12)
    assert np.all(published[1:4] > loss[1:4])
    assert sign.phase1_end(initial, mu=lam, published=True) == pytest.approx(2 * np.sqrt(2))


CONSTANTS = {"learning_rate": 0.1, "mu": 0.5, "hessian_trace": 5.0, "sigma_max": 0.7}
TIME = np.array([0.0, 0.5, 3.0])


def relaxed(rate, source):
    """S' = source - rate S from S₀ = 2, integrated."""
    solved = solve_ivp(
        lambda t, s: source - rate * s, (0, 3), [2.0], t_eval=TIME, rtol=1e-10, atol=1e-12
    )
    return solved.y[0]


def test_phase2_loss_bound():
    m, q, mu, eta, sigma = 0.2468087, 0.5958921, 0.5, 0.1, 0.7
    signal = 2 * mu / (np.sqrt(2) * sigma)  # of |∇f|² / (√2 σ) per S
    rate = m * signal + eta / 2 * mu * m**2 * mu / sigma**2  # drift, and diffusion by |y|²
    found = sign.phase2_loss_bound(2.0, TIME, dimension=4, **CONSTANTS)
    expected = relaxed(rate, eta / 2 * (5.0 - mu * 4 * q**2))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(InputError, match="hessian_trace"):
        sign.phase2_loss_bound(2.0, TIME, dimension=11, **CONSTANTS)


def test_phase2_loss_bound_holds_pointwise():
    """The SDE's generator applied to f, at random points of phase 2, against the bound's slope."""
    rng = np.random.default_rng(0)
    lam, sigma, eta = np.array([0.5, 1.0, 3.0]), np.array([0.7, 0.3, 0.5]), 0.1
    for _ in range(200):
        y = rng.uniform(1, 1.5, 3) * rng.choice([-1, 1], 3)
        gradient = np.sqrt(2) * sigma * y
        loss = np.sum(gradient**2 / lam) / 2
        slope = -gradient @ erf(y) + eta / 2 * lam @ (1 - erf(y) ** 2)
        constants = CONSTANTS | {"hessian_trace": np.sum(lam), "dimension": 3}
        later = sign.phase2_loss_bound(loss, 1e-6, **constants)
        assert slope < (later - loss) / 1e-6


@pytest.mark.parametrize("nu", [1.0, 3.0, INF])
def test_phase3_loss_bound_is_an_equality_for_isotropic_quadratics(nu):
    problem, x0 = Quadratic(np.full(2, 0.5)), np.array([2.0, -2.0])
    loss = theory.expected_loss(
        problem, sign.moments(problem, 0.7, 0.1, x0, TIME, degrees_of_freedom=nu)
    )
    constants = CONSTANTS | {"hessian_trace": 1.0, "degrees_of_freedom": nu}
    np.testing.assert_allclose(sign.phase3_loss_bound(2.0, TIME, **constants), loss, rtol=1e-12)


def test_phase3_loss_bound_as_published():
    delta = np.sqrt(2 / np.pi) / 0.7 + 0.1 / np.pi * 0.5 / 0.7**2
    expected = relaxed(2 * 0.5 * delta, 0.1 / 2 * 5.0)
    np.testing.assert_allclose(sign.phase3_loss_bound(2.0, TIME, **CONSTANTS), expected, rtol=1e-6)
    with pytest.raises(InputError, match="sigma_max"):
        sign.phase3_loss_bound(2.0, TIME, **(CONSTANTS | {"sigma_max": 0.0}))


def test_leading_loss_bound_of_phase_3_and_the_posters():
    constants = {"learning_rate": 0.1, "mu": 0.5, "smoothness": 0.5, "dimension": 6}
    settings = constants | {"sigma_max": 1.4, "batch_size": 4}
    start, late = sign.phase3_leading_loss_bound(2.0, np.array([0.0, 1e3]), **settings)
    level = sign.stationary_excess_loss(6, 0.1, 0.7)
    assert start == pytest.approx(2 + level)
    assert late == pytest.approx(level)
    small_step = settings | {"learning_rate": 1e-9}
    full = CONSTANTS | {"learning_rate": 1e-9}
    np.testing.assert_allclose(
        sign.phase3_leading_loss_bound(2.0, TIME, **small_step),
        sign.phase3_loss_bound(2.0, TIME, **full),
        rtol=1e-7,
    )
    poster = sign.phase3_leading_loss_bound(2.0, TIME, published=True, **settings)
    decay, posters = np.exp(-2 * 0.5 * 2 * TIME), 0.1 * 0.5 * 6 / (4 * 0.5) * 1.4 / 2
    np.testing.assert_allclose(poster, 2 * decay + (1 - decay) * posters, rtol=1e-12)
    assert level / posters == pytest.approx(np.sqrt(np.pi / 2))


def double_well(x):
    return x**3 - x


def tilted(z):
    return 0.5 + np.arctan((z - 0.1) / 0.8) / np.pi


ETA, START, STEPS = 0.3, 0.2, 9


def test_lattice_law_by_enumerating_all_paths():
    law = {}
    for path in itertools.product([1, -1], repeat=STEPS):
        x, weight, height = START, 1.0, 0
        for step in path:
            up = tilted(-double_well(x))
            weight *= up if step == 1 else 1 - up
            height += step
            x = START + ETA * height
        law[height] = law.get(height, 0) + weight
    positions, probabilities = sign.lattice_law(double_well, tilted, ETA, START, STEPS)
    heights = sorted(law)
    np.testing.assert_allclose(positions, START + ETA * np.array(heights), rtol=1e-12)
    np.testing.assert_allclose(probabilities, [law[h] for h in heights], rtol=1e-12)


def test_lattice_moments_are_those_of_the_laws():
    observables = {"cos": np.cos, "right": lambda x: x > 0.25}
    found = sign.lattice_moments(double_well, tilted, ETA, START, STEPS, observables)
    assert found["cos"].shape == (STEPS + 1,)
    for k in range(STEPS + 1):
        x, p = sign.lattice_law(double_well, tilted, ETA, START, k)
        assert np.sum(p) == pytest.approx(1, abs=1e-14)
        for name, observable in observables.items():
            assert found[name][k] == pytest.approx(p @ observable(x), rel=1e-12)


def test_bad_lattices_are_refused():
    with pytest.raises(InputError, match="probabilities"):
        sign.lattice_law(double_well, lambda z: z, ETA, START, STEPS)
    with pytest.raises(InputError, match="steps"):
        sign.lattice_law(double_well, tilted, ETA, START, -1)
    with pytest.raises(InputError, match="learning_rate"):
        sign.lattice_law(double_well, tilted, 0.0, START, STEPS)
