import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.stats

from jaxsde import InputError
from jaxsde.engine import Draw, Normal
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import BilinearGame, Players, Quadratic

PROBLEM = Quadratic([1.0, 2.0, 0.5], minimizer=1.0)
FULL = np.array([[2.0, -0.5, 0.25], [-0.5, 1.0, 0.0], [0.25, 0.0, 0.5]])
SINGULAR = np.outer([1.0, -2.0, 0.5], [1.0, -2.0, 0.5])
X = np.array([0.5, -1.0, 3.0])
NOISES = {
    "scalar": ({"scale": 0.5}, 0.25 * np.eye(3)),
    "diagonal": ({"scale": [0.5, 1.0, 2.0]}, np.diag([0.25, 1, 4])),
    "full": ({"covariance": FULL}, FULL),
    "singular": ({"covariance": SINGULAR}, SINGULAR),
    "zero": ({"covariance": np.zeros((3, 3))}, np.zeros((3, 3))),
    "batch of scalars": ({"scale": 0.5, "batch_size": 4}, np.eye(3) / 16),
    "batch of vectors": ({"covariance": FULL, "batch_size": 2.5}, FULL / 2.5),
}


@pytest.mark.parametrize("name", NOISES)
def test_the_gradient_of_a_draw_has_the_stated_covariance(name, x64):
    arguments, sigma = NOISES[name]
    oracle, x = GaussianNoise(PROBLEM, **arguments), jnp.asarray(X)
    gradient = np.array([1.0, 2.0, 0.5]) * (X - 1)
    np.testing.assert_allclose(oracle.gradient(x), gradient, rtol=1e-15)
    np.testing.assert_allclose(oracle.sample_gradient(x, jnp.zeros(3)), gradient, rtol=1e-15)
    # The noise is linear in its unit draw, so its root is read off the unit vectors.
    root = np.stack([oracle.sample_gradient(x, e) - gradient for e in jnp.eye(3)], axis=1)
    # A root of a singular matrix is known to the square root of rounding.
    np.testing.assert_allclose(root @ root.T, sigma, atol=1e-14 * max(1, np.abs(sigma).max()))
    np.testing.assert_allclose(oracle.covariance(x).as_matrix(), sigma, atol=2e-14)
    np.testing.assert_allclose(oracle.covariance_root(x).as_matrix(), root, atol=2e-14)
    both = oracle.sample_gradient(x, jnp.array([1.0, -2.0, 0.5]))
    np.testing.assert_allclose(both, gradient + root @ [1, -2, 0.5], atol=1e-14)


def test_a_covariance_over_all_coordinates_of_a_point_of_several_arrays(x64):
    problem = BilinearGame([2.0])
    sigma = np.array([[2.0, -0.5], [-0.5, 1.0]])
    oracle, z = GaussianNoise(problem, covariance=sigma), Players(jnp.ones(1), jnp.zeros(1))
    np.testing.assert_allclose(oracle.covariance(z).as_matrix(), sigma, atol=1e-14)
    R = np.asarray(oracle.covariance_root(z).as_matrix())
    moved = oracle.sample_gradient(z, Players(jnp.array([0.3]), jnp.array([-1.0])))
    np.testing.assert_allclose(np.concatenate(moved), [0, -2] + R @ [0.3, -1.0], atol=1e-14)
    with pytest.raises(InputError, match=r"covariance has shape \(2, 2\) but x has 4 coordinates"):
        oracle.noise(Players(jnp.ones(2), jnp.ones(2)))


def test_independent_noise_has_diagonal_operators_and_any_point(x64):
    oracle = GaussianNoise(PROBLEM, 0.5)
    x = {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}
    covariance = oracle.covariance(x)
    assert isinstance(covariance, lx.DiagonalLinearOperator)
    assert oracle.noise(x) == {"w": Draw((2, 3), Normal()), "b": Draw((2,), Normal())}
    np.testing.assert_array_equal(covariance.mv(x)["w"], np.full((2, 3), 0.25))


def test_cdf_and_density_are_scipys(x64):
    scale, z = np.array([0.5, 1.0, 2.0]), np.linspace(-6, 6, 41)[:, None] * np.ones(3)
    law = scipy.stats.norm(scale=scale / np.sqrt(4))
    oracle = GaussianNoise(PROBLEM, scale, batch_size=4)
    np.testing.assert_allclose([oracle.cdf(jnp.asarray(v)) for v in z], law.cdf(z), atol=1e-15)
    np.testing.assert_allclose(oracle.density_at_zero(), law.pdf(0), rtol=1e-14)


def test_correlated_noise_has_no_law_of_a_coordinate():
    oracle = GaussianNoise(PROBLEM, covariance=FULL)
    for call in (lambda: oracle.cdf(jnp.zeros(3)), oracle.density_at_zero):
        with pytest.raises(InputError, match="correlated noise has no law"):
            call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a scale or a covariance"),
        ({"scale": 1.0, "covariance": FULL}, "either a scale or a covariance"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": [1.0, -1.0]}, "scale must be positive"),
        ({"scale": np.inf}, "scale must be positive and finite"),
        ({"scale": "one"}, "scale must be a positive number"),
        ({"scale": FULL**2 + 1}, "scalar or .*pass a matrix as covariance"),
        ({"scale": 1.0, "batch_size": 0}, "batch_size must be positive"),
        ({"covariance": FULL[:2]}, r"covariance must be \(d, d\)"),
        ({"covariance": [1.0, 2.0]}, r"covariance must be \(d, d\)"),
        ({"covariance": FULL + np.triu(FULL)}, "must be symmetric"),
        ({"covariance": FULL - np.eye(3)}, "positive semidefinite"),
        ({"covariance": FULL * np.nan}, "covariance must be finite"),
    ],
)
def test_bad_noise_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        GaussianNoise(PROBLEM, **arguments)


@pytest.mark.parametrize("arguments", [{"scale": [1.0, 2.0]}, {"covariance": np.eye(2)}])
def test_noise_of_another_dimension_is_refused(arguments):
    with pytest.raises(InputError, match="but x has"):
        GaussianNoise(PROBLEM, **arguments).noise(jnp.ones(3))
