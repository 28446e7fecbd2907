"""RMSprop(W), Adam(W) and their SDEs through the engine, against closed forms and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsde import OptimizerProcess, Paired, SDEProcess, optimizers, sdes, simulate, theory
from jaxsde.engine.observables import Observable
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic

ETA = 0.01
COORDINATES, PATHS, STEPS = 8, 12_500, 600
FLAT = Quadratic(np.ones(COORDINATES))
# 10^5 independent values: a variance's standard error is 0.45 %.
SPREAD = np.sqrt(2 / (COORDINATES * PATHS))


def settled_variance(process, key, x0=None):
    """Var x at the end, over all coordinates; the slowest here has relaxed by e^(-2 · 6)."""
    x0 = np.zeros(COORDINATES, np.float32) if x0 is None else x0
    run = simulate(process, x0, steps=STEPS, paths=PATHS, key=key, records=1)
    assert run.used("loss")[-1] == PATHS
    return np.mean(run.variance("position")[-1])


# 12 cases, each a normal statistic: one beyond 4 errors has probability below 8e-4.
CASES = [
    *((theta, 0.0) for theta in (0.0, 0.5, 1.0, 4.0)),
    *((theta, b1) for b1 in (0.9, 0.98) for theta in (0.0, 0.5, 1.0, 4.0)),
]


@pytest.mark.parametrize(("theta", "b1"), CASES)
def test_stationary_variances_within_three_percent_of_the_corrected_law(theta, b1, key):
    """Beside 4 errors; and the published law is outside wherever it is off by more than six.

    The exact recursion with V at its mean is met to 0.5 %: the fluctuations of v, of order 1 - β₂.
    """
    oracle, common = GaussianNoise(FLAT, 1.0), {"learning_rate": ETA, "weight_decay": theta}
    if b1 == 0.0:
        hyperparameters = common | {"decay": 0.998, "initial_second_moment": 1.0}
        process = OptimizerProcess(optimizers.rmsprop, hyperparameters, oracle)
    else:
        process = OptimizerProcess(optax.adamw, common | {"b1": b1, "b2": 0.998}, oracle)
    found = settled_variance(process, key)
    corrected, published = (
        theory.adaptive.stationary_variance(
            FLAT, 1.0, ETA, b1=b1, weight_decay=theta, published=form
        )[0]
        for form in (False, True)
    )
    exact = theory.adaptive.frozen_second_moment_law(
        FLAT, 1.0, ETA, theory.discrete, b1=b1, weight_decay=theta
    ).variance[0]
    assert abs(found / exact - 1) < 0.005 + 4 * SPREAD
    assert abs(found / corrected - 1) < 0.03 + 4 * SPREAD
    if published > 1.06 * corrected:
        assert abs(found / published - 1) > 0.03 + 4 * SPREAD


FORMS = {
    "RMSpropW": (sdes.RMSprop, 0.0, {"decay": 0.99, "initial_second_moment": 1.0}, False),
    "AdamW, matched": (sdes.Adam, 0.9, {"b1": 0.9, "b2": 0.99}, False),
    "AdamW, published": (sdes.Adam, 0.9, {"b1": 0.9, "b2": 0.99}, True),
}


@pytest.mark.parametrize("name", FORMS)
def test_sdes_settle_at_their_own_variances(name, key):
    """Euler-Maruyama at dt = η/2 against its law with V at its mean, to 1 % beside 4 errors."""
    make, b1, values, published = FORMS[name]
    values = values | ({"published": True} if published else {})
    sde = make(GaussianNoise(FLAT, 1.0), ETA, weight_decay=0.5, **values)
    run = simulate(
        SDEProcess(sde, ETA / 2), np.zeros(COORDINATES, np.float32), steps=2 * STEPS,
        paths=PATHS, key=key, records=1,
    )  # fmt: skip
    found = np.mean(run.variance("position")[-1])
    law, other = (
        theory.adaptive.frozen_second_moment_law(
            FLAT, 1.0, ETA, theory.em(ETA / 2), b1=b1, weight_decay=0.5, published=form
        ).variance[0]
        for form in (published, not published)
    )
    assert abs(found / law - 1) < 0.01 + 4 * SPREAD
    if b1:
        assert abs(found / other - 1) > 0.05


def largest_difference(make, eta, key):
    """max over time of |E f(x_k) - E f(X_kη)|, and the error where it is."""
    optimizer, sde, warm_up = make(eta)
    pair = Paired(optimizer, SDEProcess(sde, eta / 4), 4, warm_up)
    steps = round(1.6 / eta)
    run = simulate(
        pair, X0, steps=steps, paths=10_000, key=key, records=np.arange(1, 11) * steps // 10,
        observables={"loss": PROBLEM.loss},
    )  # fmt: skip
    difference = np.abs(run.mean("difference.loss"))
    at = np.argmax(difference)
    return difference[at], run.standard_error("difference.loss")[at]


PROBLEM, X0 = Quadratic([1.0, 2.0], [0.1, -0.2]), np.array([1.0, -0.8], np.float32)
ORACLE = GaussianNoise(PROBLEM, 0.7)
V0 = np.asarray(sdes.RMSprop(ORACLE, ETA).initial(jnp.asarray(X0)).V)


def rmspropw(eta):
    values = {
        "learning_rate": eta, "decay": 1 - 2 * eta, "weight_decay": 0.5, "initial_second_moment": V0
    }  # fmt: skip
    process = OptimizerProcess(optimizers.rmsprop, values, ORACLE)
    return process, sdes.RMSprop(ORACLE, **values), 0


def adamw(eta):
    """Warmed up until a fixed time: the singular start costs a logarithm of η otherwise."""
    values = {"learning_rate": eta, "b1": 1 - 5 * eta, "b2": 1 - 2 * eta, "weight_decay": 0.5}
    process = OptimizerProcess(optax.adamw, values, ORACLE)
    return process, sdes.Adam(ORACLE, **values), round(0.16 / eta)


@pytest.mark.parametrize("make", [rmspropw, adamw])
def test_the_sdes_error_halves_with_the_learning_rate(make, key):
    """Over the whole transient, averages' rates held fixed; the ratio is known to 4 errors."""
    coarse, fine = (largest_difference(make, eta, key) for eta in (0.04, 0.02))
    ratio = coarse[0] / fine[0]
    error = ratio * np.hypot(coarse[1] / coarse[0], fine[1] / fine[0])
    assert 1.6 < ratio - 4 * error
    assert ratio + 4 * error < 2.5


def test_the_batch_equivalent_sdes_follow_their_moments(key):
    """Euler-Maruyama against its exact recursion; 24 normal statistics, 4.5 has odds of 2e-4."""
    eta, decay, x0 = 0.1, 0.98, np.array([1.0, -2.0], np.float32)
    problem, variance = Quadratic([0.5, 2.0]), np.array([4.0, 1.0])
    oracle = GaussianNoise(problem, np.sqrt(variance))
    dt, steps, paths = eta**2 / 2, np.array([20, 60, 200]), 20_000
    common = {"eps": 0.1, "noise_scale": 3.0}
    values = {
        "rmsprop": sdes.BatchEquivalentRMSprop(
            oracle, eta, decay, initial_second_moment=2.0, **common
        ),
        "adam": sdes.BatchEquivalentAdam(oracle, eta, 0.95, decay, t0=10 * dt, **common),
    }
    for name, sde in values.items():
        run = simulate(
            SDEProcess(sde, dt), x0, steps=200, paths=paths, key=key, records=steps
        )  # fmt: skip
        time = float(sde.t0) + dt * steps
        if name == "rmsprop":
            law = theory.adaptive.batch_equivalent_rmsprop_moments(
                problem, variance, eta, x0, time, theory.em(dt), decay=decay, eps=0.1,
                initial_second_moment=2.0,
            )  # fmt: skip
        else:
            law = theory.adaptive.batch_equivalent_adam_moments(
                problem, variance, eta, x0, time, theory.em(dt), b1=0.95, b2=decay, t0=10 * dt,
                eps=0.1,
            ).x  # fmt: skip
        spread = np.diagonal(law.covariance, axis1=1, axis2=2)
        mean, found = run.mean("position"), run.variance("position")
        assert np.abs((mean - law.mean) / np.sqrt(spread / paths)).max() < 4.5
        assert np.abs((found / spread - 1) / np.sqrt(2 / paths)).max() < 4.5


def test_second_order_second_moments_are_floored_and_counted(key):
    """With β = 0.5 the order-2 noise takes V below (1 - β) σ² often, and P stays bounded."""
    sde = sdes.RMSprop(GaussianNoise(FLAT, 1.0), 0.05, decay=0.5, order=2)
    share = Observable(sde.at_floor, of_state=True)
    run = simulate(
        SDEProcess(sde, 0.05), np.zeros(COORDINATES, np.float32), steps=40, paths=500, key=key,
        records=1, observables={"floor": share, "x": lambda x: x},
    )  # fmt: skip
    assert 0.05 < run.mean("floor")[-1] < 0.6
    assert np.all(run.used("x") == 500)


def test_sweeps_over_hyperparameters_do_not_recompile(key):
    import chex

    oracle = GaussianNoise(PROBLEM, 0.5)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def drift(values):
        sde = sdes.Adam(oracle, **values)
        return sde.drift(0.1, sde.initial(jnp.asarray(X0)), None)

    for b1, decay in ((0.9, 0.0), (0.5, 1.0)):
        drift({"learning_rate": 0.1, "b1": b1, "b2": 0.9, "weight_decay": decay})
