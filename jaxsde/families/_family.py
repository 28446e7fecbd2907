"""What a row of the table is, and what several families' laws need."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import optax
from jaxtyping import Float

from jaxsde import _checks, theory
from jaxsde.oracles import MinibatchNoise, Oracle, StudentTNoise
from jaxsde.problems import Game, LogisticRegression, Network, Quadratic
from jaxsde.processes import OptimizerProcess, Paired, SDEProcess
from jaxsde.sdes import SDE
from jaxsde.theory import Moments

Curve = Float[np.ndarray, " T"]
NONE: Mapping[str, Any] = MappingProxyType({})


class Setting(NamedTuple):
    """One comparison: the oracle, η, the start, the SDE's dt, the times `(T,)` asked for.

    `hyperparameters` are the optimizer's others; the oracle is one agent's.
    """

    oracle: Oracle
    learning_rate: float
    x0: Any
    dt: float
    time: Curve
    hyperparameters: Mapping[str, Any] = NONE


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
    """An optimizer, one SDE of it, their laws, and settings that suit a first run.

    The optimizer and the SDE take the same hyperparameters. A step takes the time η^`clock`.
    `warm_up` is that of `Paired`. `agents` makes the oracle of many agents of one agent's, with
    the hyperparameters that `of_agents` names. `problem` is the named one of a first run, a game
    for methods of games, whose laws are known of games only. `older` names the family with the SDE
    that was published before this one for the same optimizer, a baseline.
    """

    optimizer: Callable[..., optax.GradientTransformation]
    sde: Callable[..., SDE]
    known_laws: Callable[[Setting], Laws | None]
    learning_rate: float
    about: str
    hyperparameters: Mapping[str, Any] = NONE
    clock: float = 1
    warm_up: int | None = None
    agents: Callable[..., Oracle] | None = None
    of_agents: tuple[str, ...] = ()
    problem: str = "quadratic"
    older: str | None = None

    def step(self, learning_rate: float) -> float:
        """The time one optimizer step takes."""
        return learning_rate**self.clock

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The hyperparameters, those given in the place of the defaults.

        Raises:
            InputError: a name that the family does not have.
        """
        if given and not self.hyperparameters:
            raise _checks.InputError(f"{self.about}: no hyperparameters beside the learning rate")
        for name in given:
            _checks.known("hyperparameter", name, self.hyperparameters)
        return {**self.hyperparameters, **given}

    def pair(
        self,
        oracle: Oracle,
        learning_rate: float,
        substeps: int,
        hyperparameters: Mapping[str, Any] = NONE,
        warm_up: int | None = None,
        variance_every: int | None = None,
    ) -> Paired:
        """The optimizer and its SDE, driven by one noise; `variance_every` as in `SDEProcess`."""
        process = self.process(oracle, learning_rate, hyperparameters)
        values = {"learning_rate": learning_rate, **self.settings(hyperparameters)}
        own = {name: value for name, value in values.items() if name not in self.of_agents}
        sde = self.sde(process.oracle, **own)
        return Paired(
            process,
            SDEProcess(sde, process.dt / substeps, variance_every=variance_every),
            substeps,
            self.warm_up if warm_up is None else warm_up,
        )

    def process(
        self, oracle: Oracle, learning_rate: float, hyperparameters: Mapping[str, Any] = NONE
    ) -> OptimizerProcess:
        """The optimizer alone, which may exist where its SDE does not."""
        values = {"learning_rate": learning_rate, **self.settings(hyperparameters)}
        own = {name: values.pop(name) for name in self.of_agents}
        if self.agents is not None:
            oracle = self.agents(oracle, **own)
        return OptimizerProcess(self.optimizer, values, oracle, self.step(learning_rate))

    def laws(self, setting: Setting) -> Laws:
        """The laws at this setting; none where none is known, and why."""
        oracle = setting.oracle
        known = isinstance(oracle.problem, Game) == (self.problem != "quadratic")
        if isinstance(oracle, MinibatchNoise) or isinstance(oracle.problem, Network):
            known = False
        try:
            laws = self.known_laws(setting) if known else None
        except _checks.InputError as error:
            return Laws(None, None, None, about=f"none at this setting: {error}")
        return laws or Laws(None, None, None, about="none known for this problem and noise")


def no_laws(setting: Setting) -> None:
    """For families of which no law is known."""


def degrees_of_freedom(oracle: Oracle) -> float:
    """ν of Student-t noise, infinite for any other."""
    return float(oracle.degrees_of_freedom) if isinstance(oracle, StudentTNoise) else np.inf


def has_covariance(oracle: Oracle) -> bool:
    """Whether the noise has one."""
    return degrees_of_freedom(oracle) > 2


def has_loss_variance(oracle: Oracle) -> bool:
    """Whether a quadratic loss has one."""
    return degrees_of_freedom(oracle) > 4


class Model(NamedTuple):
    """A quadratic about the minimiser, and the loss there."""

    quadratic: Quadratic
    minimum: float
    about: str


def quadratic_model(problem: Any) -> Model | None:
    """The problem's second-order expansion at its minimiser, where that is known."""
    if not isinstance(problem, LogisticRegression) or problem.regularization <= 0:
        return None
    x = problem.minimizer()
    about = "stationary level, from the quadratic model at the minimiser"
    return Model(Quadratic(problem.hessian(x), x), float(problem.loss(x)), about)


def second_moment_laws(
    setting: Setting,
    forms: Sequence[Any],
    moments: Callable[[Quadratic, Any], Moments],
    stationary: Callable[[Quadratic, Any], np.ndarray],
) -> Laws | None:
    """Expected losses of the optimizer, of Euler-Maruyama and of the SDE, from two moments of x.

    Args:
        setting: of noise with a covariance.
        forms: of the three.
        moments: on a quadratic in a form, at the setting's times.
        stationary: the covariance there as t → ∞.

    Returns:
        Curves on a quadratic, levels where a quadratic model is known, else None.
    """
    problem = setting.oracle.problem
    if isinstance(problem, Quadratic):
        curves = []
        for form in forms:
            with np.errstate(over="ignore", invalid="ignore"):
                curve = theory.expected_loss(problem, moments(problem, form))
            curves.append(np.where(np.isnan(curve), np.inf, curve))  # past float64's range
        about = "closed forms of the first two moments, exact at all times"
        if has_loss_variance(setting.oracle):
            return Laws(*curves, about=about)
        about += "; the loss has no variance, so its errors mean nothing"
        return Laws(*curves, about=about, errors=False)
    model = quadratic_model(problem)
    if model is None:
        return None
    H = np.asarray(model.quadratic.hessian, float)
    levels = [
        model.minimum + float(np.sum(H * stationary(model.quadratic, form)) / 2) for form in forms
    ]
    return Laws(*levels, about=model.about)
