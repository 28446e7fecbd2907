"""How hyperparameters follow the batch size, so that the SDE stays."""

import math
from typing import NamedTuple

from jaxsde import _checks
from jaxsde.theory.scaling._records import (
    BETAS,
    Hyperparameters,
    Rule,
    check,
    multiplied,
    refuse_adaptive,
    refuse_compression,
)


def linear(hp: Hyperparameters, factor: float) -> dict[str, float]:
    """SGD's rule: B → κ B with η → κ η, all else unchanged.

    Keeps η/B, hence the order-1 SDE in t = k η, dX = -(∇f + θ X) dt + √(η/B) Σ^(1/2) dW. κ B
    samples a step at κ η a step are the same time per sample. For each of N agents alike (DSGD).

    Args:
        hp: the record.
        factor: κ > 0.

    Raises:
        InputError: a key or value that the record cannot have, an adaptive method's key (b1, b2,
            decay, eps), ω > 0, or κ not positive.
    """
    check(hp)
    _checks.positive_number("factor", factor)
    refuse_adaptive(hp, "the linear rule is SGD's")
    refuse_compression(hp)
    return multiplied(hp, learning_rate=factor, batch_size=factor)


def square_root(hp: Hyperparameters, factor: float) -> dict[str, float]:
    """RMSprop's and Adam's rule: B → κ B with η → √κ η, 1 - β → κ (1 - β), ε → ε/√κ, θ → √κ θ.

    Keeps σ₀ = η σ/√B, cᵢ = (1 - βᵢ)/η², ε₀ = η ε and θ/η: the SDE in the clock t = k η², which
    κ-fold batches pass κ times as fast, so that t per sample stays. The law of x, m and v/σ² is the
    same to O(η²) at equal numbers of samples.

    Source: Malladi et al., arXiv 2205.10287, Definitions 5.1 and 5.2. They have no decoupled
    decay; √κ θ keeps what it does per sample.

    Args:
        hp: the record.
        factor: κ > 0.

    Raises:
        InputError: a key or value that the record cannot have, ω > 0, κ not positive, or
            κ (1 - β) > 1, which no β ≥ 0 satisfies.
    """
    check(hp)
    _checks.positive_number("factor", factor)
    refuse_compression(hp)
    root = math.sqrt(factor)
    betas = _forgetting(hp, factor, 1)
    return (
        multiplied(hp, learning_rate=root, batch_size=factor, eps=1 / root, weight_decay=root)
        | betas
    )


def bound_preserving(hp: Hyperparameters, factor: float) -> dict[str, float]:
    """B → δ B with η → √δ η, 1 - β → √δ (1 - β), ε → ε/√δ, θ → √δ θ.

    Keeps ρᵢ = (1 - βᵢ)/η, η/√B, ε √B and θ/√B, hence `adaptive.loss_level` of RMSprop(W) and
    Adam(W), and the speed of x per sample. Not the law: in samples the averages m and v remember
    √δ times as long, and `adaptive.stationary_variance`, (η/2) / ((h + θ)(1 + β₁ θ/ρ₁)), changes
    through its last factor, where θ grows by √δ. `square_root` keeps the memory, and θ/ρ₁.

    Source: arXiv 2411.15958, Lemma 3.13. It has no ε; ε/√δ keeps its share of √v + ε.

    Args:
        hp: the record.
        factor: δ > 0.

    Raises:
        InputError: a key or value that the record cannot have, ω > 0, δ not positive, or
            √δ (1 - β) > 1, which no β ≥ 0 satisfies.
    """
    check(hp)
    _checks.positive_number("factor", factor)
    refuse_compression(hp)
    root = math.sqrt(factor)
    betas = _forgetting(hp, factor, 1 / 2)
    return (
        multiplied(hp, learning_rate=root, batch_size=factor, eps=1 / root, weight_decay=root)
        | betas
    )


def svag(hp: Hyperparameters, l: float, rule: Rule) -> dict[str, float]:  # noqa: E741
    """The record of SVAG(l), which simulates the SDE at a step l² (SGD: l) times as fine.

    rule(hp, 1/F), F = l for `linear` and l² for `square_root`: the rule backwards. One step draws
    two independent gradients g₁, g₂ and takes r₁ g₁ + r₂ g₂ with r = (1 ± √(2F - 1))/2, whose
    covariance is F times theirs: that of the batch B/F in the record. F steps replace one.

    Source: arXiv 2102.12470 for SGD, arXiv 2205.10287 (Definitions 6.1 and 6.2) for RMSprop, Adam.

    Args:
        hp: the record.
        l: l ≥ 1, whole or not.
        rule: `linear` or `square_root`.

    Raises:
        InputError: l < 1, another rule, or what the rule refuses.
    """
    _checks.positive_number("l", l)
    if l < 1:
        raise _checks.InputError(f"l must be at least 1, got {l:g}")
    if rule is linear:
        return linear(hp, 1 / l)
    if rule is square_root:
        return square_root(hp, 1 / l**2)
    raise _checks.InputError("rule must be scaling.linear or scaling.square_root")


class Scaled(NamedTuple):
    """Hyperparameters in the units of the clock t = k η²; None where the record has none.

    Attributes:
        learning_rate: η; t advances by η² a step.
        sigma_0: σ₀ = η σ/√B.
        eps_0: ε₀ = η ε.
        c_1: (1 - β₁)/η².
        c_2: (1 - β₂)/η².
        c: (1 - β)/η² of RMSprop's decay.
        theta_0: θ/η, the decoupled decay per unit of t.
        l2_regularization: as it was.
    """

    learning_rate: float
    sigma_0: float
    eps_0: float | None = None
    c_1: float | None = None
    c_2: float | None = None
    c: float | None = None
    theta_0: float | None = None
    l2_regularization: float | None = None


_SCALED_BETAS = {"c_1": "b1", "c_2": "b2", "c": "decay"}


def to_scaled(hp: Hyperparameters, sigma: float) -> Scaled:
    """The record in the units of t = k η²: all but the learning rate is what `square_root` keeps.

    Args:
        hp: the record, with its learning_rate; without batch_size, B = 1.
        sigma: σ, the scale of one sample's gradient noise.

    Raises:
        InputError: a key or value that the record cannot have, agents or omega, which these units
            do not know, no learning_rate, or σ not positive.
    """
    check(hp)
    _checks.positive_number("sigma", sigma)
    for name in ("agents", "omega"):
        if name in hp:
            raise _checks.InputError(f"{name} has no scaled form: leave it out of the record")
    if "learning_rate" not in hp:
        raise _checks.InputError("learning_rate is missing from the record")
    eta = hp["learning_rate"]
    fields = {
        "sigma_0": eta * sigma / math.sqrt(hp.get("batch_size", 1)),
        "l2_regularization": hp.get("l2_regularization"),
    }
    if "eps" in hp:
        fields["eps_0"] = eta * hp["eps"]
    if "weight_decay" in hp:
        fields["theta_0"] = hp["weight_decay"] / eta
    for name, beta in _SCALED_BETAS.items():
        if beta in hp:
            fields[name] = (1 - hp[beta]) / eta**2
    return Scaled(learning_rate=eta, **fields)


def from_scaled(scaled: Scaled, sigma: float) -> dict[str, float]:
    """The record with these scaled values, its batch_size B = (η σ/σ₀)² included.

    The inverse of `to_scaled` at the same σ. At another learning rate than the record's own,
    `from_scaled(scaled._replace(learning_rate=...), sigma)` is `square_root` to that learning rate.

    Args:
        scaled: η, σ₀ and the rest.
        sigma: σ, the scale of one sample's gradient noise.

    Raises:
        InputError: a value out of its range; among them η² c > 1, which no β ≥ 0 satisfies.
    """
    _checks.positive_number("learning_rate", scaled.learning_rate)
    _checks.positive_number("sigma_0", scaled.sigma_0)
    _checks.positive_number("sigma", sigma)
    eta = scaled.learning_rate
    hp = {"learning_rate": eta, "batch_size": (eta * sigma / scaled.sigma_0) ** 2}
    if scaled.eps_0 is not None:
        hp["eps"] = scaled.eps_0 / eta
    if scaled.theta_0 is not None:
        hp["weight_decay"] = scaled.theta_0 * eta
    if scaled.l2_regularization is not None:
        hp["l2_regularization"] = scaled.l2_regularization
    for name, beta in _SCALED_BETAS.items():
        rate = getattr(scaled, name)
        if rate is not None:
            _checks.positive_number(name, rate)
            hp[beta] = _beta(
                beta,
                eta**2 * rate,
                f"learning_rate = {eta:g}; the largest that goes is {rate**-0.5:.6g}",
            )
    check(hp)
    return hp


def _forgetting(hp: Hyperparameters, factor: float, power: float) -> dict[str, float]:
    """The record's βs with 1 - β multiplied by factor^power."""
    betas = {name: hp[name] for name in BETAS if name in hp}
    largest = min((1 / (1 - beta) for beta in betas.values()), default=math.inf) ** (1 / power)
    return {
        name: _beta(
            name,
            factor**power * (1 - beta),
            f"factor = {factor:g}; the largest that goes is {largest:.6g}",
        )
        for name, beta in betas.items()
    }


def _beta(name: str, forgetting: float, cause: str) -> float:
    """1 - forgetting; refuses what is no memory, beyond rounding."""
    if forgetting > 1 + 1e-9:
        raise _checks.InputError(f"{name} would be negative at {cause}")
    if forgetting < 1e-15:
        raise _checks.InputError(f"{name} would round to 1 at {cause}")
    return max(1 - forgetting, 0.0)
