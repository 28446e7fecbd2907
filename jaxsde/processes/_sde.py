"""An SDE under a scheme."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks
from jaxsde.engine.noise import Draw
from jaxsde.engine.schemes import EulerMaruyama, Scheme
from jaxsde.processes._optimizer import gradient_chain
from jaxsde.sdes import SDE, SGD


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
        return self.step_from(self.t0 + k * self.dt, state, draw)

    def step_from(self, t, state: PyTree, draw: PyTree) -> PyTree:
        """One step of the scheme from time t."""
        return self.scheme.step(self.sde, t, state, self.dt, draw)

    def position(self, state: PyTree) -> PyTree:
        """The SDE's position."""
        return self.sde.position(state)

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
