"""An optimizer and its SDE solved at several steps, all driven by one noise."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from jaxsde import _checks
from jaxsde.processes._optimizer import OptimizerProcess
from jaxsde.processes._paired import Paired, PairedDraw, Unit
from jaxsde.processes._sde import SDEProcess
from jaxsde.sdes import SDE


class Levels(NamedTuple):
    """The optimizer's state, and the SDE's at every level from the coarsest on."""

    optimizer: Any
    sdes: tuple


class Refined(eqx.Module):
    """An optimizer and its SDE under Euler-Maruyama at the steps h, h/2, ..., h/2ʲ⁻¹.

    One step is one step of the optimizer, of time dt, and s, 2 s, ..., 2ʲ⁻¹ s of the SDE with
    h = dt/s. The finest level uses each of its unit normals ξ, a coarser one (ξ₁ + ξ₂)/√2 of two
    that follow each other, the optimizer what `Paired` gives it of all. So all see one Brownian
    motion, and the levels' difference, which is the integrator's error, has little variance.

    Args:
        optimizer: the optimizer's process.
        sde: the SDE.
        substeps: s.
        levels: j.
        warm_up: as in `Paired`.

    Raises:
        InputError: as `Paired`.
    """

    pairs: tuple[Paired, ...]

    def __init__(
        self, optimizer: OptimizerProcess, sde: SDE, substeps: int = 1, levels: int = 3,
        warm_up: int | None = None,
    ):  # fmt: skip
        counts = [substeps * 2**j for j in range(_checks.at_least("levels", levels, 1))]
        self.pairs = tuple(
            Paired(optimizer, SDEProcess(sde, optimizer.dt / s), s, warm_up) for s in counts
        )

    @property
    def dt(self) -> Any:
        """The optimizer's."""
        return self.pairs[0].dt

    @property
    def t0(self) -> Any:
        """That of a `Paired`."""
        return self.pairs[0].t0

    def noise(self, x0: PyTree) -> PairedDraw:
        """That of the finest pair."""
        return self.pairs[-1].noise(x0)

    def units(self, draw: PairedDraw) -> list[tuple[Unit, ...]]:
        """The unit normals of every level's substeps."""
        found = [draw.unit]
        for _ in self.pairs[1:]:
            fine = found[0]
            found.insert(0, tuple(map(_together, fine[::2], fine[1::2])))
        return found

    def init(self, x0: PyTree, draw: PairedDraw) -> Levels:
        """All at x0."""
        sides = [pair.init(x0, draw) for pair in self.pairs]
        return Levels(sides[-1].optimizer, tuple(side.sde for side in sides))

    def step(self, k, state: Levels, draw: PairedDraw) -> Levels:
        """One step of the optimizer, s 2ʲ of the SDE at level j."""
        finest = self.pairs[-1]
        optimizer = finest.optimizer.step(k, state.optimizer, finest.optimizer_draw(draw))
        sdes = [
            pair.sde_step(k, sde, optimizer, units)
            for pair, sde, units in zip(self.pairs, state.sdes, self.units(draw), strict=True)
        ]
        return Levels(optimizer, tuple(sdes))

    def position(self, state: Levels) -> Levels:
        """All positions."""
        pair = self.pairs[0]
        sdes = tuple(pair.sde.position(sde) for sde in state.sdes)
        return Levels(pair.optimizer.position(state.optimizer), sdes)


def _together(first: Unit, second: Unit) -> Unit:
    return jax.tree.map(lambda a, b: (a + b) / np.sqrt(2), first, second)
