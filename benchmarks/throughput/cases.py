"""What is simulated, in plain floats and NumPy arrays, so that no peer needs another's library.

With ξ ~ N(0, I) of d coordinates a step, h = diag(H), g(x) the gradient of f, and dt = η:

| equation | one step | f, read at the end |
|---|---|---|
| sign | x - erf(g/(σ√2)) dt + √(η dt) √(1 - erf²) ξ | Σ h x²/2 |
| gbm | x + μ x dt + s x √dt ξ | Σ x |
| adamw | Euler-Maruyama of the AdamW SDE, see `AdamW` | Σ h x²/2 |
| dense | x - H x dt + √(η dt) Σ^{1/2} ξ | xᵀ H x/2 |
| sign-optimizer | x - η sign(g(x) + σ ξ) | Σ h x²/2 |
| adamw-optimizer | AdamW as optax has it, on g(x) + σ ξ | Σ h x²/2 |

All start at x = 1 and run in float32. dt is a power of two, so that times are exact in float32.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

OPTIMIZERS = ("sign-optimizer", "adamw-optimizer")
STATE = {"adamw": 3, "adamw-optimizer": 3}  # arrays of d that the state holds, if not one


@dataclasses.dataclass(frozen=True)
class Sign:
    """f = Σ h x²/2 with gradient noise of standard deviation σ."""

    h: np.ndarray
    sigma: float


@dataclasses.dataclass(frozen=True)
class GeometricBrownianMotion:
    """Drift μ and volatility s, coordinate by coordinate."""

    mu: np.ndarray
    s: np.ndarray


@dataclasses.dataclass(frozen=True)
class AdamW:
    """The AdamW SDE (Compagnoni et al. 2025, Theorem 3.12), ρᵢ = (1 - βᵢ)/η, in the clock t = k η.

    dX = -√γ₂/γ₁ (M + η ρ₁ (g - M))/(√V + ε √γ₂) dt - θ X dt,    γᵢ = 1 - exp(-ρᵢ (t + η)),
    dM = ρ₁ (g - M) dt + √η ρ₁ σ dW,    dV = ρ₂ (g² + σ² - V) dt;

    M starts at 0 and V, which is singular at 0, where one step takes it: γ₂(0) (g² + σ²).
    """

    h: np.ndarray
    sigma: float
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.1


@dataclasses.dataclass(frozen=True)
class Dense:
    """f = xᵀ H x/2 with gradient noise of a dense covariance, and a root of it."""

    H: np.ndarray
    covariance: np.ndarray
    root: np.ndarray


@dataclasses.dataclass(frozen=True)
class Case:
    """One ensemble; `only` names the peers it is meant for, all if empty."""

    name: str
    equation: str
    d: int
    paths: int
    check_steps: int = 32
    dt: float = 2.0**-7
    only: tuple[str, ...] = ()

    @property
    def parameters(self) -> Any:
        """The equation's."""
        h = np.linspace(0.5, 2.0, self.d, dtype=np.float32)
        match self.equation:
            case "gbm":
                mu, s = np.linspace(0.02, 0.08, self.d), np.linspace(0.2, 0.4, self.d)
                return GeometricBrownianMotion(mu.astype(np.float32), s.astype(np.float32))
            case "adamw" | "adamw-optimizer":
                return AdamW(h, 0.5)
            case "dense":
                return _dense(self.d)
        return Sign(h, 1.0)

    @property
    def state(self) -> int:
        """How many numbers of state a coordinate has."""
        return STATE.get(self.equation, 1)


def _dense(d: int) -> Dense:
    """Eigenvalues in [1/2, 2] of H and [0.1, 1] of the covariance, in random bases."""
    rng = np.random.default_rng(0)

    def matrix(low, high):
        Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
        return (Q * np.linspace(low, high, d)) @ Q.T

    H, covariance = matrix(0.5, 2.0), matrix(0.1, 1.0)
    root = np.linalg.cholesky(covariance)
    return Dense(*(array.astype(np.float32) for array in (H, covariance, root)))


CASES = (
    Case("sign-sgd-1", "sign", 1, 10**5),
    Case("sign-sgd-10", "sign", 10, 10**4),
    Case("sign-sgd-100", "sign", 100, 10**3),
    Case("sign-sgd-10-wide", "sign", 10, 10**6, check_steps=4),
    Case("gbm-3", "gbm", 3, 10**5, check_steps=16),
    Case("adamw-sde-10", "adamw", 10, 10**4),
    Case("dense-sgd-50", "dense", 50, 4_000, check_steps=16),
    Case("sign-sgd-optimizer-10", "sign-optimizer", 10, 10**4),
    Case("adamw-optimizer-10", "adamw-optimizer", 10, 10**4),
)
REGIMES = {
    "throughput": tuple(
        Case(f"throughput-1e{k}", "gbm", 3, 10**k, check_steps=2, only=("jaxsde",))
        for k in (6, 7, 8)
    ),
    "latency": tuple(
        Case(f"latency-1e{k}", "sign", 10, 10 ** (k - 1), check_steps=256, only=("jaxsde",))
        for k in (3, 4, 5)
    ),
}
BY_NAME = {case.name: case for group in (CASES, *REGIMES.values()) for case in group}


def find(name: str, quick: bool = False) -> Case:
    """The case of that name; `quick` leaves at most 2,000 paths of it."""
    case = BY_NAME[name]
    return dataclasses.replace(case, paths=min(case.paths, 2_000)) if quick else case


def chosen(names: Sequence[str] | None, regimes: Sequence[str] | None) -> list[str]:
    """The names asked for, the regimes' cases, or by default the ordinary ones."""
    of_regimes = [case.name for regime in regimes or () for case in REGIMES[regime]]
    if names is None:
        return of_regimes or [case.name for case in CASES]
    return list(dict.fromkeys([*names, *of_regimes]))
