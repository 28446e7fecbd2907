"""The first time at which a path leaves a set."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxsde import _checks
from jaxsde.engine import Draw, Observable, Process, of_state
from jaxsde.engine.observables import as_observable
from jaxsde.processes._paired import Paired, Sides


class Passage(NamedTuple):
    """Whether it has happened, and the step at which; until then the present step."""

    passed: Bool[Array, "..."]
    step: Int[Array, "..."]


class PassageState(NamedTuple):
    """The wrapped process's state, and the passage: of a pair one a side."""

    inner: PyTree
    passage: Passage | Sides


class Passed(eqx.Module):
    """1{τ <= t}."""

    def __call__(self, passage: Passage) -> Bool[Array, "..."]:
        """The value."""
        return passage.passed


class PassageTime(eqx.Module):
    """min(τ, t)."""

    t0: Float[Array, ""]
    dt: Float[Array, ""]

    def __call__(self, passage: Passage) -> Float[Array, "..."]:
        """The value."""
        return self.t0 + passage.step * self.dt


class OfPart(eqx.Module):
    """A function of one part of the state."""

    fn: Callable
    part: str = eqx.field(static=True)

    def __call__(self, state: PassageState) -> Array:
        """The value."""
        return self.fn(getattr(state, self.part))


class FirstPassage(eqx.Module):
    """A process that remembers when it first left a set: τ = min {t0 + k dt : x_k not inside}.

    It runs on after τ, unchanged and on the same noise, with all its observables. Two more are
    always recorded: `passed`, 1{τ <= t}, whose mean is the distribution function of τ, and
    `passage_time`, min(τ, t), whose mean exists for every law. Both are finite on every path, so
    their means are over all of them. `analysis.first_passage` reads them.

    `inside` is asked at the start and after every step. What is not True is outside, so a path
    that became nan leaves `lambda x: jnp.linalg.norm(x) < r`. The time of first entry into a set is
    that of leaving its complement, `lambda x: ~(jnp.linalg.norm(x) <= r)`; written so, and not with
    `>`, a path that became nan never enters. An array of booleans are as many events, each with a
    τ of its own.

    Like an observable, `inside` is a function of the position, or of the wrapped process's state
    if marked by `of_state`. So on a `Paired` process it is asked on both sides, and each
    observable becomes three: `optimizer.passed`, `sde.passed` and `difference.passed`, which
    `compare` compares; an event of both sides together reads the state, a `Sides`.

    For an optimizer τ is exact. For an SDE under `EulerMaruyama` what leaves between two steps and
    comes back is missed. To leading order this moves the boundary outwards by 0.5826 |nᵀs| √dt
    (n its normal, s the diffusion; the number is -ζ(1/2)/√(2π)), so that errors shrink like √dt
    only: Broadie, Glasserman and Kou (1997) for Brownian motion, Gobet and Menozzi (2010) for
    diffusions. Halving dt moves a result by 1 - 1/√2 = 0.29 of its error; a boundary drawn inwards
    by as much is free of the leading term. Both sides of a pair are asked once a step of the
    optimizer, however many substeps the SDE takes: for exits at any time run the SDE alone.

    τ is kept as an integer step and becomes a time when it is read, so that nothing accumulates.
    In float32 that time is off by 10⁻⁷ of itself, which is more than a step from 10⁷ steps on.

    Args:
        process: any.
        inside: whether x is in the set, a boolean or an array of them.

    Raises:
        InputError: no process, or (when a run starts) an `inside` that does not return booleans,
            another observable named `passed` or `passage_time`.
    """

    process: Process
    inside: Observable

    def __init__(self, process: Process, inside: Callable[[Any], Any] | Observable):
        if not isinstance(process, Process):
            raise _checks.InputError(
                f"{type(process).__name__} is no process: it needs init, step, position, noise, "
                "dt, t0"
            )
        if not (callable(inside) or isinstance(inside, Observable)):
            raise _checks.InputError(f"inside must be a function of the position, got {inside!r}")
        self.process = process
        self.inside = as_observable(inside)

    @property
    def dt(self) -> Any:
        """The wrapped process's dt."""
        return self.process.dt

    @property
    def t0(self) -> Any:
        """The wrapped process's initial time."""
        return self.process.t0

    @property
    def _of_sides(self) -> bool:
        return isinstance(self.process, Paired) and not self.inside.of_state

    def noise(self, x0: PyTree) -> PyTree[Draw]:
        """The wrapped process's draws."""
        return self.process.noise(x0)

    def init(self, x0: PyTree, draw: PyTree) -> PassageState:
        """The wrapped process's state, and what is outside already."""
        inner = self.process.init(x0, draw)

        def begin(inside):
            return Passage(~inside, jnp.zeros(inside.shape, jnp.int32))

        return PassageState(inner, jax.tree.map(begin, self._inside(inner)))

    def step(self, k, state: PassageState, draw: PyTree) -> PassageState:
        """One step of the wrapped process, and what is outside after it."""
        inner = self.process.step(k, state.inner, draw)

        def go_on(inside, before):
            step = jnp.where(before.passed, before.step, jnp.asarray(k + 1, jnp.int32))
            return Passage(before.passed | ~inside, step)

        return PassageState(inner, jax.tree.map(go_on, self._inside(inner), state.passage))

    def _inside(self, inner: PyTree) -> Bool[Array, "..."] | Sides:
        if self.inside.of_state:
            return _booleans(self.inside.fn(inner))
        x = self.process.position(inner)
        if self._of_sides:
            return Sides(*(_booleans(self.inside.fn(side)) for side in x))
        return _booleans(self.inside.fn(x))

    def position(self, state: PassageState) -> PyTree:
        """The wrapped process's position."""
        return self.process.position(state.inner)

    def observables(self) -> dict[str, Any]:
        """The wrapped process's, `passed` and `passage_time`."""
        return getattr(self.process, "observables", dict)() | self._own()

    def _own(self) -> dict[str, Observable]:
        t0, dt = (jnp.asarray(value, float) for value in (self.t0, self.dt))
        return {"passed": Observable(Passed()), "passage_time": Observable(PassageTime(t0, dt))}

    def lift(self, observables: Mapping[str, Observable]) -> dict[str, Observable]:
        """Those of the wrapped process, which see its position or state, and its own."""
        lift = getattr(self.process, "lift", dict)
        others = {
            name: seen
            for name, seen in observables.items()
            if not isinstance(seen.fn, Passed | PassageTime)
        }
        others = {
            name: dataclasses.replace(seen, fn=OfPart(seen.fn, "inner")) if seen.of_state else seen
            for name, seen in lift(others).items()
        }
        own = lift(self._own()) if self._of_sides else self._own()
        for name in own:
            if name in others:
                raise _checks.InputError(
                    f"the name {name!r} is FirstPassage's own: call the other observable "
                    "otherwise, and let one `inside` return all events"
                )
        return others | {name: of_state(OfPart(seen.fn, "passage")) for name, seen in own.items()}

    def settings(self) -> dict[str, Any]:
        """The wrapped process's."""
        return getattr(self.process, "settings", dict)()


def _booleans(inside: Any) -> Bool[Array, "..."]:
    one = jax.tree.structure(inside) == jax.tree.structure(0)
    if not one or jnp.asarray(inside).dtype != jnp.bool_:
        raise _checks.InputError(
            f"inside must return a boolean or an array of them, such as x < 1, got {inside!r}"
        )
    return jnp.asarray(inside)
