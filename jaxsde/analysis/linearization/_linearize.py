"""Linearised theory of any process with a mean map, and of any SDE, about a fixed point."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Complex, Float, PyTree

from jaxsde import _checks
from jaxsde.analysis.linearization._fixed_points import Coefficients, coefficients, fixed_point_from
from jaxsde.analysis.linearization._starts import start
from jaxsde.analysis.linearization._systems import System, flat


@dataclasses.dataclass(frozen=True)
class Linearization:
    """A chain or SDE about a fixed point s* of its mean, s its n floating numbers in leaf order.

        chain:  s⁺ - s* = A (s - s*) + ζ,   Cov ζ = Q:    A C Aᵀ - C + Q = 0,
        SDE:    ds = A (s - s*) dt + B dW,  B Bᵀ = Q:     A C + C Aᵀ + Q = 0,

    A the Jacobian of the mean map E step(s) or of the drift, Q at s*, and C the stationary
    covariance. It is exact where the mean map is affine and the noise does not depend on s, and of
    leading order in the size of the noise elsewhere.

    Fields:
        fixed_point: s*, a state; what counts steps in it is late.
        jacobian: A, `(n, n)`.
        noise_covariance: Q, `(n, n)`.
        dt: the time that a step takes; None in continuous time.
    """

    fixed_point: PyTree
    jacobian: Float[np.ndarray, "n n"]
    noise_covariance: Float[np.ndarray, "n n"]
    dt: float | None
    system: System = dataclasses.field(repr=False)

    @property
    def eigenvalues(self) -> Complex[np.ndarray, " n"]:
        """Those of A, μ."""
        return np.linalg.eigvals(self.jacobian).astype(complex)

    @property
    def stable(self) -> bool:
        """Whether there is a stationary law: |μ| < 1 for a chain, Re μ < 0 for an SDE, all μ."""
        return bool(np.all(self._decay > 0))

    @property
    def relaxation_times(self) -> Float[np.ndarray, " n"]:
        """-dt/ln|μ| for a chain, -1/Re μ for an SDE, in its clock, the slowest first.

        Infinite where a mode does not relax.
        """
        with np.errstate(divide="ignore"):
            times = np.where(self._decay > 0, 1 / self._decay, np.inf)
        return np.sort(times)[::-1]

    @property
    def _decay(self) -> Float[np.ndarray, " n"]:
        """The rates; those within rounding of 0 are 0."""
        mu = self.eigenvalues
        rounding = 1e-14 * np.max(np.abs(mu), initial=0)
        if self.dt is None:
            return np.where(np.abs(np.real(mu)) > rounding, -np.real(mu), 0)
        with np.errstate(divide="ignore"):
            return np.where(np.abs(np.abs(mu) - 1) > rounding, -np.log(np.abs(mu)) / self.dt, 0)

    @property
    def covariance(self) -> Float[np.ndarray, "n n"]:
        """C.

        Raises:
            InputError: there is no stationary law.
        """
        return self.lyapunov(self.noise_covariance)

    @property
    def position_covariance(self) -> Float[np.ndarray, "d d"]:
        """Cov x = P C Pᵀ, P the Jacobian of the position, over its coordinates in leaf order.

        Raises:
            InputError: there is no stationary law.
        """
        with jax.enable_x64(True):
            P = np.asarray(_position_slope(self.system, flat(self.fixed_point)))
        return P @ self.covariance @ P.T

    def lyapunov(self, source: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
        """The C with A C Aᵀ - C + source = 0, or A C + C Aᵀ + source = 0.

        Raises:
            InputError: there is no stationary law.
        """
        if not self.stable:
            slowest = self.eigenvalues[np.argmin(self._decay)]
            bound = "absolute value must be below 1"
            if self.dt is None:
                bound = "real part must be negative"
            raise _checks.InputError(
                f"no stationary law: the Jacobian at the fixed point has the eigenvalue "
                f"{slowest:.6g}, whose {bound}"
            )
        unit = np.ones(len(source))
        deviation = np.sqrt(np.abs(np.diag(self._solved(self.noise_covariance, unit))))
        if not np.any(deviation):
            return self._solved(source, unit)
        return self._solved(source, np.maximum(deviation, 1e-9 * np.max(deviation)))

    def _solved(self, source, unit) -> Float[np.ndarray, "n n"]:
        """The solution, found in units in which all numbers may vary alike."""
        A, units = self.jacobian * unit[None, :] / unit[:, None], np.outer(unit, unit)
        if self.dt is None:
            C = scipy.linalg.solve_continuous_lyapunov(A, -source / units)
        else:
            C = scipy.linalg.solve_discrete_lyapunov(A, source / units, method="bilinear")
        return (C + C.T) / 2 * units

    @property
    def mean_shift(self) -> Float[np.ndarray, " n"]:
        """E s - s* to the order of C: the b with G' b = -(1/2) Σⱼₖ ∂ⱼ∂ₖG Cⱼₖ, G = E step - s.

        G is the drift of an SDE. It is where a skew potential, say, puts the mean.

        Raises:
            InputError: there is no stationary law.
        """
        with jax.enable_x64(True):
            s, C = flat(self.fixed_point), jnp.asarray(self.covariance)
            bent = np.asarray(_bent_field(self.system, s, C))
        return -np.linalg.solve(self.slope, bent)

    @property
    def slope(self) -> Float[np.ndarray, "n n"]:
        """G' of the mean field."""
        return self.jacobian - (0 if self.dt is None else np.eye(len(self.jacobian)))

    def expected(self, fn: Callable[[Any], Any]) -> Float[np.ndarray, "..."]:
        """E fn(x) at stationarity to the order of C: fn + ∇fn·b + tr(∇²fn C)/2 at s*.

        b is `mean_shift`, without which means of what has a slope at x* would miss their leading
        term.

        Args:
            fn: a function of the position, such as a problem's `loss`, that returns one array.

        Raises:
            InputError: there is no stationary law.
        """
        with jax.enable_x64(True):
            s, C, b = flat(self.fixed_point), self.covariance, self.mean_shift
            return np.asarray(expectation(self.system, fn, s, jnp.asarray(C), jnp.asarray(b)))

    def autocovariance(self, lag: float) -> Float[np.ndarray, "n n"]:
        """Cov(s(t + lag), s(t)) = A^(lag/dt) C, or e^(A lag) C.

        Args:
            lag: >= 0, in the clock; of a chain a multiple of dt.

        Raises:
            InputError: there is no stationary law, or a lag that is negative or off the steps.
        """
        _checks.nonnegative_number("lag", lag)
        if self.dt is None:
            return scipy.linalg.expm(self.jacobian * lag) @ self.covariance
        steps = round(lag / self.dt)
        if not np.isclose(lag, steps * self.dt, rtol=1e-6):
            raise _checks.InputError(f"lag must be a multiple of dt = {self.dt:g}, got {lag:g}")
        return np.linalg.matrix_power(self.jacobian, steps) @ self.covariance


def linearize(
    chain: Any, x0: PyTree, *, fixed_point: PyTree | None = None, accuracy: float = 1e-6
) -> Linearization:
    """The linearised theory of a chain or an SDE about a fixed point of its mean.

    A chain is an `OptimizerProcess`, an `SDEProcess` (the scheme's chain), or any process; its
    mean map E step(s) and noise Cov step(s) at s are, by what there is,

    - s + b dt and dt B Bᵀ for an SDE under a scheme of Euler's;
    - what it says itself: `mean_step(k, state) -> state`, and `step_covariance(k, state)`, `(n, n)`
      over the state's floating numbers in leaf order;
    - for an optimizer of which a step knows a gradient's signs alone (`optax.sign_sgd`,
      `optimizers.dsign_sgd`), the mean over all signs, each -1 with P(g < 0) by the oracle's `cdf`;
    - the mean over all draws, if they are finitely many, or over a quadrature of them. What does
      not meet in any number of the state is averaged side by side, so that elementwise steps in any
      dimension cost as much as one coordinate, with 128 points; draws that meet have at most 4096
      points together, by a product rule for up to 4 normals. Up to 45 have a rule of degree 5,
      which is exact for steps of degree 2 in the draws. A second rule must agree to `accuracy`,
      so that steps that are not smooth in the draws (SAM's |g| near a critical point) are refused
      rather than averaged badly.

    The fixed point is that which the mean flow leads to from x0, or one near `fixed_point`, by
    Newton's method. Steps count as late ones, k = 10⁹, an SDE's time t = 10⁹, at which bias
    corrections are over; whole numbers in the state that count steps are late too. All is in
    float64, whatever JAX's precision; hyperparameters that a process holds in float32 stay rounded
    to it.

    Args:
        chain: a process or an `sdes.SDE`.
        x0: a point from which the mean leads to the fixed point.
        fixed_point: a state near it, for those that the mean leads away from (saddles).
        accuracy: to which two rules for the draws must agree in A - I and Q, relative to a row's
            largest entry and to the deviations.

    Raises:
        InputError: neither a process nor an SDE; a step (or coefficient) that jumps, such as a sign
            of what depends on the state, without a mean map; a mean that depends on the step's
            number; draws that cannot be averaged over, or not to `accuracy`; no fixed point found.
    """
    _checks.positive_number("accuracy", accuracy)
    with jax.enable_x64(True):
        begun = start(chain, x0)
        system, s = begun.system, begun.s
        if fixed_point is not None:
            s = flat(jax.tree.map(jnp.asarray, fixed_point))
            if s.shape != begun.s.shape:
                raise _checks.InputError(
                    f"fixed_point must be a state of this chain, of {begun.s.size} numbers, got "
                    f"{s.size}"
                )
        s = fixed_point_from(system, np.asarray(s), fixed_point is None)
        found = coefficients(system, s)
        _check_late(system, s, found)
        if begun.other is not None:
            _check_cases(found, coefficients(begun.other, s), accuracy)
        n, discrete = len(s), system.discrete
        state = jax.tree.map(np.asarray, system.state(jnp.asarray(s)))
        return Linearization(
            fixed_point=state,
            jacobian=found.slope + (np.eye(n) if discrete else 0),
            noise_covariance=found.noise,
            dt=float(np.asarray(system.chain.dt)) if discrete else None,
            system=system,
        )


@eqx.filter_jit
def _position_slope(system: System, s: Float[Array, " n"]) -> Float[Array, "d n"]:
    return jax.jacfwd(lambda s: flat(system.position(s)))(s)


@eqx.filter_jit
def _bent_field(system: System, s: Float[Array, " n"], C: Float[Array, "n n"]) -> Array:
    return bent(system.field, s, C)


def bent(fn: Callable, s: Float[Array, " n"], C: Float[Array, "n n"]) -> Array:
    """(1/2) Σⱼₖ ∂ⱼ∂ₖfn Cⱼₖ."""

    def one(unit, column):
        along = lambda s: jax.jvp(fn, (s,), (column,))[1]  # noqa: E731
        return jax.jvp(along, (s,), (unit,))[1]

    return jnp.sum(jax.vmap(one)(jnp.eye(s.size), C), axis=0) / 2


@eqx.filter_jit
def expectation(
    system: System,
    fn: Callable,
    s: Float[Array, " n"],
    C: Float[Array, "n n"],
    b: Float[Array, " n"],
) -> Array:
    """fn + ∇fn·b + tr(∇²fn C)/2 at s, fn of the position."""

    def of_state(s):
        return jnp.asarray(fn(system.position(s)), float)

    value, along = jax.jvp(of_state, (s,), (b,))
    return value + along + bent(of_state, s, C)


def _check_late(system: System, s: Float[np.ndarray, " n"], found: Coefficients) -> None:
    later = coefficients(dataclasses.replace(system, late=2 * system.late), s)
    if _difference(found, later) > 1e-6:
        raise _checks.InputError(
            "the mean depends on the step's number even late, as under a schedule that goes on for "
            "ever: there is no stationary law to linearise about"
        )


def _check_cases(found: Coefficients, other: Coefficients, accuracy: float) -> None:
    difference = _difference(found, other)
    if difference > accuracy:
        raise _checks.InputError(
            f"two rules to average over the draws differ by {difference:.1g}, the step is not "
            "smooth in them: allow for it by accuracy, give the process a mean_step(k, state) and "
            "a step_covariance(k, state), or linearise its SDE"
        )


def _difference(one: Coefficients, other: Coefficients) -> float:
    """Of G' in units of its rows' largest entries, of Q in those of its diagonal."""
    largest = np.max(np.abs(one.slope), axis=1, keepdims=True)
    deviation = np.sqrt(np.abs(np.diag(one.noise)))
    slopes = np.maximum(np.abs(other.slope - one.slope) - 1e-13, 0)  # rounding of E step - s
    noises = np.abs(other.noise - one.noise)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [slopes / largest, noises / np.outer(deviation, deviation)]
    return float(max(np.max(np.nan_to_num(part, nan=0.0)) for part in parts))
