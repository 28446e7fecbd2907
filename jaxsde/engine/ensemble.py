"""What a run returns: statistics over paths at recorded times, with their Monte Carlo error."""

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
import scipy.stats
from jaxtyping import Float, Int
from scipy.stats import mstats

from jaxsde import _checks, _files
from jaxsde.engine.statistics import Moments, over

ENOUGH = 2000  # finite values in which no path is heavy but for the law's tails
FEW = 100  # in which such a path may hold a tenth of the variance, not half of it


class Estimate(NamedTuple):
    """An estimate and its Monte Carlo error, each `(T, ...)`."""

    value: Float[np.ndarray, "..."]
    standard_error: Float[np.ndarray, "..."]


class Quantile(NamedTuple):
    """An estimated quantile and its order-statistic interval, each `(T, ...)`."""

    value: Float[np.ndarray, "..."]
    lower: Float[np.ndarray, "..."]
    upper: Float[np.ndarray, "..."]


class Ensemble(eqx.Module):
    """Statistics of many paths at T recorded times.

    Moments are over the `used(name)` paths whose value and square are finite at that time. When
    some are not (`diverged(name) > 0`), every mean is conditional on survival.

    Fields:
        time: t0 + k dt, `(T,)`, in the process's clock.
        step: k, `(T,)`.
        moments: by observable.
        sample: values of the first 4,096 paths by observable, `(T, ..., s)`.
        paths: how many were run.
        metadata: every setting, seed and version that made it, as JSON; `settings` reads it.
    """

    time: Float[np.ndarray, " T"]
    step: Int[np.ndarray, " T"]
    moments: dict[str, Moments]
    sample: dict[str, Float[np.ndarray, "T *shape s"]]
    paths: int = eqx.field(static=True)
    metadata: str = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The observables' names."""
        return tuple(self.moments)

    @property
    def settings(self) -> dict[str, Any]:
        """What made this ensemble."""
        return json.loads(self.metadata)

    def used(self, name: str) -> Int[np.ndarray, " T"]:
        """Paths whose value and square are finite in every component, `(T,)`."""
        return np.asarray(self._of(name).used)

    def diverged(self, name: str) -> Int[np.ndarray, " T"]:
        """Paths that are not used, `(T,)`."""
        return self.paths - self.used(name)

    def mean(self, name: str) -> Float[np.ndarray, "T ..."]:
        """Σ v / n over the n used paths; undefined (nan) where none is left."""
        moments = self._of(name)
        return np.where(over(moments.used, moments.mean) > 0, moments.mean, np.nan)

    def variance(self, name: str) -> Float[np.ndarray, "T ..."]:
        """Σ (v - mean)² / (n - 1) over the n used paths; undefined (nan) for n < 2."""
        moments = self._of(name)
        deviation = np.asarray(moments.deviation)
        if deviation.shape != moments.mean.shape:
            deviation = np.diagonal(deviation, axis1=1, axis2=2).reshape(moments.mean.shape)
        return _per_degree(deviation, moments.used)

    def covariance(self, name: str) -> Float[np.ndarray, "T k k"]:
        """Σ (v - mean)(v - mean)ᵀ / (n - 1) of the k components, in C order.

        Raises:
            InputError: it was not asked for (`with_covariance`).
        """
        moments = self._of(name)
        components = int(np.prod(moments.mean.shape[1:]))
        if moments.deviation.shape[1:] != (components, components):
            raise _checks.InputError(
                f"no covariance was kept of {name!r}: mark it with jaxsde.with_covariance"
            )
        return _per_degree(np.asarray(moments.deviation), moments.used)

    def standard_error(self, name: str) -> Float[np.ndarray, "T ..."]:
        """√(variance / n), the Monte Carlo error of the mean."""
        variance = self.variance(name)
        return np.sqrt(variance / over(np.maximum(self.used(name), 1), variance))

    def quantile(self, name: str, q: float, confidence: float = 0.95) -> Quantile:
        """The q-quantile from the sample's finite values, with its order-statistic interval.

        The interval's ends are order statistics X₍ₗ₎, X₍ᵤ₎ with binomial coverage of at least
        `confidence`; it is infinite on a side where the sample is too small for that.
        """
        for label, value in (("q", q), ("confidence", confidence)):
            if not 0 < value < 1:
                raise _checks.InputError(f"{label} must lie between 0 and 1, got {value!r}")
        self._of(name)
        values = np.sort(np.where(np.isfinite(self.sample[name]), self.sample[name], np.nan), -1)
        n = np.sum(np.isfinite(values), axis=-1)
        tail = (1 - confidence) / 2
        lower = scipy.stats.binom.ppf(tail, n, q) - 1
        upper = scipy.stats.binom.isf(tail, n, q)
        position = q * np.maximum(n - 1, 0)
        below, above = _order(values, np.floor(position), n), _order(values, np.ceil(position), n)
        with np.errstate(invalid="ignore"):  # infinite where no path is left
            value = below + (position - np.floor(position)) * (above - below)
        value = np.where(n > 0, value, np.nan)
        return Quantile(value, _order(values, lower, n), _order(values, upper, n))

    def median(self, name: str) -> Estimate:
        """The median of the sample's finite values; it exists for every law.

        Its error is Maritz and Jarrett's (1978), undefined (nan) for fewer than 3 values. Like
        `quantile` and every mean it is conditional on survival: a path that overflows soon is nan,
        so that neither ±inf nor nan is ranked.
        """
        return Estimate(self.quantile(name, 0.5).value, self._of_rows(name, _maritz_jarrett))

    def trimmed_mean(self, name: str, cut: float = 0.05) -> Estimate:
        """The mean of the sample's n finite values but ⌊cut n⌋ at each end, for every law.

        It estimates E[v | q < v < q'] between the quantiles of cut and 1 - cut, the mean itself
        only under symmetry. Its error is Tukey and McLaughlin's (1963), with s_w the Winsorised
        values' standard deviation: s_w / ((1 - 2 cut) √n), undefined (nan) for n < 2.

        Args:
            name: of the observable.
            cut: the share removed at each end.

        Raises:
            InputError: cut outside (0, 1/2).
        """
        if not 0 < cut < 0.5:
            raise _checks.InputError(f"cut must lie between 0 and 1/2, got {cut!r}")

        def mean(values):
            return scipy.stats.trim_mean(values, cut) if values.size else np.nan

        def error(values):
            if values.size < 2:
                return np.nan
            unit, scale = _standardized(values, 1e150)  # squares exist
            return scale * mstats.trimmed_stde(unit, (cut, cut))

        return Estimate(self._of_rows(name, mean), self._of_rows(name, error))

    def heaviest(self, name: str) -> float:
        """The share of the sampled variance that one path carries, the median over varying times.

        Of order 1 where the variance is infinite, and then the mean may not exist either. 0 where
        too few values are finite to tell: below 100, and below 2,000 unless it is over a half.
        """
        shares = self._of_rows(name, _heaviest)
        share = float(np.median(shares[shares > 0])) if np.any(shares > 0) else 0.0
        enough = self.sample[name].shape[-1] >= ENOUGH
        return share if enough or share > 1 / 2 else 0.0

    def to_xarray(self):
        """The ensemble as a labelled `xarray.Dataset`: `<name>.mean`, `.variance`, ... over time.

        Raises:
            ImportError: xarray is missing (pip install 'jaxsde[io]').
        """
        xarray = _checks.extra("xarray", "io")
        variables: dict[str, Any] = {}
        for name, moments in self.moments.items():
            shape = [f"{name}.{i}" for i in range(moments.mean.ndim - 1)]
            variables[f"{name}.used"] = (["time"], moments.used)
            variables[f"{name}.mean"] = (["time", *shape], self.mean(name))
            variables[f"{name}.standard_error"] = (["time", *shape], self.standard_error(name))
            variables[f"{name}.variance"] = (["time", *shape], self.variance(name))
            if moments.deviation.shape != moments.mean.shape:
                pair = ["time", f"{name}.row", f"{name}.column"]
                variables[f"{name}.covariance"] = (pair, self.covariance(name))
            variables[f"{name}.sample"] = (["time", *shape, "path"], self.sample[name])
        coordinates = {"time": self.time, "step": ("time", self.step)}
        attributes = {"paths": self.paths, "settings": self.metadata}
        return xarray.Dataset(variables, coordinates, attributes)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the ensemble as NetCDF, whole or not at all; `jaxsde.load` reads it back.

        Raises:
            ImportError: xarray or h5netcdf is missing (pip install 'jaxsde[io]').
        """
        _checks.extra("h5netcdf", "io")
        with _files.atomic(path) as temporary:
            self.to_xarray().to_netcdf(temporary, engine="h5netcdf")

    def _of_rows(self, name: str, statistic: Callable[[np.ndarray], Any]) -> np.ndarray:
        """A statistic of the sample's finite values at each time, in each component."""
        self._of(name)
        *shape, size = self.sample[name].shape
        rows = self.sample[name].reshape(-1, size).astype(np.float64)
        values = [statistic(row[np.isfinite(row)]) for row in rows]
        return np.array(values, np.float64).reshape(shape)

    def _of(self, name: str) -> Moments:
        _checks.known("observable", name, self.moments)
        return self.moments[name]


def load(path: str | os.PathLike) -> Ensemble:
    """Reads an ensemble that `Ensemble.save` wrote.

    Raises:
        InputError: the file is missing, or no ensemble.
        ImportError: xarray or h5netcdf is missing (pip install 'jaxsde[io]').
    """
    xarray = _checks.extra("xarray", "io")
    _checks.extra("h5netcdf", "io")
    try:
        with xarray.open_dataset(path, engine="h5netcdf") as file:
            data = file.load()
    except OSError as error:
        raise _checks.InputError(f"{path} cannot be read as NetCDF: {error}") from error
    if "settings" not in data.attrs:
        raise _checks.InputError(f"{path} holds no jaxsde ensemble")
    names = [name.removesuffix(".used") for name in data if str(name).endswith(".used")]
    moments, sample = {}, {}
    for name in names:
        used = data[f"{name}.used"].values
        spread = f"{name}.covariance" if f"{name}.covariance" in data else f"{name}.variance"
        deviation = data[spread].values
        degrees = over(np.maximum(used - 1, 0), deviation)
        mean = np.nan_to_num(data[f"{name}.mean"].values)
        moments[name] = Moments(used, mean, np.nan_to_num(deviation) * degrees)
        sample[name] = data[f"{name}.sample"].values
    paths, settings = int(data.attrs["paths"]), str(data.attrs["settings"])
    return Ensemble(data["time"].values, data["step"].values, moments, sample, paths, settings)


def _per_degree(deviation: np.ndarray, used: np.ndarray) -> np.ndarray:
    degrees = over(used - 1, deviation)
    return np.where(degrees > 0, deviation / np.maximum(degrees, 1), np.nan)


def _maritz_jarrett(values: np.ndarray) -> float:
    """The median's standard error, to which nothing beyond a million times the spread adds."""
    if values.size < 3:
        return np.nan
    unit, scale = _standardized(values, 1e6)
    return scale * mstats.mjci(unit, [0.5])[0]


def _standardized(values: np.ndarray, bound: float) -> tuple[np.ndarray, float]:
    """(v - median) / scale within ±bound, and scale, the median of |v - median|."""
    deviation = values - np.median(values)
    scale = float(np.median(np.abs(deviation))) or 1.0
    with np.errstate(over="ignore"):
        return np.clip(deviation / scale, -bound, bound), scale


def _heaviest(values: np.ndarray) -> float:
    """The largest (v - median)² over their sum; 0 for equal or too few values."""
    deviation = np.abs(values - np.median(values)) if values.size >= FEW else np.zeros(1)
    largest = deviation.max()
    return 1 / np.sum((deviation / largest) ** 2) if largest > 0 else 0.0


def _order(values: np.ndarray, index: np.ndarray, n: np.ndarray) -> np.ndarray:
    """The order statistic of a zero-based index; infinite below 0 and from n on."""
    inside = np.clip(index, 0, np.maximum(n - 1, 0)).astype(int)
    taken = np.take_along_axis(values, inside[..., None], axis=-1)[..., 0]
    return np.where(index < 0, -np.inf, np.where(index > n - 1, np.inf, taken))
