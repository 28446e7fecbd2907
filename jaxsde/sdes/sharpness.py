"""The SDEs of sharpness-aware minimisation: USAM, DNSAM and SAM."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree, Scalar

from jaxsde import _checks
from jaxsde.oracles import FullBatch, GaussianNoise, Oracle
from jaxsde.oracles._oracle import columns_root, over_coordinates, symmetric_root
from jaxsde.sdes._one_step import deviations, each, mean, step_law
from jaxsde.sdes._sde import PositionSDE, State, check_one_oracle, check_variance, scaled
from jaxsde.sdes._unit_vectors import unit_vector

COVARIANCES = ("full", "first-order", "sgd", "none")
FLOOR = 1e-12


class Motions(NamedTuple):
    """Two Brownian motions: of the gradient noise, and of what of u it does not determine."""

    Z: PyTree
    u: PyTree


class AdditiveLaw(NamedTuple):
    """p_c under additive noise Z: E p_c = gain ∇f, p_c - E p_c = shared(Z) + rest(B).

    shared is symmetric, Cov(p_c, Z) Σ⁻¹; B is a Brownian motion of x's shape, None for no rest.
    """

    gain: Scalar
    shared: Callable[[PyTree], PyTree]
    rest: Callable[[PyTree], PyTree] | None = None


class _SharpnessAware(PositionSDE):
    """What USAM, DNSAM and SAM have in common; a class says what its p_c is.

    With additive noise the law of p_c has a closed form; else it is enumerated or sampled.
    """

    oracle: Oracle
    learning_rate: Float[Array, ""]
    rho: Float[Array, ""]
    full_perturbation: bool = eqx.field(static=True)
    micro_batches: int = eqx.field(static=True)
    covariance: str = eqx.field(static=True)
    samples: int | None = eqx.field(static=True)

    def __init__(
        self, oracle, learning_rate, rho, full_perturbation, micro_batches, covariance, samples
    ):
        _checks.positive_number("learning_rate", learning_rate)
        _checks.nonnegative_number("rho", rho)
        _checks.known("covariance", covariance, COVARIANCES)
        check_one_oracle(oracle)
        check_variance(oracle)
        self.oracle = oracle
        self.learning_rate = jnp.asarray(learning_rate, float)
        self.rho = jnp.asarray(rho, float)
        self.full_perturbation = full_perturbation
        self.micro_batches = _checks.at_least("micro_batches", micro_batches, 1)
        self.covariance = covariance
        self.samples = None if samples is None else _checks.at_least("samples", samples, 2)

    @abc.abstractmethod
    def _perturbation(self, g_c: PyTree, g: PyTree) -> PyTree:
        """p_c of a draw's gradient and ∇f."""

    @abc.abstractmethod
    def _additive_law(self, g: PyTree) -> AdditiveLaw:
        """The law of p_c at ∇f = g under additive noise."""

    def shared(self, W: tuple) -> PyTree | None:
        """Σ W_i/√M of the micro-batches, where S^{1/2} is of their noise."""
        M = self.micro_batches
        if len(W) != M or not self._has_closed_form():
            return None
        return jax.tree.map(lambda *w: sum(w) / np.sqrt(M), *W)

    def _has_closed_form(self) -> bool:
        return self.oracle.additive and self.samples is None

    def _hessian(self, x: PyTree, v: PyTree) -> PyTree:
        return self.oracle.problem.hessian_vector_product(x, v)

    def drift(self, t, y: State, args) -> State:
        """-(∇f + ρ E[H_c p_c]); with additive noise E H p = gain H ∇f."""
        rho, g = self.rho, self.oracle.gradient(y.X)
        if self.full_perturbation or self._has_closed_form():
            gain = self._additive_law(g).gain
            Hp = jax.tree.map(lambda h: gain * h, self._hessian(y.X, g))
        else:
            Hp = self._mean_curvature(y.X, g)
        return State(jax.tree.map(lambda g, h: -(g + rho * h), g, Hp))

    def _mean_curvature(self, x: PyTree, g: PyTree) -> PyTree:
        """E[H_c p_c] = H E p_c + E[(H_c - H)(p_c - E p_c)], of which a sample errs in less."""
        law = step_law(self.oracle, x, samples=self.samples)
        p = each(lambda c: self._perturbation(self.oracle.sample_gradient(x, c), g), law)
        p_mean = self._mean_perturbation(g, mean(p, law))

        def excess(draws, p_c):
            v = jax.tree.map(jnp.subtract, p_c, p_mean)
            H_c = jax.jvp(lambda x: self.oracle.sample_gradient(x, draws[0]), (x,), (v,))[1]
            return jax.tree.map(jnp.subtract, H_c, self._hessian(x, v))

        covariance = mean(jax.vmap(excess)(law.draws, p), law)
        return jax.tree.map(jnp.add, self._hessian(x, p_mean), covariance)

    def _mean_perturbation(self, g: PyTree, sampled: PyTree) -> PyTree:
        """E p_c, p_c of ∇f where that is exact."""
        return self._perturbation(g, g)

    def diffusion(self, t, y: State, args) -> lx.AbstractLinearOperator:
        """-√(η/M) S^{1/2}."""
        eta, M = self.learning_rate, self.micro_batches
        return scaled(-jnp.sqrt(eta / M), self._root(y.X))

    def _root(self, x: PyTree) -> lx.AbstractLinearOperator:
        if self.covariance == "none":
            return lx.FunctionLinearOperator(lambda _: jax.tree.map(jnp.zeros_like, x), ())
        if self.covariance == "sgd":
            return self.oracle.covariance_root(x)
        g = self.oracle.gradient(x)
        if self._has_closed_form():
            return self._closed_root(x, g)
        law = step_law(self.oracle, x, samples=self.samples)
        g_c, Hp = each(lambda c: self._draw(x, g, c), law)
        if self.covariance == "full":
            v = jax.tree.map(lambda g, h: g + self.rho * h, g_c, Hp)
            return columns_root(deviations(v, law))
        ravel = jax.vmap(lambda v: jax.flatten_util.ravel_pytree(v)[0])
        G, K = ravel(deviations(g_c, law)), ravel(deviations(Hp, law))
        S = G.T @ G + self.rho * (G.T @ K + K.T @ G)
        return over_coordinates(symmetric_root(S), x)

    def _draw(self, x: PyTree, g: PyTree, draw: PyTree) -> tuple[PyTree, PyTree]:
        """g_c and H_c p_c."""

        def gradient(x):
            return self.oracle.sample_gradient(x, draw)

        g_c = gradient(x)
        return g_c, jax.jvp(gradient, (x,), (self._perturbation(g_c, g),))[1]

    def _closed_root(self, x: PyTree, g: PyTree) -> lx.AbstractLinearOperator:
        """Z + ρ H (p - E p), or at first order the root of Σ + ρ (H N + N H), N = Cov(p, Z)."""
        rho, root, law = self.rho, self.oracle.covariance_root(x), self._additive_law(g)
        if self.covariance == "first-order":
            return over_coordinates(symmetric_root(self._first_order(x, law)), x)
        rest = law.rest

        def moved(Z, p):
            return jax.tree.map(lambda z, h: z + rho * h, Z, self._hessian(x, p))

        def alone(w):
            Z = root.mv(w)
            return moved(Z, law.shared(Z))

        if rest is None:
            return lx.FunctionLinearOperator(alone, root.in_structure())

        def with_rest(w: Motions):
            Z = root.mv(w.Z)
            return moved(Z, jax.tree.map(jnp.add, law.shared(Z), rest(w.u)))

        structure = Motions(root.in_structure(), jax.eval_shape(lambda: x))
        return lx.FunctionLinearOperator(with_rest, structure)

    def _first_order(self, x: PyTree, law: AdditiveLaw) -> Float[Array, "d d"]:
        flat, unravel = jax.flatten_util.ravel_pytree(x)
        covariance = self.oracle.covariance(x)

        def HN_column(e):
            N = law.shared(covariance.mv(unravel(e)))
            return jax.flatten_util.ravel_pytree(self._hessian(x, N))[0]

        HN = jax.vmap(HN_column, out_axes=1)(jnp.eye(flat.size, dtype=flat.dtype))
        return covariance.as_matrix() + self.rho * (HN + HN.T)


class USAM(_SharpnessAware):
    """The SDE of x⁺ = x - η g_c(x + ρ g_c(x)), unnormalised SAM, in the clock t = k η.

    With H_c the Hessian of draw c's loss and p_c = g_c,

        dX = -(∇f + ρ E[H_c p_c]) dt - √η S^{1/2} dW,    S = Cov(g_c + ρ H_c p_c),

    so that the drift is -∇(f + (ρ/2) E|g_c|²), E|g_c|² = |∇f|² + tr Σ. With additive noise:

        dX = -(I + ρ H) ∇f dt - √η (I + ρ H) Σ^{1/2} dW.

    Its weak error is O(η) for ρ = O(√η) (arXiv 2301.08203, its Theorem on USAM with S to first
    order in ρ). On a quadratic with Gaussian noise Euler-Maruyama at dt = η is the optimizer. With
    `full_perturbation` p_c = ∇f; with M micro-batches S is divided by M (arXiv 2509.18001).

    Args:
        oracle: f and the noise; additive, or of draws that can be enumerated, or sampled.
        learning_rate: η.
        rho: ρ >= 0.
        full_perturbation: whether p_c is made of ∇f instead of g_c.
        micro_batches: M; the oracle is one micro-batch's.
        covariance: "full", which is S; "first-order", Σ + ρ (C + Cᵀ) with C = Cov(g_c, H_c p_c) as
            published, its negative eigenvalues cut off (dense, a factorisation a step); "sgd", Σ;
            "none", 0, an ordinary differential equation.
        samples: how many draws stand for all in E and Cov, the same at all times; closed forms or
            all draws unless given. S has a rank below it, so many more than x has coordinates.

    Raises:
        InputError: η not positive, ρ negative, M or samples out of range, another covariance, noise
            of infinite variance, or (at a run) draws that cannot be enumerated and no `samples`.
    """

    def __init__(
        self, oracle, learning_rate, rho, *, full_perturbation=False, micro_batches=1,
        covariance="full", samples=None,
    ):  # fmt: skip
        super().__init__(
            oracle, learning_rate, rho, full_perturbation, micro_batches, covariance, samples
        )

    def _perturbation(self, g_c, g):
        return g if self.full_perturbation else g_c

    def _additive_law(self, g):
        """p_c = ∇f + Z, or ∇f."""
        return AdditiveLaw(jnp.ones(()), _nothing if self.full_perturbation else lambda Z: Z)


class _Normalized(_SharpnessAware):
    """With a norm that is at least `floor`."""

    floor: Float[Array, ""]

    def __init__(
        self, oracle, learning_rate, rho, full_perturbation, micro_batches, covariance, samples,
        floor,
    ):  # fmt: skip
        super().__init__(
            oracle, learning_rate, rho, full_perturbation, micro_batches, covariance, samples
        )
        _checks.positive_number("floor", floor)
        self.floor = jnp.asarray(floor, float)

    def _norm(self, v: PyTree) -> Scalar:
        return jnp.maximum(optax.tree.norm(v), self.floor)


class DNSAM(_Normalized):
    """The SDE of x⁺ = x - η g_c(x + ρ g_c(x)/|∇f(x)|), in the clock t = k η.

    With p_c = g_c/|∇f|,

        dX = -(∇f + ρ E[H_c p_c]) dt - √η S^{1/2} dW,    S = Cov(g_c + ρ H_c p_c).

    With additive noise, and n = |∇f|,

        dX = -(I + ρ H/n) ∇f dt - √η (I + ρ H/n) Σ^{1/2} dW,

    whose drift is -∇(f + ρ |∇f|). (arXiv 2301.08203.) For other noise it is no gradient: the
    published one is then O(ρ) off, by ρ ∇tr Σ/(2n). The coefficients are singular where ∇f = 0 and
    Euler's steps jump there. Where x has one or two coordinates the optimizer and they have no
    variance, and jump out of saddles: compare quantiles, or raise the `floor`, the least n.

    Args:
        oracle: as in `USAM`.
        learning_rate: η.
        rho: ρ >= 0.
        micro_batches: as in `USAM`.
        covariance: as in `USAM`.
        samples: as in `USAM`.
        floor: the least norm that divides.

    Raises:
        InputError: as in `USAM`, or a floor that is not positive.
    """

    def __init__(
        self, oracle, learning_rate, rho, *, micro_batches=1, covariance="full", samples=None,
        floor=FLOOR,
    ):  # fmt: skip
        super().__init__(
            oracle, learning_rate, rho, False, micro_batches, covariance, samples, floor
        )

    def _perturbation(self, g_c, g):
        n = self._norm(g)
        return jax.tree.map(lambda v: v / n, g_c)

    def _additive_law(self, g):
        """p_c = (∇f + Z)/n."""
        n = self._norm(g)
        return AdditiveLaw(1 / n, lambda Z: jax.tree.map(lambda z: z / n, Z))


class SAM(_Normalized):
    """The SDE of x⁺ = x - η g_c(x + ρ g_c(x)/|g_c(x)|), SAM, in the clock t = k η.

    With u_c = g_c/|g_c|,

        dX = -∇(f + ρ E|g_c|) dt - √η S^{1/2} dW,
        S = Cov(g_c + ρ H_c u_c)
          = Σ + ρ (C + Cᵀ) + ρ² Cov(H_c u_c),    C = Cov(g_c, H_c u_c).

    (arXiv 2301.08203, with S to first order in ρ.) For additive N(0, σ² I) noise the law of
    u = (∇f + Z)/|∇f + Z| is known: E u = a ∇f/|∇f| and, by Stein's lemma, Cov(Z, u) = σ² M, M the
    Hessian of E|g + Z| in g. With Brownian motions W, B

        dX = -(∇f + ρ (a/|∇f|) H ∇f) dt
             - √η [(I + ρ H M) σ dW + ρ H (Cov u - σ² M²)^{1/2} dB].

    Without noise u = ∇f/|∇f|, the norm at least `floor`. For other noise u's law is enumerated or
    sampled.

    Args:
        oracle: as in `USAM`; additive noise has a closed form if Gaussian with one scale, or with
            `full_perturbation`.
        learning_rate: η.
        rho: ρ >= 0.
        full_perturbation: as in `USAM`.
        micro_batches: as in `USAM`.
        covariance: as in `USAM`.
        samples: as in `USAM`.
        floor: the least norm that divides; not used in the closed form of Gaussian noise.

    Raises:
        InputError: as in `DNSAM`.
    """

    def __init__(
        self, oracle, learning_rate, rho, *, full_perturbation=False, micro_batches=1,
        covariance="full", samples=None, floor=FLOOR,
    ):  # fmt: skip
        super().__init__(
            oracle, learning_rate, rho, full_perturbation, micro_batches, covariance, samples, floor
        )

    def _has_closed_form(self) -> bool:
        known = self._sigma() is not None or self._is_deterministic()
        return super()._has_closed_form() and known

    def _mean_perturbation(self, g, sampled):
        """E u_c of the cases."""
        return sampled

    def _sigma(self) -> Scalar | None:
        oracle = self.oracle
        return oracle.isotropic_scale() if isinstance(oracle, GaussianNoise) else None

    def _is_deterministic(self) -> bool:
        return self.full_perturbation or isinstance(self.oracle, FullBatch)

    def _perturbation(self, g_c, g):
        direction = g if self.full_perturbation else g_c
        n = self._norm(direction)
        return jax.tree.map(lambda v: v / n, direction)

    def _additive_law(self, g):
        """E u = (a/|∇f|) ∇f, u - E u = M Z + (Cov u - σ² M²)^{1/2} B; or u = ∇f/|∇f|."""
        sigma = self._sigma()
        if sigma is None or self._is_deterministic():
            return AdditiveLaw(1 / self._norm(g), _nothing)
        r = optax.tree.norm(g)
        law = unit_vector(r / sigma, sum(leaf.size for leaf in jax.tree.leaves(g)))
        direction = jax.tree.map(lambda v: v / jnp.where(r > 0, r, 1), g)
        return AdditiveLaw(
            law.alpha / sigma,
            lambda Z: _along(law.beta / sigma, law.alpha / sigma, direction, Z),
            lambda B: _along(jnp.sqrt(law.along), jnp.sqrt(law.across), direction, B),
        )


def _nothing(Z: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, Z)


def _along(along: Scalar, across: Scalar, direction: PyTree, w: PyTree) -> PyTree:
    """across w + (along - across) ĝ (ĝ·w)."""
    projection = optax.tree.vdot(direction, w)
    return jax.tree.map(lambda u, w: across * w + (along - across) * projection * u, direction, w)
