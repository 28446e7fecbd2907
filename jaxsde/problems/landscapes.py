"""Landscapes that are not quadratic: a valley, saddles, two wells."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from jaxsde import _checks
from jaxsde.problems._problem import Problem, check_shape


class Rosenbrock(Problem):
    """f(x) = Σᵢ a (xᵢ₊₁ - xᵢ²)² + (1 - xᵢ)², the curved valley (Rosenbrock 1960).

    Args:
        curvature: a, the steepness of the valley's walls.
    """

    curvature: Float[Array, ""]

    def __init__(self, curvature=100.0):
        _checks.positive("curvature", curvature)
        self.curvature = jnp.asarray(curvature, float)

    def loss(self, x: Float[Array, " d"]) -> Scalar:
        """Σᵢ a (xᵢ₊₁ - xᵢ²)² + (1 - xᵢ)², the sum over i < d."""
        if jnp.ndim(x) != 1 or x.shape[0] < 2:
            raise _checks.InputError("Rosenbrock's x must be one array (d,) with d of at least 2")
        return jnp.sum(self.curvature * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


class EmbeddedSaddle(Problem):
    """f(x) = xᵀ diag(h) x / 2 + (λ/4) Σ xᵢ⁴ - (ξ/3) Σ xᵢ³: a saddle at 0 inside a bowl.

    With a negative entry in h the origin is a saddle and the quartic term holds the path back
    (Lucchi et al. 2022; used by Compagnoni et al. 2025 and for SAM).

    Args:
        hessian: h, the diagonal of the Hessian at the origin, `(d,)`.
        quartic: λ > 0.
        cubic: ξ, which tilts the two wells against each other.
    """

    hessian: Float[Array, " d"]
    quartic: Float[Array, ""]
    cubic: Float[Array, ""]

    def __init__(self, hessian=(-1.0, 2.0), quartic=1.0, cubic=0.1):
        _checks.positive("quartic", quartic)
        _checks.finite("hessian", hessian)
        _checks.finite("cubic", cubic)
        self.hessian = jnp.asarray(hessian, float)
        self.quartic = jnp.asarray(quartic, float)
        self.cubic = jnp.asarray(cubic, float)

    def loss(self, x: Float[Array, " d"]) -> Scalar:
        """Σᵢ hᵢ xᵢ²/2 + (λ/4) xᵢ⁴ - (ξ/3) xᵢ³."""
        check_shape(x, self.hessian.shape)
        return jnp.sum(self.hessian * x**2 / 2 + self.quartic / 4 * x**4 - self.cubic / 3 * x**3)

    def gradient(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """h x + λ x³ - ξ x²."""
        check_shape(x, self.hessian.shape)
        return self.hessian * x + self.quartic * x**3 - self.cubic * x**2


class DoubleWell(Problem):
    """f(x) = b Σᵢ (xᵢ² - 1)²: wells at ±1 in every coordinate, barriers of height b between.

    Args:
        barrier: b > 0, the height of f at 0 over the wells.
    """

    barrier: Float[Array, ""]

    def __init__(self, barrier=0.25):
        _checks.positive("barrier", barrier)
        self.barrier = jnp.asarray(barrier, float)

    def loss(self, x: Float[Array, " d"]) -> Scalar:
        """b Σᵢ (xᵢ² - 1)²."""
        return self.barrier * jnp.sum((x**2 - 1) ** 2)

    def gradient(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """4 b x (x² - 1)."""
        return 4 * self.barrier * x * (x**2 - 1)
