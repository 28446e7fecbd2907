"""SGD's rows."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax

from jaxsde import sdes, theory
from jaxsde.families._family import (
    Family,
    Laws,
    Setting,
    has_covariance,
    no_laws,
    second_moment_laws,
)


def _gradient_descent_laws(order: int) -> Callable[[Setting], Laws | None]:
    def laws(setting: Setting) -> Laws | None:
        oracle, eta = setting.oracle, setting.learning_rate
        if not has_covariance(oracle):
            return None
        covariance = np.asarray(oracle.covariance(jnp.asarray(setting.x0)).as_matrix(), float)
        forms = ((theory.discrete, 1), (theory.em(setting.dt), order), (theory.sde, order))

        def moments(problem, form):
            return theory.gradient_descent.moments(
                problem, covariance, eta, setting.x0, setting.time, *form
            )

        def stationary(problem, form):
            return theory.gradient_descent.stationary_covariance(problem, covariance, eta, *form)

        return second_moment_laws(setting, forms, moments, stationary)

    return laws


MOMENTUM = {"momentum": 0.9}

ROWS = {
    "sgd": Family(
        optax.sgd, sdes.SGD, _gradient_descent_laws(1), 0.05, "SGD and its SDE of order 1"
    ),
    "sgd-order-2": Family(
        optax.sgd, functools.partial(sdes.SGD, order=2), _gradient_descent_laws(2), 0.05,
        "SGD and its SDE of order 2",
    ),
    "heavy-ball": Family(
        optax.sgd, sdes.HeavyBall, no_laws, 0.01,
        "SGD with momentum and its SDE of order 1, t = k √η", MOMENTUM, clock=0.5,
    ),
    "heavy-ball-order-2": Family(
        optax.sgd, functools.partial(sdes.HeavyBall, order=2), no_laws, 0.01,
        "SGD with momentum and its SDE of order 2, t = k √η", MOMENTUM, clock=0.5,
    ),
    "nesterov": Family(
        functools.partial(optax.sgd, nesterov=True), sdes.Nesterov, no_laws, 0.01,
        "Nesterov's SGD and its SDE of order 1, t = k √η", MOMENTUM, clock=0.5,
    ),
    "nesterov-order-2": Family(
        functools.partial(optax.sgd, nesterov=True), functools.partial(sdes.Nesterov, order=2),
        no_laws, 0.01, "Nesterov's SGD and its SDE of order 2, t = k √η", MOMENTUM, clock=0.5,
    ),
}  # fmt: skip
