"""What all commands ask for and what they make of it."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxsde import _checks, engine, oracles, problems
from jaxsde.families import Family, Laws, Setting, family

NOISES = ("gaussian", "student-t", "minibatch")
BATCH_SIZE = 32
VARIANCE_EVERY = 10
NETWORK_EPS = 1e-3  # under mini-batches: a unit that no input wakes has no noise to divide by


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
    """What to minimise: quadratic, rosenbrock, embedded-saddle, double-well, breast-cancer;
    networks: breast-cancer-mlp, digits-cnn, digits-resnet, digits-vit, text-transformer; games:
    quadratic-game, bilinear, forsaken, almost-bilinear, degree-8, whose loss is half the square of
    their field. One that suits the optimizer unless given."""

    noise: str = "gaussian"
    """Law of the gradient noise: gaussian, student-t, added to the full gradient; minibatch, of
    terms drawn with replacement, where the problem is on data."""

    scale: float | None = None
    """Scale σ of added noise; the problem's own unless given."""

    degrees_of_freedom: float = 3.0
    """ν of Student-t noise."""

    batch_size: int | None = None
    """Terms in a mini-batch; 32 unless given."""

    variance_every: int | None = None
    """Steps of the SDE for which the variances of mini-batch gradients are kept, which the SDEs of
    sign_sgd, rmsprop and adam ask for; 10 unless given."""

    learning_rate: float | None = None
    """η; one that suits the optimizer and the problem unless given. A step takes the time η, or η²
    where the SDE is batch-equivalent, √η with momentum."""

    hyperparameters: dict[str, float] = dataclasses.field(default_factory=dict)
    """The optimizer's others, as NAME VALUE pairs: b1 0.95 weight_decay 0.5, or agents 8 k 2. On
    networks under mini-batches eps is 1e-3 unless given, as units that no input wakes have no noise
    to divide by."""

    paths: int | None = None
    """Noise paths; enough for the problem unless given."""

    seed: int = 0
    """Seed of the noise."""

    float64: bool = False
    """Compute in double precision."""

    output: Path = Path("jaxsde-results")
    """Folder for the figure and the file."""


class Setup(NamedTuple):
    """What the options say, checked: a family on a problem with its noise, start and key.

    `scale` is None for mini-batches, `batch_size` for other noise, `variance_every` for SDEs that
    do without.
    """

    family: Family
    problem: str
    named: problems.Named
    objective: problems.Problem
    noise: str
    scale: float | None
    degrees_of_freedom: float
    batch_size: int | None
    variance_every: int | None
    learning_rate: float
    settings: dict[str, Any]
    x0: Any
    paths: int
    key: jax.Array

    def oracle(self, scale: Any = None) -> oracles.Oracle:
        """The noisy gradients of one agent, at another scale if one is given."""
        if self.batch_size is not None:
            return oracles.MinibatchNoise(self.objective, self.batch_size)
        scale = either(scale, self.scale)
        if self.noise == "gaussian":
            return oracles.GaussianNoise(self.objective, scale)
        return oracles.StudentTNoise(self.objective, scale, self.degrees_of_freedom)

    def laws(self, dt: float, time: np.ndarray) -> Laws:
        """The family's."""
        return self.family.laws(
            Setting(self.oracle(), self.learning_rate, self.x0, dt, time, self.settings)
        )

    @property
    def on_network(self) -> bool:
        """Whether the problem is a network."""
        return isinstance(self.objective, problems.Network)

    @property
    def about(self) -> str:
        """Two lines on what is run."""
        values = {"η": self.learning_rate, **self.settings}
        given = ", ".join(f"{name} = {value:g}" for name, value in values.items() if value)
        noise = f"mini-batches of {self.batch_size}"
        if self.scale is not None:
            noise = f"{self.noise} noise of scale {self.scale:g}"
        if self.variance_every is not None:
            noise += f", their variances every {self.variance_every} steps of the SDE"
        return f"{self.family.about} on {self.problem}: {self.named.about}\n{given}, {noise}"


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
    suitable = either(named.learning_rate(options.optimizer), chosen.learning_rate)
    learning_rate = either(options.learning_rate, suitable)
    _checks.positive("learning_rate", learning_rate)
    scale, batch_size, variance_every = _noise(options, chosen, named)
    if not 0 <= options.seed < 2**32:
        raise _checks.InputError(f"seed must lie in [0, 2³²), got {options.seed}")
    settings = chosen.settings(options.hyperparameters)
    paths = _checks.at_least("paths", either(options.paths, named.paths), 1)
    objective = named.make()
    if batch_size is not None and isinstance(objective, problems.Network) and "eps" in settings:
        settings["eps"] = options.hyperparameters.get("eps", NETWORK_EPS)
    dtype = np.float64 if options.float64 else np.float32
    x0 = jax.tree.map(lambda leaf: leaf.astype(dtype), named.start(objective))
    found = Setup(
        chosen, problem, named, objective, options.noise, scale, options.degrees_of_freedom,
        batch_size, variance_every, learning_rate, settings, x0, paths,
        jax.random.key(options.seed),
    )  # fmt: skip
    found.oracle()
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _checks.InputError(
            f"output {options.output} is no folder to write to: {error}"
        ) from error
    return found


def _noise(
    options: Options, chosen: Family, named: problems.Named
) -> tuple[float | None, int | None, int | None]:
    """The noise's scale, batch size and `variance_every`, each None where it has no meaning."""
    _checks.known("noise", options.noise, NOISES)
    if options.noise != "minibatch":
        if options.batch_size is not None or options.variance_every is not None:
            raise _checks.InputError("batch_size and variance_every are for --noise minibatch")
        scale = either(options.scale, named.scale)
        _checks.positive("scale", scale)
        return scale, None, None
    if options.scale is not None:
        raise _checks.InputError("scale is for added noise; that of mini-batches is in the data")
    if chosen.optimizer is optax.sign_sgd or "eps" in chosen.hyperparameters:
        every = either(options.variance_every, VARIANCE_EVERY)
        return None, either(options.batch_size, BATCH_SIZE), every
    if options.variance_every is not None:
        raise _checks.InputError(f"{chosen.about}: it asks for no variances, so no variance_every")
    return None, either(options.batch_size, BATCH_SIZE), None


def either(given: Any, default: Any) -> Any:
    """What is given, else the default."""
    return default if given is None else given
