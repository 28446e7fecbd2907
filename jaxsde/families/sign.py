"""SignSGD's rows."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import lineax
import numpy as np
import optax
from scipy.special import erf

from jaxsde import _checks, sdes, theory
from jaxsde.families._family import Curve, Family, Laws, Setting, quadratic_model
from jaxsde.oracles import GaussianNoise, StudentTNoise
from jaxsde.problems import Quadratic

LATTICE_WORK = 1e8  # products a coordinate; two seconds in ten dimensions


class Server(NamedTuple):
    """What a server makes of N signs of one law: its step on the lattice and in the SDE.

    `step` maps the mean m of one sign to the mean and variance of what is sent back; `gain()` is
    how many times the excess loss near a minimum falls below that of one agent.
    """

    agents: int
    majority_vote: bool
    step: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    gain: Callable[[], float]


def alone(setting: Setting) -> Server:
    """One agent."""
    return Server(1, False, lambda m: (m, 1 - m**2), lambda: 1.0)


def sign_laws(
    linearized: bool = False, server: Callable[[Setting], Server] = alone
) -> Callable[[Setting], Laws | None]:
    """Laws of the sign methods: exact curves on diagonal quadratics, levels near a minimum."""

    def laws(setting: Setting) -> Laws | None:
        oracle, eta = setting.oracle, setting.learning_rate
        noise = _sign_noise(setting)
        if noise is None:
            return None
        scale, nu = noise
        problem = oracle.problem
        if isinstance(problem, Quadratic) and problem.hessian.ndim == 1:
            optimizer, sde = _sign_curves(setting, problem, scale, nu, linearized, server(setting))
            about = "the lattice law of the algorithm and the backward equation of the SDE, exact"
            if linearized:
                return Laws(optimizer, None, sde, about)
            # Euler-Maruyama at dt = η has the algorithm's first two conditional moments.
            solver = sde + setting.dt / eta * (optimizer - sde)
            return Laws(optimizer, solver, sde, f"{about}; as solved to first order in dt")
        model = quadratic_model(problem)
        if model is None or not np.all(scale == scale[0]):
            return None
        excess = theory.sign.stationary_excess_loss(len(scale), eta, scale[0], nu)
        level = model.minimum + excess / server(setting).gain()
        return Laws(*[level] * 3, about=f"{model.about}, leading order in η")

    return laws


def _sign_curves(
    setting: Setting, problem: Quadratic, scale: np.ndarray, nu: float, linearized: bool,
    server: Server,
) -> tuple[Curve, Curve]:  # fmt: skip
    """E f of the optimizer and of the SDE, a sum over independent coordinates."""
    eta, steps = setting.learning_rate, np.rint(setting.time / setting.learning_rate).astype(int)
    N = server.agents
    outcomes = 2 - N % 2 if server.majority_vote else N  # of a step, beside the first
    if outcomes * (outcomes + 1) / 2 * float(steps.max()) ** 2 > LATTICE_WORK:
        most = int(np.sqrt(2 * LATTICE_WORK / (outcomes * (outcomes + 1))))
        raise _checks.InputError(f"the lattice law takes too long beyond {most:,} steps")
    optimizer, sde = np.zeros(len(steps)), np.zeros(len(steps))
    h, minimizer = np.asarray(problem.hessian, float), np.asarray(problem.minimizer, float)
    for lam, sigma, y0 in zip(h, scale, setting.x0 - minimizer, strict=True):

        def loss(y, lam=lam):
            return lam / 2 * y**2

        def mean_sign(y, lam=lam, sigma=sigma):
            s = lam * y / sigma
            return theory.sign.slope(nu) * s if linearized else _mean_sign(s, nu)

        def drift(y, mean_sign=mean_sign):
            return -server.step(mean_sign(y))[0]

        def diffusion(y, mean_sign=mean_sign):
            return np.sqrt(eta * np.maximum(server.step(mean_sign(y))[1], 0))

        def cdf(z, sigma=sigma):
            return (1 + _mean_sign(z / sigma, nu)) / 2

        chain = theory.distributed.lattice_moments(
            lambda y, lam=lam: lam * y, [cdf] * server.agents, eta, float(y0), int(steps.max()),
            {"loss": loss}, majority_vote=server.majority_vote,
        )  # fmt: skip
        optimizer += chain["loss"][steps]
        reach = abs(y0) + 12 * np.sqrt(eta * (eta + sigma / abs(lam)))
        for i, t in enumerate(setting.time):
            sde[i] += loss(float(y0)) if t == 0 else theory.backward_equation.expectation(
                loss, drift, diffusion, float(y0), float(t),
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


ROWS = {
    "sign_sgd": Family(
        optax.sign_sgd, sdes.SignSGD, sign_laws(), 0.02, "SignSGD and its exact SDE"
    ),
    "sign_sgd-linearized": Family(
        optax.sign_sgd, sdes.LinearizedSignSGD, sign_laws(linearized=True), 0.02,
        "SignSGD and its SDE linearised where noise dominates",
    ),
}  # fmt: skip
