"""Steps of distributed SGD, by hand, alone and in a chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsde import InputError, OptimizerProcess, optimizers
from jaxsde.oracles import Agents, AgentsDraw, GaussianNoise, RandomK
from jaxsde.problems import Quadratic

G = np.array([[1.0, -2.0, 0.5], [0.5, 1.0, -1.0], [-3.0, -0.1, -0.2], [2.0, 0.3, 0.0]])
X = np.array([1.0, 2.0, 3.0])


def steps(optimizer, gradients, **extra):
    """x after one step for each of the stacked gradients."""
    optimizer, x = optax.with_extra_args_support(optimizer), jnp.asarray(X)
    state, path = optimizer.init(x), []
    for g in gradients:
        updates, state = optimizer.update(jnp.asarray(g), state, x, **extra)
        x = optax.apply_updates(x, updates)
        path.append(x)
    return np.array(path)


@pytest.mark.parametrize(
    ("optimizer", "direction"),
    [
        (optimizers.dsgd(0.1), G.mean(0)),
        (optimizers.dsign_sgd(0.1), np.sign(G).mean(0)),
        (optimizers.dsign_sgd(0.1, majority_vote=True), [1.0, 0.0, -1.0]),
        (optimizers.dcsgd(0.1), 2 * G.mean(0)),
    ],
)
def test_one_step(optimizer, direction, x64):
    doubled = {"compress": lambda gradients: 2 * gradients}
    np.testing.assert_allclose(steps(optimizer, [G], **doubled)[0], X - 0.1 * np.array(direction))


@pytest.mark.parametrize("make", [optimizers.dsgd, optimizers.dcsgd, optimizers.dsign_sgd])
def test_a_schedule_multiplies_the_steps(make, x64):
    same = {"compress": lambda gradients: gradients}
    plain = steps(make(0.1), [G], **same)[0] - X
    scheduled = steps(make(0.1, lambda k: 1 / jnp.sqrt(k + 1.0)), [G] * 3, **same)
    moved = np.diff(scheduled, axis=0, prepend=X[None])
    np.testing.assert_allclose(moved, plain / np.sqrt([[1.0], [2.0], [3.0]]))


@pytest.mark.parametrize(
    ("behind", "before"), [(optax.adam(0.1), None), (optax.sgd(0.1, momentum=0.9), optax.clip(0.7))]
)
def test_any_transformation_may_follow_or_precede(behind, before, x64):
    """The chain on stacked gradients is the follower alone on their mean."""
    ahead = [] if before is None else [before]
    clipped = G if before is None else np.clip(G, -0.7, 0.7)
    chained = optax.chain(*ahead, optimizers.average_messages(), behind)
    found = steps(chained, [G, 2 * G, G], compress=lambda gradients: gradients)
    alone = steps(
        behind, [clipped.mean(0), np.clip(2 * G, *_within(before)).mean(0), clipped.mean(0)]
    )
    np.testing.assert_allclose(found, alone, rtol=1e-12)


def _within(before):
    return (-0.7, 0.7) if before is not None else (-np.inf, np.inf)


def test_a_process_compresses_with_its_own_draw(x64):
    agents = Agents.of(4, GaussianNoise, Quadratic([1.0, 2.0, 3.0]), RandomK(1), scale=0.5)
    rng = np.random.default_rng(0)
    draw = AgentsDraw(jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.uniform(size=(4, 3))))
    chain = optax.chain(optimizers.average_messages(), optax.scale(-0.1))
    process = OptimizerProcess(chain, agents, 0.1)
    x = jnp.asarray(X)
    after = process.step(0, process.init(x, draw), draw).x
    kept = np.asarray(draw.compression) == np.asarray(draw.compression).min(1, keepdims=True)
    gradients = np.array([1.0, 2.0, 3.0]) * X + 0.5 * np.asarray(draw.gradient)
    np.testing.assert_allclose(after, X - 0.1 * np.mean(3 * kept * gradients, axis=0), rtol=1e-12)


def test_a_schedule_is_a_function():
    with pytest.raises(InputError, match="schedule must be a function"):
        optimizers.dsgd(0.1, 0.5)


def test_one_agent_has_nothing_to_average():
    oracle = GaussianNoise(Quadratic([1.0, 2.0, 3.0]), 0.5)
    process = OptimizerProcess(optimizers.dsgd, {"learning_rate": 0.1}, oracle)
    x = jnp.zeros(3)
    with pytest.raises(InputError, match="give it Agents"):
        process.step(0, process.init(x, x), x)
    agents = Agents.of(2, GaussianNoise, Quadratic([1.0, 2.0, 3.0]), scale=0.5)
    process = OptimizerProcess(optax.sgd, {"learning_rate": 0.1}, agents)
    draw = AgentsDraw(jnp.zeros((2, 3)), ())
    with pytest.raises(InputError, match=r"need .*dsgd or a sibling"):
        process.step(0, process.init(x, draw), draw)


def test_messages_need_someone_to_make_them():
    with pytest.raises(InputError, match="needs compress"):
        steps(optimizers.dcsgd(0.1), [G])
    oracle = GaussianNoise(Quadratic([1.0, 2.0, 3.0]), 0.5)
    process = OptimizerProcess(optimizers.dcsgd, {"learning_rate": 0.1}, oracle)
    x = jnp.zeros(3)
    with pytest.raises(InputError, match="needs compress"):
        jax.eval_shape(process.step, 0, process.init(x, x), x)
