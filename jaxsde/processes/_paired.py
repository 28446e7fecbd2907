"""An optimizer and its SDE driven by one noise."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks
from jaxsde.engine.noise import Draw, Normal, is_draw
from jaxsde.engine.observables import Observable
from jaxsde.processes._optimizer import OptimizerProcess
from jaxsde.processes._sde import SDEProcess
from jaxsde.sdes import SDE


class Sides(NamedTuple):
    """The optimizer's and the SDE's."""

    optimizer: Any
    sde: Any


class Unit(NamedTuple):
    """The unit normals of one substep: those of the oracle that are shared, and the SDE's own."""

    shared: PyTree | None
    own: list[PyTree]


class PairedDraw(NamedTuple):
    """What both sides consume, one entry a substep, and the oracle's own draw if it shares none."""

    unit: tuple[Unit, ...]
    own: PyTree | None


class OnSide(eqx.Module):
    """An observable of one side of a pair, or its difference optimizer - SDE."""

    fn: Callable
    side: str = eqx.field(static=True)

    def __call__(self, sides: Sides) -> Array:
        """The value."""
        if self.side == "difference":
            # 0.0 makes numbers of booleans and counts
            return jax.tree.map(
                lambda a, b: (a + 0.0) - b, self.fn(sides.optimizer), self.fn(sides.sde)
            )
        return self.fn(getattr(sides, self.side))


def _leaves(draws: PyTree[Draw]) -> list[Draw]:
    return jax.tree.leaves(draws, is_leaf=is_draw)


def _check_same_rate(optimizer: OptimizerProcess, sde: SDEProcess) -> None:
    mine = (optimizer.hyperparameters or {}).get("learning_rate")
    its = getattr(sde.sde, "learning_rate", None)
    if mine is None or its is None:
        return
    mine, its = _checks.concrete(mine), _checks.concrete(its)
    if mine is not None and its is not None and not np.isclose(mine, its):
        raise _checks.InputError(
            f"the SDE is of learning rate {its:g}, the optimizer's is {mine:g}"
        )


def _warm_up(optimizer: OptimizerProcess, sde: SDEProcess, steps: int | None) -> Array | None:
    """The number of steps, a number that traces; None for no warm-up."""
    can = type(sde.sde).resumed is not SDE.resumed
    late = _checks.concrete((sde.t0 - optimizer.t0) / optimizer.dt)
    if steps is None:
        if not can or (late is not None and late <= 0):
            return None
        return jnp.ceil((sde.t0 - optimizer.t0) / optimizer.dt - 1e-3)
    if _checks.at_least("warm_up", steps, 0) == 0 and (late is None or late <= 0):
        return None
    if not can:
        raise _checks.InputError(
            f"{type(sde.sde).__name__} cannot take over from an optimizer: run it without a warm-up"
        )
    if late is not None and steps < late - 1e-3:
        raise _checks.InputError(
            f"the SDE starts at t0 = {late * float(optimizer.dt):g}, {late:g} steps late: "
            "give a warm_up of at least as many"
        )
    return jnp.asarray(steps, float)


class Paired(eqx.Module):
    """An optimizer and its SDE driven by one noise, compared path by path.

    One step is one step of the optimizer and s of the SDE, with s unit normals ξ₁, ..., ξ_s: the
    SDE uses each, a Gaussian oracle their sum (ξ₁ + ... + ξ_s)/√s, so that both see one Brownian
    motion and the difference has little variance; an SDE with more Brownian motions shares its
    first, one of many agents or micro-batches the mean of theirs (`Oracle.brownian`, `SDE.shared`).
    Oracles with other draws, such as Student-t, mini-batches or those of compressors, keep their
    own and the two sides are independent.

    During a warm-up of k₀ steps the SDE's side is the optimizer's state; from then on it goes its
    own way. So an SDE that is singular at 0, or an optimizer whose state starts far from where the
    SDE holds (v = 0), can be compared too, on one clock.

    Every observable becomes three: `optimizer.name`, `sde.name` and `difference.name`, the last
    optimizer minus SDE. Functions of the state see the pair's, a `Sides`.

    Args:
        optimizer: the optimizer's process.
        sde: the SDE's process, with dt the optimizer's over `substeps`.
        substeps: s.
        warm_up: k₀; as many steps as the SDE starts later than the optimizer unless given.

    Raises:
        InputError: the two clocks, or the two learning rates, disagree; a warm-up that ends before
            the SDE starts, or of an SDE that cannot take over.
    """

    optimizer: OptimizerProcess
    sde: SDEProcess
    substeps: int = eqx.field(static=True)
    warm_up: Float[Array, ""] | None

    def __init__(self, optimizer, sde, substeps=1, warm_up=None):
        substeps = _checks.at_least("substeps", substeps, 1)
        whole, part = _checks.concrete(optimizer.dt), _checks.concrete(sde.dt)
        if whole is not None and part is not None and not np.isclose(whole, part * substeps, 1e-4):
            raise _checks.InputError(
                f"the SDE's dt must be the optimizer's over substeps, {whole / substeps:g}, "
                f"got {part:g}"
            )
        _check_same_rate(optimizer, sde)
        self.optimizer = optimizer
        self.sde = sde
        self.substeps = substeps
        self.warm_up = _warm_up(optimizer, sde, warm_up)

    @property
    def dt(self) -> Any:
        """The optimizer's dt."""
        return self.optimizer.dt

    @property
    def t0(self) -> Any:
        """The SDE's initial time; the optimizer's if that warms up."""
        return self.sde.t0 if self.warm_up is None else self.optimizer.t0

    def _shared_leaves(self, x0: PyTree) -> int:
        """How many of the SDE's draws are the oracle's; 0 where it cannot share them."""
        draws = self.optimizer.noise(x0)
        leaves, its = (_leaves(side) for side in (draws, self.sde.noise(x0)))
        if not all(isinstance(draw.law, Normal) for draw in leaves + its):
            return 0
        values = jax.tree.map(lambda draw: jnp.zeros(draw.shape), draws, is_leaf=is_draw)
        shared = jax.eval_shape(self._shared, x0, values)
        shapes = [leaf.shape for leaf in jax.tree.leaves(shared)]
        return len(shapes) if shapes == [draw.shape for draw in its[: len(shapes)]] else 0

    def _shared(self, x: PyTree, draw: PyTree) -> PyTree | None:
        return self.sde.sde.shared(self.optimizer.brownian(x, draw))

    def noise(self, x0: PyTree) -> PairedDraw:
        """The shared draws and the SDE's own, once a substep; the oracle's if it shares none."""
        optimizer, sde = self.optimizer.noise(x0), _leaves(self.sde.noise(x0))
        shared = self._shared_leaves(x0)
        unit = Unit(optimizer if shared else None, sde[shared:])
        return PairedDraw((unit,) * self.substeps, None if shared else optimizer)

    def optimizer_draw(self, draw: PairedDraw) -> PyTree:
        """What the optimizer's step consumes of a draw."""
        if draw.own is not None:
            return draw.own
        shared = [unit.shared for unit in draw.unit]
        return jax.tree.map(lambda *xi: sum(xi[1:], xi[0]) / np.sqrt(len(xi)), *shared)

    def sde_draw(self, x: PyTree, unit: Unit) -> PyTree:
        """What a step of the SDE consumes of a substep's draw."""
        structure = jax.tree.structure(self.sde.noise(x), is_leaf=is_draw)
        shared = []
        if unit.shared is not None:
            shared = jax.tree.leaves(self._shared(x, unit.shared))
        return structure.unflatten([*shared, *unit.own])

    def init(self, x0: PyTree, draw: PairedDraw) -> Sides:
        """Both sides at x0."""
        optimizer = self.optimizer.init(x0, self.optimizer_draw(draw))
        return Sides(optimizer, self.sde.init(x0, self.sde_draw(x0, draw.unit[0])))

    def step(self, k, state: Sides, draw: PairedDraw) -> Sides:
        """One step of the optimizer, s of the SDE."""
        optimizer = self.optimizer.step(k, state.optimizer, self.optimizer_draw(draw))
        return Sides(optimizer, self.sde_step(k, state.sde, optimizer, draw.unit))

    def sde_step(self, k, sde: PyTree, optimizer: PyTree, units: tuple[Unit, ...]) -> PyTree:
        """The SDE's state after s steps; the optimizer's, which stands there, during a warm-up."""

        def solve():
            state = sde
            for i, unit in enumerate(units):
                step = k * float(self.substeps) + i  # beyond int32 too
                xi = self.sde_draw(self.sde.position(state), unit)
                state = self.sde.step_from(self.t0 + step * self.sde.dt, state, xi)
            return state

        if self.warm_up is None:
            return solve()
        return jax.lax.cond(k < self.warm_up, lambda: self.sde.resumed(*optimizer), solve)

    def position(self, state: Sides) -> Sides:
        """Both positions."""
        return Sides(self.optimizer.position(state.optimizer), self.sde.position(state.sde))

    def observables(self) -> dict[str, Callable]:
        """The optimizer's."""
        return self.optimizer.observables()

    def lift(self, observables: Mapping[str, Observable]) -> dict[str, Observable]:
        """Each observable of a position on both sides, and its difference."""
        lifted = {}
        for name, observable in observables.items():
            if observable.of_state:
                lifted[name] = observable
                continue
            for side in (*Sides._fields, "difference"):
                on_side = OnSide(observable.fn, side)
                lifted[f"{side}.{name}"] = dataclasses.replace(observable, fn=on_side)
        return lifted

    def settings(self) -> dict[str, Any]:
        """What a comparison needs to know."""
        sides = {"optimizer": self.optimizer.settings(), "sde": self.sde.settings()}
        return {"substeps": self.substeps, "sides": sides}
