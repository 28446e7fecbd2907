"""The settings of `adaptive` at rest: stationary laws and loss levels beside exact laws."""

from typing import Any

import numpy as np

from benchmarks.verdicts._simulated import of_position, square
from benchmarks.verdicts._verdict import Case
from jaxsde import OptimizerProcess, optimizers, theory
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic
from jaxsde.theory import adaptive

ETAS = (0.04, 0.02, 0.01, 0.005)
SLOW = 5e-4  # 1 - β₂ of simulations: v fluctuates, and the exact laws hold it at its mean
ONE = Quadratic(np.ones(1))


def adam(eta: float, **settings: float) -> OptimizerProcess:
    """Adam(W) on (x - x*)²/2 with noise of a variance, its v started at rest."""
    return _process(optimizers.adam, eta, {"b1": 0.9, "b2": 1 - SLOW} | settings)


def rmsprop(eta: float, **settings: float) -> OptimizerProcess:
    """RMSprop(W), likewise."""
    return _process(optimizers.rmsprop, eta, {"decay": 1 - SLOW} | settings)


def _process(factory, eta, settings):
    noise = {"variance": 1.0, "minimizer": 0.0}
    noise |= {name: settings.pop(name) for name in noise if name in settings}
    problem = Quadratic(np.ones(1, np.float32), np.full(1, noise["minimizer"], np.float32))
    decays = {"weight_decay": 0.0, "l2_regularization": 0.0}
    decays |= {name: settings[name] for name in decays if name in settings}
    law = adaptive.frozen_second_moment_law(
        problem, noise["variance"], eta, theory.discrete, b1=settings.get("b1", 0.0), **decays
    )
    numbers = decays | settings | {"learning_rate": eta, "eps": 1e-12}
    numbers["initial_second_moment"] = float(law.second_moment[0])
    if factory is optimizers.adam:
        numbers["bias_correction"] = False
    oracle = GaussianNoise(problem, np.sqrt(noise["variance"]))
    return OptimizerProcess(factory, numbers, oracle)


def _exact(eta: float, variance: float = 1.0, **settings: Any) -> float:
    """Var x of the algorithm on x²/2, v at its mean."""
    found = adaptive.frozen_second_moment_law(ONE, variance, eta, theory.discrete, **settings)
    return float(found.variance[0])


def _stationary(process, eta, pull=1.0):
    """E x² when e^(-16) of the start is left."""
    return of_position(process, [0.0], round(8 / (eta * pull)), square)


def rmsprop_cases(decay: float) -> list[Case]:
    """Var x of RMSprop(W) at rest."""
    settings = {"weight_decay": decay}
    return [
        Case(
            f"η λ/σ = {eta:g}" + (f", θ = {decay:g}" if decay else ""),
            float(adaptive.stationary_variance(ONE, 1.0, eta, published=True, **settings)[0]),
            _exact(eta, **settings), None,
            _stationary(rmsprop(eta, **settings), eta, 1 + decay), small=eta,
        )
        for eta in ETAS
    ]  # fmt: skip


def adam_cases() -> list[Case]:
    """Var x of Adam at rest."""
    return [
        Case(
            f"η λ/σ = {eta:g}, β₁ = {b1:g}",
            float(adaptive.stationary_variance(ONE, 1.0, eta, b1=b1, published=True)[0]),
            _exact(eta, b1=b1), None, _stationary(adam(eta, b1=b1), eta), small=eta,
        )
        for b1 in (0.9, 0.98)
        for eta in ETAS
    ]  # fmt: skip


def adamw_cases() -> list[Case]:
    """At fixed ρ₁ = (1 - β₁)/η, the regime of the SDE."""
    cases = []
    for rho, theta in ((10.0, 1.0), (2.0, 1.0), (2.0, 4.0)):
        for eta in ETAS:
            settings = {"b1": 1 - rho * eta, "weight_decay": theta}
            published, corrected = (
                float(adaptive.stationary_variance(ONE, 1.0, eta, published=form, **settings)[0])
                for form in (True, False)
            )
            cases.append(
                Case(
                    f"η = {eta:g}, ρ₁ = {rho:g}, θ = {theta:g}", published,
                    _exact(eta, **settings), corrected,
                    _stationary(adam(eta, **settings), eta, 1 + theta), small=eta,
                )
            )  # fmt: skip
    return cases


def published_sde_cases() -> list[Case]:
    """Theorem 3.12's SDE at fixed ρ₁; outside, at fixed β₁."""

    def case(eta, b1, setting, **options):
        published, corrected = (
            float(
                adaptive.frozen_second_moment_law(ONE, 1.0, eta, b1=b1, published=form).variance[0]
            )
            for form in (True, False)
        )
        simulate = _stationary(adam(eta, b1=b1), eta)
        return Case(setting, published, _exact(eta, b1=b1), corrected, simulate, **options)

    inside = [
        case(eta, 1 - rho * eta, f"η = {eta:g}, ρ₁ = {rho:g}", small=eta)
        for rho in (2.0, 10.0)
        for eta in ETAS
    ]
    outside = [
        case(0.005, b1, f"η = 0.005, β₁ = {b1:g} fixed", inside=False) for b1 in (0.99, 0.9, 0.5)
    ]
    return inside + outside


def printed_momentum_noise_cases() -> list[Case]:
    """√(η ρ₁) for √η ρ₁ in dM divides the variance by ρ₁."""
    cases, eta = [], 0.005
    for rho in (2.0, 10.0, 20.0):
        b1 = 1 - rho * eta
        published = adaptive.frozen_second_moment_law(ONE, 1.0, eta, b1=b1, published=True)
        corrected = adaptive.frozen_second_moment_law(ONE, 1.0, eta, b1=b1)
        cases.append(
            Case(
                f"η = 0.005, ρ₁ = {rho:g}", float(published.variance[0]) / rho, _exact(eta, b1=b1),
                float(corrected.variance[0]), _stationary(adam(eta, b1=b1), eta),
            )
        )  # fmt: skip
    return cases


def _level(curvatures, sigma, B, eta, published=False, **decay):
    lam = np.asarray(curvatures)
    return float(
        adaptive.loss_level(
            learning_rate=eta, mu=lam.min(), hessian_trace=lam.max() * len(lam), sigma=sigma,
            batch_size=B, smoothness=lam.max(), published=published, **decay,
        )
    )  # fmt: skip


def _loss(curvatures, sigma, B, eta, minimizer=0.0, b1=0.9, **decay):
    """E f - f* of Adam(W) at rest."""
    problem = Quadratic(np.asarray(curvatures), np.full(len(curvatures), minimizer))
    found = adaptive.frozen_second_moment_law(
        problem, sigma**2, eta, theory.discrete, b1=b1, batch_size=B, **decay
    )
    return float(theory.expected_loss(problem, found.moments))


def _half_square(x):
    """x₁²/2."""
    return x[0] ** 2 / 2


LEVELS = (("isotropic", [1.0]), ("diag(1, 4, 10)", [1.0, 4, 10]))


def l2_level_cases() -> list[Case]:
    """E f - f* of Adam on the regularised loss, at rest."""
    cases, eta, sigma, decay = [], 0.002, 2.0, {"l2_regularization": 1.6}
    for B, inside in ((1.0, True), (4.0, True), (16.0, True), (0.25, False)):
        for name, lam in LEVELS if inside else LEVELS[:1]:
            simulate = None
            if name == "isotropic":
                process = adam(eta, variance=sigma**2 / B, **decay)
                pull = 2.6 * np.sqrt(B) / sigma
                simulate = of_position(process, [0.0], round(8 / (eta * pull)), _half_square)
            cases.append(
                Case(
                    f"{name}, σ = 2, θ = 1.6, B = {B:g}", _level(lam, sigma, B, eta, True, **decay),
                    _loss(lam, sigma, B, eta, **decay), _level(lam, sigma, B, eta, **decay),
                    simulate, inside,
                )
            )  # fmt: skip
    return cases


def decoupled_level_cases() -> list[Case]:
    """E f - f* of AdamW at rest."""
    cases, eta = [], 0.002
    for sigma, B, theta in ((0.5, 1.0, 1.0), (2.0, 4.0, 1.0), (30.0, 1.0, 1.0), (2.0, 1.0, 0.0)):
        for name, lam in LEVELS:
            decay, simulate = {"weight_decay": theta}, None
            if name == "isotropic":
                process = adam(eta, variance=sigma**2 / B, **decay)
                pull = theta + np.sqrt(B) / sigma
                simulate = of_position(process, [0.0], round(8 / (eta * pull)), _half_square)
            cases.append(
                Case(
                    f"{name}, σ = {sigma:g}, B = {B:g}, θ = {theta:g}",
                    _level(lam, sigma, B, eta, **decay), _loss(lam, sigma, B, eta, **decay), None,
                    simulate,
                )
            )  # fmt: skip
    return cases


def _half_distance(x):
    """(x₁ - 1)²/2."""
    return (x[0] - 1) ** 2 / 2


def shifted_level_cases() -> list[Case]:
    """f = (x - 1)²/2: the bound with θ (f(0) - f*) added to the noise's η L_τ/2."""
    cases, eta, theta = [], 0.002, 0.5
    for sigma in (1.0, 4.0, 30.0):
        level = _level([1.0], sigma, 1.0, eta, weight_decay=theta)
        corrected = (eta / 2 + theta * 0.5) / (2 / sigma + theta)
        process = adam(eta, variance=sigma**2, minimizer=1.0, weight_decay=theta)
        steps, start = round(8 / (eta * (theta + 1 / sigma))), 1 / (1 + theta * sigma)
        cases.append(
            Case(
                f"f = (x - 1)²/2, σ = {sigma:g}, θ = 0.5", level,
                _loss([1.0], sigma, 1.0, eta, 1.0, weight_decay=theta), corrected,
                of_position(process, [start], steps, _half_distance, paths=20_000),
            )
        )  # fmt: skip
    return cases
