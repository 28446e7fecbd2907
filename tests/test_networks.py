"""Every SDE on a network: nothing dense, one noise and one state a path, and what holding costs."""

import math

import equinox as eqx
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde import InputError, SDEProcess, families, simulate
from jaxsde.engine import noise, start
from jaxsde.engine.evolve import step_work
from jaxsde.oracles import GaussianNoise, MinibatchNoise
from jaxsde.problems import LogisticRegression, Network, Quadratic, cross_entropy, finite_sum, mean
from jaxsde.sdes import SGD, USAM, Adam, RMSprop, SignSGD
from jaxsde.sdes._sde import State


def network(n=16, width=60, micro_batch=1024):
    """6 features, 3 classes; (6 + 1) 60 + (60 + 1) 3 = 603 parameters."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.standard_normal((n, 6)).astype(np.float32), rng.integers(0, 3, n)
    model = eqx.nn.MLP(6, 3, width, 1, key=jax.random.key(0))
    return Network(model, cross_entropy, inputs, labels, micro_batch)


# --- Nothing dense ---

OTHER_NUMBERS = {"rmspropw": "rmsprop", "adam-l2": "adam", "adamw": "adam"}  # the same programs
FAMILIES = sorted(
    name for name, family in families.FAMILIES.items()
    if family.problem != "quadratic-game" and name not in OTHER_NUMBERS
)  # fmt: skip
ONE = 16 * 60  # numbers in the activations of one layer, more than the 603 in x
# How many of these the largest array holds: one for each of 4 or 5 agents, unless said here.
MULTIPLES = {"dcsgd-qsgd": 24, "dcsgd-ternary": 24}  # 24 nodes of a quadrature a coordinate
SAMPLED = "the law of H_c p_c is enumerated or sampled, as many gradients at a time as draws"
NO_SQUARES = "no covariance of squared noise is known"
NOT_UNDER_MINIBATCHES = {
    "adam-order-2": NO_SQUARES, "rmsprop-order-2": NO_SQUARES,
    "usam": SAMPLED, "usam-full-perturbation": SAMPLED, "dnsam": SAMPLED, "sam": SAMPLED,
    "sam-sgd-noise": SAMPLED,
}  # fmt: skip


def largest(jaxpr):
    """Numbers in the largest array that a program makes, in whatever is inside it too."""
    own = [math.prod(atom.aval.shape) for e in jaxpr.eqns for atom in e.outvars]
    inner = [part for e in jaxpr.eqns for part in jax.extend.core.jaxprs_in_params(e.params)]
    return max([0, *own, *map(largest, inner)])


WEIGHTED, VARIANCE = jax.jit(Network.weighted_gradient), jax.jit(Network.gradient_variance)


@pytest.fixture
def traced_once(monkeypatch):
    """The network's gradients as functions that a program calls, traced once for all families."""
    monkeypatch.setattr(finite_sum, "AT_ONCE", 2 * 603)  # gradients of two terms at a time
    monkeypatch.setattr(Network, "weighted_gradient", WEIGHTED)
    monkeypatch.setattr(Network, "gradient_variance", VARIANCE)


def traced(process, x0):
    """The largest array in a step, which must keep the state as it is."""
    draw = noise.structure(process.noise(x0), jnp.float32)
    state = jax.eval_shape(process.init, x0, draw)
    program, after = jax.make_jaxpr(process.step, return_shape=True)(0, state, draw)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(after)] == [
        (b.shape, b.dtype) for b in jax.tree.leaves(state)
    ]
    held = sum(leaf.size for leaf in jax.tree.leaves((state, draw)))
    return largest(program.jaxpr), held


@pytest.mark.parametrize("name", FAMILIES)
def test_no_family_makes_anything_dense(name, traced_once):
    """Both sides of every pair under Gaussian noise, from the program, which is not compiled."""
    problem, family = network(), families.family(name)
    d = problem.size
    oracle = GaussianNoise(problem, 0.1)
    size, held = traced(family.pair(oracle, family.learning_rate, 1), problem.x0)
    assert size <= MULTIPLES.get(name, 5) * ONE < d**2 / 10
    assert held <= 12 * d


@pytest.mark.parametrize("name", FAMILIES)
def test_no_sde_makes_anything_dense_under_mini_batches(name, traced_once):
    problem, family = network(), families.family(name)
    d = problem.size
    pair = family.pair(MinibatchNoise(problem, 4), family.learning_rate, 1)
    if name in NOT_UNDER_MINIBATCHES:
        with pytest.raises(InputError, match=r"cannot be enumerated|squared noise"):
            traced(pair.sde, problem.x0)
        return
    size, held = traced(pair.sde, problem.x0)
    assert size <= MULTIPLES.get(name, 5) * ONE < d**2 / 10
    assert held <= 5 * d


def test_the_check_sees_what_is_dense(traced_once):
    """USAM's covariance to first order in ρ, as published, needs a root of a matrix."""
    problem = network()
    sde = USAM(GaussianNoise(problem, 0.1), 0.1, 0.1, covariance="first-order")
    assert traced(SDEProcess(sde, 0.1), problem.x0)[0] >= problem.size**2


# --- diag Σ looked at every m steps ---


def regression(n=8):
    rng = np.random.default_rng(4)
    return LogisticRegression(3 * rng.standard_normal((n, 3)), rng.integers(0, 2, n), 0.1)


X = np.array([1.0, -0.8, 0.5])


def sde_of(kind, oracle):
    if kind == "adam":
        return Adam(oracle, 0.05, 0.8, 0.9, eps=1e-4)
    return RMSprop(oracle, 0.05, 0.9, eps=1e-4) if kind == "rmsprop" else SignSGD(oracle, 0.05)


@eqx.filter_jit
def after(process, x0, draws):
    """The SDE's state after a step for each of these draws."""
    state = process.init(x0, None)
    state, _ = jax.lax.scan(
        lambda state, own: (process.step(own[0], state, own[1]), None),
        state, (jnp.arange(len(jax.tree.leaves(draws)[0]), dtype=float), draws),
    )  # fmt: skip
    return state


@pytest.mark.parametrize("kind", ["rmsprop", "sign"])
def test_every_step_is_what_it_is_without_holding(kind, x64):
    sde = sde_of(kind, MinibatchNoise(regression(), 2))
    draws = np.random.default_rng(0).standard_normal((12, 3 if kind == "sign" else 8))
    if kind == "sign":
        draws = State(draws)
    state = after(SDEProcess(sde, 0.05), X, draws)
    held = after(SDEProcess(sde, 0.05, variance_every=1), X, draws)
    other = after(SDEProcess(sde, 0.05, variance_every=5), X, draws)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(held.y), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    assert np.all(np.abs(other.y.X - state.X) > 1e-6)
    assert other.age == 12 % 5


@pytest.mark.parametrize("kind", ["rmsprop", "adam"])
def test_holding_a_constant_covariance_changes_nothing(kind, x64):
    """∇fᵢ = h (x - cᵢ) has the covariance h² Cov c everywhere."""
    centres = np.random.default_rng(2).standard_normal((6, 3))
    problem = mean([Quadratic([1.0, 2.0, 0.5], c) for c in centres])
    sde = sde_of(kind, MinibatchNoise(problem, 2))
    draws = np.random.default_rng(0).standard_normal((12, 6))
    one, many = (after(SDEProcess(sde, 0.05, variance_every=m), X, draws) for m in (1, 7))
    np.testing.assert_allclose(many.y.X, one.y.X, rtol=1e-12)
    np.testing.assert_allclose(many.y.V, one.y.V, rtol=1e-12)


@pytest.mark.parametrize("kind", ["rmsprop", "adam"])
def test_the_error_of_holding_grows_as_the_time_held(kind, x64):
    """Without draws, at time 0.96: in mean diag Σ is (m - 1)/2 steps old, so V is O(m dt) off."""
    sde = sde_of(kind, MinibatchNoise(regression(), 2))

    def V(m, steps):
        process = SDEProcess(sde, 0.96 / steps, variance_every=m)
        return np.asarray(after(process, X, np.zeros((steps, 8))).y.V)

    error = {(m, steps): np.linalg.norm(V(m, steps) - V(1, steps)) for m, steps in CASES}
    assert 0 < error[4, 96] < 0.01 * np.linalg.norm(V(1, 96))  # at m dt = 0.04
    assert error[16, 96] / error[4, 96] == pytest.approx(15 / 3, rel=0.25)
    assert error[16, 192] / error[16, 96] == pytest.approx(1 / 2, rel=0.1)
    assert error[32, 192] / error[16, 96] == pytest.approx(31 / 30, rel=0.1)


CASES = [(4, 96), (16, 96), (16, 192), (32, 192)]


def test_holding_under_a_pair_with_a_warm_up_and_substeps(x64):
    """Two substeps a step, Σ looked at in every fourth from the end of the warm-up on."""
    oracle = MinibatchNoise(regression(), 2)
    pair = families.family("rmsprop").pair(oracle, 0.05, 2, warm_up=3, variance_every=4)
    drawn = np.random.default_rng(1)
    begin = noise.structure(pair.noise(jnp.asarray(X)), jnp.float64)

    def draw():
        return jax.tree.map(
            lambda leaf: jnp.asarray(
                drawn.standard_normal(leaf.shape) if leaf.dtype == jnp.float64
                else drawn.integers(0, 8, leaf.shape), leaf.dtype
            ),
            begin,
        )  # fmt: skip

    step = eqx.filter_jit(pair.step)
    states = [pair.init(jnp.asarray(X), draw())]
    for k in range(9):
        states.append(step(jnp.int32(k), states[-1], draw()))
    ages = [int(state.sde.age) for state in states]
    assert ages == [0, 0, 0, 0, 2, 0, 2, 0, 2, 0]
    for k, looked_at in ((4, 3), (5, 3), (6, 5), (7, 5), (8, 7), (9, 7)):
        x = states[looked_at].sde.y.X
        np.testing.assert_allclose(states[k].sde.variance, oracle.variance(x), rtol=1e-12)
    np.testing.assert_array_equal(states[3].sde.y.X, states[3].optimizer.x)
    assert not np.allclose(states[5].sde.y.X, states[5].optimizer.x)


def test_all_paths_look_at_the_variance_together(key):
    """Their age is stored once, so that a step in between computes no variance on any path."""
    pair = families.family("rmsprop").pair(
        MinibatchNoise(network(), 4), 0.01, 1, warm_up=3, variance_every=4
    )
    paths = jax.eval_shape(lambda: start(pair, network().x0, key, 5))
    assert paths.state.sde.age.shape == ()
    assert {leaf.shape[-1] for leaf in jax.tree.leaves(paths.state.sde.y)} == {5}


def test_holding_is_for_mini_batches():
    for oracle in (GaussianNoise(regression(), 0.1), GaussianNoise(network(), 0.1)):
        with pytest.raises(InputError, match="variance_every is for MinibatchNoise"):
            SDEProcess(SGD(oracle, 0.1), 0.1, variance_every=3)
    with pytest.raises(InputError, match="variance_every must be a whole number of at least 1"):
        SDEProcess(SGD(MinibatchNoise(regression()), 0.1), 0.1, variance_every=0)


# --- Runs ---


def test_a_run_of_a_network_is_the_same_however_it_is_cut(key):
    """Five paths, which take turns: on one device, or in chunks of 2 on two."""
    problem = network(1000)
    pair = families.family("sgd").pair(MinibatchNoise(problem, 16), 0.1, 1)
    assert step_work(pair, problem.x0, pair.noise(problem.x0)).in_turn

    def run(**cut):
        return simulate(pair, problem.x0, steps=20, paths=5, key=key, records=2, **cut)

    one = run(devices=jax.devices()[:1], observables=problem.observables())
    for side in ("optimizer", "sde"):
        for name in ("loss", "gradient_norm", "accuracy"):
            assert np.all(np.isfinite(one.mean(f"{side}.{name}")))
            assert np.all(one.used(f"{side}.{name}") == 5)
        loss, accuracy = (one.mean(f"{side}.{name}") for name in ("loss", "accuracy"))
        np.testing.assert_allclose(loss[0], problem.loss(problem.x0), rtol=1e-5)
        np.testing.assert_allclose(accuracy[0], problem.accuracy(problem.x0), rtol=1e-5)
        assert loss[-1] < loss[0]
    other = run(chunk=2, observables={"loss": problem.loss})
    for name in ("optimizer.loss", "sde.loss", "difference.loss"):
        np.testing.assert_allclose(other.mean(name), one.mean(name), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            other.quantile(name, 0.5).value, one.quantile(name, 0.5).value, rtol=1e-5, atol=1e-6
        )
