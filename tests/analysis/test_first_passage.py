import json
import math

import jax
import numpy as np
import optax
import pytest
import scipy.stats

from jaxsde import (
    Ensemble,
    InputError,
    OptimizerProcess,
    Paired,
    SDEProcess,
    compare,
    load,
    simulate,
)
from jaxsde.analysis import FirstPassageTimes, first_passage, with_error
from jaxsde.engine import Estimate, Moments
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic
from jaxsde.processes import FirstPassage
from jaxsde.sdes import SGD

TIME = 0.5 + 0.25 * np.arange(9)


def ensemble(tau, prefix=""):
    """Of given passage times `(..., n)` at times up to 2.5, inf for those that never pass."""
    tau = np.asarray(tau, float)
    t = TIME.reshape(-1, *(1,) * tau.ndim)
    sample = {f"{prefix}passed": 1.0 * (tau <= t), f"{prefix}passage_time": np.minimum(tau, t)}
    n = tau.shape[-1]
    moments = {
        name: Moments(np.full(len(TIME), n), v.mean(-1), n * v.var(-1))
        for name, v in sample.items()
    }
    return Ensemble(TIME, np.arange(len(TIME)), moments, sample, n, json.dumps({"key": [0, 1]}))


def times(n, censored, seed=0):
    tau = np.random.default_rng(seed).choice(TIME, n)
    tau[:censored] = np.inf
    return tau


@pytest.mark.parametrize(("n", "censored"), [(1, 0), (7, 3), (50, 50), (200, 31)])
def test_the_distribution_is_kaplan_and_meiers(n, censored):
    tau = times(n, censored)
    found = first_passage(ensemble(tau))
    data = scipy.stats.CensoredData.right_censored(np.minimum(tau, TIME[-1]), tau > TIME[-1])
    known = scipy.stats.ecdf(data).cdf.evaluate(TIME)
    np.testing.assert_allclose(found.distribution.value, known, rtol=1e-14)
    assert found.censored == censored
    error = found.distribution.standard_error
    if n > 1:
        np.testing.assert_allclose(error, np.sqrt(known * (1 - known) / (n - 1)), atol=1e-15)
    np.testing.assert_array_equal(found.passed, np.sum(tau <= TIME[:, None], axis=-1))


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_interval_is_clopper_and_pearsons(confidence):
    n = 8
    found = first_passage(ensemble(np.append(TIME[1:], np.inf)[:n])).curve(confidence)
    assert found.time is TIME
    assert (found.lower[0], found.upper[-1]) == (0, 1)
    for i, k in enumerate(np.append(np.arange(n), n)):
        known = scipy.stats.binomtest(int(k), n).proportion_ci(confidence, "exact")
        assert (found.lower[i], found.upper[i]) == pytest.approx(known, rel=1e-9)
        assert found.value[i] == k / n


def test_means_are_restricted_where_a_path_is_censored():
    tau = np.stack([times(40, 0), times(40, 5)])
    found = first_passage(ensemble(tau))
    values = np.minimum(tau, 2.5)
    np.testing.assert_allclose(found.restricted_mean.value, values.mean(-1))
    error = values.std(-1, ddof=1) / np.sqrt(40)
    np.testing.assert_allclose(found.restricted_mean.standard_error, error)
    np.testing.assert_array_equal(found.censored, [0, 5])
    for known, mean in zip(found.restricted_mean, found.mean, strict=True):
        assert mean[0] == known[0]
        assert np.isnan(mean[1])


def of_sample(sample):
    """Passage times alone."""
    sample = np.sort(np.asarray(sample, float), axis=-1)
    none = Estimate(np.zeros(1), np.zeros(1))
    return FirstPassageTimes(TIME, none, none, sample, sample.shape[-1])


@pytest.mark.parametrize("n", [1, 5, 100, 500])
@pytest.mark.parametrize("q", [0.01, 0.07, 0.3, 0.5, 0.975])  # 0.07 * 100 is more than 7
@pytest.mark.parametrize("passed", [0.0, 0.3, 0.5, 1.0])
def test_quantiles_are_the_least_times_by_which_a_share_has_passed(n, q, passed):
    tau = np.random.default_rng(n).exponential(size=n)
    tau[round(passed * n) :] = np.inf
    found = of_sample(tau).quantile(q).value
    if round(passed * n) < q * n - 1e-9:
        assert found == np.inf
    else:
        assert np.sum(tau <= found) >= q * n - 1e-9
        assert np.sum(tau < found) < q * n - 1e-9


@pytest.mark.parametrize("n", [1, 5, 20, 101, 500])
@pytest.mark.parametrize("q", [0.01, 0.3, 0.5, 0.975])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_quantiles_intervals_cover_with_exact_binomial_probability(n, q, confidence):
    # The k-th smallest of n values is k, so the ends are ranks. B ~ Bin(n, q) values lie below
    # the true quantile, which is therefore in [τ₍ₗ₎, τ₍ᵤ₎] if l <= B < u.
    found = of_sample(np.arange(1, n + 1)).quantile(q, confidence)
    low = 0 if found.lower == -np.inf else int(found.lower)
    high = n + 1 if found.upper == np.inf else int(found.upper)
    probability = [math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(n + 1)]
    assert sum(probability[low:high]) >= confidence - 1e-12
    # And it is the narrowest: one rank more on a side would miss more than half the rest there.
    tail = (1 - confidence) / 2
    assert sum(probability[: low + 1]) > tail - 1e-12
    assert sum(probability[high - 1 :]) > tail - 1e-12


def test_censoring_moves_no_rank():
    tau = np.sort(np.random.default_rng(0).exponential(size=(3, 400)), axis=-1)
    cut = np.array([np.inf, tau[1, 210], tau[2, 190]])
    whole, censored = (
        of_sample(v).quantile(0.5) for v in (tau, np.where(tau < cut[:, None], tau, np.inf))
    )
    for known, found in zip(whole, censored, strict=True):
        np.testing.assert_array_equal(found, np.where(known < cut, known, np.inf))
    assert np.isfinite(censored.upper[0])
    assert np.isfinite(censored.value[1])
    assert censored.upper[1] == censored.value[2] == np.inf
    assert np.isfinite(censored.lower[2])


def test_a_sample_is_censored_by_whether_it_passed():
    """Not by its time, which is the last for a path that passes there."""
    found = first_passage(ensemble([2.5, np.inf, 0.5]))
    np.testing.assert_array_equal(found.sample, [0.5, 2.5, np.inf])


def test_the_verdict_says_what_cannot_be_known():
    all_passed, few = (first_passage(ensemble(times(400, censored))) for censored in (0, 300))
    lower = 0.025 ** (1 / 400)  # all of n pass with probability Pⁿ
    value, low, high = (v[()] for v in all_passed.quantile(0.5))
    mean = with_error(*all_passed.mean)
    assert all_passed.verdict == (
        f"first passage (400 paths): P(τ <= 2.5) = 1 [{lower:.4g}, 1], "
        f"median {value:.4g} [{low:.4g}, {high:.4g}], mean {mean}."
    )
    interval = scipy.stats.binomtest(100, 400).proportion_ci(0.95, "exact")
    least = with_error(*few.restricted_mean)
    assert few.verdict == (
        f"first passage (400 paths): P(τ <= 2.5) = 0.25 [{interval.low:.4g}, {interval.high:.4g}], "
        f"median > 2.5 [> 2.5, > 2.5], mean at least {least}: 300 have not passed, so E τ cannot "
        "be estimated and need not exist."
    )
    lines = first_passage(ensemble(np.stack([times(400, 0), times(400, 1)]))).verdict.split("\n")
    assert [line.split(" (")[0] for line in lines] == ["first passage 0", "first passage 1"]
    assert ["at least" in line for line in lines] == [False, True]


def test_a_side_of_a_pair_is_named():
    run = ensemble(times(20, 3), "sde.")
    assert first_passage(run, "sde").censored == 3
    with pytest.raises(InputError, match=r"unknown observable 'passed'; did you mean sde\.passed"):
        first_passage(run)
    with pytest.raises(InputError, match=r"unknown observable 'optimizer\.passed'"):
        first_passage(run, "optimizer")
    with pytest.raises(InputError, match="side must be"):
        first_passage(run, "difference")


@pytest.mark.parametrize("wrong", [0, 1, -0.1, np.nan])
def test_impossible_probabilities_are_refused(wrong):
    found = first_passage(ensemble(times(20, 3)))
    with pytest.raises(InputError, match="q must lie between 0 and 1"):
        found.quantile(wrong)
    for fn in (found.curve, lambda confidence: found.quantile(0.5, confidence)):
        with pytest.raises(InputError, match="confidence must lie between 0 and 1"):
            fn(wrong)


def survival(a, s, radius, steps, nodes=240):
    """P(τ > k | x_0 = 0) of x⁺ = a x + s ξ inside ±radius, by Gauss-Legendre quadrature."""
    y, w = (radius * v for v in np.polynomial.legendre.leggauss(nodes))
    density, found = scipy.stats.norm.pdf(y, 0, s), [1.0]
    kernel = scipy.stats.norm.pdf(y[:, None] - a * y, 0, s) * w
    for _ in range(steps):
        found.append(w @ density)
        density = kernel @ density
    return np.array(found)


def test_an_optimizers_and_its_sdes_exits_differ_as_they_should(key, tmp_path):
    """SGD against its SDE with 4 substeps, both asked once a step of SGD; exact laws of both."""
    eta, h, s, steps, radius = 0.25, 1.0, 4, 24, 0.5
    oracle = GaussianNoise(Quadratic([h]), 1.0)
    optimizer = OptimizerProcess(optax.sgd, {"learning_rate": eta}, oracle)
    pair = Paired(optimizer, SDEProcess(SGD(oracle, eta), eta / s), s)
    process = FirstPassage(pair, lambda x: abs(x[0]) < radius)
    run = simulate(process, np.zeros(1, np.float32), steps=steps, paths=20_000, key=key, records=6)
    b = 1 - eta * h / s  # s substeps are x⁺ = bˢ x + η √(Σ b²ʲ / s) ξ
    laws = {
        "optimizer": survival(1 - eta * h, eta, radius, steps),
        "sde": survival(b**s, eta * np.sqrt(np.mean(b ** (2 * np.arange(s)))), radius, steps),
    }
    found = compare(run).differences
    for side, law in laws.items():
        times = first_passage(run, side)
        # 6 scores of P(τ <= t), one of E min(τ, t), on each side: beyond 5 with 6e-7 each.
        error = np.sqrt(law * (1 - law) / run.paths)[4::4]
        assert np.all(np.abs(times.distribution.value[1:] - (1 - law[4::4])) < 5 * error)
        mean, error = times.restricted_mean
        assert abs(mean - eta * np.sum(law[:-1])) < 5 * error
        # The interval of the median, at a level of 1e-6.
        median = eta * np.argmax(law <= 0.5)
        interval = times.quantile(0.5, 1 - 1e-6)
        assert interval.lower <= np.float32(median) <= interval.upper
    exact = (laws["sde"] - laws["optimizer"])[::4]
    passed = found["passed"]
    assert np.all(np.abs(passed.value - exact) <= 5 * passed.standard_error)  # 6 scores
    assert passed.shown
    assert found["passage_time"].shown
    # One noise on both sides: independent ones would add their variances.
    variances = [run.variance(f"{side}.passed")[-1] / run.paths for side in laws]
    assert passed.standard_error[-1] ** 2 < sum(variances) / 2
    run.save(tmp_path / "run.nc")
    read = first_passage(load(tmp_path / "run.nc"), "sde")
    jax.tree.map(np.testing.assert_array_equal, vars(read), vars(first_passage(run, "sde")))
