"""RMSprop(W) and Adam(W) with every convention of the SDE literature.

Optax has most of them, and these are its own transformations wherever it does. What it lacks:
RMSprop with decoupled decay, the old second moment in the update, Adam without bias correction. The
keyword arguments are those of `jaxsde.sdes.RMSprop` and `jaxsde.sdes.Adam`, so one dictionary
serves both.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from jaxsde import _checks

V_TIMINGS = ("new", "old")
Number = float | Array


def rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    decay: Number = 0.9,
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    l2_regularization: Number = 0.0,
    initial_second_moment: Number = 0.0,
    *,
    bias_correction: bool = False,
    v_timing: str = "new",
) -> optax.GradientTransformationExtraArgs:
    """RMSprop, with ε outside the root; RMSpropW with `weight_decay`.

        g' = g + λ x,    v⁺ = β v + (1 - β) g'²,
        x⁺ = x - η (g'/(√v̂ + ε) + θ x),    v̂ = v⁺ ("new") or v ("old").

    With bias correction v̂ = v⁺/(1 - β^{k+1}), or v/(1 - βᵏ) and no gradient step at k = 0.
    "new" without decays is `optax.rmsprop(η, β, ε, eps_in_sqrt=False)`, with the same
    `bias_correction` and v₀ as `initial_scale`; optax's default has ε inside the root.
    "old" is RMSprop as analysed by Malladi et al. 2022; θ is decoupled decay as in RMSpropW
    (Compagnoni et al. 2025).

    Args:
        learning_rate: η, or a schedule of k.
        decay: β, in [0, 1).
        eps: ε >= 0.
        weight_decay: θ >= 0, decoupled.
        l2_regularization: λ >= 0: the gradient is that of f + λ|x|²/2.
        initial_second_moment: v₀, a scalar or of x's shape.
        bias_correction: whether v is corrected for its start at 0.
        v_timing: "new" or "old".

    Raises:
        InputError: a parameter out of range, v₀ with bias correction, or the old v with v₀ = 0 and
            ε = 0.
    """
    _checks.fraction("decay", decay)
    _check(eps, weight_decay, l2_regularization, initial_second_moment, bias_correction, v_timing)
    if v_timing == "new":
        scale = optax.scale_by_rms(decay, eps, initial_second_moment, False, bias_correction)
    else:
        scale = _scale_by_moments(0.0, decay, eps, initial_second_moment, bias_correction, v_timing)
    return _chain(scale, learning_rate, weight_decay, l2_regularization)


def adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    l2_regularization: Number = 0.0,
    initial_second_moment: Number = 0.0,
    *,
    bias_correction: bool = True,
    v_timing: str = "new",
) -> optax.GradientTransformationExtraArgs:
    """Adam; AdamW with `weight_decay`, Adam on the L2-regularised loss with `l2_regularization`.

        g' = g + λ x,    m⁺ = β₁ m + (1 - β₁) g',    v⁺ = β₂ v + (1 - β₂) g'²,
        x⁺ = x - η (m̂/(√v̂ + ε) + θ x),    m̂ = m⁺/(1 - β₁^{k+1}),
        v̂ = v⁺/(1 - β₂^{k+1}) ("new") or v/(1 - β₂ᵏ) ("old", no gradient step at k = 0).

    Without bias correction m̂ = m⁺, v̂ = v⁺ or v. "new" with it is `optax.adamw(η, β₁, β₂, ε,
    weight_decay=θ)`, after `optax.add_decayed_weights(λ)`; with θ = 0 `optax.adam`. "old" is Adam
    as analysed by Malladi et al. 2022.

    Args:
        learning_rate: η, or a schedule of k.
        b1: β₁, in [0, 1).
        b2: β₂, in [0, 1).
        eps: ε >= 0, outside the root.
        weight_decay: θ >= 0, decoupled.
        l2_regularization: λ >= 0: the gradient is that of f + λ|x|²/2.
        initial_second_moment: v₀, a scalar or of x's shape, for Adam without bias correction.
        bias_correction: whether m and v are corrected for their start at 0.
        v_timing: "new" or "old".

    Raises:
        InputError: a parameter out of range, v₀ with bias correction, or, without it, the old v
            with v₀ = 0 and ε = 0.
    """
    _checks.fraction("b1", b1)
    _checks.fraction("b2", b2)
    _check(eps, weight_decay, l2_regularization, initial_second_moment, bias_correction, v_timing)
    if v_timing == "new" and bias_correction:
        scale = optax.scale_by_adam(b1, b2, eps)
    else:
        scale = _scale_by_moments(b1, b2, eps, initial_second_moment, bias_correction, v_timing)
    return _chain(scale, learning_rate, weight_decay, l2_regularization)


def _scale_by_moments(
    b1: Number,
    b2: Number,
    eps: Number,
    initial_second_moment: Number,
    bias_correction: bool,
    v_timing: str,
) -> optax.GradientTransformation:
    """m̂/(√v̂ + ε), in the state of `optax.scale_by_adam`."""

    def init(params):
        return optax.ScaleByAdamState(
            count=jnp.zeros([], jnp.int32),
            mu=optax.tree.zeros_like(params),
            nu=optax.tree.full_like(params, initial_second_moment),
        )

    def update(updates, state, params=None):
        del params
        k = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        m, v, age = (mu, nu, k) if v_timing == "new" else (mu, state.nu, state.count)
        if bias_correction:
            m = optax.tree.bias_correction(m, b1, k)
            v = optax.tree.bias_correction(v, b2, jnp.maximum(age, 1))
        moves = jnp.logical_or(jnp.greater(age, 0), not bias_correction)
        scaled = jax.tree.map(lambda m, v: jnp.where(moves, m / (jnp.sqrt(v) + eps), 0), m, v)
        return scaled, optax.ScaleByAdamState(k, mu, nu)

    return optax.GradientTransformation(init, update)


def _chain(
    scale: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: Number,
    l2_regularization: Number,
) -> optax.GradientTransformationExtraArgs:
    return optax.chain(
        optax.add_decayed_weights(l2_regularization),
        scale,
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def _check(
    eps: Any,
    weight_decay: Any,
    l2_regularization: Any,
    initial_second_moment: Any,
    bias_correction: bool,
    v_timing: str,
) -> None:
    for name, value in (
        ("eps", eps),
        ("weight_decay", weight_decay),
        ("l2_regularization", l2_regularization),
        ("initial_second_moment", initial_second_moment),
    ):
        _checks.nonnegative(name, value)
    _checks.known("v_timing", v_timing, V_TIMINGS)
    start, floor = _checks.concrete(initial_second_moment), _checks.concrete(eps)
    if start is None or floor is None:
        return
    if bias_correction and np.any(start > 0):
        raise _checks.InputError(
            "bias correction assumes that v starts at 0: leave initial_second_moment out, or "
            "switch bias_correction off"
        )
    if v_timing == "old" and not bias_correction and floor == 0 and np.any(start == 0):
        raise _checks.InputError(
            "the first update would divide by the old v = 0 with eps = 0: give a positive "
            "initial_second_moment or eps, or use the new v"
        )
