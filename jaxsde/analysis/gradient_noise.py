"""How large the gradient's noise is at a point, estimated in three ways."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar, UInt32

from jaxsde import _checks
from jaxsde.engine import Draw, Estimate, Normal, noise
from jaxsde.engine.inputs import start_point
from jaxsde.oracles import Oracle
from jaxsde.sdes._sde import check_variance


class GradientNoise(NamedTuple):
    """∇f and the noise of a sampled gradient g = ∇f + Z at one point.

    Fields:
        gradient_norm: |∇f|.
        sample_norm: E |g|.
        trace: tr Σ = E |Z|² from N draws, (Σ |gᵢ|² - N |ḡ|²)/(N - 1).
        probed: tr Σ = E |Σ^{1/2} ξ|² from N probes ξ ~ N(0, I) of the SDE's diffusion.
        exact: tr Σ, the sum of the diagonal.
    """

    gradient_norm: float
    sample_norm: Estimate
    trace: Estimate
    probed: Estimate
    exact: float

    @property
    def dominance(self) -> float:
        """√(tr Σ)/|∇f|: noise dominates where this is far above 1; it falls as 1/√B."""
        return float(np.sqrt(self.exact) / self.gradient_norm) if self.gradient_norm else np.inf

    @property
    def signal_to_noise(self) -> float:
        """(E |g|)²/tr Σ, as in code for arXiv 2205.10287; 1 + 1/dominance² where |g| hardly varies.

        It does not fall below some 1 however strong the noise is, since |g| holds that too.
        """
        return float(self.sample_norm.value) ** 2 / self.exact if self.exact else np.inf


def gradient_noise(
    oracle: Oracle, x: PyTree, *, key: PRNGKeyArray, samples: int = 1000
) -> GradientNoise:
    """|∇f|, E |g| and tr Σ at x (the estimators in code for arXiv 2205.10287, and two exact ones).

    Args:
        oracle: of one gradient.
        x: the point.
        key: of the draws and the probes.
        samples: N of each, at least 2.

    Returns:
        Estimates with their standard errors over the N samples, and what is known exactly.

    Raises:
        InputError: fewer than 2 samples, or noise without a covariance.
    """
    samples = _checks.at_least("samples", samples, 2)
    check_variance(oracle)
    x, _ = start_point(x)
    measured = _measure(oracle, x, noise.key_words(key), jnp.arange(samples, dtype=jnp.uint32))
    norm, exact, sample_norm, squares, probes, mean = (np.asarray(a, float) for a in measured)
    spread = (squares.sum() - samples * mean) / (samples - 1)
    return GradientNoise(
        float(norm),
        _mean(sample_norm),
        Estimate(spread, _mean(squares).standard_error),
        _mean(probes),
        float(exact),
    )


@eqx.filter_jit
def _measure(
    oracle: Oracle, x: PyTree, words: UInt32[Array, "2"], index: UInt32[Array, " N"]
) -> tuple[Array, ...]:
    """|∇f|, tr Σ, each |gᵢ|, |Zᵢ|² and |Σ^{1/2} ξᵢ|², and |Z̄|²."""
    gradient, root = oracle.gradient(x), oracle.covariance_root(x)
    dtype = jnp.result_type(*jax.tree.leaves(x))
    normals = jax.tree.map(lambda leaf: Draw(leaf.shape, Normal()), root.in_structure())
    declared = (oracle.noise(x), normals)

    def sample(total, i):
        packed = noise.blocks(declared, words, jnp.uint32(0), i[None], dtype)
        values = noise.values(declared, packed, 0, dtype)
        draw, xi = jax.tree.map(lambda value: value[..., 0], values)
        g = oracle.sample_gradient(x, draw)
        Z = jax.tree.map(jnp.subtract, g, gradient)
        norms = optax.tree.norm(g), _square(Z), _square(root.mv(xi))
        return jax.tree.map(jnp.add, total, Z), norms

    total, norms = jax.lax.scan(sample, jax.tree.map(jnp.zeros_like, gradient), index)
    mean = _square(total) / index.size**2
    return optax.tree.norm(gradient), oracle.trace(x), *norms, mean


def _square(tree: PyTree) -> Scalar:
    return optax.tree.norm(tree, squared=True)


def _mean(values: Float[np.ndarray, " N"]) -> Estimate:
    return Estimate(values.mean(), scipy.stats.sem(values))
