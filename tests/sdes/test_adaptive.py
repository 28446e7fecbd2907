"""Order 1: coefficients against the published formulas by hand, starts, hand-over, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsde import InputError
from jaxsde.oracles import GaussianNoise, StudentTNoise
from jaxsde.problems import Problem, Quadratic, Rosenbrock
from jaxsde.sdes import Adam, BatchEquivalentAdam, BatchEquivalentRMSprop, RMSprop
from jaxsde.sdes.adaptive import (
    AdamState,
    BatchEquivalentAdamState,
    BatchEquivalentRMSpropState,
    RMSpropState,
)

SIGMA = np.array([[1.0, 0.5], [0.5, 2.0]])
ETA, EPS, THETA, LAM = 0.04, 0.1, 0.3, 0.2
X, M, V = np.array([0.3, -0.7]), np.array([0.5, -0.2]), np.array([0.4, 1.5])
values, vectors = np.linalg.eigh(SIGMA)
R = (vectors * np.sqrt(values)) @ vectors.T
G = np.array([-20 * 0.3 * (-0.7 - 0.09) - 2 * 0.7, 10 * (-0.7 - 0.09)]) + LAM * X
Q = G**2 + np.diag(SIGMA)


@pytest.fixture
def oracle(x64):
    return GaussianNoise(Rosenbrock(5.0), covariance=SIGMA)


def matrix(sde, t, y):
    """The diffusion as a matrix, rows in the order of the state."""
    operator = sde.diffusion(t, y, None)
    rows = [jnp.concatenate(operator.mv(e)) for e in jnp.eye(2)]
    return np.stack(rows, axis=1)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("timing", ["new", "old"])
def test_rmspropw(corrected, timing, oracle):
    b, t = 0.9, 0.3
    sde = RMSprop(
        oracle, ETA, b, EPS, THETA, LAM, bias_correction=corrected, v_timing=timing
    )  # fmt: skip
    gamma = 1 - b ** (t / ETA + (timing == "new")) if corrected else 1
    P = np.sqrt(V / gamma) + EPS
    y = RMSpropState(jnp.asarray(X), jnp.asarray(V))
    drift = sde.drift(t, y, None)
    np.testing.assert_allclose(drift.X, -G / P - THETA * X, rtol=1e-12)
    np.testing.assert_allclose(drift.V, (1 - b) / ETA * (Q - V), rtol=1e-12)
    expected = np.concatenate([-np.sqrt(ETA) * R / P[:, None], np.zeros((2, 2))])
    np.testing.assert_allclose(matrix(sde, t, y), expected, rtol=1e-12)


ADAMS = {
    "recommended": {},
    "published": {"published": True},
    "uncorrected": {"bias_correction": False},
    "old v": {"v_timing": "old"},
}


@pytest.mark.parametrize("form", ADAMS)
def test_adamw(form, oracle):
    b1, b2, t = 0.8, 0.9, 0.3
    sde = Adam(oracle, ETA, b1, b2, EPS, THETA, LAM, **ADAMS[form])
    rho1, rho2, ahead = (1 - b1) / ETA, (1 - b2) / ETA, t / ETA + 1
    g1, g2, matched = {
        "recommended": (1 - b1**ahead, 1 - b2**ahead, 1),
        "published": (1 - np.exp(-rho1 * t), 1 - np.exp(-rho2 * t), 0),
        "uncorrected": (1, 1, 1),
        "old v": (1 - b1**ahead, 1 - b2 ** (ahead - 1), 1),
    }[form]
    D = np.sqrt(g2) / g1 / (np.sqrt(V) + EPS * np.sqrt(g2))
    y = AdamState(*map(jnp.asarray, (X, M, V)))
    drift = sde.drift(t, y, None)
    np.testing.assert_allclose(drift.X, -D * (M + ETA * rho1 * (G - M)) - THETA * X, rtol=1e-12)
    np.testing.assert_allclose(drift.M, rho1 * (G - M), rtol=1e-12)
    np.testing.assert_allclose(drift.V, rho2 * (Q - V), rtol=1e-12)
    noise = np.sqrt(ETA) * rho1 * R
    expected = np.concatenate([-matched * ETA * D[:, None] * noise, noise, np.zeros((2, 2))])
    np.testing.assert_allclose(matrix(sde, t, y), expected, rtol=1e-12, atol=1e-15)


def test_batch_equivalent_rmsprop(oracle):
    b, sigma = 0.9, 3.0
    sde = BatchEquivalentRMSprop(oracle, ETA, b, EPS, noise_scale=sigma, weight_decay=THETA)
    u, g = V / sigma**2, G - LAM * X
    P = sigma * ETA * np.sqrt(u) + EPS * ETA
    y = BatchEquivalentRMSpropState(jnp.asarray(X), jnp.asarray(u))
    drift = sde.drift(0.0, y, None)
    # A step takes η² of this time and η θ x off the position.
    np.testing.assert_allclose(ETA**2 * (drift.theta + g / P), -ETA * THETA * X, rtol=1e-9)
    rest = np.diag(SIGMA) / sigma**2
    np.testing.assert_allclose(drift.u, (1 - b) / ETA**2 * (rest - u), rtol=1e-12)
    expected = np.concatenate([-sigma * ETA * (R / sigma) / P[:, None], np.zeros((2, 2))])
    np.testing.assert_allclose(matrix(sde, 0.0, y), expected, rtol=1e-12)
    np.testing.assert_allclose(sde.initial(jnp.asarray(X)).u, rest, rtol=1e-12)


def test_batch_equivalent_adam(oracle):
    b1, b2, sigma, t = 0.8, 0.9, 3.0, 0.01
    sde = BatchEquivalentAdam(oracle, ETA, b1, b2, EPS, noise_scale=sigma, weight_decay=THETA)
    c1, c2, u, g = (1 - b1) / ETA**2, (1 - b2) / ETA**2, V / sigma**2, G - LAM * X
    g1, g2 = 1 - np.exp(-c1 * t), 1 - np.exp(-c2 * t)
    P = sigma * ETA * np.sqrt(u) + EPS * ETA * np.sqrt(g2)
    y = BatchEquivalentAdamState(*map(jnp.asarray, (X, M, u)))
    drift = sde.drift(t, y, None)
    expected = -np.sqrt(g2) / g1 / P * M - THETA / ETA * X
    np.testing.assert_allclose(drift.theta, expected, rtol=1e-12)
    np.testing.assert_allclose(drift.m, c1 * (g - M), rtol=1e-12)
    np.testing.assert_allclose(drift.u, c2 * (np.diag(SIGMA) / sigma**2 - u), rtol=1e-12)
    expected = np.concatenate([np.zeros((2, 2)), ETA * c1 * R, np.zeros((2, 2))])
    np.testing.assert_allclose(matrix(sde, t, y), expected, rtol=1e-12, atol=1e-15)


def test_the_two_regimes_agree_where_the_gradient_vanishes(x64):
    """With ∇f = 0 the batch-equivalent SDE is the ballistic one in another clock, dt' = η dt."""
    flat = GaussianNoise(Quadratic([0.0, 0.0]), covariance=SIGMA)
    ballistic = RMSprop(flat, ETA, 0.9, EPS)
    other = BatchEquivalentRMSprop(flat, ETA, 0.9, EPS, noise_scale=2.0)
    y = RMSpropState(jnp.asarray(X), jnp.asarray(V))
    its = BatchEquivalentRMSpropState(jnp.asarray(X), jnp.asarray(V / 4))
    np.testing.assert_allclose(
        ballistic.drift(0.0, y, None).V, 4 * ETA * other.drift(0.0, its, None).u, rtol=1e-12
    )
    np.testing.assert_allclose(
        matrix(ballistic, 0.0, y)[:2], np.sqrt(ETA) * matrix(other, 0.0, its)[:2], rtol=1e-12
    )


def inner(mu, nu):
    """An optax state with both averages."""
    return (
        optax.EmptyState(),
        optax.ScaleByAdamState(jnp.array(7), jnp.asarray(mu), jnp.asarray(nu)),
    )


def test_starts_and_hand_over(oracle):
    x, b = jnp.asarray(X), 0.9
    rest = np.asarray(RMSprop(oracle, ETA).initial(x).V)
    np.testing.assert_allclose(rest, (G - LAM * X) ** 2 + np.diag(SIGMA), rtol=1e-12)
    # The new v is one step ahead of the optimizer's, in mean; the old one is the optimizer's.
    given = RMSprop(oracle, ETA, b, initial_second_moment=0.5)
    np.testing.assert_allclose(given.initial(x).V, b * 0.5 + (1 - b) * rest, rtol=1e-12)
    old = RMSprop(oracle, ETA, b, initial_second_moment=0.5, v_timing="old")
    np.testing.assert_array_equal(old.initial(x).V, [0.5, 0.5])
    np.testing.assert_array_equal(old.resumed(x, inner(M, V)).V, V)
    np.testing.assert_allclose(given.resumed(x, inner(M, V)).V, b * V + (1 - b) * rest, rtol=1e-12)
    corrected = Adam(oracle, ETA, 0.8, b)
    y = corrected.initial(x)
    np.testing.assert_array_equal(y.M, 0)
    np.testing.assert_allclose(y.V, (1 - b) * rest, rtol=1e-12)
    late = Adam(oracle, ETA, 0.8, b, published=True)
    assert float(late.t0) == ETA
    np.testing.assert_allclose(late.initial(x).M, 0.2 * (G - LAM * X), rtol=1e-12)
    np.testing.assert_allclose(late.initial(x).V, (1 - b) * rest, rtol=1e-12)
    np.testing.assert_array_equal(late.resumed(x, inner(M, V)).M, M)
    malladi = BatchEquivalentAdam(oracle, ETA, 0.8, b, noise_scale=2.0)
    np.testing.assert_allclose(float(malladi.t0), ETA**2)
    np.testing.assert_array_equal(malladi.resumed(x, inner(M, V)).u, V / 4)


def test_an_optimizer_without_the_averages_cannot_hand_over(oracle):
    with pytest.raises(InputError, match="keeps no average 'nu'"):
        RMSprop(oracle, ETA).resumed(jnp.asarray(X), (jnp.zeros(2),))


def test_student_t_noise_of_finite_variance_is_welcome(x64):
    heavy = StudentTNoise(Quadratic([1.0, 2.0]), 0.5, 4.0)
    y = RMSprop(heavy, ETA).initial(jnp.asarray(X))
    np.testing.assert_allclose(y.V, (np.array([1, 2]) * X) ** 2 + 0.5, rtol=1e-12)


def test_any_pytree_is_a_point():
    class Squares(Problem):
        def loss(self, x):
            return sum(jnp.sum(leaf**2) / 2 for leaf in jax.tree.leaves(x))

    oracle = GaussianNoise(Squares(), 1.0)
    kinds = (RMSprop, Adam, BatchEquivalentRMSprop, BatchEquivalentAdam)

    def check(x):
        for kind in kinds:
            for order in (1, 2):
                sde = kind(oracle, ETA, order=order)
                y = sde.initial(x)
                dW = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), sde.brownian_structure(x))
                for part in (sde.drift(0.1, y, None), sde.diffusion(0.1, y, None).mv(dW)):
                    assert jax.tree.structure(part) == jax.tree.structure(y)

    jax.eval_shape(check, {"w": jnp.full((2, 2), 0.25), "b": jnp.ones(3)})


GOOD = GaussianNoise(Quadratic([1.0]), 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RMSprop(GOOD, 0.0), "learning_rate must be positive"),
        (lambda: RMSprop(GOOD, ETA, 1.0), r"decay must be one number in \[0, 1\)"),
        (lambda: RMSprop(GOOD, ETA, 0.9, -1e-3), "eps must be finite and not negative"),
        (lambda: RMSprop(GOOD, ETA, weight_decay=-1.0), "weight_decay must be finite and not neg"),
        (lambda: RMSprop(GOOD, ETA, l2_regularization=-1.0), "l2_regularization must be"),
        (
            lambda: RMSprop(GOOD, ETA, eps=0.0, initial_second_moment=0.0),
            "divides by zero: give a positive one or a positive eps, or leave it out",
        ),
        (lambda: RMSprop(GOOD, ETA, initial_second_moment=-1.0), "initial_second_moment must be"),
        (
            lambda: RMSprop(GOOD, ETA, initial_second_moment=1.0, bias_correction=True),
            "bias correction assumes that v starts at 0",
        ),
        (lambda: RMSprop(GOOD, ETA, order=3), "order must be 1 or 2, got 3"),
        (lambda: RMSprop(GOOD, ETA, v_timing="both"), "unknown v_timing 'both'"),
        (lambda: RMSprop(GOOD, ETA, t0=-1.0), "t0 must be finite and not negative"),
        (
            lambda: Adam(StudentTNoise(Quadratic([1.0]), 1.0, 2.0), ETA),
            "does not exist for Student-t noise with 2 degrees",
        ),
        (lambda: Adam(GOOD, ETA, b1=1.0), "b1 must be one number"),
        (lambda: Adam(GOOD, ETA, b2=-0.1), "b2 must be one number"),
        (lambda: Adam(GOOD, ETA, published=True, order=2), "published SDE of Adam is of order 1"),
        (
            lambda: Adam(GOOD, ETA, published=True, t0=0.0),
            "zero at t = 0: give a t0 > 0",
        ),
        (lambda: BatchEquivalentAdam(GOOD, ETA, t0=0.0), "divides by zero at t = 0"),
        (lambda: BatchEquivalentAdam(GOOD, ETA, noise_scale=0.0), "noise_scale must be positive"),
        (lambda: BatchEquivalentRMSprop(GOOD, ETA, decay=2.0), "decay must be one number"),
        (
            lambda: BatchEquivalentAdam(GOOD, ETA, weight_decay=0.1, order=2),
            "order 2 in this regime is without weight_decay",
        ),
        (
            lambda: BatchEquivalentRMSprop(StudentTNoise(Quadratic([1.0]), 1.0, 5.0), ETA, order=2),
            "order 2 in this regime is for GaussianNoise, got StudentTNoise",
        ),
        (
            lambda: RMSprop(StudentTNoise(Quadratic([1.0]), 1.0, 5.0), ETA, order=2).diffusion(
                0.0, RMSpropState(jnp.ones(1), jnp.ones(1)), None
            ),
            "no covariance of its squared noise",
        ),
    ],
)
def test_bad_input_says_what_to_change(make, message):
    with pytest.raises(InputError, match=message):
        make()
