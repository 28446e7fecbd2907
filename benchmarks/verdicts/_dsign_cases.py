"""The settings of DSignSGD: published and corrected forms, and the exact law on its lattice."""

import functools

import numpy as np

from benchmarks.verdicts import _chains
from benchmarks.verdicts._agents import sign_moments
from benchmarks.verdicts._servers import (
    ETAS,
    FUNCTIONS,
    SIGMAS,
    agents_of,
    agents_on,
    first,
    first_square,
    gradient_square,
    half_square,
    run,
    run_average,
)
from benchmarks.verdicts._verdict import Case
from jaxsde import optimizers
from jaxsde.problems import Quadratic
from jaxsde.theory import discrete, distributed, sde, sign


def _noise_name(nu: float) -> str:
    return "Gaussian" if nu == np.inf else f"Student-t, ν = {nu:g}"


def _steepest(sigma: np.ndarray, nu: float) -> float:
    """l/σ_{H,1}."""
    return sign.slope(nu) * float(np.mean(1 / sigma))


def _chord(reach: float, sigma: np.ndarray, nu: float) -> float:
    """mean E sign(s + Z)/(s σᵢ) at s = reach/σᵢ, below which the mean sign lies above its chord."""
    s = reach / sigma
    return float(np.mean(2 * sign.centred_cdf(s, nu) / reach))


def _reach(x0: float, sigma: np.ndarray, nu: float, eta: float) -> float:
    """The start and four stationary standard deviations at curvature 1."""
    return float(x0 + 4 * np.sqrt(eta / (2 * len(sigma) * _steepest(sigma, nu))))


def phase_2() -> list[Case]:
    """Four agents of nearly one scale, while every ratio is between 1 and 3/2."""
    eta, lam, sigma = 0.002, 1.0, np.array([0.5, 0.52, 0.54, 0.56])
    x0, cases = 1.5 * np.sqrt(2) * 0.5, []
    found = sign_moments(lambda x: lam * x, sigma, np.inf, eta, x0, 120)
    for t in (0.04, 0.12, 0.24):
        published = distributed.sign_phase2_loss_bound(
            lam * x0**2 / 2, t, learning_rate=eta, mu=lam, hessian_trace=lam, sigma=sigma,
            agents=4, dimension=1,
        )  # fmt: skip
        steps = round(t / eta)
        exact = float(lam / 2 * found["x²"][steps])
        simulate = run(optimizers.dsign_sgd, agents_of([lam], sigma), eta, [x0], steps, half_square)
        cases.append(
            Case(f"N = 4, λ = 1, t = {t:g}, η = {eta:g}", float(published), exact, None, simulate)
        )
    return cases


def sde_phase_3() -> list[Case]:
    """The linearised SDE, isotropic and not, from the edge of the phase."""
    cases, eta, t_ends = [], 0.02, (0.4, 8.0)
    for name, lam in [("H = I", np.ones(3)), ("H = diag(1, 2, 3)", np.array([1.0, 2.0, 3.0]))]:
        for nu in (np.inf, 1.0):
            x0, N = 0.7 / lam, len(SIGMAS)
            for t in t_ends:
                published = distributed.sign_loss_bound(
                    float(lam @ x0**2) / 2, t, learning_rate=eta, mu=1.0,
                    hessian_trace=float(np.sum(lam)), sigma=SIGMAS, agents=N,
                    degrees_of_freedom=nu,
                )  # fmt: skip
                q = sign.slope(nu) ** 2 * lam**2 * np.mean(1 / SIGMAS**2)
                rates = 2 * lam * _steepest(SIGMAS, nu) + eta / N * q
                exact = sum(
                    h / 2 * _chains.relaxed(start**2, eta / N, rate, t)
                    for h, start, rate in zip(lam, x0, rates, strict=True)
                )
                setting = f"{name}, N = 4, {_noise_name(nu)}, t = {t:g}, η = {eta:g}"
                cases.append(Case(setting, float(published), float(exact)))
    return cases


def sde_gradient_bounds() -> list[Case]:
    """The linearised SDE at a uniform time, two agents whose noise dominates."""
    eta, sigma, x0, cases = 0.05, np.array([4.0, 8.0]), 1.5, []
    pull, N = _steepest(sigma, np.inf), 2
    square = sign.slope() ** 2 * float(np.mean(1 / sigma**2))
    for name, t in [("x²/2 + cos(2x)/2", 20.0), ("x²/2", 20.0), ("x²/2", 1000.0)]:
        _, gradient, L, excess = FUNCTIONS[name]
        if name == "x²/2":
            rate = 2 * pull + eta / N * square
            exact = _chains.relaxed_mean(x0**2, eta / N, rate, t)
        else:
            exact = _chains.diffusion_mean(
                lambda x, f=gradient: f(x) ** 2,
                lambda x, f=gradient: -pull * f(x),
                lambda x, f=gradient: np.sqrt(eta / N * (1 - square * f(x) ** 2)),
                x0, t, 4.0,
            )  # fmt: skip
        published = distributed.sign_gradient_bound(
            float(excess(x0)), t, learning_rate=eta, hessian_trace=L, sigma=sigma, agents=N
        )
        setting = f"f = {name}, σ = (4, 8), t = {t:g}, η = {eta:g}"
        cases.append(Case(setting, float(published), exact))
    return cases


def phase_3() -> list[Case]:
    """From the edge of the phase and from near the level, λ = 1."""
    cases = []
    for N, nu, x0, eta in [(4, np.inf, 0.7, 0.02), (4, 1.0, 0.7, 0.02), (1, np.inf, 0.3, 0.1)]:
        sigma = SIGMAS if N > 1 else np.ones(1)
        found = sign_moments(lambda x: x, sigma, nu, eta, x0, round(8 / eta))
        slowed = _chord(_reach(x0, sigma, nu, eta), sigma, nu)
        slowed -= eta / 2 * (1 - 1 / N) * _steepest(sigma, nu) ** 2
        for t in (0.4, 8.0):
            steps = round(t / eta)
            published = distributed.sign_loss_bound(
                x0**2 / 2, t, learning_rate=eta, mu=1.0, hessian_trace=1.0, sigma=sigma,
                agents=N, degrees_of_freedom=nu,
            )  # fmt: skip
            decay = (1 - 2 * eta * slowed) ** steps
            corrected = decay * x0**2 / 2 + (1 - decay) * eta / (4 * N * slowed)
            exact = float(found["x²"][steps]) / 2
            agents = agents_of([1.0], sigma, nu=nu)
            simulate = run(optimizers.dsign_sgd, agents, eta, [x0], steps, half_square)
            setting = f"N = {N}, {_noise_name(nu)}, x₀ = {x0:g}, t = {t:g}, η = {eta:g}"
            cases.append(Case(setting, float(published), exact, float(corrected), simulate))
    return cases


def gradient_bounds() -> list[Case]:
    """On the wave, and on a quadratic for long and from afar; two agents."""
    eta, sigma, cases = 0.05, np.array([1.0, 2.0]), []
    for name, x0, nu, t in [
        ("x²/2 + cos(2x)/2", 1.5, np.inf, 8.0),
        ("x²/2 + cos(2x)/2", 1.5, 1.0, 8.0),
        ("x²/2", 1.0, np.inf, 40.0),
        ("x²/2", 3.0, np.inf, 4.0),
    ]:
        problem, gradient, L, excess = FUNCTIONS[name]
        steps = round(t / eta)
        found = sign_moments(gradient, sigma, nu, eta, x0, steps)
        published = distributed.sign_gradient_bound(
            float(excess(x0)), t, learning_rate=eta, hessian_trace=L, sigma=sigma, agents=2,
            degrees_of_freedom=nu,
        )  # fmt: skip
        reach = np.max(np.abs(gradient(np.linspace(0, _reach(x0, sigma, nu, eta), 2001))))
        slowed = _chord(reach, sigma, nu) - eta * L / 4 * _steepest(sigma, nu) ** 2
        corrected = float(excess(x0) + eta * L / 4 * t) / (slowed * t)
        agents = agents_on(problem(), sigma, nu)
        simulate = None
        if t < 10:
            observable = gradient_square(name)
            simulate = run_average(
                optimizers.dsign_sgd, agents, eta, x0, np.ones(steps), observable
            )
        setting = f"f = {name}, {_noise_name(nu)}, x₀ = {x0:g}, t = {t:g}, η = {eta:g}"
        exact = float(np.mean(found["f'²"][:steps]))
        cases.append(Case(setting, float(published), exact, corrected, simulate))
    return cases


def _settings():
    return [(SIGMAS, np.inf), (SIGMAS, 1.0), (np.ones(2), 2.0)]


def moments(observable: str) -> list[Case]:
    """E x or E x² at t = 1 from two stationary standard deviations, λ = 1."""
    cases, problem = [], Quadratic(np.ones(1))
    for sigma, nu in _settings():
        for eta in ETAS:
            N, steps = len(sigma), round(1 / eta)
            x0 = 2 * np.sqrt(eta / (2 * N * _steepest(sigma, nu)))
            found = sign_moments(lambda x: x, sigma, nu, eta, x0, steps)
            published = distributed.sign_moments(
                problem, sigma, eta, np.array([x0]), 1.0, sde, nu, agents=N
            )
            mean, variance = float(published.mean[0]), float(published.covariance[0, 0])
            value = mean if observable == "x" else mean**2 + variance
            agents = agents_of([1.0], sigma, nu=nu)
            watched = first if observable == "x" else first_square
            simulate = run(optimizers.dsign_sgd, agents, eta, [x0], steps, watched)
            setting = f"N = {N}, {_noise_name(nu)}, t = 1, η = {eta:g}"
            exact = float(found[observable][-1])
            cases.append(Case(setting, value, exact, None, simulate, True, eta))
    return cases


@functools.cache
def _level(sigma: tuple[float, ...], nu: float, eta: float) -> float:
    """E x² as t → ∞ at λ = 1."""
    pull = _steepest(np.array(sigma), nu)
    start = np.sqrt(eta / (2 * len(sigma) * pull))
    found = sign_moments(lambda x: x, np.array(sigma), nu, eta, start, round(10 / pull / eta))
    return float(found["x²"][-1])


def levels() -> list[Case]:
    """Var x as t → ∞ at λ = 1."""
    cases, problem = [], Quadratic(np.ones(1))
    for sigma, nu in _settings():
        for eta in ETAS:
            published, corrected = (
                float(distributed.sign_stationary_variance(
                    problem, sigma, eta, law, nu, agents=len(sigma), linearised=law == sde
                )[0])
                for law in (sde, discrete)
            )  # fmt: skip
            exact = _level(tuple(sigma), nu, eta)
            agents, steps = agents_of([1.0], sigma, nu=nu), round(8 / eta)
            simulate = run(optimizers.dsign_sgd, agents, eta, [0.0], steps, first_square)
            setting = f"N = {len(sigma)}, {_noise_name(nu)}, η = {eta:g}"
            cases.append(Case(setting, published, exact, corrected, simulate, True, eta))
    return cases


def loss_levels() -> list[Case]:
    """E f = E x²/2 as t → ∞ at λ = 1."""
    cases, problem = [], Quadratic(np.ones(1))
    for sigma, nu in _settings():
        for eta in ETAS:
            published = distributed.sign_loss_level(
                learning_rate=eta, mu=1.0, hessian_trace=1.0, sigma=sigma, agents=len(sigma),
                degrees_of_freedom=nu,
            )  # fmt: skip
            variance = distributed.sign_stationary_variance(
                problem, sigma, eta, discrete, nu, agents=len(sigma)
            )
            exact, corrected = _level(tuple(sigma), nu, eta) / 2, float(variance[0]) / 2
            agents, steps = agents_of([1.0], sigma, nu=nu), round(8 / eta)
            simulate = run(optimizers.dsign_sgd, agents, eta, [0.0], steps, half_square)
            setting = f"N = {len(sigma)}, {_noise_name(nu)}, η = {eta:g}"
            cases.append(Case(setting, published, exact, corrected, simulate, True, eta))
    return cases
