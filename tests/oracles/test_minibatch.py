import itertools

import equinox as eqx
import jax
import jax.extend.core
import jax.numpy as jnp
import lineax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.special import erf

from jaxsde import InputError
from jaxsde.engine import Draw, Index
from jaxsde.oracles import Agents, FullBatch, MinibatchNoise, Sign
from jaxsde.problems import (
    BilinearGame,
    LogisticRegression,
    Network,
    Players,
    Quadratic,
    QuadraticGame,
    cross_entropy,
    mean,
)
from jaxsde.sdes import (
    DSignSGD,
    LinearizedDSignSGD,
    LinearizedSignSGD,
    MajorityVote,
    SignSGD,
)
from jaxsde.sdes._sde import State

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


# --- A network with 17 parameters: every batch and every matrix, written out ---


def network(n=6, micro_batch=4, width=3):
    rng = np.random.default_rng(7)
    model = eqx.nn.MLP(2, 2, width, 1, jnp.tanh, key=jax.random.key(1))
    inputs, labels = rng.standard_normal((n, 2)), rng.integers(0, 2, n)
    return Network(model, cross_entropy, inputs, labels, micro_batch)


def all_gradients(oracle, x, choose):
    """The gradient of every batch that may be drawn, one a row."""
    batches = jnp.array(list(choose))
    sample = jax.jit(jax.vmap(lambda batch: ravel_pytree(oracle.sample_gradient(x, batch))[0]))
    return np.asarray(sample(batches), np.float64)


def operators(oracle, x):
    """Root and covariance as matrices, by what they make of unit vectors; variance; trace."""
    root, Sigma = oracle.covariance_root(x), oracle.covariance(x)
    flat, unravel = ravel_pytree(x)

    def column(operator, v):
        return ravel_pytree(operator.mv(v))[0]

    w = jnp.eye(oracle.problem.count, dtype=flat.dtype)
    R = jax.vmap(lambda w: column(root, w), out_axes=1)(w)
    matrix = jax.vmap(lambda e: column(Sigma, unravel(e)), out_axes=1)(jnp.eye(flat.size))
    return R, matrix, ravel_pytree(oracle.variance(x))[0], oracle.trace(x)


@pytest.mark.parametrize(("replace", "precision"), [(True, "float64"), (False, "float32")])
def test_nothing_dense_equals_the_dense_covariance_of_a_network(replace, precision):
    """Over all batches of 2 of 6, in micro-batches of 3 (exact: 36 or 15 cases, no sample)."""
    with jax.enable_x64(precision == "float64"):
        problem = network()
        x, oracle = problem.x0, MinibatchNoise(problem, 2, replace)
        assert problem.size == 17
        choose = itertools.product(range(6), repeat=2)
        g = all_gradients(oracle, x, choose if replace else itertools.combinations(range(6), 2))
        found = jax.jit(operators)(oracle, x)
        R, Sigma, variance, trace = (np.asarray(part, np.float64) for part in found)
    dense = np.cov(g.T, bias=True)
    close = 1e-5 if precision == "float32" else 1e-13

    def same(a, b):
        assert np.linalg.norm(a - b) < close * np.linalg.norm(b)

    same(R @ R.T, dense)
    same(Sigma, dense)
    same(variance, np.diag(dense))
    same(trace, np.trace(dense))
    assert np.linalg.matrix_rank(dense, 1e-9) == 5  # n - 1: weights lose their mean


def products(fn, *args):
    """Products of matrices in a function's program."""

    def count(jaxpr):
        inner = [part for e in jaxpr.eqns for part in jax.extend.core.jaxprs_in_params(e.params)]
        own = sum(e.primitive.name == "dot_general" for e in jaxpr.eqns)
        return own + sum(map(count, inner))

    return count(jax.make_jaxpr(fn)(*args).jaxpr)


@pytest.mark.parametrize(
    ("problem", "x"),
    [
        (network(micro_batch=100), network().x0),
        (network(micro_batch=2), network().x0),
        (regression(), jnp.asarray(X)),
    ],
    ids=["network", "network in micro-batches", "regression"],
)
def test_noise_takes_one_backward_pass(problem, x):
    """As many products of matrices as one gradient, for any number of examples."""
    w = jnp.ones(problem.count)
    moved = products(lambda x, w: MinibatchNoise(problem, 2).covariance_root(x).mv(w), x, w)
    assert moved == products(jax.grad(problem.loss), x)


def test_the_dtype_is_that_of_the_point(x64):
    """In float32 also where float64 is on."""
    problem = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), regression())
    x, w = jnp.asarray(X, jnp.float32), jnp.ones(5, jnp.float32)
    oracle = MinibatchNoise(problem, 2)

    def answers(x, w):
        root, Sigma = oracle.covariance_root(x), oracle.covariance(x)
        return root.mv(w), Sigma.mv(x), oracle.variance(x), oracle.at(x).cdf(x)

    assert {leaf.dtype for leaf in jax.eval_shape(answers, x, w)} == {jnp.dtype("float32")}


def test_fields_of_games_are_asked_for_once(x64):
    """Every member's field is computed once, and weighed in one product an array."""
    games = mean([QuadraticGame(h * np.ones(2), -h * np.ones(2), h) for h in (1.0, 2.0, 4.0)])
    z, w = Players(jnp.array([1.0, 2.0]), jnp.array([-1.0, 0.5])), jnp.array([1.0, -2.0, 0.5])
    root = MinibatchNoise(games, 2, replace=False).covariance_root(z)
    fields = [ravel_pytree(games.part(jnp.array([i])).gradient(z))[0] for i in range(3)]
    centred = np.sqrt(1 / 4 / 3) * (w - np.mean(w))
    np.testing.assert_allclose(ravel_pytree(root.mv(w))[0], centred @ np.array(fields), rtol=1e-13)
    assert products(lambda z, w: games.weighted_gradient(z, w), z, w) == 2 + products(
        jax.vmap(lambda game: game.gradient(z)), games.members
    )


# --- The noise's law at a point, which SignSGD's SDE asks for ---


def test_the_gaussian_law_at_a_point(x64):
    """(1 + erf(z/√(2 Σᵢᵢ)))/2 and 1/√(2π Σᵢᵢ), a step where nothing is drawn."""
    oracle = MinibatchNoise(regression(), 2).holding(jnp.array([0.25, 4.0, 0.0, 0.0, 0.0]))
    z = jnp.array([0.3, -1.0, 0.2, -0.2, 0.0])
    expected = [(1 + erf(0.3 / np.sqrt(0.5))) / 2, (1 + erf(-1 / np.sqrt(8))) / 2, 1, 0, 0.5]
    np.testing.assert_allclose(oracle.cdf(z), expected, rtol=1e-14)
    slope = jax.jacfwd(oracle.cdf)(z)
    assert np.all(np.isfinite(slope))
    density = 1 / np.sqrt(2 * np.pi * np.array([0.25, 4.0]))
    np.testing.assert_allclose(oracle.density_at_zero()[:2], density, rtol=1e-14)
    np.testing.assert_allclose(jax.jacfwd(oracle.cdf)(0 * z).diagonal()[:2], density, rtol=1e-14)
    problem, x = regression(), jnp.asarray(X)
    at = MinibatchNoise(problem, 2).at(x)
    np.testing.assert_array_equal(at.variance(x), MinibatchNoise(problem, 2).variance(x))
    np.testing.assert_array_equal(at.variance(2 * x), at.variance(x))
    for ask in (lambda oracle: oracle.cdf(z), lambda oracle: oracle.density_at_zero()):
        with pytest.raises(InputError, match=r"has a law at a point: ask at\(x\)"):
            ask(MinibatchNoise(problem, 2))


def test_signs_of_a_network_against_all_batches(x64):
    """P(g < 0) of the Gaussian law against all batches: off by what the central limit leaves.

    Of B of n = 12 terms. The law is exact in mean and variance, so what is off is of order
    1/√B: it falls from B = 1 to B = 4, to 0.03 in the mean over coordinates.
    """
    problem = network(12, 12)
    x, off = problem.x0, []
    for B in (1, 2, 4):
        oracle = MinibatchNoise(problem, B, replace=False)
        g = all_gradients(oracle, x, itertools.combinations(range(12), B))
        negative = np.mean(g < 0, axis=0) + np.mean(g == 0, axis=0) / 2
        drift = jax.jit(lambda oracle, y: SignSGD(oracle, 0.1).drift(0.0, y, None))
        mean_sign = -ravel_pytree(drift(oracle, State(x)))[0]
        mu, s = g.mean(0), g.std(0)
        np.testing.assert_allclose(mean_sign, erf(mu / (s * np.sqrt(2))), atol=1e-12)
        off.append(np.mean(np.abs((1 - mean_sign) / 2 - negative)))
    assert off[0] > off[1] > off[2]
    assert off[2] < 0.03


def test_the_diffusions_of_signs(x64):
    """√η √(4 P (1 - P)), and linearised √η √(1 - (2 p(0) ∇f)²); 0 where nothing is drawn."""
    problem, x = regression(), jnp.asarray(X)
    features = np.array(problem.features)
    features[:, 1] = 0.0  # only the penalty's gradient, the same in all terms
    problem = eqx.tree_at(lambda own: own.features, problem, jnp.asarray(features))
    oracle = MinibatchNoise(problem, 2)
    g, s = np.array(problem.gradient(x)), np.sqrt(oracle.variance(x))
    assert s[1] == 0
    drawn = np.array([True, False, True])
    P = np.where(drawn, (1 - erf(g / np.where(drawn, s, 1) / np.sqrt(2))) / 2, g < 0)
    root = SignSGD(oracle, 0.04).diffusion(0.0, State(x), None).diagonal.X
    np.testing.assert_allclose(root, -0.2 * np.sqrt(4 * P * (1 - P)), atol=1e-13)
    linearized = LinearizedSignSGD(oracle, 0.04)
    m = np.sqrt(2 / np.pi) * g[drawn] / s[drawn]
    np.testing.assert_allclose(linearized.drift(0.0, State(x), None).X[drawn], -m, rtol=1e-12)
    root = linearized.diffusion(0.0, State(x), None).diagonal.X[drawn]
    np.testing.assert_allclose(root, -0.2 * np.sqrt(np.maximum(1 - m**2, 0)), atol=1e-12)


@pytest.mark.parametrize("agents", [None, 3])
def test_a_weight_without_gradient_or_noise_rests_in_the_sdes_of_signs(agents, x64):
    """Against the optimizer's step over all pairs of draws: its mean and variance are both 0 there.

    The other coordinates' are as they were; where there is a gradient and no noise the step is
    sure, and its variance 0 too.
    """
    problem, x = regression(), jnp.array([0.4, -0.7, 0.0])
    features = np.array(problem.features)
    features[:, 1:] = 0.0  # the penalty alone: a gradient at x₂ = -0.7, none at x₃ = 0
    problem = eqx.tree_at(lambda own: own.features, problem, jnp.asarray(features))
    oracle = MinibatchNoise(problem, 2)
    steps = np.sign([oracle.sample_gradient(x, jnp.array(b)) for b in np.ndindex(5, 5)])
    assert np.all(steps.var(0)[1:] == 0)
    assert 0 < steps.var(0)[0] < 1
    kinds = [SignSGD, LinearizedSignSGD]
    if agents is not None:
        oracle = Agents([oracle] * agents)
        kinds = [DSignSGD, LinearizedDSignSGD, MajorityVote]
    for kind in kinds:
        sde = kind(oracle, 0.04)
        drift, root = (
            sde.drift(0.0, State(x), None).X,
            sde.diffusion(0.0, State(x), None).diagonal.X,
        )
        np.testing.assert_array_equal(drift[1:], -steps.mean(0)[1:])
        np.testing.assert_array_equal(root[1:], 0.0)
        assert root[0] < 0 or kind in (LinearizedSignSGD, LinearizedDSignSGD)
    if agents is None:
        covariance = lineax.diagonal(Sign().covariance(oracle, x))
        np.testing.assert_array_equal(covariance[1:], 0.0)


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
