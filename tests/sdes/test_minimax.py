"""Coefficients of the games' SDEs against what one step of the algorithm does."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde import EulerMaruyama, InputError, OptimizerProcess, optimizers, problems
from jaxsde.oracles import Agents, GaussianNoise, MinibatchNoise, MultiplicativeNoise, StudentTNoise
from jaxsde.problems import BilinearGame, Forsaken, Game, Players, Quadratic, QuadraticGame
from jaxsde.sdes import SEG, SGD, SGDA, SHGD

ETA = 0.04
FACTORIES = {
    "sgda": (optimizers.sgda, SGDA, {}),
    "seg": (optimizers.seg, SEG, {"rho": None}),
    "seg-independent": (optimizers.seg, SEG, {"rho": None, "independent": True}),
    "shgd-one": (optimizers.shgd, SHGD, {"batches": 1}),
    "shgd-two": (optimizers.shgd, SHGD, {"batches": 2}),
}
SLOTS = {"seg-independent": 2, "shgd-two": 2}


@pytest.fixture
def z(x64):
    return Players(jnp.array([0.4, -0.7]), jnp.array([0.3, 0.9]))


class Cubic(Game):
    """A nonlinear game of two and two coordinates, in random directions."""

    a: jax.Array
    B: jax.Array

    def payoff(self, z):
        x, y = z
        return jnp.sum(x @ self.B @ y) + jnp.cos(self.a[:2] @ x) - (self.a[2:] @ y) ** 3 / 3


def finite_sum():
    rng = np.random.default_rng(2)
    return problems.mean(
        [
            Cubic(jnp.asarray(rng.normal(size=4)), jnp.asarray(rng.normal(size=(2, 2))))
            for _ in "1234567"
        ]
    )


def flat(z):
    return jnp.concatenate([z.x, z.y])


@eqx.filter_jit
def coefficients(sde, z, t=0.0):
    """Drift, and the diffusion's square over η."""
    y = sde.initial(z)
    diffusion = sde.diffusion(t, y, None)
    unit = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), diffusion.in_structure())
    w, unravel = jax.flatten_util.ravel_pytree(unit)
    G = jax.jacrev(lambda w: flat(diffusion.mv(unravel(w)).X))(w)
    return flat(sde.drift(t, y, None).X), G @ G.T / sde.learning_rate


@eqx.filter_jit
def steps(process, z, draws):
    """(z - z⁺)/η for every draw, stacked."""

    def one(draw):
        return (flat(z) - flat(process.step(0, process.init(z, None), draw).x)) / ETA

    return jax.vmap(one)(draws)


def moments(name, oracle, draws, weights, z, **options):
    """Mean and covariance of one step of the algorithm over independent draws."""
    process = OptimizerProcess(FACTORIES[name][0], {"learning_rate": ETA, **options}, oracle)
    m = len(weights)
    if name in SLOTS:
        slots = process.noise(z)
        places = np.indices((m, m)).reshape(2, -1)
        draws = type(slots)(tuple(jax.tree.map(lambda d, p=p: d[p], draws) for p in places))
        weights = weights[places[0]] * weights[places[1]]
    v = np.asarray(steps(process, z, draws))
    mean = weights @ v
    return mean, (v - mean).T @ (weights[:, None] * (v - mean))


def options_of(name, rho):
    options = FACTORIES[name][2]
    return {**options, "rho": rho} if "rho" in options else options


@pytest.mark.parametrize("name", FACTORIES)
def test_one_step_of_a_finite_sum_by_enumeration(name, z):
    """SEG neglects what is of order ρ² (4 for every halving of ρ); the others nothing."""
    oracle = MinibatchNoise(finite_sum())
    draws, weights = jnp.arange(7)[:, None], np.full(7, 1 / 7)
    errors, without_mean = [], []
    for rho in (0.004, 0.002):
        options = options_of(name, rho)
        mean, covariance = moments(name, oracle, draws, weights, z, **options)
        b, S = coefficients(FACTORIES[name][1](oracle, ETA, **options), z)
        errors.append([np.abs(b + mean).max(), np.abs(S - covariance).max()])
        F, J = oracle.gradient(z), oracle.problem.hessian_vector_product
        without_mean.append(np.abs(mean - flat(F) + rho * flat(J(z, F))).max())
    if not name.startswith("seg"):
        assert np.max(errors) < 1e-11  # of numbers up to 400
        return
    np.testing.assert_allclose(np.divide(*errors), 4, rtol=0.12)
    # -ρ J F is the mean's correction of two draws, not of one
    np.testing.assert_allclose(np.divide(*without_mean), 2 if name == "seg" else 4, rtol=0.12)


def test_one_draw_biases_hamiltonian_descent(z):
    """E J_cᵀ F_c is not JᵀF; two draws have it exactly."""
    oracle, grams = MinibatchNoise(finite_sum()), []
    JF = flat(oracle.problem.transpose_product(z, oracle.gradient(z)))
    for batches in (1, 2):
        grams.append(-coefficients(SHGD(oracle, ETA, batches), z)[0])
    np.testing.assert_allclose(grams[1], JF, rtol=1e-13)
    assert np.abs(grams[0] - JF).max() > 0.1 * np.abs(JF).max()


SIGMA = np.array(
    [[1.0, 0.3, 0.0, 0.1], [0.3, 0.5, 0.2, 0.0], [0.0, 0.2, 2.0, -0.4], [0.1, 0, -0.4, 0.7]]
)


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("game", ["linear", "nonlinear"])
def test_additive_noise_by_matrices(name, game, z):
    """J from the dense Jacobian; the covariances of the players' noise are any matrix."""
    problem = (
        QuadraticGame([[1.0, 0.2], [-0.3, 2.0]], [0.5, -0.2], 0.7)
        if game == "linear"
        else Forsaken()
    )
    oracle, rho = GaussianNoise(problem, covariance=SIGMA), 0.3
    J = jax.jacobian(lambda v: flat(problem.gradient(Players(v[:2], v[2:]))))(flat(z))
    F, one = np.asarray(flat(problem.gradient(z))), np.eye(4)
    field, S = {
        "sgda": (F, SIGMA),
        "seg": (F - rho * J @ F, (one - rho * J) @ SIGMA @ (one - rho * J).T),
        "seg-independent": (F - rho * J @ F, SIGMA + rho**2 * J @ SIGMA @ J.T),
        "shgd-one": (J.T @ F, J.T @ SIGMA @ J),
        "shgd-two": (J.T @ F, J.T @ SIGMA @ J / 2),
    }[name]
    sde = FACTORIES[name][1](oracle, ETA, **options_of(name, rho))
    b, found = coefficients(sde, z)
    np.testing.assert_allclose(b, -field, rtol=1e-12)
    np.testing.assert_allclose(found, S, atol=1e-12)


@pytest.mark.parametrize("name", FACTORIES)
def test_euler_maruyama_at_the_learning_rate_is_the_algorithm(name, z):
    """On a linear field with additive noise, draw by draw."""
    problem = QuadraticGame([[1.0, 0.2], [-0.3, 2.0]], [0.5, -0.2], 0.7)
    oracle, options = GaussianNoise(problem, covariance=SIGMA), options_of(name, -0.3)
    process = OptimizerProcess(FACTORIES[name][0], {"learning_rate": ETA, **options}, oracle)
    sde = FACTORIES[name][1](oracle, ETA, **options)
    xi = [
        Players(jnp.array([0.3, -1.0]), jnp.array([0.7, 0.2])),
        Players(jnp.ones(2), -jnp.ones(2)),
    ]
    draw = type(process.noise(z))(tuple(xi)) if name in SLOTS else xi[0]
    unit = jax.tree.unflatten(
        jax.tree.structure(sde.brownian_structure(z)),
        jax.tree.leaves(sde.shared(process.brownian(z, draw))),
    )
    stepped = process.step(0, process.init(z, None), draw).x
    solved = EulerMaruyama().step(sde, 0.0, sde.initial(z), ETA, unit).X
    np.testing.assert_allclose(flat(solved), flat(stepped), rtol=1e-13)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", FACTORIES)
def test_multiplicative_noise_of_one_pair(name, shared, z):
    """Longer rules in every normal, exact too, against the oracle's own of 3 points."""
    lam, sigma, rho = 2.0, 0.8, 0.3
    oracle = MultiplicativeNoise(BilinearGame([lam]), sigma, shared=shared)
    z = Players(z.x[:1] + 0.2, z.y[:1] - 1.4)
    at, p = np.polynomial.hermite_e.hermegauss(5 if shared else 4)
    p = p / p.sum()
    if shared:
        draws, weights = jnp.asarray(at)[:, None], p
    else:
        i, j = np.indices((4, 4)).reshape(2, -1)
        draws, weights = Players(*(jnp.asarray(at[k])[:, None] for k in (i, j))), p[i] * p[j]
    options = options_of(name, rho)
    mean, covariance = moments(name, oracle, draws, weights, z, **options)
    b, S = coefficients(FACTORIES[name][1](oracle, ETA, **options), z)
    # the field is linear in z, so that the first order in ρ is all there is
    np.testing.assert_allclose(b, -mean, atol=1e-12)
    np.testing.assert_allclose(S, covariance, atol=1e-12)
    square = 0.6**2 + 1.1**2
    if name == "seg-independent":  # arXiv 2402.12508
        known = sigma**2 * square * (1 + rho**2 * (2 * lam**2 + sigma**2))
        np.testing.assert_allclose(np.trace(S), known, rtol=1e-12)
    if name == "shgd-two":
        known = sigma**2 * square * (2 * lam**2 + sigma**2)
        np.testing.assert_allclose(np.trace(S), known, rtol=1e-12)


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("noise", [GaussianNoise, MultiplicativeNoise])
def test_schedules_in_the_clock_of_the_steps(name, noise, z):
    """ψ(t/η) multiplies drift and diffusion, ψ_ρ(t/η) multiplies ρ."""

    def psi(k):
        return 1 / (1 + ETA * k)

    def slow(k):
        return (1 + ETA * k) ** -0.5

    SDE, t = FACTORIES[name][1], 3.0
    oracle = noise(QuadraticGame([1.0, 2.0], 0.3), 0.5)
    more = {"rho_schedule": slow} if name.startswith("seg") else {}
    b, S = coefficients(SDE(oracle, ETA, schedule=psi, **options_of(name, 0.4), **more), z, t)
    plain_b, plain_S = coefficients(SDE(oracle, ETA, **options_of(name, 0.4 / 2)), z)
    np.testing.assert_allclose(b, plain_b / 4, rtol=1e-12)
    np.testing.assert_allclose(S, plain_S / 16, atol=1e-13)


def test_descent_ascent_is_sgd_on_the_field(z):
    oracle = GaussianNoise(Forsaken(), 0.5)
    for found, known in zip(
        coefficients(SGDA(oracle, ETA), z), coefficients(SGD(oracle, ETA), z), strict=True
    ):
        np.testing.assert_array_equal(found, known)


def test_the_order_two_drift_is_extragradients_of_minus_half_a_step(z):
    """-(F + (η/2) J F): why descent ascent diverges on a bilinear game."""
    oracle = GaussianNoise(Forsaken(), 0.5)
    b, _ = coefficients(SEG(oracle, ETA, -ETA / 2), z)
    known, _ = coefficients(SGD(oracle, ETA, order=2), z)
    np.testing.assert_allclose(b, known, rtol=1e-13)


def test_bad_input(z):
    oracle = GaussianNoise(BilinearGame([1.0, 2.0]), 1.0)
    for SDE, options in ((SGDA, {}), (SEG, {"rho": 0.1}), (SHGD, {})):
        with pytest.raises(InputError, match="learning_rate must be positive"):
            SDE(oracle, -1.0, **options)
        with pytest.raises(InputError, match="Quadratic is no game of two players"):
            SDE(GaussianNoise(Quadratic([1.0]), 1.0), ETA, **options)
        with pytest.raises(InputError, match="schedule must be one positive number, or 0"):
            SDE(oracle, ETA, schedule=lambda k: 1 - 0.01 * k, **options)
        with pytest.raises(InputError, match="schedule must be a function"):
            SDE(oracle, ETA, schedule=0.5, **options)
        with pytest.raises(InputError, match="does not exist"):
            SDE(StudentTNoise(oracle.problem, 1.0, 2.0), ETA, **options)
        sde = SDE(oracle, ETA, **options)
        with pytest.raises(InputError, match="a game needs two players"):
            sde.drift(0.0, sde.initial(jnp.ones(4)), None)
    for rho, message in ((np.nan, "rho must be finite"), ([0.1, 0.2], "rho must be one number")):
        with pytest.raises(InputError, match=message):
            SEG(oracle, ETA, rho)
    with pytest.raises(InputError, match="rho must be one finite number"):
        SEG(oracle, ETA, "0.1")
    with pytest.raises(InputError, match=r"BilinearGame is no jaxsde\.oracles\.Oracle"):
        SEG(oracle.problem, ETA, 0.1)
    with pytest.raises(InputError, match="those of Agents come stacked"):
        SHGD(Agents([oracle] * 2), ETA)
    with pytest.raises(InputError, match="rho_schedule must be positive somewhere"):
        SEG(oracle, ETA, 0.1, rho_schedule=lambda k: 0.0)
    with pytest.raises(InputError, match="batches must be 1 or 2"):
        SHGD(oracle, ETA, 3)
    many = MinibatchNoise(finite_sum(), batch_size=7)
    sde = SEG(many, ETA, 0.1)
    with pytest.raises(InputError, match="give the SDE a number of `samples`"):
        sde.drift(0.0, sde.initial(z), None)
    assert np.all(np.isfinite(coefficients(SEG(many, ETA, 0.1, samples=16), z)[1]))
