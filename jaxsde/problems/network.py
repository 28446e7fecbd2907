"""Any equinox model on any data, its parameters the point."""

from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree, Scalar

from jaxsde import _checks
from jaxsde.problems.finite_sum import FiniteSum, Rows, check_rows, sum_over_blocks


def cross_entropy(logits: Float[Array, "*any K"], target: Int[Array, "*any"]) -> Scalar:
    """-log softmax(logits)[target], the mean over leading axes such as a text's positions.

    Raises:
        InputError: the two do not fit each other.
    """
    if jnp.ndim(logits) == 0 or jnp.shape(logits)[:-1] != jnp.shape(target):
        raise _checks.InputError(
            "cross_entropy takes logits (..., K) and targets (...,): this model returns "
            f"{jnp.shape(logits)} for a target of shape {jnp.shape(target)}"
        )
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, target))


class Network(FiniteSum):
    """f(x) = (1/n) Σᵢ ℓ(modelₓ(inputᵢ), targetᵢ), a finite sum over examples.

    x are the model's parameters, its arrays of floats, JAX's or NumPy's: a pytree with the model's
    own structure. Its other arrays stay as they are. `loss`, `gradient` and products with the
    Hessian go through the data in micro-batches, whose activations are all that is held; `jax.grad`
    of the loss, which `gradient` replaces, holds those of all.

    Args:
        model: an equinox module, called on one input: `model(input)`.
        loss: ℓ(output, target), one number; `cross_entropy`, or any function of one example.
        inputs: `(n, ...)`, an array or a pytree of such.
        targets: `(n, ...)`. Whole numbers are labels, in 0 ... K - 1 where outputs have one axis
            more than targets, of length K > 1, and then `accuracy` exists.
        micro_batch: examples held at a time.

    Fields:
        x0: the parameters that the model came with, a start.

    Raises:
        InputError: data that are not finite, or of several lengths; labels out of range; a model
            without parameters, or that does not take such an input; a loss that is not one number.
    """

    x0: PyTree[Array]
    constants: PyTree[Array]
    inputs: PyTree[Array]
    targets: Array
    static: tuple = eqx.field(static=True)
    loss_of: Callable = eqx.field(static=True)
    micro_batch: int = eqx.field(static=True)

    def __init__(self, model, loss, inputs, targets, micro_batch=1024):
        self.x0, rest = eqx.partition(model, eqx.is_inexact_array)
        self.constants, static = eqx.partition(rest, eqx.is_array)
        leaves, structure = jax.tree.flatten(static)
        self.static = (*leaves, structure)  # hashable where a module holds lists
        if not jax.tree.leaves(self.x0):
            raise _checks.InputError("the model has no arrays of floats, so nothing to optimize")
        self.loss_of = loss
        self.inputs, self.targets = jax.tree.map(jnp.asarray, inputs), jnp.asarray(targets)
        self.micro_batch = _checks.at_least("micro_batch", micro_batch, 1)
        self._check()

    def _check(self) -> None:
        for name, data in (("inputs", self.inputs), ("targets", self.targets)):
            for leaf in jax.tree.leaves(data):
                if leaf.ndim == 0 or leaf.shape[0] != self.count or self.count == 0:
                    raise _checks.InputError(
                        f"inputs and targets must be (n, ...) with one n of at least 1, got {name} "
                        f"of shape {leaf.shape}"
                    )
                _checks.finite(name, leaf)
        one = jax.tree.map(lambda leaf: leaf[0], self.inputs)
        try:
            output = eqx.filter_eval_shape(self.model(self.x0), one)
        except Exception as error:
            raise _checks.InputError(
                f"the model cannot be called on one input, {_shapes(one)}: {error}"
            ) from error
        self._check_labels(output)
        try:
            value = eqx.filter_eval_shape(self.loss_of, output, self.targets[0])
        except _checks.InputError:
            raise
        except Exception as error:
            raise _checks.InputError(
                f"the loss does not take the model's output, {_shapes(output)}, and a target of "
                f"shape {self.targets.shape[1:]}: {error}"
            ) from error
        if getattr(value, "shape", None) != ():
            raise _checks.InputError(
                f"the loss of one example must be one number, got {_shapes(value)} for the "
                f"model's output, {_shapes(output)}"
            )

    def _check_labels(self, output: Any) -> None:
        classes = self._classes(output)
        known = _checks.concrete(self.targets)
        if classes is None or known is None:
            return
        if not (known.min() >= 0 and known.max() < classes):
            raise _checks.InputError(
                f"targets must be labels in 0 ... {classes - 1}, as the model returns {classes} "
                f"numbers, got {known.min()} ... {known.max()}"
            )

    def _classes(self, output: Any) -> int | None:
        """K where the outputs are scores of labels."""
        *shape, classes = getattr(output, "shape", None) or (0,)
        labels = jnp.issubdtype(self.targets.dtype, jnp.integer) and classes > 1
        return classes if labels and tuple(shape) == self.targets.shape[1:] else None

    @property
    def count(self) -> int:
        """n, the number of examples."""
        return self.targets.shape[0] if self.targets.ndim else 0

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.x0))

    def model(self, x: PyTree) -> Any:
        """The model with these parameters.

        Raises:
            InputError: x is no pytree of the model's parameters.
        """
        got, own = jax.tree.structure(x), jax.tree.structure(self.x0)
        if got != own:
            raise _checks.InputError(
                f"x must be a pytree of the model's parameters such as the network's x0, got {got}"
            )
        *leaves, structure = self.static
        return eqx.combine(x, self.constants, structure.unflatten(leaves))

    def part(self, rows: Rows) -> Self:
        """The same problem on these examples."""
        check_rows(rows, self.count)
        return self._on(lambda leaf: leaf[rows])

    def _on(self, of: Callable[[Array], Array]) -> Self:
        data = (jax.tree.map(of, self.inputs), of(self.targets))
        return eqx.tree_at(lambda own: (own.inputs, own.targets), self, data)

    def _block(self, start: Any, size: int) -> Self:
        if size == self.count:
            return self
        return self._on(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size))

    def outputs(self, x: PyTree) -> Any:
        """modelₓ(input) of every example, `(n, ...)`, all of them held."""
        return jax.vmap(self.model(x))(self.inputs)

    def _losses(self, x: PyTree) -> Float[Array, " n"]:
        return jax.vmap(self.loss_of)(self.outputs(x), self.targets)

    def _mean(self, fn: Callable[[Any], Float[Array, " m"]]) -> Scalar:
        """The mean over examples of what fn makes of a micro-batch."""

        def total(start, weights):
            values = fn(self._block(start, weights.size))
            return jnp.sum(weights.astype(values.dtype) * values)

        return sum_over_blocks(total, jnp.full(self.count, 1 / self.count), self.micro_batch)

    def loss(self, x: PyTree) -> Scalar:
        """(1/n) Σᵢ ℓᵢ(x)."""
        return self._mean(lambda block: block._losses(x))

    def gradient(self, x: PyTree) -> PyTree:
        """(1/n) Σᵢ ∇ℓᵢ(x)."""
        return self.weighted_gradient(x, jnp.full(self.count, 1 / self.count))

    def terms(self, x: PyTree) -> Float[Array, " n"]:
        """ℓ₁(x), ..., ℓₙ(x), activations of all examples held."""
        return self._losses(x)

    def weighted_gradient(self, x: PyTree, weights: Float[Array, " n"]) -> PyTree:
        """Σᵢ wᵢ ∇ℓᵢ(x) in one backward pass."""

        def gradient(start, weights):
            losses, pull_back = jax.vjp(self._block(start, weights.size)._losses, x)
            return pull_back(weights.astype(losses.dtype))[0]

        return sum_over_blocks(gradient, weights, self.micro_batch)

    def gradient_norm(self, x: PyTree) -> Scalar:
        """|∇f(x)|, Euclidean over all parameters."""
        return optax.tree.norm(self.gradient(x))

    def accuracy(self, x: PyTree) -> Scalar:
        """The share of labels that are the largest output's; undefined where an output is.

        Raises:
            InputError: targets that are no labels of the outputs.
        """

        def right(block):
            outputs = block.outputs(x)
            if self._classes(jax.tree.map(lambda leaf: leaf[0], outputs)) is None:
                raise _checks.InputError("only targets that are labels of the outputs have one")
            hits = (jnp.argmax(outputs, axis=-1) == block.targets).astype(outputs.dtype)
            known = jnp.where(jnp.all(jnp.isfinite(outputs), axis=-1), hits, jnp.nan)
            return jnp.mean(known.reshape(len(known), -1), axis=1)

        return self._mean(right)

    def observables(self) -> dict[str, Callable]:
        """The loss, the gradient's norm, and the accuracy where there are labels."""
        found = {"loss": self.loss, "gradient_norm": self.gradient_norm}
        one = jax.tree.map(lambda leaf: leaf[0], self.inputs)
        output = eqx.filter_eval_shape(lambda own, one: own.model(own.x0)(one), self, one)
        return found if self._classes(output) is None else found | {"accuracy": self.accuracy}


def _shapes(tree: PyTree) -> str:
    return str(jax.tree.map(lambda leaf: (np.shape(leaf), str(jnp.result_type(leaf))), tree))
