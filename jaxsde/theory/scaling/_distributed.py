"""How hyperparameters follow compression, the number of agents, and the batch of a sign method."""

from jaxsde import _checks
from jaxsde.theory.scaling._records import (
    Hyperparameters,
    check,
    multiplied,
    one_nonnegative,
    refuse_adaptive,
)
from jaxsde.theory.sign._noise import check_degrees_of_freedom

_KNOBS = ("learning_rate", "batch_size", "agents")


def compression(
    hp: Hyperparameters, omega: float, knob: str, curvature: float = 0.0
) -> dict[str, float]:
    """DCSGD's rule: ω → ω' with η, B or N changed so that the level of the loss stays.

    Keeps F = (η (1 + ω) / (N B)) / (1 - η K ω/N), up to a factor that none of the four changes the
    level of `distributed.loss_bound` for K = L/2 (the sharp rate) or K = L²/(2μ) (the loose one).
    With x = η/N and f = F B before,

        learning_rate: η' = N x',   agents: N' = η/x',   x' = f / (1 + ω' + f K ω'),
        batch_size: B' = (η/(N F)) (1 + ω') / (1 - η K ω'/N).

    At K = 0, to first order in η, and from ω = 0: η → η/(1 + ω'), B → (1 + ω') B or
    N → (1 + ω') N. A smaller η costs 1 + ω' times the steps, a larger B or N the samples.

    Source: arXiv 2502.17009, its scaling rules; K > 0 solves for the bound itself.

    Args:
        hp: the record; without omega ω = 0, and one agent of batch 1 where it does not say.
        omega: ω' ≥ 0.
        knob: what to change, "learning_rate", "batch_size" or "agents".
        curvature: K ≥ 0.

    Returns:
        The record with the new omega and knob.

    Raises:
        InputError: a key or value that the record cannot have, an adaptive method's key, an unknown
            knob or one that is not in the record, K > 0 without learning_rate, or a level that does
            not exist, η K ω ≥ N.
    """
    check(hp)
    refuse_adaptive(hp, "compression is SGD's")
    one_nonnegative("omega", omega)
    one_nonnegative("curvature", curvature)
    _checks.known("knob", knob, _KNOBS)
    for name in [knob] + ["learning_rate"] * (curvature > 0):
        if name not in hp:
            raise _checks.InputError(f"{name} is missing from the record")
    K, before = curvature, hp.get("omega", 0.0)
    x = hp.get("learning_rate", 1.0) / hp.get("agents", 1.0)
    if knob == "batch_size":
        growth = (1 + omega) / _room(x, K, omega) / ((1 + before) / _room(x, K, before))
        return multiplied(hp, batch_size=growth) | {"omega": float(omega)}
    f = x * (1 + before) / _room(x, K, before)
    shrinkage = f / (1 + omega + f * K * omega) / x
    factor = shrinkage if knob == "learning_rate" else 1 / shrinkage
    return multiplied(hp, **{knob: factor}) | {"omega": float(omega)}


def agents_linear(hp: Hyperparameters, factor: float) -> dict[str, float]:
    """DSGD's, DCSGD's and DSignSGD's rule: N → α N with η → α η, all else unchanged.

    Keeps η/N, hence the order-1 SDE in t = k η, compression included: α times fewer steps for the
    same time, the linear speed-up.

    Source: arXiv 2502.17009, its scaling rules.

    Args:
        hp: the record.
        factor: α > 0.

    Raises:
        InputError: a key or value that the record cannot have, an adaptive method's key, or α not
            positive.
    """
    check(hp)
    _checks.positive_number("factor", factor)
    refuse_adaptive(hp, "agents_linear is a rule of SGD and SignSGD")
    return multiplied(hp, learning_rate=factor, agents=factor)


def sign_batch(
    hp: Hyperparameters, factor: float, degrees_of_freedom: float = float("inf")
) -> dict[str, float]:
    """SignSGD's and DSignSGD's rule: B → δ B with η → √δ η, θ → √δ θ.

    Keeps η s_B, s_B = σ/√B the scale of a batch's noise, hence `sign.loss_level`,
    `distributed.sign_loss_level` and the speed of x per sample. Under Student-t noise s_B shrinks
    as B^(1/ν - 1) for 1 < ν < 2, so that √δ becomes δ^(1 - 1/ν): a rule for large B, where the mean
    of B draws is stable. So is √δ for 2 < ν < ∞, where it is Gaussian: the first few draws change
    the shape of the noise too. At ν = 2, s_B falls as √(ln B / B), and √δ leaves out the logarithm.

    Source: arXiv 2502.17009, its scaling rules (Gaussian noise).

    Args:
        hp: the record.
        factor: δ > 0.
        degrees_of_freedom: ν > 1 of the noise; inf is Gaussian.

    Raises:
        InputError: a key or value that the record cannot have, an adaptive method's key, ω > 0, δ
            not positive, or ν ≤ 1, where a larger batch is no quieter.
    """
    check(hp)
    _checks.positive_number("factor", factor)
    refuse_adaptive(hp, "sign_batch is SignSGD's")
    if hp.get("omega", 0) > 0:
        raise _checks.InputError("omega must be 0 here: signs are not compressed further")
    nu = check_degrees_of_freedom(degrees_of_freedom)
    if nu <= 1:
        raise _checks.InputError(
            f"a larger batch is no quieter for degrees_of_freedom <= 1, got {nu:g}: "
            "take agents_linear"
        )
    growth = factor ** (1 - 1 / min(nu, 2))
    return multiplied(hp, learning_rate=growth, batch_size=factor, weight_decay=growth)


def _room(x: float, curvature: float, omega: float) -> float:
    """1 - η K ω/N; refuses what is not positive."""
    room = 1 - x * curvature * omega
    if room <= 0:
        raise _checks.InputError(
            "no level: learning_rate * curvature * omega / agents must be less than 1, got "
            f"{1 - room:g}"
        )
    return room
