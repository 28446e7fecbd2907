import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde import InputError
from jaxsde.engine import Draw, Normal
from jaxsde.oracles import MultiplicativeNoise
from jaxsde.problems import BilinearGame, Forsaken, Players, QuadraticGame

SIGMA = 0.5


def points(d):
    return Players(jnp.arange(1.0, d + 1), jnp.linspace(-1.0, 0.5, d))


def test_the_noise_is_the_couplings(x64):
    z, Xi = points(2), np.array([[0.3, -1.0], [0.8, 0.1]])
    x, y = map(np.asarray, z)
    game = QuadraticGame([1.0, 2.0], 0.3)
    F = game.gradient(z)
    for oracle, draw, A, A_y in [
        (MultiplicativeNoise(game, SIGMA), Xi[0], np.diag(Xi[0]), np.diag(Xi[0])),
        (MultiplicativeNoise(game, SIGMA, matrix=True), Xi, Xi, Xi),
        (MultiplicativeNoise(game, SIGMA, shared=False), Players(*Xi), *map(np.diag, Xi)),
        (
            MultiplicativeNoise(game, SIGMA, matrix=True, shared=False),
            Players(Xi, 2 * Xi - 1),
            Xi,
            2 * Xi - 1,
        ),
    ]:
        found = oracle.sample_gradient(z, jax.tree.map(jnp.asarray, draw))
        np.testing.assert_allclose(found.x, F.x + SIGMA * A @ y, rtol=1e-14)
        np.testing.assert_allclose(found.y, F.y - SIGMA * A_y.T @ x, rtol=1e-14)
        assert not oracle.additive


@pytest.mark.parametrize("shared", [True, False])
def test_covariance_and_quadrature(shared, x64):
    """Means of up to four normals are exact: E and Cov of a gradient, and its fourth power."""
    z = points(2)
    oracle = MultiplicativeNoise(BilinearGame([1.0, 2.0]), SIGMA, shared=shared)
    x, y = map(np.asarray, z)
    atoms = oracle.atoms(z)
    found = jax.vmap(lambda draw: oracle.sample_gradient(z, draw))(atoms.draws)
    v, p = np.concatenate(found, axis=1), np.asarray(atoms.weights)
    assert len(p) == 3 ** (2 if shared else 4)
    np.testing.assert_allclose(p @ v, np.concatenate(oracle.gradient(z)), rtol=1e-13)
    centred = v - p @ v
    columns = np.block([[np.diag(y)], [-np.diag(x)]])
    if not shared:
        zero = np.zeros((2, 2))
        columns = np.block([[np.diag(y), zero], [zero, -np.diag(x)]])
    covariance = SIGMA**2 * columns @ columns.T
    np.testing.assert_allclose(centred.T @ (p[:, None] * centred), covariance, atol=1e-13)
    np.testing.assert_allclose(oracle.covariance(z).as_matrix(), covariance, atol=1e-13)
    np.testing.assert_allclose(p @ centred**4, 3 * np.diag(covariance) ** 2, rtol=1e-12)


def test_draws_have_the_couplings_shape():
    z, normal = points(3), Normal()
    assert MultiplicativeNoise(BilinearGame(np.ones(3)), SIGMA).noise(z) == Draw((3,), normal)
    assert MultiplicativeNoise(BilinearGame(np.eye(3)), SIGMA).noise(z) == Draw((3, 3), normal)
    assert MultiplicativeNoise(BilinearGame(np.eye(3)), SIGMA).atoms(z) is None  # 3⁹ points


def test_bad_input():
    with pytest.raises(InputError, match="Forsaken is no quadratic game"):
        MultiplicativeNoise(Forsaken(), SIGMA)
    with pytest.raises(InputError, match="a game needs two players"):
        MultiplicativeNoise(BilinearGame([1.0]), SIGMA).noise(jnp.ones(2))
    with pytest.raises(InputError, match="scale must be positive"):
        MultiplicativeNoise(BilinearGame([1.0]), 0.0)
