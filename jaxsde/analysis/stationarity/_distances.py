"""How far a sample is from a law: three distances, with their errors and what noise alone gives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.analysis.stationarity._tails import Tail, tail_index

QUANTILES = 10_000  # that stand for a law in the integrals
LARGE = 1000  # values from which the test's limit law is used
HALVINGS = 80  # of an interval around a quantile
Cdf = Callable[[np.ndarray], Any]


class Distance(NamedTuple):
    """A distance D(F, G) of a law G from the law F of a sample.

    Fields:
        value: of the sample.
        standard_error: of it, to first order.
        noise: what a sample of G itself has on average. A value of that size shows no distance,
            and its error then means nothing.
    """

    value: float
    standard_error: float
    noise: float


class Distances(NamedTuple):
    """The distances of a law G from the law F of a sample.

    Fields:
        kolmogorov_smirnov: sup |F - G|.
        p_value: of its test of F = G.
        band: for the sup, of Dvoretzky, Kiefer and Wolfowitz (Massart 1990).
        wasserstein: W₁ = ∫ |F - G| dx. Undefined (nan) where a mean is not shown to exist, and its
            error where a variance is not.
        energy: √(2 ∫ (F - G)² dx).
    """

    kolmogorov_smirnov: Distance
    p_value: float
    band: tuple[float, float]
    wasserstein: Distance
    energy: Distance


def distances(sample: ArrayLike, law: Any, *, confidence: float = 0.95) -> Distances:
    """The distances of a law, or of the law of other values, from that of independent values.

    A distance moves with F to first order by the mean of ψ(v) over the sample, so that its standard
    error is that mean's: ψ(v) = 1{v <= x} at the x of the largest difference (Raghavachari 1973);
    ψ(v) = ∫ sign(F - G) 1{v <= x} dx, a Kantorovich potential, for W₁; and
    ψ(v) = (2/D) ∫ (F - G) 1{v <= x} dx for the energy distance D.

    For F = G the values are, on average, √(π/2) log 2 /√n, √(2/π) ∫ √(F(1 - F)) dx /√n and, in
    the root of the mean square, √(2 ∫ F(1 - F) dx /n). With m other values 1/n is 1/n + 1/m.

    Args:
        sample: n independent values; those that are not finite are left out.
        law: continuous: a frozen one of `scipy.stats`, or the distribution function, of an array;
            or m independent values. In W₁ and D 10,000 of its quantiles stand for a law.
        confidence: of the band.

    Raises:
        InputError: fewer than 10 finite values, or a law that is none of these.
    """
    if not 0 < confidence < 1:
        raise _checks.InputError(f"confidence must lie between 0 and 1, got {confidence!r}")
    v = _values("sample", sample)
    cdf = law if callable(law) else getattr(law, "cdf", None)
    w = _values("law", law) if cdf is None else _quantiles(law, cdf, v)
    sizes = [v.size] if cdf is not None else [v.size, w.size]
    method = "asymp" if min(sizes) > LARGE else "auto"
    test = scipy.stats.kstest(v, w if cdf is None else cdf, method=method)
    x, D = test.statistic_location, float(test.statistic)
    jump = [values <= x for values in (v, w)[: len(sizes)]]
    share = sum(1 / n for n in sizes)
    error = 1 - confidence ** (1 / len(sizes))
    reach = float(sum(np.sqrt(np.log(2 / error) / (2 * n)) for n in sizes))
    return Distances(
        Distance(D, _error(jump), float(np.sqrt(np.pi / 2 * share) * np.log(2))),
        float(test.pvalue),
        (max(D - reach, 0.0), min(D + reach, 1.0)),
        *_integrals(v, w, len(sizes), share),
    )


def _integrals(v: np.ndarray, w: np.ndarray, samples: int, share: float) -> list[Distance]:
    """W₁ and the energy distance, of which the w carry an error if there are two samples."""
    z = np.sort(np.concatenate([v, w]))
    dx, at = np.diff(z), [np.searchsorted(z, values) for values in (v, w)[:samples]]
    F, G = (np.searchsorted(np.sort(values), z[:-1], "right") / values.size for values in (v, w))
    null = G if samples == 1 else (F * v.size + G * w.size) / (v.size + w.size)
    W = float(scipy.stats.wasserstein_distance(v, w))
    D = float(scipy.stats.energy_distance(v, w))

    def error(slope):
        potential = np.concatenate([[0.0], np.cumsum(slope * dx)])
        return _error([potential[index] for index in at])

    tails = [tail_index(values) for values in (v, w)]
    W_noise = np.sqrt(2 / np.pi * share) * np.sum(np.sqrt(null * (1 - null)) * dx)
    D_noise = np.sqrt(2 * share * np.sum(null * (1 - null) * dx))
    W_error = error(np.sign(F - G)) if _all_show(tails, 2) else np.nan
    if not _all_show(tails, 1):
        W, W_error, W_noise = np.nan, np.nan, np.nan
    D_error = error(2 / D * (F - G)) if D > 0 else 0.0
    return [Distance(W, W_error, float(W_noise)), Distance(D, D_error, float(D_noise))]


def _all_show(tails: list[Tail], order: float) -> bool:
    return all(tail.shows(order) for tail in tails)


def _error(parts: list[np.ndarray]) -> float:
    """The standard error of a sum of independent means."""
    return float(np.sqrt(sum(np.var(psi, ddof=1) / psi.size for psi in parts)))


def _values(name: str, given: Any) -> Float[np.ndarray, " n"]:
    try:
        values = np.asarray(given, float)
    except (TypeError, ValueError) as error:
        raise _checks.InputError(f"{name} must hold numbers, got {given!r}") from error
    finite = values[np.isfinite(values)]
    if values.ndim != 1 or finite.size < 10:
        raise _checks.InputError(
            f"{name} must hold 10 or more finite values, got {finite.size} in shape {values.shape}"
        )
    return finite


def _quantiles(law: Any, cdf: Cdf, v: np.ndarray) -> Float[np.ndarray, " q"]:
    """The quantiles of (i + 1/2)/q, found by halving intervals where there is no inverse."""
    p = (np.arange(QUANTILES) + 0.5) / QUANTILES
    if hasattr(law, "ppf"):
        return np.asarray(law.ppf(p), float)
    low, high, reach = v.min(), v.max(), np.ptp(v) or 1.0
    for _ in range(60):
        ends = np.asarray(cdf(np.array([low, high])), float)
        if ends.shape != (2,) or not 0 <= ends[0] <= ends[1] <= 1:
            raise _checks.InputError(
                f"law must be a distribution function of an array; at {low:g} and {high:g} it "
                f"gives {ends}"
            )
        if ends[0] <= p[0] and ends[1] >= p[-1]:
            break
        low, high, reach = low - reach, high + reach, 2 * reach
    else:
        raise _checks.InputError("law must be a distribution function, from 0 to 1")
    lows, highs = np.full(p.shape, low), np.full(p.shape, high)
    for _ in range(HALVINGS):
        middle = (lows + highs) / 2
        below = np.asarray(cdf(middle), float) < p
        lows, highs = np.where(below, middle, lows), np.where(below, highs, middle)
    return highs
