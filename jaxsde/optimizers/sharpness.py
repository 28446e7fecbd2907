"""Sharpness-aware minimisation: descent against gradients taken at a perturbed point.

`sharpness_aware` does it for any optimizer; `usam`, `dnsam` and `sam` are its three kinds of
perturbation with plain descent. They ask for the gradient of the same draw at another point,
`grad_fn(params, i)` as optax's own `contrib.sam` does, which `OptimizerProcess` gives them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxsde import _checks
from jaxsde.optimizers._descent import descent, required, same_shapes

NORMS = (None, "full", "batch")
FLOOR = 1e-12


def sharpness_aware(
    optimizer: optax.GradientTransformation,
    rho: Any,
    norm: str | None = "batch",
    *,
    full_perturbation: bool = False,
    micro_batches: int = 1,
    floor: Any = FLOOR,
) -> optax.GradientTransformationExtraArgs:
    """`optimizer` on (1/M) Σ g_c(x + ρ p_c), c = 1 .. M, in the place of g_c(x).

    p_c = g_c(x)            for `norm` None (USAM),
    p_c = g_c(x)/|∇f(x)|    for "full" (DNSAM),
    p_c = g_c(x)/|g_c(x)|   for "batch" (SAM, Foret et al. 2021),

    norms over all arrays and at least `floor`. Both gradients of a c are of one draw.

    Args:
        optimizer: what follows.
        rho: ρ >= 0, the radius.
        norm: what the perturbation is divided by.
        full_perturbation: whether ∇f(x) takes the place of g_c(x) in p_c, in the norm of SAM too
            (the n-variant of arXiv 2509.18001).
        micro_batches: M, independent draws with a perturbation each (the m-variant).
        floor: the least norm that divides.

    Raises:
        InputError: ρ negative, another norm, M below 1, a floor that is not positive; (at an
            update) no `grad_fn`, as inside an `optax.chain`.
    """
    _checks.nonnegative_number("rho", rho)
    _checks.positive("floor", floor)
    if norm not in NORMS:
        raise _checks.InputError(f"norm must be None, 'full' or 'batch', got {norm!r}")
    M = _checks.at_least("micro_batches", micro_batches, 1)
    optimizer = optax.with_extra_args_support(optimizer)

    def perturbation(g_c: PyTree, full: Callable[[], PyTree]) -> PyTree:
        direction = full() if full_perturbation else g_c
        if norm is None:
            return direction
        divisor = jnp.maximum(optax.tree.norm(full() if norm == "full" else direction), floor)
        return jax.tree.map(lambda g: g / divisor, direction)

    def update(updates, state, params=None, *, grad_fn=None, **extra):
        grad_fn = required(grad_fn)
        same_shapes(updates, params)
        total = None
        for c in range(M):
            g_c = updates if c == 0 else grad_fn(params, c)
            p_c = perturbation(g_c, lambda: grad_fn(params, None))
            moved = jax.tree.map(lambda x, p: x + rho * p, params, p_c)
            g_moved = grad_fn(moved, c)
            total = g_moved if total is None else jax.tree.map(jnp.add, total, g_moved)
        mean = jax.tree.map(lambda g: g / M, total)
        return optimizer.update(mean, state, params, **extra)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def usam(
    learning_rate: optax.ScalarOrSchedule,
    rho: Any,
    *,
    full_perturbation: bool = False,
    micro_batches: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """x⁺ = x - η g_c(x + ρ g_c(x)), unnormalised SAM (arXiv 2301.08203).

    Args:
        learning_rate: η.
        rho: ρ >= 0.
        full_perturbation: as in `sharpness_aware`.
        micro_batches: as there.

    Raises:
        InputError: as there.
    """
    return sharpness_aware(
        descent(learning_rate, None), rho, None,
        full_perturbation=full_perturbation, micro_batches=micro_batches,
    )  # fmt: skip


def dnsam(
    learning_rate: optax.ScalarOrSchedule, rho: Any, *, micro_batches: int = 1, floor: Any = FLOOR
) -> optax.GradientTransformationExtraArgs:
    """x⁺ = x - η g_c(x + ρ g_c(x)/|∇f(x)|), SAM with the norm of the full gradient (2301.08203).

    Args:
        learning_rate: η.
        rho: ρ >= 0.
        micro_batches: as in `sharpness_aware`.
        floor: the least |∇f| that divides.

    Raises:
        InputError: as in `sharpness_aware`.
    """
    return sharpness_aware(
        descent(learning_rate, None), rho, "full", micro_batches=micro_batches, floor=floor
    )


def sam(
    learning_rate: optax.ScalarOrSchedule,
    rho: Any,
    *,
    full_perturbation: bool = False,
    micro_batches: int = 1,
    floor: Any = FLOOR,
) -> optax.GradientTransformationExtraArgs:
    """x⁺ = x - η g_c(x + ρ g_c(x)/|g_c(x)|), SAM (Foret et al. 2021; arXiv 2301.08203).

    Args:
        learning_rate: η.
        rho: ρ >= 0.
        full_perturbation: as in `sharpness_aware`.
        micro_batches: as there.
        floor: the least |g_c| that divides.

    Raises:
        InputError: as in `sharpness_aware`.
    """
    return sharpness_aware(
        descent(learning_rate, None), rho, "batch",
        full_perturbation=full_perturbation, micro_batches=micro_batches, floor=floor,
    )  # fmt: skip
