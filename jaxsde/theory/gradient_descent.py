"""SGD, x⁺ = x - η g: exact moments on quadratics, a loss bound, and exact heavy-tailed laws.

Time is t = k η throughout, η the learning rate. Everything is NumPy in float64 on the host,
whatever JAX's precision.
"""

import numpy as np
import scipy.optimize
import scipy.special
from jaxtyping import ArrayLike, Complex, Float

from jaxsde import _checks
from jaxsde.problems import Quadratic
from jaxsde.theory import _laws
from jaxsde.theory._laws import Law, Moments, sde


def moments(
    problem: Quadratic,
    covariance: ArrayLike,
    learning_rate: float,
    x0: ArrayLike,
    time: ArrayLike,
    law: Law = sde,
    order: int = 1,
) -> Moments:
    """E x and Cov x on f = (x - x*)ᵀ H (x - x*) / 2 under gradient noise of constant covariance Σ.

    One step h of the chain is y⁺ = (I - h H) y + √(η h) Σ^(1/2) ξ for y = x - x*. In H's
    eigenbasis, with eigenvalues λᵢ,

        E yᵢ(t)      = (1 - h λᵢ)^(t/h) yᵢ(0),
        Cov(yᵢ, yⱼ)  = η Σᵢⱼ ((1 + h rᵢⱼ)^(t/h) - 1) / rᵢⱼ,   rᵢⱼ = -(λᵢ + λⱼ) + h λᵢ λⱼ.

    `em(dt)` has h = dt; `sde` is the limit h → 0: e^(-λt) and η Σᵢⱼ (1 - e^(-(λᵢ+λⱼ)t))/(λᵢ+λⱼ).
    `discrete` has h = η: with Gaussian noise, SGD and Euler-Maruyama of its order-1 SDE at
    dt = η are the same chain, and its moments are these under any noise of covariance Σ.
    Saddles (λ ≤ 0) are welcome.

    Source: Lemma 3.8 of arXiv 2411.15958 (`sde`, diagonal H). Order 2 has the drift
    -∇(f + (η/4) |∇f|²) of Li, Tai & E (arXiv 1811.01558): λ becomes λ (1 + η λ / 2).

    Args:
        problem: the quadratic, H `(d,)` or `(d, d)`.
        covariance: Σ of one gradient's noise, `(d,)` if diagonal, or `(d, d)`.
        learning_rate: η.
        x0: the deterministic start, `(d,)`.
        time: t, any shape; multiples of the step for `discrete` and `em(dt)`.
        law: `discrete`, `em(dt)` or `sde`.
        order: weak order of the SDE, 1 or 2.

    Returns:
        The mean `(..., d)` and the covariance `(..., d, d)`, `...` the shape of `time`.

    Raises:
        InputError: shapes that do not fit, Σ not a covariance, times off the chain's steps, or
            order 2 of `discrete`.
    """
    h = _laws.step_size(law, learning_rate)
    eigenvalues, V = np.linalg.eigh(_laws.hessian_matrix(problem))
    lam = _drift_rates(eigenvalues, learning_rate, law, order)
    noise = V.T @ _laws.covariance_matrix(covariance, len(lam)) @ V
    t = _laws.times(time)[..., None]
    minimizer = np.asarray(problem.minimizer, float)
    y0 = V.T @ (_laws.point("x0", x0, len(lam)) - minimizer)
    mean = _laws.growth(-lam, t, h) * y0
    cov = learning_rate * noise * _laws.accumulated(_pair_rates(lam, h), t[..., None], h)
    return Moments(minimizer + mean @ V.T, V @ cov @ V.T)


def stationary_covariance(
    problem: Quadratic,
    covariance: ArrayLike,
    learning_rate: float,
    law: Law = sde,
    order: int = 1,
) -> Float[np.ndarray, "d d"]:
    """Cov x as t → ∞ on a quadratic: η Σᵢⱼ / (λᵢ + λⱼ - h λᵢ λⱼ) in H's eigenbasis.

    The letters are those of `moments`. In one dimension: (η/2) σ²/λ for the SDE (Lemma 3.8 of
    arXiv 2411.15958), η σ² / (λ (2 - η λ)) for the algorithm.

    Args:
        problem: the quadratic, H positive definite, `(d,)` or `(d, d)`.
        covariance: Σ of one gradient's noise, `(d,)` if diagonal, or `(d, d)`.
        learning_rate: η.
        law: `discrete`, `em(dt)` or `sde`.
        order: weak order of the SDE, 1 or 2.

    Raises:
        InputError: H has an eigenvalue ≤ 0 or h λ ≥ 2, so that there is no stationary law; or
            what `moments` refuses.
    """
    h = _laws.step_size(law, learning_rate)
    eigenvalues, V = np.linalg.eigh(_laws.hessian_matrix(problem))
    lam = _drift_rates(eigenvalues, learning_rate, law, order)
    if eigenvalues[0] <= 0:
        raise _checks.InputError(
            f"no stationary law: the hessian has the eigenvalue {eigenvalues[0]:g} <= 0"
        )
    if h * lam[-1] >= 2:
        raise _checks.InputError(
            f"no stationary law: the chain is unstable, step * curvature = {h * lam[-1]:g} >= 2"
        )
    noise = V.T @ _laws.covariance_matrix(covariance, len(lam)) @ V
    return V @ (learning_rate * noise / -_pair_rates(lam, h)) @ V.T


def loss_bound(
    initial_loss: float,
    time: ArrayLike,
    *,
    learning_rate: float,
    mu: float,
    hessian_trace: float,
    sigma_max: float,
    batch_size: int = 1,
) -> Float[np.ndarray, "*T"]:
    """E S_t ≤ S₀ e^(-2μt) + (η L_τ σ² / (4 μ B)) (1 - e^(-2μt)), for SGD's order-1 SDE.

    S = f - f*. Quadratic in σ, with a rate that σ does not change. An equality for f isotropic
    quadratic and isotropic noise.

    Source: arXiv 2411.15958, its loss bound for SGD, with L_τ in the place of L d.

    Args:
        initial_loss: S₀ = f(x₀) - f*.
        time: t.
        learning_rate: η.
        mu: the Polyak-Łojasiewicz constant, |∇f|² ≥ 2 μ S.
        hessian_trace: L_τ ≥ tr ∇²f(x) everywhere.
        sigma_max: σ, the largest standard deviation of one sample's gradient noise.
        batch_size: B.

    Raises:
        InputError: a constant that is not positive, or a negative time.
    """
    _laws.check_positive(initial_loss=initial_loss, sigma_max=sigma_max)
    level = loss_level(
        learning_rate=learning_rate,
        mu=mu,
        hessian_trace=hessian_trace,
        sigma=sigma_max,
        batch_size=_checks.at_least("batch_size", batch_size, 1),
    )
    decay = np.exp(-2 * mu * _laws.times(time))
    return initial_loss * decay + level * (1 - decay)


def loss_level(
    *,
    learning_rate: float,
    mu: float,
    hessian_trace: float,
    sigma: ArrayLike,
    batch_size: ArrayLike = 1,
) -> Float[np.ndarray, "..."]:
    """Where `loss_bound` settles as t → ∞: η L_τ σ² / (4 μ B), quadratic in σ.

    Source: arXiv 2411.15958, equation 3 of its poster, with L_τ in the place of L d.

    Args:
        learning_rate: η.
        mu: the Polyak-Łojasiewicz constant, |∇f|² ≥ 2 μ S.
        hessian_trace: L_τ ≥ tr ∇²f(x) everywhere.
        sigma: σ, the largest standard deviation of one sample's gradient noise, any shape.
        batch_size: B, any positive number (SVAG's are fractions), any shape.

    Returns:
        The level, of the shape that sigma and batch_size broadcast to.

    Raises:
        InputError: a constant that is not positive.
    """
    _laws.check_positive(
        learning_rate=learning_rate,
        mu=mu,
        hessian_trace=hessian_trace,
        sigma=sigma,
        batch_size=batch_size,
    )
    variance = np.asarray(sigma, float) ** 2 / np.asarray(batch_size, float)
    return learning_rate * hessian_trace * variance / (4 * mu)


def student_t_covariance(scale: ArrayLike, degrees_of_freedom: float) -> Float[np.ndarray, "..."]:
    """Variance s² ν / (ν - 2) of Student-t noise of scale s: the `covariance` of `moments`.

    Args:
        scale: s, any shape.
        degrees_of_freedom: ν > 2.

    Raises:
        InputError: ν ≤ 2, where the variance is infinite and SGD has no SDE.
    """
    _checks.positive("scale", scale)
    _checks.positive("degrees_of_freedom", degrees_of_freedom)
    nu = degrees_of_freedom
    if nu <= 2:
        raise _checks.InputError(
            f"the variance of Student-t noise is infinite for degrees_of_freedom <= 2, got {nu:g}"
        )
    return np.asarray(scale, float) ** 2 * nu / (nu - 2)


def student_t_cdf(
    x: ArrayLike,
    *,
    curvature: float,
    scale: float,
    degrees_of_freedom: float,
    learning_rate: float,
    x0: float,
    steps: int,
) -> Float[np.ndarray, "..."]:
    """P(x_K ≤ x) after K steps of SGD on f = λ x² / 2 under Student-t gradient noise.

    x_K = q^K x₀ + η s Σ_{j<K} q^j τ_j in law, q = 1 - η λ, τ_j independent t_ν. With Φ(u) = Πⱼ
    φ_ν(η s |q|^j u), φ_ν(u) = 2^(1-ν/2) / Γ(ν/2) (√ν|u|)^(ν/2) K_{ν/2}(√ν|u|), and
    w = |x - q^K x₀|, Gil-Pelaez inversion gives

        P = 1/2 + sign(x - q^K x₀) (1/π) Im ∫₀^∞ e^(i w u) Φ(u) du/u.

    Φ is analytic for Re u > 0, so the integral is taken along the ray u = r e^(iθ), where both
    factors decay; the pole at 0 contributes θ. Absolute error about 10⁻¹². At ν = 1 the law is
    known: Cauchy around q^K x₀ of scale η s (1 - |q|^K) / (1 - |q|).

    The cost grows as `steps` times 10³ Bessel functions, and faster below ν = 1.

    Source: Gil-Pelaez (Biometrika 1951) for the inversion; Hurst (1995) for φ_ν.

    Args:
        x: where to evaluate, any shape, measured from the minimiser.
        curvature: λ, of any sign.
        scale: s of one gradient's noise.
        degrees_of_freedom: ν in (0, 100].
        learning_rate: η.
        x0: the start, measured from the minimiser.
        steps: K ≥ 1.

    Raises:
        InputError: an argument out of its range.
    """
    centre, weights = _student_t_sum(curvature, scale, degrees_of_freedom, learning_rate, x0, steps)
    _checks.finite("x", x)
    return _cdf(np.asarray(x, float) - centre, *_on_ray(weights, degrees_of_freedom))


def student_t_quantile(
    probability: ArrayLike,
    *,
    curvature: float,
    scale: float,
    degrees_of_freedom: float,
    learning_rate: float,
    x0: float,
    steps: int,
) -> Float[np.ndarray, "..."]:
    """The x with P(x_K ≤ x) = probability, for the law of `student_t_cdf`, by root finding.

    Args:
        probability: any shape, each in [10⁻⁸, 1 - 10⁻⁸].
        curvature: λ, of any sign.
        scale: s of one gradient's noise.
        degrees_of_freedom: ν in (0, 100].
        learning_rate: η.
        x0: the start, measured from the minimiser.
        steps: K ≥ 1.

    Raises:
        InputError: an argument out of its range.
    """
    centre, weights = _student_t_sum(curvature, scale, degrees_of_freedom, learning_rate, x0, steps)
    probability = np.asarray(probability, float)
    if not np.all((probability >= 1e-8) & (probability <= 1 - 1e-8)):
        raise _checks.InputError("probability must lie in [1e-8, 1 - 1e-8]")
    total = np.sum(weights)
    u, phi = _on_ray(weights / total, degrees_of_freedom)
    bound = 1.0
    while _cdf(bound, u, phi) < np.max(np.maximum(probability, 1 - probability), initial=0.5):
        bound *= 2

    def root(p):
        return scipy.optimize.brentq(
            lambda w: _cdf(w, u, phi) - p, -bound, bound, xtol=1e-13, maxiter=1000
        )

    return centre + total * np.vectorize(root, otypes=[float])(probability)


_ANGLE = np.pi / 8  # θ: both e^(iwu) and Φ, Gaussian or exponential, decay on the ray
_LOG_STEP = 0.08  # of log r: the trapezoidal rule errs by e^(-2π θ / step) = 4e-14


def _student_t_sum(curvature, scale, degrees_of_freedom, learning_rate, x0, steps):
    """q^K x₀ and the weights η s |q|^j, j < K, after the checks."""
    _checks.positive("learning_rate", learning_rate)
    _checks.positive("scale", scale)
    _checks.positive("degrees_of_freedom", degrees_of_freedom)
    if degrees_of_freedom > 100:
        raise _checks.InputError(
            f"degrees_of_freedom must be at most 100 here, got {degrees_of_freedom:g}; "
            "use moments with student_t_covariance"
        )
    _checks.finite("curvature", curvature)
    _checks.finite("x0", x0)
    K = _checks.at_least("steps", steps, 1)
    q = 1 - learning_rate * curvature
    return q**K * x0, learning_rate * scale * abs(q) ** np.arange(K)


def _on_ray(
    weights: Float[np.ndarray, " K"], nu: float
) -> tuple[Complex[np.ndarray, " n"], Complex[np.ndarray, " n"]]:
    """The ray u = r e^(iθ), log r evenly spaced, and Φ(u) = Πⱼ φ_ν(weightsⱼ u) there.

    The range reaches from where 1 - Φ, of order u^min(ν, 1), is below rounding (with room for
    e^(iwu) at w up to 10¹¹ total weights) to where Φ is.
    """
    lowest = -40 / min(nu, 1) - 25
    highest = np.log(1e3 * np.sqrt(len(weights)))
    u = np.exp(np.arange(lowest, highest, _LOG_STEP) + 1j * _ANGLE) / np.sum(weights)
    log_phi = sum(_log_characteristic(weight * u, nu) for weight in weights)
    return u, np.exp(log_phi)


def _log_characteristic(u: Complex[np.ndarray, " n"], nu: float) -> Complex[np.ndarray, " n"]:
    """The log of φ_ν(u) = 2^(1-ν/2) / Γ(ν/2) z^(ν/2) K_{ν/2}(z), z = √ν u; Re u > 0."""
    z = np.sqrt(nu) * u
    bessel = scipy.special.kve(nu / 2, z)  # K e^z
    resolved = np.isfinite(bessel)  # it overflows where φ is 1 to rounding
    z, bessel = np.where(resolved, z, 1), np.where(resolved, bessel, 1)
    constant = (1 - nu / 2) * np.log(2) - scipy.special.gammaln(nu / 2)
    log_phi = constant + nu / 2 * np.log(z) + np.log(bessel) - z
    return np.where(resolved, log_phi, 0)


def _cdf(
    w: ArrayLike, u: Complex[np.ndarray, " n"], phi: Complex[np.ndarray, " n"]
) -> Float[np.ndarray, "..."]:
    """1/2 + sign(w) (θ + Im ∫ e^(i|w|u) Φ(u) dr/r) / π, along the ray."""
    waves = np.exp(1j * np.abs(w)[..., None] * u)
    integral = _LOG_STEP * np.sum(np.imag(waves * phi), axis=-1)
    return 0.5 + np.sign(w) * (_ANGLE + integral) / np.pi


def _drift_rates(eigenvalues, learning_rate, law, order):
    """λ, or λ (1 + η λ / 2) at order 2."""
    if order not in (1, 2):
        raise _checks.InputError(f"order must be 1 or 2, got {order!r}")
    if order == 1:
        return eigenvalues
    if law == _laws.discrete:
        raise _checks.InputError("order 2 is an SDE's; the discrete law is the algorithm's own")
    return eigenvalues * (1 + learning_rate * eigenvalues / 2)


def _pair_rates(lam: Float[np.ndarray, " d"], h: float) -> Float[np.ndarray, "d d"]:
    """rᵢⱼ = ((1 - h λᵢ)(1 - h λⱼ) - 1) / h = -(λᵢ + λⱼ) + h λᵢ λⱼ."""
    return -np.add.outer(lam, lam) + h * np.outer(lam, lam)
