"""Compressors against exact enumeration of everything they can draw."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde import InputError
from jaxsde.engine import noise
from jaxsde.oracles import (
    QSGD,
    BernoulliK,
    GaussianNoise,
    Identity,
    RandomK,
    Sign,
    StudentTNoise,
    Ternary,
)
from jaxsde.problems import Quadratic

D = 4
G = np.array([0.7, -1.3, 0.2, 2.1])
ROOT = np.array([[0.5, 0, 0, 0], [0.2, 0.4, 0, 0], [0, -0.3, 0.6, 0], [0.1, 0.1, 0, 0.3]])
UNBIASED = {  # made in a test, in its precision
    "identity": Identity,
    **{f"random {k}": lambda k=k: RandomK(k) for k in (1, 2, 4)},
    **{f"bernoulli {k}": lambda k=k: BernoulliK(k) for k in (1.5, 4)},
}
LEVELS = {
    "ternary": Ternary,
    **{f"{s} levels": lambda s=s: QSGD(s) for s in (1, 2, 5)},
}


def messages(compressor, g):
    """Every message C(g) that can be, and its probability, by draws that lead to each."""
    d, g = len(g), np.asarray(g)
    if isinstance(compressor, Identity):
        return g[None], np.ones(1)
    if isinstance(compressor, RandomK):
        draws = np.array(list(itertools.permutations(range(d)))) / d + 0.1
        weights = np.full(len(draws), 1 / len(draws))
    else:
        up = np.array(list(itertools.product([0, 1], repeat=d)))
        if isinstance(compressor, BernoulliK):
            p = np.full(d, float(compressor.k) / d)
        else:
            p = float(compressor.levels) * np.abs(g) / np.sqrt(np.sum(g**2)) % 1
        draws = np.where(up, 1e-9, 1.0)
        weights = np.prod(np.where(up, p, 1 - p), axis=1)
    return np.asarray(jax.vmap(compressor.apply, (None, 0))(g, draws)), weights


def enumerated(compressor, root):
    """E C(g) and Cov C(g) over the compressor and over noise R s, s all vectors of ±1."""
    mean, second = 0, 0
    noises = [root @ s for s in itertools.product([-1, 1], repeat=D)]
    for z in noises:
        c, w = messages(compressor, G + z)
        mean = mean + w @ c / len(noises)
        second = second + np.einsum("n,ni,nj->ij", w, c, c) / len(noises)
    return mean, second - np.outer(mean, mean)


def oracle(root):
    problem = Quadratic(np.ones(D))
    if np.array_equal(root, np.diag(np.diag(root))):
        return GaussianNoise(problem, np.diag(root))
    return GaussianNoise(problem, covariance=root @ root.T)


@pytest.mark.parametrize("make", UNBIASED.values(), ids=UNBIASED)
@pytest.mark.parametrize("root", [np.diag([0.5, 1.0, 1.5, 0.3]), ROOT], ids=["diagonal", "full"])
def test_the_covariance_is_that_of_all_messages(make, root, x64):
    compressor = make()
    mean, covariance = enumerated(compressor, root)
    np.testing.assert_allclose(mean, G, rtol=1e-13)
    found = compressor.covariance(oracle(root), jnp.asarray(G)).as_matrix()
    np.testing.assert_allclose(found, covariance, atol=1e-12)


@pytest.mark.parametrize("make", LEVELS.values(), ids=LEVELS)
def test_quantised_messages_without_noise(make, x64):
    compressor = make()
    c, w = messages(compressor, G)
    np.testing.assert_allclose(w @ c, G, rtol=1e-13)
    covariance = np.einsum("n,ni,nj->ij", w, c - G, c - G)
    found = compressor.induced(jnp.asarray(G), jnp.zeros(D))
    np.testing.assert_allclose(np.diag(found.D), covariance, atol=1e-12)
    assert float(found.c) == 0


@pytest.mark.parametrize("make", LEVELS.values(), ids=LEVELS)
def test_quantised_messages_under_gaussian_noise(make, x64):
    """The quadrature against the mean over many gradients, relative to the message's variance.

    The means of 200,000 have errors below 0.3 %, so that 2 % are the quadrature's.
    """
    compressor, d = make(), 10
    rng = np.random.default_rng(7)
    sigma = rng.uniform(0.5, 1.5, d)
    for mean in (np.zeros(d), rng.normal(size=d)):
        g = mean + sigma * rng.normal(size=(200_000, d))
        norm2, s = np.sum(g**2, axis=1, keepdims=True), float(compressor.levels)
        p = s * np.abs(g) / np.sqrt(norm2) % 1
        sampled = np.mean(norm2 * p * (1 - p), axis=0) / s**2
        found = compressor.induced(jnp.asarray(mean), jnp.asarray(sigma**2)).D
        assert np.max(np.abs(found - sampled) / (sigma**2 + sampled)) < 0.02
        assert abs(np.sum(found) / np.sum(sampled) - 1) < 0.02


@pytest.mark.parametrize("make", LEVELS.values(), ids=LEVELS)
def test_quantised_messages_of_few_coordinates(make, x64):
    """As above in three, to 7 %; 100,000 gradients."""
    rng, compressor = np.random.default_rng(3), make()
    sigma = rng.uniform(0.5, 1.5, 3)
    for mean in (np.zeros(3), rng.normal(size=3), 3 * rng.normal(size=3)):
        g = mean + sigma * rng.normal(size=(100_000, 3))
        norm2, s = np.sum(g**2, axis=1, keepdims=True), float(compressor.levels)
        p = s * np.abs(g) / np.sqrt(norm2) % 1
        sampled = np.mean(norm2 * p * (1 - p), axis=0) / s**2
        found = compressor.induced(jnp.asarray(mean), jnp.asarray(sigma**2)).D
        assert np.max(np.abs(found - sampled) / (sigma**2 + sampled)) < 0.07


@pytest.mark.parametrize("d", [1, 2, 3])
def test_ternary_omega_of_few_coordinates(d, x64):
    c, w = messages(Ternary(), np.ones(d))
    error = w @ np.sum((c - 1) ** 2, axis=1) / d
    np.testing.assert_allclose(Ternary().omega(d), error, atol=1e-12)
    assert float(QSGD(3).omega(1)) == 0


def test_the_other_coordinates_spread_too(x64):
    """Tr D of ternary messages, of mean 2 % too large at half the spread that the mean brings.

    The error of the mean over 400,000 gradients is 0.1 %.
    """
    mean = 1.5 * np.linspace(-1.5, 1.5, 5)
    g = mean + np.random.default_rng(5).normal(size=(400_000, 5))
    norm2 = np.sum(g**2, axis=1, keepdims=True)
    p = np.abs(g) / np.sqrt(norm2)
    sampled = np.sum(np.mean(norm2 * p * (1 - p), axis=0))
    found = np.sum(Ternary().induced(jnp.asarray(mean), jnp.ones(5)).D)
    assert found == pytest.approx(sampled, rel=0.006)


@pytest.mark.parametrize("nu", [1.0, 2.5, np.inf])
def test_signs_have_the_law_of_the_noise(nu, x64):
    problem, sigma = Quadratic(np.ones(D)), np.array([0.5, 1.0, 2.0, 0.1])
    if np.isinf(nu):
        agent = GaussianNoise(problem, sigma)
    else:
        agent = StudentTNoise(problem, sigma, nu)
    up = 1 - np.asarray(agent.cdf(jnp.asarray(-G)))  # P(g > 0)
    expected = 1 - (up - (1 - up)) ** 2
    found = Sign().covariance(agent, jnp.asarray(G)).diagonal
    np.testing.assert_allclose(found, expected, atol=1e-14)
    np.testing.assert_allclose(Sign().mean(agent, jnp.asarray(G)), 2 * up - 1, atol=1e-14)
    np.testing.assert_array_equal(Sign().apply(jnp.asarray(G), ()), np.sign(G))
    assert np.isinf(Sign().omega(D))


@pytest.mark.parametrize("make", (UNBIASED | LEVELS).values(), ids=UNBIASED | LEVELS)
def test_omega_bounds_the_error_and_is_attained(make, x64):
    compressor = make()
    omega, largest = float(compressor.omega(D)), 0
    rng = np.random.default_rng(1)
    points = [*rng.normal(size=(40, D)), np.ones(D), -np.ones(D)]
    for g in points:
        c, w = messages(compressor, g)
        largest = max(largest, w @ np.sum((c - g) ** 2, axis=1) / np.sum(g**2))
    assert largest <= omega + 1e-12
    if not isinstance(compressor, QSGD) or float(compressor.levels) <= np.sqrt(D) / 2:
        assert largest == pytest.approx(omega, abs=1e-12)


def test_omega_of_many_levels_is_attained_between_levels(x64):
    """At r = s |g|/|g| of 1/2 and 3/2 all p are 1/2: d/(4 s²), where s² = Σ r²."""
    r = np.array([0.5] * 7 + [1.5])
    s = np.sqrt(np.sum(r**2))
    compressor = QSGD(2)
    assert s == compressor.levels
    c, w = messages(compressor, r)
    error = w @ np.sum((c - r) ** 2, axis=1) / np.sum(r**2)
    np.testing.assert_allclose(error, compressor.omega(8), rtol=1e-12)
    np.testing.assert_allclose(compressor.omega(8), 8 / (4 * s**2), rtol=1e-12)


@pytest.mark.parametrize("d", [7, 200])  # ranks pair by pair, and by halving
def test_random_k_keeps_each_coordinate_equally_often(d):
    precision = "float32"
    draw, words = RandomK(3).noise(d), jnp.asarray([3, 4], jnp.uint32)
    n = 20_000 if d == 7 else 4_000
    blocks = noise.blocks(draw, words, 0, jnp.arange(n, dtype=jnp.uint32), precision)
    u = noise.values(draw, blocks, 0, precision).T
    kept = np.asarray(jax.vmap(RandomK(3).apply)(jnp.ones((n, d), precision), u)) > 0
    assert np.all(kept.sum(1) == 3)
    # d dependent binomials: |z| > 5 somewhere has probability below 1.2e-4.
    z = (kept.sum(0) - n * 3 / d) / np.sqrt(n * 3 / d * (1 - 3 / d))
    assert np.abs(z).max() < 5
    together = (kept[:, 0] & kept[:, 1]).sum() - n * 3 * 2 / (d * (d - 1))
    assert abs(together) < 5 * np.sqrt(n * 3 * 2 / (d * (d - 1))) + 5


def test_half_of_many_coordinates_is_found():
    """Where the search begins at k/d it would miss the 500th value every other time."""
    u = np.random.default_rng(2).uniform(size=(300, 1000)).astype(np.float32)
    kept = np.asarray(jax.vmap(RandomK(500).apply)(jnp.ones((300, 1000)), u)) > 0
    expected = np.argsort(np.argsort(u, axis=1), axis=1) < 500
    np.testing.assert_array_equal(kept, expected)


def test_ties_keep_exactly_k():
    kept = RandomK(2).apply(jnp.ones(5), jnp.asarray([0.5, 0.5, 0.5, 0.1, 0.5])) > 0
    assert kept.sum() == 2


def test_zero_gradients_stay_zero():
    for compressor in (QSGD(3), Ternary()):
        message = compressor.apply(jnp.zeros(3), jnp.asarray([1e-9, 0.5, 1.0]))
        np.testing.assert_array_equal(message, 0)
        assert np.all(np.isfinite(compressor.induced(jnp.zeros(3), jnp.zeros(3)).D))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomK(0), "k must be positive"),
        (lambda: RandomK(1.5), "k must be a whole number"),
        (lambda: BernoulliK(0.5), "k must be at least 1"),
        (lambda: BernoulliK(np.nan), "k must be positive"),
        (lambda: QSGD(0), "levels must be positive"),
        (lambda: QSGD(-2), "levels must be"),
        (lambda: RandomK(4).noise(3), "4 of 3 coordinates cannot be kept"),
        (lambda: RandomK(4).omega(3), "4 of 3 coordinates cannot be kept"),
        (lambda: RandomK(4).induced(jnp.ones(3), jnp.ones(3)), "4 of 3 coordinates cannot be kept"),
        (lambda: BernoulliK(4).induced(jnp.ones(3), jnp.ones(3)), "4 of 3 coordinates cannot be"),
        (lambda: BernoulliK(4).noise(3), "4 of 3 coordinates cannot be kept"),
        (lambda: RandomK([1, 2]), "k must be one number"),
        (lambda: QSGD([1, 2]), "levels must be one number"),
    ],
)
def test_levels_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
