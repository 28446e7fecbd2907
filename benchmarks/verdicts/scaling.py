"""Scaling rules: what each is said to keep, and what keeps it exactly; SVAG, which runs them back.

Where a rule tells a learning rate, the exact value is the root of "the stationary variance stays".
"""

from collections.abc import Callable

import numpy as np
import optax
import scipy.interpolate
import scipy.optimize

from benchmarks.verdicts._adaptive_cases import adam
from benchmarks.verdicts._adaptive_weak import SCALED_RMSPROP, scaled_rmsprop
from benchmarks.verdicts._sign_cases import lattice, noise_cdf
from benchmarks.verdicts._simulated import of_position, square
from benchmarks.verdicts._verdict import Case, Formula
from jaxsde import OptimizerProcess, oracles, theory
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic
from jaxsde.theory import adaptive, distributed, scaling
from jaxsde.theory import gradient_descent as gd

COMPAGNONI = "Compagnoni et al. 2025, arXiv 2411.15958"
MALLADI = "Malladi et al. 2022, arXiv 2205.10287"
SVAG = "Li, Malladi & Arora 2021, arXiv 2102.12470"
DISTRIBUTED = "Compagnoni et al. 2025, arXiv 2502.17009"
ONE = Quadratic(np.ones(1))


def _kept(learning_rate: Callable[[float], float], target: float, guess: float) -> float:
    """The η' near a guess at which a variance, increasing in η', is the target."""
    gap = lambda log: np.log(learning_rate(np.exp(log)) / target)  # noqa: E731
    return float(np.exp(scipy.optimize.brentq(gap, np.log(guess) - 0.7, np.log(guess) + 0.7)))


def _sgd_variance(eta: float, variance: float) -> float:
    return float(gd.stationary_covariance(ONE, [variance], eta, theory.discrete)[0, 0])


def linear_cases() -> list[Case]:
    """The η' at batch κ that keeps SGD's variance at batch 1."""
    cases = []
    for kappa in (4.0, 16.0):
        for eta in (0.02, 0.01, 0.005, 0.0025):
            target = _sgd_variance(eta, 1.0)
            scaled = scaling.linear({"learning_rate": eta, "batch_size": 1.0}, kappa)
            exact = _kept(lambda e, k=kappa: _sgd_variance(e, 1 / k), target, kappa * eta)
            setting = f"κ = {kappa:g}, η λ = {eta:g}"
            cases.append(Case(setting, scaled["learning_rate"], exact, small=eta))
    return cases


def _adamw_variance(hp: dict[str, float]) -> float:
    """Of AdamW on x²/2 with unit noise a sample, V at its mean."""
    found = adaptive.frozen_second_moment_law(
        ONE, 1.0, hp["learning_rate"], theory.discrete, b1=hp["b1"],
        weight_decay=hp["weight_decay"], batch_size=hp["batch_size"],
    )  # fmt: skip
    return float(found.variance[0])


def _simulated(hp: dict[str, float]) -> Callable:
    """The same by simulation."""
    eta, pull = hp["learning_rate"], hp["weight_decay"] + np.sqrt(hp["batch_size"])
    process = adam(eta, b1=hp["b1"], weight_decay=hp["weight_decay"], variance=1 / hp["batch_size"])
    return of_position(process, [0.0], round(8 / (eta * pull)), square)


def square_root_cases() -> list[Case]:
    """AdamW's variance at the base, and after κ = 4, along η → 0 with σ₀, c and θ/η fixed."""
    base = {"learning_rate": 0.02, "b1": 0.98, "weight_decay": 1.0, "batch_size": 1.0}
    scaled, cases = scaling.to_scaled(base, 1.0), []
    for kappa in (4.0, 16.0):
        for eta in (0.02, 0.01, 0.005, 0.0025):
            hp = scaling.from_scaled(scaled._replace(learning_rate=eta), 1.0)
            larger = scaling.square_root(hp, kappa)
            setting = f"AdamW, κ = {kappa:g}, η = {eta:g}"
            simulate = _simulated(larger) if eta == 0.01 else None
            cases.append(
                Case(
                    setting, _adamw_variance(hp), _adamw_variance(larger), None, simulate,
                    small=kappa * eta**2,
                )
            )  # fmt: skip
    return cases


def bound_cases() -> list[Case]:
    """Lemma 3.13: η/√B, θ/√B and the level of the bound, before and after."""
    cases = []
    for delta in (4.0, 16.0):
        for theta in (0.1, 2.0):
            hp = {"learning_rate": 0.005, "b1": 0.98, "weight_decay": theta, "batch_size": 1.0}
            larger = scaling.bound_preserving(hp, delta)
            levels = [
                float(
                    adaptive.loss_level(
                        learning_rate=h["learning_rate"], mu=1.0, hessian_trace=1.0, sigma=1.0,
                        batch_size=h["batch_size"], weight_decay=h["weight_decay"], smoothness=1.0,
                    )
                )
                for h in (hp, larger)
            ]  # fmt: skip
            cases.append(Case(f"δ = {delta:g}, θ = {theta:g}", *levels))
    return cases


def law_cases() -> list[Case]:
    """Lemma 3.13 and the stationary variance of AdamW itself."""
    cases = []
    for delta in (4.0, 16.0):
        for theta in (0.1, 0.5, 2.0):
            hp = {"learning_rate": 0.005, "b1": 0.98, "weight_decay": theta, "batch_size": 1.0}
            larger = scaling.bound_preserving(hp, delta)
            factor = [
                1 + h["b1"] * h["weight_decay"] * h["learning_rate"] / (1 - h["b1"])
                for h in (hp, larger)
            ]
            before = _adamw_variance(hp)
            cases.append(
                Case(
                    f"η = 0.005, β₁ = 0.98, δ = {delta:g}, θ = {theta:g}", before,
                    _adamw_variance(larger), before * factor[0] / factor[1], _simulated(larger),
                )
            )  # fmt: skip
    return cases


def svag_weight_cases() -> list[Case]:
    """r₁² + r₂² by the oracle's weights, and F, the factor of the covariance."""
    cases = []
    for factor in (1.0, 2.0, 4.0, 16.0):
        weights = oracles.SVAG(GaussianNoise(Quadratic(np.ones(1)), 1.0), factor).weights
        exact = sum(float(r) ** 2 for r in weights)
        cases.append(Case(f"F = {factor:g}", factor, exact))
    return cases


def svag_sgd_cases() -> list[Case]:
    """E x² of the SDE at η, and of SVAG(l) at η/l with l times the covariance."""
    eta, x0, time, cases = 0.2, 2.0, 1.0, []
    problem = Quadratic(np.ones(1, np.float32))
    sde = gd.moments(ONE, [1.0], eta, [x0], time)
    for l in (1, 2, 4, 8, 16):  # noqa: E741
        record = scaling.svag({"learning_rate": eta}, l, scaling.linear)
        fine = record["learning_rate"]
        found = gd.moments(ONE, [float(l)], fine, [x0], time, theory.discrete)
        noise = oracles.SVAG(GaussianNoise(problem, 1.0), float(l))
        process = OptimizerProcess(optax.sgd, {"learning_rate": fine}, noise)
        values = [float(m.mean[0] ** 2 + m.covariance[0, 0]) for m in (sde, found)]
        simulate = of_position(process, [x0], round(time / fine), square)
        cases.append(
            Case(f"E x², f = x²/2, η = 0.2, l = {l}", *values, None, simulate, small=1 / l)
        )
    return cases


SKEWED = np.array([2.0, -0.5]), np.array([0.2, 0.8])
"""Values of noise of mean 0, variance 1 and skewness 1.5, and their probabilities."""


def svag_rmsprop_cases() -> list[Case]:
    """RMSprop at η²/l² under skewed noise: by SVAG's pairs; outside, the noise l times as large."""
    values, chances = SKEWED
    pairs, pair_chances = (
        np.stack(np.meshgrid(a, a), -1).reshape(-1, 2) for a in (values, chances)
    )
    names = {"x": (1, 0), "x²": (2, 0)}
    grid = SCALED_RMSPROP._replace(observables=names)
    with_svag: dict[str, list[Case]] = {name: [] for name in names}
    without: dict[str, list[Case]] = {name: [] for name in names}
    for l in (2, 4, 8):  # noqa: E741
        root, steps = np.sqrt(2 * l**2 - 1), 8 * l**2
        atoms = pairs @ np.array([1 + root, 1 - root]) / (2 * l)
        sde = grid.of_sde(scaled_rmsprop(1 / steps))
        paired = grid._replace(atoms=atoms, weights=pair_chances.prod(axis=1))
        plain = grid._replace(atoms=values, weights=chances)
        for chain, sweeps, note in ((paired, with_svag, ""), (plain, without, ", without SVAG")):
            for i, (name, sweep) in enumerate(sweeps.items()):
                setting = f"E {name}, η² = 1/8, l = {l}, skewness 1.5{note}"
                exact = float(chain.of_chain(1 / steps, steps)[i])
                sweep.append(Case(setting, float(sde[i]), exact, inside=not note, small=1 / l**2))
    return [case for group in (with_svag, without) for sweep in group.values() for case in sweep]


def _sign_variance(eta: float, cdf: Callable[[np.ndarray], np.ndarray]) -> float:
    """E x² of SignSGD when e⁻¹² of the start is left."""
    h = 1e-3
    rate = 2 * eta * float(cdf(np.array(h)) - cdf(np.array(-h))) / h / 2
    return float(lattice(eta, cdf, 0.0, round(6 / rate) + 10)[1][-1])


def sign_cases() -> list[Case]:
    """Gaussian noise of scale 1: the η' at batch δ that keeps SignSGD's variance at batch 1."""
    cases = []
    for delta in (4.0, 16.0):
        for eta in (0.04, 0.02, 0.01):
            target = _sign_variance(eta, noise_cdf(np.inf))
            scaled = scaling.sign_batch({"learning_rate": eta, "batch_size": 1.0}, delta)
            cdf = noise_cdf(np.inf, 1 / np.sqrt(delta))
            rule = scaled["learning_rate"]
            exact = _kept(lambda e, F=cdf: _sign_variance(e, F), target, rule)
            cases.append(Case(f"δ = {delta:g}, η λ/σ = {eta:g}", rule, exact, small=eta))
    return cases


def heavy_sign_cases() -> list[Case]:
    """Student-t noise, from batch B to 4 B; the scale of the mean of B is about 5 each time."""
    cases, eta = [], 0.05
    for nu in (1.25, 1.5):
        for B in (4, 16, 64):
            sigma = 5 * B ** (1 - 1 / nu)
            target = _sign_variance(eta, _mean_cdf(B, nu, sigma))
            record = {"learning_rate": eta, "batch_size": float(B)}
            corrected = scaling.sign_batch(record, 4.0, nu)["learning_rate"]
            cdf = _mean_cdf(4 * B, nu, sigma)
            exact = _kept(lambda e, F=cdf: _sign_variance(e, F), target, corrected)
            cases.append(
                Case(f"ν = {nu:g}, B = {B}, δ = 4", 2 * eta, exact, corrected, small=1 / B)
            )
    return cases


def _mean_cdf(B: int, nu: float, sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    """F of the mean of B Student-t draws, interpolated between exact values."""
    z = np.concatenate([-np.geomspace(60, 1e-3, 120), [0.0], np.geomspace(1e-3, 60, 120)])
    table = gd.student_t_cdf(
        z, curvature=0.0, scale=sigma, degrees_of_freedom=nu, learning_rate=1 / B, x0=0.0, steps=B
    )
    spline = scipy.interpolate.PchipInterpolator(z, table)
    return lambda x: spline(np.clip(x, -60, 60))


def agents_cases() -> list[Case]:
    """DSGD: the η' at α N agents that keeps the variance at N = 4."""
    cases = []
    for alpha in (2, 8):
        for eta in (0.1, 0.05, 0.025):
            variance = lambda e, N: float(  # noqa: E731
                distributed.stationary_covariance(ONE, [1.0], e, theory.discrete, agents=N)[0, 0]
            )
            rule = scaling.agents_linear({"learning_rate": eta, "agents": 4.0}, alpha)
            exact = _kept(lambda e, a=alpha, v=variance: v(e, 4 * a), variance(eta, 4), alpha * eta)
            setting = f"α = {alpha}, η λ = {eta:g}"
            cases.append(Case(setting, rule["learning_rate"], exact, small=eta))
    return cases


def compression_cases() -> list[Case]:
    """DCSGD's SDE: the η' under compression ω that keeps the variance without."""
    cases, N = [], 4
    for omega in (1.0, 3.0):
        for eta in (0.4, 0.2, 0.1):
            variance = lambda e, w: float(  # noqa: E731
                distributed.stationary_covariance(ONE, [1.0], e, agents=N, omega=w)[0, 0]
            )
            record = {"learning_rate": eta, "agents": float(N)}
            rules = [
                scaling.compression(record, omega, "learning_rate", curvature=K)["learning_rate"]
                for K in (0.0, 0.5)
            ]
            exact = _kept(lambda e, w=omega, v=variance: v(e, w), variance(eta, 0.0), rules[0])
            setting = f"ω = {omega:g}, N = 4, η λ = {eta:g}"
            cases.append(Case(setting, rules[0], exact, rules[1], small=eta))
    return cases


FORMULAS = (
    Formula(
        "linear rule of SGD",
        "folklore; the order-1 SDE of Li, Tai & E 2019",
        "B → κ B: η → κ η keeps the law",
        "equality",
        "κ η λ ≪ 1",
        "",
        linear_cases,
        order=1,
    ),
    Formula(
        "square-root rule of Adam",
        f"{MALLADI}, Definitions 5.1 and 5.2; θ by {COMPAGNONI}, poster",
        "B → κ B: η → √κ η, 1 - β → κ (1 - β), ε → ε/√κ, θ → √κ θ keeps the law to O(κ η²)",
        "equality",
        "η σ/√B, (1 - β)/η² and θ/η fixed, η → 0",
        "",
        square_root_cases,
        order=1,
    ),
    Formula(
        "square-root rule of AdamW, the bound",
        f"{COMPAGNONI}, Lemma 3.13",
        "B → δ B: η → √δ η, 1 - β → √δ (1 - β), θ → √δ θ keeps the level of the bound",
        "equality",
        "always, of the bound",
        "",
        bound_cases,
    ),
    Formula(
        "square-root rule of AdamW, the loss",
        f"{COMPAGNONI}, Lemma 3.13",
        "the same rule keeps the asymptotic loss",
        "equality",
        "η θ ≪ 1 - β₁",
        "it changes by (1 + β₁θ/ρ₁)/(1 + β₁'√δ θ/ρ₁); 1 - β → δ (1 - β) keeps it",
        law_cases,
    ),
    Formula(
        "covariance of SVAG",
        f"{SVAG}; {MALLADI}, Definition 6.1",
        "r = (1 ± √(2F - 1))/2: covariance F Σ, F = l for SGD, l² for Adam",
        "equality",
        "any noise",
        "",
        svag_weight_cases,
    ),
    Formula(
        "SVAG and the SDE of SGD",
        SVAG,
        "error ≤ C/l",
        "equality",
        "fixed η and time, l → ∞",
        "",
        svag_sgd_cases,
        order=1,
    ),
    Formula(
        "SVAG and the SDE of RMSprop",
        f"{MALLADI}, Theorem 6.3",
        "error ≤ C/l²",
        "equality",
        "fixed η and time, l → ∞, any skewness; outside: the same noise without SVAG, which is not "
        "of low skewness",
        "",
        svag_rmsprop_cases,
        order=1,
    ),
    Formula(
        "batch rule of SignSGD",
        f"{DISTRIBUTED}, scaling rules",
        "B → δ B: η → √δ η keeps the loss",
        "equality",
        "Gaussian noise, √δ η λ ≪ σ",
        "",
        sign_cases,
        order=1,
    ),
    Formula(
        "batch rule of SignSGD under heavy tails",
        f"{DISTRIBUTED}, scaling rules",
        "the same",
        "equality",
        "ν ≥ 2 only",
        "η → δ^(1-1/ν) η for 1 < ν < 2",
        heavy_sign_cases,
    ),
    Formula(
        "agents rule of DSGD",
        f"{DISTRIBUTED}, scaling rules",
        "N → α N: η → α η keeps the SDE",
        "equality",
        "α η λ ≪ 1",
        "",
        agents_cases,
        order=1,
    ),
    Formula(
        "compression rule of DCSGD",
        f"{DISTRIBUTED}, scaling rules",
        "ω → ω': η → η (1 + ω)/(1 + ω') keeps the level",
        "equality",
        "η ω λ ≪ N",
        "η' = N x', x' = f/(1 + ω' + f K ω'), K = λ/2",
        compression_cases,
        order=1,
    ),
)
