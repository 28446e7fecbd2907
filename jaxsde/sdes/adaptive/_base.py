"""What RMSprop and Adam share in each regime."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Scalar

from jaxsde import _checks
from jaxsde.oracles import GaussianNoise, Oracle
from jaxsde.sdes._sde import SDE
from jaxsde.sdes.adaptive import _states
from jaxsde.sdes.adaptive._states import Noises, gathered
from jaxsde.sdes.modified_equation import modified_drift


class Ballistic(SDE):
    """What RMSprop and Adam share: the gradient with its L2 part, and the second moment."""

    oracle: Oracle
    learning_rate: Float[Array, ""]
    eps: Float[Array, ""]
    weight_decay: Float[Array, ""]
    l2_regularization: Float[Array, ""]
    initial_second_moment: Float[Array, "..."] | None
    t0: Float[Array, ""]
    bias_correction: bool = eqx.field(static=True)
    v_timing: str = eqx.field(static=True)
    order: int = eqx.field(static=True)

    def __init__(
        self, oracle, learning_rate, eps, weight_decay, l2_regularization, initial_second_moment,
        t0, *, bias_correction, v_timing, order, singular,
    ):  # fmt: skip
        _checks.positive_number("learning_rate", learning_rate)
        for name, value in (
            ("eps", eps),
            ("weight_decay", weight_decay),
            ("l2_regularization", l2_regularization),
        ):
            _checks.nonnegative(name, value)
        if bias_correction and initial_second_moment is not None:
            raise _checks.InputError(
                "bias correction assumes that v starts at 0: leave initial_second_moment out, or "
                "switch bias_correction off"
            )
        _states.check_form(oracle, order, v_timing)
        self.oracle = oracle
        self.learning_rate = jnp.asarray(learning_rate, float)
        self.eps = jnp.asarray(eps, float)
        self.weight_decay = jnp.asarray(weight_decay, float)
        self.l2_regularization = jnp.asarray(l2_regularization, float)
        self.initial_second_moment = _states.second_moment(initial_second_moment, eps)
        self.t0 = _states.start(t0, singular, self.learning_rate)
        self.bias_correction = bias_correction
        self.v_timing = v_timing
        self.order = order

    def position(self, y: Any) -> Any:
        """X."""
        return y.X

    def drift(self, t, y, args) -> Any:
        """b₀, and at order 2 b₀ + η b₁."""
        if self.order == 1:
            return self.leading_drift(t, y)
        h1 = self._mean_correction(t, y)
        return modified_drift(self.leading_drift, h1, t, y, self.learning_rate)

    @abc.abstractmethod
    def leading_drift(self, t: Any, y: Any) -> Any:
        """b₀."""

    @abc.abstractmethod
    def _mean_correction(self, t: Any, y: Any) -> Any:
        """h₁, the part of order η of the mean step."""

    def _gradient(self, x: PyTree) -> PyTree:
        """∇f(x) + λ x."""
        lam = self.l2_regularization
        return jax.tree.map(lambda g, x: g + lam * x, self.oracle.gradient(x), x)

    def _rest(self, x: PyTree) -> PyTree:
        """(∇f(x) + λ x)² + diag Σ(x), where V is at rest."""
        return jax.tree.map(lambda g, s: g**2 + s, self._gradient(x), self.oracle.variance(x))

    def _first_v(self, b: Array, x0: PyTree) -> PyTree:
        """v at t₀: as given, or (1 - β^{t₀/η} if bias-corrected) times where V is at rest."""
        if self.initial_second_moment is not None:
            return _states.like(self.initial_second_moment, x0)
        weight = gathered(b, self.t0 / self.learning_rate) if self.bias_correction else 1.0
        return jax.tree.map(lambda q: weight * q, self._rest(x0))

    def _V_of(self, v: PyTree, b: Array, x: PyTree) -> PyTree:
        """V for the optimizer's v: what the next update divides by, in mean, at order 1."""
        if self.order == 2 or self.v_timing == "old":
            return v
        return jax.tree.map(lambda v, q: b * v + (1 - b) * q, v, self._rest(x))

    def _gamma2(self, t: Any, b: Array) -> Array | float:
        """1 - β^k at the index k of the v that the update at t divides by; 1 if uncorrected."""
        if not self.bias_correction:
            return 1.0
        return gathered(b, t / self.learning_rate + (1.0 if self.v_timing == "new" else 0.0))

    def _floored(self, V: PyTree, b: Array, x: PyTree) -> PyTree:
        """V, at order 2 not below (1 - β) diag Σ(x): its noise could take it below 0 there."""
        if self.order == 1:
            return V
        variance = self.oracle.variance(x)
        return jax.tree.map(lambda v, s: jnp.maximum(v, (1 - b) * s), V, variance)

    @abc.abstractmethod
    def at_floor(self, y: Any) -> Scalar:
        """The share of coordinates where V is below what an order-2 SDE takes it for."""

    def _second_moment_noise(self, rho: Array, g: PyTree, Rw: PyTree, dW: Noises, x: PyTree):
        """√η ρ (2 ∇f R dW + Q dB)."""
        scale, QB = jnp.sqrt(self.learning_rate) * rho, self.oracle.squares_root(x).mv(dW.B)
        return jax.tree.map(lambda g, Rw, QB: scale * (2 * g * Rw + QB), g, Rw, QB)


class BatchEquivalent(SDE):
    """What RMSprop and Adam share in this regime."""

    oracle: Oracle
    learning_rate: Float[Array, ""]
    eps: Float[Array, ""]
    weight_decay: Float[Array, ""]
    noise_scale: Float[Array, ""]
    initial_second_moment: Float[Array, "..."] | None
    t0: Float[Array, ""]
    order: int = eqx.field(static=True)

    def __init__(
        self, oracle, learning_rate, eps, weight_decay, noise_scale, initial_second_moment, t0, *,
        order, singular,
    ):  # fmt: skip
        _checks.positive_number("learning_rate", learning_rate)
        _checks.positive_number("noise_scale", noise_scale)
        for name, value in (("eps", eps), ("weight_decay", weight_decay)):
            _checks.nonnegative(name, value)
        decays = _checks.concrete(weight_decay)
        if order == 2 and (decays is None or decays > 0):
            raise _checks.InputError("order 2 in this regime is without weight_decay")
        if order == 2 and type(oracle) is not GaussianNoise:  # a subclass may vary with x
            raise _checks.InputError(
                f"order 2 in this regime is for GaussianNoise, got {type(oracle).__name__}: use "
                "modified_equation for noise that depends on the state"
            )
        self.oracle = oracle
        self.learning_rate = jnp.asarray(learning_rate, float)
        self.eps = jnp.asarray(eps, float)
        self.weight_decay = jnp.asarray(weight_decay, float)
        self.noise_scale = jnp.asarray(noise_scale, float)
        self.initial_second_moment = _states.second_moment(initial_second_moment, eps)
        self.t0 = _states.start(t0, singular, self.learning_rate**2)
        self.order = order

    def position(self, y: Any) -> Any:
        """theta."""
        return y.theta

    @property
    def sigma_0(self) -> Scalar:
        """σ₀ = σ η."""
        return self.noise_scale * self.learning_rate

    @property
    def eps_0(self) -> Scalar:
        """ε₀ = ε η."""
        return self.eps * self.learning_rate

    def drift(self, t, y, args) -> Any:
        """b, and at order 2 b + τ b₁ with τ = η²."""
        if self.order == 1:
            return self.leading_drift(t, y)
        h1, tau = self._mean_correction(t, y), self.learning_rate**2
        return modified_drift(self.leading_drift, h1, t, y, tau, self._curvature(t, y))

    @abc.abstractmethod
    def leading_drift(self, t: Any, y: Any) -> Any:
        """b."""

    @abc.abstractmethod
    def _mean_correction(self, t: Any, y: Any) -> Any:
        """h₁, the part of order τ of the mean step over τ."""

    @property
    def decay_rate(self) -> Scalar:
        """λ/η, the decoupled decay's share of x in a unit of this time."""
        return self.weight_decay / self.learning_rate

    def _curvature(self, t: Any, y: Any) -> Any:
        """(S:∇²) b/2; None where it is 0."""
        return None

    def _variance(self, x: PyTree) -> PyTree:
        """diag Σ in units of σ², where u is at rest."""
        return jax.tree.map(lambda s: s / self.noise_scale**2, self.oracle.variance(x))

    def _u_of(self, v: PyTree) -> PyTree:
        return jax.tree.map(lambda v: v / self.noise_scale**2, v)

    def _floored(self, u: PyTree, b: Array, x: PyTree) -> PyTree:
        """u, at order 2 not below (1 - β) diag Σ/σ²: its noise could take it below 0 there."""
        if self.order == 1:
            return u
        return jax.tree.map(lambda u, s: jnp.maximum(u, (1 - b) * s), u, self._variance(x))

    def _second_moment_noise(self, c: Array, g: PyTree, Rw: PyTree, dW: Noises, x: PyTree):
        """c (2 η² ∇f R̄ dW + η Q̄ dB)/σ₀² with R̄ = η R and Q̄ = η² Q."""
        eta, sigma_0 = self.learning_rate, self.sigma_0
        QB = self.oracle.squares_root(x).mv(dW.B)
        return jax.tree.map(
            lambda g, Rw, QB: c * (2 * eta**2 * g * (eta * Rw) + eta * (eta**2 * QB)) / sigma_0**2,
            g, Rw, QB,
        )  # fmt: skip


def brownian(R: Any, oracle: Oracle, x: PyTree, order: int) -> Any:
    """The structure of the Brownian motions, W alone or W and B."""
    if order == 1:
        return R.in_structure()
    return Noises(R.in_structure(), oracle.squares_root(x).in_structure())
