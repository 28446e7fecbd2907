"""Whether a function jumps: where it does, derivatives path by path say nothing of its mean."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxsde.analysis.linearization._cases import run_once

_SUSPECTS = frozenset(
    "sign floor ceil round rem lt le gt ge eq ne argmax argmin sort top_k is_finite "
    "nextafter".split()
)
LINES = 8
_POINTS = 33  # on a line, or on the part of it that is zoomed into
_ZOOMS = 7  # after which that part is (2/32)^7 = 4e-9 of the line
_OUTPUTS = 64  # looked at


def jumps(fn: Callable, start: tuple, end: tuple) -> tuple[str, ...]:
    """The operations at which fn(moving, other) may jump, if it is seen to jump somewhere.

    Comparisons, signs and roundings of what depends on `moving` are found in fn's operations. A
    clipping or |x| has them too and does not jump: so fn is followed along the lines from `start`
    to `end`, and on each, output by output, into where it bends most. A change that does not shrink
    with the part of the line in which it happens is a jump.

    Args:
        fn: gives a pytree of arrays, booleans and whole numbers among them; as an
            `equinox.Module` it is compiled once for all its numbers.
        start: one end of each line, (moving, other), arrays `(LINES, ...)`.
        end: the other end; floating arrays differ from those of `start`.

    Returns:
        Their names; none where fn is not seen to jump.
    """
    names = _suspects(fn, *_first(start))
    return tuple(sorted(names)) if names and _seen(fn, start, end) else ()


def line_ends(tree: PyTree, seed: int, position: Callable | None = None) -> PyTree:
    """Random ends of lines about the floating arrays of a tree, `(LINES, ...)`.

    What position(tree) depends on may pass 0 on half of the lines; all else keeps its sign, for
    what is not seen in it may have to, like a second moment.
    """
    rng = np.random.default_rng(seed)
    passes = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), tree)
    if position is not None:
        slopes = jax.grad(lambda tree: _weighted(position(tree), np.random.default_rng(0)))(tree)
        passes = jax.tree.map(lambda slope: slope != 0, slopes)

    def ends(leaf, passes):
        normal = rng.normal(size=(LINES, *leaf.shape))
        free = (np.arange(LINES) % 2 == 1).reshape(-1, *(1,) * leaf.ndim) & passes[None]
        around = jnp.where(leaf == 0, 1.0, jnp.abs(leaf))[None] * normal + leaf[None]
        return jnp.where(free, around, leaf[None] * jnp.exp(normal))

    return jax.tree.map(ends, tree, passes)


def _weighted(tree: PyTree, rng: np.random.Generator) -> Array:
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return sum((jnp.sum(leaf * rng.normal(size=leaf.shape)) for leaf in leaves), jnp.zeros(()))


def _suspects(fn: Callable, moving: PyTree, other: PyTree) -> set[str]:
    jaxpr = jax.make_jaxpr(fn)(moving, other).jaxpr
    inputs = jaxpr.invars[: len(jax.tree.leaves(moving))]
    return _active(jaxpr, {v for v in inputs if jnp.issubdtype(v.aval.dtype, jnp.inexact)})


def _active(jaxpr: Any, active: set) -> set[str]:
    """The suspects that an active variable reaches; inside an operation all its inputs count."""
    found = set()
    for equation in jaxpr.eqns:
        inputs = [v for v in equation.invars if not isinstance(v, jax.extend.core.Literal)]
        if active.isdisjoint(inputs):
            continue
        active = active | set(equation.outvars)
        name = equation.primitive.name
        if name in _SUSPECTS or (name == "convert_element_type" and _truncates(equation)):
            found.add(name)
        for inner in _inner(equation.params):
            found |= _active(inner, set(inner.invars))
    return found


def _truncates(equation: Any) -> bool:
    before, after = equation.invars[0].aval.dtype, equation.outvars[0].aval.dtype
    return jnp.issubdtype(before, jnp.inexact) and not jnp.issubdtype(after, jnp.inexact)


def _inner(params: dict[str, Any]) -> list:
    """The jaxprs among an operation's parameters."""
    values = [getattr(leaf, "jaxpr", leaf) for leaf in jax.tree.leaves(list(params.values()))]
    return [value for value in values if hasattr(value, "eqns")]


def _seen(fn: Callable, start: tuple, end: tuple) -> bool:
    size = eqx.filter_eval_shape(_along, fn, *_first((start, end)), 0.0).shape[0]
    outputs = np.random.default_rng(0).permutation(size)[:_OUTPUTS]
    lines = np.arange(LINES)[:, None], np.arange(len(outputs))
    left, width, before = np.zeros((LINES, len(outputs))), 1.0, np.inf
    stays = False
    for _ in range(_ZOOMS):
        t = left[..., None] + width * np.linspace(0, 1, _POINTS)
        y = np.asarray(_values(fn, start, end, jnp.asarray(t), jnp.asarray(outputs)))
        with np.errstate(invalid="ignore"):  # outside of where fn is defined
            bend = np.nan_to_num(np.abs(np.diff(y, n=2)), nan=0, posinf=0)
            most = np.argmax(bend, axis=-1)
            change = np.nan_to_num(np.abs(y[(*lines, most + 2)] - y[(*lines, most)]))
        size = np.max(np.abs(np.nan_to_num(y)), axis=-1)
        stays = (change > before / 2) & (change < 2 * before) & (change > 1e-10 * size)
        left, width, before = left + width * most / (_POINTS - 1), width * 2 / (_POINTS - 1), change
    return bool(np.any(stays))


@run_once
def _values(fn, start, end, t, outputs) -> Float[Array, "lines outputs points"]:
    """Each output at its own points."""

    def on_line(start, end, t):
        def one(t, output):
            return jax.vmap(lambda t: _along(fn, start, end, t)[output])(t)

        return jax.vmap(one)(t, outputs)

    return jax.vmap(on_line)(start, end, t)


def _along(fn: Callable, start: tuple, end: tuple, t: Any) -> Float[Array, " n"]:
    def between(a, b):
        return a + t * (b - a) if jnp.issubdtype(a.dtype, jnp.inexact) else a

    leaves = jax.tree.leaves(fn(*jax.tree.map(between, start, end)))
    return jnp.concatenate([jnp.ravel(leaf).astype(float) for leaf in leaves])


def _first(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[0], tree)
