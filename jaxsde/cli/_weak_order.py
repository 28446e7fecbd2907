"""`jaxsde weak-order`: at which order in the step an SDE follows its optimizer."""

import dataclasses

from jaxsde import _checks, _files, plotting
from jaxsde.analysis import weak_error
from jaxsde.cli._console import progress_bar, say, table
from jaxsde.cli._options import Options, setup
from jaxsde.processes import Paired

AVERAGES = ("momentum", "decay", "b1", "b2")  # hyperparameters that keep their time
STEPS = (10, 14, 20, 28, 40, 56)  # to the time asked for


@dataclasses.dataclass(frozen=True)
class WeakOrder(Options):
    """Measure the weak error of an SDE at several learning rates, and its order in the step.

    Both sides share their noise and have control variates, the integrator's error is extrapolated
    away and reported; intervals come from a run of their own. Prints errors and a verdict; writes a
    figure (PNG) and the study (NetCDF). Averages keep their time: momentum, decay, b1 and b2 are
    those at the largest learning rate, and 1 - b shrinks with the step. Where time is k η², the
    noise's scale and eps grow as 1/η.
    """

    learning_rates: tuple[float, ...] = ()
    """At least two, and three for an order; six from --learning-rate on downwards unless given."""

    time: float | None = None
    """Time after which expectations are compared, in the SDE's clock: ten steps of the largest
    learning rate unless given. An SDE that takes over from its optimizer (RMSprop, some of Adam's)
    does so at half of it."""

    levels: int = 4
    """Levels of the integrator's extrapolation, steps dt, dt/2, dt/4, ..."""

    width: float = 0.1
    """Width of the order's interval to aim at."""

    paths: int | None = None
    """Noise paths at a learning rate, at most; 65,536 unless given; needed on networks."""

    float64: bool = True
    """Compute in double precision, without which weak errors are refused."""


def weak_order(options: WeakOrder) -> None:
    """Runs, prints, draws and saves one study."""
    if options.variance_every is not None:
        raise _checks.InputError("weak errors are of SDEs whose variances are of every step")
    run = setup(options)._replace(variance_every=None)
    if run.on_network and options.paths is None:
        raise _checks.InputError(
            "weak errors take thousands of paths, which is long on a network: give --paths"
        )
    if run.family.clock == 2 and run.scale is None:
        raise _checks.InputError(
            f"{run.family.about}: noise grows as 1/η, which that of mini-batches cannot"
        )
    family, late = run.family, 2 if run.family.warm_up else 1
    largest = family.step(max(options.learning_rates, default=run.learning_rate))
    time = late * STEPS[0] * largest if options.time is None else options.time
    _checks.positive("time", time)
    first = max(round(time / late / largest), 1)
    counts = [round(first * k / STEPS[0]) for k in STEPS]
    rates = options.learning_rates or [(time / late / k) ** (1 / family.clock) for k in counts]

    def pair(eta: float) -> Paired:
        share = family.step(eta) / family.step(max(rates))
        values = {b: 1 - (1 - run.settings[b]) * share for b in AVERAGES if b in run.settings}
        grown = max(rates) / eta if family.clock == 2 else 1.0
        scale = None if run.scale is None else grown * run.scale
        if "eps" in run.settings:
            values["eps"] = grown * run.settings["eps"]
        return family.pair(run.oracle(scale), eta, 1, {**run.settings, **values})

    with progress_bar() as progress:
        study = weak_error(
            lambda eta: pair(eta).optimizer, lambda eta: pair(eta).sde.sde, run.x0,
            learning_rates=rates, time=time, key=run.key, levels=options.levels,
            warm_up=time / 2 if late == 2 else None, width=options.width,
            paths=2**16 if options.paths is None else run.paths, progress=progress,
        )  # fmt: skip
    about = f"{run._replace(learning_rate=max(rates)).about}, {len(rates)} learning rates"
    say(
        f"\n{about}, at t = {study.time:.4g}.",
        "E g of the optimizer less that of the SDE, in parentheses one standard error in units of "
        "the last digits. `integrator` is the solver's last correction, `gain` by how much the "
        "standard error is below that of independent runs of as many steps.",
        wrap=True,
    )
    for name in study.errors:
        if len(study.errors) > 1:
            say(f"\n{name}")
        table(study.table(name))
    say(study.verdict)
    stem = options.output / f"weak-order-{options.optimizer}-{run.problem}"
    plotting.save(plotting.weak_error(study, title=about), f"{stem}.png")
    with _files.atomic(f"{stem}.nc") as temporary:
        study.to_xarray().to_netcdf(temporary, engine="h5netcdf")
    print(f"figure: {stem}.png\nstudy: {stem}.nc (xarray.open_dataset reads it)")
