"""Rows of distributed SGD: many agents of one noise, compressed or with signs."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.stats

from jaxsde import _checks, optimizers, sdes, theory
from jaxsde.families._family import (
    Family,
    Laws,
    Setting,
    has_covariance,
    no_laws,
    second_moment_laws,
)
from jaxsde.families.sign import Server, sign_laws
from jaxsde.oracles import QSGD, Agents, BernoulliK, Compressor, Oracle, RandomK, Ternary
from jaxsde.problems import Quadratic


def _agents(compressor: Callable[..., Compressor] | None = None) -> Callable[..., Agents]:
    """N agents with one agent's oracle, and a compressor of the levels given."""

    def make(oracle: Oracle, agents: float, **levels: float) -> Agents:
        count = _whole("agents", agents)
        return Agents([oracle] * count, None if compressor is None else compressor(**levels))

    return make


def _whole(name: str, value: float) -> int:
    return _checks.at_least(name, int(value) if float(value).is_integer() else value, 1)


def _sparsified_laws(fixed_count: bool = False) -> Callable[[Setting], Laws | None]:
    """Exact on quadratics, levels near a minimum; without a k that of no compression."""

    def laws(setting: Setting) -> Laws | None:
        oracle, eta, values = setting.oracle, setting.learning_rate, setting.hyperparameters
        if not has_covariance(oracle):
            return None
        x0 = jnp.asarray(setting.x0)
        covariance = np.asarray(oracle.covariance(x0).as_matrix(), float)
        agents = {
            "agents": _whole("agents", values["agents"]),
            "omega": x0.size / values.get("k", x0.size) - 1,
            "fixed_count": fixed_count,
        }
        forms = (theory.discrete, theory.em(setting.dt), theory.sde)

        def moments(problem, law):
            return theory.distributed.moments(
                problem, covariance, eta, setting.x0, setting.time, law, **agents
            )

        def stationary(problem, law):
            return theory.distributed.stationary_covariance(problem, covariance, eta, law, **agents)

        found = second_moment_laws(setting, forms, moments, stationary)
        problem = oracle.problem
        if found is None or not isinstance(problem, Quadratic):
            return found
        if all(theory.distributed.is_stable(problem, eta, law, **agents) for law in forms):
            return found
        return found._replace(about=f"{found.about}, which grow without bound", errors=False)

    return laws


def _mean_of_signs(setting: Setting) -> Server:
    N = _whole("agents", setting.hyperparameters["agents"])
    return Server(N, False, lambda m: (m, (1 - m**2) / N), lambda: N)


def _vote(setting: Setting) -> Server:
    N = _whole("agents", setting.hyperparameters["agents"])

    def step(m):
        p = (1 + m) / 2
        ayes, noes = scipy.stats.binom.sf(N // 2, N, p), scipy.stats.binom.cdf((N - 1) // 2, N, p)
        M, Q = ayes - noes, ayes + noes
        return M, Q - M**2

    return Server(N, True, step, lambda: theory.distributed.vote_slope(N))


def _row(
    optimizer: Callable, sde: Callable, laws: Callable, learning_rate: float, about: str,
    compressor: Callable[..., Compressor] | None = None, **hyperparameters: float,
) -> Family:  # fmt: skip
    values: Mapping[str, Any] = {"agents": 4, **hyperparameters}
    return Family(
        optimizer, sde, laws, learning_rate, f"{about}, many agents", values,
        agents=_agents(compressor), of_agents=tuple(values),
    )  # fmt: skip


ROWS = {
    "dsgd": _row(
        optimizers.dsgd, sdes.DSGD, _sparsified_laws(), 0.05, "Distributed SGD and its SDE"
    ),
    "dcsgd-random-k": _row(
        optimizers.dcsgd, sdes.DCSGD, _sparsified_laws(fixed_count=True), 0.02,
        "SGD on k of d coordinates and its SDE", RandomK, k=1,
    ),
    "dcsgd-bernoulli-k": _row(
        optimizers.dcsgd, sdes.DCSGD, _sparsified_laws(), 0.02,
        "SGD on k of d coordinates on average and its SDE", BernoulliK, k=1,
    ),
    "dcsgd-qsgd": _row(
        optimizers.dcsgd, sdes.DCSGD, no_laws, 0.02, "SGD quantised to s levels and its SDE",
        QSGD, levels=2,
    ),
    "dcsgd-ternary": _row(
        optimizers.dcsgd, sdes.DCSGD, no_laws, 0.02, "SGD quantised to -1, 0, 1 and its SDE",
        Ternary,
    ),
    "dsign_sgd": _row(
        optimizers.dsign_sgd, sdes.DSignSGD, sign_laws(server=_mean_of_signs), 0.02,
        "SGD on the mean sign and its SDE",
    ),
    "dsign_sgd-linearized": _row(
        optimizers.dsign_sgd, sdes.LinearizedDSignSGD, sign_laws(True, _mean_of_signs), 0.02,
        "SGD on the mean sign and its SDE linearised where noise dominates",
    ),
    "dsign_sgd-majority": _row(
        functools.partial(optimizers.dsign_sgd, majority_vote=True), sdes.MajorityVote,
        sign_laws(server=_vote), 0.02, "SGD on the majority's sign and its SDE", agents=5,
    ),
}  # fmt: skip
