"""RMSprop's and Adam's rows."""

import functools
from collections.abc import Callable

import numpy as np

from jaxsde import optimizers, sdes, theory
from jaxsde.families._family import Family, Laws, Setting, no_laws, quadratic_model
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic
from jaxsde.theory import Law


def _stationary_laws(published: bool = False) -> Callable[[Setting], Laws | None]:
    """Levels of the optimizer, of Euler-Maruyama and of the SDE, with V held at its mean."""

    def laws(setting: Setting) -> Laws | None:
        oracle, problem = setting.oracle, setting.oracle.problem
        if not isinstance(oracle, GaussianNoise) or oracle.root is not None:
            return None
        variance = np.broadcast_to(oracle.variance(setting.x0), setting.x0.shape).astype(float)
        about = "stationary levels, the second moment held at its mean"
        if isinstance(problem, Quadratic) and problem.hessian.ndim == 1:
            return Laws(*_levels(problem, variance, setting, published), about=about)
        model = quadratic_model(problem)
        values = setting.hyperparameters
        decays = [values.get(name, 0.0) for name in ("weight_decay", "l2_regularization")]
        if model is None or any(decays) or not np.all(variance == variance[0]):
            return None
        curvatures = np.linalg.eigvalsh(np.asarray(model.quadratic.hessian, float))
        levels = _levels(Quadratic(curvatures), variance, setting, published)
        return Laws(*(model.minimum + level for level in levels), about=f"{model.about}; {about}")

    return laws


def _levels(
    problem: Quadratic, variance: np.ndarray, setting: Setting, published: bool
) -> list[float]:
    eta, values = setting.learning_rate, setting.hyperparameters

    def level(law: Law) -> float:
        found = theory.adaptive.frozen_second_moment_law(
            problem, variance, eta, law, b1=values.get("b1", 0.0), eps=values["eps"],
            weight_decay=values.get("weight_decay", 0.0),
            l2_regularization=values.get("l2_regularization", 0.0),
            published=published and law != theory.discrete,
        )  # fmt: skip
        return float(theory.expected_loss(problem, found.moments))

    return [level(law) for law in (theory.discrete, theory.em(setting.dt), theory.sde)]


RMSPROP = {"decay": 0.99, "eps": 1e-8}
ADAM = {"b1": 0.9, "b2": 0.99, "eps": 1e-8}
DECAY = {"weight_decay": 0.0}
DECAYS = DECAY | {"l2_regularization": 0.0}
OLDER_RMSPROP = "rmsprop-batch-equivalent"
OLDER_ADAM = "adam-batch-equivalent"
WARM_UP = 10  # steps until v has gathered a tenth of what it averages

ROWS = {
    "rmsprop": Family(
        optimizers.rmsprop, sdes.RMSprop, _stationary_laws(), 0.01,
        "RMSprop and its SDE", RMSPROP | DECAYS, warm_up=WARM_UP, older=OLDER_RMSPROP,
    ),
    "rmspropw": Family(
        optimizers.rmsprop, sdes.RMSprop, _stationary_laws(), 0.01,
        "RMSpropW and its SDE", RMSPROP | DECAYS | {"weight_decay": 0.5}, warm_up=WARM_UP,
        older=OLDER_RMSPROP,
    ),
    "rmsprop-order-2": Family(
        optimizers.rmsprop, functools.partial(sdes.RMSprop, order=2), no_laws, 0.01,
        "RMSprop and its SDE of order 2", RMSPROP | DECAYS, warm_up=WARM_UP,
        older=OLDER_RMSPROP,
    ),
    "rmsprop-batch-equivalent": Family(
        optimizers.rmsprop, sdes.BatchEquivalentRMSprop, no_laws, 0.01,
        "RMSprop and its batch-equivalent SDE, t = k η²", RMSPROP | DECAY, clock=2, warm_up=WARM_UP,
    ),
    "adam": Family(
        optimizers.adam, sdes.Adam, _stationary_laws(), 0.01,
        "Adam and its SDE with matched noise", ADAM | DECAYS, older=OLDER_ADAM,
    ),
    "adam-l2": Family(
        optimizers.adam, sdes.Adam, _stationary_laws(), 0.01,
        "Adam on the L2-regularised loss and its SDE with matched noise",
        ADAM | DECAYS | {"l2_regularization": 0.5},
    ),
    "adamw": Family(
        optimizers.adam, sdes.Adam, _stationary_laws(), 0.01,
        "AdamW and its SDE with matched noise", ADAM | DECAYS | {"weight_decay": 0.5},
        older=OLDER_ADAM,
    ),
    "adamw-published": Family(
        optimizers.adam, functools.partial(sdes.Adam, published=True), _stationary_laws(True), 0.01,
        "AdamW and its SDE as published", ADAM | DECAYS | {"weight_decay": 0.5}, warm_up=WARM_UP,
        older=OLDER_ADAM,
    ),
    "adam-order-2": Family(
        optimizers.adam, functools.partial(sdes.Adam, order=2), no_laws, 0.01,
        "Adam and its SDE of order 2", ADAM | DECAYS, warm_up=WARM_UP, older=OLDER_ADAM,
    ),
    "adam-batch-equivalent": Family(
        optimizers.adam, sdes.BatchEquivalentAdam, no_laws, 0.01,
        "Adam and its batch-equivalent SDE, t = k η²", ADAM | DECAY, clock=2, warm_up=WARM_UP,
    ),
}  # fmt: skip
