"""Moments of RMSprop's and Adam's SDE on quadratics in the batch-equivalent regime, t = k η²."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.integrate
from jaxtyping import ArrayLike, Float

from jaxsde import _checks
from jaxsde.problems import Quadratic
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, Moments, sde
from jaxsde.theory.adaptive import _quadratic


class AdamMoments(NamedTuple):
    """First two moments of (x, m) at the times asked for."""

    x: Moments
    m: Moments
    cross_covariance: Float[np.ndarray, "*T d"]


def batch_equivalent_rmsprop_moments(
    problem: Quadratic,
    variance: ArrayLike,
    learning_rate: float,
    x0: ArrayLike,
    time: ArrayLike,
    law: Law = sde,
    *,
    decay: float,
    eps: float = 0.0,
    initial_second_moment: ArrayLike | None = None,
) -> Moments:
    """E x and Cov x under RMSprop's SDE in the clock t = k η², Σ constant.

    With y = x - x*, σ₀ = η σ, ε₀ = η ε, c = (1 - β)/η² and u = v/σ² (the noise has the covariance
    σ² Σ, diagonal S),

        dy = -a (λ y dt + σ₀ √S dW),   a = 1 / (σ₀ √u + ε₀),   du = c (S - u) dt,

    coordinate by coordinate. With A(t) = ∫₀ᵗ a, E y = e^(-λA) y₀ and Var y = σ₀² S ∫₀ᵗ
    e^(-2λ(A(t) - A(s))) a(s)² ds, integrated to 10⁻¹⁰. u₀ = S makes a constant, and Var y =
    σ₀² S a (1 - e^(-2λat)) / (2λ). `em(dt)` is Euler-Maruyama's recursion, u included, exactly.

    Source: Definition 4.1 and Theorem 4.2 of arXiv 2205.10287.

    Args:
        problem: the quadratic, with a diagonal H `(d,)`; saddles are welcome.
        variance: σ² S, the variance of the gradient noise, a scalar or `(d,)`.
        learning_rate: η.
        x0: the deterministic start, `(d,)`.
        time: t, any shape; multiples of dt for `em(dt)`.
        law: `em(dt)` or `sde`. The discrete v is random, and its law has no closed form.
        decay: β.
        eps: ε, outside the root.
        initial_second_moment: v₀ = σ² u₀, a scalar or `(d,)`; σ² S if not given.

    Returns:
        The mean `(..., d)` and the (diagonal) covariance `(..., d, d)`, `...` the shape of `time`.

    Raises:
        InputError: H is a matrix, shapes that do not fit, times off the chain's steps, `discrete`,
            or an argument out of its range.
    """
    h = _step_size(law, learning_rate)
    _checks.fraction("decay", decay)
    _checks.nonnegative("eps", eps)
    lam, minimizer, S = _quadratic.coordinates(problem, variance)
    y0 = _laws.point("x0", x0, len(lam)) - minimizer
    v0 = _second_moment(initial_second_moment, S, eps)
    c = _averaging_rate(decay, learning_rate, h)

    def a(t):
        v = S + (v0 - S) * _laws.growth(-c, t, h)[..., None]
        return 1 / (learning_rate * (np.sqrt(v) + eps))

    def drift(t):
        return (-a(t) * lam)[..., None, None]

    def noise(t):
        return (-learning_rate * np.sqrt(S) * a(t))[..., None]

    t = _laws.times(time)
    spread = np.abs(noise(np.zeros(()))) * np.sqrt(np.max(t, initial=0))
    sizes = np.abs(y0)[:, None], spread
    mean, cov = _propagated(drift, noise, y0[:, None], t, 0.0, h, sizes)
    return _moments(mean, cov, 0, minimizer)


def batch_equivalent_adam_moments(
    problem: Quadratic,
    variance: ArrayLike,
    learning_rate: float,
    x0: ArrayLike,
    time: ArrayLike,
    law: Law = sde,
    *,
    b1: float,
    b2: float,
    t0: float,
    eps: float = 0.0,
    initial_momentum: ArrayLike | None = None,
    initial_second_moment: ArrayLike | None = None,
) -> AdamMoments:
    """Moments of x and m under Adam's SDE in the clock t = k η², Σ constant, from t₀ > 0 on.

    With y = x - x*, σ₀ = η σ, ε₀ = η ε, cᵢ = (1 - βᵢ)/η², γᵢ(t) = 1 - e^(-cᵢt) and u = v/σ² (the
    noise has the covariance σ² Σ, diagonal S),

        dy = -G m dt,   G = (√γ₂/γ₁) / (σ₀ √u + ε₀ √γ₂),   du = c₂ (S - u) dt,
        dm = c₁ (λ y - m) dt + σ₀ c₁ √S dW,

    coordinate by coordinate: linear equations for the first two moments, integrated to 10⁻¹⁰ of
    their size. `em(dt)` is Euler-Maruyama's recursion, u included, exactly.

    Source: Definition 4.4 and Theorem 4.5 of arXiv 2205.10287.

    Args:
        problem: the quadratic, with a diagonal H `(d,)`; saddles are welcome.
        variance: σ² S, the variance of the gradient noise, a scalar or `(d,)`.
        learning_rate: η.
        x0: the deterministic x at t₀, `(d,)`.
        time: t ≥ t₀, any shape; t₀ and multiples of dt for `em(dt)`.
        law: `em(dt)` or `sde`. The discrete v is random, and its law has no closed form.
        b1: β₁.
        b2: β₂.
        t0: t₀; the bias correction is singular at 0.
        eps: ε, outside the root.
        initial_momentum: the deterministic m at t₀, a scalar or `(d,)`; γ₁(t₀) ∇f(x₀) if not given.
        initial_second_moment: v = σ² u at t₀, a scalar or `(d,)`; γ₂(t₀) σ² S if not given.

    Returns:
        The moments of x and of m, as of `batch_equivalent_rmsprop_moments`, and Cov(xᵢ, mᵢ)
        `(..., d)`.

    Raises:
        InputError: H is a matrix, shapes that do not fit, times before t₀ or off the chain's
            steps, `discrete`, or an argument out of its range.
    """
    h = _step_size(law, learning_rate)
    for name, beta in [("b1", b1), ("b2", b2)]:
        _checks.fraction(name, beta)
    _checks.nonnegative("eps", eps)
    _checks.positive_number("t0", t0)
    t = _laws.times(time)
    if np.any(t < t0):
        raise _checks.InputError(f"time must not come before t0 = {t0:g}")
    lam, minimizer, S = _quadratic.coordinates(problem, variance)
    y0 = _laws.point("x0", x0, len(lam)) - minimizer
    c1 = np.asarray((1 - b1) / learning_rate**2)
    c2 = _averaging_rate(b2, learning_rate, h)
    gamma1, gamma2 = -np.expm1(-c1 * t0), -np.expm1(-c2 * t0)
    m0 = _vector("initial_momentum", initial_momentum, gamma1 * lam * y0)
    v0 = _second_moment(initial_second_moment, S, eps, gamma2)

    def G(t):
        gamma1, gamma2 = -np.expm1(-c1 * t)[..., None], -np.expm1(-c2 * t)[..., None]
        v = S + (v0 - S) * _laws.growth(-c2, t - t0, h)[..., None]
        root = np.sqrt(gamma2)
        return root / gamma1 / (learning_rate * (np.sqrt(v) + eps * root))

    def drift(t):
        A = np.zeros((*np.shape(t), len(lam), 2, 2))
        A[..., 0, 1], A[..., 1, 0], A[..., 1, 1] = -G(t), c1 * lam, -c1
        return A

    def noise(t):
        b = np.zeros((*np.shape(t), len(lam), 2))
        b[..., 1] = learning_rate * c1 * np.sqrt(S)
        return b

    end = np.max(t, initial=t0)
    sizes = _adam_sizes(drift(end), noise(end), y0, m0, end - t0)
    start = np.stack([y0, m0], axis=-1)
    mean, cov = _propagated(drift, noise, start, t, t0, h, sizes)
    x, m = _moments(mean, cov, 0, minimizer), _moments(mean, cov, 1, 0.0)
    return AdamMoments(x, m, cov[..., 0, 1])


def _adam_sizes(A, b, y0, m0, span):
    """How large mean and standard deviation of (y, m) become, roughly."""
    c1 = -A[:, 1, 1]
    pull = -A[:, 0, 1] / c1
    shift = [np.abs(y0) + pull * np.abs(m0), np.abs(m0) + np.abs(A[:, 1, 0] / c1 * y0)]
    spread = [pull * b[:, 1] * np.sqrt(span), b[:, 1] / np.sqrt(2 * c1)]
    return np.stack(shift, axis=-1), np.stack(spread, axis=-1)


Coefficient = Callable[[np.ndarray], np.ndarray]


def _propagated(
    drift: Coefficient,
    noise: Coefficient,
    start: Float[np.ndarray, "d n"],
    time: Float[np.ndarray, "*T"],
    t0: float,
    h: float,
    sizes: tuple[Float[np.ndarray, "d n"], Float[np.ndarray, "d n"]],
) -> tuple[Float[np.ndarray, "*T d n"], Float[np.ndarray, "*T d n n"]]:
    """Mean and covariance at the times of dz = A z dt + b dW, or its Euler chain of step h > 0.

    A(t) is `drift`, b(t) `noise`; z = start at t₀. `sizes` are those of mean and standard
    deviation, for the tolerance in continuous time.
    """
    if h > 0:
        k = _laws.step_count(time - t0, h).astype(int)
        means, covs = _euler(drift, noise, start, t0, h, int(np.max(k, initial=0)))
        return means[k], covs[k]
    instants, index = np.unique(time, return_inverse=True)
    mean, cov = _integrated(drift, noise, start, instants, t0, sizes)
    index = index.reshape(time.shape)
    return mean[index], cov[index]


def _euler(drift, noise, start, t0, h, steps):
    """Mean and covariance after 0 .. `steps` steps of z⁺ = (1 + h A) z + √h b ξ."""
    t = t0 + h * np.arange(steps)
    factors = np.eye(start.shape[-1]) + h * drift(t)
    sources = h * noise(t)[..., :, None] * noise(t)[..., None, :]
    means = np.empty((steps + 1, *start.shape))
    covs = np.empty((steps + 1, *start.shape, start.shape[-1]))
    means[0], covs[0] = start, 0
    for k, (F, source) in enumerate(zip(factors, sources, strict=True)):
        means[k + 1] = (F @ means[k][..., None])[..., 0]
        covs[k + 1] = F @ covs[k] @ F.swapaxes(-1, -2) + source
    return means, covs


def _integrated(drift, noise, start, instants, t0, sizes):
    """Mean and covariance at increasing instants, by LSODA; each coordinate is one band."""
    d, n = start.shape
    width = n + n * n

    def rates(t, z):
        z = z.reshape(d, width)
        mean, cov = z[:, :n, None], z[:, n:].reshape(d, n, n)
        A, b = drift(np.asarray(t)), noise(np.asarray(t))
        flow = A @ cov
        cov_rate = flow + flow.swapaxes(-1, -2) + b[..., :, None] * b[..., None, :]
        return np.concatenate([(A @ mean)[..., 0], cov_rate.reshape(d, n * n)], axis=1).ravel()

    if len(instants) == 0 or instants[-1] == t0:
        return np.tile(start, (len(instants), 1, 1)), np.zeros((len(instants), d, n, n))
    shift, spread = sizes
    pairs = (spread[:, :, None] * spread[:, None, :]).reshape(d, n * n)
    solved = scipy.integrate.solve_ivp(
        rates,
        (t0, instants[-1]),
        np.concatenate([start, np.zeros((d, n * n))], axis=1).ravel(),
        method="LSODA",
        t_eval=instants,
        rtol=1e-12,
        atol=1e-14 * np.concatenate([shift, pairs], axis=1).ravel() + 1e-300,
        lband=width - 1,
        uband=width - 1,
    )
    if not solved.success:
        raise _checks.InputError(f"the moments could not be integrated: {solved.message}")
    z = solved.y.T.reshape(-1, d, width)
    return z[..., :n], z[..., n:].reshape(-1, d, n, n)


def _moments(mean, cov, i, origin) -> Moments:
    """Moments of the i-th component of z, over coordinates."""
    variance = cov[..., i, i]
    return Moments(origin + mean[..., i], variance[..., None] * np.eye(variance.shape[-1]))


def _step_size(law: Law, learning_rate: float) -> float:
    if law == _laws.discrete:
        raise _checks.InputError("the discrete second moment is random: take em(dt) or sde")
    _checks.positive_number("learning_rate", learning_rate)
    return _laws.step_size(law, learning_rate)


def _averaging_rate(beta: float, learning_rate: float, h: float) -> Float[np.ndarray, ""]:
    """c = (1 - β)/η² of the second moment, which steps beyond 1/c could make negative."""
    c = (1 - beta) / learning_rate**2
    if h * c > 1:
        raise _checks.InputError(f"dt must be at most learning_rate**2 / (1 - beta) = {1 / c:g}")
    return np.asarray(c)


def _second_moment(
    value: ArrayLike | None, S: Float[np.ndarray, " d"], eps: float, weight: ArrayLike = 1.0
) -> Float[np.ndarray, " d"]:
    """The v to start from, which must keep P positive."""
    v = _vector("initial_second_moment", value, np.asarray(weight) * S)
    _checks.nonnegative("initial_second_moment", v)
    if eps == 0 and np.any(v == 0):
        raise _checks.InputError("initial_second_moment must be positive where eps = 0")
    return v


def _vector(name, value, default) -> Float[np.ndarray, " d"]:
    """The value, a scalar or `(d,)`, in float64 and full length; the default where it is None."""
    if value is None:
        return default
    value = np.asarray(value, float)
    if value.shape not in ((), default.shape):
        raise _checks.InputError(f"{name} must be a scalar or {default.shape}, got {value.shape}")
    _checks.finite(name, value)
    return np.broadcast_to(value, default.shape)
