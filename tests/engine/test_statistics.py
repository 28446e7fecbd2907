import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde.engine import Moments, Record, statistics
from jaxsde.engine.tally import Tally

moments = jax.jit(statistics.moments, static_argnums=2)


def exact(values, used):
    """Count, mean and deviation of the used columns, in NumPy."""
    kept = np.asarray(values, np.float64)[..., used]
    mean = kept.mean(-1)
    flat = (kept - mean[..., None]).reshape(-1, kept.shape[-1])
    return kept.shape[-1], mean, flat @ flat.T


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_moments_of_a_large_mean_and_a_small_spread(shape, x64):
    values = 1e6 + 1e-3 * np.random.default_rng(0).standard_normal((*shape, 50))
    count, mean, deviation = exact(values, slice(None))
    everyone = np.full(50, True)
    for covariance in (False, True):
        found = moments(values, everyone, covariance)
        assert found.used == count
        np.testing.assert_allclose(found.mean, mean, rtol=1e-15)
        known = deviation if covariance else np.diag(deviation).reshape(shape)
        # |v - mean| is known to 1e-10 of 1e-3, as v = 1e6 is stored to 1e-10.
        np.testing.assert_allclose(found.deviation, known, rtol=1e-6)


def test_paths_that_left_the_numbers_are_left_out(precision):
    values = np.random.default_rng(1).standard_normal((2, 9)).astype(precision)
    values[0, 1], values[1, 4], values[:, 6] = np.inf, np.nan, -np.inf
    values[0, 7] = 1e30 if precision == "float32" else 1e200  # finite, but not its square
    counted = np.arange(9) != 8
    used = [0, 2, 3, 5]
    count, mean, deviation = exact(values, used)
    for covariance, known in ((False, np.diag(deviation)), (True, deviation)):
        found = moments(values, counted, covariance)
        assert found.used == count
        np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
        np.testing.assert_allclose(found.deviation, known, rtol=1e-5, atol=1e-6)


def test_one_path_has_no_spread_and_no_path_is_nothing():
    value = np.float32([[3.0, np.nan], [-1.0, 5.0]])
    for covariance in (False, True):
        one = moments(value, np.array([True, True]), covariance)
        assert one.used == 1
        np.testing.assert_array_equal(one.mean, [3, -1])
        np.testing.assert_array_equal(one.deviation, 0)
        none = moments(value, np.array([False, True]), covariance)
        assert none.used == 0
        np.testing.assert_array_equal(none.mean, 0)
        np.testing.assert_array_equal(none.deviation, 0)


def on_host(values, used, covariance):
    """The moments of some columns at two records, the second with its sign changed."""
    if len(used) == 0:
        shape = values.shape[:-1]
        spread = (values[..., 0].size,) * 2 if covariance else shape
        return Moments(np.zeros(2, int), np.zeros((2, *shape)), np.zeros((2, *spread)))
    count, mean, deviation = exact(values, used)
    spread = deviation if covariance else np.diag(deviation).reshape(mean.shape)
    return Moments(np.array([count] * 2), np.stack([mean, -mean]), np.stack([spread] * 2))


@pytest.mark.parametrize("covariance", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_merging_blocks_is_taking_them_together(shape, covariance):
    rng = np.random.default_rng(2)
    values = 1e5 * (1 + rng.standard_normal((*shape, 1))) + rng.standard_normal((*shape, 60))
    values[..., 30:] += 7  # blocks differ in their means
    cuts = [[], range(1), range(1, 4), range(4, 4), range(4, 40), range(40, 60), []]
    parts = [on_host(values, list(cut), covariance) for cut in cuts]
    known = on_host(values, list(range(60)), covariance)
    for order in (parts, parts[::-1]):
        merged = functools.reduce(statistics.merge, order)
        np.testing.assert_array_equal(merged.used, known.used)
        np.testing.assert_allclose(merged.mean, known.mean, rtol=1e-13)
        np.testing.assert_allclose(merged.deviation, known.deviation, rtol=1e-8, atol=1e-7)


def test_float32_sums_of_a_million_paths_stay_below_the_monte_carlo_error():
    n = 10**6
    values = (100 + np.random.default_rng(3).standard_normal((2, n))).astype(np.float32)
    count, mean, deviation = exact(values, slice(None))
    found = moments(jnp.asarray(values), np.full(n, True), False)
    assert found.used == count
    # A tenth of what n paths leave uncertain: 1/√n in the mean, √(2/n) of the variance.
    assert np.max(np.abs(found.mean - mean)) < 0.1 / np.sqrt(n)
    ratio = found.deviation / np.diag(deviation)
    assert np.max(np.abs(ratio - 1)) < 0.1 * np.sqrt(2 / n)
    both = moments(jnp.asarray(values), np.full(n, True), True)
    assert np.max(np.abs(both.deviation / n - deviation / n)) < 0.1 * np.sqrt(1 / n)


def test_counts_of_large_blocks_do_not_overflow():
    """Two blocks of 100,000 values 0 and 3: n_a n_b = 10¹⁰ is beyond 32 bits."""
    tally = Tally(200_000, 1)
    used, zero = jnp.full((2, 1), 100_000, jnp.int32), jnp.zeros((2, 1), jnp.float32)
    block = Moments(used, jnp.array([[0.0], [3.0]]), zero)
    tally.add(0, {"v": Record(block, jnp.zeros((2, 1, 4096)))}, np.array([True]))
    tally.close()
    assert tally.moments["v"].used[0] == 200_000
    assert tally.moments["v"].deviation[0] == 200_000 * 1.5**2
