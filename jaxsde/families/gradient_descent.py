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
    has_loss_variance,
    no_laws,
    quadratic_model,
)
from jaxsde.problems import Quadratic


def _gradient_descent_laws(order: int) -> Callable[[Setting], Laws | None]:
    def laws(setting: Setting) -> Laws | None:
        oracle, eta = setting.oracle, setting.learning_rate
        forms = (
            (theory.discrete, 1),
            (theory.em(setting.dt), order),
            (theory.sde, order),
        )
        if not has_covariance(oracle):
            return None
        covariance = np.asarray(oracle.covariance(jnp.asarray(setting.x0)).as_matrix(), float)
        problem = oracle.problem
        if isinstance(problem, Quadratic):
            curves = []
            for law, o in forms:
                with np.errstate(over="ignore", invalid="ignore"):
                    moments = theory.gradient_descent.moments(
                        problem, covariance, eta, setting.x0, setting.time, law, o
                    )
                    curve = theory.expected_loss(problem, moments)
                curves.append(np.where(np.isnan(curve), np.inf, curve))  # past float64's range
            about = "closed forms of the first two moments, exact at all times"
            optimizer, solver, sde = curves
            if has_loss_variance(oracle):
                return Laws(optimizer, solver, sde, about)
            about += "; the loss has no variance, so its errors mean nothing"
            return Laws(optimizer, solver, sde, about, errors=False)
        model = quadratic_model(problem)
        if model is None:
            return None
        levels = []
        for law, o in forms:
            stationary = theory.gradient_descent.stationary_covariance(
                model.quadratic, covariance, eta, law, o
            )
            excess = np.sum(np.asarray(model.quadratic.hessian, float) * stationary) / 2
            levels.append(model.minimum + float(excess))
        return Laws(*levels, about=model.about)

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
