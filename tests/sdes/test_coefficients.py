import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.special

from jaxsde import InputError
from jaxsde.engine import Normal
from jaxsde.oracles import GaussianNoise, Oracle, StudentTNoise
from jaxsde.oracles._oracle import unit_draws
from jaxsde.problems import Problem, Quadratic, Rosenbrock
from jaxsde.sdes import SGD, LinearizedSignSGD, SignSGD, State

H = np.array([[2.0, -0.5, 0.25], [-0.5, 1.0, 0.0], [0.25, 0.0, 0.5]])
SIGMA = np.array([[1.0, 0.5, 0.0], [0.5, 2.0, -0.25], [0.0, -0.25, 0.5]])
POINTS = np.array([[0.5, -1.0, 3.0], [0.0, 0.0, 0.0], [1.0, 2.0, -40.0]])
ETA = 0.04


@eqx.filter_jit
def evaluate(sde, x):
    y = sde.initial(x)
    diffusion = sde.diffusion(0.0, y, None)
    leaves, treedef = jax.tree.flatten(diffusion.in_structure())
    assert [leaf.shape for leaf in leaves] == [x.shape]
    columns = [diffusion.mv(treedef.unflatten([e])).X for e in jnp.eye(x.size)]
    return y, sde.position(y), sde.drift(0.0, y, None).X, jnp.stack(columns, axis=1)


def coefficients(sde, x):
    """Drift and diffusion matrix at x."""
    y, position, drift, diffusion = evaluate(sde, jnp.asarray(x))
    assert isinstance(y, State)
    np.testing.assert_array_equal(position, x)
    return np.asarray(drift), np.asarray(diffusion)


@pytest.mark.parametrize("order", [1, 2])
def test_sgd_with_a_full_hessian_and_full_covariance(order, x64):
    oracle = GaussianNoise(Quadratic(H, 0.5), covariance=SIGMA, batch_size=2.0)
    sde = SGD(oracle, ETA, order=order)
    for x in POINTS:
        b, s = coefficients(sde, x)
        g = H @ (x - 0.5)
        np.testing.assert_allclose(b, -(g + (order == 2) * ETA / 2 * H @ g), rtol=1e-14)
        np.testing.assert_allclose(s @ s.T, ETA * SIGMA / 2, atol=1e-15)
        # The sign is the optimizer's: x - η (g + R ξ).
        R = oracle.covariance_root(jnp.asarray(x)).as_matrix()
        np.testing.assert_allclose(s, -np.sqrt(ETA) * R, atol=1e-15)


def test_sgd_order_two_away_from_quadratics(x64):
    sde = SGD(GaussianNoise(Rosenbrock(10.0), [0.5, 2.0]), ETA, order=2)
    for a, b in ((0.3, -0.7), (1.5, 2.0)):
        g = np.array([-40 * a * (b - a**2) - 2 * (1 - a), 20 * (b - a**2)])
        hessian = np.array([[-40 * (b - 3 * a**2) + 2, -40 * a], [-40 * a, 20]])
        drift, diffusion = coefficients(sde, np.array([a, b]))
        np.testing.assert_allclose(drift, -(g + ETA / 2 * hessian @ g), rtol=1e-13)
        np.testing.assert_allclose(diffusion, -np.sqrt(ETA) * np.diag([0.5, 2]), rtol=1e-14)


def test_sgd_with_student_t_noise_of_finite_variance(x64):
    sde = SGD(StudentTNoise(Quadratic([1.0, 2.0, 3.0]), 0.5, 4.0), ETA)
    b, s = coefficients(sde, POINTS[0])
    np.testing.assert_allclose(b, -np.array([1, 2, 3]) * POINTS[0], rtol=1e-15)
    np.testing.assert_allclose(s, -np.sqrt(ETA * 2) * 0.5 * np.eye(3), rtol=1e-14)


h, SCALE = np.array([1.0, 2.0, 0.5]), np.array([0.5, 1.0, 4.0])
MEAN_SIGN = {  # 1 - 2 P(g + Z < 0) with u = g/σ, by hand
    "Gaussian": (lambda f: GaussianNoise(f, SCALE), lambda u: scipy.special.erf(u / np.sqrt(2))),
    "Gaussian batch": (
        lambda f: GaussianNoise(f, SCALE, batch_size=9),
        lambda u: scipy.special.erf(3 * u / np.sqrt(2)),
    ),
    "Cauchy": (lambda f: StudentTNoise(f, SCALE, 1.0), lambda u: 2 / np.pi * np.arctan(u)),
    "t, ν = 2": (lambda f: StudentTNoise(f, SCALE, 2.0), lambda u: u / np.sqrt(2 + u**2)),
}


@pytest.mark.parametrize("name", MEAN_SIGN)
def test_sign_sgd_is_exact_in_the_noises_law(name, x64):
    make, mean_sign = MEAN_SIGN[name]
    sde = SignSGD(make(Quadratic(h)), ETA)
    for x in POINTS:
        m = mean_sign(h * x / SCALE)
        b, s = coefficients(sde, x)
        np.testing.assert_allclose(b, -m, atol=1e-9)
        # 1 - m² near saturation is known to 1e-9, its root to 3e-5.
        np.testing.assert_allclose(s**2, ETA * np.diag(1 - m**2), atol=1e-10)
        assert np.all(np.diag(s) <= 0)


SLOPE = {"Gaussian": np.sqrt(2 / np.pi), "Cauchy": 2 / np.pi, "t, ν = 2": 1 / np.sqrt(2)}


@pytest.mark.parametrize("name", SLOPE)
def test_linearised_sign_sgd_is_clipped(name, x64):
    sde = LinearizedSignSGD(MEAN_SIGN[name][0](Quadratic(h)), ETA)
    clipped = 0
    for x in POINTS:
        m = SLOPE[name] * h * x / SCALE
        b, s = coefficients(sde, x)
        np.testing.assert_allclose(b, -m, rtol=1e-13)
        diagonal = -np.sqrt(ETA) * np.sqrt(np.maximum(1 - m**2, 0))
        np.testing.assert_allclose(s, np.diag(diagonal), atol=1e-14)
        clipped += np.sum(m**2 > 1)
    assert clipped >= 3


@pytest.mark.parametrize("kind", [SignSGD, LinearizedSignSGD])
def test_roots_have_slope_zero_where_the_noise_vanishes(kind, x64):
    sde = kind(GaussianNoise(Quadratic(h), 0.01), ETA)
    slope = jax.jacobian(lambda x: sde.diffusion(0.0, State(x), None).mv(State(jnp.ones(3))).X)
    np.testing.assert_array_equal(slope(jnp.full(3, 1e3)), np.zeros((3, 3)))


def test_any_pytree_is_a_point():
    class Squares(Problem):
        def loss(self, x):
            return sum(jnp.sum(leaf**2) / 2 for leaf in jax.tree.leaves(x))

    def check(x):
        for kind in (SGD, SignSGD, LinearizedSignSGD):
            sde = kind(GaussianNoise(Squares(), 1.0), ETA)
            y = sde.initial(x)
            assert jax.tree.structure(sde.drift(0.0, y, None)) == jax.tree.structure(y)
            assert jax.tree.structure(sde.brownian_structure(x)) == jax.tree.structure(y)
            assert sde.diffusion(0.0, y, None).mv(y).X["w"].shape == (2, 2)

    jax.eval_shape(check, {"w": jnp.full((2, 2), 0.25), "b": jnp.ones(3)})


class NoLaw(Oracle):
    """Noise of which only draws and covariance are known."""

    problem: Quadratic

    def noise(self, x0):
        return unit_draws(x0, Normal())

    def sample_gradient(self, x, draw):
        return self.gradient(x) + draw

    def covariance(self, x):
        return lx.IdentityLinearOperator(jax.eval_shape(lambda: x))

    covariance_root = covariance


FULL = GaussianNoise(Quadratic(h), covariance=SIGMA)
GOOD = GaussianNoise(Quadratic(h), 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(StudentTNoise(Quadratic(h), 1.0, 2.0), ETA), "does not exist.*2 degrees"),
        (lambda: SGD(StudentTNoise(Quadratic(h), 1.0, 0.5), ETA), "variance is infinite"),
        (lambda: SGD(GOOD, ETA, order=3), "order must be 1 or 2, got 3"),
        (lambda: SGD(GOOD, 0.0), "learning_rate must be positive"),
        (lambda: SGD(GOOD, np.inf), "learning_rate must be positive and finite"),
        (lambda: SignSGD(GOOD, -0.1), "learning_rate must be positive"),
        (lambda: SignSGD(GOOD, np.nan), "learning_rate must be positive"),
        (lambda: SignSGD(FULL, ETA), "correlated"),
        (lambda: SignSGD(NoLaw(Quadratic(h)), ETA), "no distribution function"),
        (lambda: LinearizedSignSGD(GOOD, 0.0), "learning_rate must be positive"),
        (lambda: LinearizedSignSGD(FULL, ETA), "correlated"),
        (lambda: LinearizedSignSGD(NoLaw(Quadratic(h)), ETA), "has no"),
    ],
)
def test_sdes_that_do_not_exist_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
