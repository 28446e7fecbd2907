"""Distributed SGD: transformations of the gradients of N agents, stacked `(N, ...)`, into a step.

One transformation of a chain makes one update of x's shape out of the stacked gradients; any of
optax's may follow it, `optax.chain(average_messages(), optax.adam(1e-3))`. What comes before it
sees all agents' gradients as one array, and can keep no state of x's shape. `OptimizerProcess`
feeds them from `jaxsde.oracles.Agents`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxsde import _checks
from jaxsde.optimizers._descent import Schedule, descent


def average_gradients() -> optax.GradientTransformation:
    """(1/N) Σ gᵢ."""
    return _of_agents(lambda g: jnp.mean(g, axis=0))


def average_messages() -> optax.GradientTransformationExtraArgs:
    """(1/N) Σ Cᵢ(gᵢ), by an extra argument `compress` that makes messages of stacked gradients.

    Raises:
        InputError: (at an update) there is no `compress`.
    """

    def update(updates, state, params=None, *, compress=None, **_):
        if compress is None:
            raise _checks.InputError(
                "average_messages needs compress(gradients), which OptimizerProcess passes on from "
                "jaxsde.oracles.Agents"
            )
        messages = compress(updates)
        return jax.tree.map(lambda message: jnp.mean(message, axis=0), messages), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def average_signs(majority_vote: bool = False) -> optax.GradientTransformation:
    """(1/N) Σ sign(gᵢ); with a majority vote sign(Σ sign(gᵢ)), 0 on a tie."""
    if majority_vote:
        return _of_agents(lambda g: jnp.sign(jnp.sum(jnp.sign(g), axis=0)))
    return _of_agents(lambda g: jnp.mean(jnp.sign(g), axis=0))


def dsgd(
    learning_rate: optax.ScalarOrSchedule, schedule: Schedule | None = None
) -> optax.GradientTransformationExtraArgs:
    """Distributed SGD, x⁺ = x - η ψ(k) (1/N) Σ gᵢ (arXiv 2502.17009).

    Args:
        learning_rate: η.
        schedule: ψ, a dimensionless function of the step k; 1 unless given.

    Raises:
        InputError: a schedule that is no function, or not positive.
    """
    return optax.chain(average_gradients(), descent(learning_rate, schedule))


def dcsgd(
    learning_rate: optax.ScalarOrSchedule, schedule: Schedule | None = None
) -> optax.GradientTransformationExtraArgs:
    """Distributed compressed SGD, x⁺ = x - η ψ(k) (1/N) Σ Cᵢ(gᵢ) (arXiv 2502.17009).

    Args:
        learning_rate: η.
        schedule: ψ, a dimensionless function of the step k; 1 unless given.

    Raises:
        InputError: a schedule that is no function, or not positive.
    """
    return optax.chain(average_messages(), descent(learning_rate, schedule))


def dsign_sgd(
    learning_rate: optax.ScalarOrSchedule,
    schedule: Schedule | None = None,
    *,
    majority_vote: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Distributed SignSGD, x⁺ = x - η ψ(k) (1/N) Σ sign(gᵢ) (arXiv 2502.17009).

    Args:
        learning_rate: η.
        schedule: ψ, a dimensionless function of the step k; 1 unless given.
        majority_vote: whether the server sends back sign(Σ sign(gᵢ)) instead of the mean.

    Raises:
        InputError: a schedule that is no function, or not positive.
    """
    return optax.chain(average_signs(majority_vote), descent(learning_rate, schedule))


def _of_agents(fn: Callable) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, params: jax.tree.map(fn, updates))
