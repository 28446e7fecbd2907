"""What every SDE can do."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks
from jaxsde.oracles import Agents, MinibatchNoise, Oracle

Schedule = Callable[[Any], Any]


class SDE(eqx.Module):
    """dy = drift(t, y) dt + diffusion(t, y) dW, Itô; the diffusion carries the optimizer's sign."""

    t0: eqx.AbstractVar[Any]

    @abc.abstractmethod
    def drift(self, t: Any, y: Any, args: Any) -> Any:
        """The drift, with the structure of y."""

    @abc.abstractmethod
    def diffusion(self, t: Any, y: Any, args: Any) -> lx.AbstractLinearOperator:
        """The diffusion, an operator from the Brownian motion's structure to y's."""

    @abc.abstractmethod
    def initial(self, x0: Any) -> Any:
        """The state at t0 of an optimizer that starts at x0."""

    @abc.abstractmethod
    def position(self, y: Any) -> Any:
        """x, the part of the state that the optimizer moves."""

    def resumed(self, x: Any, inner: Any) -> Any:
        """The state for an optimizer that stands at x with the optax state `inner`.

        Raises:
            InputError: the SDE cannot be read off an optimizer's state.
        """
        raise _checks.InputError(
            f"{type(self).__name__} cannot take over from an optimizer: run it without a warm-up"
        )

    def brownian_structure(self, x0: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
        """The shapes of W, from those of x0."""
        found = []

        def diffuse(x0):
            found.append(self.diffusion(self.t0, self.initial(x0), None).in_structure())

        jax.eval_shape(diffuse, x0)
        return found[0]

    def shared(self, W: tuple) -> PyTree | None:
        """Its first Brownian motions, out of the unit normals of an optimizer step's draws.

        One draw moves it as it is; None where it cannot share them.
        """
        return W[0] if len(W) == 1 else None

    def terms(
        self, brownian: diffrax.AbstractBrownianPath | None = None
    ) -> diffrax.MultiTerm | diffrax.ODETerm:
        """The SDE for `diffrax.diffeqsolve`, driven by a path of `brownian_structure`.

        Without a path it is the drift alone, which is all of an SDE without noise.
        """
        if brownian is None:
            return diffrax.ODETerm(self.drift)
        return diffrax.MultiTerm(
            diffrax.ODETerm(self.drift), diffrax.ControlTerm(self.diffusion, brownian)
        )


class State(NamedTuple):
    """X, the position."""

    X: PyTree


class PositionSDE(SDE):
    """An SDE of the position alone, from t0 = 0."""

    @property
    def t0(self) -> float:
        """0."""
        return 0.0

    def initial(self, x0: Any) -> State:
        """X = x0."""
        return State(x0)

    def resumed(self, x: Any, inner: Any) -> State:
        """X = x."""
        return State(x)

    def position(self, y: State) -> Any:
        """X."""
        return y.X


class ScheduledSDE(PositionSDE):
    """An SDE of the position with a schedule ψ(t/η) of its learning rate, in the clock t = k η."""

    learning_rate: Float[Array, ""]
    schedule: Schedule | None

    def __init__(self, learning_rate, schedule):
        _checks.positive_number("learning_rate", learning_rate)
        _checks.schedule("schedule", schedule)
        self.learning_rate = jnp.asarray(learning_rate, float)
        self.schedule = schedule

    def _psi(self, t: Any) -> Any:
        """ψ(t/η)."""
        return 1 if self.schedule is None else self.schedule(t / self.learning_rate)

    def _scaled(self, t: Any, root: lx.AbstractLinearOperator) -> lx.AbstractLinearOperator:
        """-ψ √η root, diagonal where that is."""
        return scaled(-self._psi(t) * jnp.sqrt(self.learning_rate), root)


def scaled(scale: Any, root: lx.AbstractLinearOperator) -> lx.AbstractLinearOperator:
    """scale times a root of x, into the state's structure; diagonal where the root is."""
    if isinstance(root, lx.DiagonalLinearOperator):
        return lx.DiagonalLinearOperator(State(jax.tree.map(lambda r: scale * r, root.diagonal)))

    def apply(dW):
        return State(jax.tree.map(lambda w: scale * w, root.mv(dW)))

    return lx.FunctionLinearOperator(apply, root.in_structure())


def check_one_oracle(oracle: Any) -> None:
    """Refuses what is no oracle of one gradient."""
    if not isinstance(oracle, Oracle):
        raise _checks.InputError(f"{type(oracle).__name__} is no jaxsde.oracles.Oracle")
    if isinstance(oracle, Agents):
        raise _checks.InputError(
            "this SDE is of one oracle's gradients, and those of Agents come stacked: for agents "
            "of one noise give the oracle their number as its batch_size"
        )


def check_law(oracle: Oracle, ask: Callable[[Oracle], Any]) -> None:
    """Refuses noise without the law that is asked of it; that of mini-batches has it at every x."""
    if not isinstance(oracle, MinibatchNoise):
        ask(oracle)


def check_order(order: int) -> None:
    """Refuses another weak order than 1 and 2."""
    if order not in (1, 2):
        raise _checks.InputError(f"order must be 1 or 2, got {order!r}")


def check_variance(oracle: Oracle) -> None:
    """Refuses noise that is known to have no variance."""
    degrees = getattr(oracle, "degrees_of_freedom", None)
    known = None if degrees is None else _checks.concrete(degrees)
    if known is not None and known <= 2:
        raise _checks.InputError(
            f"this SDE does not exist for Student-t noise with {known:g} degrees of freedom, whose "
            "variance is infinite: use more than 2, or compare quantiles of the optimizer"
        )


def moment(inner: PyTree, name: str) -> PyTree:
    """The average of that name (`mu` of gradients, `nu` of squares) in an optax state.

    Raises:
        InputError: the optimizer keeps none.
    """
    found = optax.tree.get(inner, name)
    if found is None:
        raise _checks.InputError(
            f"the optimizer keeps no average {name!r} for its SDE to take over: run it without a "
            "warm-up, or with an optimizer of the same family"
        )
    return found


def clipped_sqrt(radicand: Float[Array, "..."]) -> Float[Array, "..."]:
    """√ of the radicand clipped at 0, with derivative 0 there."""
    positive = radicand > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, radicand, 1)), 0)
