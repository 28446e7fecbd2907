"""The SDEs of Adam and AdamW, in both regimes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree, Scalar

from jaxsde import _checks
from jaxsde.sdes._sde import clipped_sqrt, moment
from jaxsde.sdes.adaptive import _states
from jaxsde.sdes.adaptive._base import Ballistic, BatchEquivalent, brownian
from jaxsde.sdes.adaptive._states import AdamState, BatchEquivalentAdamState, gathered


class Adam(Ballistic):
    """The SDE of Adam and AdamW, in the clock t = k η.

    Of m⁺ = β₁ m + (1 - β₁) g,  v⁺ = β₂ v + (1 - β₂) g²,
    x⁺ = x - η (m⁺/γ₁)/(√(v⁺/γ₂) + ε) - η θ x  with γᵢ = 1 - βᵢ^{k+1}, g = ∇f(x) + λ x + Z. θ > 0 is
    AdamW; λ > 0 is Adam on f + λ|x|²/2, and ∇f stands for ∇f + λ x below. With ρᵢ = (1 - βᵢ)/η,
    P = diag(√V) + ε √γ₂ and γᵢ(t) = 1 - βᵢ^{t/η + 1}, one step ahead (γ₂ = 1 - β₂^{t/η} for the
    old v):

        dX = -(√γ₂/γ₁) P⁻¹ [(M + η ρ₁ (∇f(X) - M)) dt + η ρ₁ √η Σ(X)^{1/2} dW] - θ X dt,
        dM = ρ₁ (∇f(X) - M) dt + √η ρ₁ Σ(X)^{1/2} dW,
        dV = ρ₂ ((∇f(X))² + diag Σ(X) - V) dt.

    `published` is Theorem 3.12 of Compagnoni et al. 2025: without the dW in dX, and with
    γᵢ(t) = 1 - e^{-ρᵢ t}, singular at 0, so that it starts at t₀ = η. The dW matters: the
    correction η ρ₁ (∇f - M) without its noise lowers the stationary variance by about the factor
    β₁². (The paper's poster prints √(ηρ₁) for √η ρ₁ and v₁(t) for V in P.) V is what the update
    divides by, as in `RMSprop`; `v_timing` and `bias_correction` are the optimizer's (γᵢ = 1
    without).

    Order 2 has V = v, the drift b₀ + η b₁, b₁ = h₁ - (∂ₜ b₀ + (b₀·∇) b₀)/2 with

        b₀ = [ -(√γ₂/γ₁) P⁻¹ M - θ X ; ρ₁ (∇f - M) ; ρ₂ ((∇f)² + diag Σ - V) ],
        h₁ = [ -(√γ₂/γ₁) P⁻¹ ρ₁ (∇f - M) ; 0 ; 0 ],   and with the new v also
             (ρ₂/2) (√γ₂/γ₁) M P⁻²/√V ((∇f)² + diag Σ - V) in X,

    γ₁ one step ahead, γ₂ at the index of the v used, and the noise
    √η [0; ρ₁ R dW; ρ₂ (2 ∇f R dW + Q dB)] of `RMSprop`. It starts at t₀ = η where bias-corrected.

    Args:
        oracle: f and the noise.
        learning_rate: η.
        b1: β₁, in [0, 1).
        b2: β₂, in [0, 1).
        eps: ε >= 0, outside the root.
        weight_decay: θ >= 0, decoupled.
        l2_regularization: λ >= 0.
        initial_second_moment: v₀, a scalar or `(d,)`, for Adam without bias correction.
        bias_correction: whether the optimizer corrects m and v.
        v_timing: "new" or "old".
        order: 1 or 2.
        published: the published form, of order 1.
        t0: the start; by default 0, or η where the bias correction is singular at 0.

    Raises:
        InputError: a parameter out of range, v₀ = 0 with ε = 0, v₀ with bias correction, a
            published form of order 2, or order 2 with noise whose squares have no known covariance.
    """

    b1: Float[Array, ""]
    b2: Float[Array, ""]
    published: bool = eqx.field(static=True)

    def __init__(
        self, oracle, learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0,
        l2_regularization=0.0, initial_second_moment=None, *, bias_correction=True, v_timing="new",
        order=1, published=False, t0=None,
    ):  # fmt: skip
        _checks.fraction("b1", b1)
        _checks.fraction("b2", b2)
        if published and order != 1:
            raise _checks.InputError("the published SDE of Adam is of order 1")
        super().__init__(
            oracle, learning_rate, eps, weight_decay, l2_regularization, initial_second_moment, t0,
            bias_correction=bias_correction, v_timing="old" if published else v_timing, order=order,
            singular=bias_correction and (published or order == 2 or v_timing == "old"),
        )  # fmt: skip
        self.b1, self.b2 = jnp.asarray(b1, float), jnp.asarray(b2, float)
        self.published = published

    def initial(self, x0) -> AdamState:
        """X = x₀, M of the mean gradient and V of v₀."""
        eta = self.learning_rate
        weight = gathered(self.b1, self.t0 / eta) if self.bias_correction else 0.0
        M = jax.tree.map(lambda g: weight * g, self._gradient(x0))
        return AdamState(x0, M, self._V_of(self._first_v(self.b2, x0), self.b2, x0))

    def resumed(self, x, inner) -> AdamState:
        """X = x, M = m and V of the optimizer's v."""
        return AdamState(x, moment(inner, "mu"), self._V_of(moment(inner, "nu"), self.b2, x))

    @property
    def _rho1(self) -> Scalar:
        return (1 - self.b1) / self.learning_rate

    @property
    def _rho2(self) -> Scalar:
        return (1 - self.b2) / self.learning_rate

    def _gammas(self, t) -> tuple[Array | float, Array | float]:
        if not self.bias_correction:
            return 1.0, 1.0
        if self.published:
            return -jnp.expm1(-self._rho1 * t), -jnp.expm1(-self._rho2 * t)
        return gathered(self.b1, t / self.learning_rate + 1), self._gamma2(t, self.b2)

    def _preconditioner(self, t, y: AdamState) -> PyTree:
        """(√γ₂/γ₁) P⁻¹."""
        (gamma1, gamma2), V = self._gammas(t), self._floored(y.V, self.b2, y.X)
        root2 = jnp.sqrt(gamma2)
        return jax.tree.map(lambda v: root2 / gamma1 / (clipped_sqrt(v) + self.eps * root2), V)

    def at_floor(self, y) -> Scalar:
        """The share of coordinates with V < (1 - β₂) diag Σ, where order 2 takes it for that."""
        return _states.share_below(y.V, self._floored(y.V, self.b2, y.X))

    def leading_drift(self, t, y: AdamState) -> AdamState:
        """-(√γ₂/γ₁) P⁻¹ (M + η ρ₁ (∇f - M)) - θ X;  ρ₁ (∇f - M);  ρ₂ ((∇f)² + diag Σ - V)."""
        eta, theta, rho1, rho2 = self.learning_rate, self.weight_decay, self._rho1, self._rho2
        g, q, D = self._gradient(y.X), self._rest(y.X), self._preconditioner(t, y)
        ahead = eta * rho1 if self.order == 1 else 0.0
        return AdamState(
            jax.tree.map(lambda D, m, g, x: -D * (m + ahead * (g - m)) - theta * x, D, y.M, g, y.X),
            jax.tree.map(lambda g, m: rho1 * (g - m), g, y.M),
            jax.tree.map(lambda q, v: rho2 * (q - v), q, y.V),
        )

    def _mean_correction(self, t, y: AdamState) -> AdamState:
        """-(√γ₂/γ₁) P⁻¹ ρ₁ (∇f - M), and (ρ₂/2) (√γ₂/γ₁) M P⁻²/√V (q - V) with the new v; 0; 0."""
        rho1, rho2, g = self._rho1, self._rho2, self._gradient(y.X)
        D = self._preconditioner(t, y)
        X = jax.tree.map(lambda D, g, m: -D * rho1 * (g - m), D, g, y.M)
        if self.v_timing == "new":
            gamma1, gamma2 = self._gammas(t)
            scale, root = rho2 / 2 * gamma1 / jnp.sqrt(gamma2), self._floored(y.V, self.b2, y.X)
            X = jax.tree.map(
                lambda X, D, m, r, q, v: X + scale * m * D**2 / jnp.sqrt(r) * (q - v),
                X, D, y.M, root, self._rest(y.X), y.V,
            )  # fmt: skip
        return AdamState(X, *(jax.tree.map(jnp.zeros_like, part) for part in y[1:]))

    def diffusion(self, t, y: AdamState, args) -> lx.FunctionLinearOperator:
        """√η [-(√γ₂/γ₁) P⁻¹ η ρ₁ R; ρ₁ R; 0], at order 2 √η [0; ρ₁ R dW; ρ₂ (2 ∇f R dW + Q dB)]."""
        eta, rho1 = self.learning_rate, self._rho1
        R, g, D = self.oracle.covariance_root(y.X), self._gradient(y.X), self._preconditioner(t, y)
        ahead = 0.0 if self.published or self.order == 2 else eta * rho1

        def apply(dW):
            Rw = R.mv(dW.W if self.order == 2 else dW)
            X = jax.tree.map(lambda D, Rw: -D * ahead * jnp.sqrt(eta) * Rw, D, Rw)
            M = jax.tree.map(lambda Rw: jnp.sqrt(eta) * rho1 * Rw, Rw)
            if self.order == 1:
                return AdamState(X, M, jax.tree.map(jnp.zeros_like, y.V))
            return AdamState(X, M, self._second_moment_noise(self._rho2, g, Rw, dW, y.X))

        return lx.FunctionLinearOperator(apply, brownian(R, self.oracle, y.X, self.order))


class BatchEquivalentAdam(BatchEquivalent):
    """The SDE of Adam in the batch-equivalent regime, in the clock t = k η².

    Of m⁺ = β₁ m + (1 - β₁) g,  v⁺ = β₂ v + (1 - β₂) g²,  θ⁺ = θ - η (m⁺/γ₁)/(√(v/γ₂) + ε) with
    g = ∇f(θ) + σ z, Cov z = Σ(θ), as η → 0 with σ₀ = σ η, ε₀ = ε η and cᵢ = (1 - βᵢ)/η² fixed. With
    u = v/σ², γᵢ(t) = 1 - e^{-cᵢ t}, P = σ₀ diag(√u) + ε₀ √γ₂:

        dθ = -(√γ₂/γ₁) P⁻¹ m dt,
        dm = c₁ (∇f(θ) - m) dt + σ₀ c₁ Σ(θ)^{1/2} dW,
        du = c₂ (diag Σ(θ) - u) dt

    (Malladi et al. 2022, Definition 4.4 and Theorem 4.5: weak order 1 in η² from any fixed t₀ > 0,
    since the bias correction is singular at 0; here t₀ = η² unless given, and
    `Paired(..., warm_up=k0)` hands over the optimizer's state at a later one). A `weight_decay` λ,
    θ⁺ less η λ θ, adds -(λ/η) θ dt (order 1 only).

    Order 2 (constant Gaussian noise) is so **up to the third cumulant** 2 c₁² c₂ τ² Σᵢₖ Σⱼₖ of (m,
    m, v), τ = η², which no diffusion has: means of θ on quadratic losses and functions of u are of
    order 2, θ² and m² of order 1. There γᵢ is exact, γ₁ = 1 - β₁^{t/τ + 1} and γ₂ = 1 - β₂^{t/τ},
    or β₂^{t/τ + 1} for the new v; b₁ = h₁ - (∂ₜ b + (b·∇) b)/2,

        h₁ = [ -(√γ₂/γ₁) P⁻¹ c₁ (∇f - m) ; 0 ; c₂ (∇f)²/σ₀² ],   and for the new v also
             (c₂/2) (√γ₂/γ₁) m P⁻² σ₀ (diag Σ - u)/√u in θ,

    and with R̄ = σ₀ Σ^{1/2}, v̄ = σ₀² u, Q̄ Q̄ᵀ = σ₀⁴ Cov(z²) the noise

        dθ: -(τ/2) (√γ₂/γ₁) P⁻¹ c₁ R̄ dW,    dm: c₁ (1 + τ c₁/2) R̄ dW,
        dv̄: 2 c₂ τ ∇f R̄ dW + c₂ √τ Q̄ dB.

    Args:
        oracle: f and the noise σ z.
        learning_rate: η.
        b1: β₁, in [0, 1).
        b2: β₂, in [0, 1).
        eps: ε >= 0, outside the root.
        noise_scale: σ, which only sets the units of u: u = v unless given. 1/√B for batches of B.
        weight_decay: λ >= 0, decoupled.
        v_timing: the v that the update divides by, "new" or "old"; it matters at order 2.
        order: 1 or 2.
        t0: t₀ > 0.

    Raises:
        InputError: a parameter out of range, or order 2 with other noise.
    """

    b1: Float[Array, ""]
    b2: Float[Array, ""]
    v_timing: str = eqx.field(static=True)

    def __init__(
        self, oracle, learning_rate, b1=0.999, b2=0.999, eps=1e-8, noise_scale=1.0, *,
        weight_decay=0.0, v_timing="new", order=1, t0=None,
    ):  # fmt: skip
        _checks.fraction("b1", b1)
        _checks.fraction("b2", b2)
        _states.check_form(oracle, order, v_timing)
        super().__init__(
            oracle, learning_rate, eps, weight_decay, noise_scale, None, t0,
            order=order, singular=True,
        )  # fmt: skip
        self.b1, self.b2 = jnp.asarray(b1, float), jnp.asarray(b2, float)
        self.v_timing = v_timing

    @property
    def c_1(self) -> Scalar:
        """c₁ = (1 - β₁)/η²."""
        return (1 - self.b1) / self.learning_rate**2

    @property
    def c_2(self) -> Scalar:
        """c₂ = (1 - β₂)/η²."""
        return (1 - self.b2) / self.learning_rate**2

    def initial(self, x0) -> BatchEquivalentAdamState:
        """theta = x₀, and m and u at the share of their rest that t₀ has gathered."""
        gamma1, gamma2 = (-jnp.expm1(-c * self.t0) for c in (self.c_1, self.c_2))
        return BatchEquivalentAdamState(
            x0,
            jax.tree.map(lambda g: gamma1 * g, self.oracle.gradient(x0)),
            jax.tree.map(lambda s: gamma2 * s, self._variance(x0)),
        )

    def resumed(self, x, inner) -> BatchEquivalentAdamState:
        """theta = x, m = m, u = v/σ²."""
        return BatchEquivalentAdamState(x, moment(inner, "mu"), self._u_of(moment(inner, "nu")))

    def _gammas(self, t) -> tuple[Array, Array]:
        if self.order == 1:
            return -jnp.expm1(-self.c_1 * t), -jnp.expm1(-self.c_2 * t)
        k = t / self.learning_rate**2
        return gathered(self.b1, k + 1), gathered(self.b2, k + (self.v_timing == "new"))

    def _preconditioner(self, t, y: BatchEquivalentAdamState) -> PyTree:
        """(√γ₂/γ₁) P⁻¹."""
        (gamma1, gamma2), u = self._gammas(t), self._floored(y.u, self.b2, y.theta)
        sigma_0, eps_0, root2 = self.sigma_0, self.eps_0, jnp.sqrt(gamma2)
        return jax.tree.map(
            lambda u: root2 / gamma1 / (sigma_0 * clipped_sqrt(u) + eps_0 * root2), u
        )

    def leading_drift(self, t, y) -> BatchEquivalentAdamState:
        """-(√γ₂/γ₁) P⁻¹ m - (λ/η) θ;  c₁ (∇f - m);  c₂ (diag Σ - u)."""
        g, D, S = self.oracle.gradient(y.theta), self._preconditioner(t, y), self._variance(y.theta)
        decay = self.decay_rate
        return BatchEquivalentAdamState(
            jax.tree.map(lambda D, m, x: -D * m - decay * x, D, y.m, y.theta),
            jax.tree.map(lambda g, m: self.c_1 * (g - m), g, y.m),
            jax.tree.map(lambda s, u: self.c_2 * (s - u), S, y.u),
        )

    def _mean_correction(self, t, y) -> BatchEquivalentAdamState:
        """-(√γ₂/γ₁) P⁻¹ c₁ (∇f - m), with the new v more;  0;  c₂ (∇f)²/σ₀²."""
        c_1, c_2, sigma_0 = self.c_1, self.c_2, self.sigma_0
        g, D = self.oracle.gradient(y.theta), self._preconditioner(t, y)
        theta = jax.tree.map(lambda D, g, m: -D * c_1 * (g - m), D, g, y.m)
        if self.v_timing == "new":
            gamma1, gamma2 = self._gammas(t)
            scale = c_2 / 2 * gamma1 / jnp.sqrt(gamma2) * sigma_0
            u, S = self._floored(y.u, self.b2, y.theta), self._variance(y.theta)
            theta = jax.tree.map(
                lambda X, D, m, u, s, y: X + scale * m * D**2 * (s - y) / jnp.sqrt(u),
                theta, D, y.m, u, S, y.u,
            )  # fmt: skip
        return BatchEquivalentAdamState(
            theta,
            jax.tree.map(jnp.zeros_like, y.m),
            jax.tree.map(lambda g: c_2 * g**2 / sigma_0**2, g),
        )

    def diffusion(self, t, y, args) -> lx.FunctionLinearOperator:
        """[0; σ₀ c₁ Σ^{1/2}; 0], and at order 2 as above."""
        eta, tau, c_1, x = self.learning_rate, self.learning_rate**2, self.c_1, y.theta
        R, g, D = (
            self.oracle.covariance_root(x),
            self.oracle.gradient(x),
            self._preconditioner(t, y),
        )

        def first(dW):
            m = jax.tree.map(lambda Rw: c_1 * (eta * Rw), R.mv(dW))
            return BatchEquivalentAdamState(
                jax.tree.map(jnp.zeros_like, x), m, jax.tree.map(jnp.zeros_like, y.u)
            )

        def second(dW):
            Rw = R.mv(dW.W)
            return BatchEquivalentAdamState(
                jax.tree.map(lambda D, Rw: -tau / 2 * D * c_1 * (eta * Rw), D, Rw),
                jax.tree.map(lambda Rw: c_1 * (1 + tau * c_1 / 2) * (eta * Rw), Rw),
                self._second_moment_noise(self.c_2, g, Rw, dW, x),
            )

        apply = first if self.order == 1 else second
        return lx.FunctionLinearOperator(apply, brownian(R, self.oracle, x, self.order))
