"""The SDEs of RMSprop and RMSpropW, in both regimes."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree, Scalar

from jaxsde import _checks
from jaxsde.sdes._sde import clipped_sqrt, moment
from jaxsde.sdes.adaptive import _states
from jaxsde.sdes.adaptive._base import Ballistic, BatchEquivalent, brownian
from jaxsde.sdes.adaptive._states import BatchEquivalentRMSpropState, RMSpropState


class RMSprop(Ballistic):
    """The SDE of RMSprop and RMSpropW, in the clock t = k η.

    Of v⁺ = β v + (1 - β) g²,  x⁺ = x - η g/(√v + ε) - η θ x  with g = ∇f(x) + λ x + Z,
    Cov Z = Σ(x). θ > 0 is RMSpropW; λ > 0 is RMSprop on f + λ|x|²/2, and ∇f stands for ∇f + λ x
    below. With ρ = (1 - β)/η, P = diag(√V) + ε, D = P⁻¹, squares and roots elementwise:

        dX = -P⁻¹ (∇f(X) dt + √η Σ(X)^{1/2} dW) - θ X dt,
        dV = ρ ((∇f(X))² + diag Σ(X) - V) dt

    (Compagnoni et al. 2025, the SDE of RMSpropW; weak order 1). Here V has no Brownian motion, and
    is the second moment that the update divides by: v⁺ (`v_timing` "new", as in optax and PyTorch)
    or v ("old", as in Malladi et al. 2022). `bias_correction` divides it by 1 - βᵏ, k its index.

    Order 2 has V = v, the drift b₀ + η b₁, b₁ = h₁ - (∂ₜ b₀ + (b₀·∇) b₀)/2 with b₀ as above, and

        √η [ -D R dW ; ρ (2 ∇f R dW + Q dB) ],   R Rᵀ = Σ,  Q Qᵀ = Cov(Z²),

    W and B independent (`modified_equation`; the weak order theory of Li, Tai and E 2019). Without
    θ and bias correction, and with the old v (h₁ = 0), ∇²f and J = ∂ diag Σ/∂x as matrices:

        b₁ = [ -D (∇²f (D ∇f))/2 - (ρ/4) ∇f D²/√V ((∇f)² + diag Σ - V) ;
               ρ ∇f (∇²f (D ∇f)) + (ρ/2) J (D ∇f) + (ρ²/2) ((∇f)² + diag Σ - V) ].

    The new v adds h₁ = (ρ/2) D²/√V ((∇f)³ + 3 ∇f diag Σ - ∇f V) to X. It needs noise without third
    moments. V may then fall below 0, so it enters P as max(V, (1 - β) diag Σ); `at_floor` tells
    how often.

    V starts at rest, unless v₀ is given; optimizers start at v₀ = 0 unless told. Give both sides
    one `initial_second_moment`, or let `Paired(..., warm_up=k0)` hand over the optimizer's.

    Args:
        oracle: f and the noise.
        learning_rate: η.
        decay: β, in [0, 1).
        eps: ε >= 0, outside the root.
        weight_decay: θ >= 0, decoupled.
        l2_regularization: λ >= 0.
        initial_second_moment: v₀, a scalar or `(d,)`.
        bias_correction: whether the optimizer corrects v.
        v_timing: "new" or "old".
        order: 1 or 2.
        t0: the start; by default 0, or η where the bias correction is singular at 0.

    Raises:
        InputError: a parameter out of range, v₀ = 0 with ε = 0, or order 2 with noise whose squares
            have no known covariance.
    """

    decay: Float[Array, ""]

    def __init__(
        self, oracle, learning_rate, decay=0.9, eps=1e-8, weight_decay=0.0, l2_regularization=0.0,
        initial_second_moment=None, *, bias_correction=False, v_timing="new", order=1, t0=None,
    ):  # fmt: skip
        _checks.fraction("decay", decay)
        super().__init__(
            oracle, learning_rate, eps, weight_decay, l2_regularization, initial_second_moment, t0,
            bias_correction=bias_correction, v_timing=v_timing, order=order,
            singular=bias_correction and (order == 2 or v_timing == "old"),
        )  # fmt: skip
        self.decay = jnp.asarray(decay, float)

    def initial(self, x0) -> RMSpropState:
        """X = x₀ and V of v₀."""
        return RMSpropState(x0, self._V_of(self._first_v(self.decay, x0), self.decay, x0))

    def resumed(self, x, inner) -> RMSpropState:
        """X = x and V of the optimizer's v."""
        return RMSpropState(x, self._V_of(moment(inner, "nu"), self.decay, x))

    @property
    def _rho(self) -> Scalar:
        return (1 - self.decay) / self.learning_rate

    def _P(self, t, y: RMSpropState) -> PyTree:
        gamma, V = self._gamma2(t, self.decay), self._floored(y.V, self.decay, y.X)
        return jax.tree.map(lambda v: clipped_sqrt(v / gamma) + self.eps, V)

    def at_floor(self, y) -> Scalar:
        """The share of coordinates with V < (1 - β) diag Σ, where order 2 takes it for that."""
        return _states.share_below(y.V, self._floored(y.V, self.decay, y.X))

    def leading_drift(self, t, y: RMSpropState) -> RMSpropState:
        """-P⁻¹ ∇f - θ X;  ρ ((∇f)² + diag Σ - V)."""
        theta, rho = self.weight_decay, self._rho
        g, P, q = self._gradient(y.X), self._P(t, y), self._rest(y.X)
        return RMSpropState(
            jax.tree.map(lambda g, P, x: -g / P - theta * x, g, P, y.X),
            jax.tree.map(lambda q, v: rho * (q - v), q, y.V),
        )

    def _mean_correction(self, t, y: RMSpropState) -> RMSpropState:
        """(ρ/2) D²/√(V γ) ((∇f)³ + 3 ∇f diag Σ - ∇f V) with the new v; 0."""
        if self.v_timing == "old":
            return jax.tree.map(jnp.zeros_like, y)
        rho, g, P, s = self._rho, self._gradient(y.X), self._P(t, y), self.oracle.variance(y.X)
        root = jax.tree.map(jnp.sqrt, self._floored(y.V, self.decay, y.X))
        scale = rho / 2 / jnp.sqrt(self._gamma2(t, self.decay))
        X = jax.tree.map(
            lambda g, P, s, r, v: scale / (P**2 * r) * (g**3 + 3 * g * s - g * v),
            g, P, s, root, y.V,
        )  # fmt: skip
        return RMSpropState(X, jax.tree.map(jnp.zeros_like, y.V))

    def diffusion(self, t, y: RMSpropState, args) -> lx.FunctionLinearOperator:
        """[-√η P⁻¹ R; 0], and at order 2 √η [-P⁻¹ R dW; ρ (2 ∇f R dW + Q dB)]."""
        eta, P = self.learning_rate, self._P(t, y)
        R, g = self.oracle.covariance_root(y.X), self._gradient(y.X)

        def apply(dW):
            Rw = R.mv(dW.W if self.order == 2 else dW)
            X = jax.tree.map(lambda P, Rw: -jnp.sqrt(eta) / P * Rw, P, Rw)
            if self.order == 1:
                return RMSpropState(X, jax.tree.map(jnp.zeros_like, y.V))
            return RMSpropState(X, self._second_moment_noise(self._rho, g, Rw, dW, y.X))

        return lx.FunctionLinearOperator(apply, brownian(R, self.oracle, y.X, self.order))


class BatchEquivalentRMSprop(BatchEquivalent):
    """The SDE of RMSprop in the batch-equivalent regime, in the clock t = k η².

    Of v⁺ = β v + (1 - β) g²,  θ⁺ = θ - η g/(√v + ε)  with g = ∇f(θ) + σ z, Cov z = Σ(θ), as η → 0
    with σ₀ = σ η, ε₀ = ε η and c₂ = (1 - β)/η² fixed, so that the noise dominates the gradient.
    With u = v/σ², P = σ₀ diag(√u) + ε₀:

        dθ = -P⁻¹ (∇f(θ) dt + σ₀ Σ(θ)^{1/2} dW),
        du = c₂ (diag Σ(θ) - u) dt

    (Malladi et al. 2022, Definition 4.1 and Theorem 4.2: weak order 1 in η², for noise whose third
    moments are O(1/σ)). (∇f)² is missing from du: at fixed σ, where it matters, `RMSprop` is the
    model. The old and the new v in the update have the same SDE. A `weight_decay` λ, θ⁺ less η λ θ,
    adds -(λ/η) θ dt (order 1 only).

    Order 2 (for the old v, with constant Gaussian noise) is so **up to the third cumulant**: v⁺
    holds z² and θ⁺ holds z, and their cumulant 2 c₂ τ² Dᵢ Dⱼ Σᵢₖ Σⱼₖ (D = P⁻¹, τ = η²) adds a
    third-order operator to the generator at order τ that no diffusion has. Means of θ on quadratic
    losses and functions of u are of order 2; others, θ² among them, stay at order 1. With R̄ = σ₀ R,
    H = ∇²f, X = D R̄ R̄ᵀ D, q = D² (diag Σ - u) σ₀/√u and v̄ = σ₀² u, the drift is b + τ b₁,
    b₁ = [0; c₂ (∇f)²/σ₀²] - (∂ₜ b + (b·∇) b + (X:∇²) b/2)/2, and the noise

        dθ: -(D R̄ + τ (D H D R̄/2 + (c₂/4) q R̄)) dW,
        dv̄: 2 c₂ τ ∇f R̄ dW + c₂ √τ Q̄ dB,     Q̄ Q̄ᵀ = σ₀⁴ Cov(z²).

    u starts at rest unless v₀ is given.

    Args:
        oracle: f and the noise σ z.
        learning_rate: η.
        decay: β, in [0, 1).
        eps: ε >= 0, outside the root.
        noise_scale: σ, which only sets the units of u: u = v unless given. 1/√B for batches of B.
        initial_second_moment: v₀, a scalar or `(d,)`.
        weight_decay: λ >= 0, decoupled.
        order: 1 or 2.

    Raises:
        InputError: a parameter out of range, v₀ = 0 with ε = 0, or order 2 with other noise.
    """

    decay: Float[Array, ""]

    def __init__(
        self, oracle, learning_rate, decay=0.999, eps=1e-8, noise_scale=1.0,
        initial_second_moment=None, *, weight_decay=0.0, order=1,
    ):  # fmt: skip
        _checks.fraction("decay", decay)
        _states.check_form(oracle, order, "old")
        super().__init__(
            oracle, learning_rate, eps, weight_decay, noise_scale, initial_second_moment, None,
            order=order, singular=False,
        )  # fmt: skip
        self.decay = jnp.asarray(decay, float)

    @property
    def c_2(self) -> Scalar:
        """c₂ = (1 - β)/η²."""
        return (1 - self.decay) / self.learning_rate**2

    def initial(self, x0) -> BatchEquivalentRMSpropState:
        """theta = x₀ and u = v₀/σ²."""
        if self.initial_second_moment is None:
            return BatchEquivalentRMSpropState(x0, self._variance(x0))
        v = _states.like(self.initial_second_moment, x0)
        return BatchEquivalentRMSpropState(x0, self._u_of(v))

    def resumed(self, x, inner) -> BatchEquivalentRMSpropState:
        """theta = x, u = v/σ²."""
        return BatchEquivalentRMSpropState(x, self._u_of(moment(inner, "nu")))

    def _P(self, y: BatchEquivalentRMSpropState) -> PyTree:
        u = self._floored(y.u, self.decay, y.theta)
        return jax.tree.map(lambda u: self.sigma_0 * clipped_sqrt(u) + self.eps_0, u)

    def leading_drift(self, t, y) -> BatchEquivalentRMSpropState:
        """-P⁻¹ ∇f - (λ/η) θ;  c₂ (diag Σ - u)."""
        g, P, S = self.oracle.gradient(y.theta), self._P(y), self._variance(y.theta)
        decay = self.decay_rate
        return BatchEquivalentRMSpropState(
            jax.tree.map(lambda g, P, x: -g / P - decay * x, g, P, y.theta),
            jax.tree.map(lambda s, u: self.c_2 * (s - u), S, y.u),
        )

    def _mean_correction(self, t, y) -> BatchEquivalentRMSpropState:
        """0;  c₂ (∇f)²/σ₀²."""
        g = self.oracle.gradient(y.theta)
        return BatchEquivalentRMSpropState(
            jax.tree.map(jnp.zeros_like, y.theta),
            jax.tree.map(lambda g: self.c_2 * g**2 / self.sigma_0**2, g),
        )

    def _curvature(self, t, y) -> BatchEquivalentRMSpropState:
        """-P⁻¹ Σⱼ ∇³f[rⱼ, rⱼ]/2 over the columns rⱼ of P⁻¹ σ₀ Σ^{1/2};  0."""
        eta, P, gradient = self.learning_rate, self._P(y), self.oracle.gradient
        R = self.oracle.covariance_root(y.theta)
        flat, unflatten = jax.flatten_util.ravel_pytree(y.theta)

        def along(column):
            r = jax.tree.map(lambda P, Rw: eta * Rw / P, P, R.mv(unflatten(column)))
            slope = lambda x: jax.jvp(gradient, (x,), (r,))[1]  # noqa: E731
            return jax.jvp(slope, (y.theta,), (r,))[1]

        total = jax.tree.map(
            lambda a: a.sum(0), jax.vmap(along)(jnp.eye(flat.size, dtype=flat.dtype))
        )
        return BatchEquivalentRMSpropState(
            jax.tree.map(lambda P, a: -a / P / 2, P, total), jax.tree.map(jnp.zeros_like, y.u)
        )

    def diffusion(self, t, y, args) -> lx.FunctionLinearOperator:
        """[-P⁻¹ σ₀ Σ^{1/2}; 0], and at order 2 as above."""
        eta, P = self.learning_rate, self._P(y)
        R = self.oracle.covariance_root(y.theta)
        if self.order == 1:

            def apply(dW):
                X = jax.tree.map(lambda P, Rw: -1 / P * (eta * Rw), P, R.mv(dW))
                return BatchEquivalentRMSpropState(X, jax.tree.map(jnp.zeros_like, y.u))

            return lx.FunctionLinearOperator(apply, R.in_structure())
        return self._second_order_diffusion(y, R, P)

    def _second_order_diffusion(self, y, R, P) -> lx.FunctionLinearOperator:
        eta, tau, c, x = self.learning_rate, self.learning_rate**2, self.c_2, y.theta
        g, problem = self.oracle.gradient(x), self.oracle.problem
        u, S = self._floored(y.u, self.decay, x), self._variance(x)
        q = jax.tree.map(
            lambda P, s, y, u: (s - y) * self.sigma_0 / (P**2 * jnp.sqrt(u)), P, S, y.u, u
        )

        def apply(dW):
            Rw = R.mv(dW.W)
            DRw = jax.tree.map(lambda P, Rw: eta * Rw / P, P, Rw)
            HDRw = problem.hessian_vector_product(x, DRw)
            theta = jax.tree.map(
                lambda DRw, HDRw, P, q, Rw: -(DRw + tau * (HDRw / P / 2 + c / 4 * q * (eta * Rw))),
                DRw, HDRw, P, q, Rw,
            )  # fmt: skip
            return BatchEquivalentRMSpropState(theta, self._second_moment_noise(c, g, Rw, dW, x))

        return lx.FunctionLinearOperator(apply, brownian(R, self.oracle, x, 2))
