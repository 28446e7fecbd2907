import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from jaxsde import InputError
from jaxsde.analysis.stationarity._distances import distances

NORMAL = scipy.stats.norm()
NAMES = ("kolmogorov_smirnov", "wasserstein", "energy")


def shifted(mu):
    """The distances of N(μ, 1) from N(0, 1): 2 Φ(μ/2) - 1, |μ|, √(2 (E|√2 Z + μ| - E|√2 Z|))."""
    folded = scipy.stats.foldnorm.mean(mu / np.sqrt(2), scale=np.sqrt(2))
    energy = np.sqrt(2 * (folded - 2 / np.sqrt(np.pi)))
    return 2 * NORMAL.cdf(mu / 2) - 1, mu, energy


@pytest.mark.parametrize("other", [False, True])
def test_closed_forms_and_the_coverage_of_their_errors(other):
    """Each of 40 lies within 3 s.e. but for 0.11, P(more than 2) < 3e-4; the spread is the error's.

    Kolmogorov and Smirnov's supremum is biased upwards by half an error, as all suprema.
    """
    rng, truth = np.random.default_rng(1), shifted(0.5)
    found = [
        distances(rng.normal(0.5, 1, 2000), rng.normal(size=1500) if other else NORMAL)
        for _ in range(40)
    ]
    for name, exact in zip(NAMES, truth, strict=True):
        value, error, _ = np.array([getattr(one, name) for one in found]).T
        bias = 0.8 if name == "kolmogorov_smirnov" else 0
        assert np.sum(np.abs(value - exact) > (3 + bias) * error) <= 2
        # A standard deviation of 40 is off by 11 % (1 s.e.), a supremum's by more.
        assert np.std(value, ddof=1) / np.mean(error) == pytest.approx(1, abs=0.45)
        assert np.mean(value) == pytest.approx(exact, abs=(0.7 + bias) * np.mean(error))
    assert all(one.p_value < 1e-9 for one in found)
    reach = found[0].band[1] - found[0].kolmogorov_smirnov.value
    sizes, level = ([2000, 1500], 1 - np.sqrt(0.95)) if other else ([2000], 0.05)
    assert reach == pytest.approx(sum(np.sqrt(np.log(2 / level) / 2 / n) for n in sizes))
    covered = [one.band[0] <= truth[0] <= one.band[1] for one in found]
    assert sum(covered) >= 33  # at least 95 % each: P(fewer of 40) < 1e-3


@pytest.mark.parametrize("other", [False, True])
def test_what_noise_alone_gives(other):
    """Means of 80 over F = G; their own errors are below 5 % each, so 20 % is 4 of them."""
    rng = np.random.default_rng(2)
    found = [
        distances(rng.normal(size=800), rng.normal(size=1500) if other else NORMAL)
        for _ in range(80)
    ]
    for name in NAMES:
        value, _, noise = np.array([getattr(one, name) for one in found]).T
        if name == "energy":
            value = np.sqrt(np.mean(value**2))
        assert np.mean(value) == pytest.approx(np.mean(noise), rel=0.2)
    alarms = sum(one.p_value < 0.05 for one in found)
    assert alarms <= 11  # of 80 at 5 %: P(more) < 1e-3


def test_noise_is_its_closed_form():
    n, found = 1000, distances(NORMAL.rvs(1000, random_state=3), NORMAL)
    mean, _ = scipy.integrate.quad(lambda x: np.sqrt(NORMAL.cdf(x) * NORMAL.sf(x)), -12, 12)
    exact = (
        np.sqrt(np.pi / 2) * np.log(2) / np.sqrt(n),
        np.sqrt(2 / np.pi / n) * mean,
        np.sqrt(2 / np.sqrt(np.pi) / n),  # E|X - X'| = 2/√π
    )
    for name, value in zip(NAMES, exact, strict=True):
        assert getattr(found, name).noise == pytest.approx(value, rel=0.02)


def test_errors_are_those_of_the_influence_functions():
    """On three values and three: every integral by hand."""
    v, w = np.repeat([0.0, 1.0, 4.0], 4), np.repeat([1.0, 2.0, 2.5], 4)
    found = distances(v, w)
    # F - G: 1/3 on [0, 1), 1/3 on [1, 2), 0 on [2, 2.5), -1/3 on [2.5, 4).
    assert found.kolmogorov_smirnov.value == pytest.approx(1 / 3)
    assert np.isnan(found.wasserstein.value)  # so few values show no mean
    square = 2 * (1 / 9 + 1 / 9 + 1.5 / 9)
    assert found.energy.value == pytest.approx(np.sqrt(square))
    scale = 2 / np.sqrt(square) / 3
    potential = {
        x: scale * value for x, value in zip((0, 1, 2, 2.5, 4), (0, 1, 2, 2, 0.5), strict=True)
    }
    parts = [np.var([potential[x] for x in values], ddof=1) / 12 for values in (v, w)]
    assert found.energy.standard_error == pytest.approx(np.sqrt(sum(parts)))


def test_a_distribution_function_is_enough():
    values = scipy.stats.gamma(2).rvs(1000, random_state=4)
    given = scipy.stats.gamma(2.2)
    frozen, function = distances(values, given), distances(values, given.cdf)
    for name in NAMES:
        np.testing.assert_allclose(getattr(function, name), getattr(frozen, name), rtol=1e-6)


def test_wasserstein_needs_a_mean_and_its_error_a_variance():
    cauchy, student = scipy.stats.cauchy(), scipy.stats.t(1.6)
    found = distances(cauchy.rvs(4000, random_state=5), cauchy)
    assert np.all(np.isnan(found.wasserstein))
    assert 0 < found.energy.value < 3 * found.energy.noise
    assert found.p_value > 1e-4
    found = distances(student.rvs(8000, random_state=5), student)
    assert np.isfinite(found.wasserstein.value)
    assert np.isnan(found.wasserstein.standard_error)


def test_bad_input():
    values = np.arange(100.0)
    for sample, law, match in (
        (values[:5], NORMAL, "10 or more"),
        (np.ones((3, 50)), NORMAL, "10 or more"),
        (values, "normal", "law must hold numbers"),
        (values, [1.0, 2.0], "10 or more"),
        (values, lambda x: 3 + 0 * x, "distribution function"),
        (values, lambda x: 0.5 + 0 * x, "distribution function"),
        (values, lambda x: 0.5, "distribution function"),
    ):
        with pytest.raises(InputError, match=match):
            distances(sample, law)
    with pytest.raises(InputError, match="confidence"):
        distances(values, NORMAL, confidence=1)
