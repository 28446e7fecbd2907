"""`jaxsde track`: an optimizer and its SDE over time."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxsde import _checks, engine, plotting
from jaxsde.analysis import compare
from jaxsde.cli._console import progress_bar
from jaxsde.cli._options import Options, Setup, either, setup
from jaxsde.cli._track_tables import print_beside_laws, print_training, rows_of
from jaxsde.families import Family, family
from jaxsde.plotting import Tracked


@dataclasses.dataclass(frozen=True)
class Track(Options):
    """Run an optimizer and its SDE on a problem, driven by one noise, and compare them.

    Prints expected losses with their Monte Carlo error beside the laws they should follow, and a
    verdict; writes a figure (PNG) and all statistics (NetCDF). On networks, under mini-batch noise
    and with an older SDE it shows, instead of laws, what else is watched: the gradient's norm, the
    accuracy and tr Σ.
    """

    steps: int | None = None
    """Optimizer steps; 1000 unless given, on networks fewer."""

    substeps: int | None = None
    """Euler-Maruyama steps of the SDE for each optimizer step; 4 unless given, on networks 2."""

    warm_up: int | None = None
    """Optimizer steps before the SDE takes over; the optimizer's own default unless given."""

    records: int | None = None
    """Recorded times, spaced evenly in log time, or in time where no laws are shown; 100 unless
    given, on networks fewer."""

    older: bool | None = None
    """Also run the SDE that was published before this one for the same optimizer, a baseline, where
    there is one: the batch-equivalent SDE of RMSprop and of Adam. On networks it is run unless this
    is False, elsewhere if it is True."""

    checkpoint: Path | None = None
    """File that keeps how far the run is; the same command goes on from there after a stop. The
    older SDE's is beside it, with -older in its name."""


def track(options: Track) -> None:
    """Runs, prints, draws and saves one comparison."""
    run = setup(options)
    older = _older(options, run)
    training = run.on_network or run.batch_size is not None or older is not None
    tracked = _tracked(options, run, run.family, training)
    stem = options.output / f"track-{options.optimizer}-{run.problem}"
    title = f"{run.about}, {run.paths:,} paths"
    if training:
        baseline = None if older is None else _tracked(options, run, older, training, "-older")
        print_training(run, tracked, baseline)
        figure = plotting.training(tracked, baseline, title=title)
        if baseline is not None:
            baseline.ensemble.save(f"{stem}-older.nc")
    else:
        times = tracked.ensemble.time[rows_of(tracked.ensemble)]
        laws = run.laws(run.family.step(run.learning_rate) / _substeps(options, run), times)
        print_beside_laws(run.about, tracked, laws)
        figure = plotting.track(tracked.ensemble, tracked.comparison, laws, times, title=title)
    plotting.save(figure, f"{stem}.png")
    tracked.ensemble.save(f"{stem}.nc")
    print(f"figure: {stem}.png\nstatistics: {stem}.nc (jaxsde.load reads it)")


def _tracked(
    options: Track, run: Setup, chosen: Family, training: bool, suffix: str = ""
) -> Tracked:
    """A family's run at the settings that are its own too; the suffix is of its checkpoint."""
    settings = {name: run.settings[name] for name in chosen.hyperparameters}
    pair = chosen.pair(
        run.oracle(), run.learning_rate, _substeps(options, run), settings, options.warm_up,
        run.variance_every,
    )  # fmt: skip
    observables = pair.observables()
    if run.batch_size is not None:
        observables |= {"noise_trace": run.oracle().trace}
    file = options.checkpoint
    if file is not None:
        file = file.with_name(f"{file.stem}{suffix}{file.suffix}")
    with progress_bar(suffix.removeprefix("-")) as progress:
        ensemble = engine.simulate(
            pair, run.x0, steps=_steps(options, run), paths=run.paths, key=run.key,
            records=_records(options, run, training), observables=observables, progress=progress,
            checkpoint=file,
        )  # fmt: skip
    return Tracked(ensemble, compare(ensemble), chosen.about)


def _older(options: Track, run: Setup) -> Family | None:
    """The family of the baseline; none where it is not wanted, or does not exist.

    Raises:
        InputError: it was asked for and does not exist.
    """
    if not either(options.older, run.on_network):
        return None
    name = run.family.older
    lacks = []
    if name is not None:
        own = family(name).hyperparameters
        lacks = [label for label, value in run.settings.items() if value and label not in own]
    if name is not None and not lacks:
        return family(name)
    if options.older:
        why = f"{name} has no {' and no '.join(lacks)}" if lacks else "none was published"
        raise _checks.InputError(f"no older SDE beside {options.optimizer}: {why}")
    return None


def _steps(options: Track, run: Setup) -> int:
    return _checks.at_least("steps", either(options.steps, run.named.steps), 1)


def _substeps(options: Track, run: Setup) -> int:
    return _checks.at_least("substeps", either(options.substeps, run.named.substeps), 1)


def _records(options: Track, run: Setup, training: bool) -> np.ndarray:
    """The start and steps evenly spaced, in log time without training; even ones if possible."""
    steps = _steps(options, run)
    count = _checks.at_least("records", either(options.records, run.named.records), 1)
    stride = 2 if steps % 2 == 0 else 1
    last = steps // stride
    spaced = np.geomspace(1, last, count) if count > 1 else np.array([last])
    if training:
        spaced = np.linspace(0, last, count + 1)
    return np.unique([0, *stride * np.rint(spaced).astype(int)])
