"""Any diffrax terms as an SDE."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import PyTree

from jaxsde import _checks
from jaxsde.sdes._sde import SDE


def _itself(point: Any) -> Any:
    return point


class FromDiffrax(SDE):
    """The SDE of diffrax terms; `from_diffrax` makes one."""

    drifts: tuple[diffrax.AbstractTerm, ...]
    diffusions: tuple[Any, ...]
    _initial: Callable[[Any], Any]
    _position: Callable[[Any], Any]
    args: Any
    t0: Any

    def drift(self, t, y, args):
        """Σ of the ODE terms' vector fields."""
        fields = [term.vf(t, y, self.args) for term in self.drifts]
        return _sum(fields) if fields else jax.tree.map(jnp.zeros_like, y)

    def diffusion(self, t, y, args) -> lx.FunctionLinearOperator:
        """The control terms' products with their Brownian motions, one entry of a tuple each."""
        fields = [term.vf(t, y, self.args) for term in self.diffusions]

        def apply(dW):
            return _sum(
                [term.prod(f, w) for term, f, w in zip(self.diffusions, fields, dW, strict=True)]
            )

        return lx.FunctionLinearOperator(apply, _structures(self.diffusions, y))

    def initial(self, x0):
        """The given map of x0."""
        return self._initial(x0)

    def position(self, y):
        """The given map of the state."""
        return self._position(y)


def from_diffrax(
    terms: diffrax.AbstractTerm,
    *,
    initial: Callable[[Any], Any] = _itself,
    position: Callable[[Any], Any] = _itself,
    args: Any = None,
    t0: Any = 0.0,
) -> FromDiffrax:
    """An SDE from diffrax terms, as one would pass them to `diffrax.diffeqsolve`.

    The Brownian paths in the terms only give the shapes: the engine brings its own noise. Several
    control terms have independent Brownian motions.

    Args:
        terms: an `ODETerm`, a `ControlTerm` with a Brownian path, or a `MultiTerm` of these.
        initial: maps x0 to the state.
        position: maps the state to x.
        args: what the terms get as `args`; its arrays are hyperparameters.
        t0: the initial time.

    Raises:
        InputError: no term is driven by a Brownian path, or a term is of another kind.
    """
    drifts, diffusions = [], []
    pending = [terms]
    while pending:
        term = pending.pop(0)
        if isinstance(term, diffrax.MultiTerm):
            pending = [*term.terms, *pending]
        elif isinstance(term, diffrax.ODETerm):
            drifts.append(term)
        elif isinstance(getattr(term, "control", None), diffrax.AbstractBrownianPath):
            diffusions.append(term)
        else:
            raise _checks.InputError(
                f"from_diffrax takes ODE terms and terms driven by a Brownian path, "
                f"got {type(term).__name__}"
            )
    if not diffusions:
        raise _checks.InputError("from_diffrax needs a term driven by a Brownian path")
    return FromDiffrax(
        drifts=tuple(drifts),
        diffusions=tuple(diffusions),
        _initial=initial,
        _position=position,
        args=args,
        t0=t0,
    )


def _sum(trees: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *trees)


def _structures(terms: tuple[Any, ...], y: PyTree) -> PyTree:
    """The Brownian motions' shapes, in the state's dtype."""
    dtype = jnp.result_type(*jax.tree.leaves(y))
    shapes = tuple(term.control.shape for term in terms)
    return jax.eval_shape(lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), shapes))
