"""What ensembles from several starts say about stationarity, one observable at a time."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from jaxsde.analysis.stationarity._tails import Tail, tail_index
from jaxsde.engine import Ensemble, Estimate

REMEMBERED = 0.1  # the rank correlation from which a run is too short to have lost its start
MEDIAN_CONFIDENCE = 0.99  # of the interval whose length gives a median's error


class Tested(NamedTuple):
    """An estimate, its standard error and the p-value of its test, all of one shape."""

    value: np.ndarray
    standard_error: np.ndarray
    p: np.ndarray


class Series(NamedTuple):
    """A statistic of c components at T times that is linear in independent paths.

    Fields:
        value: `(T, c)`.
        standard_error: `(T, c)`.
        scores: of which `value` is the mean over paths but for a constant, `(T, c, s)`.
        paths: that `value` is made of, `(T,)`.
        rounding: the relative error of `value`.
    """

    value: Float[np.ndarray, "T c"]
    standard_error: Float[np.ndarray, "T c"]
    scores: Float[np.ndarray, "T c s"]
    paths: np.ndarray
    rounding: float

    @np.errstate(over="ignore", invalid="ignore")
    def combined(self, weights: Float[np.ndarray, " T"]) -> Estimate:
        """Σ w(t) value(t); its error is the spread of Σ w(t) score(t) over the sampled paths.

        The paths are independent, so this is exact whatever the correlation between times.
        """
        at = np.flatnonzero(weights)
        value = weights[at] @ self.value[at]
        psi = np.tensordot(weights[at], self.scores[at], 1)
        n = np.sum(np.isfinite(psi), axis=-1, keepdims=True)
        known = np.where(np.isfinite(psi), psi, 0)
        mean = np.sum(known, axis=-1, keepdims=True) / np.maximum(n, 1)
        square = np.sum(np.where(np.isfinite(psi), known - mean, 0) ** 2, axis=-1, keepdims=True)
        variance = np.where(n > 1, square / np.maximum(n - 1, 1), np.nan)[..., 0]
        error = np.sqrt(variance / max(self.paths[at].min(), 1))
        floor = self.rounding * (np.abs(weights[at]) @ np.abs(self.value[at]))
        return Estimate(value, np.hypot(error, floor))


@np.errstate(over="ignore", invalid="ignore")
def series(run: Ensemble, name: str, statistic: str) -> Series:
    """The "mean", "variance" or "median" of an observable over time.

    The scores of the variance are (v - mean)². Those of the median are e √s sign(v - median) with
    the median's standard error e (Bahadur 1966), which is the length of its order-statistic
    interval over that of a normal one (McKean and Schrader 1984).
    """
    v = run.sample[name].reshape(len(run.time), -1, run.sample[name].shape[-1]).astype(float)
    v = np.where(np.isfinite(v), v, np.nan)
    shape, used = v.shape[:2], run.used(name)
    rounding = 4 * float(np.finfo(run.settings["dtype"]).eps)
    if statistic == "median":
        middle = run.quantile(name, 0.5, MEDIAN_CONFIDENCE)
        median, low, high = (end.reshape(shape) for end in middle)
        z = 2 * scipy.stats.norm.isf((1 - MEDIAN_CONFIDENCE) / 2)
        error = (high - low) / z
        count = np.sum(np.isfinite(v), axis=-1)
        scores = (error * np.sqrt(count))[..., None] * np.sign(v - median[..., None])
        return Series(median, error, scores, count.min(axis=1), rounding)
    mean, variance = (of(name).reshape(shape) for of in (run.mean, run.variance))
    if statistic == "mean":
        return Series(mean, run.standard_error(name).reshape(shape), v, used, rounding)
    scores = (v - mean[..., None]) ** 2
    return Series(variance, np.full(shape, np.nan), scores, used, rounding)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is known of one observable from S starts, P pairs of them; c components in C order.

    Averages are over the recorded times of the window, and differences are tested at equal time.

    Fields:
        statistic: "mean", or "median" where a variance is not shown to exist in all components.
        tails: of the values of all starts at the last time, for each component.
        level: the statistic's average by start, `(S, c)`.
        curve: its difference between the starts of a pair at each time, `(T, P, c)`.
        difference: of its averages between the starts of a pair, `(P, c)`.
        law_difference: Kolmogorov and Smirnov's distance of a pair's laws at the end, `(P, c)`.
        drift: the average over the window's second half less that over its first, `(S, c)`.
        law_drift: their distance of the laws at the window's begin and end, `(S, c)`, each of
            another half of the paths, so that the two samples are independent.
        memory: the rank correlation of a path's values at the window's begin and end, `(S, c)`,
            tested for more than `REMEMBERED`.
        relaxation: the time after which it falls below 1/e, `(S, c)`; inf if it does not.
        apart: their distance of a pair's laws at the start, `(P, c)`.
        spread: the interquartile range at the end, `(c,)`.
        survivors: the smallest share of paths used at any time, by start `(S,)`.
        shape: of the components.
    """

    statistic: str
    tails: tuple[Tail, ...]
    level: Estimate
    curve: Estimate
    difference: Tested
    law_difference: Tested
    drift: Tested
    law_drift: Tested
    memory: Tested
    relaxation: Float[np.ndarray, "S c"]
    apart: Tested
    spread: Float[np.ndarray, " c"]
    survivors: Float[np.ndarray, " S"]
    shape: tuple[int, ...]

    @property
    def tests(self) -> dict[str, Tested]:
        """What the verdict rests on besides the curve."""
        names = ("difference", "law_difference", "drift", "law_drift", "memory")
        return {name: getattr(self, name) for name in names}


@np.errstate(over="ignore", invalid="ignore")
def evidence(runs: Sequence[Ensemble], name: str, window: slice) -> Evidence:
    """What the ensembles say about one observable.

    Args:
        runs: of the same paths, observables and times, from one start each, all independent.
        name: of the observable.
        window: the recorded times that are held to be after the transient.
    """
    values = [_components(run, name) for run in runs]
    c, T = values[0].shape[1], len(runs[0].time)
    last = [v[-1] for v in values]
    pooled = np.concatenate(last, axis=-1)
    tails = tuple(tail_index(row) for row in pooled)
    statistic = "mean" if all(tail.shows(2) for tail in tails) else "median"
    found = [series(run, name, statistic) for run in runs]
    pairs = list(itertools.combinations(range(len(runs)), 2))
    dof = min(v.shape[-1] for v in values) - 1

    inside = np.arange(T)[window]
    early, late = np.array_split(inside, 2)
    average = np.bincount(inside, minlength=T) / len(inside)
    first, second = (np.bincount(half, minlength=T) / len(half) for half in (early, late))
    level = _stack([one.combined(average) for one in found], c)
    drift = _stack([one.combined(second - first) for one in found], c)
    memories = [_rank_correlation(v[window]) for v in values]
    lag = runs[0].time[window] - runs[0].time[window][0]
    return Evidence(
        statistic,
        tails,
        Estimate(*level),
        _curve(found, pairs, (T, len(pairs), c)),
        _tested(*_stack([_minus(level, i, j) for i, j in pairs], c), dof),
        _kolmogorov_smirnov([(last[i], last[j]) for i, j in pairs], c),
        _tested(*drift, dof),
        _kolmogorov_smirnov([(v[inside[0], :, ::2], v[-1, :, 1::2]) for v in values], c),
        _remembered(memories, c),
        np.array([_relaxation(rho, lag) for rho, _ in memories]),
        _kolmogorov_smirnov([(values[i][0], values[j][0]) for i, j in pairs], c),
        np.array([_interquartile_range(row) for row in pooled]),
        np.array([np.min(run.used(name)) / run.paths for run in runs]),
        runs[0].sample[name].shape[1:-1],
    )


def _components(run: Ensemble, name: str) -> Float[np.ndarray, "T c s"]:
    """The sampled values, c components in C order."""
    sample = run.sample[name]
    return sample.reshape(len(sample), -1, sample.shape[-1]).astype(float)


def _interquartile_range(values: Float[np.ndarray, " n"]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.ptp(np.quantile(finite, (0.25, 0.75)))) if finite.size else np.nan


def _stack(estimates: Sequence[Any], c: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and errors, one row each."""
    both = np.array([tuple(e) for e in estimates], float).reshape(-1, 2, c)
    return both[:, 0], both[:, 1]


def _minus(level: tuple[np.ndarray, np.ndarray], i: int, j: int) -> Estimate:
    """Of independent starts."""
    value, error = level
    return Estimate(value[i] - value[j], np.hypot(error[i], error[j]))


def _curve(found: Sequence[Series], pairs: Sequence[tuple[int, int]], shape: tuple) -> Estimate:
    value, error = np.zeros(shape), np.zeros(shape)
    for p, (i, j) in enumerate(pairs):
        a, b = found[i], found[j]
        floor = a.rounding * np.maximum(np.abs(a.value), np.abs(b.value))
        value[:, p] = a.value - b.value
        error[:, p] = np.sqrt(a.standard_error**2 + b.standard_error**2 + floor**2)
    return Estimate(value, error)


def _tested(value: np.ndarray, error: np.ndarray, dof: int) -> Tested:
    """Against zero, by Student's t."""
    known = (error > 0) & np.isfinite(value)
    z = np.abs(value) / np.where(known, error, 1)
    return Tested(value, error, np.where(known, 2 * scipy.stats.t.sf(z, dof), 1.0))


def _kolmogorov_smirnov(pairs: Sequence[tuple[np.ndarray, np.ndarray]], c: int) -> Tested:
    """Of the laws of pairs of samples `(c, s)`; 1 is the p-value where nothing is left of one."""
    found = np.full((len(pairs), c, 3), [np.nan, np.nan, 1.0])
    for p, (first, second) in enumerate(pairs):
        for i in range(c):
            a, b = (v[i][np.isfinite(v[i])] for v in (first, second))
            if min(a.size, b.size) < 10:
                continue
            test = scipy.stats.kstest(a, b, method="asymp")
            shares = [np.mean(v <= test.statistic_location) for v in (a, b)]
            error = sum(F * (1 - F) / v.size for F, v in zip(shares, (a, b), strict=True))
            found[p, i] = test.statistic, np.sqrt(error), test.pvalue
    return Tested(*np.moveaxis(found, -1, 0))


def _rank_correlation(values: Float[np.ndarray, "W c s"]) -> tuple[np.ndarray, int]:
    """Spearman's, of the values at each time with the first, `(W, c)`, over so many paths.

    0 where the values do not differ between paths.
    """
    kept = values[..., np.all(np.isfinite(values), axis=(0, 1))]
    n = kept.shape[-1]
    if n < 3:
        return np.zeros(values.shape[:2]), n
    ranks = scipy.stats.rankdata(kept, axis=-1) - (n + 1) / 2
    products = np.sum(ranks * ranks[:1], axis=-1)
    scale = np.sqrt(np.sum(ranks**2, axis=-1) * np.sum(ranks[:1] ** 2, axis=-1))
    return np.where(scale > 0, products / np.where(scale > 0, scale, 1), 0), n


def _remembered(memories: Sequence[tuple[np.ndarray, int]], c: int) -> Tested:
    rho = np.array([found[-1] for found, _ in memories]).reshape(-1, c)
    n = np.array([max(n, 4) for _, n in memories])[:, None]
    error = np.sqrt((1 - rho**2) / (n - 2)) + 1e-12
    return Tested(rho, error, scipy.stats.norm.sf((np.abs(rho) - REMEMBERED) / error))


def _relaxation(rho: Float[np.ndarray, "W c"], lag: Float[np.ndarray, " W"]) -> np.ndarray:
    """The first time at which ρ < 1/e, linearly between recorded times."""
    times = np.full(rho.shape[1], np.inf)
    for i, column in enumerate(rho.T):
        below = np.flatnonzero(column < np.exp(-1))
        if below.size and below[0] > 0:
            k = below[0]
            share = (column[k - 1] - np.exp(-1)) / (column[k - 1] - column[k])
            times[i] = lag[k - 1] + share * (lag[k] - lag[k - 1])
        elif below.size:
            times[i] = 0.0  # a law without spread
    return times
