"""What all commands ask for and what they make of it."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsde import _checks, engine, oracles, problems
from jaxsde.families import Family, family

NOISES = ("gaussian", "student-t")


@dataclasses.dataclass(frozen=True)
class Options:
    """The options that all commands share."""

    optimizer: str
    """Optimizer and SDE: sgd, sgd-order-2, heavy-ball, heavy-ball-order-2, nesterov,
    nesterov-order-2, sign_sgd, sign_sgd-linearized, rmsprop, rmspropw, rmsprop-order-2,
    rmsprop-batch-equivalent, adam, adam-l2, adamw, adamw-published, adam-order-2,
    adam-batch-equivalent; of many agents dsgd, dcsgd-random-k, dcsgd-bernoulli-k, dcsgd-qsgd,
    dcsgd-ternary, dsign_sgd, dsign_sgd-linearized, dsign_sgd-majority; sharpness-aware usam,
    usam-full-perturbation, dnsam, sam, sam-sgd-noise; of games sgda, seg, seg-independent, shgd,
    shgd-one-draw."""

    problem: str | None = None
    """What to minimise: quadratic, rosenbrock, embedded-saddle, double-well, breast-cancer; games:
    quadratic-game, bilinear, forsaken, almost-bilinear, degree-8, whose loss is half the square of
    their field. One that suits the optimizer unless given."""

    noise: str = "gaussian"
    """Law of the gradient noise: gaussian, student-t."""

    scale: float | None = None
    """Scale σ of the noise; the problem's own unless given."""

    degrees_of_freedom: float = 3.0
    """ν of Student-t noise."""

    learning_rate: float | None = None
    """η; one that suits the optimizer unless given. A step takes the time η, or η² where the SDE is
    batch-equivalent, √η with momentum."""

    hyperparameters: dict[str, float] = dataclasses.field(default_factory=dict)
    """The optimizer's others, as NAME VALUE pairs: b1 0.95 weight_decay 0.5, or agents 8 k 2."""

    paths: int | None = None
    """Noise paths; enough for the problem unless given."""

    seed: int = 0
    """Seed of the noise."""

    float64: bool = False
    """Compute in double precision."""

    output: Path = Path("jaxsde-results")
    """Folder for the figure and the file."""


class Setup(NamedTuple):
    """What the options say, checked: a family on a problem with its noise, start and key."""

    family: Family
    problem: str
    named: problems.Named
    scale: float
    noise: str
    degrees_of_freedom: float
    learning_rate: float
    settings: dict[str, Any]
    x0: Any
    paths: int
    key: jax.Array

    def oracle(self, scale: Any = None) -> oracles.Oracle:
        """The noisy gradients of one agent, at another scale if one is given."""
        scale = self.scale if scale is None else scale
        if self.noise == "gaussian":
            return oracles.GaussianNoise(self.named.make(), scale)
        return oracles.StudentTNoise(self.named.make(), scale, self.degrees_of_freedom)

    @property
    def about(self) -> str:
        """Two lines on what is run."""
        values = {"η": self.learning_rate, **self.settings}
        given = ", ".join(f"{name} = {value:g}" for name, value in values.items() if value)
        return (
            f"{self.family.about} on {self.problem}: {self.named.about}\n"
            f"{given}, {self.noise} noise of scale {self.scale:g}"
        )


def setup(options: Options) -> Setup:
    """Sets JAX up and checks the options, before anything runs.

    Raises:
        InputError: an unknown name, a value out of range, a folder that cannot be written to.
        ImportError: an extra is missing.
    """
    for module, extra in (("matplotlib", "plot"), ("xarray", "io"), ("h5netcdf", "io")):
        _checks.extra(module, extra)
    engine.use_all_cores()
    jax.config.update("jax_enable_x64", options.float64)
    chosen = family(options.optimizer)
    problem = either(options.problem, chosen.problem)
    named = problems.named(problem)
    learning_rate = either(options.learning_rate, chosen.learning_rate)
    _checks.positive("learning_rate", learning_rate)
    scale = either(options.scale, named.scale)
    _checks.positive("scale", scale)
    _checks.known("noise", options.noise, NOISES)
    if not 0 <= options.seed < 2**32:
        raise _checks.InputError(f"seed must lie in [0, 2³²), got {options.seed}")
    dtype = np.float64 if options.float64 else np.float32
    x0 = jax.tree.map(lambda leaf: leaf.astype(dtype), named.x0)
    paths = _checks.at_least("paths", either(options.paths, named.paths), 1)
    found = Setup(
        chosen, problem, named, scale, options.noise, options.degrees_of_freedom, learning_rate,
        chosen.settings(options.hyperparameters), x0, paths, jax.random.key(options.seed),
    )  # fmt: skip
    found.oracle()
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _checks.InputError(
            f"output {options.output} is no folder to write to: {error}"
        ) from error
    return found


def either(given: Any, default: Any) -> Any:
    """What is given, else the default."""
    return default if given is None else given
