"""What several families' transformations are made of."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxsde import _checks

Schedule = Callable[[Any], Any]


def descent(
    learning_rate: optax.ScalarOrSchedule, schedule: Schedule | None
) -> optax.GradientTransformation:
    """x⁺ = x - η ψ(k) g; ψ = 1 unless given."""
    _checks.schedule("schedule", schedule)
    scaled = [] if schedule is None else [optax.scale_by_schedule(schedule)]
    return optax.chain(*scaled, optax.scale_by_learning_rate(learning_rate))


def required(grad_fn: Callable | None) -> Callable:
    """The function; refuses to go on without it."""
    if grad_fn is None:
        raise _checks.InputError(
            "this transformation takes gradients elsewhere, by grad_fn(params, i), which "
            "OptimizerProcess gives to the outermost update only: put other transformations into "
            "its `optimizer`, not around it"
        )
    return grad_fn


def same_shapes(updates: PyTree, params: PyTree) -> None:
    """Refuses gradients of another shape than the parameters, such as those of many agents."""
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (updates, params)]
    if shapes[0] != shapes[1]:
        raise _checks.InputError(
            f"the gradients have shapes {shapes[0]}, the parameters {shapes[1]}: this "
            "transformation takes one oracle's gradients, not those of Agents"
        )
