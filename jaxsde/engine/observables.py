"""What is read off a path at a recorded time."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxsde import _checks

SMALL = 16  # coordinates up to which the position is an observable by default


class Observable(eqx.Module):
    """A function of the position, or of the state, with what is kept of it.

    `of_state`, `with_covariance` and `clipped` make one; a plain function needs none.
    """

    fn: Callable[[Any], Array]
    of_state: bool = eqx.field(static=True, default=False)
    covariance: bool = eqx.field(static=True, default=False)


def of_state(fn: Callable[[Any], Array] | Observable) -> Observable:
    """Marks a function of the process's state (momenta, second moments), not of the position."""
    mark = as_observable(fn)
    return Observable(mark.fn, of_state=True, covariance=mark.covariance)


def with_covariance(fn: Callable[[Any], Array] | Observable) -> Observable:
    """Marks an observable of which the covariance matrix between components is kept."""
    mark = as_observable(fn)
    return Observable(mark.fn, of_state=mark.of_state, covariance=True)


class _Clipped(eqx.Module):
    fn: Callable[[Any], Array]
    low: Float[Array, ""] | None
    high: Float[Array, ""] | None

    def __call__(self, x: Any) -> Any:
        return jax.tree.map(lambda value: jnp.clip(value, self.low, self.high), self.fn(x))


def clipped(fn: Callable[[Any], Array] | Observable, low: Any, high: Any) -> Observable:
    """Marks an observable whose value is clipped, so that its mean exists for every law.

    The mean is E min(max(v, low), high), over all paths: one that diverged to ±inf counts at the
    bound on its side, one without a value (nan) does not count.

    Args:
        fn: what is clipped, in every component.
        low: the least value; None for no bound.
        high: the largest one; None for no bound.

    Raises:
        InputError: no bound, one that is no finite number, or low not below high.
    """
    if low is None and high is None:
        raise _checks.InputError("clipped needs a bound: give low, high or both")
    low, high = _bound("low", low), _bound("high", high)
    known = [None if bound is None else _checks.concrete(bound) for bound in (low, high)]
    if known[0] is not None and known[1] is not None and not known[0] < known[1]:
        raise _checks.InputError(f"low must be below high, got {known[0]:g} and {known[1]:g}")
    mark = as_observable(fn)
    return dataclasses.replace(mark, fn=_Clipped(mark.fn, low, high))


def _bound(name: str, value: Any) -> Float[Array, ""] | None:
    if value is None:
        return None
    known = _checks.concrete(value)
    if known is not None:
        with np.errstate(over="ignore"):
            held = known.astype(jnp.result_type(float)) if known.dtype.kind in "iuf" else np.nan
        if np.ndim(held) != 0 or not np.isfinite(held):
            raise _checks.InputError(f"{name} must be one finite number or None, got {value!r}")
    return jnp.asarray(value, float)


def as_observable(fn: Callable[[Any], Array] | Observable) -> Observable:
    """The function as an `Observable`."""
    return fn if isinstance(fn, Observable) else Observable(fn)


def position(x: Any) -> Any:
    """The position itself."""
    return x


def resolve(
    process: Any, observables: Mapping[str, Any] | None, x: PyTree
) -> dict[str, Observable]:
    """The observables of a run: those given, or what the process offers and a small position.

    Raises:
        InputError: no observable, or a name that is no variable name in a file.
    """
    if observables is None:
        offered = getattr(process, "observables", dict)
        observables = dict(offered())
        if jax.tree.structure(x) == jax.tree.structure(0) and jax.tree.leaves(x)[0].size <= SMALL:
            observables["position"] = position
    if not isinstance(observables, Mapping) or not all(map(_callable, observables.values())):
        raise _checks.InputError("observables must map names to functions of the position")
    resolved = {name: as_observable(fn) for name, fn in observables.items()}
    if not resolved:
        raise _checks.InputError(
            "observables must name at least one function; this process offers none of its own"
        )
    for name in resolved:
        if not isinstance(name, str) or not name or "/" in name:
            raise _checks.InputError(
                f"an observable's name must be a word without '/', got {name!r}"
            )
    lift = getattr(process, "lift", None)
    return resolved if lift is None else lift(resolved)


def _callable(fn: Any) -> bool:
    return callable(fn) or isinstance(fn, Observable)


def observe(process: Any, observables: Mapping[str, Observable], state: PyTree) -> dict[str, Array]:
    """The observables' values on one path.

    Raises:
        InputError: an observable that does not return one real array.
    """
    values = {}
    for name, observable in observables.items():
        value = observable.fn(state if observable.of_state else process.position(state))
        values[name] = _one_real_array(name, value, jax.tree.leaves(state))
    return values


def _one_real_array(name: str, value: Any, state: list[Array]) -> Array:
    if jax.tree.structure(value) != jax.tree.structure(0):
        raise _checks.InputError(
            f"observable {name!r} must return one array, got {jax.tree.structure(value)}"
        )
    value = jnp.asarray(value)
    if value.size == 0 or jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise _checks.InputError(
            f"observable {name!r} must return real numbers, got shape {value.shape} "
            f"and dtype {value.dtype}"
        )
    if jnp.issubdtype(value.dtype, jnp.floating):
        return value
    return value.astype(jnp.result_type(float, *(leaf.dtype for leaf in state)))
