import collections
import json

import jax
import numpy as np
import optax
import pytest
import scipy.stats

from jaxsde import Draw, InputError, OptimizerProcess, RandomStart, theory
from jaxsde.analysis.stationarity import _densities as densities
from jaxsde.analysis.stationarity._evidence import series
from jaxsde.analysis.stationarity._stationary import stationarity, stationary
from jaxsde.engine import Ensemble, Moments, Normal
from jaxsde.oracles import GaussianNoise, StudentTNoise
from jaxsde.plotting._stationary import stationary as figure_of
from jaxsde.problems import DoubleWell, Quadratic

QUADRATIC = Quadratic([1.0, 3.0])
ETA = 0.05
NEAR = np.ones(2, np.float32)
APART = {"right": 3 * NEAR, "left": -3 * NEAR}


def sgd(oracle, eta=ETA):
    return OptimizerProcess(optax.sgd, {"learning_rate": eta}, oracle)


def run(oracle, starts, seed=0, eta=ETA, **settings):
    settings = {"steps": 600, "paths": 4000, "records": 40} | settings
    return stationary(sgd(oracle, eta), starts, key=jax.random.key(seed), **settings)


def ensemble(values, key, shape=(), dtype="float64"):
    """An ensemble of given values `(T, c, paths)`."""
    T, _, paths = values.shape
    values = values.reshape(T, *shape, paths)
    moments = Moments(np.full(T, paths), values.mean(-1), values.var(-1) * paths)
    time = np.arange(T, dtype=float)
    metadata = json.dumps({"key": key, "dtype": dtype})
    return Ensemble(time, time.astype(int), {"x": moments}, {"x": values}, paths, metadata)


def autoregression(rng, x0, memory=0.5, records=20, paths=300):
    """x ← m x + √(1 - m²) ξ, of the stationary law N(0, 1); no x0 starts in it."""
    values = np.empty((records, 1, paths))
    x = rng.normal(size=paths) if x0 is None else np.full(paths, float(x0))
    for t in range(records):
        values[t] = x
        x = memory * x + np.sqrt(1 - memory**2) * rng.normal(size=paths)
    return values


def of(*runs, confidence=0.95, **settings):
    named = {f"s{i}": ensemble(values, [0, i], **settings) for i, values in enumerate(runs)}
    return stationarity(named, confidence=confidence)


@pytest.fixture(scope="module")
def settled():
    return run(GaussianNoise(QUADRATIC, 0.5), APART)


@pytest.fixture(scope="module")
def wells():
    x = np.ones(1, np.float32)
    return run(GaussianNoise(DoubleWell(), 1.0), {"right": x, "left": -x})


@pytest.fixture(scope="module")
def cauchy():
    return run(StudentTNoise(QUADRATIC, 0.5, 1.0), APART)


def test_sgd_on_a_quadratic_is_stationary_with_the_law_of_theory(settled):
    """8 normal statistics within 4 s.e.: a false alarm has a probability below 6e-4."""
    assert settled.conclusion == "stationary"
    noise = np.full(2, 0.25)
    C = theory.gradient_descent.stationary_covariance(QUADRATIC, noise, ETA, theory.discrete)
    mean, variance, median = settled.moments("position")
    assert np.all(np.abs(variance.value - np.diag(C)) < 4 * variance.standard_error)
    assert np.all(variance.standard_error < 0.01 * np.diag(C))
    for center in (mean, median):
        assert np.all(np.abs(center.value) < 4 * center.standard_error)
    loss, level = settled.moments("loss").mean, np.sum([1.0, 3.0] * np.diag(C)) / 2
    assert abs(loss.value - level) < 4 * loss.standard_error
    for i, spread in enumerate(np.sqrt(np.diag(C))):
        found = settled.distances("position", scipy.stats.norm(0, spread), i)
        assert found.p_value > 1e-4
        assert found.wasserstein.value < 3 * found.wasserstein.noise
    q = settled.quantile("position", 0.9, confidence=0.999)
    exact = scipy.stats.norm.ppf(0.9) * np.sqrt(np.diag(C))
    assert np.all((q.lower < exact) & (exact < q.upper))
    assert 2 < settled.agreed("position") < 8  # from 6 apart the difference is e^-t 6
    assert "(4,000 paths from each of 2 starts (right, left), 95% confidence" in settled.verdict


def test_a_double_well_is_not_stationary_and_one_start_cannot_tell(wells):
    assert wells.conclusion == "not stationary: the starts differ"
    assert "the mean over the window from right less that from left is 1.9" in wells.verdict
    assert wells.agreed("position") == np.inf
    assert not wells.differ("loss")  # which is the same in both wells
    for method in (wells.sample, wells.moments, wells.histogram, wells.density):
        with pytest.raises(InputError, match="the starts differ, so there is no one law"):
            method("loss")
    for start, sign in (("right", 1), ("left", -1)):
        one = stationarity({start: wells.runs[start]})
        assert one.conclusion == "settled from this start"
        assert one.verdict.startswith("settled from this start (4,000 paths")
        assert "One start cannot tell the stationary law from that of a well" in one.verdict
        assert one.moments("position").mean.value[0] == pytest.approx(0.976 * sign, abs=0.01)
        assert wells.moments("position", start).mean == one.moments("position").mean


def test_cauchy_noise_has_no_stationary_mean(cauchy):
    assert cauchy.conclusion == "stationary"
    for name in ("loss", "position"):
        mean, variance, median = cauchy.moments(name)
        assert np.all(np.isnan([mean, variance]))
        assert np.all(np.isfinite(median))
        assert cauchy.evidence[name].statistic == "median"
    value, error = cauchy.moments("position").median
    assert np.all(np.abs(value) < 4 * error)  # false with a probability of 1e-4
    loss, position = cauchy.verdict.splitlines()[1:]
    assert loss.startswith("loss: No mean exists, tail index 0.")  # f ~ x² has half of x's
    assert position.startswith("position: No mean is shown to exist, tail index ")
    assert "Median" in loss
    for line in (loss, position):
        assert "the mean" not in line
        assert "Mean" not in line


def test_the_stationary_median_of_cauchy_noise_has_its_scale(cauchy):
    """x is a sum of Cauchy's: its scale is ση Σ|1 - ηλ|^k = σ/λ, its quartile. 4 s.e.: 6e-5."""
    q = cauchy.quantile("position", 0.75, confidence=0.99993)
    exact = 0.5 / np.array([1.0, 3.0])
    assert np.all((q.lower < exact) & (exact < q.upper))


def test_each_error_needs_twice_the_moment():
    """Indices 1.5, 3 and ∞ have a mean, a variance, all; far from the edges, so never mistaken."""
    rng = np.random.default_rng(13)
    laws = {1.5: rng.standard_t(1.5, (8, 1, 40_000)), 3: rng.standard_t(3, (8, 1, 40_000))}
    laws[np.inf] = rng.normal(size=(8, 1, 40_000))
    for index, values in laws.items():
        mean, variance, _ = of(values).moments("x")
        known = [bool(np.isfinite(part)) for part in (*mean, *variance)]
        assert known == [order < index for order in (1, 2, 2, 4)]


def test_all_starts_together_have_half_the_variance_of_two(settled):
    for together, *apart in zip(
        settled.moments("position"),
        *(settled.moments("position", start) for start in APART),
        strict=True,
    ):
        np.testing.assert_allclose(together.value, np.mean([a.value for a in apart], axis=0))
        errors = np.hypot(*(a.standard_error for a in apart)) / 2
        np.testing.assert_allclose(together.standard_error, errors)
    e = settled.evidence["position"]
    np.testing.assert_array_equal(e.difference.value[0], e.level.value[0] - e.level.value[1])
    np.testing.assert_array_equal(e.difference.standard_error[0], np.hypot(*e.level.standard_error))
    means, errors = zip(*(settled.curve("position", start) for start in APART), strict=True)
    np.testing.assert_array_equal(e.curve.value[:, 0], means[0] - means[1])
    np.testing.assert_allclose(e.curve.standard_error[1:, 0], np.hypot(*errors)[1:], rtol=1e-3)


def test_the_false_alarm_rate_is_below_what_it_should_be():
    """At 80 % confidence at most 20 of 100: P(more than 32 | 20 %) < 2e-3.

    The union bound makes it half of that, measured 10 % over 400.
    """
    rng, found = np.random.default_rng(1), collections.Counter()
    for _ in range(100):
        found[of(*(autoregression(rng, x0) for x0 in (6, -6)), confidence=0.8).conclusion] += 1
    assert 100 - found["stationary"] <= 32
    assert found["stationary"] < 100  # else P(none | 10 %) < 3e-5


def test_a_start_that_has_not_relaxed_drifts():
    rng = np.random.default_rng(2)
    slow = [autoregression(rng, x0, 0.97, 30, 2000) for x0 in (2, -2)]
    result = of(*slow)
    assert result.conclusion == "not stationary: the starts differ"
    assert "Still drifting from s" in result.verdict
    assert of(slow[0]).conclusion == "not stationary: still drifting"
    change = result.evidence["x"].drift.value[0, 0]
    t = np.arange(30)
    exact = 2 * (np.mean(0.97 ** t[23:]) - np.mean(0.97 ** t[15:23]))
    assert abs(change - exact) < 4 * result.evidence["x"].drift.standard_error[0, 0]


def test_a_spreading_law_drifts_though_its_mean_does_not():
    rng = np.random.default_rng(3)
    walks = [np.cumsum(rng.normal(size=(40, 1, 3000)), axis=0) for _ in range(2)]
    assert not any(of(*walks).found("x", "drift").ravel())
    assert of(*walks).conclusion == "not stationary: still drifting"
    assert "still changes within the window" in of(walks[0]).verdict


def test_paths_that_stay_where_they_were_are_not_stationary():
    """Two random starts share the wells between them alike, and neither ever drifts."""
    rng = np.random.default_rng(4)

    def frozen(shift):
        well = np.where(rng.uniform(size=2000) < 0.5, 1.0, -1.0)
        values = well + 0.1 * rng.normal(size=(20, 1, 2000))
        values[0] += shift
        return values

    result = of(frozen(0.5), frozen(-0.5))
    assert result.conclusion == "not shown to be stationary: the paths remember where they were"
    assert result.evidence["x"].memory.value == pytest.approx(0.75, abs=0.06)  # 1 - 1/4 of ranks
    assert np.all(result.evidence["x"].relaxation == np.inf)


def test_starts_that_only_just_agree_are_told_to_run_longer():
    rng = np.random.default_rng(5)
    late = [autoregression(rng, x0, 0.5, 40, 2000) for x0 in (0, 0)]
    late[0][21] += 0.6
    late[0][22] -= 0.6  # so that no average of the window differs
    result = of(*late)
    assert result.agreed("x") == 23
    assert result.conclusion == "not stationary: the starts differ"
    assert "they agree only from t = 23 on, within the window; run longer" in result.verdict
    assert "The starts differ until t = 23, within the window" in result.verdict


def test_equal_starts_show_nothing():
    rng = np.random.default_rng(6)
    result = of(*(autoregression(rng, 3) for _ in range(2)))
    assert result.conclusion == "settled from starts that nothing observed tells apart"
    assert not result.dispersed


def test_relaxation_and_memory_are_those_of_the_chain():
    rng = np.random.default_rng(7)
    values = autoregression(rng, None, 0.9, 60, 40_000)
    e = of(values).evidence["x"]
    # Spearman's of normals is (6/π) asin(ρ/2); known to 1/√n; the slope at 1/e is 0.04 a step.
    lag = np.arange(60)
    exact = np.interp(-np.exp(-1), -6 / np.pi * np.arcsin(0.9**lag / 2), lag)
    assert e.relaxation[0, 0] == pytest.approx(exact, abs=4 / 200 / 0.033)
    assert e.memory.value[0, 0] == pytest.approx(6 / np.pi * np.arcsin(0.9**29 / 2), abs=4 / 200)


@pytest.mark.parametrize("statistic", ["mean", "variance", "median"])
def test_errors_of_time_averages_are_exact(statistic):
    """The spread of 150 averages against their error: 6 % is one s.e. of a standard deviation."""
    rng, weights = np.random.default_rng(8), np.repeat([0, 1 / 10], 10)
    found, errors = [], []
    for _ in range(150):
        one = ensemble(autoregression(rng, None, 0.9, 20, 400), [0, 0])
        value, error = series(one, "x", statistic).combined(weights)
        found.append(value[0])
        errors.append(error[0])
    assert np.std(found, ddof=1) / np.mean(errors) == pytest.approx(1, abs=0.24)
    bias = np.mean(found) - {"mean": 0, "variance": 1, "median": 0}[statistic]
    assert abs(bias) < 4 * np.std(found) / np.sqrt(150)


def test_the_error_of_a_variance_at_one_time_is_that_of_the_fourth_moment():
    v = np.random.default_rng(9).gamma(2.0, size=(1, 1, 3000))
    _, error = series(ensemble(v, [0, 0]), "x", "variance").combined(np.ones(1))
    m2, m4 = (scipy.stats.moment(v.ravel(), p) for p in (2, 4))
    assert error[0] == pytest.approx(np.sqrt((m4 - m2**2) / 3000), rel=1e-3)


def test_many_paths_beyond_the_sample_shrink_the_error():
    run = ensemble(np.random.default_rng(10).normal(size=(4, 1, 1000)), [0, 0])
    moments = run.moments["x"]
    more = Moments(4 * moments.used, moments.mean, 4 * moments.deviation)
    larger = Ensemble(run.time, run.step, {"x": more}, run.sample, 4000, run.metadata)
    weights = np.full(4, 0.25)
    errors = [series(one, "x", "mean").combined(weights).standard_error for one in (run, larger)]
    np.testing.assert_allclose(errors[0], 2 * errors[1], rtol=1e-6)


def test_divergence_is_counted_and_named():
    x = np.ones(1, np.float32)
    wide = RandomStart(Draw((1,), Normal()), lambda xi: 3 * xi)
    result = run(GaussianNoise(DoubleWell(), 1.0), {"right": x, "wide": wide}, steps=200)
    assert result.conclusion == "not stationary: the starts differ, given survival"
    assert "conditional on survival: left are 9" in result.verdict
    lost = run(GaussianNoise(DoubleWell(), 3.0), {"right": x, "left": -x}, eta=2.0, steps=100)
    assert lost.conclusion == "no path is left of a start"
    assert lost.verdict.count("\n") == 0
    with pytest.raises(InputError, match="0 values of 'loss' are left"):
        lost.histogram("loss", start="right")


def test_starts_in_a_list_have_numbers_and_one_is_enough():
    result = run(GaussianNoise(QUADRATIC, 0.5), [3 * NEAR])
    assert result.starts == ("start 1",)
    assert result.pairs == ()
    assert result.conclusion == "settled from this start"
    calls = []
    run(GaussianNoise(QUADRATIC, 0.5), [NEAR, -NEAR], progress=calls.append)
    assert calls[-1].done == calls[-1].total == 2 * 4000 * 600
    assert [call.done for call in calls] == sorted(call.done for call in calls)


def test_the_starts_have_noise_of_their_own(settled):
    keys = [settled.runs[name].settings["key"] for name in APART]
    assert keys[0] != keys[1]
    samples = [settled.sample("loss", name) for name in APART]
    assert abs(np.corrcoef(samples)[0, 1]) < 5 / np.sqrt(4000)


def test_histograms_and_densities_with_their_errors():
    """120 bins and points of normals within 4.5 s.e.: below 1e-3. Smoothing is left 5 %."""
    values, normal = np.random.default_rng(11).normal(size=10_000), scipy.stats.norm()
    found = densities.histogram(values, 40)
    exact = np.diff(normal.cdf(found.edges)) / np.diff(found.edges)
    some = found.density * values.size * np.diff(found.edges) > 20
    assert np.all(np.abs(found.density - exact)[some] < 4.5 * found.standard_error[some])
    assert np.sum(found.density * np.diff(found.edges)) == pytest.approx(1 - found.outside)
    assert found.outside == 0
    chance, width = exact * np.diff(found.edges), np.diff(found.edges)
    binomial = scipy.stats.binom.std(values.size, chance) / (values.size * width)
    np.testing.assert_allclose(found.standard_error[some], binomial[some], rtol=0.6)
    np.testing.assert_allclose(np.sum(found.standard_error), np.sum(binomial), rtol=0.03)
    x = np.linspace(-2, 2, 80)
    smooth = densities.density(values, x)
    off = np.abs(smooth.density - normal.pdf(x))
    assert np.all(off < 4.5 * smooth.standard_error + 0.05 * normal.pdf(x))
    again = [densities.density(normal.rvs(2000, random_state=i), x).density for i in range(40)]
    error = densities.density(values[:2000], x).standard_error
    assert np.mean(np.std(again, axis=0) / error) == pytest.approx(1, abs=0.12)


def test_heavy_tails_do_not_stretch_a_histogram(cauchy):
    found = cauchy.histogram("position", component=0)
    assert found.outside == pytest.approx(2 / np.pi * np.arctan(1 / 11), abs=0.015)
    assert 20 < len(found.density) < 300
    smooth = cauchy.density("position", component=0)
    assert smooth.density.max() == pytest.approx(1 / (np.pi * 0.5), rel=0.1)
    area = np.trapezoid(smooth.density, smooth.points)
    assert area == pytest.approx(1 - found.outside, abs=1e-3)


def test_the_figure_shows_each_start_and_the_law(settled, cauchy):
    law = scipy.stats.norm(0, 0.08)
    figure = figure_of(settled, {"position": [law, law]}, title="a title")
    rows = np.reshape(figure.axes, (3, 2))
    lines = {line.get_label(): line for line in rows[1, 0].get_lines()}
    for start in APART:
        mean = settled.runs[start].mean("position")[:, 0]
        np.testing.assert_array_equal(lines[f"from {start}"].get_ydata(), mean)
    (drawn,) = rows[1, 1].get_lines()
    np.testing.assert_allclose(drawn.get_ydata(), law.pdf(drawn.get_xdata()))
    assert rows[0, 0].get_title("left") == "stationary"
    assert rows[1, 0].get_ylabel() == "mean position[0]"
    heavy = figure_of(cauchy).axes[0]
    assert heavy.get_ylabel() == "median loss"
    with pytest.raises(InputError, match="unknown observable 'positions'"):
        figure_of(settled, {"positions": law})


def test_bad_input(settled):
    oracle = GaussianNoise(QUADRATIC, 0.5)
    for starts, settings, match in (
        ([], {}, "at least one start"),
        (NEAR, {}, "starts must be a list"),
        ([np.ones(3, np.float32)], {}, "shape"),
        ([NEAR], {"paths": 50}, "paths must be a whole number of at least 100"),
        ([NEAR], {"burn_in": 1.0}, "burn_in must lie between 0 and 1"),
        ([NEAR], {"confidence": 0}, "confidence must lie between 0 and 1"),
    ):
        with pytest.raises(InputError, match=match):
            run(oracle, starts, **settings)
    with pytest.raises(InputError, match="the same key"):
        stationarity({"a": settled.runs["left"], "b": settled.runs["left"]})
    rng = np.random.default_rng(12)
    one, other = (ensemble(autoregression(rng, 0, records=n), [0, n]) for n in (10, 12))
    with pytest.raises(InputError, match="different times"):
        stationarity({"a": one, "b": other})
    with pytest.raises(InputError, match="at least 4 after the burn-in, got 3"):
        stationarity({"a": ensemble(autoregression(rng, 0, records=6), [0, 0])})
    line = ensemble(autoregression(rng, 0, records=10), [0, 1], shape=(1,))
    with pytest.raises(InputError, match="the starts differ in shape"):
        stationarity({"a": one, "b": line})
    for call, match in (
        (lambda: settled.sample("position", "top"), "unknown start 'top'"),
        (lambda: settled.moments("los"), "unknown observable 'los'"),
        (lambda: settled.quantile("loss", 1.0), "q must lie"),
        (lambda: settled.histogram("position"), r"one index into shape \(2,\)"),
        (lambda: settled.histogram("position", component=2), r"one index into shape \(2,\)"),
        (lambda: settled.histogram("loss", bins="many"), "bins must be"),
        (lambda: densities.density(np.ones(100)), "without spread"),
    ):
        with pytest.raises(InputError, match=match):
            call()


def test_only_what_is_observed_can_be_shown(settled):
    """f is the same at x and -x, which f alone does not tell apart."""
    runs = {
        name: Ensemble(
            one.time, one.step, {"loss": one.moments["loss"]}, {"loss": one.sample["loss"]},
            one.paths, one.metadata,
        )
        for name, one in settled.runs.items()
    }  # fmt: skip
    found = stationarity(runs).conclusion
    assert found == "settled from starts that nothing observed tells apart"
