"""What linearize itself promises."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsde import InputError, OptimizerProcess, SDEProcess, optimizers, problems, sdes, theory
from jaxsde.analysis import linearize
from jaxsde.engine import Draw, Normal
from jaxsde.oracles import (
    FullBatch,
    GaussianNoise,
    MinibatchNoise,
    StudentTNoise,
)
from jaxsde.problems import Quadratic

pytestmark = pytest.mark.usefixtures("x64")


def slow(*values):
    """A case for -m slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


H, SIGMA = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, 0.3], [0.3, 0.5]])
LAM, SCALE = np.array([2.0, 0.7]), np.array([1.0, 0.6])
X0 = np.array([0.8, -0.5])
TINY = 1e-7
with jax.enable_x64(True):
    FULL = Quadratic(H, [1.0, -2.0])
    DIAGONAL = Quadratic(LAM)
    CORRELATED = GaussianNoise(FULL, covariance=SIGMA)
    INDEPENDENT = GaussianNoise(DIAGONAL, SCALE)


def optimizer(factory, oracle, learning_rate, **values):
    return OptimizerProcess(factory, {"learning_rate": learning_rate, **values}, oracle)


def close(covariance, expected, rtol=1e-6):
    """In units of the deviations."""
    expected = np.atleast_2d(expected)
    deviation = np.sqrt(np.diag(expected))
    assert np.all(np.abs(covariance - expected) <= rtol * np.outer(deviation, deviation))


# what linearize itself promises


class User(eqx.Module):
    """x⁺ = x - η (x + z + x³/3 + ...) in one dimension or more, with a choice of what it tells."""

    eta: float
    dt: float = 1.0
    t0: float = 0.0

    def noise(self, x0):
        return {name: Draw(leaf.shape, Normal()) for name, leaf in x0.items()}

    def init(self, x0, draw):
        return x0, jnp.zeros((), jnp.int32)

    def step(self, k, state, draw):
        x, count = state
        moved = {
            name: x[name] - self.eta * (x[name] + draw[name] + draw[name] * x[name]) for name in x
        }
        return moved, count + 1

    def position(self, state):
        return state[0]


class Rounded(User):
    """Each step rounds, and it tells neither its mean nor its covariance."""

    def step(self, k, state, draw):
        (x, count) = state
        return {name: jnp.floor(x[name] + draw[name]) for name in x}, count + 1


class Told(Rounded):
    def mean_step(self, k, state):
        return {name: leaf / 2 for name, leaf in state[0].items()}, state[1]

    def step_covariance(self, k, state):
        return jnp.diag(jnp.asarray([3.0, 3.0, 6.0]))


TREE = {"a": np.ones(2), "b": np.ones(())}


def test_pytrees_counters_and_multiplicative_noise():
    """x⁺ = (1 - η - η z) x - η z on a dictionary beside a counter: at x = 0, Q = η²."""
    found = linearize(User(0.1), TREE)
    assert found.fixed_point[0]["b"].shape == ()
    assert found.fixed_point[1].dtype == np.int32
    close(found.covariance, 0.01 / (1 - 0.9**2) * np.eye(3), 1e-10)
    assert found.expected(lambda x: x["a"][0] ** 2 + x["b"]) == pytest.approx(0.01 / 0.19)


def test_a_process_that_tells_its_mean():
    close(linearize(Told(0.1), TREE).covariance, np.diag([4.0, 4.0, 8.0]), 1e-10)
    with pytest.raises(InputError, match=r"a step jumps: it has floor .* no mean map: give"):
        linearize(Rounded(0.1), TREE)


def test_means_move_where_the_potential_is_skew():
    """f' = x + c x²: E x = -c Var x and E f'(x) = 0 to the order of η, and E x² = Var x."""

    class Skew(problems.Problem):
        c: float

        def loss(self, x):
            return jnp.sum(x**2 / 2 + self.c * x**3 / 3)

    problem = Skew(0.3)
    oracle = GaussianNoise(problem, 0.5)
    x0 = np.array([0.1])
    sde, chain = linearize(sdes.SGD(oracle, 0.1), x0), optimizer(optax.sgd, oracle, 0.1)
    np.testing.assert_allclose(sde.mean_shift, [-0.3 * 0.05 * 0.25], rtol=1e-9)
    found, shift = linearize(chain, x0), -0.3 * 0.1 * 0.25 / 1.9
    np.testing.assert_allclose(found.expected(lambda x: x), [shift], rtol=1e-9)
    np.testing.assert_allclose(found.expected(problem.gradient), [0.0], atol=1e-12)


@pytest.mark.slow
def test_minibatches_are_enumerated():
    """x⁺ = x - η λ_c (x - b_c): the mean and the covariance of n = 3 terms, by hand."""
    parts = [Quadratic([lam], [b]) for lam, b in ((1.0, 0.0), (2.0, 1.0), (0.5, -1.0))]
    found = linearize(
        optimizer(optax.sgd, MinibatchNoise(problems.mean(parts)), 0.1), np.array([0.3])
    )
    lam, b = np.array([1.0, 2.0, 0.5]), np.array([0.0, 1.0, -1.0])
    x = np.sum(lam * b) / np.sum(lam)
    variance = np.var(0.1 * lam * (x - b)) / (1 - (1 - 0.1 * np.mean(lam)) ** 2)
    np.testing.assert_allclose(found.fixed_point.x, [x], rtol=1e-12)
    np.testing.assert_allclose(found.covariance, [[variance]], rtol=1e-10)


def test_held_variances_are_looked_at_where_it_rests():
    oracle = MinibatchNoise(problems.mean([Quadratic([1.0], [0.0]), Quadratic([2.0], [1.0])]))
    sde = sdes.RMSprop(oracle, 0.01, 0.9, 0.1)
    plain, holding = (
        linearize(SDEProcess(sde, 0.01, variance_every=m), np.array([0.3])) for m in (None, 8)
    )
    np.testing.assert_array_equal(plain.covariance, holding.covariance)


@pytest.mark.slow
def test_many_draws_that_meet():
    """Six correlated normals: the rule of degree 5 is exact for SGD; 46 are too many."""
    rng = np.random.default_rng(0)
    M, N = (m @ m.T / 6 + np.eye(6) / 2 for m in rng.normal(size=(2, 6, 6)))
    problem = Quadratic(M)
    found = linearize(optimizer(optax.sgd, GaussianNoise(problem, covariance=N), 0.1), np.ones(6))
    expected = theory.gradient_descent.stationary_covariance(problem, N, 0.1, theory.discrete)
    close(found.covariance, expected, 1e-10)
    large = GaussianNoise(Quadratic(np.ones(46)), covariance=np.eye(46) + 0.1)
    with pytest.raises(InputError, match="46 normals meet"):
        linearize(optimizer(optax.sgd, large, 0.1), np.ones(46))
    wide = GaussianNoise(Quadratic(np.ones(60)), np.ones(60))
    wide = linearize(optimizer(optax.sgd, wide, 0.1), np.ones(60))
    np.testing.assert_allclose(np.diag(wide.covariance), 0.1 / 1.9, rtol=1e-9)


def test_a_schedule_that_goes_on_has_no_law():
    fading = optax.sgd(lambda k: 0.1 / jnp.sqrt(k + 1.0))
    with pytest.raises(InputError, match="depends on the step's number"):
        linearize(OptimizerProcess(fading, INDEPENDENT, 0.1), X0)


@pytest.mark.slow
def test_continuous_steps_with_comparisons_pass():
    """Clipping compares but does not jump; its kink is far from where the draws are."""
    clipped = optax.chain(optax.clip_by_global_norm(1e3), optax.sgd(0.1))
    found = linearize(OptimizerProcess(clipped, INDEPENDENT, 0.1), X0)
    expected = theory.gradient_descent.stationary_covariance(
        DIAGONAL, SCALE**2, 0.1, theory.discrete
    )
    close(found.covariance, expected)


def test_refusals():
    with pytest.raises(InputError, match=r"jumps: it has sign"):
        linearize(optimizer(optax.lion, INDEPENDENT, 0.1), X0)
    with pytest.raises(InputError, match=r"differ by .* not smooth in them"):
        linearize(optimizer(optimizers.sam, INDEPENDENT, 0.1, rho=0.3), X0)
    with pytest.raises(InputError, match="infinite variance"):
        linearize(optimizer(optax.sgd, StudentTNoise(DIAGONAL, SCALE, 2.0), 0.1), X0)
    with pytest.raises(InputError, match="neither an SDE nor a process"):
        linearize(optax.sgd, X0)
    unstable = linearize(optimizer(optax.sgd, CORRELATED, 1.5), X0)
    assert not unstable.stable
    assert np.inf in unstable.relaxation_times
    with pytest.raises(InputError, match=r"no stationary law: .*absolute value"):
        _ = unstable.covariance
    with pytest.raises(InputError, match="must be a multiple of dt"):
        linearize(optimizer(optax.sgd, CORRELATED, 0.1), X0).autocovariance(0.05)


def test_far_from_where_the_drift_bends():
    """SignSGD's drift is flat at 1000 σ from the minimiser, and has no derivative to go by."""
    quiet = GaussianNoise(DIAGONAL, 1e-3 * SCALE)
    found = linearize(sdes.SignSGD(quiet, TINY), X0)
    np.testing.assert_allclose(found.fixed_point.X, 0, atol=1e-12)
    expected = theory.sign.stationary_variance(DIAGONAL, 1e-3 * SCALE, 1e-10)
    close(found.covariance, np.diag(expected) * TINY / 1e-10)


def test_a_flat_direction_is_no_stationary_law():
    flat = GaussianNoise(Quadratic(np.diag([1.0, 0.0])), covariance=np.eye(2))
    assert not linearize(optimizer(optax.sgd, flat, 0.1), X0).stable
    assert not linearize(sdes.SGD(flat, 0.1), X0).stable


def test_without_noise_and_in_float32():
    silent = linearize(optimizer(optax.sgd, FullBatch(FULL), 0.1), X0)
    assert not np.any(silent.covariance)
    with jax.enable_x64(False):
        oracle = GaussianNoise(Quadratic(H, [1.0, -2.0]), covariance=SIGMA)
        found = linearize(optimizer(optax.sgd, oracle, 0.1), X0.astype(np.float32))
    assert found.covariance.dtype == np.float64
    expected = theory.gradient_descent.stationary_covariance(FULL, SIGMA, 0.1, theory.discrete)
    close(found.covariance, expected, 1e-5)  # of hyperparameters rounded to float32
