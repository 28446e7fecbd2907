"""Histograms and densities with errors, also of laws whose tails have no end."""

from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import ArrayLike, Float

from jaxsde import _checks

REACH = 5.0  # interquartile ranges beyond the quartiles up to which a law is drawn


class Histogram(NamedTuple):
    """The density over bins, `(b,)` between `edges` `(b + 1,)`; it integrates to 1 - outside."""

    edges: Float[np.ndarray, " e"]
    density: Float[np.ndarray, " b"]
    standard_error: Float[np.ndarray, " b"]
    outside: float


class Density(NamedTuple):
    """The smoothed density at points, `(m,)` each."""

    points: Float[np.ndarray, " m"]
    density: Float[np.ndarray, " m"]
    standard_error: Float[np.ndarray, " m"]


def histogram(values: Float[np.ndarray, " n"], bins: Any = "auto") -> Histogram:
    """c/(n w) of c of n independent values in a bin of width w, with its binomial error.

    Without edges given, the bins cover the values within 5 interquartile ranges of the quartiles,
    which is all of light tails; the share of values beyond is `outside`.

    Args:
        values: finite.
        bins: as in `numpy.histogram`: a number, edges, or a rule.

    Raises:
        InputError: bins that NumPy refuses.
    """
    try:
        edges = np.histogram_bin_edges(_central(values), bins)
    except (TypeError, ValueError) as error:
        raise _checks.InputError(f"bins must be as in numpy.histogram: {error}") from error
    count = np.histogram(values, edges)[0]
    n, w = values.size, np.diff(edges)
    error = np.sqrt(count * (1 - count / n)) / (n * w)
    return Histogram(edges, count / (n * w), error, 1 - float(count.sum()) / n)


def density(values: Float[np.ndarray, " n"], points: ArrayLike | None = None) -> Density:
    """p(x) = Σ K((x - v)/h) / (n h) with a Gaussian K (`scipy.stats.gaussian_kde`).

    h = 0.9 min(s, IQR/1.34) n^(-1/5) (Silverman 1986) of the values within 5 interquartile ranges
    of the quartiles, which are all of those of light tails. The error is that of the mean over
    independent values, with E K² from the density at the width h/√2; the smoothing's bias, which
    rounds off peaks and edges, is not in it.

    Args:
        values: finite.
        points: x, `(m,)`; by default 200 over the central values.

    Raises:
        InputError: values without spread.
    """
    central = _central(values)
    quartiles = np.quantile(central, (0.25, 0.75))
    scale = np.std(central, ddof=1)
    if not scale > 1e-12 * np.max(np.abs(central)):
        raise _checks.InputError("values without spread have no density")
    spread = np.ptp(quartiles) / 1.34
    h = 0.9 * (min(scale, spread) if spread > 0 else scale) * values.size ** (-1 / 5)
    low, high = central.min() - 3 * h, central.max() + 3 * h
    x = np.linspace(low, high, 200) if points is None else np.asarray(points, float)
    share, n = central.size / values.size, values.size
    p = share * scipy.stats.gaussian_kde(central, h / scale)(x)
    square = share * scipy.stats.gaussian_kde(central, h / np.sqrt(2) / scale)(x)
    variance = square / (2 * h * np.sqrt(np.pi)) - p**2
    return Density(x, p, np.sqrt(np.maximum(variance, 0) / n))


def _central(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " k"]:
    low, high = np.quantile(values, (0.25, 0.75))
    if low == high:
        return values
    reach = REACH * (high - low)
    return values[(values >= low - reach) & (values <= high + reach)]
