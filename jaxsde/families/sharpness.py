"""SAM's rows."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxsde import optimizers, sdes, theory
from jaxsde.families._family import (
    Family,
    Laws,
    Setting,
    has_covariance,
    no_laws,
    second_moment_laws,
)
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic


def _usam_laws(full_perturbation: bool = False) -> Callable[[Setting], Laws | None]:
    def laws(setting: Setting) -> Laws | None:
        oracle, eta, rho = setting.oracle, setting.learning_rate, setting.hyperparameters["rho"]
        if not has_covariance(oracle):
            return None
        covariance = np.asarray(oracle.covariance(jnp.asarray(setting.x0)).as_matrix(), float)

        def moments(problem, law):
            return theory.sharpness.usam_moments(
                problem, covariance, eta, rho, setting.x0, setting.time, law,
                full_perturbation=full_perturbation,
            )  # fmt: skip

        def stationary(problem, law):
            return theory.sharpness.usam_stationary_covariance(
                problem, covariance, eta, rho, law, full_perturbation=full_perturbation
            )

        forms = (theory.discrete, theory.em(setting.dt), theory.sde)
        return second_moment_laws(setting, forms, moments, stationary)

    return laws


def _dnsam_laws(setting: Setting) -> Laws:
    """None, and whether its errors mean anything."""
    d = sum(np.size(leaf) for leaf in jax.tree.leaves(setting.x0))
    exists = theory.sharpness.dnsam_has_second_moment(d)
    about = "none known for this problem and noise"
    if not exists:
        about += f"; with d = {d} <= 2 steps past a critical point have no variance: read medians"
    return Laws(None, None, None, about=about, errors=exists)


def _sam_laws(setting: Setting) -> Laws | None:
    """Levels near a minimum, or at a saddle that captures."""
    oracle, problem = setting.oracle, setting.oracle.problem
    sigma = oracle.isotropic_scale() if isinstance(oracle, GaussianNoise) else None
    if sigma is None or not isinstance(problem, Quadratic):
        return None
    levels = []
    for law in (theory.discrete, theory.em(setting.dt), theory.sde):
        covariance = theory.sharpness.sam_stationary_covariance(
            problem, float(sigma), setting.learning_rate, setting.hyperparameters["rho"], law
        )
        at_rest = theory.Moments(np.asarray(problem.minimizer, float), covariance)
        levels.append(float(theory.expected_loss(problem, at_rest)))
    return Laws(*levels, about="stationary levels, to relative order η λ: where |∇f| is below σ")


RHO = {"rho": 0.1}

ROWS = {
    "usam": Family(
        optimizers.usam, sdes.USAM, _usam_laws(), 0.02, "Unnormalised SAM and its SDE", RHO
    ),
    "usam-full-perturbation": Family(
        functools.partial(optimizers.usam, full_perturbation=True),
        functools.partial(sdes.USAM, full_perturbation=True), _usam_laws(True), 0.02,
        "Unnormalised SAM perturbed along the full gradient and its SDE", RHO,
    ),
    "dnsam": Family(
        optimizers.dnsam, sdes.DNSAM, _dnsam_laws, 0.02,
        "SAM with the full gradient's norm and its SDE", RHO,
    ),
    "sam": Family(optimizers.sam, sdes.SAM, _sam_laws, 0.02, "SAM and its SDE", RHO),
    "sam-sgd-noise": Family(
        optimizers.sam, functools.partial(sdes.SAM, covariance="sgd"), no_laws, 0.02,
        "SAM and its SDE with SGD's noise", RHO,
    ),
}  # fmt: skip
