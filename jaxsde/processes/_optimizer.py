"""An optimizer on an oracle."""

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
from jaxsde.engine import noise
from jaxsde.engine.noise import Draw
from jaxsde.oracles import Agents, GaussianNoise, Oracle


class OptimizerState(NamedTuple):
    """x, and the optimizer's own state."""

    x: PyTree
    inner: PyTree


class Slots(NamedTuple):
    """Independent draws of the oracle, one for every gradient that a step asks for by index."""

    draws: tuple


class OptimizerProcess(eqx.Module):
    """An optax optimizer fed by an oracle: g = ∇f(x) + Z, x⁺ = x + update(g).

    `OptimizerProcess(optimizer, oracle, dt)` takes a gradient transformation;
    `OptimizerProcess(factory, hyperparameters, oracle)` builds one from data, so that sweeps and
    further runs do not recompile, and takes dt from `hyperparameters["learning_rate"]` unless a
    fourth argument gives it.

    Transformations that ask for more get it as optax's own do: `value` and `value_fn(x)`, f without
    noise; `grad`, the gradient they are given; with `Agents`, whose gradients come stacked,
    `compress(gradients)`; and, where their update names it, `grad_fn(params, i)`: ∇f + Z at params
    on the step's i-th draw, of which the given gradient is the 0th, and ∇f itself for i = None. A
    step has as many draws as its update asks for, which is found by tracing it once.

    Args:
        optimizer: a `GradientTransformation`, or a factory of one such as `optax.sgd`.
        hyperparameters: the factory's keyword arguments.
        oracle: f and the noise.
        dt: the time one step takes in the SDE's clock: η, or η² in the batch-equivalent regime.

    Raises:
        InputError: dt not positive, hyperparameters without a numeric learning rate or that the
            factory refuses, or (when a run starts) an optimizer that keeps a random key in its
            state.
    """

    optimizer: Callable | optax.GradientTransformation
    hyperparameters: dict[str, Any] | None
    oracle: Oracle
    dt: Float[Array, ""]
    asks_elsewhere: bool = eqx.field(static=True)
    t0: float = eqx.field(static=True, default=0.0)

    @overload
    def __init__(self, optimizer: optax.GradientTransformation, oracle: Oracle, dt: Any, /): ...
    @overload
    def __init__(
        self,
        factory: Callable,
        hyperparameters: Mapping[str, Any],
        oracle: Oracle,
        dt: Any = None,
        /,
    ): ...
    def __init__(self, optimizer, second, third, fourth=None, /):
        self.optimizer = optimizer
        if isinstance(optimizer, optax.GradientTransformation):
            self.hyperparameters, self.oracle, dt = None, second, third
        else:
            if not (callable(optimizer) and isinstance(second, Mapping)):
                raise _checks.InputError(
                    "OptimizerProcess takes (gradient transformation, oracle, dt) or (factory, "
                    "hyperparameters, oracle)"
                )
            self.oracle, rate = third, second.get("learning_rate")
            if rate is None or callable(rate):
                raise _checks.InputError(
                    "hyperparameters must hold a number 'learning_rate', which sets dt; for a "
                    "schedule pass OptimizerProcess(optimizer, oracle, dt)"
                )
            _checks.positive_number("learning_rate", rate)
            dt = rate if fourth is None else fourth
            self.hyperparameters = {
                name: jnp.asarray(value) if isinstance(value, float | np.ndarray) else value
                for name, value in (
                    dict(second) | {"learning_rate": jnp.asarray(rate, float)}
                ).items()
            }
        if not isinstance(self.oracle, Oracle):
            raise _checks.InputError(f"{type(self.oracle).__name__} is no jaxsde.oracles.Oracle")
        _checks.positive_number("dt", dt)
        self.dt = jnp.asarray(dt, float)
        update = self._transformation().update  # a factory's own checks come before any tracing
        self.asks_elsewhere = "grad_fn" in inspect.signature(update).parameters

    def _transformation(self) -> optax.GradientTransformation:
        optimizer = self.optimizer
        if isinstance(optimizer, optax.GradientTransformation):
            return optimizer
        try:
            return optimizer(**(self.hyperparameters or {}))
        except TypeError as error:
            raise _checks.InputError(
                f"the optimizer refuses its hyperparameters: {error}"
            ) from error

    def noise(self, x0: PyTree) -> PyTree[Draw]:
        """The oracle's draws; `Slots` of them where a step asks for several gradients."""
        draws, slots = self.oracle.noise(x0), self._slots(x0)
        return draws if slots == 1 else Slots((draws,) * slots)

    def init(self, x0: PyTree, draw: PyTree) -> OptimizerState:
        """x0 and the optimizer's initial state."""
        inner = self._transformation().init(x0)
        _refuse_keys(inner)
        return OptimizerState(x0, inner)

    def step(self, k, state: OptimizerState, draw: PyTree) -> OptimizerState:
        """One update on the oracle's gradient of this draw."""
        x, inner = state
        updates, inner = self._update(x, inner, _draws(draw).__getitem__)
        _check_one_update(updates, x, self.oracle)
        return OptimizerState(optax.apply_updates(x, updates), inner)

    def brownian(self, x: PyTree, draw: PyTree) -> tuple:
        """The unit normals that an SDE may share, `Oracle.brownian` of every draw."""
        return tuple(self.oracle.brownian(x, own) for own in _draws(draw))

    def _update(self, x: PyTree, inner: PyTree, draw_of: Callable[[int], PyTree]) -> tuple:
        g = self.oracle.sample_gradient(x, draw_of(0))
        update = self._transformation().update
        return update(g, inner, x, **_asked_for(update, self._extras(x, g, draw_of)))

    def _slots(self, x0: PyTree) -> int:
        """How many draws a step asks for."""
        if not self.asks_elsewhere:
            return 1
        asked = [0]
        dtype = jnp.result_type(float, *jax.tree.leaves(x0))
        draw = noise.structure(self.oracle.noise(x0), dtype)

        def trace(x, draw):
            def draw_of(i):
                asked.append(i)
                return draw

            return self._update(x, self._transformation().init(x), draw_of)

        jax.eval_shape(trace, x0, draw)
        return max(asked) + 1

    def _extras(self, x: PyTree, g: PyTree, draw_of: Callable[[int], PyTree]) -> dict[str, Any]:
        loss = self.oracle.problem.loss

        def grad_fn(params, i=0):
            if i is None:
                return self.oracle.gradient(params)
            if isinstance(i, bool) or not isinstance(i, int) or i < 0:
                raise _checks.InputError(
                    "grad_fn(params, i) takes the number of a draw, 0, 1, ..., as a Python int, "
                    f"or None for the gradient without noise; got i = {i!r}"
                )
            return self.oracle.sample_gradient(params, draw_of(i))

        extras = {"value": loss(x), "grad": g, "value_fn": loss, "grad_fn": grad_fn}
        agents = self.oracle
        if isinstance(agents, Agents):
            extras["compress"] = lambda gradients: agents.compress(gradients, draw_of(0))
        return extras

    def position(self, state: OptimizerState) -> PyTree:
        """x."""
        return state.x

    def observables(self) -> dict[str, Callable]:
        """The problem's."""
        return self.oracle.problem.observables()

    def settings(self) -> dict[str, Any]:
        """What a comparison needs to know."""
        plain = self.optimizer is optax.sgd and set(self.hyperparameters or ()) == {"learning_rate"}
        chain = gradient_chain(self.oracle, self.dt) if plain else None
        return {"dt": float(self.dt), "chain": chain}


def _draws(draw: PyTree) -> tuple:
    return draw.draws if isinstance(draw, Slots) else (draw,)


def _asked_for(update: Callable, extras: dict[str, Any]) -> dict[str, Any]:
    """The extras that an update names; one with **extra_args gets all but `grad_fn`."""
    parameters = inspect.signature(update).parameters
    variadic = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return {
        name: extra
        for name, extra in extras.items()
        if name in parameters or (variadic and name != "grad_fn")
    }


def _check_one_update(updates: PyTree, x: PyTree, oracle: Oracle) -> None:
    hint = "it averages over agents, and this oracle is one agent's: give it Agents"
    if isinstance(oracle, Agents):
        hint = (
            "the stacked gradients of Agents need optimizers.dsgd or a sibling, or a chain with "
            "optimizers.average_gradients() in it"
        )
    for update, leaf in zip(jax.tree.leaves(updates), jax.tree.leaves(x), strict=True):
        if jnp.shape(update) != jnp.shape(leaf):
            raise _checks.InputError(
                f"the optimizer's update has shape {jnp.shape(update)}, x {jnp.shape(leaf)}: {hint}"
            )


def _refuse_keys(state: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        dtype = getattr(leaf, "dtype", None)
        typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
        if typed or (dtype == jnp.uint32 and leaf.shape[-1:] == (2,)):
            raise _checks.InputError(
                f"the optimizer keeps a random key in its state{jax.tree_util.keystr(path)}, which "
                "would give every path the same noise: put the noise into the oracle"
            )


def gradient_chain(oracle: Oracle, learning_rate: Any) -> str | None:
    """A text that two chains x - η (∇f + R ξ) share if they are the same in law."""
    if not isinstance(oracle, GaussianNoise):
        return None
    leaves, treedef = jax.tree.flatten((oracle, learning_rate))
    digest = hashlib.sha256(str(treedef).encode())
    for leaf in leaves:
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
