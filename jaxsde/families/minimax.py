"""Rows of methods for games."""

import functools
from collections.abc import Callable

import numpy as np

from jaxsde import optimizers, sdes, theory
from jaxsde.families._family import Family, Laws, Setting, has_covariance, has_loss_variance
from jaxsde.problems import QuadraticGame
from jaxsde.theory.minimax import Method


def _laws(method: Callable[..., Method]) -> Callable[[Setting], Laws | None]:
    """Expected Hamiltonians on a quadratic game with additive noise."""

    def laws(setting: Setting) -> Laws | None:
        oracle, game = setting.oracle, setting.oracle.problem
        if not (isinstance(game, QuadraticGame) and oracle.additive and has_covariance(oracle)):
            return None
        covariance = np.asarray(oracle.covariance(setting.x0).as_matrix(), float)
        chosen, curves = method(**setting.hyperparameters), []
        for law in (theory.discrete, theory.em(setting.dt), theory.sde):
            with np.errstate(over="ignore", invalid="ignore"):
                moments = theory.minimax.moments(
                    game, covariance, setting.learning_rate, setting.x0, setting.time, law,
                    method=chosen,
                )  # fmt: skip
                curve = theory.minimax.mean_hamiltonian(game, moments)
            curves.append(np.where(np.isnan(curve), np.inf, curve))  # past float64's range
        about = "closed forms of the first two moments, exact at all times"
        return Laws(*curves, about=about, errors=has_loss_variance(oracle))

    return laws


def _row(optimizer: Callable, sde: Callable, method: Callable, about: str, **rho: float) -> Family:
    return Family(
        optimizer, sde, _laws(method), 0.02, f"{about} and its SDE", rho, problem="quadratic-game"
    )


_independent, _one = {"independent": True}, {"batches": 1}

ROWS = {
    "sgda": _row(
        optimizers.sgda, sdes.SGDA, theory.minimax.sgda, "Stochastic gradient descent ascent"
    ),
    "seg": _row(
        optimizers.seg, sdes.SEG, theory.minimax.seg, "Stochastic extragradient", rho=0.2
    ),
    "seg-independent": _row(
        functools.partial(optimizers.seg, **_independent),
        functools.partial(sdes.SEG, **_independent),
        functools.partial(theory.minimax.seg, **_independent),
        "Stochastic extragradient of two draws", rho=0.2,
    ),
    "shgd": _row(
        optimizers.shgd, sdes.SHGD, functools.partial(theory.minimax.shgd, 2),
        "Stochastic Hamiltonian gradient descent",
    ),
    "shgd-one-draw": _row(
        functools.partial(optimizers.shgd, **_one), functools.partial(sdes.SHGD, **_one),
        theory.minimax.shgd, "Stochastic Hamiltonian gradient descent of one draw",
    ),
}  # fmt: skip
