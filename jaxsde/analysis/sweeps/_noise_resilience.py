"""Where the loss settles as the gradient noise grows: adaptivity and decoupled decay."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxsde import _checks
from jaxsde.analysis.sweeps._noise_levels import METHODS, Level, Setting
from jaxsde.analysis.sweeps._sweep import sweep
from jaxsde.engine import Draw, Process, Progress, of_state
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic
from jaxsde.processes import OptimizerProcess

SCALES = tuple(np.geomspace(0.3, 30, 7).tolist())
BATCH_SIZES = (1, 4, 16, 64)
RELAXATIONS = 5  # e-folding times before the average begins, and as many in it
ENOUGH = 3  # of them: the loss is within e⁻⁶ of its level
CLEAR = 4.5  # standard errors; one false alarm in 150,000


class Averaged(NamedTuple):
    """A process's state, and the sums of its losses over the two halves of a window."""

    inner: Any
    first: Float[Array, ""]
    second: Float[Array, ""]


class LossAverage(eqx.Module):
    """A process that sums its loss over the steps begin, ..., end - 1, halves apart."""

    process: OptimizerProcess
    begin: Any
    middle: Any

    @property
    def dt(self) -> Any:
        """The process's."""
        return self.process.dt

    @property
    def t0(self) -> Any:
        """The process's."""
        return self.process.t0

    def noise(self, x0: Any) -> Any:
        """The process's."""
        return self.process.noise(x0)

    def init(self, x0: Any, draw: Draw) -> Averaged:
        """Nothing summed yet."""
        zero = jnp.zeros((), x0.dtype)
        return Averaged(self.process.init(x0, draw), zero, zero)

    def step(self, k: Any, state: Averaged, draw: Draw) -> Averaged:
        """One step, and the loss after it."""
        inner = self.process.step(k, state.inner, draw)
        loss = self.process.oracle.problem.loss(self.process.position(inner))
        first = jnp.where((k >= self.begin) & (k < self.middle), loss, 0)
        second = jnp.where(k >= self.middle, loss, 0)
        return Averaged(inner, state.first + first, state.second + second)

    def position(self, state: Averaged) -> Any:
        """The process's."""
        return self.process.position(state.inner)


SUMS = {
    "loss": of_state(lambda state: state.first + state.second),
    "drift": of_state(lambda state: state.second - state.first),
}


class Factory(eqx.Module):
    """One method's chain at one noise; everything else is data."""

    optimizer: Callable = eqx.field(static=True)
    hyperparameters: dict[str, Any]
    problem: Quadratic
    begin: Any
    middle: Any

    def __call__(self, scale: Any, batch_size: Any) -> Process:
        """The process."""
        oracle = GaussianNoise(self.problem, scale, batch_size=batch_size)
        process = OptimizerProcess(self.optimizer, self.hyperparameters, oracle)
        return LossAverage(process, self.begin, self.middle)


@dataclasses.dataclass(frozen=True)
class NoiseResilience:
    """What `noise_resilience` found.

    Fields:
        dataset: an `xarray.Dataset` over `optimizer`, `scale` and `batch_size`: the time-averaged
            `loss` and its `standard_error` over independent paths, the `law` it should follow, the
            `bound` and the bound as `published`; `drift`, the second half of the average less the
            first, with its `drift_error`; `relaxations`, how many e-folding times of the slowest
            coordinate passed before the average began; `used` paths; and `steps` of each method.
    """

    dataset: Any

    @property
    def stationary(self) -> Any:
        """Whether each average is of the stationary law: by theory, and with no drift seen."""
        data = self.dataset
        still = abs(data["drift"]) <= CLEAR * data["drift_error"]
        return (data["relaxations"] >= ENOUGH) & still

    @property
    def exponent(self) -> Any:
        """d log loss / d log σ between the two largest scales, by method and batch size."""
        loss, scale = np.log(self.dataset["loss"]), self.dataset["scale"].values
        before, last = (loss.isel(scale=at, drop=True) for at in (-2, -1))
        return (last - before) / np.log(scale[-1] / scale[-2])

    @property
    def verdict(self) -> str:
        """A line for each method: exponent, distance from its law, bounds that do not hold."""
        return "\n".join(self._line(method) for method in self.dataset["optimizer"].values)

    def _line(self, method: str) -> str:
        data = self.dataset.sel(optimizer=method)
        exponent = float(self.exponent.sel(optimizer=method).isel(batch_size=0))
        off = float(abs(data["loss"] / data["law"] - 1).max())
        line = f"{method}: E loss ~ σ^{exponent:.2f} at the largest σ, within {off:.1%} of its law"
        for name in ("bound", "published"):
            excess = data["loss"] - data[name]
            if bool((excess > CLEAR * data["standard_error"]).any()):
                what = "the bound" if name == "bound" else "the published bound"
                line += f"; exceeds {what} by up to {float((excess / data[name]).max()):.1%}"
        if not bool(self.stationary.sel(optimizer=method).all()):
            count = int((~self.stationary.sel(optimizer=method)).sum())
            line += f"; NOT stationary at {count} of {data['loss'].size} points: take more steps"
        lost = int(data.attrs["paths"] - data["used"].min())
        return line + (f"; up to {lost} paths diverged" if lost else "")


def noise_resilience(
    problem: Quadratic | None = None,
    *,
    scales: Sequence[float] = SCALES,
    batch_sizes: Sequence[float] = BATCH_SIZES,
    learning_rate: float = 0.01,
    weight_decay: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    paths: int = 512,
    steps: int | None = None,
    key: PRNGKeyArray | None = None,
    devices: Sequence[Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> NoiseResilience:
    """Asymptotic loss against noise σ and batch size B: simulated, by law, and bounded.

    SGD, SignSGD, Adam, Adam on the L2-regularised loss and AdamW (the strength of both decays is
    θ), on a quadratic under Gaussian noise of standard deviation σ/√B, each a `sweep` compiled
    once. Paths start at the minimiser; the loss is averaged over time on each path once the
    slowest coordinate has relaxed, by theory, and the averages of independent paths give the error.
    Its level grows like σ² under SGD, like σ under SignSGD, Adam and Adam on the L2 loss; under
    AdamW it stays below η tr(H) / (2 θ (1 + μ/L)) for every σ.

    Laws are the algorithms' own: exact for SGD and SignSGD, with the second moment held at its mean
    for Adam. Bounds are of the SDEs, to leading order in η and for noise that dominates the
    gradient: an algorithm may exceed one by a relative η λ √B/σ or so. Those with decay need a
    minimiser at 0 and are nan elsewhere.

    Source: arXiv 2411.15958, its poster's equations 3 to 6 (`published`, with L d for tr H);
    `bound` puts √(π/2) into 4 and √B before the bracket in 5.

    Args:
        problem: f, with a positive diagonal H `(d,)`; |x|²/2 in ten dimensions unless given.
        scales: σ of one sample's gradient noise, ascending.
        batch_sizes: B, ascending.
        learning_rate: η.
        weight_decay: θ.
        b1: β₁ of Adam.
        b2: β₂ of Adam.
        paths: for each point.
        steps: of every method, of which the first half is left out of the average; ten relaxation
            times of each method's slowest point unless given.
        key: `jax.random.key(seed)`; seed 0 unless given.
        devices: that share the paths; all by default.
        progress: called as in `sweep`, for all methods together.

    Returns:
        The levels and what is said of them; `verdict` sums up, and says what is not stationary.

    Raises:
        InputError: a problem that is no quadratic with a positive diagonal, hyperparameters out of
            range, a learning rate at which SGD is unstable, fewer than two scales.
        ImportError: xarray is missing (pip install 'jaxsde[io]').
    """
    xarray = _checks.extra("xarray", "io")
    setting = _setting(problem, learning_rate, weight_decay, b1, b2)
    sigma, sizes = _ascending("scales", scales, 2), _ascending("batch_sizes", batch_sizes, 1)
    theories = {
        method: [[setting.level(method, scale, B) for B in sizes] for scale in sigma]
        for method in METHODS
    }
    lengths = {method: _length(levels, steps) for method, levels in theories.items()}
    total, run, parts = sum(lengths.values()), 0, []
    for method, levels in theories.items():
        length = lengths[method]

        def report(now: Progress, run=run, length=length) -> None:
            if progress is not None:
                points = now.total // length  # times paths
                progress(Progress(points * run + now.done, points * total, now.elapsed))

        optimizer, hyperparameters = setting.chain(method)
        factory = Factory(
            optimizer,
            {name: jnp.asarray(value, float) for name, value in hyperparameters.items()},
            setting.problem, jnp.int32(length // 2), jnp.int32(length // 4 * 3),
        )  # fmt: skip
        found = sweep(
            factory, {"scale": sigma, "batch_size": sizes},
            jnp.asarray(setting.problem.minimizer), steps=length, paths=paths, records=[length],
            key=jax.random.key(0) if key is None else key, observables=SUMS, devices=devices,
            progress=report,
        )  # fmt: skip
        parts.append(_part(xarray, found, levels, length))
        run += length
    data = xarray.concat(parts, xarray.Variable("optimizer", list(METHODS)))
    given = dataclasses.asdict(setting) | {
        "problem": eqx.tree_pformat(setting.problem, short_arrays=False)
    }
    data.attrs = {"paths": paths, "settings": json.dumps(given)}
    return NoiseResilience(data)


def _setting(problem: Any, learning_rate, weight_decay, b1, b2) -> Setting:
    problem = Quadratic(np.ones(10)) if problem is None else problem
    if not isinstance(problem, Quadratic) or problem.hessian.ndim != 1:
        raise _checks.InputError("problem must be a Quadratic with a diagonal hessian (d,)")
    _checks.positive("the hessian", problem.hessian)
    _checks.positive_number("learning_rate", learning_rate)
    _checks.positive_number("weight_decay", weight_decay)
    _checks.fraction("b1", b1)
    _checks.fraction("b2", b2)
    return Setting(problem, float(learning_rate), float(weight_decay), float(b1), float(b2))


def _ascending(name: str, values: Sequence[float], least: int) -> Float[np.ndarray, " n"]:
    _checks.positive(name, values)
    ascending = np.asarray(values, float)
    if ascending.ndim != 1 or len(ascending) < least or np.any(np.diff(ascending) <= 0):
        raise _checks.InputError(f"{name} must be {least} or more ascending numbers, got {values}")
    return ascending


def _length(levels: list[list[Level]], steps: int | None) -> int:
    """Steps of one method, a multiple of four."""
    if steps is None:
        slowest = max(level.relaxation for row in levels for level in row)
        steps = int(np.ceil(2 * RELAXATIONS * slowest))
    return -(-_checks.at_least("steps", steps, 4) // 4) * 4


def _part(xarray, found, levels: list[list[Level]], length: int) -> Any:
    """One method's entries."""
    window, last, dims = length // 2, found.isel(step=-1, drop=True), ("scale", "batch_size")
    known = {
        name: (dims, [[getattr(level, name) for level in row] for row in levels])
        for name in ("law", "bound", "published")
    }
    relaxed = [[window / level.relaxation for level in row] for row in levels]
    simulated = {
        "loss": last["loss.mean"] / window,
        "standard_error": last["loss.standard_error"] / window,
        "drift": last["drift.mean"] / (window / 2),
        "drift_error": last["drift.standard_error"] / (window / 2),
        "used": last["loss.used"],
    }
    return xarray.Dataset(
        simulated | known | {"relaxations": (dims, relaxed), "steps": length}, last.coords
    )
