"""Does the SDE differ from the optimizer? Differences of means, or medians, with their errors."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from jaxsde import _checks
from jaxsde.engine import Ensemble, Estimate

PAIRED = "difference."
HEAVY = 0.1  # the share of one path in the sampled variance at which a mean is not believed


class Largest(NamedTuple):
    """Where a difference is largest in units of its standard error."""

    standardized: float
    at: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of two means, or medians, of one observable, first - second, over T times.

    Fields, each `(T, ...)`: the means `first` and `second`, the difference's `value` and
    `standard_error`, and the ends `lower`, `upper` of the simultaneous confidence band. `survivors`
    is the smallest share of paths used at any time; `heaviest` the largest `Ensemble.heaviest` of
    what is compared; `statistic` is "mean" or "median", over so many `paths`.
    """

    first: Float[np.ndarray, "T ..."]
    second: Float[np.ndarray, "T ..."]
    value: Float[np.ndarray, "T ..."]
    standard_error: Float[np.ndarray, "T ..."]
    lower: Float[np.ndarray, "T ..."]
    upper: Float[np.ndarray, "T ..."]
    survivors: float
    heaviest: float
    statistic: str
    paths: int

    @property
    def largest(self) -> Largest:
        """The largest |difference| / standard error and where it is."""
        known = (self.standard_error > 0) & np.isfinite(self.standard_error)
        z = np.where(known, np.abs(self.value) / np.where(known, self.standard_error, 1), 0)
        index = np.unravel_index(np.argmax(z), z.shape)
        return Largest(float(z[index]), tuple(int(i) for i in index))

    @property
    def shown(self) -> bool:
        """Whether the band excludes a zero difference somewhere."""
        return bool(np.any((self.lower > 0) | (self.upper < 0)))

    @property
    def resolution(self) -> Largest:
        """The largest |difference| that the band allows anywhere, and where."""
        reach = np.maximum(np.abs(self.lower), np.abs(self.upper))
        reach = np.where(np.isnan(reach), 0, reach)
        index = np.unravel_index(np.argmax(reach), reach.shape)
        return Largest(float(reach[index]), tuple(int(i) for i in index))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found: `differences` by observable, and the `verdict` in words."""

    time: Float[np.ndarray, " T"]
    differences: dict[str, Difference]
    confidence: float
    paths: int
    identity: bool
    integrator: str
    first: str

    @property
    def verdict(self) -> str:
        """What was and what was not shown, a line for each observable."""
        if self.identity:
            lines = [
                "identity: the two sides are the same chain, so their agreement tests the code and "
                "says nothing about the SDE. Solve the SDE with more substeps."
            ]
        else:
            lines = [self._line(name, found) for name, found in self.differences.items()]
            lines += [self.integrator] if self.integrator else []
        return "\n".join(lines)

    def _line(self, name: str, found: Difference) -> str:
        size = f"{found.paths:,} paths, {self.confidence:.0%} confidence over all times"
        text, differ, same = f"{name}: ", "the two differ", "no difference shown"
        if found.heaviest > HEAVY:
            text += f"no verdict on means. {doubt(found.heaviest)}: compare quantiles."
            if found.statistic == "mean":
                return text
            differ, same = " The medians differ", " No difference of the medians shown"
        gone = np.isnan(found.value.reshape(len(self.time), -1)).all(axis=1)
        if found.survivors == 0 and gone.any():
            at = self.time[np.argmax(gone)]
            text += f"no verdict, as no path is left on one of the sides from t = {at:.4g} on."
        elif found.shown:
            z, index = found.largest
            text += (
                f"{differ} ({size}). Clearest at t = {self.time[index[0]]:.4g}, by "
                f"{with_error(found.value[index], found.standard_error[index])}, "
                f"{z:.1f} standard errors{self._share(found, found.value[index], index)}."
            )
        else:
            bound, index = found.resolution
            text += (
                f"{same} ({size}). What the band still allows is at most "
                f"{bound:.2g}{self._share(found, bound, index)}, "
                f"at t = {self.time[index[0]]:.4g}."
            )
        if found.survivors < 1:
            text += f" Conditional on survival: only {found.survivors:.1%} of the paths are left."
        return text

    def _share(self, found: Difference, part: float, index: tuple[int, ...]) -> str:
        whole, of = found.first[index], f"the {self.first}'s {found.statistic}"
        return f" ({abs(part / whole):.2%} of {of})" if whole else ""


class Estimates(NamedTuple):
    """What stands for the two sides of a comparison and for their difference, first - second."""

    first: Estimate
    second: Estimate
    difference: Estimate
    statistic: str
    heaviest: float


def estimates(ensemble: Ensemble, observable: str) -> Estimates:
    """Means of both sides of a `Paired` ensemble, or medians where a path on a side is too heavy.

    The standard error of two medians' difference is √(e₁² + e₂² - 2 ρ e₁ e₂), with the quadrant
    correlation ρ = Σ s₁ s₂ / √(n₁ n₂) of s = sign(v - median), since to first order a median is
    off by Σ s / (2 n p) where p is the density there (Bahadur 1966).
    """
    names = [side + observable for side in ("optimizer.", "sde.", PAIRED)]
    shares = [ensemble.heaviest(name) for name in names]
    if max(shares[:2]) <= HEAVY:
        means = [_mean(ensemble, name) for name in names]
        return Estimates(means[0], means[1], means[2], "mean", max(shares))
    a, b = (ensemble.median(name) for name in names[:2])
    e1, e2 = a.standard_error, b.standard_error
    scores = [
        _scores(ensemble.sample[name], of.value) for name, of in zip(names[:2], (a, b), strict=True)
    ]
    rho = np.minimum(np.sum(scores[0] * scores[1], axis=-1), 1)  # beyond by rounding
    error = np.sqrt((e1 - e2) ** 2 + 2 * (1 - rho) * e1 * e2)
    return Estimates(a, b, Estimate(a.value - b.value, error), "median", max(shares))


def _scores(sample: Float[np.ndarray, "T *shape s"], median: Float[np.ndarray, "T *shape"]) -> Any:
    """sign(v - median) / √n of the n finite values; 0 for what diverged."""
    finite = np.isfinite(sample)
    off = np.where(finite, sample - median[..., None], 0)
    return np.sign(off) / np.sqrt(np.maximum(np.sum(finite, axis=-1, keepdims=True), 1))


def _mean(ensemble: Ensemble, name: str) -> Estimate:
    return Estimate(ensemble.mean(name), ensemble.standard_error(name))


def doubt(heaviest: float) -> str:
    """Why a mean is not to be believed."""
    return (
        f"One path in the sample carries {heaviest:.0%} of the variance, so the mean or its error "
        "may not exist"
    )


def with_error(value: Any, error: Any) -> str:
    """value(error), the error in units of the value's last digit, with two digits."""
    if not np.isfinite(value):
        return "none left"
    if not 1e-10 * abs(value) < error < np.inf:
        return f"{value:.4g}"
    digits = 1 - int(np.floor(np.log10(error)))
    if 0 <= digits < 10:
        return f"{value:.{digits}f}({error * 10**digits:.0f})"
    exponent = int(np.floor(np.log10(max(abs(value), error))))
    if digits < 0 and exponent < 5:
        return f"{value:.0f}({error:.0f})"
    return f"{with_error(value / 10.0**exponent, error / 10.0**exponent)}e{exponent:+03d}"


def compare(
    first: Ensemble, second: Ensemble | None = None, *, confidence: float = 0.95
) -> Comparison:
    """Compares an optimizer with an SDE by the means of their observables.

    Where one path carries more than a tenth of a side's variance its mean may not exist, and
    medians are compared; where only of the difference's, no verdict is given.

    The band is first - second ± c standard errors, with c from Student's t at Šidák's level
    1 - confidence^(1/m) for the m differences in the comparison (all observables, times and
    components together), so that it covers all of them at once with at least `confidence`.

    Args:
        first: an ensemble of a `Paired` process, compared within itself (optimizer - SDE), or one
            side.
        second: the other side, run with another key and recorded at the same times.
        confidence: of the simultaneous band.

    Raises:
        InputError: unpaired ensembles of one key (their covariance would make the error bars
            wrong), of different times, or with no observable in common; a single unpaired one.
    """
    if not 0 < confidence < 1:
        raise _checks.InputError(f"confidence must lie between 0 and 1, got {confidence!r}")
    raw = _paired(first) if second is None else _unpaired(first, second)
    other = first if second is None else second
    paths = min(first.paths, other.paths)
    tests = sum(int(np.sum(found.standard_error > 0)) for found in raw.values())
    tail = (1 - confidence ** (1 / max(tests, 1))) / 2
    critical = float(scipy.stats.t.isf(tail, max(paths - 1, 1)))
    differences = {
        name: dataclasses.replace(
            found,
            lower=found.value - critical * found.standard_error,
            upper=found.value + critical * found.standard_error,
        )
        for name, found in raw.items()
    }
    sides = _sides(first, second)
    chains = [side.get("chain") for side in sides]
    same = chains[0] is not None and chains[0] == chains[1]
    return Comparison(
        first.time,
        differences,
        confidence,
        paths,
        same or (second is None and _pathwise_equal(first)),
        _integrator(sides),
        "optimizer" if second is None else "first",
    )


def _sides(first: Ensemble, second: Ensemble | None) -> list[dict[str, Any]]:
    if second is None:
        sides = first.settings.get("sides", {})
        return [sides.get("optimizer", {}), sides.get("sde", {})]
    return [first.settings, second.settings]


def _paired(ensemble: Ensemble) -> dict[str, Difference]:
    names = [name.removeprefix(PAIRED) for name in ensemble.names if name.startswith(PAIRED)]
    if not names:
        raise _checks.InputError(
            "compare takes an ensemble of a Paired process, or two ensembles of different keys"
        )
    return {
        name: _difference(estimates(ensemble, name), [(ensemble, PAIRED + name)]) for name in names
    }


def _unpaired(first: Ensemble, second: Ensemble) -> dict[str, Difference]:
    if first.settings["key"] == second.settings["key"]:
        raise _checks.InputError(
            "the two ensembles have the same key, so their errors are correlated: run one with "
            "another key, or both as one Paired process"
        )
    if first.time.shape != second.time.shape or not np.allclose(first.time, second.time):
        raise _checks.InputError("the two ensembles are recorded at different times")
    names = [name for name in first.names if name in second.names]
    if not names:
        raise _checks.InputError(
            f"the two ensembles share no observable: {', '.join(first.names)} against "
            f"{', '.join(second.names)}"
        )
    found = {}
    for name in names:
        shapes = [ensemble.mean(name).shape[1:] for ensemble in (first, second)]
        if shapes[0] != shapes[1]:
            raise _checks.InputError(
                f"observable {name!r} has shape {shapes[0]} in one ensemble and {shapes[1]} in "
                "the other"
            )
        found[name] = _difference(
            _independent(first, second, name), [(first, name), (second, name)]
        )
    return found


def _independent(first: Ensemble, second: Ensemble, name: str) -> Estimates:
    """As `estimates`, of independent sides."""
    heaviest = max(ensemble.heaviest(name) for ensemble in (first, second))
    statistic = "median" if heaviest > HEAVY else "mean"
    of = Ensemble.median if heaviest > HEAVY else _mean
    a, b = of(first, name), of(second, name)
    error = np.hypot(a.standard_error, b.standard_error)
    return Estimates(a, b, Estimate(a.value - b.value, error), statistic, heaviest)


def _difference(found: Estimates, parts: list[tuple[Ensemble, str]]) -> Difference:
    """With an error of at least the means' rounding, so that none is mistaken for a difference."""
    first, second, value = found.first.value, found.second.value, found.difference.value
    ulp = max(np.finfo(e.settings["dtype"]).eps for e, _ in parts)
    rounding = 4 * ulp * np.maximum(np.abs(first), np.abs(second))
    error = np.hypot(found.difference.standard_error, rounding)
    survivors = min(float(np.min(e.used(name))) / e.paths for e, name in parts)
    median = found.statistic == "median"
    paths = min(e.sample[name].shape[-1] if median else e.paths for e, name in parts)
    return Difference(
        first, second, value, error, value, value, survivors, found.heaviest, found.statistic, paths
    )


def _pathwise_equal(ensemble: Ensemble) -> bool:
    """Whether noisy paths' two sides, step for step, agree to rounding: within 100 ulp."""
    if ensemble.settings["substeps"] != 1:
        return False
    ulp = np.finfo(ensemble.settings["dtype"]).eps
    for name in ensemble.names:
        if not name.startswith(PAIRED):
            continue
        side = "optimizer." + name.removeprefix(PAIRED)
        difference, value = (
            np.sqrt(ensemble.variance(n) + ensemble.mean(n) ** 2) for n in (name, side)
        )
        noisy = np.any(ensemble.variance(side) > (100 * ulp * value) ** 2)
        if not (noisy and np.all(difference <= 100 * ulp * value)):
            return False
    return True


def _integrator(sides: list[dict[str, Any]]) -> str:
    """What is known of the error of the scheme that solved the SDE."""
    solved = [side for side in sides if side.get("scheme")]
    if not solved:
        return ""
    scheme, dt = solved[-1]["scheme"], solved[-1]["dt"]
    order = scheme["weak_order"]
    power = "dt" if order == 1 else f"dt^{order:g}"
    return (
        f"integrator: {scheme['name']} at dt = {dt:.4g} has a weak error of order {power} of its "
        "own, which is part of the difference; more substeps shrink it."
    )
