"""Products of matrices fitted to data: their origin is a saddle, their minima are manifolds."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Scalar

from jaxsde import _checks
from jaxsde.problems._problem import Problem, check_shape
from jaxsde.problems.one_hidden_layer import Layers, check_layers, normal_layers, square
from jaxsde.problems.regression import penalty


class LinearAutoencoder(Problem):
    """f(x) = (1/2n) Σⱼ |aⱼ - W₂ W₁ aⱼ|² + r |x|² (Kunin et al. 2019, arXiv:1901.08168).

    x = Layers(W₁, W₂), W₁ `(h, d)` encodes and W₂ `(d, h)` decodes. The data enter through their
    second moments Σ = (1/n) Σⱼ aⱼ aⱼᵀ alone. With eigenvalues σᵢ of Σ the Hessian at the origin
    has the eigenvalues 2r ± σᵢ, h times each: a saddle as long as 2r is below the largest σᵢ.

    Args:
        data: rows aⱼ, `(n, d)`.
        width: h, at most d.
        regularization: r >= 0.

    Raises:
        InputError: data of another rank or not finite, width below 1 or above d, or r < 0.
    """

    second_moment: Float[Array, "d d"]
    regularization: Float[Array, ""]
    width: int = eqx.field(static=True)

    def __init__(self, data: ArrayLike | Sequence, width: int, regularization: ArrayLike = 0.0):
        data = jnp.asarray(data, float)
        if data.ndim != 2 or data.size == 0:
            raise _checks.InputError(f"data must be (n, d), got shape {data.shape}")
        _checks.finite("data", data)
        n, d = data.shape
        self.width = _checks.at_least("width", width, 1)
        if width > d:
            raise _checks.InputError(f"width must be at most d = {d}, got {width}")
        self.second_moment = data.T @ data / n
        self.regularization = penalty(regularization)

    def loss(self, x: Layers) -> Scalar:
        """tr(E Σ Eᵀ)/2 + r |x|², E = W₂ W₁ - I."""
        E = self._error(x)
        return jnp.sum(E @ self.second_moment * E) / 2 + self.regularization * square(x)

    def gradient(self, x: Layers) -> Layers:
        """(W₂ᵀ E Σ + 2r W₁, E Σ W₁ᵀ + 2r W₂)."""
        EΣ, r = self._error(x) @ self.second_moment, self.regularization
        W1, W2 = x
        return Layers(W2.T @ EΣ + 2 * r * W1, EΣ @ W1.T + 2 * r * W2)

    def initial(self, seed: int = 0) -> Layers:
        """A random start, every weight N(0, 1/h)."""
        d, h = len(self.second_moment), self.width
        return normal_layers(seed, (h, d), (d, h), h)

    def _error(self, x: Layers) -> Float[Array, "d d"]:
        d, h = len(self.second_moment), self.width
        check_layers(x, (h, d), (d, h))
        return x.second @ x.first - jnp.eye(d, dtype=self.second_moment.dtype)


class MatrixSensing(Problem):
    """f(U) = (1/2m) Σᵢ (⟨Aᵢ, U Uᵀ⟩ - yᵢ)², U `(d, d)`: a low-rank matrix from m measurements.

    With targets yᵢ = ⟨Aᵢ, V Vᵀ⟩ every U with U Uᵀ = V Vᵀ is a minimiser, and f is 0 there.

    Args:
        probes: A₁, ..., Aₘ, symmetric, `(m, d, d)`.
        targets: y, `(m,)`.

    Raises:
        InputError: shapes do not match, entries that are not finite, or probes that are not
            symmetric.
    """

    probes: Float[Array, "m d d"]
    targets: Float[Array, " m"]

    def __init__(self, probes: ArrayLike | Sequence, targets: ArrayLike | Sequence):
        probes = jnp.asarray(probes, float)
        targets = jnp.asarray(targets, float)
        m, d = probes.shape[:1], probes.shape[-1:]
        if probes.ndim != 3 or probes.shape != m + d + d or targets.shape != m:
            raise _checks.InputError(
                f"probes must be (m, d, d) and targets (m,), got {probes.shape} and {targets.shape}"
            )
        _checks.finite("probes", probes)
        _checks.finite("targets", targets)
        known = _checks.concrete(probes)
        if known is not None and not np.allclose(known, known.transpose(0, 2, 1), rtol=1e-5):
            raise _checks.InputError("probes must be symmetric")
        self.probes = probes
        self.targets = targets

    @classmethod
    def random(
        cls, seed: int = 0, dimension: int = 5, rank: int = 2, probes: int = 10
    ) -> "MatrixSensing":
        """Normal probes of a matrix V Vᵀ; the defaults are the sizes of arXiv 2301.08203.

        Args:
            seed: of NumPy's generator.
            dimension: d.
            rank: of V Vᵀ; V `(d, rank)` has entries N(0, 1/d).
            probes: m; each is (G + Gᵀ)/2, G `(d, d)` of entries N(0, 1).

        Raises:
            InputError: a number below 1, or a rank above d.
        """
        d = _checks.at_least("dimension", dimension, 1)
        m = _checks.at_least("probes", probes, 1)
        if _checks.at_least("rank", rank, 1) > d:
            raise _checks.InputError(f"rank must be at most dimension = {d}, got {rank}")
        rng = np.random.default_rng(_checks.at_least("seed", seed, 0))
        G = rng.normal(size=(m, d, d))
        V = rng.normal(size=(d, rank)) / np.sqrt(d)
        A = (G + G.transpose(0, 2, 1)) / 2
        return cls(A, np.einsum("ijk,jl,kl->i", A, V, V))

    def loss(self, x: Float[Array, "d d"]) -> Scalar:
        """(1/2m) Σᵢ rᵢ², rᵢ = ⟨Aᵢ, U Uᵀ⟩ - yᵢ."""
        return jnp.mean(self._residuals(x) ** 2) / 2

    def gradient(self, x: Float[Array, "d d"]) -> Float[Array, "d d"]:
        """(2/m) Σᵢ rᵢ Aᵢ U."""
        r, A, m = self._residuals(x), self.probes, self.targets.size
        return 2 / m * jnp.tensordot(r, A, 1) @ x

    def hessian_trace(self, x: Float[Array, "d d"]) -> Scalar:
        """tr ∇²f(U) = (1/m) Σᵢ (4 |Aᵢ U|² + 2d rᵢ tr Aᵢ)."""
        r, A, m, d = self._residuals(x), self.probes, self.targets.size, len(x)
        return (4 * jnp.sum((A @ x) ** 2) + 2 * d * jnp.sum(r * jnp.trace(A, axis1=1, axis2=2))) / m

    def initial(self, seed: int = 0) -> Float[np.ndarray, "d d"]:
        """A random start, every entry N(0, 1/d)."""
        d = self.probes.shape[-1]
        rng = np.random.default_rng(_checks.at_least("seed", seed, 0))
        return (rng.normal(size=(d, d)) / np.sqrt(d)).astype(jnp.result_type(float))

    def _residuals(self, x: Float[Array, "d d"]) -> Float[Array, " m"]:
        check_shape(x, self.probes.shape[1:])
        return jnp.sum(self.probes * (x @ x.T)[None], axis=(1, 2)) - self.targets
