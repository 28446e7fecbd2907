"""The SDEs of distributed SGD: plain, compressed, and with signs."""

import abc
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks
from jaxsde.oracles import Agents, Identity, Oracle, Sign
from jaxsde.problems import Quadratic
from jaxsde.sdes._sde import ScheduledSDE, State, check_law, check_variance, clipped_sqrt
from jaxsde.sdes.sign import linearized_mean_sign

CURVATURES = (None, -0.5, 0.5)
COUNTED = 32  # agents whose votes are counted one by one


class _Distributed(ScheduledSDE):
    """What the SDEs of agents' means have in common: N agents."""

    agents: Agents

    def __init__(self, agents, learning_rate, schedule):
        super().__init__(learning_rate, schedule)
        if not isinstance(agents, Agents):
            raise _checks.InputError(
                f"this SDE is of many agents: give jaxsde.oracles.Agents, not "
                f"{type(agents).__name__}"
            )
        self.agents = agents

    @property
    def oracle(self) -> Agents:
        """The agents."""
        return self.agents


class DCSGD(_Distributed):
    """The SDE of x⁺ = x - η ψ(k) (1/N) Σ Cᵢ(gᵢ), unbiased compressors Cᵢ, in the clock t = k η.

    With gᵢ = ∇fᵢ(x) + Zᵢ and Σ̃ = (1/N) Σ Cov Cᵢ(gᵢ), which depends on ∇fᵢ(X) and does not vanish
    with the noise (each compressor's is in its docstring):

        dX = -ψ ∇f(X) dt - ψ √(η/N) Σ̃(X)^{1/2} dW,    ψ = ψ(t/η).

    (arXiv 2502.17009; for agents of one f, Σ̃ = (1/N) Σ E Φᵢ Φᵢᵀ with Φᵢ = Cᵢ(gᵢ) - ∇f.) It holds
    rand-k's exact off-diagonal part, and is diagonal wherever that is 0 and the noise independent.

    A curvature κ adds κ η ψ² ∇²f ∇f to the drift: -1/2 the modified equation of gradient descent,
    which without noise and schedule makes the weak error O(η²); +1/2 the proposal of arXiv
    2506.00181, whose stability is the algorithm's (it explodes for η λ > 2) but which is only of
    order 1, with twice the error of no curvature at all.

    Args:
        agents: f, the noise and the compressors.
        learning_rate: η.
        schedule: ψ, a function of the step k; 1 unless given.
        curvature: κ: None, -1/2 or +1/2.

    Raises:
        InputError: η not positive, another κ, a biased compressor, noise of infinite variance.

    Warns:
        UserWarning: on a quadratic, without a schedule, η ω λ >= 2 N for its largest eigenvalue λ
            (η λ (ω/N + 2κ) >= 2 with a curvature): the second moments of X grow for ever if H is
            diagonal and the compressor sparsifies, and may do so otherwise. The algorithm's own
            bound is lower, `theory.distributed.largest_learning_rate(law=discrete)`.
    """

    curvature: float | None = eqx.field(static=True)

    def __init__(self, agents, learning_rate, schedule=None, curvature=None):
        super().__init__(agents, learning_rate, schedule)
        if curvature not in CURVATURES:
            raise _checks.InputError(f"curvature must be None, -1/2 or 1/2, got {curvature!r}")
        self.curvature = curvature
        check_variance(agents.members.tree)
        agents.check_unbiased()
        if schedule is None:
            _warn_if_unstable(agents, learning_rate, curvature)

    def drift(self, t, y: State, args) -> State:
        """-ψ ∇f, and with a curvature -ψ ∇f + κ η ψ² ∇²f ∇f."""
        eta, psi, kappa, problem = (
            self.learning_rate, self._psi(t), self.curvature, self.agents.problem
        )  # fmt: skip
        gradient = problem.gradient(y.X)
        if kappa is None:
            return State(jax.tree.map(lambda g: -psi * g, gradient))
        Hg = problem.hessian_vector_product(y.X, gradient)
        return State(jax.tree.map(lambda g, h: -psi * g + kappa * eta * psi**2 * h, gradient, Hg))

    def diffusion(self, t, y: State, args) -> lx.AbstractLinearOperator:
        """-ψ √η (Σ̃/N)^{1/2}, diagonal where Σ̃ is."""
        return self._scaled(t, self.agents.covariance_root(y.X))


class DSGD(DCSGD):
    """The SDE of x⁺ = x - η ψ(k) (1/N) Σ gᵢ, in the clock t = k η: `DCSGD` without compression.

        dX = -ψ ∇f(X) dt - ψ √(η/N) Σ̂(X)^{1/2} dW,    Σ̂ = (1/N) Σ Cov Zᵢ

    (arXiv 2502.17009). With constant Σ̂ and no schedule the curvature -1/2 makes it of order 2.

    Args:
        agents: f and the noise; their compressors are not used.
        learning_rate: η.
        schedule: ψ, a function of the step k; 1 unless given.
        curvature: κ: None, -1/2 or +1/2.

    Raises:
        InputError: η not positive, another κ, or noise of infinite variance.
    """

    def __init__(self, agents, learning_rate, schedule=None, curvature=None):
        plain = agents.with_compressor(Identity()) if isinstance(agents, Agents) else agents
        super().__init__(plain, learning_rate, schedule, curvature)


class _MeanSign(_Distributed):
    """dX = -ψ (1/N) Σ mᵢ dt - ψ √(η/N) √(1 - (1/N) Σ mᵢ²) dW for given mean signs mᵢ."""

    def __init__(self, agents, learning_rate, schedule=None):
        super().__init__(agents, learning_rate, schedule)
        check_law(agents.members.first, lambda oracle: self.mean_sign(oracle, jnp.zeros(())))

    @abc.abstractmethod
    def mean_sign(self, oracle: Oracle, gradient: PyTree) -> PyTree:
        """mᵢ of an agent with this oracle, where its ∇fᵢ is this gradient."""

    def mean_signs(self, x: PyTree) -> PyTree:
        """mᵢ of all agents, stacked `(N, ...)`."""
        return self.agents.each(lambda oracle, _: self.mean_sign(oracle.at(x), oracle.gradient(x)))

    def zeros(self, x: PyTree) -> PyTree:
        """(1/N) Σ P(gᵢ = 0)."""
        each = self.agents.each(lambda oracle, _: oracle.at(x).probability_zero(oracle.gradient(x)))
        return jax.tree.map(lambda z: jnp.mean(z, axis=0), each)

    def drift(self, t, y: State, args) -> State:
        """-ψ (1/N) Σ mᵢ."""
        psi, m = self._psi(t), self.mean_signs(y.X)
        return State(jax.tree.map(lambda m: -psi * jnp.mean(m, axis=0), m))

    def diffusion(self, t, y: State, args) -> lx.AbstractLinearOperator:
        """-ψ √(η/N) √(1 - (1/N) Σ mᵢ² - (1/N) Σ P(gᵢ = 0))."""
        m, N = self.mean_signs(y.X), self.agents.count
        root = jax.tree.map(
            lambda m, z: clipped_sqrt(1 - jnp.mean(m**2, axis=0) - z) / np.sqrt(N),
            m, self.zeros(y.X),
        )  # fmt: skip
        return self._scaled(t, lx.DiagonalLinearOperator(root))


class DSignSGD(_MeanSign):
    """The SDE of x⁺ = x - η ψ(k) (1/N) Σ sign(gᵢ), from the noise's law, in the clock t = k η.

    With mᵢ = 1 - 2 P(∇fᵢ(X) + Zᵢ < 0), coordinate by coordinate, and independent coordinates of Zᵢ:

        dX = -ψ (1/N) Σ mᵢ dt - ψ √(η/N) √(1 - (1/N) Σ mᵢ²) dW,    ψ = ψ(t/η)

    (arXiv 2502.17009). mᵢ = erf(∇fᵢ/(σᵢ√2)) for Gaussian noise, 2 Ξ_ν(∇fᵢ/σᵢ) for Student-t noise
    with Ξ_ν its distribution function less 1/2, at any ν > 0: no moments of Z are needed.

    Args:
        agents: f and the noise; it needs a `cdf`. Their compressors are not used.
        learning_rate: η.
        schedule: ψ, a function of the step k; 1 unless given.

    Raises:
        InputError: η not positive, correlated noise, or oracles without a `cdf`.
    """

    def mean_sign(self, oracle: Oracle, gradient: PyTree) -> PyTree:
        """1 - 2 P(∇fᵢ + Zᵢ < 0)."""
        return Sign().mean(oracle, gradient)


class LinearizedDSignSGD(_MeanSign):
    """DSignSGD's SDE where the noise dominates, in the clock t = k η.

    With mᵢ = lᵢ ∇fᵢ(X)/σᵢ, lᵢ/σᵢ = 2 pᵢ(0) for the density pᵢ of Zᵢ, elementwise,

        dX = -ψ (1/N) Σ mᵢ dt - ψ √(η/N) √(1 - (1/N) Σ mᵢ²) dW,    ψ = ψ(t/η),

    the radicand clipped at 0. For agents of one f and one ν the means are l_ν ∇f/σ_{H,1} and
    (l_ν ∇f/σ_{H,2})² with the harmonic means 1/σ_{H,p}^p = (1/N) Σ 1/σᵢ^p (arXiv 2502.17009): the
    quietest agent weighs most.

    Args:
        agents: f and the noise; it needs a `density_at_zero`. Their compressors are not used.
        learning_rate: η.
        schedule: ψ, a function of the step k; 1 unless given.

    Raises:
        InputError: η not positive, correlated noise, or oracles without a `density_at_zero`.
    """

    def mean_sign(self, oracle: Oracle, gradient: PyTree) -> PyTree:
        """lᵢ ∇fᵢ/σᵢ."""
        return linearized_mean_sign(oracle, gradient)


class MajorityVote(DSignSGD):
    """The SDE of x⁺ = x - η ψ(k) sign(Σ sign(gᵢ)), a vote of N agents, in the clock t = k η.

    With M = P(Σ sign(gᵢ) > 0) - P(Σ sign(gᵢ) < 0) and Q = P(Σ sign(gᵢ) ≠ 0), 1 for odd N,

        dX = -ψ M dt - ψ √η √(Q - M²) dW,    ψ = ψ(t/η):

    the noise of a vote does not fall with N. The signs are independent with means mᵢ, those of
    `DSignSGD`; their sum's law costs some N² operations a coordinate.

    Args:
        agents: f and the noise; it needs a `cdf`. Their compressors are not used.
        learning_rate: η.
        schedule: ψ, a function of the step k; 1 unless given.

    Raises:
        InputError: η not positive, correlated noise, or oracles without a `cdf`.
    """

    def drift(self, t, y: State, args) -> State:
        """-ψ M."""
        psi, m = self._psi(t), self.mean_signs(y.X)
        return State(jax.tree.map(lambda m: -psi * _vote(m)[0], m))

    def diffusion(self, t, y: State, args) -> lx.AbstractLinearOperator:
        """-ψ √η √(Q - M²), 0 where all gᵢ are sure to be 0."""

        def root(m, z):
            M, Q = _vote(m)
            return jnp.where(z < 1, clipped_sqrt(Q - M**2), 0)

        m = self.mean_signs(y.X)
        return self._scaled(t, lx.DiagonalLinearOperator(jax.tree.map(root, m, self.zeros(y.X))))


def _vote(m: Float[Array, "N ..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """M and Q of independent signs with means m."""
    return _counted_vote(m) if len(m) <= COUNTED else _fourier_vote(m)


def _counted_vote(m: Float[Array, "N ..."]) -> tuple[Array, Array]:
    """By P(j of the signs are positive), sign by sign; compiles in a time that grows as N³."""
    N, zero = len(m), jnp.zeros_like(m[0])
    P = [jnp.ones_like(m[0])]
    for m_i in m:
        p = (1 + m_i) / 2
        P = [same + p * (less - same) for same, less in zip([*P, zero], [zero, *P], strict=True)]
    ayes, noes = jnp.stack(P[N // 2 + 1 :]).sum(0), jnp.stack(P[: (N + 1) // 2]).sum(0)
    return ayes - noes, ayes + noes


def _fourier_vote(m: Float[Array, "N ..."]) -> tuple[Array, Array]:
    """By E e^{iθS} = Π (cos θ + i mᵢ sin θ) of the sum S of signs; three times the operations.

    sign(S) = Σ a sin(θ S) on the values of S: for odd N at θ = π l/(2(N + 1)), l = 1, 3, ..., N,
    with a = 2/((N + 1) sin θ); for even N at θ = π l/(N + 2), l = 1, 3, ... <= N/2, with
    a = 4/((N + 2) tan θ). There 1 - Q = P(S = 0) is the mean of cos(θ S) at θ = π l/(N + 1).
    """
    N = len(m)
    if N % 2:
        theta = np.pi * np.arange(1, N + 1, 2) / (2 * (N + 1))
        M = _mean_wave(m, theta, 2 / ((N + 1) * np.sin(theta)))[1]
        return M, jnp.ones_like(M)
    theta = np.pi * np.arange(1, N // 2 + 1, 2) / (N + 2)
    M = _mean_wave(m, theta, 4 / ((N + 2) * np.tan(theta)))[1]
    theta = np.pi * np.arange(N + 1) / (N + 1)
    return M, 1 - _mean_wave(m, theta, np.full(N + 1, 1 / (N + 1)))[0]


def _mean_wave(
    m: Float[Array, "N ..."], theta: np.ndarray, weights: np.ndarray
) -> tuple[Array, Array]:
    """Σ a E cos(θS) and Σ a E sin(θS) with these weights a."""
    cos, sin, a = (
        jnp.asarray(v, m.dtype).reshape(-1, *[1] * (m.ndim - 1))
        for v in (np.cos(theta), np.sin(theta), weights)
    )
    real, imaginary = a + 0 * m[:1], 0 * a * m[:1]
    for m_i in m[:, None]:
        real, imaginary = (
            real * cos - imaginary * sin * m_i, imaginary * cos + real * sin * m_i
        )  # fmt: skip
    return jnp.sum(real, axis=0), jnp.sum(imaginary, axis=0)


def _warn_if_unstable(agents: Agents, learning_rate: Any, curvature: float | None) -> None:
    """Says so where the compression's noise may outgrow the descent on a quadratic."""
    if not isinstance(agents.members.tree.problem, Quadratic):
        return
    mean_hessian = jnp.mean(agents.each(lambda oracle, _: oracle.problem.hessian), axis=0)
    d = len(mean_hessian)
    mean_omega = jnp.mean(agents.each(lambda _, compressor: compressor.omega(d)))
    H, omega = _checks.concrete(mean_hessian), _checks.concrete(mean_omega)
    eta = _checks.concrete(learning_rate)
    if H is None or omega is None or eta is None:
        return
    N, largest = agents.count, H.max() if H.ndim == 1 else np.linalg.eigvalsh(H)[-1]
    if omega == 0 or eta * largest * (omega / N + 2 * (curvature or 0)) < 2:
        return
    if curvature is None:
        bound = f"learning_rate * omega * eigenvalue = {eta * omega * largest:.4g} >= 2 N = {2 * N}"
    else:
        value = eta * largest * (omega / N + 2 * curvature)
        bound = f"learning_rate * eigenvalue * (omega/N {2 * curvature:+g}) = {value:.4g} >= 2"
    warnings.warn(
        f"{bound}: the compression's noise may outgrow the descent, and the SDE's second moments "
        "grow for ever. Medians still mean something.",
        stacklevel=5,  # past equinox, to who makes the SDE
    )
