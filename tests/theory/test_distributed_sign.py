"""DSignSGD: moments, stationary laws and exact lattice laws, with and without a majority vote."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import distributed, sign

INF = np.inf
ETA = 0.1
LAM = np.array([2.0, 0.5, -1.0])
SIGMA = np.array([[3.0, 2.0, 4.0], [5.0, 2.5, 9.0]])  # two agents, three coordinates
MINIMIZER = np.array([0.5, 0.0, -1.0])
X0 = np.array([1.25, -1.0, -0.5])
PROBLEM = Quadratic(LAM, MINIMIZER)
LAWS = [theory.discrete, theory.em(0.05), theory.sde]


def noise(nu):
    return scipy.stats.norm if nu == INF else scipy.stats.t(nu)


def cdfs(sigmas, nu=INF):
    return [lambda z, s=s: noise(nu).cdf(z / s) for s in sigmas]


def double_well(x):
    return x**3 - x


def tilted(shift):
    return lambda z: 0.5 + np.arctan((z - shift) / 0.8) / np.pi


@pytest.mark.parametrize("vote", [False, True])
@pytest.mark.parametrize("N", [1, 2, 3])
def test_lattice_law_by_enumerating_all_signs(N, vote):
    eta, start, steps = 0.3, 0.2, 4
    agents = [tilted(0.1 + 0.4 * i) for i in range(N)]
    x, weight = np.array([start]), np.ones(1)
    for _ in range(steps):
        moved, weights = [], []
        for signs in itertools.product([1, -1], repeat=N):
            total = np.sum(signs)
            moved.append(x - eta * (np.sign(total) if vote else total / N))
            each = [
                f(-double_well(x)) if s == -1 else 1 - f(-double_well(x))
                for f, s in zip(agents, signs, strict=True)
            ]
            weights.append(weight * np.prod(each, axis=0))
        x, weight = np.concatenate(moved), np.concatenate(weights)
    args = double_well, agents, eta, start, steps
    positions, probabilities = distributed.lattice_law(*args, majority_vote=vote)
    near = np.abs(x - positions[:, None]) < 1e-9
    assert np.all(np.sum(near, axis=0) == 1)
    np.testing.assert_allclose(probabilities, near @ weight, rtol=1e-12, atol=1e-15)
    observables = {"cos": np.cos, "right": lambda x: x > 0.25}
    found = distributed.lattice_moments(*args, observables, majority_vote=vote)
    for name, phi in observables.items():
        assert found[name].shape == (steps + 1,)
        assert found[name][0] == phi(start)
        assert found[name][-1] == pytest.approx(weight @ phi(x), rel=1e-12)


def test_one_agents_lattice_is_signsgds():
    args = 0.05, 0.3, 40
    expected = sign.lattice_moments(double_well, tilted(0.1), *args, {"x": np.cos})["x"]
    for vote in (False, True):
        found = distributed.lattice_moments(
            double_well, [tilted(0.1)], *args, {"x": np.cos}, majority_vote=vote
        )
        np.testing.assert_allclose(found["x"], expected, rtol=1e-14)


def test_bad_lattices_are_refused():
    with pytest.raises(InputError, match="one CDF an agent"):
        distributed.lattice_law(double_well, [], ETA, 0.0, 3)
    with pytest.raises(InputError, match="probabilities"):
        distributed.lattice_law(double_well, [tilted(0.1), lambda z: z], ETA, 0.3, 3)
    with pytest.raises(InputError, match="steps"):
        distributed.lattice_law(double_well, [tilted(0.1)], ETA, 0.0, -1)
    with pytest.raises(InputError, match="learning_rate"):
        distributed.lattice_moments(double_well, [tilted(0.1)], 0.0, 0.0, 3, {})
    with pytest.raises(InputError, match="x0"):
        distributed.lattice_law(double_well, [tilted(0.1)], ETA, INF, 3)


@pytest.mark.parametrize("nu", [1.0, INF])
def test_discrete_moments_are_exact_for_uniform_noise(nu):
    """Uniform noise on ±σ/l has E sign(g) = l λ y/σ: the linear theory is its exact lattice law."""
    time = ETA * np.array([0, 1, 12])
    found = distributed.sign_moments(PROBLEM, SIGMA, ETA, X0, time, theory.discrete, nu, agents=2)
    for i in range(3):
        exact = distributed.lattice_moments(
            lambda x, i=i: LAM[i] * (x - MINIMIZER[i]),
            [lambda z, w=w: np.clip(0.5 + z / (2 * w), 0, 1) for w in SIGMA[:, i] / sign.slope(nu)],
            ETA,
            X0[i],
            12,
            {"x": lambda x: x, "xx": np.square},
        )
        mean, second = exact["x"][[0, 1, 12]], exact["xx"][[0, 1, 12]]
        np.testing.assert_allclose(found.mean[:, i], mean, rtol=1e-12)
        np.testing.assert_allclose(found.covariance[:, i, i], second - mean**2, atol=1e-13)
    np.testing.assert_array_equal(found.covariance * (1 - np.eye(3)), 0)


def test_em_moments_by_enumerating_two_point_noise():
    dt, steps, l = 0.04, 8, np.sqrt(2 / np.pi)  # noqa: E741
    s = l * LAM / SIGMA
    paths = []
    for signs in itertools.product([1, -1], repeat=steps):
        y = X0 - MINIMIZER
        for xi in signs:
            variance = dt * ETA / 2 * (1 - np.mean((s * y) ** 2, axis=0))
            y = y - dt * np.mean(s * y, axis=0) + np.sqrt(variance) * xi
        paths.append(MINIMIZER + y)
    found = distributed.sign_moments(PROBLEM, SIGMA, ETA, X0, dt * steps, theory.em(dt), agents=2)
    np.testing.assert_allclose(found.mean, np.mean(paths, axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.diag(found.covariance), np.var(paths, axis=0), rtol=1e-11)


def test_em_tends_to_the_sde():
    args = PROBLEM, SIGMA, ETA, X0, 2.0
    limit = distributed.sign_moments(*args, agents=2)
    coarse, fine = (distributed.sign_moments(*args, theory.em(2.0**-k), agents=2) for k in (9, 10))
    for name in ("mean", "covariance"):
        extrapolated = 2 * getattr(fine, name) - getattr(coarse, name)
        np.testing.assert_allclose(extrapolated, getattr(limit, name), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("linearised", [True, False])
def test_one_agent_is_signsgd(law, linearised):
    args = PROBLEM, SIGMA[0], ETA, X0, 1.0, law, 3.0
    expected = sign.moments(*args)
    for vote in (False, True):
        found = distributed.sign_moments(
            PROBLEM, SIGMA[:1], *args[2:], agents=1, majority_vote=vote
        )
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
        np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-12)
        args_2 = ETA, law, 3.0
        np.testing.assert_allclose(
            distributed.sign_stationary_variance(
                Quadratic(abs(LAM)), SIGMA[:1], *args_2,
                agents=1, majority_vote=vote, linearised=linearised,
            ),
            sign.stationary_variance(
                Quadratic(abs(LAM)), SIGMA[0], *args_2, linearised=linearised
            ),
            rtol=1e-12,
        )  # fmt: skip


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("vote", [False, True])
def test_linearised_stationary_variance_is_the_limit_of_the_moments(law, vote):
    problem, scale = Quadratic(LAM[:2]), 3.0 if vote else [3.0, 1.0, 0.5]
    options = {"agents": 3, "majority_vote": vote}
    late = distributed.sign_moments(problem, scale, ETA, X0[:2], 200.0, law, 1.0, **options)
    level = distributed.sign_stationary_variance(
        problem, scale, ETA, law, 1.0, linearised=True, **options
    )
    np.testing.assert_allclose(np.diag(late.covariance), level, rtol=1e-9)


def test_the_linearised_sde_is_the_published_law():
    lam, sigma, l = LAM[:2], np.array([0.5, 1.0, 2.0]), sign.slope(1.0)  # noqa: E741
    h1, h2 = distributed.harmonic_mean(sigma), distributed.harmonic_mean(sigma, 2)
    level = distributed.sign_stationary_variance(
        Quadratic(lam), sigma, ETA, theory.sde, 1.0, agents=3, linearised=True
    )
    published = ETA / 6 / (l * lam / h1 + ETA * l**2 / 6 * lam**2 / h2**2)
    np.testing.assert_allclose(level, published, rtol=1e-12)


def lattice_variance(sigmas, nu, vote):
    """η = λ = 1: after ten relaxation times."""
    scale = np.mean(1 / np.array(sigmas)) * sign.slope(nu)
    scale *= distributed.vote_slope(len(sigmas)) if vote else 1
    steps = int(10 / scale)
    args = (lambda x: x), cdfs(sigmas, nu), 1.0, 0.0, steps, {"xx": np.square}
    second = distributed.lattice_moments(*args, majority_vote=vote)["xx"]
    return np.mean(second[-2:])


@pytest.mark.parametrize(("N", "vote"), [(4, False), (3, True), (5, True)])
@pytest.mark.parametrize("nu", [1.0, 1.5, 2.0, 3.0, INF])
def test_next_order_of_the_stationary_variance(nu, N, vote):
    """(Var / V₀ - 1) / V₀ of the exact law, extrapolated to V₀ = 0, is the coefficient."""
    shape = np.ones(N) if vote else np.array([0.5, 0.75, 1.0, 2.0])
    pull = sign.slope(nu) * np.mean(1 / shape) * (distributed.vote_slope(N) if vote else N)
    coefficients = []
    for size in (15.0, 30.0):
        v0 = size / (2 * pull)
        formula = distributed.sign_stationary_variance(
            Quadratic(np.ones(1)), size * shape, 1.0, theory.discrete, nu,
            agents=N, majority_vote=vote,
        )[0]  # fmt: skip
        exact = lattice_variance(size * shape, nu, vote)
        coefficients.append([size * (exact / v0 - 1), size * (formula / v0 - 1)])
    (exact_coarse, formula_coarse), (exact_fine, formula_fine) = coefficients
    assert formula_fine == pytest.approx(formula_coarse, abs=1e-9)
    assert 2 * exact_fine - exact_coarse == pytest.approx(formula_fine, abs=0.02)


def test_stationary_variance_of_the_sde_and_of_em():
    """Their next orders against the algorithm's: (N h a²/η) alone tells them apart."""
    problem, sigma = Quadratic(np.ones(1)), np.array([3.0, 5.0])
    found = [
        distributed.sign_stationary_variance(problem, sigma, 0.1, law, agents=2)[0]
        for law in (theory.sde, theory.em(0.05), theory.discrete)
    ]
    a = sign.slope() * np.mean(1 / sigma)
    v0 = 0.1 / (4 * a)
    np.testing.assert_allclose(np.diff(found), v0 * a * 0.05 / 2, rtol=1e-9)
    bend = np.mean(1 / sigma**3) / np.mean(1 / sigma) / 2 - 2 / np.pi * np.mean(1 / sigma**2)
    assert found[0] == pytest.approx(v0 * (1 + v0 * bend), rel=1e-12)


@pytest.mark.parametrize("N", [1, 4, 8])
@pytest.mark.parametrize("nu", [1.0, 2.0, INF])
def test_which_formula_how_near(N, nu):
    """η = 0.02, λ up to 3, σ from 0.5 to 2: leading, linear (N > 1) and corrected variances."""
    lam, sigma = 3.0, np.geomspace(0.5, 2, N) if N > 1 else np.array([1.0])
    exact = distributed.lattice_moments(
        lambda x: lam * x, cdfs(sigma, nu), 0.02, 0.0, 300, {"xx": np.square}
    )["xx"][-1]
    args = Quadratic(np.array([lam])), sigma, 0.02, theory.discrete, nu
    leading = 0.02 * distributed.harmonic_mean(sigma) / (2 * N * sign.slope(nu) * lam)
    linear = distributed.sign_stationary_variance(*args, agents=N, linearised=True)[0]
    corrected = distributed.sign_stationary_variance(*args, agents=N)[0]
    assert exact / leading == pytest.approx(1, abs=0.07)
    assert exact / linear == pytest.approx(1, abs=0.03 if N > 1 else 0.06)
    assert exact / corrected == pytest.approx(1, abs=0.003)


def test_scaling_figures():
    """E f on H = diag(1, 1.5, 2, 3), σ = 1, η = 0.01: N and B against their compensations."""

    def level(eta, N, sigma=1.0):
        return sum(
            lam / 2 * distributed.lattice_moments(
                lambda x, lam=lam: lam * x, cdfs([sigma] * N), eta, 0.0, 500, {"xx": np.square}
            )["xx"][-1]
            for lam in (1.0, 1.5, 2.0, 3.0)
        )  # fmt: skip

    base = level(0.01, 1)
    assert level(0.01, 4) / base == pytest.approx(1 / 4, rel=0.003)
    assert level(0.04, 4) / base == pytest.approx(1.021, abs=0.004)
    assert level(0.02, 1, 0.5) / base == pytest.approx(1.015, abs=0.004)


@pytest.mark.parametrize("N", [1, 3, 5, 25])
def test_vote_slopes(N):
    h = 1e-5
    up, down = (scipy.stats.binom(N, 0.5 + s * h).sf(N // 2) for s in (1, -1))
    assert distributed.vote_slope(N) == pytest.approx((up - down) / (2 * h), rel=1e-6)
    if N == 25:
        assert distributed.vote_slope(N) == pytest.approx(math.sqrt(2 * N / np.pi), rel=0.02)


def test_votes_moments_are_those_of_one_quicker_agent():
    steeper = 3 * 2 / 4
    found = distributed.sign_moments(PROBLEM, 3.0, ETA, X0, 1.0, agents=3, majority_vote=True)
    expected = sign.moments(PROBLEM, 3.0 / steeper, ETA, X0, 1.0)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-12)


def test_scales_for_all_agents_or_one_by_one():
    problem = Quadratic(abs(LAM))
    found = [
        distributed.sign_stationary_variance(problem, scale, ETA, agents=2)
        for scale in (3.0, [3.0, 3.0], np.full((2, 3), 3.0))
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    by_agent = distributed.sign_stationary_variance(problem, [3.0, 5.0], ETA, agents=2)
    both = np.repeat([[3.0], [5.0]], 3, axis=1)
    np.testing.assert_array_equal(
        by_agent, distributed.sign_stationary_variance(problem, both, ETA, agents=2)
    )


def test_what_has_no_law_is_refused():
    problem, x0 = Quadratic(np.ones(2)), np.ones(2)

    def refused(match, problem=problem, scale=1.0, x0=x0, time=1.0, law=theory.sde, **options):
        with pytest.raises(InputError, match=match):
            distributed.sign_moments(
                problem, scale, ETA, x0, time, law, **({"agents": 3} | options)
            )

    refused("diagonal hessian", Quadratic(np.eye(2)))
    refused(r"scale must be a scalar, \(3,\) or \(3, 2\), got \(2,\)", scale=np.ones(2))
    refused(r"scale must be a scalar, \(3,\) or \(3, 2\)", scale=np.ones((2, 3)))
    refused("scale must be positive", scale=0.0)
    refused("agents must be a whole number", agents=0)
    refused("x0 must have shape", x0=np.ones(3))
    refused("multiples", time=0.25, law=theory.discrete)
    refused("degrees_of_freedom", degrees_of_freedom=0.0)
    refused("odd number of agents, got 2", agents=2, majority_vote=True)
    refused("one scale for all agents", scale=[1.0, 1.0, 2.0], majority_vote=True)
    with pytest.raises(InputError, match="positive in every entry"):
        distributed.sign_stationary_variance(Quadratic(np.array([1.0, 0.0])), 1.0, ETA, agents=2)
    for law in (theory.discrete, theory.em(0.5)):
        with pytest.raises(InputError, match="unstable"):
            distributed.sign_stationary_variance(problem, 0.01, ETA, law, agents=2, linearised=True)
