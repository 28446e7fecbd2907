"""Student-t gradient noise: heavy tails, down to no mean at all."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks
from jaxsde.engine.noise import Draw, StudentT
from jaxsde.oracles._oracle import (
    Oracle,
    check_fits,
    check_problem,
    diagonal,
    noise_scale,
    unit_draws,
)
from jaxsde.problems import Problem

_DEGREE = 40  # of the Chebyshev series of the tail
_SHORT_DEGREE, _SHORT_UP_TO = 20, 30.0  # enough for small ν
_TERMS = 512  # of the power series that it is fitted to
LARGEST_DEGREES_OF_FREEDOM = 1000.0


class StudentTNoise(Oracle):
    """∇f(x) + σ τ with τ i.i.d. Student-t with ν > 0 degrees of freedom.

    σ is the scale, not the standard deviation: Cov Z = ν/(ν - 2) σ² for ν > 2 and infinite for
    smaller ν; for ν <= 1 there is no mean either. A mean of t's is not a t, so there is no batch
    size.

    Args:
        problem: f.
        scale: σ, a scalar or `(d,)`.
        degrees_of_freedom: ν in (0, 1000].

    Raises:
        InputError: scale or ν not positive, or ν above 1000, where the noise is Gaussian to
            3e-4 and `GaussianNoise` does it better.
    """

    problem: Problem
    scale: Float[Array, ""] | Float[Array, " d"]
    degrees_of_freedom: Float[Array, ""]
    _tail: Float[Array, " n"]
    _density: Float[Array, ""]

    def __init__(self, problem, scale, degrees_of_freedom):
        _checks.positive_number("degrees_of_freedom", degrees_of_freedom)
        check_problem(problem)
        known = _checks.concrete(degrees_of_freedom)
        if known is not None and known > LARGEST_DEGREES_OF_FREEDOM:
            raise _checks.InputError(
                f"degrees_of_freedom must be at most {LARGEST_DEGREES_OF_FREEDOM:g}, got {known}: "
                "use GaussianNoise"
            )
        self.problem = problem
        self.scale = noise_scale("scale", scale)
        self.degrees_of_freedom = jnp.asarray(degrees_of_freedom, float)
        short = known is not None and known <= _SHORT_UP_TO
        degree = _SHORT_DEGREE if short else _DEGREE
        self._tail, self._density = _tail_series(self.degrees_of_freedom, degree)

    @property
    def additive(self) -> bool:
        """True."""
        return True

    def noise(self, x0: PyTree) -> PyTree[Draw]:
        """τ, with the shapes of x0."""
        check_fits("scale", self.scale.shape, x0)
        return unit_draws(x0, StudentT(self.degrees_of_freedom))

    def sample_gradient(self, x: PyTree, draw: PyTree) -> PyTree:
        """∇f(x) + σ τ."""
        return jax.tree.map(lambda g, tau: g + self.scale * tau, self.gradient(x), draw)

    def covariance(self, x: PyTree) -> lx.DiagonalLinearOperator:
        """ν/(ν - 2) σ².

        Raises:
            InputError: ν <= 2, where the variance is infinite.
        """
        return diagonal(self._variance(), x)

    def covariance_root(self, x: PyTree) -> lx.DiagonalLinearOperator:
        """√(ν/(ν - 2)) σ.

        Raises:
            InputError: ν <= 2, where the variance is infinite.
        """
        return diagonal(jnp.sqrt(self._variance()), x)

    def cdf(self, z: PyTree) -> PyTree:
        """P(Zᵢ <= zᵢ), the t distribution function at zᵢ/σᵢ; to 1e-9 in float64, 1e-6 in float32.

        With s = |τ|/√(ν + τ²) the tail is (1 - s²)^{ν/2} h(s)/2, where h is analytic on [0, 1] and
        evaluated as a Chebyshev series in 2s - 1.
        """
        return jax.tree.map(lambda leaf: self._cdf(leaf / self.scale), z)

    def density_at_zero(self) -> Float[Array, "..."]:
        """The density of Zᵢ at 0, Γ((ν + 1)/2) / (√(πν) Γ(ν/2) σᵢ)."""
        return self._density / self.scale

    def _variance(self) -> Float[Array, "..."]:
        nu = self.degrees_of_freedom
        known = _checks.concrete(nu)
        if known is not None and known <= 2:
            raise _checks.InputError(
                f"Student-t noise with {known:g} degrees of freedom has infinite variance: "
                "this needs more than 2"
            )
        return nu / (nu - 2) * self.scale**2

    def _cdf(self, tau: Float[Array, "..."]) -> Float[Array, "..."]:
        nu = self.degrees_of_freedom
        s = jnp.abs(tau) / jnp.sqrt(nu + tau**2)
        tail = jnp.exp(-nu / 2 * jnp.log1p(tau**2 / nu)) * _chebyshev(self._tail, 2 * s - 1) / 2
        return jnp.where(tau < 0, tail, 1 - tail)


def _tail_series(nu: Float[Array, ""], degree: int) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """The Chebyshev coefficients of h on s in [0, 1], and the density p(0).

    h solves (1 - s²) h' - ν s h = -2 √ν p(0) with h(0) = 1, so that in w = 1 - s it is the positive
    series h = (2 p(0)/√ν) S(w), S = Σⱼ aⱼ wʲ with a₀ = 1 and aⱼ = aⱼ₋₁ (j - 1 + ν)/(2j + ν),
    and p(0) = √ν/(2 S(1)), which is Γ((ν + 1)/2) / (√(πν) Γ(ν/2)).
    """
    j = jnp.arange(1, _TERMS, dtype=nu.dtype)
    a = jnp.cumprod((j - 1 + nu) / (2 * j + nu))
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    w = jnp.asarray((1 - nodes) / 2, nu.dtype)
    at_start = 1 + jnp.sum(a)
    h = (1 + jnp.sum(a[None, :] * w[:, None] ** j[None, :], axis=1)) / at_start
    transform = np.polynomial.chebyshev.chebvander(nodes, degree).T * 2 / (degree + 1)
    transform[0] /= 2
    return jnp.asarray(transform, nu.dtype) @ h, jnp.sqrt(nu) / (2 * at_start)


def _chebyshev(coefficients: Float[Array, " n"], u: Float[Array, "..."]) -> Float[Array, "..."]:
    """Σₙ cₙ Tₙ(u) by Clenshaw's recurrence, unrolled."""
    after, last = jnp.zeros_like(u), jnp.zeros_like(u)
    for n in range(len(coefficients) - 1, 0, -1):
        after, last = last, coefficients[n] + 2 * u * last - after
    return coefficients[0] + u * last - after
