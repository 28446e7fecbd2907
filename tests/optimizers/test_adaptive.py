"""The transformations against optax's own and against their updates written out by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsde import InputError, OptimizerProcess, optimizers, sdes, simulate
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic

ETA, STEPS = 0.05, 12
X0 = np.array([1.0, -2.0, 0.5])
GRADIENTS = np.random.default_rng(8).normal(size=(STEPS, 3))


def run(optimizer, x0=X0):
    """The positions after each step, on given gradients."""

    def step(carry, g):
        x, state = carry
        updates, state = optimizer.update(g, state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    carry = (jnp.asarray(x0), optimizer.init(jnp.asarray(x0)))
    return jax.jit(lambda: jax.lax.scan(step, carry, jnp.asarray(GRADIENTS))[1])()


def by_hand(b1, b2, eps, theta, lam, v0, corrected, timing):
    x, m, v, positions = X0, np.zeros(3), np.broadcast_to(v0, 3), []
    for k, g in enumerate(GRADIENTS):
        g = g + lam * x
        old = v
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        hat, age = (v, k + 1) if timing == "new" else (old, k)
        if corrected and age == 0:
            direction = np.zeros(3)
        else:
            mhat = m / (1 - b1 ** (k + 1)) if corrected else m
            direction = mhat / (np.sqrt(hat / (1 - b2**age) if corrected else hat) + eps)
        x = x - ETA * direction - ETA * theta * x
        positions.append(x)
    return np.stack(positions)


OPTAX = {
    "rmsprop": (
        lambda: optimizers.rmsprop(ETA, 0.8, 0.01),
        lambda: optax.rmsprop(ETA, 0.8, 0.01, eps_in_sqrt=False),
    ),
    "rmsprop from v0": (
        lambda: optimizers.rmsprop(ETA, 0.8, 0.01, initial_second_moment=0.5),
        lambda: optax.rmsprop(ETA, 0.8, 0.01, 0.5, eps_in_sqrt=False),
    ),
    "rmsprop, corrected": (
        lambda: optimizers.rmsprop(ETA, 0.8, 0.01, bias_correction=True),
        lambda: optax.rmsprop(ETA, 0.8, 0.01, eps_in_sqrt=False, bias_correction=True),
    ),
    "corrected rmsprop is adam with b1 = 0": (
        lambda: optimizers.rmsprop(ETA, 0.8, 0.01, bias_correction=True),
        lambda: optax.adam(ETA, 0.0, 0.8, 0.01),
    ),
    "adam": (
        lambda: optimizers.adam(ETA, 0.7, 0.8, 0.01),
        lambda: optax.adam(ETA, 0.7, 0.8, 0.01),
    ),
    "adamw": (
        lambda: optimizers.adam(ETA, 0.7, 0.8, 0.01, weight_decay=0.3),
        lambda: optax.adamw(ETA, 0.7, 0.8, 0.01, weight_decay=0.3),
    ),
    "adam on the L2 loss": (
        lambda: optimizers.adam(ETA, 0.7, 0.8, 0.01, l2_regularization=0.3),
        lambda: optax.chain(optax.add_decayed_weights(0.3), optax.adam(ETA, 0.7, 0.8, 0.01)),
    ),
    "a schedule": (
        lambda: optimizers.adam(optax.linear_schedule(0.1, 0.0, 5)),
        lambda: optax.adam(optax.linear_schedule(0.1, 0.0, 5)),
    ),
}


@pytest.mark.parametrize("name", OPTAX)
def test_equal_to_optax_where_optax_has_it(name, x64):
    ours, its = (run(make()) for make in OPTAX[name])
    np.testing.assert_allclose(ours, its, rtol=1e-14)


VARIANTS = list(itertools.product(("rmsprop", "adam"), (False, True), ("new", "old")))


@pytest.mark.parametrize(("name", "corrected", "timing"), VARIANTS)
def test_every_variant_is_its_update(name, corrected, timing, x64):
    v0 = 0.0 if corrected else np.array([0.4, 0.5, 0.6])
    options = {
        "eps": 0.02, "weight_decay": 0.3, "l2_regularization": 0.2, "initial_second_moment": v0,
        "bias_correction": corrected, "v_timing": timing,
    }  # fmt: skip
    if name == "rmsprop":
        optimizer, b1 = optimizers.rmsprop(ETA, decay=0.8, **options), 0.0
    else:
        optimizer, b1 = optimizers.adam(ETA, b1=0.7, b2=0.8, **options), 0.7
    expected = by_hand(b1, 0.8, 0.02, 0.3, 0.2, v0, corrected, timing)
    np.testing.assert_allclose(run(optimizer), expected, rtol=1e-13)


def test_epsilon_is_outside_the_root_unlike_optaxs_default(x64):
    inside = run(optax.rmsprop(ETA, 0.8, 0.01))
    assert np.abs(run(optimizers.rmsprop(ETA, 0.8, 0.01)) - inside).max() > 1e-3


def test_one_dictionary_serves_optimizer_and_sde(key):
    hyperparameters = {
        "learning_rate": ETA, "decay": 0.9, "eps": 1e-3, "weight_decay": 0.1,
        "l2_regularization": 0.2, "initial_second_moment": 0.5, "v_timing": "old",
    }  # fmt: skip
    oracle = GaussianNoise(Quadratic([1.0, 2.0]), 0.3)
    process = OptimizerProcess(optimizers.rmsprop, hyperparameters, oracle)
    assert sdes.RMSprop(oracle, **hyperparameters).v_timing == "old"
    run = simulate(process, np.ones(2, np.float32), steps=4, paths=64, key=key, records=1)
    assert run.mean("loss")[-1] < run.mean("loss")[0]


ORACLE = GaussianNoise(Quadratic([1.0]), 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.rmsprop(ETA, decay=1.0), r"decay must be one number in \[0, 1\)"),
        (lambda: optimizers.rmsprop(ETA, decay=-0.1), "decay must be one number"),
        (lambda: optimizers.adam(ETA, b1=1.2), "b1 must be one number"),
        (lambda: optimizers.adam(ETA, b2=np.nan), "b2 must be one number"),
        (lambda: optimizers.adam(ETA, eps=-1e-8), "eps must be finite and not negative"),
        (
            lambda: optimizers.adam(ETA, weight_decay=-1.0),
            "weight_decay must be finite and not neg",
        ),
        (lambda: optimizers.rmsprop(ETA, l2_regularization=-1.0), "l2_regularization must be"),
        (lambda: optimizers.rmsprop(ETA, v_timing="now"), "unknown v_timing 'now'.*new"),
        (
            lambda: optimizers.rmsprop(ETA, eps=0.0, v_timing="old"),
            "divide by the old v = 0 with eps = 0.*positive initial_second_moment or eps",
        ),
        (
            lambda: optimizers.adam(ETA, initial_second_moment=1.0),
            "leave initial_second_moment out, or switch bias_correction off",
        ),
        (
            lambda: OptimizerProcess(optimizers.adam, {"learning_rate": ETA, "b1": 1.5}, ORACLE),
            "b1 must be one number",
        ),
        (
            lambda: OptimizerProcess(optimizers.adam, {"learning_rate": ETA, "decay": 0.9}, ORACLE),
            "refuses its hyperparameters.*decay",
        ),
    ],
)
def test_bad_input_says_what_to_change(make, message):
    with pytest.raises(InputError, match=message):
        make()
