"""Schedules on pairs of a minimax game: closed forms, the algorithm's recursion, tails."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.theory import minimax

ETA, SIGMA = 0.0625, 0.7
SEG = minimax.seg(0.5)
PAIR = {"curvature": 0.25, "coupling": 1.5, "sigma": SIGMA, "method": SEG}
BILINEAR = {"curvature": 0.0, "coupling": 2.0, "sigma": SIGMA}
METHODS = [
    minimax.sgda(), SEG, minimax.seg(-0.25, independent=True), minimax.shgd(), minimax.shgd(2),
]  # fmt: skip


def rate_and_source(rho=0.5, a=0.25, lam=1.5):
    """κ = 2r and c of SEG on one batch, by hand."""
    r = a + rho * (lam**2 - a**2)
    return 2 * r, ETA * SIGMA**2 * ((1 - rho * a) ** 2 + rho**2 * lam**2)


def solved(kappa, c, psi, b, t):
    """u' = -κ ψ u + c ψ², in ln(1 + t)."""

    def slope(L, u):
        value = psi(np.expm1(L))
        return np.exp(L) * (-kappa * value * u + c * value**2)

    logs = np.log1p(t)
    return solve_ivp(
        slope, (0, logs[-1]), [b], t_eval=logs, method="LSODA", rtol=1e-10, atol=1e-14
    ).y[0]  # fmt: skip


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5, 0.75, 0.999, 1.0, 1.5])
@pytest.mark.parametrize("rho", [0.5, 0.05, -0.2])
def test_closed_forms_by_the_equation(power, rho):
    t = np.array([0.0, 0.5, 3.0, 40.0])
    kappa, c = rate_and_source(rho)
    expected = solved(kappa, c, lambda s: (1 + s) ** -power, 0.8, t)
    pair = PAIR | {"method": minimax.seg(rho)}
    found = minimax.power_law_half_square(0.8, t, ETA, power=power, **pair)
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    psi = minimax.power_law(power, ETA)
    found = minimax.scheduled_half_square(0.8, t, ETA, **pair, schedule=psi)
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_half_powers_by_quadrature_and_at_large_arguments():
    """Ei against the integral that any power takes; e^(2κs) overflows at the later times."""
    pair = {"curvature": np.array([0.01, 8.0, 26.0]), "coupling": 0.0}
    pair |= {"sigma": SIGMA, "method": minimax.sgda()}
    t = np.array([0.0, 1e-3, 1.0, 30.0, 1e3, 1e6])
    found = minimax.power_law_half_square(0.8, t, ETA, power=0.5, **pair)
    near = [
        minimax.power_law_half_square(0.8, t, ETA, power=0.5 + s, **pair) for s in (-1e-6, 1e-6)
    ]
    np.testing.assert_allclose(found, np.mean(near, axis=0), rtol=1e-8)
    tail = minimax.power_law_tail(0.8, t, ETA, power=0.5, **pair)
    np.testing.assert_allclose(found[-1, 1:], tail[-1, 1:], rtol=1e-3)


def test_steps_of_a_finite_sum_leave_u_where_it_is():
    """p = 5: Ψ → 1/4 to rounding, u → e^(-κ/4) (b + c ∫ ψ² e^(κΨ))."""
    kappa, c = rate_and_source()
    found = minimax.power_law_half_square(0.8, np.array([1e4, 1e9]), ETA, power=5, **PAIR)
    integral = quad(lambda Psi: (1 - 4 * Psi) ** 1.25 * np.exp(kappa * (Psi - 0.25)), 0, 0.25)[0]
    np.testing.assert_allclose(found, 0.8 * np.exp(-kappa / 4) + c * integral, rtol=1e-9)


def test_one_over_t_near_and_at_its_resonance():
    """κ = 1: (b + c ln(1 + t))/(1 + t), continuous in κ."""
    t = np.array([0.0, 2.0, 50.0])
    pair = {"coupling": 0.0, "sigma": SIGMA, "method": minimax.sgda()}
    near = np.array([0.5 - 1e-9, 0.5, 0.5 + 1e-9])
    found = minimax.power_law_half_square(0.8, t, ETA, power=1, curvature=near, **pair)
    expected = (0.8 + ETA * SIGMA**2 * np.log1p(t)) / (1 + t)
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-14)
    np.testing.assert_allclose(found, np.tile(expected[:, None], 3), rtol=1e-7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("curvature", [0.0, -0.1])
def test_games_that_do_not_settle(method, curvature):
    """r of any sign, zero among them, by the equation that every schedule takes."""
    t = np.array([0.0, 1.0, 8.0])
    pair = {"curvature": curvature, "coupling": np.array([0.0, 1.0])}
    pair |= {"sigma": SIGMA, "method": method}
    for power in (0.0, 0.5, 0.75, 1.0, 2.0):
        found = minimax.power_law_half_square(0.8, t, ETA, power=power, **pair)
        psi = minimax.power_law(power, ETA)
        expected = minimax.scheduled_half_square(0.8, t, ETA, **pair, schedule=psi)
        np.testing.assert_allclose(found, expected, rtol=1e-8)


def looped(method, psi, psi_rho, h, steps, start, a, lam):
    """E z zᵀ of z⁺ = z + h ψ b + ψ √(h η) S^(1/2) ξ, from the step's definition with h = η."""
    J, sigma = np.array([[a, lam], [-lam, a]]), SIGMA**2 * np.eye(2)
    second, u = np.diag([2 * start, 0.0]), [start]
    for j in range(steps):
        k = j * h / ETA
        if method.rho is None:
            B, S = J.T @ J, J.T @ sigma @ J / (2 if method.independent else 1)
        else:
            rho = method.rho * psi_rho(k)
            B, G = J - rho * J @ J, np.eye(2) - rho * J
            S = sigma + rho**2 * J @ sigma @ J.T if method.independent else G @ sigma @ G.T
        P = np.eye(2) - h * psi(k) * B
        second = P @ second @ P.T + h * ETA * psi(k) ** 2 * S
        u.append(np.trace(second) / 2)
    return np.array(u)


@pytest.mark.parametrize("law", [theory.discrete, theory.em(0.03125)])
@pytest.mark.parametrize("method", METHODS)
def test_recursions_by_looping(method, law):
    def psi(k):
        return 1.0 if k < 7 else 1 / (k - 5)

    def psi_rho(k):
        return (1 + k) ** -0.25

    h, a, lam = law.step or ETA, np.array([0.25, -0.5]), np.array([1.5, 2.0])
    k = np.array([[0, 40], [1, 17]])
    found = minimax.scheduled_half_square(
        0.8, k * h, ETA, law, curvature=a, coupling=lam, sigma=SIGMA, method=method,
        schedule=psi, rho_schedule=None if method.rho is None else psi_rho,
    )  # fmt: skip
    assert found.shape == (2, 2, 2)
    for i in range(2):
        expected = looped(method, psi, psi_rho, h, 40, 0.8, a[i], lam[i])
        np.testing.assert_allclose(found[..., i], expected[k], rtol=1e-12)


def test_without_a_schedule_it_is_the_table():
    t = np.array([0.0, 1.0, 4.0])
    for law in (theory.discrete, theory.em(0.03125), theory.sde):
        found = minimax.scheduled_half_square(0.8, t, ETA, law, **PAIR, schedule=lambda k: 1)
        expected = minimax.pair_half_square(0.8, t, ETA, law, **PAIR)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    found = minimax.power_law_half_square(0.8, t, ETA, power=0, **PAIR)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_em_tends_to_the_sde_under_two_schedules():
    both = {"schedule": minimax.power_law(0.6, ETA), "rho_schedule": minimax.power_law(0.2, ETA)}
    limit = minimax.scheduled_half_square(0.8, 4.0, ETA, **PAIR, **both)
    coarse, fine = (
        minimax.scheduled_half_square(0.8, 4.0, ETA, theory.em(2.0**-k), **PAIR, **both)
        for k in (11, 12)
    )
    assert 2 * fine - coarse == pytest.approx(limit, rel=1e-5)
    assert (coarse - limit) / (fine - limit) == pytest.approx(2, rel=0.01)


def test_a_hundred_thousand_scheduled_steps():
    """Late, the algorithm and its SDE agree: their difference fades with ψ."""
    t, psi = np.array([1e2, 1e3]), minimax.power_law(0.5, 0.01)
    pair = BILINEAR | {"method": minimax.seg(5.0)}
    found = minimax.scheduled_half_square(0.01, t, 0.01, theory.discrete, **pair, schedule=psi)
    sde = minimax.power_law_half_square(0.01, t, 0.01, power=0.5, **pair)
    off = 1 - 0.01 * (1 + t) ** -0.5 * (4 + 25 * 16) / 40  # 1 - η ψ |B|²/(2r)
    np.testing.assert_allclose(sde / found, off, rtol=1e-3)


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_tails(power):
    kappas = np.array([0.25, 1.0, 1.0 + 1e-6, 3.0]) if power == 1 else np.array([0.5, 4.0])
    pair = {"curvature": kappas / 2, "coupling": 0.0, "sigma": SIGMA, "method": minimax.sgda()}
    # κ = 1 + 10⁻⁶ has its tail only where (κ - 1) ln t is large
    times = np.array([1e5, 1e7])
    found = minimax.power_law_half_square(0.8, times, ETA, power=power, **pair)
    tail = minimax.power_law_tail(0.8, times, ETA, power=power, **pair)
    ratios = found / tail
    assert tail.shape == ratios.shape == (2, len(kappas))
    if power == 1:
        np.testing.assert_allclose(ratios[-1, [0, 3]], 1, rtol=1e-4)
        b, c = 0.8, ETA * SIGMA**2
        assert ratios[-1, 1] == pytest.approx(1 + b / (c * np.log(1e7)), rel=1e-6)
        assert ratios[-1, 2] < 0.01
    else:
        np.testing.assert_allclose(ratios[-1], 1, rtol=1e-3)
    assert np.all(np.abs(ratios[1] - 1) <= np.abs(ratios[0] - 1) + 1e-12)


@pytest.mark.parametrize(
    ("p", "q", "converges"),
    [(0.6, 0.0, True), (0.6, 0.2, True), (0.8, 0.2, True), (1.0, 0.0, True), (0.4, 0.4, False),
     (0.4, 0.5, False), (0.0, 0.0, False), (0.0, 0.5, False), (0.9, 0.2, False),
     (1.25, 0.0, False)],
)  # fmt: skip
def test_convergence_under_powers_of_both(p, q, converges):
    """SEG's SDE on a bilinear pair up to ln t = 80, solved in ln(1 + t): κ = 2 ρ λ² = 0.2."""
    rho, lam = 0.025, 2.0

    def slope(L, u):
        eta, inner = np.exp(-p * L), rho * np.exp(-q * L)
        c = ETA * SIGMA**2 * (1 + inner**2 * lam**2)
        return np.exp(L) * (-2 * inner * lam**2 * eta * u + eta**2 * c)

    u = solve_ivp(slope, (0, 80), [0.8], method="LSODA", rtol=1e-6, atol=1e-10).y[0, -1]
    assert minimax.power_law_converges(p, q) == converges
    assert u < 1e-5 if converges else u > 0.05


def test_equal_powers_keep_a_floor_and_a_faster_rho_makes_it_grow():
    """At p = q ≤ 1/2 the floor is η σ²/(2 ρ λ²), for the algorithm with 2ρ - η for 2ρ."""
    rho, t = 0.4, np.array([1e3, 1e4])

    def late(p, q, law=theory.sde):
        return minimax.scheduled_half_square(
            0.01, t, ETA, law, **BILINEAR, method=minimax.seg(rho),
            schedule=minimax.power_law(p, ETA), rho_schedule=minimax.power_law(q, ETA),
        )  # fmt: skip

    assert late(0.4, 0.4)[1] == pytest.approx(ETA * SIGMA**2 / (2 * rho * 4), rel=1e-3)
    floor = late(0.4, 0.4, theory.discrete)[1]
    assert floor == pytest.approx(ETA * SIGMA**2 / ((2 * rho - ETA) * 4), rel=1e-3)
    grown = late(0.4, 0.5)
    assert grown[1] / grown[0] == pytest.approx(10**0.1, rel=0.01)


@pytest.mark.parametrize("law", [theory.discrete, theory.sde])
@pytest.mark.parametrize(("p", "q"), [(0.6, 0.0), (0.6, 0.2), (0.4, 0.4), (0.4, 0.5)])
def test_quasi_static_levels(p, q, law):
    """By hand, and u = level - level'/rate behind a slowly moving one."""
    eta, t, rho = 0.01, np.array([99.0, 100.0, 101.0]), 5.0
    psi, inner = (1 + t) ** -p, rho * (1 + t) ** -q
    h = eta if law == theory.discrete else 0
    rate = psi * (2 * inner * 4 - h * psi * (4 + inner**2 * 16))
    expected = psi**2 * eta * SIGMA**2 * (1 + inner**2 * 4) / rate
    more = BILINEAR | {
        "method": minimax.seg(rho),
        "schedule": minimax.power_law(p, eta),
        "rho_schedule": minimax.power_law(q, eta),
    }
    level = minimax.quasi_static_half_square(t, eta, law, **more)
    np.testing.assert_allclose(level, expected, rtol=1e-12)
    found = minimax.scheduled_half_square(0.01, t, eta, law, **more)
    lag = (level[2] - level[0]) / 2 / rate[1]
    assert found[1] == pytest.approx(level[1] - lag, rel=2e-4)


def test_schedules_may_return_what_jax_does():
    def psi(k):
        return jnp.asarray(0.5 if k < 3 else 0.25)

    found = minimax.scheduled_half_square(0.8, 6 * ETA, ETA, theory.discrete, **PAIR, schedule=psi)
    expected = looped(SEG, lambda k: float(psi(k)), lambda k: 1, ETA, 6, 0.8, 0.25, 1.5)[-1]
    assert found == pytest.approx(expected, rel=1e-12)
    assert minimax.scheduled_half_square(0.8, 0.0, ETA, **PAIR, schedule=psi) == 0.8


def test_what_is_no_schedule_is_refused():
    def refused(match, law=theory.discrete, schedule=lambda k: 1.0, rho_schedule=None, **change):
        with pytest.raises(InputError, match=match):
            minimax.scheduled_half_square(
                0.8, 1.0, ETA, law, **(PAIR | change),
                schedule=schedule, rho_schedule=rho_schedule,
            )  # fmt: skip

    for law in (theory.discrete, theory.sde):
        refused("schedule must be positive", law, schedule=lambda k: 1 - k / 10)
        refused("schedule must be a function of the step, got 0.5", law, schedule=0.5)
        refused("rho_schedule must be positive", law, rho_schedule=lambda k: -1.0)
        refused("schedule must return one number", law, schedule=lambda k: np.ones(2))
    refused("rho_schedule is for SEG", rho_schedule=lambda k: 1.0, method=minimax.shgd())
    refused("sigma must be positive", sigma=-1.0)
    refused("method must be", method="seg")
    with pytest.raises(InputError, match="no level: 2 r must exceed"):
        minimax.quasi_static_half_square(
            1.0, ETA, **(PAIR | {"curvature": -2.0}), schedule=lambda k: 1.0
        )
    with pytest.raises(InputError, match="power must be finite and not negative"):
        minimax.power_law(-0.5, ETA)
    with pytest.raises(InputError, match="power must be one number"):
        minimax.power_law_converges(np.ones(2))
    with pytest.raises(InputError, match="learning_rate must be positive"):
        minimax.power_law_half_square(0.8, 1.0, -ETA, power=0.5, **PAIR)
    with pytest.raises(InputError, match="power must be at most 1"):
        minimax.power_law_tail(0.8, 1.0, ETA, power=1.5, **PAIR)
    with pytest.raises(InputError, match="the rate r must be positive, got -1"):
        minimax.power_law_tail(
            0.8, 1.0, ETA, power=1, **(BILINEAR | {"method": minimax.seg(-0.25)})
        )
