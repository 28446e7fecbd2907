"""Has a chain reached its stationary law, and what is that law?"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, PRNGKeyArray, PyTree

from jaxsde import _checks
from jaxsde.analysis.stationarity import _densities as densities
from jaxsde.analysis.stationarity import _verdict
from jaxsde.analysis.stationarity._densities import Density, Histogram
from jaxsde.analysis.stationarity._distances import Distances, distances
from jaxsde.analysis.stationarity._evidence import Evidence, evidence, series
from jaxsde.engine import Ensemble, Estimate, Process, Progress, Quantile, RandomStart, simulate

LEAST_PATHS = 100
LEAST_RECORDS = 4  # in the window


class LawMoments(NamedTuple):
    """Of one observable, each in its shape; undefined (nan) where the tail index shows none.

    The mean's error needs a variance, the variance's error a fourth moment; the median has both.
    """

    mean: Estimate
    variance: Estimate
    median: Estimate


@dataclasses.dataclass(frozen=True)
class Stationary:
    """What runs from several starts say about the stationary law.

    All tests of all observables together find something in what is stationary with a probability
    of at most 1 - confidence, by the union bound: half of it for the differences between starts
    at all recorded times, half for the tests in `Evidence`.

    Fields:
        runs: the ensembles by start.
        evidence: by observable.
        window: the recorded times after the burn-in.
        confidence: of all tests together.
    """

    runs: dict[str, Ensemble]
    evidence: dict[str, Evidence]
    window: slice
    confidence: float

    @property
    def starts(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.runs)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The P pairs of starts, in the order of `Evidence`."""
        return tuple(itertools.combinations(self.starts, 2))

    @property
    def time(self) -> Float[np.ndarray, " T"]:
        """Recorded."""
        return next(iter(self.runs.values())).time

    @property
    def significance(self) -> float:
        """The p-value below which a test of `Evidence` finds something."""
        tests = sum(test.p.size for e in self.evidence.values() for test in e.tests.values())
        return (1 - self.confidence) / 2 / tests

    @property
    def critical(self) -> float:
        """Half the width of a test's band in standard errors."""
        return float(scipy.stats.t.isf(self.significance / 2, self._sampled - 1))

    @property
    def curve_critical(self) -> float:
        """Half the width, in standard errors, of the band around the starts' differences."""
        size = sum(e.curve.value.size for e in self.evidence.values())
        level = (1 - self.confidence) / 2 / max(size, 1)
        return float(scipy.stats.t.isf(level / 2, self._sampled - 1))

    def found(self, name: str, test: str) -> Bool[np.ndarray, "n c"]:
        """Whether a test of `Evidence` finds something, for each start or pair and component."""
        return self._of(name).tests[test].p < self.significance

    def agreed(self, name: str) -> float:
        """The recorded time from which on no difference between starts is shown, inf if none is."""
        value, error = self._of(name).curve
        differ = np.any(np.abs(value) > self.curve_critical * error, axis=(1, 2))
        after = np.flatnonzero(differ)[-1] + 1 if differ.any() else 0
        return float(self.time[after]) if after < len(self.time) else np.inf

    def differ(self, name: str) -> bool:
        """Whether starts are shown to differ in the window: in a level, in a law, at a time."""
        shown = self.found(name, "difference").any() or self.found(name, "law_difference").any()
        return bool(shown or self.agreed(name) > self.time[self.window][0])

    def drifts(self, name: str) -> bool:
        """Whether a level or a law is shown to change in the window, from some start."""
        return bool(self.found(name, "drift").any() or self.found(name, "law_drift").any())

    def remembers(self, name: str) -> bool:
        """Whether paths end, in the window, near where they began: it is too short."""
        return bool(self.found(name, "memory").any())

    @property
    def dispersed(self) -> bool:
        """Whether anything observed tells two starts apart at the start."""
        return any(bool(np.any(e.apart.p < self.significance)) for e in self.evidence.values())

    @property
    def conclusion(self) -> str:
        """The verdict in a few words, the first of these that is shown.

        "not stationary: the starts differ", "not stationary: still drifting", "not shown to be
        stationary: the paths remember where they were"; else, of two starts or more, "stationary"
        or "settled from starts that nothing observed tells apart", and of one "settled from this
        start". ", given survival" is added where paths diverged; "no path is left" says all did.
        """
        return _verdict.conclusion(self)

    @property
    def verdict(self) -> str:
        """What was and what was not shown, and for each observable by what."""
        return _verdict.verdict(self)

    def curve(self, name: str, start: str) -> Estimate:
        """The evidence's statistic over time from one start, `(T, ...)`.

        Raises:
            InputError: no such observable or start.
        """
        e = self._of(name)
        _checks.known("start", start, self.starts)
        found = series(self.runs[start], name, e.statistic)
        shape = (len(self.time), *e.shape)
        return Estimate(found.value.reshape(shape), found.standard_error.reshape(shape))

    def sample(self, name: str, start: str | None = None) -> Float[np.ndarray, "n ..."]:
        """The last values of the sampled paths that are finite, from one start or from all.

        Raises:
            InputError: no start is given and the starts differ, so that there is no one law.
        """
        self._of(name)
        last = [self.runs[s].sample[name][-1] for s in self._chosen(start)]
        values = np.moveaxis(np.concatenate(last, axis=-1), -1, 0)
        return values[np.all(np.isfinite(values.reshape(len(values), -1)), axis=1)]

    def moments(self, name: str, start: str | None = None) -> LawMoments:
        """The window's time averages with their exact Monte Carlo errors.

        Each is an average over times and starts of what `Ensemble` has at one; the variance's
        scores are (v - mean)², whose spread at one time is √((m₄ - m₂²)/n).

        Raises:
            InputError: as `sample`.
        """
        e, chosen = self._of(name), self._chosen(start)
        weights = np.zeros(len(self.time))
        weights[self.window] = 1 / len(weights[self.window])
        found = {}
        for order, statistic in ((1, "mean"), (2, "variance"), (0, "median")):
            parts = [series(self.runs[s], name, statistic).combined(weights) for s in chosen]
            value = np.mean([part.value for part in parts], axis=0)
            squares = np.sum([part.standard_error**2 for part in parts], axis=0)
            error = np.sqrt(squares) / len(parts)
            exists, known = (
                np.array([tail.shows(p) for tail in e.tails]) for p in (order, 2 * order)
            )
            found[statistic] = Estimate(
                np.where(exists, value, np.nan).reshape(e.shape),
                np.where(known, error, np.nan).reshape(e.shape),
            )
        return LawMoments(**found)

    def quantile(
        self, name: str, q: float, start: str | None = None, confidence: float = 0.95
    ) -> Quantile:
        """The q-quantile of `sample` with its order-statistic interval (`scipy.stats`).

        Raises:
            InputError: q or confidence outside (0, 1), or as `sample`.
        """
        for label, number in (("q", q), ("confidence", confidence)):
            if not 0 < number < 1:
                raise _checks.InputError(f"{label} must lie between 0 and 1, got {number!r}")
        values = self.sample(name, start)
        rows = values.reshape(len(values), -1).T
        ends = [
            (
                np.quantile(row, q),
                *scipy.stats.quantile_test(row, p=q).confidence_interval(confidence),
            )
            for row in rows
        ]
        return Quantile(
            *(np.array(end).reshape(values.shape[1:]) for end in zip(*ends, strict=True))
        )

    def histogram(
        self, name: str, bins: Any = "auto", component: Any = (), start: str | None = None
    ) -> Histogram:
        """Of `sample` in one component; see `analysis.histogram`.

        Raises:
            InputError: as `sample`, or a component that the observable does not have.
        """
        return densities.histogram(self.values(name, component, start), bins)

    def density(
        self, name: str, points: Any = None, component: Any = (), start: str | None = None
    ) -> Density:
        """Of `sample` in one component, smoothed; see `analysis.density`.

        Raises:
            InputError: as `histogram`, or values without spread.
        """
        return densities.density(self.values(name, component, start), points)

    def distances(
        self, name: str, law: Any, component: Any = (), start: str | None = None
    ) -> Distances:
        """Of `sample` in one component from a law; see `analysis.distances`.

        Raises:
            InputError: as `histogram`, or what is no law.
        """
        return distances(self.values(name, component, start), law, confidence=self.confidence)

    def values(
        self, name: str, component: Any = (), start: str | None = None
    ) -> Float[np.ndarray, " n"]:
        """`sample` in one component, a number or a tuple of them.

        Raises:
            InputError: as `sample`, or a component that the observable does not have.
        """
        sample, index = self.sample(name, start), np.atleast_1d(component).astype(int)
        shape = sample.shape[1:]
        if len(index) != len(shape) or any(
            not -n <= i < n for i, n in zip(index, shape, strict=True)
        ):
            raise _checks.InputError(
                f"component of {name!r} must be one index into shape {shape}, got {component!r}"
            )
        if len(sample) < 10:
            raise _checks.InputError(f"{len(sample)} values of {name!r} are left: too few")
        return sample[(slice(None), *index)].astype(float)

    @property
    def _sampled(self) -> int:
        return min(run.sample[name].shape[-1] for run in self.runs.values() for name in run.names)

    def _of(self, name: str) -> Evidence:
        _checks.known("observable", name, self.evidence)
        return self.evidence[name]

    def _chosen(self, start: str | None) -> tuple[str, ...]:
        if start is not None:
            _checks.known("start", start, self.starts)
            return (start,)
        if any(self.differ(name) for name in self.evidence):
            raise _checks.InputError(
                f"the starts differ, so there is no one law: give start, one of "
                f"{', '.join(self.starts)}"
            )
        return self.starts


def stationary(
    process: Process,
    starts: Sequence[PyTree | RandomStart] | Mapping[str, PyTree | RandomStart],
    *,
    key: PRNGKeyArray,
    steps: int,
    paths: int,
    records: int | Sequence[int] = 100,
    observables: Mapping[str, Callable] | None = None,
    burn_in: float = 0.5,
    confidence: float = 0.95,
    progress: Callable[[Progress], None] | None = None,
) -> Stationary:
    """Runs a process from dispersed starts and says whether, and where, its law has settled.

    Runs from one start settle in a well long before they visit the others, and no look at them can
    tell. So there should be at least two, as far apart as the question asks. What is stationary
    has the same law from all of them and does not drift: levels and laws are compared between the
    starts at equal time, and within a start between times, with errors from independent paths.

    Args:
        process: as `simulate` takes it.
        starts: two points or more, or `RandomStart`s, in a list or by name.
        key: `jax.random.key(seed)`; the starts' own keys are folded from it.
        steps: of each run.
        paths: of each run; the first 4,096 give the laws.
        records: as in `simulate`; time averages are over the recorded times.
        observables: as in `simulate`; only in these is anything shown.
        burn_in: the share of the run that is left out before the window.
        confidence: of all tests together.
        progress: called as by `simulate`, of all runs together.

    Raises:
        InputError: no start, starts of other shapes, fewer than 100 paths, fewer than 4 records
            after the burn-in, burn_in or confidence out of range; or what `simulate` refuses.
    """
    named = _named(starts)
    _checks.at_least("paths", paths, LEAST_PATHS)
    _check_shares(burn_in, confidence)
    began = time.monotonic()

    def run(i: int, start: PyTree | RandomStart) -> Ensemble:
        def report(part: Progress) -> None:
            done, total = i * part.total + part.done, len(named) * part.total
            if progress is not None:
                progress(Progress(done, total, time.monotonic() - began))

        return simulate(
            process, start, steps=steps, paths=paths, key=jax.random.fold_in(key, i),
            records=records, observables=observables, progress=report,
        )  # fmt: skip

    runs = {name: run(i, start) for i, (name, start) in enumerate(named.items())}
    return stationarity(runs, burn_in=burn_in, confidence=confidence)


def stationarity(
    runs: Mapping[str, Ensemble], *, burn_in: float = 0.5, confidence: float = 0.95
) -> Stationary:
    """As `stationary`, of ensembles that have run: one from each start, by name.

    Args:
        runs: of one process, each with a key of its own, recorded at the same times.
        burn_in: as in `stationary`.
        confidence: as in `stationary`.

    Raises:
        InputError: as `stationary`; ensembles that share a key, or have other times.
    """
    _check_shares(burn_in, confidence)
    ensembles = list(runs.values())
    if not ensembles:
        raise _checks.InputError("starts must name at least one start, better two")
    first = ensembles[0]
    keys = {tuple(run.settings["key"]) for run in ensembles}
    if len(keys) < len(ensembles):
        raise _checks.InputError("two runs have the same key, so their errors are correlated")
    for run in ensembles:
        _checks.at_least("paths", run.paths, LEAST_PATHS)
        if run.time.shape != first.time.shape or not np.allclose(run.time, first.time):
            raise _checks.InputError("the runs are recorded at different times")
        shapes = [{n: e.sample[n].shape[1:-1] for n in e.names} for e in (run, first)]
        if shapes[0] != shapes[1]:
            raise _checks.InputError(f"the starts differ in shape: {shapes[0]} and {shapes[1]}")
    t = first.time
    begin = int(np.searchsorted(t, t[0] + burn_in * (t[-1] - t[0])))
    if len(t) - begin < LEAST_RECORDS:
        raise _checks.InputError(
            f"records must leave at least {LEAST_RECORDS} after the burn-in, got {len(t) - begin}"
        )
    window = slice(begin, len(t))
    found = {name: evidence(ensembles, name, window) for name in first.names}
    return Stationary(dict(runs), found, window, confidence)


def _named(starts: Any) -> dict[str, Any]:
    if isinstance(starts, Mapping):
        return {str(name): start for name, start in starts.items()}
    if isinstance(starts, list | tuple) and not hasattr(starts, "_fields"):
        return {f"start {i + 1}": start for i, start in enumerate(starts)}
    raise _checks.InputError(
        "starts must be a list of points or RandomStarts, or a mapping from names to them; "
        f"got {type(starts).__name__}"
    )


def _check_shares(burn_in: float, confidence: float) -> None:
    for name, share in (("burn_in", burn_in), ("confidence", confidence)):
        if not 0 < share < 1:
            raise _checks.InputError(f"{name} must lie between 0 and 1, got {share!r}")
