import importlib
import json
import math

import numpy as np
import pytest

from jaxsde import Ensemble, InputError, load
from jaxsde.engine import Moments

T, N = 3, 60
RNG = np.random.default_rng(0)
LOSS = RNG.standard_normal((T, N)) ** 2
X = RNG.standard_normal((T, 2, N)) + 5
USED = np.array([60, 1, 0])


def ensemble():
    """Sixty paths of which one is left at the second time and none at the third."""
    kept = [X[t][:, : USED[t]] for t in range(2)]
    mean = np.stack([*(x.mean(-1) for x in kept), np.zeros(2)])
    spread = np.stack([np.cov(kept[0]) * (N - 1), np.zeros((2, 2)), np.zeros((2, 2))])
    deviation = LOSS.var(-1) * N
    moments = {
        "loss": Moments(np.full(T, N), LOSS.mean(-1), deviation),
        "x": Moments(USED, mean, spread),
    }
    metadata = json.dumps({"key": [0, 7], "text": "η ≤ 1"})
    x = np.where(np.arange(N) < USED[:, None, None], X, np.nan).astype(np.float32)
    return Ensemble(0.1 * np.arange(T), np.arange(T), moments, {"loss": LOSS, "x": x}, N, metadata)


def test_statistics_are_numpys_over_the_used_paths():
    e = ensemble()
    assert e.names == ("loss", "x")
    assert e.settings == {"key": [0, 7], "text": "η ≤ 1"}
    np.testing.assert_array_equal(e.used("x"), USED)
    np.testing.assert_array_equal(e.diverged("x"), N - USED)
    np.testing.assert_allclose(e.mean("loss"), LOSS.mean(-1), rtol=1e-15)
    np.testing.assert_allclose(e.variance("loss"), LOSS.var(-1, ddof=1), rtol=1e-14)
    error = LOSS.std(-1, ddof=1) / np.sqrt(N)
    np.testing.assert_allclose(e.standard_error("loss"), error, rtol=1e-14)
    np.testing.assert_allclose(e.covariance("x")[0], np.cov(X[0]), rtol=1e-13)
    np.testing.assert_allclose(e.variance("x")[0], X[0].var(-1, ddof=1), rtol=1e-13)
    error = X[0].std(-1, ddof=1) / np.sqrt(N)
    np.testing.assert_allclose(e.standard_error("x")[0], error, rtol=1e-13)


def test_what_too_few_paths_leave_undefined_is_nan():
    e = ensemble()
    np.testing.assert_allclose(e.mean("x")[1], X[1][:, 0])
    assert np.all(np.isnan(e.mean("x")[2]))
    for value in (e.variance("x"), e.covariance("x"), e.standard_error("x")):
        assert np.all(np.isfinite(value[0]))
        assert np.all(np.isnan(value[1:]))


def test_a_covariance_is_given_only_where_it_was_kept():
    with pytest.raises(InputError, match="no covariance was kept of 'loss'"):
        ensemble().covariance("loss")


def of_sample(values):
    """An ensemble at one time with a sample alone."""
    values = np.asarray(values, float)[None]
    moments = {
        "v": Moments(np.full(1, values.shape[-1]), *[np.zeros((1, *values.shape[1:-1]))] * 2)
    }
    return Ensemble(np.zeros(1), np.zeros(1, int), moments, {"v": values}, values.shape[-1], "{}")


def binomial(n, q):
    return [math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(n + 1)]


@pytest.mark.parametrize("n", [1, 5, 20, 101, 500])
@pytest.mark.parametrize("q", [0.01, 0.3, 0.5, 0.975])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_quantile_intervals_cover_with_exact_binomial_probability(n, q, confidence):
    # The k-th smallest of n values is k, so the ends are ranks. B ~ Bin(n, q) values lie below
    # the true quantile, which is therefore in [X_l, X_u] if l <= B < u.
    values = np.random.default_rng(n).permutation(n) + 1.0
    found = of_sample(values).quantile("v", q, confidence)
    lower, upper = found.lower[0], found.upper[0]
    if confidence > 0.9:
        assert lower <= found.value[0] <= upper
    probability, tail = binomial(n, q), (1 - confidence) / 2
    low = 0 if lower == -np.inf else int(lower)
    high = n + 1 if upper == np.inf else int(upper)
    assert sum(probability[low:high]) >= confidence - 1e-12
    # And it is the narrowest: one rank more on a side would miss more than half the rest there.
    assert sum(probability[: low + 1]) > tail - 1e-12
    assert sum(probability[high - 1 :]) > tail - 1e-12
    np.testing.assert_allclose(found.value, np.quantile(values, q), rtol=1e-14)


def test_quantiles_leave_out_what_diverged_in_each_component():
    sample = RNG.standard_normal((2, 200))
    sample[0, ::3], sample[1, 7] = np.nan, np.inf
    found = of_sample(sample).quantile("v", 0.25)
    known = [np.quantile(row[np.isfinite(row)], 0.25) for row in sample]
    np.testing.assert_allclose(found.value[0], known, rtol=1e-14)
    assert np.all(found.lower < found.value)
    assert np.all(found.value < found.upper)


def test_no_path_left_has_no_quantile():
    gone = of_sample(np.full(4, np.nan)).quantile("v", 0.5)
    assert np.isnan(gone.value[0])
    assert (gone.lower[0], gone.upper[0]) == (-np.inf, np.inf)


@pytest.mark.parametrize("q", [0, 1, -0.1, np.nan])
def test_impossible_quantiles_are_refused(q):
    with pytest.raises(InputError, match="q must lie between 0 and 1"):
        ensemble().quantile("x", q)
    with pytest.raises(InputError, match="confidence must lie between 0 and 1"):
        ensemble().quantile("x", 0.5, confidence=q)


def test_xarray_holds_every_statistic_under_its_name():
    e = ensemble()
    data = e.to_xarray()
    np.testing.assert_array_equal(data["time"], e.time)
    for statistic in ("mean", "variance", "standard_error", "used"):
        for name in e.names:
            np.testing.assert_array_equal(data[f"{name}.{statistic}"], getattr(e, statistic)(name))
    np.testing.assert_array_equal(data["x.covariance"], e.covariance("x"))
    assert data["x.sample"].dims[-1] == "path"
    assert data.attrs["paths"] == N


def test_a_saved_ensemble_reads_back_bit_by_bit(tmp_path):
    e, path = ensemble(), tmp_path / "new" / "run.nc"
    e.save(path)
    back = load(path)
    assert (back.names, back.paths, back.metadata) == (e.names, e.paths, e.metadata)
    np.testing.assert_array_equal(back.time, e.time)
    np.testing.assert_array_equal(back.step, e.step)
    for name in e.names:
        for statistic in ("used", "mean", "variance", "standard_error"):
            old, new = (getattr(x, statistic)(name) for x in (e, back))
            np.testing.assert_array_equal(new, old, err_msg=f"{statistic} of {name}")
        np.testing.assert_array_equal(back.sample[name], e.sample[name])
        assert back.sample[name].dtype == e.sample[name].dtype
    np.testing.assert_array_equal(back.covariance("x"), e.covariance("x"))
    again = tmp_path / "again.nc"
    back.save(again)
    np.testing.assert_array_equal(load(again).variance("x"), e.variance("x"))
    assert [p.name for p in sorted(tmp_path.rglob("*.*"))] == ["again.nc", "run.nc"]


def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    import xarray

    path = tmp_path / "run.nc"
    ensemble().save(path)
    old = path.read_bytes()

    def fail(self, target, **options):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(xarray.Dataset, "to_netcdf", fail)
    for target in (path, tmp_path / "other.nc"):
        with pytest.raises(OSError, match="disk full"):
            ensemble().save(target)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_others_are_refused(tmp_path):
    import xarray

    text, foreign = tmp_path / "notes.nc", tmp_path / "foreign.nc"
    text.write_text("no NetCDF")
    xarray.Dataset({"a": ("t", np.arange(3))}).to_netcdf(foreign, engine="h5netcdf")
    for path, message in (
        (tmp_path / "missing.nc", "cannot be read"),
        (text, "cannot be read"),
        (tmp_path, "cannot be read"),
        (foreign, "holds no jaxsde ensemble"),
    ):
        with pytest.raises(InputError, match=message):
            load(path)


@pytest.mark.parametrize("missing", ["xarray", "h5netcdf"])
def test_missing_extras_are_named_with_the_command_that_brings_them(missing, tmp_path, monkeypatch):
    path = tmp_path / "run.nc"
    ensemble().save(path)
    real = importlib.import_module

    def without(name, *args):
        if name.split(".")[0] == missing:
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    for call in (lambda: ensemble().save(tmp_path / "new.nc"), lambda: load(path)):
        with pytest.raises(ImportError, match=r"pip install 'jaxsde\[io\]'") as caught:
            call()
        assert caught.value.name == missing
    assert list(tmp_path.iterdir()) == [path]
