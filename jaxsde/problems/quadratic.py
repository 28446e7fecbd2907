"""Quadratics: where almost every law has a closed form."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Scalar

from jaxsde import _checks
from jaxsde.problems._problem import Problem, check_shape


class Quadratic(Problem):
    """f(x) = (x - x*)ᵀ H (x - x*) / 2, with symmetric H (indefinite H is a saddle).

    Args:
        hessian: H, as its diagonal `(d,)` or a symmetric matrix `(d, d)`.
        minimizer: x*, a scalar or `(d,)`.

    Raises:
        InputError: H is not finite, not symmetric, or its shape does not fit the minimizer's.
    """

    hessian: Float[Array, " d"] | Float[Array, "d d"]
    minimizer: Float[Array, " d"]

    def __init__(self, hessian: ArrayLike | Sequence, minimizer: ArrayLike | Sequence = 0.0):
        hessian = jnp.asarray(hessian, float)
        minimizer = jnp.asarray(minimizer, float)
        if hessian.ndim not in (1, 2) or hessian.shape != hessian.shape[:1] * hessian.ndim:
            raise _checks.InputError(f"hessian must be (d,) or (d, d), got shape {hessian.shape}")
        if minimizer.shape not in ((), hessian.shape[:1]):
            raise _checks.InputError(
                f"minimizer must be a scalar or have shape {hessian.shape[:1]}, "
                f"got {minimizer.shape}"
            )
        _checks.finite("hessian", hessian)
        _checks.finite("minimizer", minimizer)
        known = _checks.concrete(hessian)
        if known is not None and known.ndim == 2 and not np.allclose(known, known.T, rtol=1e-5):
            raise _checks.InputError("hessian must be symmetric")
        self.hessian = hessian
        self.minimizer = jnp.broadcast_to(minimizer, hessian.shape[:1])

    def loss(self, x: Float[Array, " d"]) -> Scalar:
        """(x - x*)ᵀ H (x - x*) / 2."""
        return jnp.sum((x - self.minimizer) * self.gradient(x)) / 2

    def gradient(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """H (x - x*)."""
        check_shape(x, self.minimizer.shape)
        H, displacement = self.hessian, x - self.minimizer
        return H * displacement if H.ndim == 1 else H @ displacement
