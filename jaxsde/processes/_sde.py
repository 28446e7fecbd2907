"""An SDE under a scheme."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxsde import _checks
from jaxsde.engine.noise import Draw
from jaxsde.engine.schemes import EulerMaruyama, Scheme
from jaxsde.oracles import MinibatchNoise
from jaxsde.processes._optimizer import gradient_chain
from jaxsde.sdes import SDE, SGD


class Holding(NamedTuple):
    """An SDE's state, the diag Σ that its steps use, and the steps since that was looked at."""

    y: PyTree
    variance: PyTree
    age: Int[Array, ""]


class SDEProcess(eqx.Module):
    """An SDE under a scheme: step k leads from t0 + k dt to t0 + (k + 1) dt.

    Under the noise of mini-batches diag Σ(x) takes the gradient of every term, several times the
    cost of the rest of a step. `variance_every` m steps it is looked at, and held in between: an
    error of O(m dt) in V or in the mean signs, none where Σ is constant.

    Args:
        sde: the SDE.
        dt: the step, in the SDE's clock.
        scheme: how a step is made.
        variance_every: m; each step unless given.

    Raises:
        InputError: dt not positive, m below 1, or given for other noise than of mini-batches.
    """

    sde: SDE
    dt: Float[Array, ""]
    scheme: Scheme
    variance_every: Int[Array, ""] | None

    def __init__(self, sde, dt, scheme=None, variance_every=None):
        _checks.positive_number("dt", dt)
        self.sde = sde
        self.dt = jnp.asarray(dt, float)
        self.scheme = EulerMaruyama() if scheme is None else scheme
        self.variance_every = None
        if variance_every is not None:
            self.variance_every = jnp.asarray(_every(sde, variance_every), jnp.int32)

    @property
    def t0(self) -> Any:
        """The SDE's initial time."""
        return self.sde.t0

    def noise(self, x0: PyTree) -> PyTree[Draw]:
        """The scheme's draws for the SDE's Brownian motion."""
        return self.scheme.noise(self.sde.brownian_structure(x0))

    def init(self, x0: PyTree, draw: PyTree) -> PyTree:
        """The SDE's initial state."""
        return self._holding(self.sde.initial(x0))

    def resumed(self, x: PyTree, inner: PyTree) -> PyTree:
        """`SDE.resumed`, the state for an optimizer that stands at x with the state `inner`."""
        return self._holding(self.sde.resumed(x, inner))

    def _holding(self, y: PyTree) -> PyTree:
        if self.variance_every is None:
            return y
        nothing = jax.tree.map(jnp.zeros_like, self.sde.position(y))
        return Holding(y, nothing, jnp.zeros((), jnp.int32))

    def step(self, k, state: PyTree, draw: PyTree) -> PyTree:
        """One step of the scheme from time t0 + k dt."""
        return self.step_from(self.t0 + k * self.dt, state, draw)

    def step_from(self, t, state: PyTree, draw: PyTree) -> PyTree:
        """One step of the scheme from time t."""
        if self.variance_every is None:
            return self.scheme.step(self.sde, t, state, self.dt, draw)
        y, held, age = state
        oracle, x = self.sde.oracle, self.sde.position(y)  # pyright: ignore[reportAttributeAccessIssue]
        variance = jax.lax.cond(age == 0, lambda: oracle.variance(x), lambda: held)
        sde = eqx.tree_at(lambda sde: sde.oracle, self.sde, oracle.holding(variance))
        y = self.scheme.step(sde, t, y, self.dt, draw)
        return Holding(y, variance, (age + 1) % self.variance_every)

    def position(self, state: PyTree) -> PyTree:
        """The SDE's position."""
        return self.sde.position(state if self.variance_every is None else state.y)

    def observables(self) -> dict[str, Callable]:
        """The problem's, where the SDE has an oracle."""
        oracle = getattr(self.sde, "oracle", None)
        return {} if oracle is None else oracle.problem.observables()

    def settings(self) -> dict[str, Any]:
        """What a comparison needs to know."""
        sde, chain = self.sde, None
        if isinstance(self.scheme, EulerMaruyama) and isinstance(sde, SGD) and sde.order == 1:
            same = np.isclose(sde.learning_rate, self.dt)
            chain = gradient_chain(sde.oracle, self.dt) if same else None
        scheme = {"name": type(self.scheme).__name__, "weak_order": self.scheme.weak_order}
        return {"dt": float(self.dt), "scheme": scheme, "chain": chain}


def _every(sde: SDE, steps: int) -> int:
    if not isinstance(getattr(sde, "oracle", None), MinibatchNoise):
        raise _checks.InputError(
            "variance_every is for MinibatchNoise, whose diag Σ is costly: leave it out"
        )
    return _checks.at_least("variance_every", steps, 1)
