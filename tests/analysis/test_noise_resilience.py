import jax
import numpy as np
import optax
import pytest
import scipy.stats

from jaxsde import InputError, OptimizerProcess, simulate, theory
from jaxsde.analysis.sweeps import _noise_levels
from jaxsde.analysis.sweeps._noise_resilience import (
    SUMS,
    LossAverage,
    NoiseResilience,
    noise_resilience,
)
from jaxsde.oracles import GaussianNoise
from jaxsde.plotting._noise_resilience import noise_resilience as figure_of
from jaxsde.problems import Quadratic

SETTING = _noise_levels.Setting(Quadratic(np.array([1.0, 2.0])), 0.02, 1.0, 0.9, 0.999)
RUN = {
    "scales": (0.5, 5.0, 20.0), "batch_sizes": (1, 16), "learning_rate": 0.02, "paths": 64,
    "key": jax.random.key(5),
}  # fmt: skip


@pytest.fixture(scope="module")
def found():
    """At μ = 1, L = 2, so that tr H < L d."""
    seen = []
    result = noise_resilience(SETTING.problem, **RUN, progress=seen.append)
    assert seen[-1].done == seen[-1].total
    assert np.all(np.diff([now.done for now in seen]) >= 0)
    return result


def test_levels_follow_the_laws(found):
    """30 levels within 4.5 errors: by Bonferroni a false alarm in 5,000 keys.

    Adam's laws hold the second moment at its mean; 1 % is left for its fluctuations.
    """
    data = found.dataset
    off = abs(data["loss"] - data["law"])
    allowed = 4.5 * data["standard_error"]
    adaptive = data["optimizer"].isin(["adam", "adam-l2", "adamw"])
    assert np.all(off <= allowed + adaptive * 0.01 * data["law"])
    assert np.all(data["standard_error"] < 0.05 * data["loss"])
    assert np.all(found.stationary)
    drifts = (data["drift"] / data["drift_error"]).values
    assert 0.3 < np.sqrt(np.mean(drifts**2)) < 2.5
    assert np.all(data["used"] == 64)


def test_errors_are_those_of_averages_over_time(found):
    """Of SGD: y ∼ AR(1) with q = 1 - η λ and variance v, Cov(y₀², y_k²) = 2 v² q^(2k).

    An error found from 64 paths is itself good to 9 %.
    """
    data = found.dataset.sel(optimizer="sgd")
    n, sigma, B = int(data["steps"]) // 2, data["scale"], data["batch_size"]
    lag = np.arange(1, n)
    variance = 0.0
    for lam in (1.0, 2.0):
        q = 1 - 0.02 * lam
        v = 0.02**2 * sigma**2 / B / (1 - q**2)
        correlated = (n + 2 * np.sum((n - lag) * q ** (2 * lag))) / n**2
        variance = variance + (lam / 2) ** 2 * 2 * v**2 * correlated
    ratio = data["standard_error"] / np.sqrt(variance / 64)
    assert np.all(abs(ratio - 1) < 0.4)


def test_exponents_tell_the_optimizers_apart(found):
    """Slopes between σ = 5 and 20, whose errors are below 0.04."""
    slopes = found.exponent.isel(batch_size=0)
    expected = {"sgd": 2.0, "sign_sgd": 1.0, "adam": 1.0, "adam-l2": 1.0}
    for method, slope in expected.items():
        assert abs(float(slopes.sel(optimizer=method)) - slope) < 0.16
    assert float(slopes.sel(optimizer="adamw")) < 0.2


def test_bounds_hold_where_their_hypotheses_do(found):
    """Laws are below them up to a relative order η L √B/σ; equation 4 as printed is not one."""
    data = found.dataset
    order = 0.02 * 2 * np.sqrt(data["batch_size"]) / data["scale"]
    assert np.all(data["law"] <= data["bound"] * (1 + order))
    assert np.all(data["bound"] <= data["published"].where(data["optimizer"] != "sign_sgd", np.inf))
    saturated = 0.02 * 3.0 / (2 * 1.0 * (1 + 1 / 2))
    assert np.all(data["loss"].sel(optimizer="adamw") < saturated)
    assert found.dataset["loss"].sel(optimizer="adam", batch_size=1)[-1] > 5 * saturated
    assert "exceeds" not in found.verdict.replace("sign_sgd", "")


def test_a_drift_alone_is_not_stationary(found):
    data = found.dataset.assign(drift=-5 * found.dataset["drift_error"])
    assert not NoiseResilience(data).stationary.any()


def test_a_run_too_short_says_so():
    found = noise_resilience(SETTING.problem, **RUN, steps=802)
    assert found.dataset["steps"].values.tolist() == [804] * 5
    still = found.stationary.isel(batch_size=0)
    assert still.sel(optimizer="sgd").values.all()
    assert not still.sel(optimizer="adam").values.any()
    assert still.sel(optimizer="sign_sgd").values.tolist() == [True, False, False]
    assert "NOT stationary at 6 of 6 points" in found.verdict


def test_losses_are_summed_in_two_halves():
    oracle = GaussianNoise(SETTING.problem, 1.0)
    chain = OptimizerProcess(optax.sgd, {"learning_rate": 0.1}, oracle)
    run = {"x0": np.zeros(2, np.float32), "steps": 9, "paths": 32, "key": jax.random.key(0)}
    loss = simulate(chain, **run, records=9).sample["loss"]
    summed = simulate(LossAverage(chain, 3, 6), **run, records=[9], observables=SUMS).sample
    first, second = loss[4:7].sum(0), loss[7:].sum(0)
    np.testing.assert_allclose(summed["loss"][0], first + second, rtol=1e-5)
    np.testing.assert_allclose(summed["drift"][0], second - first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("sigma", "B"), [(0.1, 1), (1.0, 1), (3.0, 16)])
def test_sign_law_is_the_walks_own(sigma, B):
    """Against the chain's matrix: the Cesàro limit of the law from the minimiser."""
    lam, eta, s = 2.0, 0.02, sigma / np.sqrt(B)
    reach = 150
    j = np.arange(-reach, reach + 1)
    up = scipy.stats.norm.cdf(-eta * lam * j / s)
    P = np.diag(up[:-1], 1) + np.diag(1 - up[1:], -1)
    P[0, 0], P[-1, -1] = 1 - up[0], up[-1]
    both = (np.eye(len(j)) + P) / 2  # even and odd steps
    law = np.linalg.matrix_power(both, 2**16)[reach]
    exact = eta**2 * law @ j**2
    found = _noise_levels.sign_variance(lam, s, eta)
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    corrected = theory.sign.stationary_variance(Quadratic([lam]), s, eta, theory.discrete)[0]
    order = (eta * lam / s) ** 2
    np.testing.assert_allclose(found, corrected, rtol=0.3 * order)


def test_published_bounds_are_the_posters():
    """Equations 3 to 6, and the level 5 must have."""
    eta, theta, d, mu, L, sigma, B = 0.02, 1.0, 2, 1.0, 2.0, 3.0, 16.0
    level = eta * L * d / (4 * mu)
    pull = theta * (L + mu) / (2 * mu * L)
    expected = {
        "sgd": level * sigma**2 / B,
        "sign_sgd": level * sigma / np.sqrt(B),
        "adam": level * sigma / np.sqrt(B),
        "adam-l2": level * sigma / (np.sqrt(B) + pull),
        "adamw": level * sigma / (np.sqrt(B) + sigma * pull),
    }
    for method, value in expected.items():
        np.testing.assert_allclose(SETTING.level(method, sigma, B).published, value, rtol=1e-12)
    own = 3.0 / (L * d)  # tr H for L d
    corrected = expected | {
        "sign_sgd": np.sqrt(np.pi / 2) * expected["sign_sgd"],
        "adam-l2": level * sigma / (np.sqrt(B) * (1 + pull)),
    }
    for method, value in corrected.items():
        np.testing.assert_allclose(SETTING.level(method, sigma, B).bound, own * value, rtol=1e-12)


def test_bounds_with_decay_need_a_minimiser_at_0():
    moved = _noise_levels.Setting(Quadratic(np.ones(2), 1.0), 0.02, 1.0, 0.9, 0.999)
    for method in _noise_levels.METHODS:
        known = np.isfinite(moved.level(method, 1.0, 1.0).bound)
        assert known == (method in ("sgd", "sign_sgd", "adam"))
    # Strong noise leaves the pull of the decay alone, and what m and v remember.
    slowest = moved.level("adamw", 1e4, 1.0).relaxation
    assert slowest == pytest.approx(1 / (0.02 * 1.0) + 10 + 1000, rel=0.01)
    # It leaves AdamW near 0, at f(0) - f* = 1.
    assert moved.level("adamw", 1e4, 1.0).law == pytest.approx(1, rel=0.05)


def test_figure_shows_every_optimizer(found):
    figure = figure_of(found, title="a title")
    titles = [axes.get_title().splitlines()[0] for axes in figure.axes[:5]]
    assert titles == ["SGD", "SignSGD", "Adam", "Adam on the L2 loss", "AdamW"]
    figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": Quadratic(np.eye(2))}, "diagonal"),
        ({"problem": Quadratic([1.0, -1.0])}, "positive"),
        ({"problem": 3.0}, "Quadratic"),
        ({"scales": (1.0,)}, "2 or more ascending"),
        ({"scales": (2.0, 1.0)}, "ascending"),
        ({"batch_sizes": (0.0, 1.0)}, "positive"),
        ({"batch_sizes": ()}, "ascending"),
        ({"learning_rate": 3.0}, "unstable"),
        ({"weight_decay": 0.0}, "positive"),
        ({"b1": 1.0}, "b1"),
        ({"steps": 2}, "steps"),
        ({"paths": 0}, "paths"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(InputError, match=message):
        noise_resilience(**({"scales": (1.0, 2.0), "batch_sizes": (1,)} | change))
