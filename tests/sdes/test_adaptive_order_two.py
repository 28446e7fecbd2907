"""Order 2 of RMSprop(W) and Adam(W): against the generic engine, and against formulas by hand."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Problem
from jaxsde.sdes import (
    Adam,
    BatchEquivalentAdam,
    BatchEquivalentRMSprop,
    RMSprop,
    modified_equation,
)
from jaxsde.sdes.adaptive import (
    AdamState,
    BatchEquivalentAdamState,
    BatchEquivalentRMSpropState,
    RMSpropState,
)

A, WAVES, CUBIC = np.array([[1.0, 0.3], [0.3, 0.6]]), np.array([0.3, 0.4]), 0.5
SIGMA = np.array([[0.5, 0.2], [0.2, 0.3]])
EPS, C1, C2, TIME, SIGMA_0 = 0.2, 1.7, 1.3, 0.3, 0.4
THETA, LAM = 0.3, 0.2
POINTS = [
    (np.array([0.7, -0.4]), np.array([0.3, -0.8]), np.array([0.9, 0.5])),
    (np.array([-1.2, 0.6]), np.array([-0.5, 0.2]), np.array([1.5, 0.4])),
]


class Crooked(Problem):
    """xᵀ A x/2 - Σ wᵢ cos xᵢ + q x₁² x₂/2."""

    def loss(self, x):
        quadratic = jnp.sum(x * (jnp.asarray(A) @ x)) / 2
        return quadratic - jnp.sum(WAVES * jnp.cos(x)) + CUBIC / 2 * x[0] ** 2 * x[1]


def derivatives(x):
    """∇f, ∇²f and ∇³f by hand."""
    a, b = x
    g = A @ x + WAVES * np.sin(x) + CUBIC * np.array([a * b, a**2 / 2])
    H = A + np.diag(WAVES * np.cos(x)) + CUBIC * np.array([[b, a], [a, 0]])
    T = np.zeros((2, 2, 2))
    T[0, 0, 0], T[1, 1, 1] = -WAVES * np.sin(x)
    T[0, 0, 1] = T[0, 1, 0] = T[1, 0, 0] = CUBIC
    return g, H, T


class Changing(GaussianNoise):
    """Gaussian noise with the root R + a sin(x) cos(x)ᵀ."""

    amplitude: jax.Array

    def __init__(self, amplitude):
        super().__init__(Crooked(), covariance=SIGMA)
        self.amplitude = jnp.asarray(amplitude)

    def covariance_root(self, x):
        wave = jnp.outer(jnp.sin(x), jnp.cos(x))
        return lx.MatrixLinearOperator(self.root + self.amplitude * wave)

    def covariance(self, x):
        R = self.covariance_root(x).as_matrix()
        return lx.MatrixLinearOperator(R @ R.T, lx.positive_semidefinite_tag)


@jax.jit
def noise_derivatives(amplitude, x):
    """Σ, ∂ₖ Σᵢⱼ and ∂ₖ ∂ₗ Σᵢⱼ of `Changing`."""
    Sigma = lambda x: Changing(amplitude).covariance(x).as_matrix()  # noqa: E731
    return Sigma(x), jax.jacfwd(Sigma)(x), jax.jacfwd(jax.jacfwd(Sigma))(x)


class Form(NamedTuple):
    """A form of the optimizer; batch-equivalent Adam is always corrected."""

    adam: bool
    new: bool = False
    corrected: bool = False

    def gammas(self, k, b1, b2):
        """γ₁ and γ₂ at step k."""
        if not self.corrected:
            return 1.0, 1.0
        return -jnp.expm1(jnp.log(b1) * (k + 1)), -jnp.expm1(jnp.log(b2) * (k + self.new))

    def gamma_slopes(self, k, b1, b2):
        """Their derivatives in k."""
        if not self.corrected:
            return 0.0, 0.0
        return -np.log(b1) * b1 ** (k + 1), -np.log(b2) * b2 ** (k + self.new)


@eqx.filter_jit
def coefficients(sde, t, y):
    """The raveled drift and G Gᵀ of the diffusion."""
    diffusion = sde.diffusion(t, y, None)
    unit, unravel = jax.flatten_util.ravel_pytree(
        jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), diffusion.in_structure())
    )
    G = jnp.stack([jnp.concatenate(diffusion.mv(unravel(e))) for e in jnp.eye(unit.size)], axis=1)
    return jnp.concatenate(sde.drift(t, y, None)), G @ G.T


@eqx.filter_jit
def leading(sde, y):
    return sde.leading_drift(0.0, y)


def first(y):
    """The position; one function for all equations, for one compilation."""
    return y[0]


@eqx.filter_jit
def generic(equation, t, y):
    """The raveled drift and the covariance of a `ModifiedEquation`."""
    return jnp.concatenate(equation.drift(t, y, None)), equation.covariance(t, y)


class BallisticStep(eqx.Module):
    """One step of RMSprop(W) or Adam(W); the bias correction is that of the actual η."""

    oracle: Changing
    eta: jax.Array
    theta: float
    lam: float
    form: Form = eqx.field(static=True)

    def __call__(self, t, y, z, h):
        b1, b2 = 1 - C1 * self.eta, 1 - C2 * self.eta
        gamma1, gamma2 = self.form.gammas(t / self.eta, b1, b2)
        noise = self.oracle.covariance_root(y.X).mv(z)
        g = self.oracle.gradient(y.X) + self.lam * y.X + noise
        V = y.V + C2 * h * (g**2 - y.V)
        D = 1 / (jnp.sqrt((V if self.form.new else y.V) / gamma2) + EPS)
        if not self.form.adam:
            return RMSpropState(y.X - h * (D * g + self.theta * y.X), V)
        M = y.M + C1 * h * (g - y.M)
        return AdamState(y.X - h * (D * M / gamma1 + self.theta * y.X), M, V)


def ballistic(form, eta, theta=0.0, lam=0.0, amplitude=0.2):
    """The SDE and the engine's."""
    oracle = Changing(amplitude)
    options = {"order": 2, "v_timing": "new" if form.new else "old"}
    options["bias_correction"] = form.corrected
    betas = (1 - C1 * eta, 1 - C2 * eta) if form.adam else (1 - C2 * eta,)
    kind = Adam if form.adam else RMSprop
    step = BallisticStep(oracle, jnp.asarray(eta), theta, lam, form)
    return (
        kind(oracle, eta, *betas, EPS, theta, lam, **options),
        modified_equation(step, eta, regime="ballistic", position=first),
    )


def ballistic_state(form, X, M, V):
    parts = map(jnp.asarray, (X, M, V) if form.adam else (X, V))
    return AdamState(*parts) if form.adam else RMSpropState(*parts)


class ScaledStep(eqx.Module):
    """One step in the batch-equivalent regime: h g = h ∇f + σ₀ R z."""

    oracle: Changing
    eta: jax.Array
    form: Form = eqx.field(static=True)

    def __call__(self, t, y, z, h):
        b1, b2 = 1 - C1 * self.eta**2, 1 - C2 * self.eta**2
        gamma1, gamma2 = self.form.gammas(t / self.eta**2, b1, b2)
        noise = self.oracle.covariance_root(y.theta).mv(z)
        hg = h * self.oracle.gradient(y.theta) + SIGMA_0 * noise
        u = y.u + C2 * h**2 * ((hg / SIGMA_0) ** 2 - y.u)
        D = 1 / (SIGMA_0 * jnp.sqrt((u if self.form.new else y.u) / gamma2) + EPS)
        if not self.form.adam:
            return BatchEquivalentRMSpropState(y.theta - h * D * hg, u)
        m = y.m + C1 * h * (hg - h * y.m)
        return BatchEquivalentAdamState(y.theta - h**2 * D * m / gamma1, m, u)


def scaled(form, eta, amplitude=0.0):
    """The SDE of constant noise, and the engine's, with σ₀, ε₀, c₁ and c₂ whatever η."""
    oracle = GaussianNoise(Crooked(), covariance=SIGMA * (SIGMA_0 / eta) ** 2)
    shared = (EPS / eta, SIGMA_0 / eta)
    if form.adam:
        betas, timing = (1 - C1 * eta**2, 1 - C2 * eta**2), "new" if form.new else "old"
        sde = BatchEquivalentAdam(oracle, eta, *betas, *shared, v_timing=timing, order=2)
    else:
        sde = BatchEquivalentRMSprop(oracle, eta, 1 - C2 * eta**2, *shared, order=2)
    step = ScaledStep(Changing(amplitude), jnp.asarray(eta), form)
    return sde, modified_equation(step, eta, regime="batch-equivalent", position=first)


def scaled_state(form, X, M, V):
    parts = map(jnp.asarray, (X, M, V) if form.adam else (X, V))
    return BatchEquivalentAdamState(*parts) if form.adam else BatchEquivalentRMSpropState(*parts)


def blocks(rows):
    """A symmetric block matrix from its upper rows."""
    n = len(rows)
    full = [[rows[i][j - i] if j >= i else rows[j][i - j].T for j in range(n)] for i in range(n)]
    return np.block(full)


class Letters(NamedTuple):
    """D, ∂D/∂v and ∂D/∂t; of Adam with Γ."""

    D: np.ndarray
    slope: np.ndarray
    dt: np.ndarray


def letters(form, v, t, step, rho1, rho2):
    """For Γ D = (1/γ₁)/(√(v/γ₂) + ε), where a step takes the time given."""
    arguments = t / step, 1 - rho1 * step, 1 - rho2 * step
    gamma1, gamma2 = (float(gamma) for gamma in form.gammas(*arguments))
    dgamma1, dgamma2 = (slope / step for slope in form.gamma_slopes(*arguments))
    root = np.sqrt(v / gamma2)
    D = 1 / (root + EPS)
    slope, dt = -(D**2) / (2 * root * gamma2), D**2 * root * dgamma2 / (2 * gamma2)
    if not form.adam:
        return Letters(D, slope, dt)
    return Letters(D / gamma1, slope / gamma1, dt / gamma1 - dgamma1 / gamma1**2 * D)


def ballistic_by_hand(form, eta, X, M, V):
    """b₀ + η b₁ and η C, vector by vector."""
    (g, H, _), (S, dS, _) = derivatives(X), noise_derivatives(0.2, X)
    s, J, G = np.diag(S), np.einsum("iij->ij", dS), np.diag(g)
    q, (D, slope, dtD) = g**2 + s - V, letters(form, V, TIME, eta, C1, C2)
    vv = C2**2 * (4 * G @ S @ G + 2 * S**2)
    if not form.adam:
        X1 = (-D * (H @ (D * g)) + C2 * g * slope * q + g * dtD) / 2
        if form.new:
            X1 -= C2 * slope * (g**3 + 3 * g * s - g * V)
        V1 = C2 * g * (H @ (D * g)) + C2 / 2 * J @ (D * g) + C2**2 / 2 * q
        b = np.concatenate([-D * g + eta * X1, C2 * q + eta * V1])
        return b, eta * blocks([[np.diag(D) @ S @ np.diag(D), -2 * C2 * np.diag(D) @ S @ G], [vv]])
    X1 = (C1 * D * (M - g) + C2 * M * slope * q + M * dtD) / 2
    if form.new:
        X1 -= C2 * M * slope * q
    M1 = (C1 * H @ (D * M) + C1**2 * (g - M)) / 2
    V1 = (2 * C2 * g * (H @ (D * M)) + C2 * J @ (D * M) + C2**2 * q) / 2
    b = np.concatenate([-D * M + eta * X1, C1 * (g - M) + eta * M1, C2 * q + eta * V1])
    zero = np.zeros((2, 2))
    return b, eta * blocks([[zero, zero, zero], [C1**2 * S, 2 * C1 * C2 * S @ G], [vv]])


def scaled_by_hand(form, eta, amplitude, X, M, u):
    """b + τ b₁ and S + τ S₁ of (θ, m, v̄), then in units of u = v̄/σ₀²."""
    tau, v = eta**2, SIGMA_0**2 * u
    (g, H, T), noise = derivatives(X), noise_derivatives(amplitude, X)
    S, dS, ddS = (SIGMA_0**2 * np.asarray(part) for part in noise)
    J, q = np.einsum("iij->ij", dS), np.diag(S) - v
    D, slope, dtD = letters(form, v, TIME, tau, C1, C2)
    G, vv = np.diag(g), tau * C2**2 * 2 * S**2
    if form.adam:
        theta = (C1 * D * (M - g) + C2 * M * slope * q + M * dtD) / 2
        if form.new:
            theta -= C2 * M * slope * q
        m = (C1 * H @ (D * M) + C1**2 * (g - M)) / 2
        v1 = C2 * g**2 + C2**2 / 2 * q + C2 / 2 * J @ (D * M)
        b = [-D * M + tau * theta, C1 * (g - M) + tau * m, C2 * q + tau * v1]
        mm = C1**2 * S + tau * (C1**3 * S + C1**2 / 2 * dS @ (D * M))
        thm, mv, zero = -tau / 2 * C1**2 * np.diag(D) @ S, 2 * tau * C1 * C2 * S @ G, 0 * S
        C = blocks([[zero, thm, zero], [mm, mv], [vv]])
    else:
        Dm, DD = np.diag(D), np.outer(D, D)
        X2, qD = Dm @ S @ Dm, np.outer(-2 * slope * q, D)
        theta = (-D * (H @ (D * g)) + C2 * g * slope * q) / 2
        theta += D * np.einsum("ij,ijk->k", X2, T) / 4
        v1 = C2 * g**2 + C2**2 / 2 * q + C2 / 2 * J @ (D * g)
        v1 -= C2 / 4 * np.einsum("kl,iikl->i", X2, ddS)
        b = [-D * g + tau * theta, C2 * q + tau * v1]
        S1 = (Dm @ H @ X2 + X2 @ H @ Dm) / 2 + C2 / 4 * S * (qD + qD.T)
        S1 += DD * (dS @ (D * g) / 2 - np.einsum("kl,ijkl->ij", X2, ddS) / 4)
        C = blocks([[X2 + tau * S1, tau * (-2 * C2 * Dm @ S @ G - C2 / 2 * X2 @ J.T)], [vv]])
    units = np.ones(len(b) * 2)
    units[-2:] = SIGMA_0**2
    return np.concatenate(b) / units, C / np.outer(units, units)


BALLISTIC = {
    "RMSprop": Form(False),
    "RMSprop new corrected": Form(False, True, True),
    "Adam corrected": Form(True, False, True),
    "Adam new corrected": Form(True, True, True),
}
SCALED = {
    "RMSprop": Form(False),
    "Adam": Form(True, False, True),
    "Adam new": Form(True, True, True),
}


@pytest.mark.parametrize("name", BALLISTIC)
def test_ballistic_by_hand(name, x64):
    form, eta = BALLISTIC[name], 0.05
    sde, _ = ballistic(form, eta)
    for point in POINTS:
        found = coefficients(sde, TIME, ballistic_state(form, *point))
        for a, b in zip(found, ballistic_by_hand(form, eta, *point), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in BALLISTIC if "new" in name])
def test_ballistic_is_the_engines(name, x64):
    """With decoupled decay and L2 regularisation too."""
    form = BALLISTIC[name]
    sde, equation = ballistic(form, 0.05, THETA, LAM)
    for point in POINTS:
        y = ballistic_state(form, *point)
        found, expected = coefficients(sde, TIME, y), generic(equation, TIME, y)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", SCALED)
def test_batch_equivalent_by_hand(name, x64):
    """Noise of order τ has a remainder τ² in G Gᵀ: small steps for that."""
    form = SCALED[name]
    for point in POINTS:
        y = scaled_state(form, *point)
        drift, _ = coefficients(scaled(form, 0.05)[0], TIME, y)
        np.testing.assert_allclose(drift, scaled_by_hand(form, 0.05, 0.0, *point)[0], rtol=1e-10)
        eta = 1e-3
        _, C = coefficients(scaled(form, eta)[0], TIME, y)
        expected = scaled_by_hand(form, eta, 0.0, *point)[1]
        np.testing.assert_allclose((C - expected) / eta**2, 0, atol=1e-4)


@pytest.mark.parametrize("name", ["RMSprop", "Adam new"])
def test_engine_by_hand_with_noise_that_depends_on_the_state(name, x64):
    """And so without: the SDEs of constant noise are the engine's."""
    form, eta = SCALED[name], 0.05
    for amplitude in (0.0, 0.2):
        equation = scaled(form, eta, amplitude)[1]
        for point in POINTS:
            found = generic(equation, TIME, scaled_state(form, *point))
            expected = scaled_by_hand(form, eta, amplitude, *point)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["RMSprop", "Adam"])
def test_third_cumulants_by_hand(name, x64):
    """2 c₂ aᵢ aⱼ Σᵢₖ Σⱼₖ, a = D of (θ, θ, v̄) for RMSprop and a = c₁ of (m, m, v̄) for Adam."""
    form, eta = SCALED[name], 0.05
    X, M, u = POINTS[0]
    equation, y = scaled(form, eta)[1], scaled_state(form, X, M, u)
    found = np.asarray(eqx.filter_jit(equation.excess_third_cumulant)(TIME, y))
    S, a = SIGMA_0**2 * SIGMA, np.full(2, C1) if form.adam else 1 / (SIGMA_0 * np.sqrt(u) + EPS)
    block = 2 * C2 / SIGMA_0**2 * np.einsum("i,j,ik,jk->ijk", a, a, S, S)
    expected = np.zeros_like(found)
    driven, v = slice(-4, -2), slice(-2, None)
    expected[driven, driven, v] = block
    expected[driven, v, driven] = block.transpose(0, 2, 1)
    expected[v, driven, driven] = block.transpose(2, 0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_low_second_moments_enter_at_the_floor(x64):
    """(1 - β) diag Σ, of which `at_floor` counts the coordinates; V's own drift sees V."""
    eta, x = 0.05, jnp.asarray(POINTS[0][0])
    sde, _ = ballistic(BALLISTIC["RMSprop"], eta, amplitude=0.0)
    low = RMSpropState(x, jnp.array([-0.1, 0.5]))
    held = RMSpropState(x, jnp.array([C2 * eta * SIGMA[0, 0], 0.5]))
    np.testing.assert_allclose(sde.at_floor(low), 0.5)
    np.testing.assert_allclose(sde.at_floor(held), 0)
    a, b = leading(sde, low), leading(sde, held)
    np.testing.assert_allclose(a.X, b.X, rtol=1e-12)
    np.testing.assert_allclose(a.V - b.V, C2 * (held.V - low.V), rtol=1e-12)
    sde, _ = scaled(SCALED["RMSprop"], eta)
    low = BatchEquivalentRMSpropState(x, jnp.array([-0.1, 0.5]))
    held = BatchEquivalentRMSpropState(x, jnp.array([C2 * eta**2 * SIGMA[0, 0], 0.5]))
    a, b = leading(sde, low), leading(sde, held)
    expected = -derivatives(POINTS[0][0])[0] / (SIGMA_0 * np.sqrt(held.u) + EPS)
    np.testing.assert_allclose(a.theta, expected, rtol=1e-12)
    np.testing.assert_allclose(b.theta, expected, rtol=1e-12)


def test_the_second_moment_is_the_optimizers(x64):
    """V = v at order 2, whichever v the update divides by."""
    oracle, x = GaussianNoise(Crooked(), covariance=SIGMA), jnp.asarray(POINTS[0][0])
    sde = RMSprop(oracle, 0.05, 0.9, EPS, initial_second_moment=0.7, order=2)
    np.testing.assert_array_equal(sde.initial(x).V, [0.7, 0.7])
