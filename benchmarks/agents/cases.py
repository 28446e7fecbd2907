"""What is simulated: sixteen agents of unequal noise on a quadratic."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxsde
from jaxsde import optimizers, oracles, sdes
from jaxsde.oracles import BernoulliK, GaussianNoise, RandomK, StudentTNoise

AGENTS, D, LEARNING_RATE, KEPT = 16, 10, 0.01, 5
SCALE = np.linspace(0.5, 2, AGENTS, dtype=np.float32)  # of the agents' noise
HESSIAN = np.linspace(0.5, 5, D, dtype=np.float32)


class Size(NamedTuple):
    """How much is run: `check` steps for first calls and peers, `steps` for the rest."""

    paths: int
    steps: int
    check: int
    repeats: int


SIZES = {
    "rates": Size(10**4, 400, 20, 5),
    "full": Size(10**4, 10**4, 20, 3),
    "quick": Size(1024, 8, 4, 2),
}


class Case(NamedTuple):
    """An optimizer of many agents and its SDE."""

    means: str
    optimizer: Callable
    sde: Callable
    compressor: Callable[[], Any] = lambda: None
    oracle: Callable = GaussianNoise
    law: dict[str, float] = {}  # noqa: RUF012
    settings: dict[str, bool] = {}  # noqa: RUF012

    def processes(self) -> dict[str, Any]:
        """What is timed in jaxsde."""
        problem = jaxsde.problems.Quadratic(HESSIAN)
        agents = oracles.Agents.of(
            AGENTS, self.oracle, problem, self.compressor(), scale=SCALE, **self.law
        )
        hyperparameters = {"learning_rate": LEARNING_RATE} | self.settings
        optimizer = jaxsde.OptimizerProcess(self.optimizer, hyperparameters, agents)
        sde = jaxsde.SDEProcess(self.sde(agents, LEARNING_RATE), LEARNING_RATE)
        return {"jaxsde": optimizer, "words": Words(optimizer), "sde": sde}


class Words(eqx.Module):
    """A process that consumes another's draws and adds them up."""

    process: Any
    dt: float = 1.0
    t0: float = 0.0

    def noise(self, x0):
        """The other's."""
        return self.process.noise(x0)

    def init(self, x0, draw):
        """x0."""
        return x0

    def step(self, k, x, draw):
        """Every value of the draws, coordinate by coordinate."""
        return x + sum(jnp.sum(leaf.reshape(-1, x.size), axis=0) for leaf in jax.tree.leaves(draw))

    def position(self, x):
        """The sums."""
        return x

    def observables(self):
        """One number, as the others have."""
        return {"loss": jnp.sum}


def _compressed(means: str, compressor: Callable[[], Any]) -> Case:
    return Case(means, optimizers.dcsgd, sdes.DCSGD, compressor)


CASES = {
    "dsgd": Case("DSGD", optimizers.dsgd, sdes.DSGD),
    "dsign": Case("DSignSGD", optimizers.dsign_sgd, sdes.DSignSGD),
    "vote": Case(
        "majority vote", optimizers.dsign_sgd, sdes.MajorityVote, settings={"majority_vote": True}
    ),
    "rand-k": _compressed(f"DCSGD, RandomK({KEPT})", lambda: RandomK(KEPT)),
    "rand-k-each": _compressed(
        "DCSGD, RandomK(1) to RandomK(10), one an agent",
        lambda: [RandomK(1 + i % D) for i in range(AGENTS)],
    ),
    "bernoulli-k": _compressed(f"DCSGD, BernoulliK({KEPT})", lambda: BernoulliK(KEPT)),
    "qsgd": _compressed("DCSGD, QSGD(4)", lambda: oracles.QSGD(4)),
    "ternary": _compressed("DCSGD, Ternary", lambda: oracles.Ternary()),
    "dsign-t": Case(
        "DSignSGD, Student-t noise, ν = 1.5", optimizers.dsign_sgd, sdes.DSignSGD,
        oracle=StudentTNoise, law={"degrees_of_freedom": 1.5},
    ),
}  # fmt: skip
FULL = ("dsgd", "rand-k", "dsign")
HAND_WRITTEN_KEEP = {"dsgd": None, "rand-k": KEPT}  # coordinates of a message, if not all
