"""Derivatives of stationary moments with respect to hyperparameters, by the linearised theory."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks
from jaxsde.analysis.linearization._linearize import Linearization, bent, expectation, linearize
from jaxsde.analysis.linearization._systems import System, doubled, flat

Factory = Callable[..., Any]
Values = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class StationarySensitivity:
    """Stationary moments of the linearised theory and their derivatives by hyperparameters.

    Fields:
        linearization: the theory at the values given.
        position: ∂x*/∂θ by hyperparameter, a point each.
        covariance: ∂C/∂θ, `(n, n)` each.
        position_covariance: ∂Cov x/∂θ, `(d, d)` each.
        value: E v by observable, `Linearization.expected`.
        derivative: ∂E v/∂θ by observable and hyperparameter.
    """

    linearization: Linearization
    position: dict[str, PyTree]
    covariance: dict[str, Float[np.ndarray, "n n"]]
    position_covariance: dict[str, Float[np.ndarray, "d d"]]
    value: dict[str, Float[np.ndarray, "..."]]
    derivative: dict[str, dict[str, Float[np.ndarray, "..."]]]


def stationary_sensitivity(
    factory: Factory,
    hyperparameters: Mapping[str, float],
    x0: PyTree,
    *,
    fixed_point: PyTree | None = None,
    observables: Mapping[str, Callable] | None = None,
    accuracy: float = 1e-6,
) -> StationarySensitivity:
    """Derivatives of stationary moments by hyperparameters, through the linearised theory.

    Differentiated are the equations, not a simulation: of G(s*, θ) = 0, of the Lyapunov equation
    and of the mean's shift b, for each θ

        G' ∂s* = -∂G/∂θ,    A ∂C Aᵀ - ∂C + (∂A C Aᵀ + A C ∂Aᵀ + ∂Q) = 0,
        A ∂C + ∂C Aᵀ + (∂A C + C ∂Aᵀ + ∂Q) = 0    (SDE),    G' ∂b = -(∂(G'':C/2) + ∂G' b),

    ∂A, ∂Q and ∂(G'':C/2) along (1, ∂s*, ∂C) by forward mode. Steps that jump have derivatives where
    they have a mean map: SignSGD, for one.

    Args:
        factory: `factory(**hyperparameters)` makes a process or an SDE, out of arrays too.
        hyperparameters: one number each, by name.
        x0: as in `linearize`.
        fixed_point: as in `linearize`.
        observables: functions of the position by name; those that the process offers by default.
        accuracy: as in `linearize`.

    Raises:
        InputError: a hyperparameter that is no finite number, or that the law of the draws depends
            on; no stationary law; or what `linearize` refuses.
    """
    with jax.enable_x64(True):
        values = numbers(hyperparameters)
        theory = linearize(factory(**values), x0, fixed_point=fixed_point, accuracy=accuracy)
        if theory.dt is not None:
            check_draws(factory, values, doubled(x0))
        names = tuple(_offered(theory.system.chain) if observables is None else observables)
        at = _At(theory.system, factory, None if observables is None else dict(observables), names)
        found = {name: _one(theory, at, values, name) for name in values}
        b, s = jnp.asarray(theory.mean_shift), flat(theory.fixed_point)
        value = at.expected(values, s, jnp.asarray(theory.covariance), b)
    return StationarySensitivity(
        linearization=theory,
        position={name: one.position for name, one in found.items()},
        covariance={name: one.covariance for name, one in found.items()},
        position_covariance={name: one.position_covariance for name, one in found.items()},
        value=jax.tree.map(np.asarray, value),
        derivative={
            seen: {name: np.asarray(one.expected[seen]) for name, one in found.items()}
            for seen in names
        },
    )


class _Derivatives(NamedTuple):
    """By one hyperparameter."""

    position: PyTree
    covariance: Float[np.ndarray, "n n"]
    position_covariance: Float[np.ndarray, "d d"]
    expected: dict[str, Array]


class _At(eqx.Module):
    """What the equations hold, as functions of the hyperparameters."""

    system: System
    factory: Factory
    given: dict[str, Callable] | None
    names: tuple[str, ...] = eqx.field(static=True)

    def at(self, values: Values) -> System:
        """The system."""
        return self.system.of(self.factory(**values))

    def coefficients(self, values, s) -> tuple[Array, Array, Array]:
        """G, G' and Q."""
        system = self.at(values)
        return system.field(s), jax.jacfwd(system.field)(s), system.noise(s)

    def bent(self, values, s, C) -> Array:
        """G'':C/2."""
        return bent(self.at(values).field, s, C)

    def position(self, values, s) -> PyTree:
        """x."""
        return self.at(values).position(s)

    def position_covariance(self, values, s, C) -> Array:
        """P C Pᵀ."""
        P = jax.jacfwd(lambda s: flat(self.position(values, s)))(s)
        return P @ C @ P.T

    def expected(self, values, s, C, b) -> dict[str, Array]:
        """E v of every observable."""
        system = self.at(values)
        seen = _offered(system.chain) if self.given is None else self.given
        return {name: expectation(system, seen[name], s, C, b) for name in self.names}


@eqx.filter_jit
def _pushed(at: _At, name: str, at_point: tuple, tangents: tuple) -> Any:
    """The derivative of one of its functions."""
    return jax.jvp(getattr(at, name), at_point, tangents)[1]


def _one(theory: Linearization, at: _At, values: Values, name: str) -> _Derivatives:
    s, C = flat(theory.fixed_point), jnp.asarray(theory.covariance)
    b, A = jnp.asarray(theory.mean_shift), theory.jacobian
    slope = theory.slope
    unit = {other: jnp.asarray(float(other == name)) for other in values}
    moved = _pushed(at, "coefficients", (values, s), (unit, jnp.zeros_like(s)))[0]
    ds = jnp.asarray(-np.linalg.solve(slope, moved))
    _, dA, dQ = map(np.asarray, _pushed(at, "coefficients", (values, s), (unit, ds)))
    half = dA @ theory.covariance @ (np.eye(len(A)) if theory.dt is None else A.T)
    dC = jnp.asarray(theory.lyapunov(half + half.T + dQ))
    d_bent = _pushed(at, "bent", (values, s, C), (unit, ds, dC))
    db = jnp.asarray(-np.linalg.solve(slope, d_bent + dA @ theory.mean_shift))
    return _Derivatives(
        jax.tree.map(np.asarray, _pushed(at, "position", (values, s), (unit, ds))),
        np.asarray(dC),
        np.asarray(_pushed(at, "position_covariance", (values, s, C), (unit, ds, dC))),
        _pushed(at, "expected", (values, s, C, b), (unit, ds, dC, db)),
    )


def _offered(chain: Any) -> dict[str, Callable]:
    """The observables that a process, or an SDE's oracle, offers."""
    if hasattr(chain, "observables"):
        return chain.observables()
    oracle = getattr(chain, "oracle", getattr(chain, "agents", None))
    return {} if oracle is None else oracle.problem.observables()


def check_draws(factory: Factory, values: Values, x0: PyTree) -> None:
    """Refuses hyperparameters on which the law of the draws depends."""

    def laws(values):
        return jax.tree.leaves(eqx.filter(factory(**values).noise(x0), eqx.is_inexact_array))

    for name in values:
        unit = {other: jnp.asarray(float(other == name), v.dtype) for other, v in values.items()}
        if any(np.any(np.asarray(part) != 0) for part in jax.jvp(laws, (values,), (unit,))[1]):
            raise _checks.InputError(
                f"the law of the draws depends on {name!r}, such as by degrees of freedom, and "
                "what is differentiated here holds them fixed"
            )


def numbers(hyperparameters: Mapping[str, float]) -> Values:
    """The hyperparameters as arrays.

    Raises:
        InputError: none, or one that is no finite number.
    """
    if not isinstance(hyperparameters, Mapping) or not hyperparameters:
        raise _checks.InputError("hyperparameters must map at least one name to a number")
    for name, value in hyperparameters.items():
        _checks.finite_number(name, value)
    return {name: jnp.asarray(value, float) for name, value in hyperparameters.items()}
