"""The law of a first passage time, with the paths that have not passed counted as such."""

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from jaxsde import _checks
from jaxsde.analysis.compare import with_error
from jaxsde.engine import Ensemble, Estimate, Quantile
from jaxsde.processes import Sides


class Curve(NamedTuple):
    """A distribution function and its interval at T times: steps to plot, each `(T, ...)`."""

    time: Float[np.ndarray, " T"]
    value: Float[np.ndarray, "T ..."]
    lower: Float[np.ndarray, "T ..."]
    upper: Float[np.ndarray, "T ..."]


@dataclasses.dataclass(frozen=True)
class FirstPassageTimes:
    """The law of τ, as far as the run goes.

    All paths that have not passed are censored at one time, the last recorded. So up to there
    Kaplan and Meier's (1958) estimator is the share of paths that have passed, and ranks are
    known, those of the censored being the highest.

    Fields:
        time: recorded, `(T,)`.
        distribution: P(τ <= t) over all paths, `(T, ...)`, with its binomial standard error.
        restricted_mean: E min(τ, t) at the last time over all paths, `(...)`.
        sample: τ of the first 4,096 paths, ascending, `(..., s)`; inf where it is censored.
        paths: how many were run.
    """

    time: Float[np.ndarray, " T"]
    distribution: Estimate
    restricted_mean: Estimate
    sample: Float[np.ndarray, "... s"]
    paths: int

    @property
    def passed(self) -> Int[np.ndarray, "T ..."]:
        """Paths with τ <= t, `(T, ...)`."""
        return np.rint(self.distribution.value * self.paths).astype(int)

    @property
    def censored(self) -> Int[np.ndarray, "..."]:
        """Paths that have not passed at the last time."""
        return self.paths - self.passed[-1]

    @property
    def mean(self) -> Estimate:
        """E τ; undefined (nan) where a path is censored, and then at least the restricted mean.

        The censored part E max(τ - t, 0) can be anything, infinite too.
        """
        return Estimate(*(np.where(self.censored > 0, np.nan, v) for v in self.restricted_mean))

    def curve(self, confidence: float = 0.95) -> Curve:
        """P(τ <= t) at the recorded times with Clopper and Pearson's (1934) interval at each.

        The interval is exact, also where none or all have passed. It is of one time: for all times
        at once `compare` has bands.

        Raises:
            InputError: confidence outside (0, 1).
        """
        _check_probability("confidence", confidence)
        k, n, tail = self.passed, self.paths, (1 - confidence) / 2
        lower = np.where(k > 0, scipy.stats.beta.ppf(tail, np.maximum(k, 1), n - k + 1), 0)
        upper = np.where(k < n, scipy.stats.beta.isf(tail, k + 1, np.maximum(n - k, 1)), 1)
        return Curve(self.time, self.distribution.value, lower, upper)

    def quantile(self, q: float, confidence: float = 0.95) -> Quantile:
        """The q-quantile min {t : P(τ <= t) >= q} from the sample, with its interval.

        Of n sampled paths it is the order statistic τ₍ₖ₎ with k = ⌈q n⌉: inf where fewer than q n
        have passed. The ends are order statistics too, with binomial coverage of at least
        `confidence`, and infinite on a side where the sample is too small or the run too short.

        Raises:
            InputError: q or confidence outside (0, 1).
        """
        _check_probability("q", q)
        _check_probability("confidence", confidence)
        n, tail = self.sample.shape[-1], (1 - confidence) / 2
        ranks = (
            np.ceil(q * n * (1 - 1e-12)),  # 0.07 * 100 is more than 7
            scipy.stats.binom.ppf(tail, n, q),
            scipy.stats.binom.isf(tail, n, q) + 1,
        )
        end = np.full((*self.sample.shape[:-1], 1), np.inf)
        ranked = np.concatenate([-end, self.sample, end], axis=-1)
        return Quantile(*(ranked[..., int(rank)] for rank in ranks))

    @property
    def verdict(self) -> str:
        """What is known of τ, a line for each event, at 95 % confidence."""
        return "\n".join(map(self._line, np.ndindex(self.sample.shape[:-1])))

    def _line(self, event: tuple[int, ...]) -> str:
        end, curve, median = self.time[-1], self.curve(), self.quantile(0.5)
        value, lower, upper = (ends[-1][event] for ends in curve[1:])
        middle, first, last = (
            f"{v[event]:.4g}" if v[event] < np.inf else f"> {end:.4g}" for v in median
        )
        mean = with_error(*(v[event] for v in self.restricted_mean))
        text = f"first passage{''.join(f' {i}' for i in event)} ({self.paths:,} paths): "
        text += f"P(τ <= {end:.4g}) = {value:.4g} [{lower:.4g}, {upper:.4g}], "
        text += f"median {middle} [{first}, {last}], "
        left = int(self.censored[event])
        if not left:
            return text + f"mean {mean}."
        return text + (
            f"mean at least {mean}: {left:,} have not passed, so E τ cannot be estimated and "
            "need not exist."
        )


def first_passage(ensemble: Ensemble, side: str = "") -> FirstPassageTimes:
    """The law of τ from an ensemble of a `FirstPassage` process.

    Two laws, an optimizer's and its SDE's, are compared by `compare`: P(τ <= t) at all times
    together as `passed`, E min(τ, t) as `passage_time`. Where passages are rare, some ten or fewer
    among the sampled paths at most times, it takes them for heavy tails; then compare `curve`s.

    Args:
        ensemble: of a `FirstPassage`.
        side: "optimizer" or "sde", where that wraps a `Paired`.

    Raises:
        InputError: an ensemble of another process, or another side.
    """
    if side and side not in Sides._fields:
        raise _checks.InputError(f"side must be 'optimizer', 'sde' or '', got {side!r}")
    passed, time = (f"{side}.{name}" if side else name for name in ("passed", "passage_time"))
    distribution = Estimate(ensemble.mean(passed), ensemble.standard_error(passed))
    restricted = Estimate(ensemble.mean(time)[-1], ensemble.standard_error(time)[-1])
    sample = np.where(ensemble.sample[passed][-1] > 0, ensemble.sample[time][-1], np.inf)
    return FirstPassageTimes(
        ensemble.time, distribution, restricted, np.sort(sample, axis=-1), ensemble.paths
    )


def _check_probability(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise _checks.InputError(f"{name} must lie between 0 and 1, got {value!r}")
