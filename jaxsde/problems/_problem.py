"""What every problem can do."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import Array, Scalar

from jaxsde import _checks


def check_shape(x: Array, shape: tuple[int, ...]) -> None:
    """Refuses a point of another shape than the problem's."""
    if not isinstance(x, jax.Array | np.ndarray) or x.shape != shape:
        got = getattr(x, "shape", jax.tree.structure(x))
        raise _checks.InputError(f"x must be one array of the problem's shape {shape}, got {got}")


class Problem(eqx.Module):
    """A deterministic function f to minimise; subclass it and write `loss`.

    Everything else follows by autodiff; a subclass replaces `gradient` where a closed form is
    cheaper. `x` is any pytree of arrays.
    """

    @abc.abstractmethod
    def loss(self, x: Any, /) -> Scalar:
        """f(x)."""

    def gradient(self, x: Any, /) -> Any:
        """∇f(x), with the structure of x."""
        return jax.grad(self.loss)(x)

    def hessian_vector_product(self, x: Any, v: Any, /) -> Any:
        """∇²f(x) v, with the structure of x, by forward mode over the gradient."""
        return jax.jvp(self.gradient, (x,), (v,))[1]

    def observables(self) -> dict[str, Callable]:
        """What is read off a run unless it asks for something else: the loss."""
        return {"loss": self.loss}

    def norms(self, x: Any, /) -> Scalar:
        """|x| + |∇f(x)|, Euclidean over all arrays (arXiv 2301.08203)."""
        return optax.tree.norm(x) + optax.tree.norm(self.gradient(x))
