import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsde import InputError
from jaxsde.oracles import GaussianNoise, StudentTNoise
from jaxsde.problems import Problem, Rosenbrock
from jaxsde.sdes import HeavyBall, Nesterov, modified_equation
from jaxsde.sdes.gradient_descent import MomentumState
from jaxsde.theory.transfer_operator import chain_expectation, diffusion_expectation

ETA, BETA = 0.04, 0.85
h, mu = 0.2, 0.75  # √η and (1 - β)/√η
SIGMA = np.array([[0.5, 0.2], [0.2, 0.3]])
KINDS = {"heavy ball": HeavyBall, "nesterov": Nesterov}


@pytest.fixture
def oracle(x64):
    return GaussianNoise(Rosenbrock(2.0), covariance=SIGMA)


def step(name, gradient, x, v, z, h, mu):
    """The recursion of Li, Tai and E in (x, v)."""
    ahead = x if name == "heavy ball" else x + h * (1 - mu * h) * v
    v = v - h * (mu * v + gradient(ahead) + z)
    return x + h * v, v


@pytest.mark.parametrize("name", KINDS)
def test_optax_takes_these_steps(name, oracle):
    """Four noisy steps of optax.sgd, seen through `resumed` and `position`."""
    sde = KINDS[name](oracle, ETA, BETA)
    optimizer = optax.sgd(ETA, BETA, nesterov=name == "nesterov")
    p = jnp.array([0.7, -0.4])
    inner, y = optimizer.init(p), sde.initial(p)
    x, v = y
    for z in np.random.default_rng(1).normal(size=(4, 2)):
        updates, inner = optimizer.update(oracle.gradient(p) + z, inner, p)
        p = optax.apply_updates(p, updates)
        x, v = step(name, oracle.gradient, x, v, z, h, mu)
        y = sde.resumed(p, inner)
        np.testing.assert_allclose(y.X, x, rtol=1e-13)
        np.testing.assert_allclose(y.V, v, rtol=1e-13)
        np.testing.assert_allclose(sde.position(y), p, rtol=1e-13)


@eqx.filter_jit
def coefficients(sde, y):
    """Drift and diffusion matrix, rows X then V."""
    diffusion = sde.diffusion(0.0, y, None)
    unit, unravel = jax.flatten_util.ravel_pytree(
        jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), diffusion.in_structure())
    )
    G = [jnp.concatenate(diffusion.mv(unravel(e))) for e in jnp.eye(unit.size)]
    return jnp.concatenate(sde.drift(0.0, y, None)), jnp.stack(G, axis=1)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_coefficients(name, order, oracle):
    X, V = np.array([0.3, -0.7]), np.array([-0.5, 0.9])
    g = np.array([-8 * 0.3 * (-0.7 - 0.09) - 2 * 0.7, 4 * (-0.7 - 0.09)])
    H = np.array([[-8 * (-0.7 - 0.27) + 2, -8 * 0.3], [-8 * 0.3, 4]])
    y = MomentumState(jnp.asarray(X), jnp.asarray(V))
    b, G = coefficients(KINDS[name](oracle, ETA, BETA, order), y)
    expected = np.concatenate([V, -(mu * V + g)])
    if order == 2:
        sign = -1 if name == "heavy ball" else 1
        friction = mu * (1 + h * mu / 2) * V + sign * h / 2 * H @ V
        expected = np.concatenate(
            [(1 - h * mu / 2) * V - h / 2 * g, -(friction + (1 + h * mu / 2) * g)]
        )
    np.testing.assert_allclose(b, expected, rtol=1e-12)
    R = oracle.covariance_root(X).as_matrix()
    np.testing.assert_allclose(G, np.concatenate([np.zeros((2, 2)), -np.sqrt(h) * R]), atol=1e-15)

    def update(t, y, z, h):
        return MomentumState(*step(name, oracle.gradient, *y, R @ z, h, mu))

    generic = modified_equation(
        update, h, regime="ballistic", order=order, noise=X, position=lambda y: y.X
    )
    b, root = coefficients(generic, y)
    np.testing.assert_allclose(b, expected, rtol=1e-12)
    np.testing.assert_allclose(root @ root.T, G @ G.T, atol=1e-15)


class Wavy(Problem):
    """f' = 0.6 x + 0.3 sin x."""

    def loss(self, x):
        return jnp.sum(0.3 * x**2 - 0.3 * jnp.cos(x))


@eqx.filter_jit
def on_grid(sde, points):
    def at(point):
        b, G = coefficients(sde, MomentumState(*point[:, None]))
        return b, G @ G.T

    return jax.vmap(at)(points)


@pytest.mark.parametrize("name", KINDS)
def test_weak_orders(name, x64):
    """Exact expectations of chain and SDE at h = 1/16, 1/32, no sampling.

    The error's root mean square over 9 starts, which no change of its sign brings to 0, falls by
    2^order. f is not quadratic, so no observable here is exact at a lower order.
    """
    starts = np.array([(x, v) for x in (-0.8, 0.4, 1.0) for v in (-0.5, 0.2, 0.6)])
    domain, degree = [(-2.0, 2.0), (-2.0, 2.0)], 11
    atoms, weights = np.sqrt(3) * 0.7 * np.array([-1, 0, 1]), np.array([1, 4, 1]) / 6

    def observable(y):
        x, v = y.T
        return np.stack([x, v, x**2, x * v, v**2], axis=-1)

    def slope(a, b):
        return np.log2(np.sqrt(np.mean(a**2, axis=0) / np.mean(b**2, axis=0)))

    oracle, errors = GaussianNoise(Wavy(), 0.7), {1: [], 2: []}
    for h in (1 / 16, 1 / 32):
        chain = chain_expectation(
            lambda y, z, h=h: np.stack(
                step(name, lambda x: 0.6 * x + 0.3 * np.sin(x), *y.T, z, h, 0.8), axis=-1
            ),
            atoms, weights, observable, starts, round(1 / h), domain, degree,
        )  # fmt: skip
        for order, error in errors.items():
            sde = KINDS[name](oracle, h**2, 1 - 0.8 * h, order)
            value = diffusion_expectation(
                lambda y, sde=sde: on_grid(sde, y)[0],
                lambda y, sde=sde: on_grid(sde, y)[1],
                observable, starts, 1.0, domain, degree,
            )  # fmt: skip
            error.append(chain - value)
    np.testing.assert_allclose(slope(*errors[1]), 1, atol=0.1)
    np.testing.assert_allclose(slope(*errors[2]), 2, atol=0.1)


@pytest.mark.parametrize("kind", KINDS.values())
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"oracle": StudentTNoise(Rosenbrock(2.0), 1.0, 2.0)}, "variance is infinite"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"momentum": 1.0}, r"momentum must be one number in \[0, 1\)"),
        ({"order": 3}, "order must be 1 or 2"),
    ],
)
def test_bad_input_is_refused(kind, changed, message, oracle):
    with pytest.raises(InputError, match=message):
        kind(**({"oracle": oracle, "learning_rate": ETA} | changed))


def test_only_momentum_can_be_taken_over(oracle):
    x = jnp.zeros(2)
    with pytest.raises(InputError, match="keeps no average 'trace'"):
        HeavyBall(oracle, ETA).resumed(x, optax.sgd(ETA).init(x))
