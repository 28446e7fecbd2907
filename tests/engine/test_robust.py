import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from jaxsde import InputError, OptimizerProcess, clipped, of_state, simulate, with_covariance
from jaxsde.engine import Ensemble, Moments, evolve, start
from jaxsde.oracles import StudentTNoise
from jaxsde.problems import Quadratic

LAWS = {
    "normal": scipy.stats.norm(),
    "lognormal": scipy.stats.lognorm(1),
    "t_1.5": scipy.stats.t(1.5),
    "Cauchy": scipy.stats.cauchy(),
}
REPEATS = 500


def of_sample(values):
    """An ensemble with a sample `(T, ..., s)` alone."""
    values = np.asarray(values)
    T, size = len(values), values.shape[-1]
    moments = {"v": Moments(np.full(T, size), *[np.zeros(values.shape[:-1])] * 2)}
    time = np.arange(T)
    return Ensemble(1.0 * time, time, moments, {"v": values}, size, json.dumps({}))


def alarms(found, truth):
    """How many of the repeats are off by more than 1.96 standard errors."""
    return int(np.sum(np.abs(found.value - truth) > 1.96 * found.standard_error))


# Of 500 repeats 25 should be off. At true rates of 4 to 6 % fewer than 8 or more than 50 have a
# probability below 1e-3 in each test below. Errors a quarter too small would give 70.


@pytest.mark.parametrize("law", LAWS)
def test_medians_errors_cover_the_true_median(law):
    values = LAWS[law].rvs((REPEATS, 300), random_state=np.random.default_rng(1))
    found = of_sample(values).median("v")
    np.testing.assert_allclose(found.value, np.median(values, axis=-1), rtol=1e-14)
    assert 8 <= alarms(found, LAWS[law].median()) <= 50


@pytest.mark.parametrize("cut", [0.05, 0.2])
@pytest.mark.parametrize("law", LAWS)
def test_trimmed_means_errors_cover_the_true_trimmed_mean(law, cut):
    values = LAWS[law].rvs((REPEATS, 300), random_state=np.random.default_rng(2))
    found = of_sample(values).trimmed_mean("v", cut)
    truth, z = 0.0, scipy.stats.norm.isf(cut)
    if law == "lognormal":  # E[e^Z | |Z| < z]
        inside = scipy.stats.norm.cdf(z - 1) - scipy.stats.norm.cdf(-z - 1)
        truth = np.exp(0.5) * inside / (1 - 2 * cut)
    assert 8 <= alarms(found, truth) <= 50


def test_errors_are_the_asymptotic_ones():
    # √n e → 1 / (2 p(0)) = π/2 for Cauchy's median, √(Winsorised variance) / (1 - 2 cut) for the
    # normal's trimmed mean. The average over 50 rows of 4,000 is off by 2 % at one sigma or less.
    rng = np.random.default_rng(3)
    cauchy = of_sample(rng.standard_cauchy((50, 4000))).median("v").standard_error
    assert np.mean(cauchy) * np.sqrt(4000) == pytest.approx(np.pi / 2, rel=0.06)
    z = scipy.stats.norm.isf(0.1)
    winsorized = 0.8 - 2 * z * scipy.stats.norm.pdf(z) + 2 * 0.1 * z**2
    normal = of_sample(rng.normal(size=(50, 4000))).trimmed_mean("v", 0.1).standard_error
    assert np.mean(normal) * np.sqrt(4000) == pytest.approx(np.sqrt(winsorized) / 0.8, rel=0.01)


def both(values):
    ensemble = of_sample(values)
    return ensemble.median("v"), ensemble.trimmed_mean("v")


def test_what_diverged_is_left_out_in_each_component():
    rng = np.random.default_rng(4)
    values = rng.standard_cauchy((2, 3, 200)).astype(np.float32)
    values[0, 0, ::3], values[1, 2, 5], values[1, 2, 9] = np.nan, np.inf, -np.inf
    for i, found in enumerate(both(values)):
        assert found.value.shape == found.standard_error.shape == (2, 3)
        for row in np.ndindex(2, 3):
            kept = values[row][np.isfinite(values[row])]
            alone = both(kept[None])[i]
            np.testing.assert_array_equal(found.value[row], alone.value[0])
            np.testing.assert_array_equal(found.standard_error[row], alone.standard_error[0])


def test_what_too_few_values_leave_undefined_is_nan():
    for values, known in (([np.nan, np.inf], (0, 0)), ([np.nan, 2], (1, 0)), ([2, 2, 2], (1, 1))):
        for found in both(np.array([values], float)):
            assert np.isfinite(found.value[0]) == known[0]
            assert np.isfinite(found.standard_error[0]) == known[1]
    for found in both(np.full((1, 50), 2.0)):
        assert (found.value[0], found.standard_error[0]) == (2, 0)


def test_size_and_place_of_the_values_do_not_matter():
    values = np.random.default_rng(5).standard_cauchy((1, 201))
    plain = both(values)
    for scale, shift in ((1e300, 0), (1e-200, 0), (1.0, 1e6)):
        for found, known in zip(both(values * scale + shift), plain, strict=True):
            np.testing.assert_allclose(found.value, known.value * scale + shift, rtol=1e-9)
            np.testing.assert_allclose(found.standard_error / scale, known.standard_error, 1e-8)
    values[0, :2] = 1e300, -1e300  # any two outliers
    np.testing.assert_allclose(both(values)[0].standard_error, plain[0].standard_error, rtol=0.2)


def test_one_path_is_heavy_where_the_variance_is_infinite():
    # The median over 20 times of Cauchy's share is 0.63; below 0.3 its probability is under 1e-4.
    rng = np.random.default_rng(6)
    values = rng.standard_cauchy((20, 4096))
    assert of_sample(values).heaviest("v") > 0.3
    assert of_sample(rng.normal(size=(20, 4096))).heaviest("v") < 0.01
    # In fewer only more than half counts: a tenth has the squared normals' path one time in two.
    few = rng.standard_t(1.5, (20, 300)) ** 2  # the median share is 0.75
    assert of_sample(few).heaviest("v") > 0.5
    assert of_sample(few[:, :99]).heaviest("v") == 0
    assert of_sample(rng.normal(size=(20, 300)) ** 2).heaviest("v") == 0
    assert of_sample(np.ones((3, 4096))).heaviest("v") == 0
    one = np.zeros((1, 4096))
    one[0, :4] = 3e200, 1e200, np.nan, np.inf  # whose squares overflow
    assert of_sample(one).heaviest("v") == pytest.approx(0.9)


@pytest.mark.parametrize("cut", [0, 0.5, -0.1, np.nan])
def test_impossible_cuts_are_refused(cut):
    with pytest.raises(InputError, match="cut must lie between 0 and 1/2"):
        of_sample(np.ones((1, 9))).trimmed_mean("v", cut)


def test_unknown_names_are_refused():
    for statistic in (Ensemble.median, Ensemble.trimmed_mean, Ensemble.heaviest):
        with pytest.raises(InputError, match="unknown observable 'w'"):
            statistic(of_sample(np.ones((1, 9))), "w")


ORACLE = StudentTNoise(Quadratic([1.0]), 1.0, 1.0)
CAUCHY = OptimizerProcess(optax.sgd, {"learning_rate": 1.0}, ORACLE)  # x⁺ = -Z
X0 = np.zeros(1, np.float32)


def of_cauchy(key, paths=20_000, **observables):
    return simulate(CAUCHY, X0, steps=1, paths=paths, key=key, observables=observables, records=1)


def test_a_clipped_mean_is_over_all_paths_and_has_its_closed_form(key):
    # E min(|X|, c) = ∫₀ᶜ P(|X| > t) dt. Three 5-sigma tests: false alarms below 2e-6.
    bounds = np.array([0.5, 3.0, 50.0])
    run = of_cauchy(key, **{f"{c}": clipped(jnp.abs, None, c) for c in bounds})
    exact = bounds - (2 * bounds * np.arctan(bounds) - np.log1p(bounds**2)) / np.pi
    for c, mean in zip(bounds, exact, strict=True):
        found, error = run.mean(f"{c}")[-1, 0], run.standard_error(f"{c}")[-1, 0]
        assert abs(found - mean) < 5 * error
        assert 0 < error < c / np.sqrt(20_000)
        assert run.diverged(f"{c}")[-1] == 0
        assert run.sample[f"{c}"].max() == np.float32(c)


def overflowing(x):
    """Above 0 +inf, below -1 nan, -inf between."""
    return jnp.where(x > 0, jnp.inf, jnp.where(x < -1, jnp.nan, -jnp.inf))


def test_what_diverged_counts_at_the_bound_and_nan_not_at_all(key):
    run = of_cauchy(
        key, 4096, x=lambda x: x,
        both=clipped(overflowing, -1, 3), one=clipped(overflowing, None, 3),
    )  # fmt: skip
    x = run.sample["x"][-1, 0]
    up, gone = np.sum(x > 0), np.sum(x < -1)
    assert run.diverged("both")[-1] == gone
    mean = (3 * up - (4096 - up - gone)) / (4096 - gone)
    np.testing.assert_allclose(run.mean("both")[-1], mean, rtol=1e-5)
    assert run.used("one")[-1] == up


def test_marks_combine_in_any_order():
    def fn(x):
        return x

    marks = [
        clipped(with_covariance(of_state(fn)), 0, 1),
        with_covariance(clipped(of_state(fn), 0, 1)),
        of_state(with_covariance(clipped(fn, 0, 1))),
    ]
    for mark in marks:
        assert (mark.of_state, mark.covariance) == (True, True)
        np.testing.assert_array_equal(mark.fn(jnp.array([-2.0, 0.5, 2.0])), [0, 0.5, 1])
    np.testing.assert_array_equal(
        clipped(clipped(fn, 0, None), None, 1).fn(jnp.arange(3)), [0, 1, 1]
    )


def test_other_bounds_do_not_recompile(key):
    traced = []

    def fn(x):
        traced.append(x)
        return x

    runs = [of_cauchy(key, 64, v=clipped(fn, -c, c)) for c in (1.0, 2.0)]
    first = len(traced)
    runs.append(of_cauchy(key, 64, v=clipped(fn, -3.0, 3)))
    assert len(traced) == first
    assert [np.abs(run.sample["v"]).max() for run in runs] == [1, 2, 3]

    def mean(c):
        observables = {"v": clipped(jnp.abs, None, c)}
        paths = start(CAUCHY, X0, key, 64)
        return evolve(CAUCHY, paths, key, 0, 0, jnp.array([1]), observables)[1]["v"].moments.mean

    means = jax.jit(jax.vmap(chex.assert_max_traces(mean, n=1)))
    for bounds in (np.array([1.0, 2.0]), np.array([3.0, 4.0])):
        assert np.all(np.diff(means(bounds)[:, 0, 0]) > 0)


def test_a_changed_bound_is_another_run_to_a_checkpoint(key, tmp_path):
    def run(c):
        observables = {"v": clipped(jnp.abs, None, c)}
        return simulate(
            CAUCHY, X0, steps=1, paths=64, key=key, observables=observables, records=1,
            checkpoint=tmp_path / "run",
        )  # fmt: skip

    run(1.0)
    run(1.0)
    with pytest.raises(InputError):
        run(2.0)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (None, None, "needs a bound"),
        (1, 1, "low must be below high, got 1 and 1"),
        (2, -1.5, "low must be below high"),
        (np.nan, None, "low must be one finite number"),
        (0, np.inf, "high must be one finite number"),
        (0, 1e60, "high must be one finite number"),
        ("0", 1, "low must be one finite number"),
        (0, [1.0, 2.0], "high must be one finite number"),
        (0, True, "high must be one finite number"),
    ],
)
def test_impossible_bounds_are_refused(low, high, message):
    with pytest.raises(InputError, match=message):
        clipped(jnp.abs, low, high)
