import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde import InputError
from jaxsde.engine import Draw, Index
from jaxsde.oracles import FullBatch, MinibatchNoise
from jaxsde.problems import BilinearGame, LogisticRegression, Players, Quadratic, mean

X = np.array([0.4, -0.7, 0.3])


def regression(n=5):
    rng = np.random.default_rng(0)
    return LogisticRegression(rng.standard_normal((n, 3)), rng.integers(0, 2, n), 0.1)


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_mean_covariance_and_root_by_enumeration(batch_size, replace, x64):
    problem, x = regression(), jnp.asarray(X)
    oracle = MinibatchNoise(problem, batch_size, replace)
    assert oracle.noise(x) == Draw((), Index(5, batch_size, replace))
    choose = itertools.product(range(5), repeat=batch_size)
    if not replace:
        choose = itertools.permutations(range(5), batch_size)
    g = np.stack([oracle.sample_gradient(x, jnp.array(batch)) for batch in choose])
    np.testing.assert_allclose(g.mean(0), oracle.gradient(x), atol=1e-14)
    covariance = np.cov(g.T, bias=True)
    np.testing.assert_allclose(oracle.covariance(x).as_matrix(), covariance, atol=1e-14)
    root = oracle.covariance_root(x).as_matrix()
    np.testing.assert_allclose(root @ root.T, covariance, atol=1e-14)
    np.testing.assert_allclose(oracle.variance(x), np.diag(covariance), atol=1e-14)
    atoms = oracle.atoms(x)
    at = np.stack([oracle.sample_gradient(x, batch) for batch in atoms.draws])
    np.testing.assert_allclose(atoms.weights @ at, g.mean(0), atol=1e-14)
    np.testing.assert_allclose(np.cov(at.T, bias=True), covariance, atol=1e-14)


def test_points_and_problems_of_any_structure(x64):
    games = mean([BilinearGame([1.0, 2.0]), BilinearGame([3.0, -1.0])])
    oracle, z = MinibatchNoise(games), Players(jnp.array([1.0, 2.0]), jnp.array([-1.0, 0.5]))
    F = oracle.sample_gradient(z, jnp.array([1]))
    np.testing.assert_allclose(F.x, [-3.0, -0.5])
    np.testing.assert_allclose(F.y, [-3.0, 2.0])
    moved = oracle.covariance_root(z).mv(jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(moved.x, (np.array([-1.0, 1.0]) - [-3.0, -0.5]) / np.sqrt(2))
    assert not oracle.additive


def test_too_many_batches_are_not_enumerated():
    assert MinibatchNoise(regression(70), 2).atoms(X) is None
    assert MinibatchNoise(regression(70), 2, replace=False).atoms(X) is not None


def test_bad_input():
    with pytest.raises(InputError, match="is no finite sum"):
        MinibatchNoise(Quadratic([1.0]))
    with pytest.raises(InputError, match="batch_size must be a whole number of at least 1"):
        MinibatchNoise(regression(), 0)
    with pytest.raises(InputError, match="without replacement"):
        MinibatchNoise(regression(), 6, replace=False)


def test_no_noise(x64):
    problem, x = regression(), jnp.asarray(X)
    oracle = FullBatch(problem)
    assert jax.tree.leaves(oracle.noise(x)) == []
    np.testing.assert_array_equal(oracle.sample_gradient(x, ()), problem.gradient(x))
    np.testing.assert_array_equal(oracle.covariance(x).as_matrix(), np.zeros((3, 3)))
    np.testing.assert_array_equal(oracle.covariance_root(x).mv(()), np.zeros(3))
    with pytest.raises(InputError, match="is no problem"):
        FullBatch(3.0)
