"""One table of what can be compared: optimizer, SDE, the laws they should follow, defaults."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import lineax
import numpy as np
import optax
from jaxtyping import Float
from scipy.special import erf

from jaxsde import _checks, sdes, theory
from jaxsde.oracles import GaussianNoise, Oracle, StudentTNoise
from jaxsde.problems import LogisticRegression, Quadratic

Curve = Float[np.ndarray, " T"]
LATTICE_STEPS = 10_000  # two seconds in ten dimensions, growing with the square


class Setting(NamedTuple):
    """One comparison: the oracle, η, the start, the SDE's dt, and the times `(T,)` asked for."""

    oracle: Oracle
    learning_rate: float
    x0: np.ndarray
    dt: float
    time: Curve


class Laws(NamedTuple):
    """Expected losses to compare with, each named; `about` says what they are.

    `optimizer`, `solver` (the SDE as Euler-Maruyama solves it at its dt) and `sde` (the SDE in
    continuous time) are curves `(T,)` where they are known at all times, or single numbers where
    only the stationary level is. `errors` is False where the loss has no variance, so that its
    standard errors mean nothing.
    """

    optimizer: Curve | float | None
    solver: Curve | float | None
    sde: Curve | float | None
    about: str
    errors: bool = True


class Family(NamedTuple):
    """An optimizer, one SDE of it, their laws, and a learning rate that suits a first run."""

    optimizer: Callable[..., optax.GradientTransformation]
    sde: Callable[[Oracle, Any], sdes.SDE]
    known_laws: Callable[[Setting], Laws | None]
    learning_rate: float
    about: str

    def laws(self, setting: Setting) -> Laws:
        """The laws at this setting; none where none is known, and why."""
        try:
            laws = self.known_laws(setting)
        except _checks.InputError as error:
            return Laws(None, None, None, about=f"none at this setting: {error}")
        return laws or Laws(None, None, None, about="none known for this problem and noise")


def _gradient_descent_laws(order: int) -> Callable[[Setting], Laws | None]:
    def laws(setting: Setting) -> Laws | None:
        oracle, eta = setting.oracle, setting.learning_rate
        forms = (
            (theory.discrete, 1),
            (theory.em(setting.dt), order),
            (theory.sde, order),
        )
        if not _has_covariance(oracle):
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
            if _has_loss_variance(oracle):
                return Laws(optimizer, solver, sde, about)
            about += "; the loss has no variance, so its errors mean nothing"
            return Laws(optimizer, solver, sde, about, errors=False)
        model = _quadratic_model(problem)
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


def _sign_laws(linearized: bool) -> Callable[[Setting], Laws | None]:
    def laws(setting: Setting) -> Laws | None:
        oracle, eta = setting.oracle, setting.learning_rate
        noise = _sign_noise(setting)
        if noise is None:
            return None
        scale, nu = noise
        problem = oracle.problem
        if isinstance(problem, Quadratic) and problem.hessian.ndim == 1:
            optimizer, sde = _sign_curves(setting, problem, scale, nu, linearized)
            about = "the lattice law of the algorithm and the backward equation of the SDE, exact"
            if linearized:
                return Laws(optimizer, None, sde, about)
            # Euler-Maruyama at dt = η has the algorithm's first two conditional moments.
            solver = sde + setting.dt / eta * (optimizer - sde)
            return Laws(optimizer, solver, sde, f"{about}; as solved to first order in dt")
        model = _quadratic_model(problem)
        if model is None or not np.all(scale == scale[0]):
            return None
        excess = theory.sign.stationary_excess_loss(len(scale), eta, scale[0], nu)
        return Laws(*[model.minimum + excess] * 3, about=f"{model.about}, leading order in η")

    return laws


def _sign_curves(
    setting: Setting, problem: Quadratic, scale: np.ndarray, nu: float, linearized: bool
) -> tuple[Curve, Curve]:
    """E f of the optimizer and of the SDE, a sum over independent coordinates."""
    eta, steps = setting.learning_rate, np.rint(setting.time / setting.learning_rate).astype(int)
    if steps.max() > LATTICE_STEPS:
        raise _checks.InputError(f"the lattice law takes too long beyond {LATTICE_STEPS:,} steps")
    optimizer, sde = np.zeros(len(steps)), np.zeros(len(steps))
    h, minimizer = np.asarray(problem.hessian, float), np.asarray(problem.minimizer, float)
    for lam, sigma, y0 in zip(h, scale, setting.x0 - minimizer, strict=True):

        def loss(y, lam=lam):
            return lam / 2 * y**2

        def mean_sign(y, lam=lam, sigma=sigma):
            s = lam * y / sigma
            return theory.sign.slope(nu) * s if linearized else _mean_sign(s, nu)

        def diffusion(y, mean_sign=mean_sign):
            return np.sqrt(eta * np.maximum(1 - mean_sign(y) ** 2, 0))

        chain = theory.sign.lattice_moments(
            lambda y, lam=lam: lam * y,
            lambda z, sigma=sigma: (1 + _mean_sign(z / sigma, nu)) / 2,
            eta, float(y0), int(steps.max()), {"loss": loss},
        )  # fmt: skip
        optimizer += chain["loss"][steps]
        reach = abs(y0) + 12 * np.sqrt(eta * (eta + sigma / abs(lam)))
        for i, t in enumerate(setting.time):
            sde[i] += loss(float(y0)) if t == 0 else theory.backward_equation.expectation(
                loss, lambda y, m=mean_sign: -m(y), diffusion, float(y0), float(t),
                domain=(-reach, reach), tolerance=1e-5 * loss(reach),
            )  # fmt: skip
    return optimizer, sde


def _mean_sign(s: np.ndarray, nu: float) -> np.ndarray:
    """E sign(g) at the signal-to-noise ratio s = ∇f/σ."""
    return erf(s / np.sqrt(2)) if np.isinf(nu) else 2 * theory.sign.centred_cdf(s, nu)


def _sign_noise(setting: Setting) -> tuple[np.ndarray, float] | None:
    oracle, shape = setting.oracle, np.shape(setting.x0)
    if isinstance(oracle, StudentTNoise):
        return np.broadcast_to(oracle.scale, shape).astype(float), float(oracle.degrees_of_freedom)
    if isinstance(oracle, GaussianNoise) and oracle.root is None:
        variance = lineax.diagonal(oracle.covariance(jnp.asarray(setting.x0)))
        return np.sqrt(np.asarray(variance, float)), np.inf
    return None


def _degrees_of_freedom(oracle: Oracle) -> float:
    return float(oracle.degrees_of_freedom) if isinstance(oracle, StudentTNoise) else np.inf


def _has_covariance(oracle: Oracle) -> bool:
    return _degrees_of_freedom(oracle) > 2


def _has_loss_variance(oracle: Oracle) -> bool:
    return _degrees_of_freedom(oracle) > 4


class _Model(NamedTuple):
    quadratic: Quadratic
    minimum: float
    about: str


def _quadratic_model(problem: Any) -> _Model | None:
    """The problem's second-order expansion at its minimiser, where that is known."""
    if not isinstance(problem, LogisticRegression) or problem.regularization <= 0:
        return None
    x = problem.minimizer()
    about = "stationary level, from the quadratic model at the minimiser"
    return _Model(Quadratic(problem.hessian(x), x), float(problem.loss(x)), about)


FAMILIES = {
    "sgd": Family(
        optax.sgd, sdes.SGD, _gradient_descent_laws(1), 0.05, "SGD and its SDE of order 1"
    ),
    "sgd-order-2": Family(
        optax.sgd,
        lambda oracle, learning_rate: sdes.SGD(oracle, learning_rate, order=2),
        _gradient_descent_laws(2), 0.05, "SGD and its SDE of order 2",
    ),
    "sign_sgd": Family(
        optax.sign_sgd, sdes.SignSGD, _sign_laws(False), 0.02, "SignSGD and its exact SDE"
    ),
    "sign_sgd-linearized": Family(
        optax.sign_sgd, sdes.LinearizedSignSGD, _sign_laws(True), 0.02,
        "SignSGD and its SDE linearised where noise dominates",
    ),
}  # fmt: skip


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    _checks.known("optimizer", name, FAMILIES)
    return FAMILIES[name]
