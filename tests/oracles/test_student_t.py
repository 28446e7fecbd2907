import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxsde import InputError
from jaxsde.engine import StudentT
from jaxsde.oracles import StudentTNoise
from jaxsde.problems import Quadratic

PROBLEM = Quadratic([1.0, 2.0, 0.5])
NU = [0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 4.7, 10.0, 30.0, 100.0, 333.0, 1000.0]
TAU = np.concatenate([[0.0], np.logspace(-8, 8, 200)])


@jax.jit
def law(nu, z):
    oracle = StudentTNoise(PROBLEM, 2.0, nu)
    return oracle.cdf(z), oracle.density_at_zero(), jax.grad(oracle.cdf)(0.0)


def check_law(nu, precision, bound, relative):
    z = np.concatenate([-2 * TAU[::-1], 2 * TAU]).astype(precision)
    found, density, slope = law(np.asarray(nu, precision), z)
    # SciPy's own t(1) is wrong by 2e-9 near 0; its Cauchy law is right.
    exact = scipy.stats.cauchy(scale=2) if nu == 1 else scipy.stats.t(nu, scale=2)
    assert np.max(np.abs(found - exact.cdf(z.astype(float)))) <= bound
    assert np.all(np.diff(found) >= -bound)
    np.testing.assert_allclose(density, exact.pdf(0), rtol=relative)
    # The density is the cdf's slope at 0, where the two tails meet. The slope of a polynomial of
    # degree 40 is its value's error times up to 40² (Markov).
    np.testing.assert_allclose(slope, density, rtol=40**2 * bound)


@pytest.mark.parametrize("nu", NU)
def test_the_cdf_is_scipys_in_float64(nu, x64):
    check_law(nu, np.float64, bound=1e-9, relative=1e-9)


@pytest.mark.parametrize("nu", NU)
def test_the_cdf_is_scipys_in_float32(nu):
    check_law(nu, np.float32, bound=1e-6, relative=4e-6)


def test_known_degrees_of_freedom_in_closed_form(x64):
    z = np.linspace(-50, 50, 1001)
    cauchy, _, _ = law(np.float64(1), z)
    np.testing.assert_allclose(cauchy, 0.5 + np.arctan(z / 2) / np.pi, atol=1e-12)
    two, _, _ = law(np.float64(2), z)
    np.testing.assert_allclose(two, 0.5 + z / 4 / np.sqrt(2 + z**2 / 4), atol=1e-12)


@pytest.mark.parametrize("scale", [0.5, [0.5, 1.0, 2.0]])
def test_the_gradient_of_a_draw_has_the_stated_covariance(scale, x64):
    oracle, x = StudentTNoise(PROBLEM, scale, 5.0), jnp.array([0.5, -1.0, 3.0])
    gradient = np.array([1.0, 2.0, 0.5]) * x
    # z = gradient + root τ with Var τ = ν/(ν - 2) = 5/3.
    root = np.stack([oracle.sample_gradient(x, e) - gradient for e in jnp.eye(3)], axis=1)
    np.testing.assert_allclose(root, np.diag(np.full(3, scale)), atol=1e-15)
    covariance = oracle.covariance(x).as_matrix()
    np.testing.assert_allclose(covariance, 5 / 3 * root @ root.T, rtol=1e-14)
    R = oracle.covariance_root(x).as_matrix()
    np.testing.assert_allclose(R @ R.T, covariance, rtol=1e-14)
    draw = oracle.noise(x)
    assert draw.shape == (3,)
    assert isinstance(draw.law, StudentT)
    assert draw.law.degrees_of_freedom == 5


@pytest.mark.parametrize("nu", [0.5, 1.0, 2.0])
def test_no_covariance_where_the_variance_is_infinite(nu):
    oracle = StudentTNoise(PROBLEM, 1.0, nu)
    for operator in (oracle.covariance, oracle.covariance_root):
        with pytest.raises(InputError, match="infinite variance"):
            operator(jnp.ones(3))


@pytest.mark.parametrize(
    ("scale", "nu", "message"),
    [
        (1.0, 0.0, "degrees_of_freedom must be positive"),
        (1.0, -1.0, "degrees_of_freedom must be positive"),
        (1.0, np.nan, "degrees_of_freedom must be positive"),
        (1.0, 1001.0, "at most 1000.*use GaussianNoise"),
        (0.0, 3.0, "scale must be positive"),
        (np.eye(2) + 1, 3.0, "scalar or"),
    ],
)
def test_bad_noise_is_refused(scale, nu, message):
    with pytest.raises(InputError, match=message):
        StudentTNoise(PROBLEM, scale, nu)


def test_noise_of_another_dimension_is_refused():
    with pytest.raises(InputError, match="but x has"):
        StudentTNoise(PROBLEM, [1.0, 2.0], 3.0).noise(jnp.ones(3))
