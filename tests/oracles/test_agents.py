"""Many agents: their law against the sum of their parts, their noise, what is refused."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde import InputError, OptimizerProcess, engine, optimizers, simulate
from jaxsde.engine.noise import is_draw
from jaxsde.oracles import (
    QSGD,
    SVAG,
    Agents,
    BernoulliK,
    GaussianNoise,
    Identity,
    RandomK,
    Sign,
    StudentTNoise,
)
from jaxsde.problems import LogisticRegression, Problem, Quadratic

D = 4
PROBLEM = Quadratic(np.linspace(0.5, 2, D))
X = np.array([0.7, -1.3, 0.2, 2.1])
SCALES = [0.3, 0.8, 1.5]
FULL = [np.diag(SCALES[i] ** np.arange(D)) + 0.1 for i in range(3)]


def compressors(kind):
    return {
        "identity": Identity(),
        "one random": RandomK(2),
        "each random": [RandomK(k) for k in (1, 2, 3)],
        "each bernoulli": [BernoulliK(k) for k in (1, 2.5, 4)],
        "qsgd": [QSGD(s) for s in (1, 2, 4)],
    }[kind]


def oracles(noise, problems):
    if noise == "diagonal":
        return [GaussianNoise(f, s, batch_size=2) for f, s in zip(problems, SCALES, strict=True)]
    return [GaussianNoise(f, covariance=S) for f, S in zip(problems, FULL, strict=True)]


@pytest.mark.parametrize(
    ("kind", "noise", "problems"),
    [
        ("identity", "diagonal", "one"),
        ("each bernoulli", "diagonal", "own"),
        ("qsgd", "diagonal", "own"),
        ("one random", "diagonal", "one"),
        ("each random", "diagonal", "own"),
        ("identity", "full", "one"),
        ("each bernoulli", "full", "own"),
        ("each random", "full", "one"),
        ("each random", "full", "own"),
    ],
)
def test_the_mean_message_has_the_mean_of_the_covariances(kind, noise, problems, x64):
    """R Rᵀ of the factors against (1/N²) Σ Cov Cᵢ(gᵢ), each agent's enumerated elsewhere."""
    own = [PROBLEM] * 3
    if problems == "own":
        own = [Quadratic(PROBLEM.hessian, m * np.arange(D)) for m in (0.0, 0.3, -0.5)]
    members, x = oracles(noise, own), jnp.asarray(X)
    chosen = compressors(kind)
    agents = Agents(members, chosen)
    each = chosen if isinstance(chosen, list) else [chosen] * 3
    expected = sum(
        compressor.covariance(oracle, x).as_matrix()
        for compressor, oracle in zip(each, members, strict=True)
    )
    root = agents.covariance_root(x).as_matrix()
    np.testing.assert_allclose(root @ root.T, expected / 9, atol=1e-13)
    np.testing.assert_allclose(agents.covariance(x).as_matrix(), expected / 9, atol=1e-13)
    mean = sum(oracle.gradient(x) for oracle in members) / 3
    np.testing.assert_allclose(agents.gradient(x), mean, rtol=1e-13)
    losses = [oracle.problem.loss(x) for oracle in members]
    np.testing.assert_allclose(agents.problem.loss(x), np.mean(losses), rtol=1e-13)


def test_what_agents_share_is_held_once():
    agents = Agents.of(3, GaussianNoise, PROBLEM, scale=SCALES, batch_size=4)
    assert agents.one_problem
    assert agents.problem.hessian is PROBLEM.hessian
    assert agents.members.tree.scale.shape == (3,)
    assert agents.members.tree.batch_size.shape == ()
    same = Agents([GaussianNoise(PROBLEM, 0.5)] * 3, [RandomK(2)] * 3)
    assert not jax.tree.leaves([same.members.own, same.compressors.own])


def test_agents_from_a_generator():
    assert Agents(GaussianNoise(PROBLEM, s) for s in SCALES).count == 3


def test_slots_are_independent_and_each_agents_own(key):
    """Sums of N independent gradients: any shared slot would double a variance."""
    flat = Quadratic(np.zeros(D))
    agents = Agents.of(3, GaussianNoise, flat, scale=SCALES)
    process = OptimizerProcess(optimizers.dsgd, {"learning_rate": 1.0}, agents)
    paths = 20_000
    run = simulate(process, np.zeros(D, np.float32), steps=1, paths=paths, key=key, records=1)
    expected = np.sum(np.square(SCALES)) / 9
    # 4 independent sample variances: |z| > 4.5 somewhere has probability below 3e-5.
    z = (run.variance("position")[-1] / expected - 1) * np.sqrt(paths / 2)
    assert np.abs(z).max() < 4.5


def test_a_pytree_is_compressed_as_one_vector(x64):
    class Tree(Problem):
        def loss(self, x):
            return PROBLEM.loss(jnp.concatenate([x["a"], x["b"].ravel()]))

    x = {"a": jnp.asarray(X[:1]), "b": jnp.asarray(X[1:]).reshape(3, 1)}
    agents = Agents.of(2, GaussianNoise, Tree(), RandomK(2), scale=0.5)
    flat = Agents.of(2, GaussianNoise, PROBLEM, RandomK(2), scale=0.5)
    draw = agents.noise(x)
    assert draw.compression.shape == (2, D)
    u = jnp.asarray(np.random.default_rng(0).uniform(size=(2, D)))
    zeros = jax.tree.map(lambda draw: jnp.zeros(draw.shape), draw.gradient, is_leaf=is_draw)
    noise = type(draw)(zeros, u)
    message = agents.compress(agents.sample_gradient(x, noise), noise)
    other = type(draw)(jnp.zeros((2, D)), u)
    expected = flat.compress(flat.sample_gradient(jnp.asarray(X), other), other)
    np.testing.assert_allclose(message["a"], expected[:, :1], rtol=1e-14)
    np.testing.assert_allclose(message["b"][..., 0], expected[:, 1:], rtol=1e-14)
    root = agents.covariance_root(x).as_matrix()
    np.testing.assert_allclose(
        root @ root.T, flat.covariance(jnp.asarray(X)).as_matrix(), atol=1e-14
    )


def test_a_data_set_is_dealt_out():
    rng = np.random.default_rng(0)
    whole = LogisticRegression(rng.normal(size=(11, 2)), rng.integers(0, 2, 11), 0.1)
    parts = whole.split(3)
    np.testing.assert_array_equal(parts[1].features, whole.features[1:9:3])
    agents = Agents([GaussianNoise(part, 0.1) for part in parts])
    nine = LogisticRegression(whole.features[:9], whole.labels[:9], 0.1)
    x = jnp.asarray([0.3, -0.2])
    np.testing.assert_allclose(agents.problem.loss(x), nine.loss(x), rtol=1e-6)
    np.testing.assert_allclose(agents.gradient(x), nine.gradient(x), rtol=1e-5)
    for count in (0, 12):
        with pytest.raises(InputError, match="parts"):
            whole.split(count)


def test_other_levels_and_scales_do_not_recompile(key):
    @chex.assert_max_traces(1)
    def step(process, x):
        draws = process.noise(x)
        draw = jax.tree.map(lambda draw: jnp.ones(draw.shape), draws, is_leaf=is_draw)
        return process.step(0, process.init(x, draw), draw).x

    jitted, seen = eqx.filter_jit(step), []
    for k, scale in ((1, 0.5), (2, 0.5), (3, 1.0)):
        agents = Agents.of(2, GaussianNoise, PROBLEM, RandomK(k), scale=[scale, 2 * scale])
        process = OptimizerProcess(optimizers.dcsgd, {"learning_rate": 0.1}, agents)
        seen.append(np.asarray(jitted(process, jnp.asarray(X, jnp.float32))))
    assert not np.allclose(seen[0], seen[1])
    assert not np.allclose(seen[1], seen[2])


def test_a_sweep_over_agents_is_a_vmap(key):
    def level(scale, k):
        agents = Agents.of(
            2, StudentTNoise, PROBLEM, RandomK(k), scale=[scale, 2 * scale], degrees_of_freedom=3.0
        )
        process = OptimizerProcess(optimizers.dcsgd, {"learning_rate": 0.1}, agents)
        paths = engine.start(process, jnp.asarray(X, jnp.float32), key, 16)
        _, record = engine.evolve(process, paths, key, 0, 0, jnp.array([3]), {"f": PROBLEM.loss})
        return record["f"].moments.mean[-1]

    scales, ks = jnp.array([0.1, 1.0]), jnp.array([1.0, 3.0])
    swept = jax.jit(jax.vmap(level))(scales, ks)
    alone = [jax.jit(level)(s, k) for s, k in zip(scales, ks, strict=True)]
    np.testing.assert_allclose(swept, alone, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Agents([]), "agents must be at least one"),
        (lambda: Agents(GaussianNoise(PROBLEM, 1.0)), "agents must be a list of jaxsde Oracles"),
        (lambda: Agents([PROBLEM]), "agents must be a list of jaxsde Oracles"),
        (
            lambda: Agents([GaussianNoise(PROBLEM, 1.0)], RandomK),
            "compressors must be a list of jaxsde Compressors",
        ),
        (lambda: Agents.of(0, GaussianNoise, PROBLEM, scale=1.0), "agents must be a whole number"),
        (
            lambda: Agents.of(3, GaussianNoise, PROBLEM, scale=[1.0, 2.0]),
            "scale has 2 entries for 3 agents",
        ),
        (
            lambda: Agents.of(2, GaussianNoise, PROBLEM, scale=1.0, batch_size=[1, 2, 4]),
            "batch_size has 3 entries for 2 agents",
        ),
        (
            lambda: Agents([GaussianNoise(PROBLEM, 1.0)] * 2, [RandomK(1)] * 3),
            "3 compressors for 2 agents",
        ),
        (
            lambda: Agents([GaussianNoise(PROBLEM, 1.0), StudentTNoise(PROBLEM, 1.0, 3.0)]),
            "the agents must be of one kind",
        ),
        (
            lambda: Agents([GaussianNoise(PROBLEM, 1.0), GaussianNoise(PROBLEM, [1.0] * D)]),
            "the agents must have arrays of the same shapes",
        ),
        (
            lambda: Agents([GaussianNoise(PROBLEM, 1.0)] * 2, [RandomK(1), QSGD(1)]),
            "the compressors must be of one kind",
        ),
        (lambda: Agents.of(2, GaussianNoise, PROBLEM, scale=[1.0, -1.0]), "scale must be positive"),
        (
            lambda: Agents.of(
                2, StudentTNoise, PROBLEM, scale=1.0, degrees_of_freedom=[1.0, 2.0]
            ).noise(jnp.zeros(D)),
            "must have one law",
        ),
        (
            lambda: Agents.of(2, GaussianNoise, PROBLEM, RandomK(5), scale=1.0).noise(jnp.zeros(D)),
            "5 of 4 coordinates cannot be kept",
        ),
        (
            lambda: Agents.of(2, GaussianNoise, PROBLEM, scale=[[1.0] * 3] * 2).noise(jnp.zeros(D)),
            "scale has shape",
        ),
        (
            lambda: Agents.of(2, GaussianNoise, PROBLEM, Sign(), scale=1.0).covariance_root(
                jnp.zeros(D)
            ),
            "Sign is biased",
        ),
    ],
)
def test_agents_that_do_not_fit_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_svag_amplifies_every_agent(x64):
    plain, x = Agents.of(2, GaussianNoise, PROBLEM, scale=[0.5, 1.0]), jnp.asarray(X)
    amplified = Agents([SVAG(GaussianNoise(PROBLEM, s), 4.0) for s in (0.5, 1.0)])
    np.testing.assert_allclose(
        amplified.covariance(x).as_matrix(), 4 * plain.covariance(x).as_matrix(), rtol=1e-13
    )
