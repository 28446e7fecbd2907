import collections
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxsde import OptimizerProcess, Progress, RandomStart, of_state, simulate, with_covariance
from jaxsde.engine import Draw, Normal, Uniform, plan
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import DoubleWell, Quadratic

PATHS, STEPS = 91, 12
X0 = np.array([1.0, -2.0, 0.5], np.float32)
CALLS = collections.Counter()


def counted_sgd(learning_rate):
    CALLS["traces"] += 1
    return optax.sgd(learning_rate)


def process(learning_rate=0.1, scale=1.0):
    """Elementwise, so that its states are the same to the last bit however it is run."""
    oracle = GaussianNoise(Quadratic([1.0, 2.0, 0.5]), scale)
    return OptimizerProcess(counted_sgd, {"learning_rate": learning_rate}, oracle)


def run(process=process(), x0=X0, **changes):  # noqa: B008
    defaults = {"steps": STEPS, "paths": PATHS, "key": jax.random.key(7), "records": range(13)}
    return simulate(process, x0, **(defaults | changes))


@pytest.fixture(scope="module")
def ensemble():
    return run()


@pytest.fixture(scope="module")
def trajectory(ensemble):
    return ensemble.sample["position"]


def test_the_start_and_the_clock(ensemble, trajectory):
    assert trajectory.shape == (STEPS + 1, 3, PATHS)
    assert trajectory.dtype == np.float32
    np.testing.assert_array_equal(trajectory[0], np.broadcast_to(X0[:, None], (3, PATHS)))
    np.testing.assert_array_equal(ensemble.step, np.arange(13))
    np.testing.assert_allclose(ensemble.time, 0.1 * np.arange(13), rtol=1e-6)
    assert np.unique(trajectory[1:], axis=2).shape == trajectory[1:].shape  # no path twice


HARD = OptimizerProcess(
    optax.adamw(optax.linear_schedule(0.1, 0.01, 8)),
    GaussianNoise(Quadratic(np.linspace(0.5, 2, 10)), np.linspace(1, 2, 10)),
    0.1,
)


def run_hard(records, **changes):
    return run(HARD, np.linspace(-2, 2, 10, dtype=np.float32), records=records, **changes)


@pytest.fixture(scope="module")
def hard_trajectory():
    return run_hard(range(0, 13, 2)).sample["position"]


@settings(max_examples=12, derandomize=True, deadline=None)
@given(
    records=st.sets(st.integers(0, 6).map(lambda j: 2 * j), min_size=1),
    blocks=st.sampled_from([(16, 2), (7, 1)]),
    paths=st.sampled_from([20, PATHS]),
)
@example(records={0, 4, 12}, blocks=(16, 2), paths=PATHS)
def test_paths_do_not_depend_on_chunk_devices_even_records_or_number(
    hard_trajectory, records, blocks, paths
):
    records, (chunk, devices) = np.sort(list(records)), blocks
    ensemble = run_hard(records, chunk=chunk, devices=jax.devices()[:devices], paths=paths)
    known = hard_trajectory[records // 2][..., :paths]
    np.testing.assert_array_equal(ensemble.sample["position"], known)
    np.testing.assert_array_equal(ensemble.used("position"), paths)
    exact = known.astype(np.float64)
    # float32 sums of at most 91 numbers below 4, merged in float64.
    np.testing.assert_allclose(ensemble.mean("position"), exact.mean(-1), atol=2e-6)
    variance = exact.var(-1, ddof=1)
    np.testing.assert_allclose(ensemble.variance("position"), variance, rtol=1e-5, atol=1e-12)


@settings(max_examples=12, derandomize=True, deadline=None)
@given(records=st.sets(st.integers(0, STEPS), min_size=1))
def test_paths_do_not_depend_on_odd_records(hard_trajectory, records):
    records = np.sort(list({*records, 3, 12}))
    sample = run_hard(records).sample["position"]
    even = records % 2 == 0
    np.testing.assert_array_equal(sample[even], hard_trajectory[records[even] // 2])
    other = run_hard(np.arange(13)).sample["position"]
    np.testing.assert_array_equal(sample[~even], other[records[~even]])


def test_the_loss_is_the_positions(ensemble, trajectory):
    h = np.array([1.0, 2.0, 0.5])[:, None]
    loss = np.sum(h * trajectory.astype(np.float64) ** 2, axis=1) / 2
    np.testing.assert_allclose(ensemble.sample["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(ensemble.mean("loss"), loss.mean(-1), rtol=1e-6)


def test_another_key_gives_other_paths(trajectory):
    other = run(key=jax.random.key(8)).sample["position"]
    assert not np.any(other[1:] == trajectory[1:])


def test_float32_under_x64_gives_the_same_bits(trajectory):
    with jax.enable_x64(True):
        ensemble = run()
        assert ensemble.sample["position"].dtype == np.float32
        assert ensemble.sample["loss"].dtype == np.float32
        np.testing.assert_array_equal(ensemble.sample["position"], trajectory)


def test_float64_is_the_same_noise_with_more_digits(trajectory):
    with jax.enable_x64(True):
        double = run(x0=X0.astype(np.float64)).sample["position"]
    assert double.dtype == np.float64
    np.testing.assert_allclose(double, trajectory, atol=1e-5)
    assert np.any(double != trajectory)


def test_records_are_evenly_spaced_or_as_given():
    for count, steps in itertools.product((1, 3, 6, 12, 100), (5, 12)):
        step = run(records=count, steps=steps).step
        assert (step[0], step[-1]) == (0, steps)
        assert len(step) == min(count, steps) + 1
        assert np.ptp(np.diff(step)) <= 2


def test_other_values_do_not_compile_again(ensemble):
    chain = process(0.3, 0.7)  # which builds its optimizer once, to check it
    before = CALLS["traces"]
    other = run(chain, X0 + 1, key=jax.random.key(1), records=[*range(1, 24, 3), 24], steps=24)
    assert CALLS["traces"] == before > 0
    exact = (1 - 0.3 * np.array([1.0, 2.0, 0.5])) ** 24 * (X0 + 1)
    h = np.array([1.0, 2.0, 0.5])
    spread = 0.3 * 0.7 * np.sqrt(np.sum((1 - 0.3 * h) ** (2 * np.arange(24)[:, None]), axis=0))
    # Each of three Gaussian scores beyond 5 with 6e-7: the new values were really used.
    assert np.all(np.abs(other.mean("position")[-1] - exact) < 5 * spread / np.sqrt(PATHS))
    ratio = other.variance("position")[-1] / spread**2
    assert np.all(np.abs(ratio - 1) < 5 * np.sqrt(2 / (PATHS - 1)))


def test_progress_rises_to_the_total_and_changes_nothing(ensemble, trajectory, monkeypatch):
    monkeypatch.setattr(plan, "BLOCK", 1)
    seen = []
    watched = run(chunk=16, progress=seen.append)
    assert all(isinstance(report, Progress) for report in seen)
    done = [report.done for report in seen]
    assert done == sorted(done)
    assert {report.total for report in seen} == {PATHS * STEPS}
    assert done[-1] == PATHS * STEPS
    assert len(done) == 3 * 12
    assert all(report.elapsed >= 0 and report.remaining >= 0 for report in seen)
    assert seen[-1].remaining == 0
    for report in seen:  # chunks of 32 paths, of which each goes through all steps
        chunk, step = divmod(report.done, 32 * STEPS)
        paths = slice(32 * chunk, min(32 * (chunk + 1), PATHS))
        if chunk < PATHS // 32 and step:
            losses = ensemble.sample["loss"][step // 32, paths]
            assert report.means == {"loss": pytest.approx(losses.mean(), rel=1e-5)}
        assert report.resumed == 0
        assert report.rate == pytest.approx(report.done / report.elapsed)
    np.testing.assert_array_equal(watched.sample["position"], trajectory)
    np.testing.assert_array_equal(watched.mean("loss"), run(chunk=16).mean("loss"))
    monkeypatch.undo()
    np.testing.assert_array_equal(watched.mean("loss"), run(chunk=16).mean("loss"))


def test_nothing_is_looked_at_between_records(monkeypatch):
    """Blocks that end there, for progress and checkpoints, cost no observable."""
    looked = []

    def loss(x):
        jax.debug.callback(lambda _: looked.append(1), x[0])
        return jnp.sum(x)

    def looks():
        looked.clear()
        run(records=[0, STEPS], observables={"loss": loss}, chunk=PATHS)
        jax.effects_barrier()
        return len(looked)

    once = looks()
    monkeypatch.setattr(plan, "BLOCK", 1)
    assert looks() == once > 0


class Walk(eqx.Module):
    """A chain that knows nothing of the library: x' = x + a (U - 1/2), counting its steps."""

    a: float
    dt: float = 0.5
    t0: float = 1.0

    def noise(self, x0):
        return {"u": Draw(x0.shape, Uniform())}

    def init(self, x0, draw):
        return {"x": x0, "count": 0}

    def step(self, k, state, draw):
        x = state["x"] + self.a * (draw["u"] - 0.5)
        return {"x": x, "count": state["count"] + jnp.where(k == state["count"], 1, 1000)}

    def position(self, state):
        return state["x"]


def test_a_chain_of_the_users_runs_with_observables_of_state_and_covariance():
    observables = {
        "pair": with_covariance(lambda x: jnp.stack([x[0], x[0] + x[1]])),
        "count": of_state(lambda state: state["count"]),
        "positive": lambda x: x > 0,
    }
    n, k = 2000, np.array([1, 2, 9])
    ensemble = run(Walk(2.0), np.zeros(2, np.float32), paths=n, records=k, observables=observables)
    assert set(ensemble.names) == set(observables)
    np.testing.assert_allclose(ensemble.time, 1 + 0.5 * k)
    np.testing.assert_array_equal(ensemble.mean("count"), k)
    np.testing.assert_array_equal(ensemble.variance("count"), 0)
    # Var U = 1/12, so the pair's covariance is k/3 [[1, 1], [1, 2]]. Scores beyond 5 with 6e-7;
    # a product's variance is at most 2 k²/9 x 4 here, as uniform sums have no heavy tails.
    known = k[:, None, None] / 3 * np.array([[1, 1], [1, 2]])
    bound = 5 * k[:, None, None] / 3 * np.sqrt(8 / n)
    assert np.all(np.abs(ensemble.covariance("pair") - known) < bound)
    spread = np.sqrt(np.diagonal(known, axis1=1, axis2=2) / n)
    assert np.all(np.abs(ensemble.mean("pair")) < 5 * spread)
    assert np.all(np.abs(ensemble.mean("positive") - 0.5) < 5 * np.sqrt(0.25 / n))
    sample = ensemble.sample["pair"].astype(np.float64)
    for t, values in enumerate(sample):
        np.testing.assert_allclose(ensemble.covariance("pair")[t], np.cov(values), rtol=1e-5)


def test_random_starts_have_their_law_and_are_independent_of_the_first_step():
    start = RandomStart(Draw((2,), Normal()), lambda z: 1 + 2 * z)
    ensemble = run(Walk(2.0), start, paths=4096, records=[0, 1])
    x = ensemble.sample["position"].astype(np.float64)
    assert x.shape == (2, 2, 4096)
    # Kolmogorov-Smirnov, false alarms 1e-5 each; the correlation beyond 5/√n with 6e-7.
    assert scipy.stats.kstest(x[0].ravel(), scipy.stats.norm(1, 2).cdf).pvalue > 1e-5
    step = x[1] - x[0]
    assert scipy.stats.kstest(step.ravel(), scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-5
    assert abs(np.corrcoef(x[0].ravel(), step.ravel())[0, 1]) < 5 / np.sqrt(8192)
    assert abs(np.corrcoef(x[0, 0], x[0, 1])[0, 1]) < 5 / np.sqrt(4096)


def test_diverged_paths_are_counted_and_the_mean_is_over_survivors():
    # From |x| > √(1 + 2/η) the descent on (x² - 1)²/4 runs away; a random start has both kinds.
    chain = OptimizerProcess(
        counted_sgd, {"learning_rate": 0.5}, GaussianNoise(DoubleWell(0.25), 0.01)
    )
    start = RandomStart(Draw((1,), Normal()), lambda z: 1.5 * z)
    ensemble = run(chain, start, paths=300, steps=40, records=[0, 2, 6, 40], chunk=128)
    x = ensemble.sample["position"][:, 0].astype(np.float32)
    with np.errstate(over="ignore"):
        finite = np.isfinite(x) & np.isfinite(x * x)
    used = finite.sum(-1)
    np.testing.assert_array_equal(ensemble.used("position"), used)
    np.testing.assert_array_equal(ensemble.diverged("position"), 300 - used)
    escaped = np.sum(np.abs(x[0]) > np.sqrt(5) + 0.05)
    assert 0 < escaped <= ensemble.diverged("position")[-1]
    assert ensemble.diverged("position")[-1] <= np.sum(np.abs(x[0]) > np.sqrt(5) - 0.05)
    survivors = [v[f].astype(np.float64) for v, f in zip(x, finite, strict=True)]
    # float32 sums around the first path's value, which here runs away itself
    for mean, v in zip(ensemble.mean("position")[:, 0], survivors, strict=True):
        assert abs(mean - v.mean()) < 1e-4 * v.std() / np.sqrt(v.size)
    variances = [v.var(ddof=1) for v in survivors]
    np.testing.assert_allclose(ensemble.variance("position")[:, 0], variances, rtol=1e-4)


def test_a_run_that_diverges_everywhere_ends_normally():
    ensemble = run(process(1e6), steps=12)
    assert ensemble.used("position")[-1] == 0
    assert np.all(np.isnan(ensemble.mean("position")[-1]))
    assert np.all(np.isnan(ensemble.standard_error("loss")[-1]))
    assert ensemble.used("position")[1] == PATHS
