"""Checks at the boundary: bad input gets one clear line before anything is computed."""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import jax.core
import jax.numpy as jnp
import numpy as np


class InputError(ValueError):
    """An argument that jaxsde cannot work with; the message says which and what to do."""


def concrete(value: Any) -> np.ndarray | None:
    """The value as a NumPy array, or None while JAX traces it (a sweep is checked by its user)."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def positive(name: str, value: Any) -> None:
    """Refuses a value that is not positive and finite in every entry."""
    known = _numbers(name, value, "a positive number")
    if known is None:
        return
    with np.errstate(over="ignore"):
        held = known.astype(jnp.result_type(float))  # as JAX will hold it
    if not (np.all(np.isfinite(held)) and np.all(held > 0)):
        raise InputError(f"{name} must be positive and finite, got {_short(known)}")


def positive_number(name: str, value: Any) -> None:
    """Refuses anything but one positive and finite number."""
    positive(name, value)
    _one(name, value)


def nonnegative_number(name: str, value: Any) -> None:
    """Refuses anything but one number, zero or positive and finite."""
    nonnegative(name, value)
    _one(name, value)


def nonnegative(name: str, value: Any) -> None:
    """Refuses a value with a negative or infinite entry."""
    known = _numbers(name, value, "a number, zero or positive")
    if known is not None and not (np.all(np.isfinite(known)) and np.all(known >= 0)):
        raise InputError(f"{name} must be finite and not negative, got {_short(known)}")


def fraction(name: str, value: Any) -> None:
    """Refuses anything but one number in [0, 1), such as the memory of an average."""
    known = _numbers(name, value, "one number in [0, 1)")
    if known is not None and (known.ndim != 0 or not 0 <= known < 1):
        raise InputError(f"{name} must be one number in [0, 1), got {_short(known)}")


def at_least(name: str, value: Any, least: int) -> int:
    """The value as an int; refuses anything but a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def finite_number(name: str, value: Any) -> None:
    """Refuses anything but one finite number."""
    _numbers(name, value, "one finite number")
    finite(name, value)
    _one(name, value)


def finite(name: str, value: Any) -> None:
    """Refuses an array with an infinite or undefined entry."""
    known = concrete(value)
    if known is not None and not np.all(np.isfinite(known)):
        raise InputError(f"{name} must be finite, got {_short(known)}")


def schedule(name: str, value: Any) -> None:
    """Refuses a schedule that is no function of the step, or no number that is mostly positive.

    It is looked at after 0, 1, 10, ..., 10⁶ steps, and may be 0 at some of them.
    """
    if value is None:
        return
    if not callable(value):
        raise InputError(f"{name} must be a function of the step, got {value!r}")
    values = []
    for k in (0, *(10**n for n in range(7))):
        held = _numbers(f"{name}({k})", value(jnp.int32(k)), "a positive number")
        if held is None:
            return
        if held.ndim != 0 or not np.isfinite(held) or held < 0:
            raise InputError(f"{name} must be one positive number, or 0, got {held} at step {k}")
        values.append(held)
    if not any(values):
        raise InputError(f"{name} must be positive somewhere, got 0 at all steps looked at")


def known(kind: str, name: str, names: Iterable[str]) -> None:
    """Refuses a name that is not among the known ones, and names the nearest."""
    names = sorted(names)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        nearest = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"unknown {kind} {name!r}{nearest} (known: {', '.join(names)})")


def extra(module: str, name: str) -> ModuleType:
    """Imports a module of an optional extra, or says which pip command brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is needed here: pip install 'jaxsde[{name}]'", name=module
        ) from error


def _one(name: str, value: Any) -> None:
    if np.ndim(value) != 0:
        raise InputError(f"{name} must be one number, got shape {np.shape(value)}")


def _numbers(name: str, value: Any, wanted: str) -> np.ndarray | None:
    """The concrete value; refuses what holds no numbers."""
    known = concrete(value)
    if known is not None and not np.issubdtype(known.dtype, np.number):
        raise InputError(f"{name} must be {wanted}, got {value!r}")
    return known


def _short(value: np.ndarray) -> str:
    return np.array2string(value, threshold=6, edgeitems=2, separator=", ")
