"""The SDEs of descent ascent, extragradient and Hamiltonian descent on games."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks
from jaxsde.oracles import Oracle
from jaxsde.oracles._oracle import columns_root
from jaxsde.problems import Game
from jaxsde.sdes._one_step import deviations, each, mean, step_law
from jaxsde.sdes._sde import Schedule, ScheduledSDE, State, check_one_oracle, check_variance


class Motions(NamedTuple):
    """The Brownian motions of two independent draws, in the optimizer's order."""

    first: PyTree
    second: PyTree


class _OnGame(ScheduledSDE):
    """What the three have in common: an oracle of a game."""

    oracle: Oracle
    samples: int | None = eqx.field(static=True)

    def __init__(self, oracle, learning_rate, schedule, samples):
        super().__init__(learning_rate, schedule)
        check_one_oracle(oracle)
        if not isinstance(oracle.problem, Game):
            raise _checks.InputError(
                f"{type(oracle.problem).__name__} is no game of two players: this SDE needs an "
                "oracle of a jaxsde.problems.Game, such as QuadraticGame"
            )
        check_variance(oracle)
        self.oracle = oracle
        self.samples = None if samples is None else _checks.at_least("samples", samples, 2)

    @property
    def game(self) -> Game:
        """The game."""
        return self.oracle.problem  # pyright: ignore[reportReturnType]

    def _has_closed_form(self) -> bool:
        return self.oracle.additive and self.samples is None

    def _in_order(self, W: tuple, motions: int) -> PyTree | None:
        if len(W) != motions or not self._has_closed_form():
            return None
        return W[0] if motions == 1 else Motions(*W)

    def _field(self, draw: PyTree) -> Callable:
        """F_c of a draw."""
        return lambda z: self.oracle.sample_gradient(z, draw)


class SGDA(_OnGame):
    """The SDE of z⁺ = z - η ψ(k) F_c(z), stochastic descent ascent, in the clock t = k η.

        dZ = -ψ F(Z) dt - ψ √η Σ(Z)^{1/2} dW,    ψ = ψ(t/η).

    (arXiv 2402.12508.) It misses that the optimizer diverges exponentially on a bilinear game: that
    comes from the drift of order η, -(η/2) J F, which is that of `SEG` with ρ = -η/2.

    Args:
        oracle: a game and the noise of its field.
        learning_rate: η.
        schedule: ψ, a function of the step k; 1 unless given.

    Raises:
        InputError: η not positive, no game, a schedule that is no function or not positive, noise
            of infinite variance.
    """

    def __init__(self, oracle, learning_rate, schedule=None):
        super().__init__(oracle, learning_rate, schedule, None)

    def drift(self, t, y: State, args) -> State:
        """-ψ F."""
        psi = self._psi(t)
        return State(jax.tree.map(lambda F: -psi * F, self.oracle.gradient(y.X)))

    def diffusion(self, t, y: State, args) -> lx.AbstractLinearOperator:
        """-ψ √η Σ^{1/2}, diagonal where Σ is."""
        return self._scaled(t, self.oracle.covariance_root(y.X))


class SEG(_OnGame):
    """The SDE of z⁺ = z - η ψ(k) F_{c1}(z - ρ ψ_ρ(k) F_{c2}(z)), extragradient, clock t = k η.

    With ρ standing for ρ ψ_ρ(t/η) and ψ = ψ(t/η),

        dZ = -ψ (F - ρ E[J_{c1} F_{c2}]) dt - ψ √η S^{1/2} dW,    S = Cov(F_{c1} - ρ J_{c1} F_{c2}).

    Independent draws have E[J_{c1} F_{c2}] = J F. With additive noise, J_c = J, one draw for both
    and two draws have

        dZ = -ψ (F - ρ J F) dt - ψ √η (I - ρ J) Σ^{1/2} dW,
        dZ = -ψ (F - ρ J F) dt - ψ √η (Σ^{1/2} dW₂ - ρ J Σ^{1/2} dW₁),

    W₁ of the draw c2, which an optimizer takes first, and W₂ of c1.

    Its weak error is O(η) for ρ = O(√η) (arXiv 2402.12508, with S to first order in ρ). On a
    bilinear game it converges for every ρ > 0, the optimizer for 2ρ > η (1 + ρ² λ²) only. The lower
    one of these bounds, ρ > η/2 to leading order, is captured with ρ - η/2 in the place of ρ.

    Args:
        oracle: a game and the noise of its field; additive, or of draws that can be enumerated, or
            sampled.
        learning_rate: η.
        rho: ρ of any sign.
        independent: whether c1 and c2 are independent draws instead of one.
        schedule: ψ, a function of the step k; 1 unless given.
        rho_schedule: ψ_ρ, likewise.
        samples: how many draws stand for all in E and Cov, the same at all times; closed forms or
            all draws unless given.

    Raises:
        InputError: η not positive, ρ not finite, no game, a schedule that is no function or not
            positive, noise of infinite variance, samples below 2, or (at a run) draws that cannot
            be enumerated and no `samples`.
    """

    rho: Float[Array, ""]
    independent: bool = eqx.field(static=True)
    rho_schedule: Schedule | None

    def __init__(
        self, oracle, learning_rate, rho, *, independent=False, schedule=None, rho_schedule=None,
        samples=None,
    ):  # fmt: skip
        super().__init__(oracle, learning_rate, schedule, samples)
        _checks.finite_number("rho", rho)
        _checks.schedule("rho_schedule", rho_schedule)
        self.rho = jnp.asarray(rho, float)
        self.independent = independent
        self.rho_schedule = rho_schedule

    def shared(self, W: tuple) -> PyTree | None:
        """Of one draw, or of two in their order."""
        return self._in_order(W, 2 if self.independent else 1)

    def _extra_step(self, t: Any) -> Any:
        """ρ ψ_ρ(t/η)."""
        if self.rho_schedule is None:
            return self.rho
        return self.rho * self.rho_schedule(t / self.learning_rate)

    def drift(self, t, y: State, args) -> State:
        """-ψ (F - ρ E[J_{c1} F_{c2}])."""
        psi, rho, F = self._psi(t), self._extra_step(t), self.oracle.gradient(y.X)
        if self.independent or self._has_closed_form():
            JF = self.game.hessian_vector_product(y.X, F)
        else:
            law = step_law(self.oracle, y.X, samples=self.samples)
            JF = mean(each(lambda c: self._draw(y.X, c, c)[1], law), law)
        return State(jax.tree.map(lambda F, JF: -psi * (F - rho * JF), F, JF))

    def diffusion(self, t, y: State, args) -> lx.AbstractLinearOperator:
        """-ψ √η S^{1/2}."""
        rho = self._extra_step(t)
        if not self._has_closed_form():
            law = step_law(self.oracle, y.X, 2 if self.independent else 1, self.samples)
            F, JF = each(lambda *c: self._draw(y.X, c[-1], c[0]), law)
            v = jax.tree.map(lambda F, JF: F - rho * JF, F, JF)
            return self._scaled(t, columns_root(deviations(v, law)))
        root = self.oracle.covariance_root(y.X)

        def moved(outer, inner):
            J = self.game.hessian_vector_product(y.X, inner)
            return jax.tree.map(lambda w, Jw: w - rho * Jw, outer, J)

        if self.independent:
            factor = lx.FunctionLinearOperator(
                lambda w: moved(root.mv(w.second), root.mv(w.first)),
                Motions(root.in_structure(), root.in_structure()),
            )
        else:
            factor = lx.FunctionLinearOperator(
                lambda w: moved(root.mv(w), root.mv(w)), root.in_structure()
            )
        return self._scaled(t, factor)

    def _draw(self, z: PyTree, c1: PyTree, c2: PyTree) -> tuple[PyTree, PyTree]:
        """F_{c1} and J_{c1} F_{c2}."""
        return jax.jvp(self._field(c1), (z,), (self._field(c2)(z),))


class SHGD(_OnGame):
    """The SDE of z⁺ = z - η ψ(k) (J_{c1}ᵀ F_{c2} + J_{c2}ᵀ F_{c1})/2, in the clock t = k η.

    Stochastic Hamiltonian descent: the step's mean is JᵀF = ∇|F|²/2. With ψ = ψ(t/η),

        dZ = -ψ JᵀF dt - ψ √η S^{1/2} dW,    S = Cov((J_{c1}ᵀ F_{c2} + J_{c2}ᵀ F_{c1})/2).

    (arXiv 2402.12508.) With additive noise S^{1/2} dW = Jᵀ Σ^{1/2} (dW₁ + dW₂)/2, S = JᵀΣJ/2. With
    one draw, J_cᵀ F_c, the drift is -ψ E[J_cᵀ F_c], which is -ψ JᵀF for additive noise only; S is
    JᵀΣJ then, as in the paper's experiments.

    Args:
        oracle: as in `SEG`.
        learning_rate: η.
        batches: how many draws, 1 or 2.
        schedule: ψ, a function of the step k; 1 unless given.
        samples: as in `SEG`.

    Raises:
        InputError: as in `SEG`, or another number of draws.
    """

    batches: int = eqx.field(static=True)

    def __init__(self, oracle, learning_rate, batches=2, *, schedule=None, samples=None):
        super().__init__(oracle, learning_rate, schedule, samples)
        if batches not in (1, 2):
            raise _checks.InputError(f"batches must be 1 or 2, got {batches!r}")
        self.batches = batches

    def shared(self, W: tuple) -> PyTree | None:
        """Of one draw, or of two in their order."""
        return self._in_order(W, self.batches)

    def drift(self, t, y: State, args) -> State:
        """-ψ JᵀF, with one draw of noise that is not additive -ψ E[J_cᵀ F_c]."""
        psi, z = self._psi(t), y.X
        if self.batches == 2 or self._has_closed_form():
            JF = self.game.transpose_product(z, self.oracle.gradient(z))
        else:
            law = step_law(self.oracle, z, samples=self.samples)
            JF = mean(each(lambda c: self._draw(z, c, c), law), law)
        return State(jax.tree.map(lambda JF: -psi * JF, JF))

    def diffusion(self, t, y: State, args) -> lx.AbstractLinearOperator:
        """-ψ √η S^{1/2}."""
        z = y.X
        if not self._has_closed_form():
            law = step_law(self.oracle, z, self.batches, self.samples)
            v = each(lambda *c: self._draw(z, c[0], c[-1]), law)
            return self._scaled(t, columns_root(deviations(v, law)))
        root = self.oracle.covariance_root(z)
        if self.batches == 1:
            factor = lx.FunctionLinearOperator(
                lambda w: self.game.transpose_product(z, root.mv(w)), root.in_structure()
            )
            return self._scaled(t, factor)

        def half_sum(w):
            both = jax.tree.map(lambda a, b: (a + b) / 2, root.mv(w.first), root.mv(w.second))
            return self.game.transpose_product(z, both)

        structure = Motions(root.in_structure(), root.in_structure())
        return self._scaled(t, lx.FunctionLinearOperator(half_sum, structure))

    def _draw(self, z: PyTree, c1: PyTree, c2: PyTree) -> PyTree:
        """(J_{c1}ᵀ F_{c2} + J_{c2}ᵀ F_{c1})/2."""
        F1, transpose1 = jax.vjp(self._field(c1), z)
        F2, transpose2 = jax.vjp(self._field(c2), z)
        return jax.tree.map(lambda a, b: (a + b) / 2, transpose1(F2)[0], transpose2(F1)[0])
