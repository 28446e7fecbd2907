"""Moments of RMSprop and Adam along the way: the batch-equivalent regime, averages at rest."""

import itertools

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from jaxsde import theory
from jaxsde._checks import InputError
from jaxsde.problems import Quadratic
from jaxsde.theory import adaptive, scaling

# Entries that float32 holds exactly, since problems live in JAX's precision.
ETA = 0.25
LAM = np.array([2.0, 0.5, -0.5])
VARIANCE = np.array([9.0, 36.0, 2.25])
MINIMIZER = np.array([0.5, -1.0, 0.0])
X0 = np.array([1.5, 1.0, -0.25])
PROBLEM = Quadratic(LAM, MINIMIZER)
SIGMA_0, EPS_0, EPS = ETA, ETA * 0.5, 0.5  # noise scale 1: S is VARIANCE, u is v
RMSPROP = {"decay": 0.95, "eps": EPS}
ADAM = {"b1": 0.9, "b2": 0.95, "t0": 0.25, "eps": EPS}
C, C1 = 0.05 / ETA**2, 0.1 / ETA**2
V0 = np.array([1.0, 100.0, 2.25])


def variance(moments):
    return np.diagonal(moments.covariance, axis1=-2, axis2=-1)


def test_rmsprop_by_quadrature():
    time = np.array([0.0, 0.5, 3.0])
    found = adaptive.batch_equivalent_rmsprop_moments(
        PROBLEM, VARIANCE, ETA, X0, time, initial_second_moment=V0, **RMSPROP
    )
    for i, (lam, S, v0) in enumerate(zip(LAM, VARIANCE, V0, strict=True)):

        def a(s, S=S, v0=v0):
            return 1 / (SIGMA_0 * np.sqrt(S + (v0 - S) * np.exp(-C * s)) + EPS_0)

        def A(s, t, a=a):
            return quad(a, s, t, epsrel=1e-13)[0]

        def kernel(s, t, lam=lam, a=a, A=A):
            return np.exp(-2 * lam * A(s, t)) * a(s) ** 2

        for k, t in enumerate(time):
            mean = MINIMIZER[i] + np.exp(-lam * A(0, t)) * (X0[i] - MINIMIZER[i])
            spread = SIGMA_0**2 * S * quad(kernel, 0, t, args=(t,), epsrel=1e-12)[0]
            assert found.mean[k, i] == pytest.approx(mean, rel=1e-10)
            assert variance(found)[k, i] == pytest.approx(spread, rel=1e-10, abs=1e-20)
    np.testing.assert_array_equal(found.covariance * (1 - np.eye(3)), 0)


def test_rmsprop_from_rest_in_closed_form():
    time = np.array([[2.0, 0.5], [0.0, 0.5]])
    found = adaptive.batch_equivalent_rmsprop_moments(PROBLEM, VARIANCE, ETA, X0, time, **RMSPROP)
    a = 1 / (SIGMA_0 * np.sqrt(VARIANCE) + EPS_0)
    t = time[..., None]
    mean = MINIMIZER + np.exp(-LAM * a * t) * (X0 - MINIMIZER)
    spread = SIGMA_0**2 * VARIANCE * a * -np.expm1(-2 * LAM * a * t) / (2 * LAM)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(variance(found), spread, rtol=1e-10, atol=1e-18)


def rmsprop_path(signs, dt):
    y, v = X0 - MINIMIZER, V0
    for xi in signs:
        P = SIGMA_0 * np.sqrt(v) + EPS_0
        y = y - (LAM * y * dt + SIGMA_0 * np.sqrt(VARIANCE * dt) * xi) / P
        v = v + dt * C * (VARIANCE - v)
    return MINIMIZER + y


def adam_path(signs, dt):
    t, x, v = ADAM["t0"], X0, V0
    m = LAM * (X0 - MINIMIZER) * -np.expm1(-C1 * t)
    for xi in signs:
        gamma1, gamma2 = 1 - np.exp(-C1 * t), 1 - np.exp(-C * t)
        P = SIGMA_0 * np.sqrt(v) + EPS_0 * np.sqrt(gamma2)
        noise = SIGMA_0 * C1 * np.sqrt(VARIANCE * dt) * xi
        x, m, v, t = (
            x - dt * np.sqrt(gamma2) / gamma1 * m / P,
            m + dt * C1 * (LAM * (x - MINIMIZER) - m) + noise,
            v + dt * C * (VARIANCE - v),
            t + dt,
        )
    return np.stack([x, m])


DT, STEPS = 0.05, 8
SIGNS = list(itertools.product([1, -1], repeat=STEPS))


def test_rmsprop_chains_by_enumerating_two_point_noise():
    """Noise ±1 has the two moments of a Gaussian, and its paths can be counted."""
    paths = np.array([rmsprop_path(signs, DT) for signs in SIGNS])
    found = adaptive.batch_equivalent_rmsprop_moments(
        PROBLEM,
        VARIANCE,
        ETA,
        X0,
        DT * STEPS,
        theory.em(DT),
        initial_second_moment=V0,
        **RMSPROP,
    )
    np.testing.assert_allclose(found.mean, np.mean(paths, axis=0), rtol=1e-12)
    np.testing.assert_allclose(variance(found), np.var(paths, axis=0), rtol=1e-11)


def test_adam_chains_by_enumerating_two_point_noise():
    paths = np.array([adam_path(signs, DT) for signs in SIGNS])
    found = adaptive.batch_equivalent_adam_moments(
        PROBLEM,
        VARIANCE,
        ETA,
        X0,
        ADAM["t0"] + DT * STEPS,
        theory.em(DT),
        initial_second_moment=V0,
        **ADAM,
    )
    mean, spread = np.mean(paths, axis=0), np.var(paths, axis=0)
    np.testing.assert_allclose([found.x.mean, found.m.mean], mean, rtol=1e-12)
    np.testing.assert_allclose([variance(found.x), variance(found.m)], spread, rtol=1e-10)
    product = np.mean((paths[:, 0] - mean[0]) * (paths[:, 1] - mean[1]), axis=0)
    np.testing.assert_allclose(found.cross_covariance, product, rtol=1e-10)


def adam_raw_moments(time, m0, v0):
    """E of x - x*, m and their products, one equation each, through t' = log t."""

    def rates(s, z):
        t = np.exp(s)
        y, m, yy, ym, mm = z.reshape(5, 3)
        gamma1, gamma2 = 1 - np.exp(-C1 * t), 1 - np.exp(-C * t)
        v = VARIANCE + (v0 - VARIANCE) * np.exp(-C * (t - ADAM["t0"]))
        G = np.sqrt(gamma2) / gamma1 / (SIGMA_0 * np.sqrt(v) + EPS_0 * np.sqrt(gamma2))
        return t * np.concatenate(
            [
                -G * m,
                C1 * (LAM * y - m),
                -2 * G * ym,
                -G * mm + C1 * (LAM * yy - ym),
                2 * C1 * (LAM * ym - mm) + SIGMA_0**2 * C1**2 * VARIANCE,
            ]
        )

    y0 = X0 - MINIMIZER
    start = np.concatenate([y0, m0, y0**2, y0 * m0, m0**2])
    solved = [
        solve_ivp(rates, np.log([ADAM["t0"], t]), start, method="DOP853", rtol=1e-13, atol=1e-14).y[
            :, -1
        ]
        for t in time
    ]
    return np.array(solved).reshape(-1, 5, 3).swapaxes(0, 1)


@pytest.mark.parametrize("start", ["given", "default"])
def test_adam_by_integrating_its_raw_moments(start):
    time = np.array([0.5, 4.0])
    gamma1, gamma2 = 1 - np.exp(-C1 * ADAM["t0"]), 1 - np.exp(-C * ADAM["t0"])
    m0, v0 = gamma1 * LAM * (X0 - MINIMIZER), gamma2 * VARIANCE
    given = {}
    if start == "given":
        m0, v0 = np.array([0.5, -2.0, 1.0]), V0
        given = {"initial_momentum": m0, "initial_second_moment": v0}
    found = adaptive.batch_equivalent_adam_moments(
        PROBLEM, VARIANCE, ETA, X0, time, **ADAM, **given
    )
    y, m, yy, ym, mm = adam_raw_moments(time, m0, v0)
    np.testing.assert_allclose(found.x.mean, MINIMIZER + y, rtol=1e-9)
    np.testing.assert_allclose(found.m.mean, m, rtol=1e-9)
    np.testing.assert_allclose(variance(found.x), yy - y**2, rtol=1e-9)
    np.testing.assert_allclose(variance(found.m), mm - m**2, rtol=1e-9)
    np.testing.assert_allclose(found.cross_covariance, ym - y * m, rtol=1e-9, atol=1e-12)


def test_adam_starts_at_t0():
    found = adaptive.batch_equivalent_adam_moments(
        PROBLEM, VARIANCE, ETA, X0, [[1.0, 0.25]], **ADAM
    )
    at_start = adaptive.batch_equivalent_adam_moments(PROBLEM, VARIANCE, ETA, X0, 0.25, **ADAM)
    assert found.x.mean.shape == found.cross_covariance.shape == (1, 2, 3)
    assert found.m.covariance.shape == (1, 2, 3, 3)
    momentum = -np.expm1(-C1 * 0.25) * LAM * (X0 - MINIMIZER)
    for mean, m, cov in [
        (found.x.mean[0, 1], found.m.mean[0, 1], found.m.covariance[0, 1]),
        (at_start.x.mean, at_start.m.mean, at_start.m.covariance),
    ]:
        np.testing.assert_allclose(mean, X0, rtol=1e-13)
        np.testing.assert_allclose(m, momentum, rtol=1e-13)
        np.testing.assert_allclose(cov, 0, atol=1e-13)


@pytest.mark.parametrize("method", ["rmsprop", "adam"])
def test_chains_tend_to_the_sde_at_order_one(method):
    settings = RMSPROP if method == "rmsprop" else ADAM
    moments = getattr(adaptive, f"batch_equivalent_{method}_moments")
    args = PROBLEM, VARIANCE, ETA, X0, 1.25

    def second(law):
        found = moments(*args, law, initial_second_moment=V0, **settings)
        found = found if method == "rmsprop" else found.x
        return found.mean**2 + variance(found)

    errors = [second(theory.em(dt)) - second(theory.sde) for dt in (1e-3, 5e-4)]
    np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.05)


def test_fast_averages_leave_rmsprop():
    """β₁ at O(1) and a small η make m a fast variable, c₁ = 10⁵: Adam's x is RMSprop's."""
    problem, beta, t0 = (PROBLEM, 1e6 * VARIANCE, 1e-3, X0), 1 - 1e-6, 40.0
    start = {"eps": 1.0, "initial_second_moment": 1e6 * V0}
    adam = adaptive.batch_equivalent_adam_moments(
        *problem, t0 + 2.0, b1=0.9, b2=beta, t0=t0, **start
    )
    rmsprop = adaptive.batch_equivalent_rmsprop_moments(*problem, 2.0, decay=beta, **start)
    np.testing.assert_allclose(adam.x.mean, rmsprop.mean, rtol=1e-4)
    np.testing.assert_allclose(variance(adam.x), variance(rmsprop), rtol=1e-4)


@pytest.mark.parametrize("factor", [4.0, 1 / 16])
@pytest.mark.parametrize("law", [theory.sde, theory.em(0.0625)])
def test_square_root_scaling_keeps_the_law(law, factor):
    """x's moments at equal t, and m's, whatever the batch; v scales with the noise."""
    hp = {"learning_rate": ETA, "eps": EPS, "batch_size": 1.0}
    for method, betas in [("rmsprop", {"decay": 0.95}), ("adam", {"b1": 0.9, "b2": 0.95})]:
        found = []
        for record in (hp | betas, scaling.square_root(hp | betas, factor)):
            settings = {name: record[name] for name in ("eps", *betas)}
            settings |= {"t0": 0.25} if method == "adam" else {}
            found.append(
                getattr(adaptive, f"batch_equivalent_{method}_moments")(
                    PROBLEM,
                    VARIANCE / record["batch_size"],
                    record["learning_rate"],
                    X0,
                    [0.25, 1.25],
                    law,
                    initial_second_moment=V0 / record["batch_size"],
                    **settings,
                )
            )
        positions = [law.x if method == "adam" else law for law in found]
        np.testing.assert_allclose(positions[1].mean, positions[0].mean, rtol=1e-8)
        np.testing.assert_allclose(positions[1].covariance, positions[0].covariance, rtol=1e-8)
        if method == "adam":
            np.testing.assert_allclose(found[1].m.mean, found[0].m.mean, rtol=1e-8)
            np.testing.assert_allclose(
                found[1].m.covariance, found[0].m.covariance, rtol=1e-8, atol=1e-13
            )


def test_averages_by_enumerating_gaussian_nodes():
    """The 3-point Gauss-Hermite rule has the first five moments of a Gaussian, g² needs four."""
    a, s, b1, b2, m0, v0 = 0.7, 1.3, 0.6, 0.8, -0.5, 2.0
    nodes, weights = np.sqrt(3) * np.array([-1, 0, 1]), np.array([1, 4, 1]) / 6
    found = adaptive.constant_gradient_moments(
        np.arange(5), gradient=a, variance=s**2, b1=b1, b2=b2, m0=m0, v0=v0
    )
    for k in range(5):
        p, m, v = np.ones(1), np.full(1, m0), np.full(1, v0)
        for _ in range(k):
            g = a + s * nodes[:, None]
            p = (p * weights[:, None]).ravel()
            m, v = (b1 * m + (1 - b1) * g).ravel(), (b2 * v + (1 - b2) * g**2).ravel()
        means = p @ m, p @ v
        expected = [
            means[0],
            p @ (m - means[0]) ** 2,
            means[1],
            p @ (v - means[1]) ** 2,
            p @ ((m - means[0]) * (v - means[1])),
        ]
        np.testing.assert_allclose([x[k] for x in found], expected, rtol=1e-12, atol=1e-15)


def test_averages_have_the_sign_of_the_gradient_in_common():
    for a in (-0.5, 0.5):
        found = adaptive.constant_gradient_moments(10**6, gradient=a, variance=4.0, b1=0.9, b2=0.99)
        limit = 2 * a * 4 * 0.1 * 0.01 / (1 - 0.9 * 0.99)
        assert found.covariance == pytest.approx(limit, rel=1e-12)
    no_momentum = adaptive.constant_gradient_moments([0, 3], gradient=1.0, variance=4.0, b2=0.99)
    np.testing.assert_allclose(no_momentum.m_variance, [0, 4])
    np.testing.assert_allclose(no_momentum.covariance, [0, 2 * 4 * 0.01])


def test_bad_moments_are_refused():
    def rmsprop(*changed, **settings):
        args = (PROBLEM, VARIANCE, ETA, X0, 1.0, theory.sde)
        args = changed + args[len(changed) :]
        return adaptive.batch_equivalent_rmsprop_moments(*args, **(RMSPROP | settings))

    def adam(*changed, **settings):
        args = (PROBLEM, VARIANCE, ETA, X0, 1.0, theory.sde)
        args = changed + args[len(changed) :]
        return adaptive.batch_equivalent_adam_moments(*args, **(ADAM | settings))

    for moments in (rmsprop, adam):
        with pytest.raises(InputError, match="diagonal hessian"):
            moments(Quadratic(np.eye(3)))
        with pytest.raises(InputError, match="variance must be positive"):
            moments(PROBLEM, 0.0)
        with pytest.raises(InputError, match="learning_rate"):
            moments(PROBLEM, VARIANCE, 0.0)
        with pytest.raises(InputError, match="x0 must have shape"):
            moments(PROBLEM, VARIANCE, ETA, np.ones(2))
        with pytest.raises(InputError, match="not negative"):
            moments(PROBLEM, VARIANCE, ETA, X0, -1.0)
        with pytest.raises(InputError, match="is random"):
            moments(PROBLEM, VARIANCE, ETA, X0, 1.0, theory.discrete)
        with pytest.raises(InputError, match="multiples"):
            moments(PROBLEM, VARIANCE, ETA, X0, 1.0, theory.em(0.4))
        with pytest.raises(InputError, match=r"dt must be at most .* = 1.25"):
            moments(PROBLEM, VARIANCE, ETA, X0, 3.25, theory.em(1.5))
        with pytest.raises(InputError, match="eps"):
            moments(eps=-0.1)
        with pytest.raises(InputError, match="initial_second_moment must be a scalar"):
            moments(initial_second_moment=np.ones(2))
        with pytest.raises(InputError, match="not negative"):
            moments(initial_second_moment=-1.0)
        with pytest.raises(InputError, match="must be positive where eps = 0"):
            moments(initial_second_moment=0.0, eps=0.0)
    assert np.all(np.isfinite(rmsprop(PROBLEM, VARIANCE, ETA, X0, 2.0, theory.em(1.0)).mean))
    with pytest.raises(InputError, match="decay"):
        rmsprop(decay=1.0)
    for name in ("b1", "b2"):
        with pytest.raises(InputError, match=name):
            adam(**{name: -0.1})
    with pytest.raises(InputError, match="t0 must be positive"):
        adam(t0=0.0)
    with pytest.raises(InputError, match="before t0"):
        adam(t0=1.5)
    with pytest.raises(InputError, match="initial_momentum"):
        adam(initial_momentum=np.ones(2))


def test_bad_averages_are_refused():
    settings = {"gradient": 1.0, "variance": 1.0, "b1": 0.5, "b2": 0.5}
    for name, value in [
        ("gradient", np.inf),
        ("variance", -1.0),
        ("b1", 1.0),
        ("b2", -0.5),
        ("m0", np.nan),
        ("v0", -1.0),
    ]:
        with pytest.raises(InputError, match=name):
            adaptive.constant_gradient_moments(1, **(settings | {name: value}))
    for steps in (-1, 1.5):
        with pytest.raises(InputError, match="steps"):
            adaptive.constant_gradient_moments(steps, **settings)
