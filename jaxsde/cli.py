"""The command `jaxsde`; its one part so far is `jaxsde track`."""

import contextlib
import dataclasses
import io
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsde import _checks, engine, oracles, plotting, problems
from jaxsde.analysis import Comparison, compare, with_error
from jaxsde.analysis.compare import Estimates, doubt, estimates
from jaxsde.engine import Ensemble, Estimate
from jaxsde.families import Laws, Setting, family
from jaxsde.processes import Paired

ROWS = 9  # times in the printed table
NOISES = ("gaussian", "student-t")


@dataclasses.dataclass(frozen=True)
class Track:
    """Run an optimizer and its SDE on a problem, driven by one noise, and compare them.

    Prints expected losses with their Monte Carlo error beside the laws they should follow, and a
    verdict; writes a figure (PNG) and all statistics (NetCDF).
    """

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

    steps: int = 1000
    """Optimizer steps."""

    paths: int | None = None
    """Noise paths; enough for the problem unless given."""

    substeps: int = 4
    """Euler-Maruyama steps of the SDE for each optimizer step."""

    warm_up: int | None = None
    """Optimizer steps before the SDE takes over; the optimizer's own default unless given."""

    records: int = 100
    """Recorded times, spaced evenly in log time."""

    seed: int = 0
    """Seed of the noise."""

    float64: bool = False
    """Compute in double precision."""

    output: Path = Path("jaxsde-results")
    """Folder for the figure and the file."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; bad input ends with one line and exit code 2."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            track(_parse(arguments))
    except (_checks.InputError, ImportError) as error:
        print(f"jaxsde: error: {error}", file=sys.stderr)
        sys.exit(2)


def _warn(message: Warning | str, *_: Any) -> None:
    print(f"jaxsde: warning: {message}", file=sys.stderr)


def _parse(arguments: list[str] | None) -> Track:
    """The options; what the parser says of wrong ones becomes one line."""
    tyro = _checks.extra("tyro", "cli")
    _checks.extra("rich", "cli")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.extras.subcommand_cli_from_dict(
                {"track": Track},
                prog="jaxsde",
                description="Does this SDE describe this optimizer?",
                args=arguments,
                config=(tyro.conf.PositionalRequiredArgs,),
            )
    except SystemExit as end:
        if not end.code:
            raise
        words = re.sub(r"[─│╭╮╰╯]", " ", complaint.getvalue()).split()
        text = " ".join(words).removeprefix("Parsing error ").removeprefix("Value error ")
        raise _checks.InputError(text or "the options cannot be read; see --help") from None


def track(options: Track) -> None:
    """Runs, prints, draws and saves one comparison."""
    for module, extra in (("matplotlib", "plot"), ("xarray", "io"), ("h5netcdf", "io")):
        _checks.extra(module, extra)
    engine.use_all_cores()
    jax.config.update("jax_enable_x64", options.float64)
    chosen = family(options.optimizer)
    problem = _or(options.problem, chosen.problem)
    named = problems.named(problem)
    learning_rate = _or(options.learning_rate, chosen.learning_rate)
    _checks.positive("learning_rate", learning_rate)
    oracle = _oracle(options, named)
    substeps = _checks.at_least("substeps", options.substeps, 1)
    pair = chosen.pair(oracle, learning_rate, substeps, options.hyperparameters, options.warm_up)
    dtype = np.float64 if options.float64 else np.float32
    x0 = jax.tree.map(lambda leaf: leaf.astype(dtype), named.x0)
    if not 0 <= options.seed < 2**32:
        raise _checks.InputError(f"seed must lie in [0, 2³²), got {options.seed}")
    _writable(options.output)
    ensemble = _simulate(pair, x0, options, _or(options.paths, named.paths))

    comparison = compare(ensemble)
    rows = np.unique(np.linspace(0, len(ensemble.time) - 1, ROWS).astype(int))
    times = ensemble.time[rows]
    settings = chosen.settings(options.hyperparameters)
    dt = chosen.step(learning_rate) / substeps
    laws = chosen.laws(Setting(oracle, learning_rate, x0, dt, times, settings))
    about = f"{chosen.about} on {problem}: {named.about}\n"
    about += ", ".join(
        f"{name} = {value:g}" for name, value in {"η": learning_rate, **settings}.items() if value
    )
    about += f", {options.noise} noise of scale {_or(options.scale, named.scale):g}"
    _print(about, ensemble, comparison, laws, rows)

    figure = plotting.track(
        ensemble, comparison, laws, times, title=f"{about}, {ensemble.paths:,} paths"
    )
    stem = options.output / f"track-{options.optimizer}-{problem}"
    plotting.save(figure, f"{stem}.png")
    ensemble.save(f"{stem}.nc")
    print(f"figure: {stem}.png\nstatistics: {stem}.nc (jaxsde.load reads it)")


def _writable(folder: Path) -> None:
    """Refuses an output folder before a long run rather than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _checks.InputError(f"output {folder} is no folder to write to: {error}") from error


def _or(given: Any, default: Any) -> Any:
    return default if given is None else given


def _records(options: Track) -> np.ndarray:
    """The start and steps evenly spaced in log time, even ones where that is possible."""
    steps = _checks.at_least("steps", options.steps, 1)
    count = _checks.at_least("records", options.records, 1)
    stride = 2 if steps % 2 == 0 else 1
    spaced = np.geomspace(1, steps // stride, count) if count > 1 else np.array([steps // stride])
    return np.unique([0, *stride * np.rint(spaced).astype(int)])


def _oracle(options: Track, named: problems.Named) -> oracles.Oracle:
    scale = _or(options.scale, named.scale)
    _checks.positive("scale", scale)
    _checks.known("noise", options.noise, NOISES)
    if options.noise == "gaussian":
        return oracles.GaussianNoise(named.make(), scale)
    return oracles.StudentTNoise(named.make(), scale, options.degrees_of_freedom)


def _simulate(pair: Paired, x0: np.ndarray, options: Track, paths: int) -> Ensemble:
    import rich.progress

    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, transient=True) as bar:
        task = bar.add_task("compiling", total=None)

        def show(progress: engine.Progress) -> None:
            bar.update(
                task, description="simulating", total=progress.total, completed=progress.done
            )

        return engine.simulate(
            pair, x0, steps=options.steps, paths=paths, records=_records(options),
            key=jax.random.key(options.seed), progress=show,
            observables=pair.observables(),
        )  # fmt: skip


def _print(
    about: str, ensemble: Ensemble, comparison: Comparison, laws: Laws, rows: np.ndarray
) -> None:
    import rich.box
    import rich.console
    import rich.table

    console = rich.console.Console(highlight=False)
    found = estimates(ensemble, "loss")
    laws = laws if found.statistic == "mean" else _beside_medians(laws)
    console.print(f"\n{about}.\n{_heading(ensemble, found)}")
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    columns = _columns(ensemble, found, laws, rows)
    for header, _ in columns:
        table.add_column(header, justify="right", no_wrap=True)
    for cells in zip(*[cells for _, cells in columns], strict=True):
        table.add_row(*cells)
    wide = rich.console.Console(width=1000).measure(table).maximum
    rich.console.Console(width=max(console.width, wide)).print(table)
    for line in (*_law_lines(laws, ensemble, rows), comparison.verdict):
        console.print(line, soft_wrap=True)


def _heading(ensemble: Ensemble, found: Estimates) -> str:
    error = "in parentheses one standard\nerror in units of the last digits."
    if found.statistic == "mean":
        return f"Expected loss over {ensemble.paths:,} paths of each; {error}"
    size = ensemble.sample["difference.loss"].shape[-1]
    return f"Median loss over the first {size:,} paths of each; {error}\n{doubt(found.heaviest)}."


def _beside_medians(laws: Laws) -> Laws:
    """Without expected losses, which medians are not compared with."""
    if laws.optimizer is None and laws.solver is None and laws.sde is None:
        return laws
    return Laws(None, None, None, about="known of means only, so not shown beside medians")


def _columns(
    ensemble: Ensemble, found: Estimates, laws: Laws, rows: np.ndarray
) -> list[tuple[str, list[str]]]:
    """Headers and cells; a law known at all times stands to the right of the run it is about.

    Laws known at stationarity only make a last row.
    """
    diverged = ensemble.diverged("difference.loss")[rows]
    median = "\nmedian" if found.statistic == "median" else ""
    columns = [
        ("time", [f"{ensemble.time[t]:.4g}" for t in rows]),
        (f"optimizer{median}", _with_errors(found.first, rows)),
        ("its law", _curve(laws.optimizer)),
        (f"SDE{median}", _with_errors(found.second, rows)),
        ("law as\nsolved", _curve(laws.solver)),
        ("law", _curve(laws.sde)),
        ("optimizer\n- SDE", _with_errors(found.difference, rows)),
        ("diverged", [f"{count:,}" for count in diverged] if diverged.any() else []),
    ]
    columns = [(header, cells) for header, cells in columns if cells]
    if isinstance(laws.optimizer, float) and isinstance(laws.solver, float):
        gap = laws.optimizer - laws.solver
        last = ["∞, law", f"{laws.optimizer:.5g}", f"{laws.solver:.5g}", f"{gap:.1g}", ""]
        columns = [
            (header, [*cells, end]) for (header, cells), end in zip(columns, last, strict=False)
        ]
    return columns


def _curve(law: Any) -> list[str]:
    return [] if law is None or np.ndim(law) == 0 else [f"{value:.4g}" for value in law]


def _law_lines(laws: Laws, ensemble: Ensemble, rows: np.ndarray) -> list[str]:
    """How far the simulated means are from the laws that they should follow."""
    lines = [f"laws: {laws.about}."]
    if isinstance(laws.sde, float):
        return [*lines, f"      The SDE itself, in continuous time: {laws.sde:.5g}."]
    sides = (("optimizer", "optimizer", laws.optimizer), ("SDE as solved", "sde", laws.solver))
    for subject, side, curve in sides if laws.errors else ():
        if curve is None:
            continue
        mean = ensemble.mean(f"{side}.loss")[rows]
        error = ensemble.standard_error(f"{side}.loss")[rows]
        z = (np.abs(mean - curve) / np.where(error > 0, error, np.nan))[error > 0]
        if z.size:
            lines.append(
                f"      The {subject} is at most {z.max():.1f} standard errors off its own law, "
                f"over {z.size} times."
            )
    if laws.sde is not None:
        solved = ensemble.mean("sde.loss")[rows] if laws.solver is None else np.ravel(laws.solver)
        lines.append(_integrator_line(solved, laws.sde, ensemble.time[rows]))
    return lines


def _integrator_line(solved: np.ndarray, law: Any, time: np.ndarray) -> str:
    """The integrator's own error where it is largest, relative to the SDE's law."""
    with np.errstate(invalid="ignore"):
        off = np.where(np.isfinite(solved) & (law > 0), solved - law, 0) / np.where(law > 0, law, 1)
    at = int(np.argmax(np.abs(off)))
    return (
        f"      The integrator moves the SDE by at most {off[at]:+.2%} of its law, "
        f"at t = {time[at]:.4g}."
    )


def _with_errors(estimate: Estimate, rows: np.ndarray) -> list[str]:
    pairs = zip(estimate.value[rows], estimate.standard_error[rows], strict=True)
    return [with_error(*pair) for pair in pairs]
