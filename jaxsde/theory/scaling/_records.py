"""Records of hyperparameters: which keys they may have, and what each rule asks of them."""

from collections.abc import Callable, Mapping

import numpy as np

from jaxsde import _checks

Hyperparameters = Mapping[str, float]
Rule = Callable[[Hyperparameters, float], dict[str, float]]


def one_nonnegative(name: str, value: float) -> None:
    """Refuses anything but one finite number that is not negative."""
    _checks.nonnegative(name, value)
    if np.ndim(value) != 0:
        raise _checks.InputError(f"{name} must be one number, got shape {np.shape(value)}")


_CHECKS = {
    "learning_rate": _checks.positive_number,
    "b1": _checks.fraction,
    "b2": _checks.fraction,
    "decay": _checks.fraction,
    "eps": _checks.nonnegative,
    "weight_decay": _checks.nonnegative,
    "l2_regularization": _checks.nonnegative,
    "batch_size": _checks.positive_number,
    "agents": _checks.positive_number,
    "omega": one_nonnegative,
}
BETAS = ("b1", "b2", "decay")


def check(hp: Hyperparameters) -> None:
    """Refuses keys and values that a record cannot have."""
    for name, value in hp.items():
        _checks.known("hyperparameter", name, _CHECKS)
        _CHECKS[name](name, value)


def refuse_adaptive(hp: Hyperparameters, rule: str) -> None:
    """Refuses an adaptive method's record, for a rule of SGD or SignSGD."""
    adaptive = [name for name in (*BETAS, "eps") if name in hp]
    if adaptive:
        raise _checks.InputError(
            f"{rule}, and {', '.join(adaptive)} an adaptive method's: "
            "take square_root or bound_preserving"
        )


def refuse_compression(hp: Hyperparameters) -> None:
    """Refuses ω > 0, for a rule that follows the batch."""
    if hp.get("omega", 0) > 0:
        raise _checks.InputError(
            f"omega must be 0 here, got {hp['omega']:g}: the noise of compression does not shrink "
            "with the batch; take compression or agents_linear"
        )


def multiplied(hp: Hyperparameters, **factors: float) -> dict[str, float]:
    """The record with the values that it has multiplied."""
    return {name: value * factors.get(name, 1) for name, value in hp.items()}
