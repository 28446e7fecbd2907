"""Coefficients of the sharpness-aware SDEs against what one step of the algorithm does."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
from jax.flatten_util import ravel_pytree

from jaxsde import EulerMaruyama, InputError, OptimizerProcess, optimizers
from jaxsde.oracles import Agents, FullBatch, GaussianNoise, MinibatchNoise, StudentTNoise
from jaxsde.problems import LogisticRegression, Problem, Quadratic
from jaxsde.sdes import DNSAM, SAM, SGD, USAM
from jaxsde.sdes._one_step import step_law

PAIRS = {
    "usam": (optimizers.usam, USAM, {}),
    "n-usam": (optimizers.usam, USAM, {"full_perturbation": True}),
    "dnsam": (optimizers.dnsam, DNSAM, {}),
    "sam": (optimizers.sam, SAM, {}),
    "n-sam": (optimizers.sam, SAM, {"full_perturbation": True}),
}
H = np.array([[2.0, -0.5, 0.25], [-0.5, -1.0, 0.0], [0.25, 0.0, 0.5]])
SIGMA = np.array([[1.0, 0.5, 0.0], [0.5, 2.0, -0.25], [0.0, -0.25, 0.5]])
X = np.array([0.5, -1.0, 3.0])
ETA = 0.04


def ravel(tree):
    return ravel_pytree(tree)[0]


@eqx.filter_jit
def coefficients(sde, x):
    """Drift, and the diffusion's square over η, in x's coordinates."""
    y = sde.initial(x)
    diffusion = sde.diffusion(0.0, y, None)
    unit = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), diffusion.in_structure())
    flat, unravel = ravel_pytree(unit)
    G = jax.jacrev(lambda w: ravel(diffusion.mv(unravel(w))))(flat)
    return ravel(sde.drift(0.0, y, None)), G @ G.T / sde.learning_rate


def drift(sde, x):
    return coefficients(sde, x)[0]


@eqx.filter_jit
def step(process, x, draw):
    return process.step(0, process.init(x, None), draw).x


@eqx.filter_jit
def steps(process, x, draws):
    """(x - x⁺)/η for every draw, stacked."""
    return jax.vmap(lambda draw: (x - step(process, x, draw)) / ETA)(draws)


@eqx.filter_jit
def solver_step(sde, x, w):
    return EulerMaruyama().step(sde, 0.0, sde.initial(x), ETA, w).X


def optimizer(factory, oracle, rho, **options):
    return OptimizerProcess(factory, {"learning_rate": ETA, "rho": rho, **options}, oracle)


def regression():
    rng = np.random.default_rng(1)
    return LogisticRegression(rng.standard_normal((7, 3)) * 1.5, rng.integers(0, 2, 7), 0.1)


@pytest.mark.parametrize("name", PAIRS)
def test_one_step_of_a_finite_sum_by_enumeration(name, x64):
    """What is neglected is of order ρ²: halving ρ divides it by 4, in the mean and covariance."""
    factory, SDE, options = PAIRS[name]
    oracle, x = MinibatchNoise(regression()), jnp.array([0.4, -0.7, 0.3])
    draws = jnp.arange(7)[:, None]
    errors, without, first = [], [], []
    for rho in (0.02, 0.01):
        moved = np.asarray(steps(optimizer(factory, oracle, rho, **options), x, draws))
        mean, covariance = moved.mean(0), np.cov(moved.T, bias=True)
        b, S = coefficients(SDE(oracle, ETA, rho, **options), x)
        errors.append([np.abs(b + mean).max(), np.abs(S - covariance).max()])
        _, S1 = coefficients(SDE(oracle, ETA, rho, covariance="first-order", **options), x)
        first.append(np.abs(S1 - covariance).max())
        b0, S0 = coefficients(SGD(oracle, ETA), x)
        without.append([np.abs(b0 + mean).max(), np.abs(S0 - covariance).max()])
    np.testing.assert_allclose(np.divide(*errors), 4, rtol=0.12)
    np.testing.assert_allclose(np.divide(*first), 4, rtol=0.12)
    np.testing.assert_allclose(np.divide(*without), 2, rtol=0.15)


def test_the_published_drift_of_dnsam_is_off_by_order_rho(x64):
    """-∇(f + ρ |∇f|), which is right for additive noise only: here it lacks ρ ∇tr Σ/(2n)."""
    oracle, x, rho = MinibatchNoise(regression()), jnp.array([0.4, -0.7, 0.3]), 0.01
    published = drift(DNSAM(FullBatch(oracle.problem), ETA, rho), x)
    n = np.linalg.norm(drift(SGD(oracle, ETA), x))
    trace = jax.jit(jax.grad(lambda x: jnp.trace(oracle.covariance(x).as_matrix())))(x)
    b = drift(DNSAM(oracle, ETA, rho), x)
    np.testing.assert_allclose(b, published - rho * trace / (2 * n), rtol=1e-12)
    moved = steps(optimizer(optimizers.dnsam, oracle, rho), x, jnp.arange(7)[:, None])
    moved = np.mean(moved, axis=0)
    assert np.abs(b + moved).max() < 0.02 * np.abs(published + moved).max()


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_micro_batches_are_enumerated_too(micro_batches, batch_size, x64):
    """The m-variant: the drift of one micro-batch, its covariance over M."""
    oracle, x = MinibatchNoise(regression(), batch_size), jnp.array([0.4, -0.7, 0.3])
    one = np.stack(np.meshgrid(*[np.arange(7)] * batch_size, indexing="ij")).reshape(batch_size, -1)
    drawn = jnp.asarray(one.T)
    residuals = []
    for rho in (0.02, 0.01):
        moved = np.asarray(steps(optimizer(optimizers.usam, oracle, rho), x, drawn))
        sde = USAM(oracle, ETA, rho, micro_batches=micro_batches)
        b, S = coefficients(sde, x)
        residuals.append(np.abs(S - np.cov(moved.T, bias=True) / micro_batches).max())
        assert np.abs(b + moved.mean(0)).max() < rho**2 * 2
    np.testing.assert_allclose(np.divide(*residuals), 4, rtol=0.12)
    if micro_batches == 2 and batch_size == 1:
        process = optimizer(optimizers.usam, oracle, rho, micro_batches=2)
        slots = process.noise(x)
        both = np.stack(np.meshgrid(np.arange(7), np.arange(7))).reshape(2, -1, 1)
        moved = np.asarray(steps(process, x, type(slots)(tuple(both))))
        np.testing.assert_allclose(np.cov(moved.T, bias=True), S, atol=2 * rho**2)


@pytest.mark.parametrize("name", ["usam", "n-usam", "dnsam", "n-sam"])
def test_euler_maruyama_at_the_learning_rate_is_the_algorithm(name, x64):
    """On a quadratic with Gaussian noise, of any covariance."""
    factory, SDE, options = PAIRS[name]
    oracle, rho = GaussianNoise(Quadratic(H, 0.5), covariance=SIGMA, batch_size=2.0), 0.3
    x, xi = jnp.asarray(X), jnp.array([0.3, -1.2, 0.8])
    stepped = step(optimizer(factory, oracle, rho, **options), x, xi)
    solved = solver_step(SDE(oracle, ETA, rho, **options), x, xi)
    np.testing.assert_allclose(solved, stepped, rtol=1e-14)


def polar_rule(g, scale, nodes=160):
    """Z ~ N(0, σ² I) in the plane about the origin of g + Z, where u = (g + Z)/|g + Z| is smooth.

    Standard normals ξ and their weights, a product of Gauss-Legendre and the trapezoidal rule.
    """
    at, weight = np.polynomial.legendre.leggauss(nodes)
    low, high = max(np.linalg.norm(g) / scale - 9, 0), np.linalg.norm(g) / scale + 9
    r, weight = low + (at + 1) * (high - low) / 2, weight * (high - low) / 2
    angle = 2 * np.pi * np.arange(nodes) / nodes
    u = np.stack([np.cos(angle), np.sin(angle)], -1)
    xi = (r[:, None, None] * u - np.asarray(g) / scale).reshape(-1, 2)
    density = np.exp(-np.sum(xi**2, -1) / 2) / (2 * np.pi)
    return xi, np.repeat(weight * r * 2 * np.pi / nodes, nodes) * density


@pytest.mark.parametrize("point", [[0.0, 0.0], [0.02, -0.01], [0.3, 0.2], [2.0, -3.0]])
def test_sam_in_closed_form_against_quadrature(point, x64):
    """On a quadratic the full covariance is exact: g is at 0, below, near and above σ."""
    problem, scale, rho, x = Quadratic([[1.0, 0.5], [0.5, -2.0]]), 0.5, 0.3, jnp.array(point)
    oracle, g = GaussianNoise(problem, scale), np.asarray(problem.gradient(x))
    xi, p = polar_rule(g, scale)
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)
    v = np.asarray(steps(optimizer(optimizers.sam, oracle, rho), x, jnp.asarray(xi)))
    mean = p @ v
    covariance = (v - mean).T @ (p[:, None] * (v - mean))
    b, S = coefficients(SAM(oracle, ETA, rho), x)
    np.testing.assert_allclose(b, -mean, atol=1e-10)
    np.testing.assert_allclose(S, covariance, atol=1e-10)
    # to first order, Cov(Z, Z) + ρ (Cov(Z, Hu) + Cov(Hu, Z)), v = g + Z + ρ H u
    Z = scale * xi
    Hu = (v - g - Z) / rho
    cross = Z.T @ (p[:, None] * (Hu - p @ Hu))
    _, S1 = coefficients(SAM(oracle, ETA, rho, covariance="first-order"), x)
    first = scale**2 * np.eye(2) + rho * (cross + cross.T)
    values, vectors = np.linalg.eigh(first)
    np.testing.assert_allclose(S1, (vectors * np.maximum(values, 0)) @ vectors.T, atol=1e-9)


def test_sam_in_one_dimension_is_exact(x64):
    """u = sign(g + Z): E u = erf(s/√2), Cov(Z, u) = 2 σ φ(s), Var u = 1 - (E u)²."""
    scale, rho, lam = 0.5, 0.3, -2.0
    oracle = GaussianNoise(Quadratic([lam]), scale)
    for x in (0.0, 0.1, -0.4, 3.0):
        g = lam * x
        s = g / scale
        mean = scipy.special.erf(s / np.sqrt(2))
        shared = 2 * scale * np.exp(-(s**2) / 2) / np.sqrt(2 * np.pi)
        b, S = coefficients(SAM(oracle, ETA, rho), jnp.array([x]))
        np.testing.assert_allclose(b, [-(g + rho * lam * mean)], atol=1e-9)
        first = scale**2 + 2 * rho * lam * shared
        np.testing.assert_allclose(S, [[first + (rho * lam) ** 2 * (1 - mean**2)]], atol=1e-9)
        _, S1 = coefficients(SAM(oracle, ETA, rho, covariance="first-order"), jnp.array([x]))
        np.testing.assert_allclose(S1, [[max(first, 0)]], atol=1e-9)


def test_first_order_covariance_of_additive_noise(x64):
    """Σ + ρ s (Σ H + H Σ) of USAM (s = 1) and DNSAM (s = 1/n), where it is positive."""
    oracle, x, rho = GaussianNoise(Quadratic(H, 0.5), covariance=SIGMA), jnp.asarray(X), 0.05
    n = np.linalg.norm(H @ (X - 0.5))
    for SDE, s in ((USAM, 1), (DNSAM, 1 / n)):
        _, S = coefficients(SDE(oracle, ETA, rho, covariance="first-order"), x)
        np.testing.assert_allclose(S, SIGMA + rho * s * (SIGMA @ H + H @ SIGMA), atol=1e-12)
        _, S = coefficients(SDE(oracle, ETA, rho, covariance="sgd"), x)
        np.testing.assert_allclose(S, SIGMA, atol=1e-14)


@pytest.mark.parametrize("name", PAIRS)
def test_without_noise_they_are_the_ordinary_differential_equations(name, x64):
    _, SDE, options = PAIRS[name]
    problem, x, rho = Quadratic(H, 0.5), jnp.asarray(X), 0.3
    g = H @ (X - 0.5)
    n = 1 if name in ("usam", "n-usam") else np.linalg.norm(g)
    sde = SDE(FullBatch(problem), ETA, rho, **options)
    np.testing.assert_allclose(drift(sde, x), -(g + rho / n * H @ g), rtol=1e-13)
    assert jax.tree.leaves(sde.brownian_structure(x)) == []
    if n != 1:
        np.testing.assert_array_equal(drift(sde, jnp.full(3, 0.5)), np.zeros(3))
        floored = SDE(FullBatch(problem), ETA, rho, floor=100.0, **options)
        np.testing.assert_allclose(drift(floored, x), -(g + rho / 100 * H @ g), rtol=1e-13)


def test_without_diffusion_the_drift_keeps_the_noises_part(x64):
    oracle, x = MinibatchNoise(regression()), jnp.array([0.4, -0.7, 0.3])
    full, none = (USAM(oracle, ETA, 0.1, covariance=c) for c in ("full", "none"))
    np.testing.assert_allclose(drift(full, x), drift(none, x), rtol=1e-13)
    assert jax.tree.leaves(none.brownian_structure(x)) == []


def test_a_sample_stands_for_draws_that_cannot_be_enumerated(x64):
    """Of 20,000 draws E and Cov are the closed form's to their error, |∇f| below σ and above.

    2 x (3 + 6) numbers within 5 standard errors: false alarms below 1e-5, were the sample not one
    and the same for ever.
    """
    problem, rho, m = Quadratic(H), 0.4, 20_000
    for scale in (0.5, 0.05):
        oracle, x = GaussianNoise(problem, scale), jnp.asarray(X) / 10
        b, S = coefficients(SAM(oracle, ETA, rho), x)
        b_m, S_m = coefficients(SAM(oracle, ETA, rho, samples=m), x)
        spread = rho * np.abs(np.linalg.eigvalsh(H)).max() / np.sqrt(m)  # of ρ H u, |u| = 1
        assert np.abs(b_m - b).max() < 5 * spread
        error = np.sqrt((np.outer(np.diag(S), np.diag(S)) + S**2) / m)
        assert np.all(np.abs(S_m - S) < 5 * error)
        usam, _ = coefficients(USAM(oracle, ETA, rho), x)
        assert np.abs(b - usam).max() > 20 * spread or scale == 0.5


def sampled_gradients(oracle, x):
    (draws,) = step_law(oracle, x, samples=4).draws
    return jax.vmap(lambda c: oracle.sample_gradient(x, c))(draws)


def test_a_sample_knows_what_is_known(x64):
    """E p_c of USAM and DNSAM, so that additive noise has the exact drift; variances over m - 1."""
    oracle, x = GaussianNoise(Quadratic(H), covariance=SIGMA), jnp.asarray(X)
    for SDE in (USAM, DNSAM):
        b, _ = coefficients(SDE(oracle, ETA, 0.1), x)
        b_m, S = coefficients(SDE(oracle, ETA, 0.1, samples=4), x)
        np.testing.assert_allclose(b_m, b, rtol=1e-12)
        assert np.linalg.matrix_rank(S, tol=1e-9) == 3
    g = jax.jit(sampled_gradients)(oracle, x)
    _, S = coefficients(USAM(oracle, ETA, 0.0, samples=4), x)
    np.testing.assert_allclose(S, np.cov(g.T), rtol=1e-12)
    batches = MinibatchNoise(regression(), 8)  # H_c ∇f has a known mean, whatever the noise
    x = jnp.array([0.4, -0.7, 0.3])
    full = USAM(batches, ETA, 0.1, full_perturbation=True, covariance="none")
    known = USAM(FullBatch(batches.problem), ETA, 0.1)
    np.testing.assert_array_equal(drift(full, x), drift(known, x))


def test_the_size_of_the_batch_and_micro_batches_with_additive_noise(x64):
    """A batch divides Σ, in u's law too; M micro-batches divide S and share their mean motion."""
    problem, x, rho = Quadratic(H), jnp.asarray(X) / 10, 0.4
    for SDE in (USAM, DNSAM, SAM):
        one = coefficients(SDE(GaussianNoise(problem, 0.5), ETA, rho), x)
        four = coefficients(SDE(GaussianNoise(problem, 1.0, batch_size=4), ETA, rho), x)
        for found, known in zip(four, one, strict=True):
            np.testing.assert_allclose(found, known, rtol=1e-12)
        oracle = GaussianNoise(problem, 0.5)
        b, S = coefficients(SDE(oracle, ETA, rho, micro_batches=3), x)
        np.testing.assert_allclose(b, one[0], rtol=1e-12)
        np.testing.assert_allclose(S, one[1] / 3, rtol=1e-12)
    process = optimizer(optimizers.usam, oracle, rho, micro_batches=3)
    sde = USAM(oracle, ETA, rho, micro_batches=3)
    draws = tuple(jnp.asarray(w) for w in np.random.default_rng(0).normal(size=(3, 3)))
    slots = type(process.noise(x))(draws)
    unit = sde.shared(process.brownian(x, slots))
    np.testing.assert_allclose(solver_step(sde, x, unit), step(process, x, slots), rtol=1e-13)


def test_the_floor_is_not_of_the_closed_form(x64):
    oracle, x = GaussianNoise(Quadratic([1.0, 2.0]), 0.1), jnp.array([0.2, -0.1])
    plain, floored = (coefficients(SAM(oracle, ETA, 0.3, floor=f), x) for f in (1e-12, 1.0))
    for found, known in zip(floored, plain, strict=True):
        np.testing.assert_array_equal(found, known)


class Parts(Problem):
    """The quadratic of `{"a": (1, 1), "b": (2,)}`, whose coordinates are x₃, x₁ and x₂."""

    def loss(self, x):
        return Quadratic(H).loss(jnp.concatenate([x["b"], x["a"].ravel()]))


@pytest.mark.parametrize("covariance", ["full", "first-order", "sgd", "none"])
@pytest.mark.parametrize("SDE", [USAM, DNSAM, SAM])
def test_a_point_of_several_arrays_is_one_vector(SDE, covariance, x64):
    """Drift and covariance at two arrays are those at one array, its coordinates in their order."""
    x, order, noise = X / 10, [2, 0, 1], {"scale": 0.5}
    parts = {"a": jnp.array(x[2:].reshape(1, 1)), "b": jnp.array(x[:2])}
    if SDE is not SAM:
        noise = {"covariance": SIGMA}
    mixed = noise if SDE is SAM else {"covariance": SIGMA[np.ix_(order, order)]}
    several = SDE(GaussianNoise(Parts(), **mixed), ETA, 0.1, covariance=covariance)
    sizes = [leaf.size for leaf in jax.tree.leaves(several.brownian_structure(parts))]
    motions = 0 if covariance == "none" else 2 if SDE is SAM and covariance == "full" else 1
    assert sum(sizes) == 3 * motions
    b, S = coefficients(several, parts)
    of_one = SDE(GaussianNoise(Quadratic(H), **noise), ETA, 0.1, covariance=covariance)
    one_b, one_S = coefficients(of_one, jnp.array(x))
    np.testing.assert_allclose(b, one_b[np.array(order)], rtol=1e-13)
    np.testing.assert_allclose(S, np.asarray(one_S)[np.ix_(order, order)], atol=1e-13)


def test_without_noise_diffrax_solves_the_drift(x64):
    """x' = -(I + ρ H) H x of USAM by diagonalisation, x' = -(I + ρ H/|H x|) H x of SAM by SciPy."""
    rho, T = 0.3, 0.2
    rates, axes = np.linalg.eigh(H + rho * H @ H)
    usam = axes @ (np.exp(-rates * T) * (axes.T @ X))

    def slope(_, x):
        return -(H @ x + rho * H @ H @ x / np.linalg.norm(H @ x))

    sam = scipy.integrate.solve_ivp(slope, (0, T), X, rtol=1e-11, atol=1e-11).y[:, -1]
    for SDE, known in ((USAM, usam), (SAM, sam)):
        sde = SDE(FullBatch(Quadratic(H)), ETA, rho)
        solved = diffrax.diffeqsolve(
            sde.terms(), diffrax.Tsit5(), 0.0, T, 0.05, sde.initial(jnp.asarray(X))
        ).ys.X[0]
        np.testing.assert_allclose(solved, known, atol=1e-6)


def test_general_noise_needs_a_sample(x64):
    x = jnp.asarray(X)
    for oracle in (
        GaussianNoise(Quadratic(H), covariance=SIGMA),
        StudentTNoise(Quadratic(H), 1, 5),
    ):
        sde = SAM(oracle, ETA, 0.1)
        with pytest.raises(InputError, match="give the SDE a number of `samples`"):
            sde.drift(0.0, sde.initial(x), None)
        sampled = SAM(oracle, ETA, 0.1, samples=4)
        assert np.all(np.isfinite(drift(sampled, x)))
    assert np.all(np.isfinite(coefficients(USAM(oracle, ETA, 0.1), x)[1]))


@pytest.mark.parametrize("SDE", [USAM, DNSAM, SAM])
def test_bad_input(SDE):
    oracle = GaussianNoise(Quadratic(H), 1.0)
    for arguments, options, message in [
        ((oracle, 0.0, 0.1), {}, "learning_rate must be positive"),
        ((oracle, ETA, -0.1), {}, "rho must be finite and not negative"),
        ((oracle, ETA, 0.1), {"micro_batches": 0}, "micro_batches must be a whole number"),
        ((oracle, ETA, 0.1), {"samples": 1}, "samples must be a whole number of at least 2"),
        ((oracle, ETA, 0.1), {"covariance": "fulll"}, "did you mean full"),
        ((StudentTNoise(Quadratic(H), 1.0, 2.0), ETA, 0.1), {}, "does not exist"),
        ((Quadratic(H), ETA, 0.1), {}, "Quadratic is no jaxsde.oracles.Oracle"),
        ((Agents([oracle] * 2), ETA, 0.1), {}, "those of Agents come stacked"),
    ]:
        with pytest.raises(InputError, match=message):
            SDE(*arguments, **options)
    if SDE is not USAM:
        with pytest.raises(InputError, match="floor must be positive"):
            SDE(oracle, ETA, 0.1, floor=0.0)
