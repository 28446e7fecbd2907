"""What is simulated, in plain floats and NumPy arrays, so that no peer needs another's library.

With ξ ~ N(0, I) of d coordinates a step, h = diag(H), g(x) the gradient of f, n = |g|, and dt = η:

| equation | one step | f, read at the end |
|---|---|---|
| sign | x - erf(g/(σ√2)) dt + √(η dt) √(1 - erf²) ξ | Σ h x²/2 |
| gbm | x + μ x dt + s x √dt ξ | Σ x |
| adamw | Euler-Maruyama of the AdamW SDE, see `AdamW` | Σ h x²/2 |
| dense | x - H x dt + √(η dt) Σ^{1/2} ξ | xᵀ H x/2 |
| rmsprop | Euler-Maruyama of the RMSprop SDE, see `RMSprop` | xᵀ H x/2 |
| rmsprop-order-2 | the same of its order-2 SDE, two ξ a step | xᵀ H x/2 |
| adam-order-2 | the same of Adam's order-2 SDE, see `AdamW`, two ξ a step | Σ h x²/2 |
| usam | x - (I + ρ H) (g dt + √(η dt) σ ξ) | xᵀ H x/2 |
| dnsam | x - (I + ρ H/n) (g dt + √(η dt) σ ξ) | xᵀ H x/2 |
| sam | Euler-Maruyama of the SAM SDE, see `SharpnessAware`, two ξ a step | xᵀ H x/2 |
| sign-optimizer | x - η sign(g(x) + σ ξ) | Σ h x²/2 |
| adamw-optimizer | AdamW as optax has it, on g(x) + σ ξ | Σ h x²/2 |

A coordinate-step moves one of the d coordinates of x by one step, however much state and noise go
with it. All start at x = 1 unless the case has a `start`, and run in float32. dt is a power of two,
so that times are exact in float32.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

OPTIMIZERS = ("sign-optimizer", "adamw-optimizer")
STATE = {  # arrays of d that the state holds, if not one
    "rmsprop": 2, "rmsprop-order-2": 2, "adamw": 3, "adam-order-2": 3, "adamw-optimizer": 3
}  # fmt: skip
MOTIONS = {  # Brownian motions of d, if not one
    "rmsprop-order-2": 2, "adam-order-2": 2, "sam": 2
}  # fmt: skip


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

    adam-order-2 is `jaxsde.sdes.Adam(order=2)` with its defaults: θ = 0, the new v, the exact
    γᵢ = 1 - βᵢ^{t/η + 1}, and a start at t = η from M = (1 - β₁) g and V = (1 - β₂) (g² + σ²).
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
class RMSprop:
    """The RMSprop SDEs of `jaxsde.sdes.RMSprop`, ρ = (1 - β)/η and s = diag R Rᵀ; V starts at rest.

    Order 1, with D = 1/(√V + ε):

        dX = -D (g dt + √η R dW),    dV = ρ (g² + s - V) dt.

    Order 2, for an update that divides by the old v, with r = √max(V, (1 - β) s), D = 1/(r + ε):

        dX = -D (g + (η/2) H D g + (η ρ/4) (g D/r) (g² + s - V)) dt - √η D R dW,
        dV = ρ ((1 + η ρ/2) (g² + s - V) + η g H D g) dt + √η ρ (2 g R dW + Q dB).

    H, R and Q are (d, d), or their diagonals (d,). Q Qᵀ = 2 (R Rᵀ)². Products of vectors, squares
    and roots are elementwise. V stays far above the floor (1 - β) s in these cases.
    """

    H: np.ndarray
    root: np.ndarray
    rho: float = 0.5
    eps: float = 1e-6

    @property
    def variance(self) -> np.ndarray:
        """s."""
        return self.root**2 if self.root.ndim == 1 else (self.root**2).sum(1)

    @property
    def squares_root(self) -> np.ndarray:
        """Q."""
        if self.root.ndim == 1:
            return np.float32(math.sqrt(2)) * self.root**2
        covariance = self.root.astype(np.float64) @ self.root.T
        return np.linalg.cholesky(2 * covariance**2).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class SharpnessAware:
    """f = xᵀ H x/2 under N(0, σ² I) gradient noise; ρ is the radius of the perturbation.

    The SAM SDE of `jaxsde.sdes.SAM`, with s = |g|/σ, ĝ = g/|g| and two Brownian motions, is

        dX = -(g + (ρ α/σ) H g) dt - √η (σ dW + ρ H (P(β, α) dW + P(√l, √c) dB)),
        P(along, across) = across I + (along - across) ĝ ĝᵀ,

    where, with q = s²/2, K = √2 Γ((d+1)/2)/(d Γ(d/2)) and Kummer's 1F1,

        α = K 1F1(1/2; d/2 + 1; -q),    β = K 1F1(3/2; d/2 + 1; -q),
        τ = 1F1(1; d/2 + 1; -q)/d,      c = τ - α²,    l = 1 - (d - 1) τ - (α s)² - β².
    """

    H: np.ndarray
    sigma: float = 0.01
    rho: float = 0.1

    @property
    def gain(self) -> np.ndarray:
        """I + ρ H."""
        return np.eye(len(self.H), dtype=np.float32) + np.float32(self.rho) * self.H


@dataclasses.dataclass(frozen=True)
class Case:
    """One ensemble; `start` is x at first, `only` names the peers it is meant for, all if empty."""

    name: str
    equation: str
    d: int
    paths: int
    check_steps: int = 32
    dt: float = 2.0**-7
    start: tuple[float, ...] = ()
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
            case "adam-order-2":
                return AdamW(h, 0.5, weight_decay=0.0)
            case "rmsprop" | "rmsprop-order-2" if self.d == 2:  # f of x - γ, γ ~ σ N(0, I)
                A = np.array([[1, 0.5], [0.5, 1]], np.float32)
                return RMSprop(A, np.float32(0.25) * A)
            case "rmsprop" | "rmsprop-order-2":
                return RMSprop(h, np.full(self.d, 0.5, np.float32))
            case "dense":
                return _dense(self.d)
            case "usam" | "dnsam" | "sam":
                A = np.random.default_rng(0).standard_normal((self.d, 2 * self.d))
                return SharpnessAware((A @ A.T / (2 * self.d)).astype(np.float32))
        return Sign(h, 1.0)

    @property
    def x0(self) -> np.ndarray:
        """x at the start."""
        return np.array(self.start or [1] * self.d, np.float32)

    @property
    def state(self) -> int:
        """How many numbers of state a coordinate has."""
        return STATE.get(self.equation, 1)

    @property
    def motions(self) -> int:
        """How many normals a coordinate takes a step."""
        return MOTIONS.get(self.equation, 1)


def _dense(d: int) -> Dense:
    """Eigenvalues in [1/2, 2] of H and [0.1, 1] of the covariance, in random bases."""
    rng = np.random.default_rng(0)

    def matrix(low, high):
        Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
        return (Q * np.linspace(low, high, d)) @ Q.T

    H, covariance = matrix(0.5, 2.0), matrix(0.1, 1.0)
    root = np.linalg.cholesky(covariance)
    return Dense(*(array.astype(np.float32) for array in (H, covariance, root)))


class Published(NamedTuple):
    """Scripts whose problem a case is, measured before, on 2 cores, not in the run reported."""

    coordinate_steps_per_second: float
    how: str


PUBLISHED = {
    "rmsprop-sde-2": Published(5.0e6, "torchsde, general noise"),
    "rmsprop-sde-2-order-2": Published(3.8e6, "torchsde, general noise"),
    "usam-sde-20": Published(2e4, "one path, float64"),
    "sam-sde-20": Published(700.0, "one path, float64, sampled drift and covariance"),
}
_SCRIPTS = {"d": 2, "paths": 10**4, "check_steps": 256, "start": (10.0, 5.0)}
_QUADRATIC = {  # of arXiv 2301.08203, whose η is 0.01
    "d": 20, "paths": 10**3, "check_steps": 64,
    "start": tuple(np.random.default_rng(1).standard_normal(20)),
}  # fmt: skip
_ONLY_JAX = ("jaxsde", "jax-paths-last", "jax-paths-first")
CASES = (
    Case("sign-sgd-1", "sign", 1, 10**5),
    Case("sign-sgd-10", "sign", 10, 10**4),
    Case("sign-sgd-100", "sign", 100, 10**3),
    Case("sign-sgd-10-wide", "sign", 10, 10**6, check_steps=4),
    Case("gbm-3", "gbm", 3, 10**5, check_steps=16),
    Case("adamw-sde-10", "adamw", 10, 10**4),
    Case("rmsprop-sde-2", "rmsprop", **_SCRIPTS),
    Case("rmsprop-sde-2-order-2", "rmsprop-order-2", **_SCRIPTS),
    Case("rmsprop-sde-10", "rmsprop", 10, 10**4),
    Case("adam-sde-10-order-2", "adam-order-2", 10, 10**4, only=_ONLY_JAX),
    Case("dense-sgd-50", "dense", 50, 4_000, check_steps=16),
    Case("usam-sde-20", "usam", **_QUADRATIC),
    Case("dnsam-sde-20", "dnsam", **_QUADRATIC),
    Case("sam-sde-20", "sam", **_QUADRATIC, only=(*_ONLY_JAX, "jax-monte-carlo")),
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
