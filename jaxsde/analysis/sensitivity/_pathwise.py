"""Derivatives of expectations with respect to hyperparameters, path by path."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from jaxsde import _checks
from jaxsde.analysis.linearization import _cases
from jaxsde.analysis.linearization._jumps import LINES, jumps, line_ends
from jaxsde.analysis.linearization._systems import doubled
from jaxsde.analysis.sensitivity._stationary import Factory, Values, check_draws, numbers
from jaxsde.engine import Draw, Ensemble, Estimate, Process, RandomStart, of_state, simulate
from jaxsde.engine.batching import Struct
from jaxsde.engine.observables import Observable, resolve


class TangentState(NamedTuple):
    """A process's state, and its derivatives by hyperparameter, None for what does not float."""

    state: PyTree
    tangents: dict[str, PyTree]


class TangentProcess(eqx.Module):
    """A process and the derivatives of its paths, s'⁺ = ∂step/∂s s' + ∂step/∂θ for each θ.

    They are those of a path under fixed noise, at fixed steps, by forward mode. The engine runs it
    as it runs any process.

    Args:
        factory: makes the process of the hyperparameters.
        values: the hyperparameters, one number each.
        observables: as those of `simulate`.
        x: the shapes of x0.
    """

    factory: Factory
    values: Values
    given: dict[str, Any] | None
    x: Struct = eqx.field(static=True)

    @property
    def process(self) -> Process:
        """The process at these values."""
        return self.factory(**self.values)

    @property
    def dt(self) -> Any:
        """The process's."""
        return self.process.dt

    @property
    def t0(self) -> Any:
        """The process's."""
        return self.process.t0

    def noise(self, x0: PyTree) -> PyTree[Draw]:
        """The process's."""
        return self.process.noise(x0)

    def init(self, x0: PyTree, draw: PyTree) -> TangentState:
        """The process's state, and its derivatives, 0 unless a hyperparameter is in it."""
        state, rest, push = self._linear(lambda process, _: process.init(x0, draw), None)
        return self._combined(state, rest, push, dict.fromkeys(self.values))

    def step(self, k, state: TangentState, draw: PyTree) -> TangentState:
        """A step, and its derivatives."""
        after, rest, push = self._linear(
            lambda process, before: process.step(k, before, draw), state.state
        )
        return self._combined(after, rest, push, state.tangents)

    def position(self, state: TangentState) -> PyTree:
        """The process's."""
        return self.process.position(state.state)

    def settings(self) -> dict[str, Any]:
        """The process's."""
        return getattr(self.process, "settings", dict)()

    def watched(self, values: Values) -> tuple[Process, dict[str, Observable]]:
        """The process at other values, and what is read off it."""
        process = self.factory(**values)
        return process, resolve(process, self.given, self.x.tree)

    def read(self, name: str, state: TangentState, hyperparameter: str | None = None) -> Array:
        """An observable's value, or its derivative."""

        def value(values, floating):
            process, seen = self.watched(values)
            whole = eqx.combine(floating, rest)
            read = seen[name].fn(whole if seen[name].of_state else process.position(whole))
            return jnp.asarray(read) + 0.0

        floating, rest = eqx.partition(state.state, eqx.is_inexact_array)
        if hyperparameter is None:
            return value(self.values, floating)
        tangent = self._unit(hyperparameter), state.tangents[hyperparameter]
        return jax.jvp(value, (self.values, floating), tangent)[1]

    def _linear(self, fn: Callable, state: PyTree) -> tuple[PyTree, PyTree, Callable]:
        """fn(process, state): its floating arrays, the rest, and what pushes tangents forward."""
        floating, rest = eqx.partition(state, eqx.is_inexact_array)

        def parts(values, floating):
            after = fn(self.factory(**values), eqx.combine(floating, rest))
            return eqx.partition(jax.tree.map(jnp.asarray, after), eqx.is_inexact_array)

        after, push, rest_after = jax.linearize(parts, self.values, floating, has_aux=True)
        return after, rest_after, push

    def _combined(self, floating, rest, push, tangents) -> TangentState:
        pushed = {name: push(self._unit(name), tangent) for name, tangent in tangents.items()}
        return TangentState(eqx.combine(floating, rest), pushed)

    def _unit(self, name: str) -> Values:
        return {
            other: jnp.ones_like(value) if other == name else jnp.zeros_like(value)
            for other, value in self.values.items()
        }


class Read(eqx.Module):
    """An observable of a `TangentProcess`, or its derivative."""

    process: TangentProcess
    name: str = eqx.field(static=True)
    hyperparameter: str | None = eqx.field(static=True)

    def __call__(self, state: TangentState) -> Array:
        """The value."""
        return self.process.read(self.name, state, self.hyperparameter)


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Expectations at T recorded steps and their derivatives, with Monte Carlo errors.

    Fields:
        names: the observables.
        hyperparameters: what they are differentiated by.
        ensemble: the observables `name` and their derivatives `name.hyperparameter` on all paths.
    """

    names: tuple[str, ...]
    hyperparameters: tuple[str, ...]
    ensemble: Ensemble

    @property
    def time(self) -> Float[np.ndarray, " T"]:
        """The recorded times, at the values given."""
        return self.ensemble.time

    @property
    def step(self) -> Int[np.ndarray, " T"]:
        """The recorded steps, at which derivatives are taken."""
        return self.ensemble.step

    def value(self, name: str) -> Estimate:
        """E v of an observable, `(T, ...)`."""
        _checks.known("observable", name, self.names)
        return Estimate(self.ensemble.mean(name), self.ensemble.standard_error(name))

    def derivative(self, name: str, hyperparameter: str) -> Estimate:
        """∂E v/∂θ of an observable, `(T, ...)`."""
        _checks.known("observable", name, self.names)
        _checks.known("hyperparameter", hyperparameter, self.hyperparameters)
        both = f"{name}.{hyperparameter}"
        return Estimate(self.ensemble.mean(both), self.ensemble.standard_error(both))


def sensitivity(
    factory: Factory,
    hyperparameters: Mapping[str, float],
    x0: PyTree | RandomStart,
    *,
    steps: int,
    paths: int,
    key: PRNGKeyArray,
    records: int | Sequence[int] = 100,
    observables: Mapping[str, Callable | Observable] | None = None,
    chunk: int | None = None,
) -> Sensitivity:
    """Derivatives of expectations by hyperparameters, path by path: ∂E v(x_k)/∂θ = E ∂v(x_k)/∂θ.

    The state's derivative s' = ∂s_k/∂θ runs along each path, by forward mode, s'⁺ = ∂step/∂s s' +
    ∂step/∂θ. So the derivatives of observables have means and standard errors like any other, in
    memory that does not grow with the steps. Noise is held fixed: derivatives are the limits of
    finite differences under one key. Their error grows with the paths' own instability; where
    paths separate exponentially (saddles), so do derivatives of single paths.

    Derivatives are at a fixed step k. Where dt depends on a hyperparameter (a learning rate), so
    does the time t0 + k dt of that step.

    A step, or an observable, that jumps as the state or a hyperparameter moves is refused: the
    derivative of a sign is 0 almost everywhere, that of its mean is not. Jumps in the draws alone
    (which coordinates a compressor keeps) do no harm.

    Args:
        factory: `factory(**hyperparameters)` makes a process, out of arrays too, such as
            `lambda learning_rate, b1: OptimizerProcess(optax.adam, {"learning_rate":
            learning_rate, "b1": b1}, oracle)`.
        hyperparameters: one number each, by name.
        x0: as in `simulate`.
        steps: as in `simulate`.
        paths: as in `simulate`.
        key: as in `simulate`.
        records: as in `simulate`.
        observables: as in `simulate`; those that the process offers see the hyperparameters move.
        chunk: as in `simulate`.

    Raises:
        InputError: a hyperparameter that is no finite number, or that the law of the draws depends
            on; a step or an observable that jumps; or what `simulate` refuses.
    """
    values, point = numbers(hyperparameters), _point(x0)
    given = None if observables is None else dict(observables)
    process = TangentProcess(factory, values, given, Struct.of(point))
    if not isinstance(process.process, Process):
        raise _checks.InputError(
            f"factory must make a process, got {type(process.process).__name__}: an SDE needs "
            "SDEProcess(sde, dt)"
        )
    check_draws(factory, values, point)
    names = tuple(process.watched(values)[1])
    _check_jumps(process, point)
    read = {
        f"{name}.{hyperparameter}" if hyperparameter else name: of_state(
            Read(process, name, hyperparameter)
        )
        for name in names
        for hyperparameter in (None, *values)
    }
    ensemble = simulate(
        process, x0, steps=steps, paths=paths, key=key, records=records, observables=read,
        chunk=chunk,
    )  # fmt: skip
    return Sensitivity(names, tuple(values), ensemble)


class _StepAndRead(eqx.Module):
    """The state after a step and the observables before it, of values and floating numbers."""

    process: TangentProcess

    def __call__(self, moving: tuple, other: tuple) -> tuple:
        (values, floating), (draw, rest) = moving, other
        process, seen = self.process.watched(values)
        state = eqx.combine(floating, rest)
        after = process.step(jnp.int32(10), state, draw)
        x = process.position(state)
        return after, {name: one.fn(state if one.of_state else x) for name, one in seen.items()}


def _moved(values: Values, seed: int) -> Values:
    """By some percent, on every line."""
    factor = 1 + 0.02 * np.random.default_rng(seed).normal(size=(len(values), LINES))
    return {name: value * factor[i] for i, (name, value) in enumerate(values.items())}


def _check_jumps(process: TangentProcess, point: PyTree) -> None:
    with jax.enable_x64(True):
        process, point = doubled(process), doubled(point)
        chain = process.process
        draws, others = (_cases.sample(chain.noise(point), LINES, seed) for seed in (5, 6))
        draw = jax.tree.map(lambda leaf: leaf[0], draws)
        state = chain.step(jnp.int32(9), chain.init(point, draw), draw)
        floating, rest = eqx.partition(jax.tree.map(jnp.asarray, state), eqx.is_inexact_array)
        rest = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], LINES, axis=0), rest)
        first = jax.tree.map(lambda leaf: leaf[0], rest)

        def position(floating):
            return chain.position(eqx.combine(floating, first))

        start, end = (
            ((_moved(process.values, seed), line_ends(floating, seed, position)), (draw, rest))
            for seed, draw in ((7, draws), (8, others))
        )
        names = jumps(_StepAndRead(process), start, end)
    if names:
        raise _checks.InputError(
            f"a step or an observable jumps: it has {', '.join(names)} of what depends on the "
            "state or a hyperparameter, and the derivative of a jump is 0 almost everywhere while "
            "that of its mean is not. Take stationary_sensitivity, or the process of its SDE"
        )


def _point(x0: PyTree | RandomStart) -> PyTree:
    """A point from which the run may start."""
    if isinstance(x0, RandomStart):
        draw = _cases.sample(x0.noise, 1, seed=7)
        x0 = x0.point(jax.tree.map(lambda leaf: leaf[0], draw))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) + 0.0, x0)
