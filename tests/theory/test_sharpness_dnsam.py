"""DNSAM on quadratics: the rate of E|x|², the scale at which its SDE works, what exists."""

import itertools

import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss
from scipy.integrate import quad

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import sharpness

ETA, SIGMA, RHO = 0.125, 0.5, 0.375
H = np.array([[2.0, 0.5, -0.75], [0.5, -1.0, 0.25], [-0.75, 0.25, 1.5]])
MINIMIZER = np.array([0.5, 0.0, -1.0])
NODES = leggauss(300)
X = np.array([[1.25, -1.0, 0.5], [0.5, 0.25, -1.125]])


def next_squares(x, step, noise):
    """|y⁺|² for the eight draws of two-point noise: x - step (perturbed gradient) - noise."""
    y = x - MINIMIZER
    g = H @ y
    n = np.linalg.norm(g)
    K = np.eye(3) + RHO * H / n
    for signs in itertools.product([1, -1], repeat=3):
        yield np.sum((y - step * K @ g - noise * K @ np.array(signs)) ** 2)


def test_rates_of_the_algorithm_by_enumerating_two_point_noise():
    expected = []
    for x in X:
        y, squares = x - MINIMIZER, []
        for signs in itertools.product([1, -1], repeat=3):
            z = SIGMA * np.array(signs)
            perturbed = y + RHO * (H @ y + z) / np.linalg.norm(H @ y)
            squares.append(np.sum((y - ETA * (H @ perturbed + z)) ** 2))
        expected.append((np.mean(squares) - y @ y) / (2 * ETA))
    found = sharpness.dnsam_lyapunov_rate(
        Quadratic(H, MINIMIZER), X, SIGMA, ETA, RHO, theory.discrete
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_rates_of_em_and_of_the_sde():
    """The rate of a chain is linear in its step, and the SDE's at step 0."""
    args = Quadratic(H, MINIMIZER), X[0], SIGMA, ETA, RHO
    rates = []
    for h in (0.03125, 0.0625):
        squares = list(next_squares(X[0], h, np.sqrt(ETA * h) * SIGMA))
        rates.append((np.mean(squares) - np.sum((X[0] - MINIMIZER) ** 2)) / (2 * h))
        found = sharpness.dnsam_lyapunov_rate(*args, theory.em(h))
        assert found == pytest.approx(rates[-1], rel=1e-12)
    assert sharpness.dnsam_lyapunov_rate(*args) == pytest.approx(2 * rates[0] - rates[1], rel=1e-12)


def stationary_radius(lam, eta, d):
    """Nodes r = |y| and weights of the SDE's stationary law for H = λ I.

    With c = 1 + s ρ/r, s = sign λ, the drift is -λ c y and the diffusion D = η σ² c²/2, isotropic:
    there is no flux where (ln D p)' = -λ c r/D, that is for

        D p = exp(-(2 λ/(η σ²)) (r²/2 - s ρ r + ρ² ln|r + s ρ|)),

    on r < ρ at a maximum, whose edge no path reaches.
    """
    s = np.sign(lam)
    scale = (eta * SIGMA**2 * RHO / abs(lam)) ** (1 / 3)
    low, high = 0, 8 * scale if s > 0 else min(8 * scale, RHO)
    x, weight = NODES
    r = (low + high) / 2 + (high - low) / 2 * x
    potential = r**2 / 2 - s * RHO * r + RHO**2 * np.log(np.abs(r + s * RHO))
    log = (d - 1) * np.log(r) - 2 * np.log(np.abs(1 + s * RHO / r))
    log = log - 2 * lam / (eta * SIGMA**2) * potential
    density = weight * np.exp(log - np.max(log))
    return r, density / np.sum(density)


@pytest.mark.parametrize("d", [2, 3, 5])
@pytest.mark.parametrize("lam", [2.0, -2.0])
def test_the_rate_is_zero_under_the_stationary_law(lam, d):
    r, weight = stationary_radius(lam, 0.0625, d)
    x = r[:, None] * np.full(d, 1 / np.sqrt(d))
    rates = sharpness.dnsam_lyapunov_rate(
        Quadratic(np.full(d, lam)), x, SIGMA, 0.0625, RHO, theory.sde
    )
    assert abs(weight @ rates) < 1e-9 * (weight @ np.abs(rates))


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_the_gradient_norm_cubed_is_gamma_distributed_at_the_working_scale(d):
    """E n³ and E n⁶ of shape (d+2)/3, scale 3 n*³/d; the error falls with n*/(ρ |λ|)."""
    for lam in (2.0, -2.0):
        errors = []
        for eta in (2.0**-9, 2.0**-15):
            r, weight = stationary_radius(lam, eta, d)
            scale = sharpness.dnsam_working_scale(Quadratic(np.full(d, lam)), SIGMA, eta, RHO)
            cubes = (2 * r / scale) ** 3
            shape, unit = (d + 2) / 3, 3 / d
            first, second = weight @ cubes, weight @ cubes**2
            errors.append(
                [first / (shape * unit) - 1, second / (shape * (shape + 1) * unit**2) - 1]
            )
        assert first == pytest.approx(1 + 2 / d, rel=0.04)
        np.testing.assert_allclose(np.divide(*errors), 4, rtol=0.3)


def test_at_the_working_scale_the_two_terms_in_rho_balance():
    """At a point with yᵀ H y = 0 and with tr H = 0, η σ² d/2 is all that is left."""
    saddle = np.array([[1.0, 0.5, 0.0], [0.5, -3.0, 1.0], [0.0, 1.0, 2.0]])
    lam, V = np.linalg.eigh(saddle)
    direction = V[:, 0] / np.sqrt(-lam[0]) + V[:, 2] / np.sqrt(lam[2])
    scale = sharpness.dnsam_working_scale(Quadratic(saddle), SIGMA, ETA, RHO)
    y = direction * scale / np.linalg.norm(saddle @ direction)
    rate = sharpness.dnsam_lyapunov_rate(Quadratic(saddle), y, SIGMA, ETA, RHO)
    assert rate == pytest.approx(ETA * SIGMA**2 * 3 / 2, rel=1e-9)


def test_what_has_a_second_moment():
    """E 1/|y|² under a density positive at 0: each decade of |y| adds as much, or less and less."""
    for d in range(1, 6):
        inner, outer = (
            quad(lambda r, d=d: r ** (d - 3) * np.exp(-(r**2)), e, 10 * e)[0] for e in (1e-6, 1e-5)
        )
        assert sharpness.dnsam_has_second_moment(d) == (inner < 0.2 * outer)


def test_what_reaches_the_origin():
    """The scale function ∫ r^(1-d) dr of the radius near 0, finite there where 0 is hit."""
    for d in range(1, 6):
        inner, outer = (quad(lambda r, d=d: r ** (1 - d), e, 10 * e)[0] for e in (1e-6, 1e-5))
        assert sharpness.dnsam_reaches_origin(d) == (inner < 0.2 * outer)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sharpness.dnsam_working_scale(Quadratic(H), 0.0, ETA, RHO), "sigma"),
        (lambda: sharpness.dnsam_working_scale(Quadratic(H), SIGMA, ETA, -1.0), "rho"),
        (lambda: sharpness.dnsam_working_scale(Quadratic(H), SIGMA, 0.0, RHO), "learning_rate"),
        (
            lambda: sharpness.dnsam_lyapunov_rate(Quadratic(H), X[:, :2], SIGMA, ETA, RHO),
            "x must have shape (..., 3)",
        ),
        (
            lambda: sharpness.dnsam_lyapunov_rate(
                Quadratic(H, MINIMIZER), MINIMIZER, SIGMA, ETA, RHO
            ),
            "critical point",
        ),
        (lambda: sharpness.dnsam_lyapunov_rate(Quadratic(H), X, SIGMA, ETA, 0.0), "rho"),
        (lambda: sharpness.dnsam_has_second_moment(0), "dimension"),
        (lambda: sharpness.dnsam_reaches_origin(1.0), "dimension"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError) as raised:
        call()
    assert words in str(raised.value)
