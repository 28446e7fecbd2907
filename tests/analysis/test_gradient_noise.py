import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde import InputError
from jaxsde.analysis import gradient_noise
from jaxsde.oracles import FullBatch, MinibatchNoise, StudentTNoise
from jaxsde.problems import LogisticRegression

RNG = np.random.default_rng(2)
PROBLEM = LogisticRegression(RNG.standard_normal((6, 3)), RNG.integers(0, 2, 6), 0.1)
X = np.array([0.4, -0.7, 0.3])


@pytest.mark.parametrize("replace", [True, False])
def test_three_estimates_of_one_trace(replace, key, x64):
    """Against all batches. Three normal scores beyond 4.5: a false alarm has probability 2e-5."""
    oracle = MinibatchNoise(PROBLEM, 2, replace)
    found = gradient_noise(oracle, X, key=key, samples=4000)
    choose = itertools.product if replace else itertools.permutations
    batches = choose(range(6), repeat=2) if replace else choose(range(6), 2)
    g = np.stack([oracle.sample_gradient(jnp.asarray(X), jnp.array(b)) for b in batches])
    trace, norms = np.sum(np.var(g, axis=0)), np.linalg.norm(g, axis=1)
    np.testing.assert_allclose(found.exact, trace, rtol=1e-12)
    np.testing.assert_allclose(found.gradient_norm, np.linalg.norm(g.mean(0)), rtol=1e-12)
    squares = np.sum((g - g.mean(0)) ** 2, axis=1)
    for estimate, value, spread in (
        (found.trace, trace, np.std(squares)),
        (found.sample_norm, norms.mean(), np.std(norms)),
        (found.probed, trace, np.sqrt(2 * np.sum(np.cov(g.T, bias=True) ** 2))),
    ):
        np.testing.assert_allclose(estimate.standard_error, spread / np.sqrt(4000), rtol=0.15)
        assert abs(estimate.value - value) < 4.5 * estimate.standard_error
    assert found.dominance == pytest.approx(np.sqrt(trace) / found.gradient_norm)
    assert found.signal_to_noise == pytest.approx(found.sample_norm.value**2 / trace)


def test_without_noise_nothing_is_left_of_it(key):
    found = gradient_noise(FullBatch(PROBLEM), X.astype(np.float32), key=key, samples=3)
    assert found.exact == found.trace.value == found.probed.value == found.dominance == 0
    assert found.sample_norm.value == pytest.approx(found.gradient_norm)
    assert found.signal_to_noise == np.inf


def test_bad_input(key):
    with pytest.raises(InputError, match="samples must be a whole number of at least 2"):
        gradient_noise(FullBatch(PROBLEM), X.astype(np.float32), key=key, samples=1)
    with pytest.raises(InputError, match="variance is infinite"):
        gradient_noise(StudentTNoise(PROBLEM, 1.0, 2.0), X.astype(np.float32), key=key)
    with pytest.raises(InputError, match="x0 is float64"):
        gradient_noise(FullBatch(PROBLEM), X, key=key)
