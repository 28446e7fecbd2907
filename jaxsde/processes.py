"""Processes: an optimizer on an oracle, an SDE under a scheme, and the two driven by one noise."""

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks
from jaxsde.engine.noise import Draw, Normal, is_draw
from jaxsde.engine.observables import Observable
from jaxsde.engine.schemes import EulerMaruyama, Scheme
from jaxsde.oracles import GaussianNoise, Oracle
from jaxsde.sdes import SDE, SGD


class OptimizerState(NamedTuple):
    """x, and the optimizer's own state."""

    x: PyTree
    inner: PyTree


class OptimizerProcess(eqx.Module):
    """An optax optimizer fed by an oracle: g = ∇f(x) + Z, x⁺ = x + update(g).

    `OptimizerProcess(optimizer, oracle, dt)` takes a gradient transformation;
    `OptimizerProcess(factory, hyperparameters, oracle)` builds one from data, so that sweeps and
    further runs do not recompile, and takes dt from `hyperparameters["learning_rate"]`.

    Transformations that ask for more get it as optax's own do: `value`, `grad` and `value_fn(x)`,
    f without noise; and, if their update names it, `grad_fn(params, i)`, ∇f + Z at params on the
    step's draw i = 0.

    Args:
        optimizer: a `GradientTransformation`, or a factory of one such as `optax.sgd`.
        hyperparameters: the factory's keyword arguments.
        oracle: f and the noise.
        dt: the time one step takes in the SDE's clock: η, or η² in the batch-equivalent regime.

    Raises:
        InputError: dt not positive, hyperparameters without a numeric learning rate, or (when a
            run starts) an optimizer that keeps a random key in its state.
    """

    optimizer: Callable | optax.GradientTransformation
    hyperparameters: dict[str, Any] | None
    oracle: Oracle
    dt: Float[Array, ""]
    t0: float = eqx.field(static=True, default=0.0)

    @overload
    def __init__(self, optimizer: optax.GradientTransformation, oracle: Oracle, dt: Any, /): ...
    @overload
    def __init__(
        self, factory: Callable, hyperparameters: Mapping[str, Any], oracle: Oracle, /
    ): ...
    def __init__(self, optimizer, second, third, /):
        self.optimizer = optimizer
        if isinstance(optimizer, optax.GradientTransformation):
            self.hyperparameters, self.oracle, dt = None, second, third
        else:
            if not (callable(optimizer) and isinstance(second, Mapping)):
                raise _checks.InputError(
                    "OptimizerProcess takes (gradient transformation, oracle, dt) or (factory, "
                    "hyperparameters, oracle)"
                )
            self.oracle, dt = third, second.get("learning_rate")
            if dt is None or callable(dt):
                raise _checks.InputError(
                    "hyperparameters must hold a number 'learning_rate', which sets dt; for a "
                    "schedule pass OptimizerProcess(optimizer, oracle, dt)"
                )
            self.hyperparameters = {
                name: jnp.asarray(value) if isinstance(value, float | np.ndarray) else value
                for name, value in (
                    dict(second) | {"learning_rate": jnp.asarray(dt, float)}
                ).items()
            }
        if not isinstance(self.oracle, Oracle):
            raise _checks.InputError(f"{type(self.oracle).__name__} is no jaxsde.oracles.Oracle")
        _checks.positive_number("learning_rate" if self.hyperparameters else "dt", dt)
        self.dt = jnp.asarray(dt, float)

    def _transformation(self) -> optax.GradientTransformationExtraArgs:
        optimizer = self.optimizer
        if not isinstance(optimizer, optax.GradientTransformation):
            try:
                optimizer = optimizer(**(self.hyperparameters or {}))
            except TypeError as error:
                raise _checks.InputError(
                    f"the optimizer refuses its hyperparameters: {error}"
                ) from error
        return optax.with_extra_args_support(optimizer)

    def noise(self, x0: PyTree) -> PyTree[Draw]:
        """The oracle's draws."""
        return self.oracle.noise(x0)

    def init(self, x0: PyTree, draw: PyTree) -> OptimizerState:
        """x0 and the optimizer's initial state."""
        inner = self._transformation().init(x0)
        _refuse_keys(inner)
        return OptimizerState(x0, inner)

    def step(self, k, state: OptimizerState, draw: PyTree) -> OptimizerState:
        """One update on the oracle's gradient of this draw."""
        x, inner = state
        g = self.oracle.sample_gradient(x, draw)
        update = self._transformation().update
        updates, inner = update(g, inner, x, **_asked_for(update, self._extras(x, g, draw)))
        return OptimizerState(optax.apply_updates(x, updates), inner)

    def _extras(self, x: PyTree, g: PyTree, draw: PyTree) -> dict[str, Any]:
        loss = self.oracle.problem.loss

        def grad_fn(params, i=0):
            if isinstance(i, int) and i != 0:
                raise _checks.InputError(
                    f"the optimizer asks for the gradient on draw {i}, but a step has draw 0 only"
                )
            return self.oracle.sample_gradient(params, draw)

        return {"value": loss(x), "grad": g, "value_fn": loss, "grad_fn": grad_fn}

    def position(self, state: OptimizerState) -> PyTree:
        """x."""
        return state.x

    def observables(self) -> dict[str, Callable]:
        """The loss f(x)."""
        return {"loss": self.oracle.problem.loss}

    def settings(self) -> dict[str, Any]:
        """What a comparison needs to know."""
        plain = self.optimizer is optax.sgd and set(self.hyperparameters or ()) == {"learning_rate"}
        chain = _gradient_chain(self.oracle, self.dt) if plain else None
        return {"dt": float(self.dt), "chain": chain}


def _asked_for(update: Callable, extras: dict[str, Any]) -> dict[str, Any]:
    """The extras that an update names; one with **extra_args gets all but `grad_fn`."""
    parameters = inspect.signature(update).parameters
    variadic = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return {
        name: extra
        for name, extra in extras.items()
        if name in parameters or (variadic and name != "grad_fn")
    }


def _refuse_keys(state: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        dtype = getattr(leaf, "dtype", None)
        typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
        if typed or (dtype == jnp.uint32 and leaf.shape[-1:] == (2,)):
            raise _checks.InputError(
                f"the optimizer keeps a random key in its state{jax.tree_util.keystr(path)}, which "
                "would give every path the same noise: put the noise into the oracle"
            )


def _gradient_chain(oracle: Oracle, learning_rate: Any) -> str | None:
    """A text that two chains x - η (∇f + R ξ) share if they are the same in law."""
    if not isinstance(oracle, GaussianNoise):
        return None
    leaves, treedef = jax.tree.flatten((oracle, learning_rate))
    digest = hashlib.sha256(str(treedef).encode())
    for leaf in leaves:
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


class SDEProcess(eqx.Module):
    """An SDE under a scheme: step k leads from t0 + k dt to t0 + (k + 1) dt.

    Args:
        sde: the SDE.
        dt: the step, in the SDE's clock.
        scheme: how a step is made.

    Raises:
        InputError: dt not positive.
    """

    sde: SDE
    dt: Float[Array, ""]
    scheme: Scheme

    def __init__(self, sde, dt, scheme=None):
        _checks.positive_number("dt", dt)
        self.sde = sde
        self.dt = jnp.asarray(dt, float)
        self.scheme = EulerMaruyama() if scheme is None else scheme

    @property
    def t0(self) -> Any:
        """The SDE's initial time."""
        return self.sde.t0

    def noise(self, x0: PyTree) -> PyTree[Draw]:
        """The scheme's draws for the SDE's Brownian motion."""
        return self.scheme.noise(self.sde.brownian_structure(x0))

    def init(self, x0: PyTree, draw: PyTree) -> PyTree:
        """The SDE's initial state."""
        return self.sde.initial(x0)

    def step(self, k, state: PyTree, draw: PyTree) -> PyTree:
        """One step of the scheme from time t0 + k dt."""
        t = self.t0 + k * self.dt
        return self.scheme.step(self.sde, t, state, self.dt, draw)

    def position(self, state: PyTree) -> PyTree:
        """The SDE's position."""
        return self.sde.position(state)

    def observables(self) -> dict[str, Callable]:
        """The loss f(X), where the SDE has an oracle."""
        oracle = getattr(self.sde, "oracle", None)
        return {} if oracle is None else {"loss": oracle.problem.loss}

    def settings(self) -> dict[str, Any]:
        """What a comparison needs to know."""
        sde, chain = self.sde, None
        if isinstance(self.scheme, EulerMaruyama) and isinstance(sde, SGD) and sde.order == 1:
            same = np.isclose(sde.learning_rate, self.dt)
            chain = _gradient_chain(sde.oracle, self.dt) if same else None
        scheme = {"name": type(self.scheme).__name__, "weak_order": self.scheme.weak_order}
        return {"dt": float(self.dt), "scheme": scheme, "chain": chain}


class Sides(NamedTuple):
    """The optimizer's and the SDE's."""

    optimizer: Any
    sde: Any


class PairedDraw(NamedTuple):
    """The SDE's unit normals, one entry a substep, and the oracle's own draw if it has one."""

    unit: tuple[PyTree, ...]
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


class Paired(eqx.Module):
    """An optimizer and its SDE driven by one noise, compared path by path.

    One step is one step of the optimizer and s of the SDE, with s unit normals ξ₁, ..., ξ_s: the
    SDE uses each, a Gaussian oracle their sum (ξ₁ + ... + ξ_s)/√s, so that both see one Brownian
    motion and the difference has little variance. Oracles with other draws, such as Student-t,
    keep their own and the two sides are independent.

    Every observable becomes three: `optimizer.name`, `sde.name` and `difference.name`, the last
    optimizer minus SDE. Functions of the state see the pair's, a `Sides`.

    Args:
        optimizer: the optimizer's process.
        sde: the SDE's process, with dt the optimizer's over `substeps`.
        substeps: s.

    Raises:
        InputError: the two clocks, or the two learning rates, disagree.
    """

    optimizer: OptimizerProcess
    sde: SDEProcess
    substeps: int = eqx.field(static=True)

    def __init__(self, optimizer, sde, substeps=1):
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

    @property
    def dt(self) -> Any:
        """The optimizer's dt."""
        return self.optimizer.dt

    @property
    def t0(self) -> Any:
        """The SDE's initial time."""
        return self.sde.t0

    def _shares_noise(self, x0: PyTree) -> bool:
        draws = [
            jax.tree.leaves(side.noise(x0), is_leaf=is_draw) for side in (self.optimizer, self.sde)
        ]
        normal = all(isinstance(draw.law, Normal) for draw in draws[0] + draws[1])
        return normal and [d.shape for d in draws[0]] == [d.shape for d in draws[1]]

    def noise(self, x0: PyTree) -> PairedDraw:
        """The SDE's draws, once a substep, and the oracle's own where it cannot share them."""
        own = None if self._shares_noise(x0) else self.optimizer.noise(x0)
        return PairedDraw((self.sde.noise(x0),) * self.substeps, own)

    def _optimizer_draw(self, x: PyTree, draw: PairedDraw) -> PyTree:
        if draw.own is not None:
            return draw.own
        structure = jax.tree.structure(self.optimizer.noise(x), is_leaf=is_draw)
        shared = jax.tree.map(lambda *xi: sum(xi[1:], xi[0]) / np.sqrt(len(xi)), *draw.unit)
        return structure.unflatten(jax.tree.leaves(shared))

    def init(self, x0: PyTree, draw: PairedDraw) -> Sides:
        """Both sides at x0."""
        optimizer = self.optimizer.init(x0, self._optimizer_draw(x0, draw))
        return Sides(optimizer, self.sde.init(x0, draw.unit[0]))

    def step(self, k, state: Sides, draw: PairedDraw) -> Sides:
        """One step of the optimizer, s of the SDE."""
        own = self._optimizer_draw(self.optimizer.position(state.optimizer), draw)
        optimizer, sde = self.optimizer.step(k, state.optimizer, own), state.sde
        for i, xi in enumerate(draw.unit):
            sde = self.sde.step(k * float(self.substeps) + i, sde, xi)  # beyond int32 too
        return Sides(optimizer, sde)

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
