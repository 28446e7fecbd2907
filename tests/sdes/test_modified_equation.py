"""The generic engine on updates whose order-2 SDE is known; RMSprop's and Adam's have own tests."""

import itertools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsde
from jaxsde import InputError
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Rosenbrock
from jaxsde.processes import SDEProcess
from jaxsde.sdes import SGD, State, modified_equation
from jaxsde.sdes.modified_equation import _cubature
from jaxsde.theory.transfer_operator import chain_expectation, diffusion_expectation

SIGMA = np.array([[0.5, 0.2], [0.2, 0.3]])
X = np.array([0.3, -0.7])
G = np.array([-8 * 0.3 * (-0.7 - 0.09) - 2 * 0.7, 4 * (-0.7 - 0.09)])  # Rosenbrock's ∇f there
H = np.array([[-8 * (-0.7 - 0.27) + 2, -8 * 0.3], [-8 * 0.3, 4]])


class Found(NamedTuple):
    """What an engine's SDE has at a point, on raveled arrays; G is the diffusion's matrix."""

    drift: np.ndarray
    G: np.ndarray
    covariance: np.ndarray
    clipped: np.ndarray
    third_cumulant: np.ndarray


@eqx.filter_jit
def found(sde, t, y):
    diffusion = sde.diffusion(t, y, None)
    flat, unravel = jax.flatten_util.ravel_pytree(y)
    columns = [diffusion.mv(unravel(e)) for e in jnp.eye(flat.size)]
    return Found(
        jax.flatten_util.ravel_pytree(sde.drift(t, y, None))[0],
        jnp.stack([jax.flatten_util.ravel_pytree(column)[0] for column in columns], axis=1),
        sde.covariance(t, y),
        sde.clipped(t, y),
        sde.excess_third_cumulant(t, y),
    )


@pytest.mark.parametrize("d", [1, 2, 5])
def test_cubature_is_exact_to_degree_five(d):
    nodes, weights = _cubature(d)
    assert nodes.shape == (2 * d**2 + 1, d)
    one_dimension = np.array([1, 0, 1, 0, 3, 0])
    for powers in itertools.product(range(6), repeat=d):
        if sum(powers) <= 5:
            average = weights @ np.prod(nodes**powers, axis=1)
            assert average == pytest.approx(np.prod(one_dimension[list(powers)]), abs=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_sgd_is_the_written_one(order, x64):
    """The diffusion itself too, with the optimizer's sign; R is not symmetric here."""
    oracle, eta = GaussianNoise(Rosenbrock(2.0), covariance=SIGMA), 0.04
    turn = np.array([[0.6, 0.8], [0.8, -0.6]])
    R = np.asarray(oracle.covariance_root(X).as_matrix()) @ turn

    def update(t, y, z, h):
        return State(y.X - h * (oracle.gradient(y.X) + R @ z))

    generic = modified_equation(
        update, eta, regime="ballistic", order=order, initial=State, position=lambda y: y.X
    )
    y = generic.initial(jnp.asarray(X))
    np.testing.assert_array_equal(generic.position(y), X)
    at = found(generic, 0.0, y)
    expected = SGD(oracle, eta, order).drift(0.0, y, None).X
    np.testing.assert_allclose(at.drift, expected, rtol=1e-12)
    np.testing.assert_allclose(at.G, -np.sqrt(eta) * R, atol=1e-13)
    np.testing.assert_array_equal(at.third_cumulant, 0)


def test_a_schedule_moves_the_drift(x64):
    """x⁺ = x - η u(t) g: b + η b₁ = -u ∇f - (η/2) (u² ∇²f ∇f - u' ∇f)."""
    eta, u, slope = 0.05, 1 / (1 + 0.3), -1 / (1 + 0.3) ** 2

    def update(t, x, z, h):
        return x - h / (1 + t) * (Rosenbrock(2.0).gradient(x) + 0.5 * z)

    sde = modified_equation(update, eta, regime="ballistic")
    at = found(sde, 0.3, jnp.asarray(X))
    expected = -u * G - eta / 2 * (u**2 * H @ G - slope * G)
    np.testing.assert_allclose(at.drift, expected, rtol=1e-12)
    np.testing.assert_allclose(at.covariance, eta * u**2 * 0.25 * np.eye(2), atol=1e-15)


def test_a_schedule_moves_the_covariance_too(x64):
    """x⁺ = x + h v(t) z: S + τ S₁ = v² - τ v v'."""
    sde = modified_equation(
        lambda t, x, z, h: x + h * (1 + t**2) * z, 0.2, regime="batch-equivalent"
    )
    at = found(sde, 0.5, jnp.ones(1))
    np.testing.assert_allclose(at.covariance, [[1.25**2 - 0.04 * 1.25]], rtol=1e-12)


def multiplicative(t, x, z, h):
    """x⁺ = x - h² (x + 0.3 sin x) + h s(x) z, s = 0.5 + 0.2 cos x."""
    return x - h**2 * (x + 0.3 * jnp.sin(x)) + h * (0.5 + 0.2 * jnp.cos(x)) * z


def test_noise_of_order_one_that_depends_on_the_state(x64):
    """b₁ = -(b b' + S b''/2)/2, S₁ = -b S'/2 - b' S - S S''/4, κ = -(3/2) S S', by hand."""
    tau = 0.04
    sde = modified_equation(multiplicative, tau**0.5, regime="batch-equivalent")
    for x in (-0.4, 0.9):
        b, b1, b2 = -(x + 0.3 * np.sin(x)), -(1 + 0.3 * np.cos(x)), 0.3 * np.sin(x)
        s, s1, s2 = 0.5 + 0.2 * np.cos(x), -0.2 * np.sin(x), -0.2 * np.cos(x)
        S, S1, S2 = s**2, 2 * s * s1, 2 * (s1**2 + s * s2)
        at = found(sde, 0.0, jnp.array([x]))
        expected = b - tau / 2 * (b * b1 + S * b2 / 2)
        np.testing.assert_allclose(at.drift, [expected], rtol=1e-12)
        expected = S - tau * (b * S1 / 2 + b1 * S + S * S2 / 4)
        np.testing.assert_allclose(at.covariance, [[expected]], rtol=1e-12)
        np.testing.assert_allclose(at.third_cumulant, [[[-3 / 2 * S * S1]]], rtol=1e-12)


@eqx.filter_jit
def on_grid(sde, points):
    return jax.vmap(lambda y: found(sde, 0.0, y))(points)


def test_weak_orders_with_and_without_the_third_cumulant(x64):
    """Of X² and X³: 1, then 2 once the generator has the operator that X³ meets and no SDE has.

    Slopes of the root mean square over three starts between τ = 1/32 and 1/64, all noise-free.
    """
    starts = np.array([[-0.6], [0.3], [0.9]])
    shared = (lambda y: np.concatenate([y**2, y**3], axis=1), starts)
    domain, degree = [(-2.5, 2.5)], 16
    atoms, weights = np.sqrt(3) * np.array([-1.0, 0.0, 1.0]), np.array([1, 4, 1]) / 6
    step = jax.jit(lambda y, z, h: multiplicative(0.0, y, z, h))

    errors = []
    for tau in (1 / 32, 1 / 64):
        chain = chain_expectation(
            lambda y, z, h=tau**0.5: step(y, z, h),
            atoms, weights, *shared, round(1 / tau), domain, degree,
        )  # fmt: skip
        for order, kappa in ((1, None), (2, None), (2, tau)):
            sde = modified_equation(
                multiplicative, tau**0.5, regime="batch-equivalent", order=order
            )
            names = ("drift", "covariance", "third_cumulant")
            b, C, third = (lambda y, n=n, s=sde: getattr(on_grid(s, y), n) for n in names)
            cumulant = None if kappa is None else lambda y, k=kappa, f=third: k * np.asarray(f(y))
            value = diffusion_expectation(b, C, *shared, 1.0, domain, degree, cumulant)
            errors.append(np.sqrt(np.mean((chain - value) ** 2, axis=0)))
    slopes = np.log2(np.array(errors[:3]) / np.array(errors[3:]))
    np.testing.assert_allclose(slopes[0], 1, atol=0.1)
    np.testing.assert_allclose(slopes[2], 2, atol=0.1)
    assert slopes[1][1] == pytest.approx(1, abs=0.1)


def test_a_negative_direction_is_clipped_and_counted(x64):
    """x⁺ = x + (2, -1) η² x + η z: S + τ S₁ = I + τ diag(-2, 1), at τ = 1."""
    sde = modified_equation(
        lambda t, x, z, h: x + h**2 * jnp.array([2.0, -1.0]) * x + h * z,
        1.0,
        regime="batch-equivalent",
    )
    at = found(sde, 0.0, jnp.asarray(X))
    np.testing.assert_allclose(at.covariance, np.diag([-1, 2]), atol=1e-14)
    np.testing.assert_allclose(at.clipped, 1 / 3, rtol=1e-12)
    np.testing.assert_allclose(at.G @ at.G.T, np.diag([0, 2]), atol=1e-14)


class Decay(eqx.Module):
    """x⁺ = x - η (r x + mean(z)), a hyperparameter as a leaf, x and z of different structures."""

    rate: jax.Array

    def __call__(self, t, y, z, h):
        return jax.tree.map(lambda x: x - h * (self.rate * x + z["a"].mean()), y)


def test_it_runs_on_pytrees_with_any_noise():
    """4096 paths in float32: the mean decays, e^{-(r + η r²/2) T}, within 5 standard errors.

    The false-alarm rate is below 10⁻⁶ a value.
    """
    eta, x0 = 0.1, {"w": jnp.full((2, 1), 2.0), "b": jnp.ones(())}
    sde = modified_equation(
        Decay(jnp.asarray(0.5)), eta, regime="ballistic", noise={"a": jnp.zeros(2)}
    )
    ensemble = jaxsde.simulate(
        SDEProcess(sde, eta / 4),
        x0,
        steps=40,
        paths=4096,
        key=jax.random.key(0),
        records=1,
        observables={"w": lambda x: x["w"][1, 0], "b": lambda x: x["b"]},
    )
    rate = 0.5 + eta / 2 * 0.25
    for name, start in (("w", 2.0), ("b", 1.0)):
        mean, error = ensemble.mean(name)[-1], ensemble.standard_error(name)[-1]
        assert mean == pytest.approx(start * (1 - eta / 4 * rate) ** 40, abs=5 * float(error))
    np.testing.assert_allclose(ensemble.variance("b")[-1], ensemble.variance("w")[-1], rtol=1e-3)


def test_bad_input_is_refused():
    def make(**changed):
        return modified_equation(lambda t, x, z, h: x, **({"learning_rate": 0.1} | changed))

    with pytest.raises(InputError, match="learning_rate must be positive"):
        make(learning_rate=0.0, regime="ballistic")
    with pytest.raises(InputError, match="unknown regime 'balistic'; did you mean ballistic"):
        make(regime="balistic")
    with pytest.raises(InputError, match="order must be 1 or 2, got 3"):
        make(regime="ballistic", order=3)
