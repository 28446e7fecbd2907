"""`jaxsde stationary`: has a run from several starts reached its stationary law?"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxsde import _checks, plotting
from jaxsde.analysis import Stationary as Result
from jaxsde.analysis import Tail, with_error
from jaxsde.analysis import stationary as run_from_starts
from jaxsde.cli._console import progress_bar, say, table
from jaxsde.cli._options import Options, Setup, either, setup
from jaxsde.engine import Draw, Estimate, Normal, RandomStart
from jaxsde.engine.observables import SMALL
from jaxsde.families import Laws

SIDES = ("optimizer", "sde")
FEWEST = 100  # paths that are judged


@dataclasses.dataclass(frozen=True)
class Stationary(Options):
    """Run an optimizer, or its SDE, from dispersed starts: is its law stationary, and which is it?

    Starts from the problem's x0, from its mirror image about the minimiser (about 0 where that is
    not known), and at random around that. Prints the evidence with its errors, the law, and a
    verdict; writes a figure (PNG) and the statistics from each start (NetCDF).
    """

    side: str = "optimizer"
    """Which of the two to run: optimizer, sde."""

    steps: int | None = None
    """Optimizer steps; 2000 unless given, on networks fewer."""

    substeps: int | None = None
    """Euler-Maruyama steps of the SDE for each optimizer step; 4 unless given, on networks 2."""

    records: int = 100
    """Recorded times besides the start, spaced evenly."""

    burn_in: float = 0.5
    """Share of the run left out before its window is looked at."""

    spread: float | None = None
    """Standard deviation of the random start, in every coordinate; the root mean square distance of
    x0 from the middle unless given."""


def stationary(options: Stationary) -> None:
    """Runs, prints, draws and saves one look at stationarity."""
    run = setup(options)
    if options.paths is None:
        run = run._replace(paths=max(run.paths, FEWEST))
    _checks.known("side", options.side, SIDES)
    substeps = _checks.at_least("substeps", either(options.substeps, run.named.substeps), 1)
    steps = _checks.at_least("steps", either(options.steps, 2 * run.named.steps), 1)
    if options.side == "optimizer":
        process = run.family.process(run.oracle(), run.learning_rate, options.hyperparameters)
    else:
        pair = run.family.pair(
            run.oracle(), run.learning_rate, substeps, options.hyperparameters,
            variance_every=run.variance_every,
        )  # fmt: skip
        process, steps = pair.sde, steps * substeps
    with progress_bar() as progress:
        result = run_from_starts(
            process, _starts(run, options.spread), key=run.key, steps=steps, paths=run.paths,
            records=options.records, observables=_observables(process, run.x0),
            burn_in=options.burn_in, progress=progress,
        )  # fmt: skip
    end = result.time[-1:]
    dt = run.family.step(run.learning_rate) / substeps
    laws = run.laws(dt, end)
    about = f"{run.about}; the {_subject(options, substeps)} alone"
    _print(about, result, _law_line(laws, options, result))

    figure = plotting.stationary(result, title=f"{about}, {run.paths:,} paths from each start")
    stem = options.output / f"stationary-{options.side}-{options.optimizer}-{run.problem}"
    plotting.save(figure, f"{stem}.png")
    print(f"figure: {stem}.png")
    for name, ensemble in result.runs.items():
        ensemble.save(f"{stem}-{name}.nc")
        print(f"statistics from {name}: {stem}-{name}.nc (jaxsde.load reads it)")


class _Around(eqx.Module):
    """middle + spread · ξ."""

    middle: PyTree[Array]
    spread: Array

    def __call__(self, xi: PyTree[Array]) -> PyTree[Array]:
        return jax.tree.map(lambda m, z: m + self.spread * z, self.middle, xi)


def _starts(run: Setup, spread: float | None) -> dict[str, Any]:
    if spread is not None:
        _checks.positive_number("spread", spread)
    middle = _middle(run)
    mirror = jax.tree.map(lambda m, x: np.asarray(2 * m - x), middle, run.x0)
    distance = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.subtract, run.x0, middle))[0]
    width = either(spread, jnp.sqrt(jnp.mean(distance**2)))
    draws = jax.tree.map(lambda leaf: Draw(leaf.shape, Normal()), run.x0)
    return {
        "x0": run.x0,
        "mirror": mirror,
        "random": RandomStart(draws, _Around(middle, jnp.asarray(width, float))),
    }


def _middle(run: Setup) -> PyTree[Array]:
    """The minimiser where the problem knows it, else 0."""
    known = getattr(run.objective, "minimizer", 0.0)
    minimizer = known() if callable(known) else known

    def filled(leaf: np.ndarray) -> Array:
        return jnp.broadcast_to(jnp.asarray(minimizer, leaf.dtype), leaf.shape)

    return jax.tree.map(filled, run.x0)


def _observables(process: Any, x0: PyTree) -> dict[str, Any]:
    """What the process offers and a small position, of games too."""
    watched = dict(process.observables())
    if sum(leaf.size for leaf in jax.tree.leaves(x0)) <= SMALL:
        watched["position"] = lambda x: jax.flatten_util.ravel_pytree(x)[0]
    return watched


def _subject(options: Stationary, substeps: int) -> str:
    if options.side == "optimizer":
        return "optimizer"
    return f"SDE in {substeps} Euler-Maruyama steps per optimizer step"


def _print(about: str, result: Result, law: str) -> None:
    say(
        f"\n{about}.\nAverages over the window t = {result.time[result.window][0]:.4g} to "
        f"{result.time[-1]:.4g}, in parentheses one standard error in units of the last digits. "
        f"A difference counts as shown from {result.critical:.1f} standard errors on, or p below "
        f"{result.significance:.1g}.",
        wrap=True,
    )
    table(_evidence(result))
    if any(result.differ(name) for name in result.evidence):
        say("The starts differ, so there is no one law to describe.")
    else:
        say("The law, from all starts together:")
        table(_law(result))
    say(*[line for line in (law, result.verdict) if line])


def _rows(result: Result) -> list[tuple[str, int, tuple[int, ...]]]:
    return [
        (name, i, index)
        for name, e in result.evidence.items()
        for i, index in enumerate(np.ndindex(e.shape))
    ]


def _evidence(result: Result) -> list[tuple[str, list[str]]]:
    """Levels by start; the clearest difference and drift, the slowest memory, the tail."""
    columns: dict[str, list[str]] = {}

    def add(header: str, cell: str) -> None:
        columns.setdefault(header, []).append(cell)

    for name, i, index in _rows(result):
        e = result.evidence[name]
        add("", f"{e.statistic} {name}{list(index) if index else ''}")
        for s, start in enumerate(result.starts):
            add(f"from\n{start}", with_error(*(part[s, i] for part in e.level)))
        add("difference\n/ s.e.", _largest(e.difference, i))
        add("laws\np", f"{np.min(e.law_difference.p[:, i]):.1g}")
        add("drift\n/ s.e.", _largest(e.drift, i))
        add("law's\ndrift, p", f"{np.min(e.law_drift.p[:, i]):.1g}")
        add("memory", f"{np.max(np.abs(e.memory.value[:, i])):.2f}")
        add("tail index", _tail(e.tails[i]))
    return list(columns.items())


def _largest(test: Any, i: int) -> str:
    value, error = test.value[:, i], test.standard_error[:, i]
    known = error > 0
    return f"{np.max(np.abs(value[known]) / error[known]):.1f}" if known.any() else ""


def _tail(tail: Tail) -> str:
    value, low, high = tail.alpha
    if low == np.inf:
        return "light"
    if high == np.inf:
        return f"> {low:.1f}"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _law(result: Result) -> list[tuple[str, list[str]]]:
    columns: dict[str, list[str]] = {"": [], "mean": [], "variance": [], "median": []}
    for name, _, index in _rows(result):
        columns[""].append(f"{name}{list(index) if index else ''}")
        for header, estimate in result.moments(name)._asdict().items():
            columns[header].append(_moment(Estimate(*(part[index] for part in estimate))))
        for q in (0.05, 0.95):
            value, low, high = (float(end[index]) for end in result.quantile(name, q))
            columns.setdefault(f"{q:.0%} quantile", []).append(
                f"{value:.3g} [{low:.3g}, {high:.3g}]"
            )
    return list(columns.items())


def _moment(estimate: Estimate) -> str:
    if np.isnan(estimate.value):
        return "none shown"
    return "no error" if np.isnan(estimate.standard_error) else with_error(*estimate)


def _law_line(laws: Laws, options: Stationary, result: Result) -> str:
    """How far the mean loss over the window is from what theory says of it at the end."""
    known = laws.optimizer if options.side == "optimizer" else either(laws.solver, laws.sde)
    if known is None:
        return f"theory: {laws.about}."
    level = float(np.ravel(known)[-1])
    text = f"theory: mean loss {level:.5g} at the end of the run from x0; {laws.about}."
    e = result.evidence["loss"]
    error = e.level.standard_error[0, 0]
    if e.statistic != "mean" or not laws.errors or result.drifts("loss") or not error > 0:
        return text
    z = (e.level.value[0, 0] - level) / error
    return f"{text}\n        The window's mean from x0 is {z:+.1f} standard errors off."
