"""Both sides' observables beside the controls that their surrogates give."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxsde.analysis.weak_error._surrogate import Linear, featured, sides, with_vector
from jaxsde.engine import noise
from jaxsde.processes import Levels, Refined


class Both(NamedTuple):
    """The chain's state, or positions, and the surrogates' δ by side."""

    levels: Levels
    deviations: tuple[Float[Array, " n"], ...]


class Controlled(eqx.Module):
    """The chain and its surrogates, driven by one noise."""

    chain: Refined
    A: tuple[Float[Array, "K n n"], ...]
    B: tuple[Float[Array, "K n m"], ...]

    @classmethod
    def of(cls, chain: Refined, surrogates: list[Linear]) -> "Controlled":
        """With surrogates in the chain's dtype."""
        A, B = ([jnp.asarray(s[i]) for s in surrogates] for i in (0, 1))
        return cls(chain, tuple(A), tuple(B))

    @property
    def dt(self) -> Any:
        """The chain's."""
        return self.chain.dt

    @property
    def t0(self) -> Any:
        """The chain's."""
        return self.chain.t0

    def noise(self, x0: PyTree) -> PyTree:
        """The chain's."""
        return self.chain.noise(x0)

    def init(self, x0: PyTree, draw: PyTree) -> Both:
        """δ = 0."""
        return Both(self.chain.init(x0, draw), tuple(jnp.zeros(A.shape[1]) for A in self.A))

    def step(self, k, state: Both, draw: PyTree) -> Both:
        """One step of both."""
        phi = featured(self.chain, self.chain.position(state.levels).optimizer, draw)
        deviations = tuple(
            A[k] @ delta + B[k] @ own
            for A, B, delta, own in zip(self.A, self.B, state.deviations, phi, strict=True)
        )
        return Both(self.chain.step(k, state.levels, draw), deviations)

    def position(self, state: Both) -> Both:
        """Positions, and δ."""
        return Both(self.chain.position(state.levels), state.deviations)


class Seen(eqx.Module):
    """One component of g on every side, then of every side two controls of mean 0.

    They are

        ∇g·δ  and  (δᵀ ∇²g δ - tr(∇²g P))/2,

    derivatives in z at the surrogate's mean; 0 where they do not exist.
    """

    fn: Callable
    component: int = eqx.field(static=True)
    gradients: tuple[Float[Array, " n"], ...]
    hessians: tuple[Float[Array, "n n"], ...]
    traces: Float[Array, " sides"]

    @classmethod
    def of(
        cls, fn: Callable, component: int, chain: Refined, x0: PyTree, surrogates: list[Linear]
    ) -> "Seen":
        """For surrogates at the time when they are read."""
        states = eqx.filter_eval_shape(lambda x: sides(chain.init(x, _no_draw(chain, x))), x0)
        places = (chain.pairs[0].optimizer, *(pair.sde for pair in chain.pairs))
        gradients, hessians, traces = [], [], []
        for state, place, surrogate in zip(states, places, surrogates, strict=True):
            n = len(surrogate.mean)
            gradient, hessian = np.zeros(n), np.zeros((n, n))
            if np.any(surrogate.covariance):
                found = _derivatives(fn, component, place, state, surrogate.mean)
                if all(np.all(np.isfinite(derivative)) for derivative in found):
                    gradient, hessian = found
            gradients.append(jnp.asarray(gradient))
            hessians.append(jnp.asarray(hessian))
            traces.append(np.sum(np.asarray(hessian) * surrogate.covariance))
        return cls(fn, component, tuple(gradients), tuple(hessians), jnp.asarray(traces))

    def __call__(self, state: Both) -> Float[Array, " values"]:
        """g by side, then the controls by side."""
        values = [jnp.ravel(self.fn(x) + 0.0)[self.component] for x in sides(state.levels)]
        for delta, gradient, hessian, trace in zip(
            state.deviations, self.gradients, self.hessians, self.traces, strict=True
        ):
            values += [gradient @ delta, (delta @ (hessian @ delta) - trace) / 2]
        return jnp.stack(values)


@eqx.filter_jit
def _derivatives(fn, component: int, place, state, z) -> tuple[Array, Array]:
    """∇g and ∇²g in z, of the position that a process finds in a state with z."""
    rest = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)

    def of_vector(z):
        return jnp.ravel(fn(place.position(with_vector(rest, z))) + 0.0)[component]

    return jax.grad(of_vector)(z), jax.hessian(of_vector)(z)


def _no_draw(chain: Refined, x0: PyTree) -> PyTree:
    structure = noise.structure(chain.noise(x0), jnp.result_type(float))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), structure)
