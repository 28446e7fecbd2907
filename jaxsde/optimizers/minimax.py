"""Descent ascent, extragradient and Hamiltonian descent on games.

The gradient of a game (`jaxsde.problems.Game`) is its field F = (∂f/∂x, -∂f/∂y). `extragradient`
and `hamiltonian` put theirs before any optimizer; `sgda`, `seg` and `shgd` use plain descent. They
ask for fields of chosen draws by `grad_fn(params, i)`, which `OptimizerProcess` gives them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from jaxsde import _checks
from jaxsde.optimizers._descent import Schedule, descent, required, same_shapes


class ExtragradientState(NamedTuple):
    """The steps made, and the optimizer's own state."""

    step: Int[Array, ""]
    inner: PyTree


def extragradient(
    optimizer: optax.GradientTransformation,
    rho: Any,
    *,
    independent: bool = False,
    rho_schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`optimizer` on F_{c1}(z - ρ ψ_ρ(k) F_{c2}(z)) in the place of F_c(z).

    One draw serves both points, c1 = c2, or each has its own.

    Args:
        optimizer: what follows.
        rho: ρ of any sign, the extra step.
        independent: whether c1 and c2 are independent draws.
        rho_schedule: ψ_ρ, a function of the step k; 1 unless given.

    Raises:
        InputError: ρ not finite, a schedule that is no function or not positive; (at an update) no
            `grad_fn`, as inside an `optax.chain`.
    """
    _checks.finite_number("rho", rho)
    _checks.schedule("rho_schedule", rho_schedule)
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params):
        return ExtragradientState(jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(updates, state, params=None, *, grad_fn=None, **extra):
        grad_fn = required(grad_fn)
        same_shapes(updates, params)
        step = rho if rho_schedule is None else rho * rho_schedule(state.step)
        moved = jax.tree.map(lambda z, F: z - step * F, params, updates)
        F = grad_fn(moved, 1 if independent else 0)
        updates, inner = optimizer.update(F, state.inner, params, **extra)
        return updates, ExtragradientState(state.step + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def hamiltonian(
    optimizer: optax.GradientTransformation, batches: int = 2
) -> optax.GradientTransformationExtraArgs:
    """`optimizer` on an estimate of ∇|F|²/2 = JᵀF in the place of F_c.

    Of two draws, (J_{c1}ᵀ F_{c2} + J_{c2}ᵀ F_{c1})/2, which is unbiased; of one, J_cᵀ F_c, biased
    unless the noise is additive.

    Args:
        optimizer: what follows.
        batches: how many draws, 1 or 2.

    Raises:
        InputError: another number; (at an update) no `grad_fn`, as inside an `optax.chain`.
    """
    if batches not in (1, 2):
        raise _checks.InputError(f"batches must be 1 or 2, got {batches!r}")
    optimizer = optax.with_extra_args_support(optimizer)

    def update(updates, state, params=None, *, grad_fn=None, **extra):
        grad_fn = required(grad_fn)
        same_shapes(updates, params)
        F1, transpose1 = jax.vjp(lambda z: grad_fn(z, 0), params)
        if batches == 1:
            (gradient,) = transpose1(F1)
        else:
            F2, transpose2 = jax.vjp(lambda z: grad_fn(z, 1), params)
            gradient = jax.tree.map(lambda a, b: (a + b) / 2, transpose1(F2)[0], transpose2(F1)[0])
        return optimizer.update(gradient, state, params, **extra)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def sgda(
    learning_rate: optax.ScalarOrSchedule, schedule: Schedule | None = None
) -> optax.GradientTransformation:
    """Stochastic gradient descent ascent, z⁺ = z - η ψ(k) F_c(z).

    Args:
        learning_rate: η.
        schedule: ψ, a dimensionless function of the step k; 1 unless given.

    Raises:
        InputError: a schedule that is no function, or not positive.
    """
    return descent(learning_rate, schedule)


def seg(
    learning_rate: optax.ScalarOrSchedule,
    rho: Any,
    *,
    independent: bool = False,
    schedule: Schedule | None = None,
    rho_schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Stochastic extragradient, z⁺ = z - η ψ(k) F_{c1}(z - ρ ψ_ρ(k) F_{c2}(z)) (arXiv 2402.12508).

    Args:
        learning_rate: η.
        rho: ρ of any sign, the extra step.
        independent: whether c1 and c2 are independent draws instead of one.
        schedule: ψ, a dimensionless function of the step k; 1 unless given.
        rho_schedule: ψ_ρ, likewise.

    Raises:
        InputError: as in `extragradient`.
    """
    return extragradient(
        descent(learning_rate, schedule), rho, independent=independent, rho_schedule=rho_schedule
    )


def shgd(
    learning_rate: optax.ScalarOrSchedule, batches: int = 2, *, schedule: Schedule | None = None
) -> optax.GradientTransformationExtraArgs:
    """Stochastic Hamiltonian descent, z⁺ = z - η ψ(k) (J_{c1}ᵀ F_{c2} + J_{c2}ᵀ F_{c1})/2.

    (arXiv 2402.12508; J_cᵀ F_c of one draw for `batches` 1, as its experiments have it.)

    Args:
        learning_rate: η.
        batches: how many draws, 1 or 2.
        schedule: ψ, a dimensionless function of the step k; 1 unless given.

    Raises:
        InputError: as in `hamiltonian`, or a schedule that is no function or not positive.
    """
    return hamiltonian(descent(learning_rate, schedule), batches)
