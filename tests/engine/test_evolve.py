import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsde import InputError, OptimizerProcess, SDEProcess
from jaxsde.engine import evolve, start
from jaxsde.engine.observables import Observable, position
from jaxsde.oracles import GaussianNoise, StudentTNoise
from jaxsde.problems import Quadratic
from jaxsde.sdes import SignSGD

KEY = jax.random.key(11)
WATCHED = {"position": Observable(position, covariance=True)}
HESSIAN = np.array([1.0, 2.0, 0.5], np.float32)
X0 = np.array([1.0, -2.0, 0.5], np.float32)
SIZE = 16  # full vectors: their remainders may round differently


def adam():
    """Momenta that differ between paths, step counters that do not."""
    oracle = GaussianNoise(Quadratic(HESSIAN), 1.0)
    return OptimizerProcess(optax.adamw(optax.linear_schedule(0.1, 0.01, 8)), oracle, 0.1)


def begin(first_path):
    return start(adam(), X0, KEY, SIZE, first_path)


@jax.jit
def advance(paths, first_path, first_step, last_step, limit=SIZE):
    return evolve(adam(), paths, KEY, first_path, first_step, last_step[None], WATCHED, limit)


def to(paths, first_step, last_step, first_path=0, limit=10**6):
    integers = map(np.int32, (first_step, last_step))
    return advance(paths, np.uint32(first_path), *integers, np.uint32(limit))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a.state, b.state)
    return True


def run_in_parts(*stops):
    """The run to step 12 in one call, and with the given stops on the way."""
    whole, recorded = to(begin(0), 0, 12)
    parts, first = begin(0), 0
    for stop in (*stops, 12):
        parts, again = to(parts, first, stop)
        first = stop
    return (whole, recorded["position"].sample), (parts, again["position"].sample)


@pytest.mark.parametrize("stops", [(2,), (2, 4, 10), (1,), (5,), (11,), tuple(range(1, 12))])
def test_a_run_resumes_to_the_last_bit(stops):
    (whole, sample), (parts, again) = run_in_parts(*stops)
    assert same(whole, parts)
    np.testing.assert_array_equal(sample, again)
    assert any(whole.shared)
    assert not all(whole.shared)


def test_no_step_changes_nothing():
    paths, recorded = to(begin(0), 0, 0)
    assert same(paths, begin(0))
    np.testing.assert_array_equal(recorded["position"].sample[0], np.tile(X0[:, None], (1, SIZE)))


def test_the_global_index_alone_makes_a_path():
    low, high = (to(begin(first), 0, 7, first)[0].state.x for first in (0, 5))
    np.testing.assert_array_equal(low[:, 5:], high[:, :-5])
    assert not np.any(low == high)


def test_counters_never_wrap():
    end = 2**32 - SIZE
    to(begin(end), 0, 2, end)
    with pytest.raises(InputError, match="hold 2³² paths: 16 from number 4294967281 on"):
        begin(end + 1)
    with pytest.raises(InputError, match="hold 2³² paths"):
        evolve(adam(), begin(end), KEY, end + 1, 0, np.array([1]), WATCHED)
    with pytest.raises(InputError, match="hold 2³¹ - 1 steps: 2147483648 are too many"):
        evolve(adam(), begin(0), KEY, 0, 0, np.array([1, 2**31]), WATCHED)


def test_only_paths_below_the_limit_are_counted():
    for first, limit, counted in ((0, 9, 9), (5, 9, 4), (0, 0, 0), (0, 99, SIZE)):
        paths, recorded = to(begin(first), 0, 7, first, limit)
        moments, x = recorded["position"].moments, np.asarray(paths.state.x, np.float64)
        assert moments.used.tolist() == [counted]
        if counted:
            kept = x[:, :counted]
            np.testing.assert_allclose(moments.mean[0], kept.mean(-1), rtol=1e-5, atol=1e-6)
            deviation = np.cov(kept, bias=True) * counted
            np.testing.assert_allclose(moments.deviation[0], deviation, rtol=1e-4, atol=1e-6)


def gradient_chain(learning_rate, scale=1.0):
    oracle = GaussianNoise(Quadratic(HESSIAN), scale)
    return OptimizerProcess(optax.sgd, {"learning_rate": learning_rate}, oracle)


def final(learning_rate, scale=1.0):
    chain = gradient_chain(learning_rate, scale)
    paths = start(chain, X0, KEY, SIZE)
    paths, recorded = evolve(chain, paths, KEY, 0, 0, jnp.array([4, 9]), WATCHED)
    return paths.state.x, recorded["position"].moments


def test_a_sweep_is_a_vmap_compiled_once():
    rates = np.array([0.05, 0.3, 1.9, 1e4], np.float32)
    sweep = jax.jit(jax.vmap(chex.assert_max_traces(final, n=1)))
    sweep(rates, np.ones(4, np.float32))
    x, moments = sweep(rates, np.array([1, 0.5, 2, 1], np.float32))
    one = jax.jit(lambda rate, scale: final(rate, scale))
    for i, (rate, scale) in enumerate(zip(rates, (1, 0.5, 2, 1), strict=True)):
        alone, known = one(rate, np.float32(scale))
        np.testing.assert_allclose(x[i], alone, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(moments.used[i], known.used)
        np.testing.assert_allclose(moments.mean[i], known.mean, rtol=1e-4, atol=1e-5)
    assert moments.used[:3].min() == SIZE
    assert moments.used[3].tolist() == [SIZE, 0]  # (2e4)⁴ has a finite square, (2e4)⁹ none


@pytest.mark.parametrize(
    "chain",
    [
        OptimizerProcess(
            optax.sign_sgd, {"learning_rate": 0.1}, StudentTNoise(Quadratic(HESSIAN), 1.0, 1.5)
        ),
        SDEProcess(SignSGD(GaussianNoise(Quadratic(HESSIAN), 1.0), 0.1), 0.1),
    ],
    ids=["SignSGD", "its SDE"],
)
def test_a_run_lowers_for_accelerators(chain):
    def whole(key):
        paths = start(chain, X0, key, SIZE)
        return evolve(chain, paths, key, 0, 0, jnp.array([3, 8]), WATCHED)[1]

    traced = jax.jit(whole).trace(np.array([1, 2], np.uint32))
    for platform in ("tpu", "cuda"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.while" in text
