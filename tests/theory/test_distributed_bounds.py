"""Bounds for DSGD, DCSGD and DSignSGD."""

import numpy as np
import pytest

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import distributed, sign
from jaxsde.theory import gradient_descent as gd

TIME = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 16.0])
LAM = np.array([1.0, 1.5, 2.0, 3.0])
SGD = {"learning_rate": 0.02, "mu": 1.0, "smoothness": 3.0, "sigma": 1.0, "agents": 2}
SIGN = {"learning_rate": 0.1, "mu": 0.5, "hessian_trace": 1.0}


def test_loss_bounds_as_computed_before():
    """H = diag(1, 1.5, 2, 3), σ = 1, N = 2, ω = 3, η = 0.02, from x = (1, 1, 1, 1)."""
    constants, time = SGD | {"omega": 3.0}, [1.0, 2.0, 4.0, 16.0]
    sharp = distributed.loss_bound(3.75, time, dimension=4, **constants)
    np.testing.assert_allclose(sharp, [0.662, 0.205, 0.127, 0.126], atol=6e-4)
    loose = distributed.loss_bound(3.75, time, dimension=4, sharp=False, **constants)
    np.testing.assert_allclose(loose, [0.779, 0.252, 0.142, 0.139], atol=6e-4)
    traced = distributed.loss_bound(3.75, time, hessian_trace=7.5, **constants)
    np.testing.assert_allclose(traced, [0.622, 0.159, 0.080, 0.079], atol=6e-4)


@pytest.mark.parametrize("sharp", [True, False])
def test_loss_bound_solves_its_equation(sharp):
    """S' = -|∇f|² + (η/2N) (L d V + L ω̄ |∇f|²) at the worst |∇f|², agents that differ."""
    sigma, omega = np.array([0.5, 2.0]), np.array([4.0, 1.0])
    constants = SGD | {"sigma": sigma, "omega": omega, "batch_size": 2.5, "dimension": 4}
    noise = 0.02 / 4 * 3 * 4 * np.mean(sigma**2 * (1 + omega)) / 2.5

    def slope(S):
        compression = 0.02 / 4 * 3 * 2.5
        return noise - 2 * S * (1 - compression) if sharp else noise - 2 * S + compression * 6 * S

    S = 2.0
    for _ in range(1000):
        k = slope(S)
        k = slope(S + k / 2000)
        S += k / 1000
    found = distributed.loss_bound(2.0, [0.0, 1.0], sharp=sharp, **constants)
    np.testing.assert_allclose(found, [2.0, S], rtol=1e-6)
    late = distributed.loss_bound(2.0, 1e3, sharp=sharp, **constants)
    level = distributed.loss_level(sharp=sharp, **constants)
    assert late == pytest.approx(level, rel=1e-12)
    assert slope(level) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("fixed_count", [False, True])
@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_loss_bounds_hold_on_quadratics(fixed_count, angle):
    c, s = np.cos(angle), np.sin(angle)
    Q = np.kron(np.eye(2), [[c, -s], [s, c]])
    problem = Quadratic(Q @ np.diag(LAM) @ Q.T)
    omega, sigma = np.array([3.0, 1.0]), np.array([0.5, 2.0])
    covariance = sigma[:, None, None] ** 2 * np.eye(4)
    law = distributed.moments(
        problem, covariance, 0.02, np.ones(4), TIME, agents=2, omega=omega, fixed_count=fixed_count
    )
    loss, constants = theory.expected_loss(problem, law), SGD | {"omega": omega, "sigma": sigma}
    traced = distributed.loss_bound(loss[0], TIME, hessian_trace=7.5, **constants)
    sharp = distributed.loss_bound(loss[0], TIME, dimension=4, **constants)
    loose = distributed.loss_bound(loss[0], TIME, dimension=4, sharp=False, **constants)
    assert np.all(loss <= traced * (1 + 1e-6))
    assert np.all(traced[1:] < sharp[1:])
    assert np.all(sharp[1:] < loose[1:])


def test_the_sharp_bound_is_an_equality_for_isotropic_quadratics():
    problem, omega, sigma = Quadratic(np.full(3, 0.5)), np.array([3.0, 1.0]), np.array([0.5, 2.0])
    covariance = sigma[:, None, None] ** 2 * np.eye(3)
    law = distributed.moments(problem, covariance, 0.3, np.ones(3), TIME, agents=2, omega=omega)
    constants = {"learning_rate": 0.3, "mu": 0.5, "smoothness": 0.5, "agents": 2}
    constants |= {"sigma": sigma, "omega": omega}
    loss = theory.expected_loss(problem, law)
    for extent in ({"dimension": 3}, {"hessian_trace": 1.5}):
        found = distributed.loss_bound(loss[0], TIME, **extent, **constants)
        np.testing.assert_allclose(found, loss, rtol=1e-10)


def test_one_agent_without_compression_is_sgd():
    constants = {"learning_rate": 0.1, "mu": 0.5, "hessian_trace": 3.0, "batch_size": 4}
    expected = gd.loss_bound(2.0, TIME, sigma_max=1.5, **constants)
    for N in (1, 5):
        more = {"sigma": 1.5 * np.sqrt(N), "agents": N, "smoothness": 2.0}
        found = distributed.loss_bound(2.0, TIME, **more, **constants)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        level = distributed.loss_level(**more, **constants)
        assert level == pytest.approx(gd.loss_level(sigma=1.5, **constants), rel=1e-12)


def decaying(k):
    return 1 / np.sqrt(k + 1)


def phis(t, eta):
    return 2 * eta * (np.sqrt(t / eta + 1) - 1), eta * np.log(t / eta + 1)


def test_gradient_bounds_by_hand():
    """ψ = 1/√(t/η + 1): φ₁ = 2 η (√(t/η + 1) - 1), φ₂ = η ln(t/η + 1)."""
    t = np.array([[3.0], [1e2]])
    phi_1, phi_2 = phis(t, 0.02)
    sigma, omega = np.array([0.5, 2.0]), np.array([4.0, 1.0])
    constants = {"learning_rate": 0.02, "smoothness": 3.0, "agents": 2}
    constants |= {"sigma": sigma, "omega": omega, "batch_size": 2.0}
    V = np.mean(sigma**2 * (1 + omega)) / 2
    for extent, spread in [({"dimension": 4}, 12.0), ({"hessian_trace": 7.0}, 7.0)]:
        found = distributed.gradient_bound(1.5, t, schedule=decaying, **extent, **constants)
        expected = (1.5 + 0.02 * spread * V / 4 * phi_2) / (phi_1 - 0.02 * 3 * 2.5 / 4 * phi_2)
        np.testing.assert_allclose(found, expected, rtol=1e-8)
        found = distributed.gradient_bound(1.5, t, **extent, **constants)
        expected = (1.5 + 0.02 * spread * V / 4 * t) / (t * (1 - 0.02 * 3 * 2.5 / 4))
        np.testing.assert_allclose(found, expected, rtol=1e-8)
    more = SIGN | {"sigma": sigma, "agents": 2, "degrees_of_freedom": 1.0}
    del more["mu"]
    found = distributed.sign_gradient_bound(1.5, t, schedule=decaying, **more)
    pull = sign.slope(1.0) * (2 + 0.5) / 2
    phi_1, phi_2 = phis(t, more["learning_rate"])
    np.testing.assert_allclose(found, (1.5 + 0.1 / 4 * phi_2) / (pull * phi_1), rtol=1e-8)


@pytest.mark.parametrize("omega", [0.0, 3.0])
def test_gradient_bounds_hold_on_quadratics_and_are_nearly_attained(omega):
    """τ uniform for ψ = 1; on f = L|x|²/2 all that is lost is E S_t ≥ 0."""
    problem, time = Quadratic(np.full(3, 2.0)), np.linspace(0, 5, 20_001)
    law = distributed.moments(
        problem, np.full(3, 0.49), 0.1, np.ones(3), time, agents=2, omega=omega
    )
    loss = theory.expected_loss(problem, law)
    mean_square = np.trapezoid(4 * loss, time) / 5  # |∇f|² = 2 L S
    constants = {"learning_rate": 0.1, "smoothness": 2.0, "sigma": 0.7, "agents": 2}
    bound = distributed.gradient_bound(loss[0], 5.0, dimension=3, omega=omega, **constants)
    remainder = loss[-1] / (5 * (1 - 0.1 * 2 * omega / 4))
    assert bound - remainder == pytest.approx(mean_square, rel=1e-6)
    law = distributed.sign_moments(problem, [2.0, 6.0], 0.1, np.ones(3), time, agents=2)
    mean_square = np.trapezoid(4 * theory.expected_loss(problem, law), time) / 5
    constants = {"learning_rate": 0.1, "hessian_trace": 6.0, "sigma": [2.0, 6.0], "agents": 2}
    bound = distributed.sign_gradient_bound(3.0, 5.0, **constants)
    assert mean_square < bound < 1.6 * mean_square


@pytest.mark.parametrize("nu", [1.0, 3.0, np.inf])
def test_the_sign_bound_is_an_equality_for_isotropic_quadratics(nu):
    problem, x0, sigma = Quadratic(np.full(2, 0.5)), np.array([2.0, -2.0]), np.array([0.7, 2.0])
    law = distributed.sign_moments(problem, sigma, 0.1, x0, TIME, degrees_of_freedom=nu, agents=2)
    found = distributed.sign_loss_bound(
        2.0, TIME, sigma=sigma, agents=2, degrees_of_freedom=nu, **SIGN
    )
    np.testing.assert_allclose(found, theory.expected_loss(problem, law), rtol=1e-12)


def test_one_agent_is_signsgd():
    single = SIGN | {"sigma": 0.7, "agents": 1}
    of_sign = SIGN | {"sigma_max": 0.7}
    np.testing.assert_allclose(
        distributed.sign_loss_bound(2.0, TIME, degrees_of_freedom=3.0, **single),
        sign.phase3_loss_bound(2.0, TIME, degrees_of_freedom=3.0, **of_sign),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        distributed.sign_phase2_loss_bound(2.0, TIME, dimension=2, **single),
        sign.phase2_loss_bound(2.0, TIME, dimension=2, **of_sign),
        rtol=1e-12,
    )
    level = distributed.sign_loss_level(batch_size=4, **single)
    assert level == pytest.approx(sign.loss_level(sigma=0.7, batch_size=4, **SIGN), rel=1e-12)


def test_sign_phase2_bound_holds_pointwise():
    """The SDE's generator applied to f, where both agents are in phase 2."""
    rng, lam, eta = np.random.default_rng(0), np.array([0.5, 1.0, 3.0]), 0.1
    sigma = np.array([0.5, 0.65])
    constants = SIGN | {"hessian_trace": 4.5, "dimension": 3, "agents": 2}
    for _ in range(200):
        y = rng.uniform(1.3, 1.5, 3)[:, None] * sigma[0] / sigma
        gradient = np.sqrt(2) * sigma[0] * y[:, 0]
        m = 2 * sign.centred_cdf(np.sqrt(2) * y)
        slope = -gradient @ np.mean(m, axis=1) + eta / 4 * lam @ (1 - np.mean(m**2, axis=1))
        loss = np.sum(gradient**2 / lam) / 2
        later = distributed.sign_phase2_loss_bound(loss, 1e-6, sigma=sigma, **constants)
        assert slope < (later - loss) / 1e-6
    late = distributed.sign_phase2_loss_bound(1.0, 1e4, sigma=sigma, **constants)
    m, q = sign.CHORD_SLOPE, sign.CHORD_INTERCEPT
    delta = m / np.sqrt(2) * np.mean(1 / sigma) + 0.1 * 0.5 * m**2 / 8 * np.mean(1 / sigma**2)
    assert late == pytest.approx(0.1 / 4 * (4.5 - 1.5 * q**2) / (2 * 0.5 * delta), rel=1e-12)


def test_sign_levels_are_linear_in_the_noise_and_settle_the_bound():
    sigma = np.array([0.5, 1.0, 2.0])
    level = distributed.sign_loss_level(sigma=sigma, agents=3, degrees_of_freedom=1.0, **SIGN)
    assert level == pytest.approx(0.1 / (4 * 0.5 * 3) * np.pi / 2 * 3 / 3.5, rel=1e-12)
    small = SIGN | {"learning_rate": 1e-8}
    for constants in ({"sigma": sigma}, {"sigma": 3 * sigma}):
        late = distributed.sign_loss_bound(1.0, 1e4, agents=3, **constants, **small)
        found = distributed.sign_loss_level(agents=3, **constants, **small)
        assert late == pytest.approx(found, rel=1e-6)


def test_the_algorithms_level_lies_above_the_linearised_bound():
    """By its missing part of Δ: (η μ l²/2) (1/(N σ_{H,2}²) - 1/σ_{H,1}²), linear theory."""
    sigma, mu, l, eta = np.array([0.5, 2.0]), 0.5, sign.slope(), 0.1  # noqa: E741
    problem = Quadratic(np.full(2, mu))
    variance = distributed.sign_stationary_variance(
        problem, sigma, eta, theory.discrete, agents=2, linearised=True
    )
    h1, h2 = distributed.harmonic_mean(sigma), distributed.harmonic_mean(sigma, 2)
    delta = l / h1 + eta * mu * l**2 / 2 * (1 / (2 * h2**2) - 1 / h1**2)
    assert mu * variance[0] == pytest.approx(eta / 4 * 2 * mu / (2 * mu * delta), rel=1e-12)
    assert mu * variance[0] > distributed.sign_loss_bound(1.0, 1e4, sigma=sigma, agents=2, **SIGN)


def test_harmonic_means():
    sigma = np.array([[1.0, 2.0], [0.5, 2.0], [0.25, 8.0]])
    np.testing.assert_allclose(distributed.harmonic_mean(sigma), [3 / 7, 3 / 1.125])
    np.testing.assert_allclose(
        distributed.harmonic_mean(sigma, 2) ** 2, [3 / 21, 3 / (0.5 + 1 / 64)]
    )
    for bad in (1.0, [], [1.0, 0.0]):
        with pytest.raises(InputError, match="sigma"):
            distributed.harmonic_mean(bad)
    with pytest.raises(InputError, match="power"):
        distributed.harmonic_mean(sigma, 0)


def test_bounds_that_do_not_exist_are_refused():
    compressed = SGD | {"dimension": 4, "learning_rate": 0.5}
    edge = 4 / (0.5 * 3)
    distributed.loss_level(omega=0.999 * edge, **compressed)
    with pytest.raises(InputError, match=r"no sharp bound: .* 2 agents, got 4.004 >= 4"):
        distributed.loss_level(omega=1.001 * edge, **compressed)
    edge = 4 / (0.5 * 9)
    distributed.loss_bound(1.0, TIME, omega=0.999 * edge, sharp=False, **compressed)
    with pytest.raises(InputError, match=r"no loose bound: .* agents, got 4.004 >= 4"):
        distributed.loss_bound(1.0, TIME, omega=1.001 * edge, sharp=False, **compressed)
    constants = SGD | {"dimension": 4, "omega": 10.0}
    del constants["mu"]
    edge = 4 / (0.02 * 3 * 10)
    distributed.gradient_bound(1.0, 2.0, schedule=lambda s: 0.999 * edge, **constants)
    with pytest.raises(InputError, match=r"the schedule below 6.66667; it is 6.67333 at time"):
        distributed.gradient_bound(1.0, 2.0, schedule=lambda s: 1.001 * edge, **constants)


@pytest.mark.parametrize("bound", [distributed.loss_bound, distributed.gradient_bound])
def test_bad_constants_are_refused(bound):
    constants = SGD | {"dimension": 4, "omega": 3.0, "batch_size": 2}
    if bound is distributed.gradient_bound:
        del constants["mu"]
    for name in set(constants) - {"omega", "agents", "dimension"}:
        with pytest.raises(InputError, match=f"{name} must be positive"):
            bound(1.0, TIME[1:], **(constants | {name: 0.0}))
    for bad in (
        {"agents": 0}, {"agents": 1.5}, {"omega": -1.0}, {"omega": [1.0, 2.0, 3.0]},
        {"sigma": np.ones(3)}, {"sigma": np.ones((2, 1))}, {"dimension": 0},
        {"dimension": None, "hessian_trace": -1.0},
    ):  # fmt: skip
        with pytest.raises(InputError, match=list(bad)[-1]):
            bound(1.0, TIME[1:], **(constants | bad))
    for bad in ({"hessian_trace": 1.0}, {"dimension": None}):
        with pytest.raises(InputError, match="one of dimension and hessian_trace"):
            bound(1.0, TIME[1:], **(constants | bad))
    with pytest.raises(InputError, match="initial_loss"):
        bound(0.0, TIME[1:], **constants)
    with pytest.raises(InputError, match="time"):
        bound(1.0, -1.0, **constants)


def test_more_bad_constants_are_refused():
    with pytest.raises(InputError, match="smoothness must be at least mu = 4"):
        distributed.loss_level(dimension=4, **(SGD | {"mu": 4.0}))
    more = SIGN | {"sigma": np.ones(2), "agents": 2}
    with pytest.raises(InputError, match="schedule"):
        distributed.sign_gradient_bound(
            1.0, 1.0, schedule=lambda s: 1 - 2 * s,
            **{k: v for k, v in more.items() if k != "mu"},
        )  # fmt: skip
    with pytest.raises(InputError, match="time"):
        distributed.sign_gradient_bound(1.0, 0.0, **{k: v for k, v in more.items() if k != "mu"})
    for name in more:
        for bound in (distributed.sign_loss_bound, distributed.sign_phase2_loss_bound):
            extent = {"dimension": 1} if "phase2" in bound.__name__ else {}
            with pytest.raises(InputError, match=name):
                bound(1.0, TIME, **extent, **(more | {name: 0}))
        with pytest.raises(InputError, match=name):
            distributed.sign_loss_level(**(more | {name: 0}))
    with pytest.raises(InputError, match="at least mu"):
        distributed.sign_phase2_loss_bound(1.0, TIME, dimension=3, **more)
    with pytest.raises(InputError, match=r"sigma must be a scalar or \(3,\)"):
        distributed.sign_loss_bound(1.0, TIME, **(more | {"agents": 3}))
    with pytest.raises(InputError, match="batch_size must be 1"):
        distributed.sign_loss_level(batch_size=2, degrees_of_freedom=3.0, **more)
