"""The settings of DSGD and DCSGD: published and corrected forms, and the enumerated chains."""

import numpy as np

from benchmarks.verdicts import _chains
from benchmarks.verdicts._agents import (
    SecondMoment,
    bernoulli,
    mean_square_gradients,
    one_of,
    second_moment,
)
from benchmarks.verdicts._servers import (
    ETAS,
    FUNCTIONS,
    SIGMAS,
    agents_of,
    agents_on,
    first,
    first_square,
    gradient_square,
    plain_squares,
    product,
    run,
    run_average,
    weighted_squares,
)
from benchmarks.verdicts._verdict import Case
from jaxsde import optimizers
from jaxsde.problems import Quadratic
from jaxsde.theory import discrete, distributed, sde

FORMS = (sde, discrete)  # published and corrected


def _one(lam: float, sigma, omega: float, eta: float) -> SecondMoment:
    """One coordinate."""
    return second_moment(
        np.array([[lam]]), [np.array([[s**2]]) for s in sigma], bernoulli(omega), eta
    )


_HESSIANS = {"H = 2 I": np.full(4, 2.0), "H = diag(1, 1.5, 2, 3)": np.array([1.0, 1.5, 2.0, 3.0])}
_PAIR = SIGMAS[:2]  # the scales of two agents


def _loss_bound(H: np.ndarray, omega: float, eta: float, t: float) -> float:
    """As published, from x = (1, ..., 1): with the loose rate where there is compression."""
    bound = distributed.loss_bound(
        float(np.sum(H) / 2), t, learning_rate=eta, mu=float(H.min()), smoothness=float(H.max()),
        sigma=_PAIR, agents=2, omega=omega, dimension=len(H), sharp=omega == 0,
    )  # fmt: skip
    return float(bound)


def _sde_second_moment(lam: float, sigma, omega: float, eta: float) -> tuple[float, float]:
    """Source and rate of E y² under the SDE, the messages' variance by enumeration."""
    square = sum(p * float(kept[0]) ** 2 for p, kept in bernoulli(omega))
    share = eta / len(sigma)
    return share * square * np.mean(np.square(sigma)), 2 * lam - share * (square - 1) * lam**2


def sde_loss_bounds(omega: float) -> list[Case]:
    """E f of the SDE."""
    eta, cases = 0.02, []
    for name, H in _HESSIANS.items():
        for t in (0.5, 10.0):
            exact = sum(
                lam / 2 * _chains.relaxed(1.0, *_sde_second_moment(lam, _PAIR, omega, eta), t)
                for lam in H
            )
            published = _loss_bound(H, omega, eta, t)
            cases.append(Case(f"{name}, t = {t:g}, η = {eta:g}", published, float(exact)))
    return cases


def loss_bounds(omega: float) -> list[Case]:
    """E f of the algorithm."""
    eta, N, cases = 0.02, 2, []
    for name, H in _HESSIANS.items():
        d, mu, L = len(H), float(H.min()), float(H.max())
        chains = [_one(lam, _PAIR, omega, eta) for lam in H]
        slowed = mu * (1 - eta * L * (1 + omega / N) / 2)
        floor = eta * L * d * np.mean(_PAIR**2) * (1 + omega) / (4 * N * slowed)
        agents = agents_of(H, _PAIR, d / (1 + omega) if omega else None)
        optimizer = optimizers.dcsgd if omega else optimizers.dsgd
        observable = weighted_squares if mu < L else plain_squares
        for t in (0.5, 10.0):
            steps = round(t / eta)
            exact = sum(
                lam / 2 * float(chain.after(np.ones(1), steps)[0, 0])
                for lam, chain in zip(H, chains, strict=True)
            )
            decay = (1 - 2 * eta * slowed) ** steps
            corrected = float(decay * np.sum(H) / 2 + (1 - decay) * floor)
            simulate = run(optimizer, agents, eta, np.ones(d), steps, observable)
            published = _loss_bound(H, omega, eta, t)
            setting = f"{name}, t = {t:g}, η = {eta:g}"
            cases.append(Case(setting, published, float(exact), corrected, simulate))
    return cases


def sde_gradient_bounds(omega: float) -> list[Case]:
    """E f'² of the SDE at a uniform time, two agents of σ = 1."""
    N, eta, x0, cases = 2, 0.05, 1.5, []
    for name, t in [("x²/2 + cos(2x)/2", 4.0), ("x²/2", 4.0), ("x²/2", 200.0)]:
        _, gradient, L, excess = FUNCTIONS[name]
        if name == "x²/2":
            moment = _sde_second_moment(1.0, np.ones(N), omega, eta)
            exact = _chains.relaxed_mean(x0**2, *moment, t)
        else:
            exact = _chains.diffusion_mean(
                lambda x, f=gradient: f(x) ** 2,
                lambda x, f=gradient: -f(x),
                lambda x, f=gradient: np.sqrt(eta / N * (1 + omega + omega * f(x) ** 2)),
                x0, t, 4.0,
            )  # fmt: skip
        published = distributed.gradient_bound(
            excess(x0), t, learning_rate=eta, smoothness=L, sigma=1.0, agents=N, omega=omega,
            dimension=1,
        )  # fmt: skip
        cases.append(Case(f"f = {name}, t = {t:g}, η = {eta:g}", float(published), exact))
    return cases


def _inverse_root(k: float) -> float:
    """ψ."""
    return (k + 1) ** -0.5


def gradient_bounds(omega: float) -> list[Case]:
    """On the wave, and on a quadratic of curvature 1 for long, where the bound is tight."""
    N, sigma, eta, x0, cases = 2, 1.0, 0.05, 1.5, []
    settings = [("x²/2 + cos(2x)/2", 4.0, None), ("x²/2", 4.0, None), ("x²/2", 200.0, None)]
    if not omega:
        settings.insert(1, ("x²/2 + cos(2x)/2", 4.0, _inverse_root))
    for name, t, schedule in settings:
        problem, gradient, L, excess = FUNCTIONS[name]
        steps = round(t / eta)
        psi = np.array([1.0 if schedule is None else schedule(k) for k in range(steps)])
        squares = mean_square_gradients(gradient, x0, eta * psi, sigma, N, 1 / (1 + omega))
        published = distributed.gradient_bound(
            excess(x0), t, learning_rate=eta, smoothness=L, sigma=sigma, agents=N, omega=omega,
            dimension=1, schedule=schedule,
        )  # fmt: skip
        phi_1, phi_2 = eta * np.sum(psi), eta * np.sum(psi**2)
        source = eta * L * sigma**2 * (1 + omega) / (2 * N)
        slowing = 1 - eta * L * (1 + omega / N) / 2
        corrected = float(excess(x0) + source * phi_2) / (phi_1 * slowing)
        simulate = None
        if not omega and schedule is None and t < 10:
            agents = agents_on(problem(), np.full(N, sigma))
            simulate = run_average(optimizers.dsgd, agents, eta, x0, psi, gradient_square(name))
        about = "" if schedule is None else ", ψ = 1/√(k + 1)"
        setting = f"f = {name}, t = {t:g}, η = {eta:g}{about}"
        exact = float(psi @ squares / np.sum(psi))
        cases.append(Case(setting, float(published), exact, corrected, simulate))
    return cases


def means() -> list[Case]:
    """E x of one coordinate at t = 1/2 from x = 1."""
    cases, lam, t = [], 1.0, 0.5
    for omega, optimizer in [(0, optimizers.dsgd), (3, optimizers.dcsgd)]:
        for eta in ETAS:
            steps = round(t / eta)
            kept = sum(p * factors[0] for p, factors in bernoulli(omega))
            agents = agents_of(np.full(4, lam), SIGMAS, None if omega == 0 else 1.0)
            simulate = run(optimizer, agents, eta, np.ones(4), steps, first)
            exact, corrected = (1 - eta * lam * kept) ** steps, (1 - eta * lam) ** steps
            setting = f"N = 4, ω = {omega}, λ = 1, t = 0.5, η = {eta:g}"
            published = float(np.exp(-lam * t))
            cases.append(Case(setting, published, float(exact), corrected, simulate, True, eta))
    return cases


def second_moments() -> list[Case]:
    """E x² of one coordinate at t = 1/2 from x = 1, of DSGD and of DCSGD."""
    cases, lam, t = [], 1.0, 0.5
    for omega, optimizer in [(0, optimizers.dsgd), (3, optimizers.dcsgd)]:
        for eta in ETAS:
            steps = round(t / eta)
            published, corrected = (
                distributed.moments(
                    Quadratic([lam]), [[[s**2]] for s in SIGMAS], eta, [1.0], t, law,
                    agents=4, omega=omega,
                )
                for law in FORMS
            )  # fmt: skip
            forms = [float(m.mean[0] ** 2 + m.covariance[0, 0]) for m in (published, corrected)]
            exact = float(_one(lam, SIGMAS, omega, eta).after(np.ones(1), steps)[0, 0])
            agents = agents_of(np.full(4, lam), SIGMAS, None if omega == 0 else 1.0)
            simulate = run(optimizer, agents, eta, np.ones(4), steps, first_square)
            setting = f"N = 4, ω = {omega}, λ = 1, t = 0.5, η = {eta:g}"
            cases.append(Case(setting, forms[0], exact, forms[1], simulate, True, eta))
    return cases


def levels(omega: float) -> list[Case]:
    """Var x of one coordinate as t → ∞; outside, H that is not diagonal."""
    cases, lam = [], 1.0
    for N in (1, 4):
        for eta in ETAS:
            sigma = SIGMAS[-N:]
            covariances = [[[s**2]] for s in sigma]
            published, corrected = (
                float(distributed.stationary_covariance(
                    Quadratic([lam]), covariances, eta, law, agents=N, omega=omega
                )[0, 0])
                for law in FORMS
            )  # fmt: skip
            exact = float(_one(lam, sigma, omega, eta).stationary()[0, 0])
            agents = agents_of(np.full(4, lam), sigma, None if omega == 0 else 4 / (1 + omega))
            optimizer = optimizers.dcsgd if omega else optimizers.dsgd
            simulate = run(optimizer, agents, eta, np.zeros(4), round(10 / eta), first_square)
            setting = f"N = {N}, {f'ω = {omega:g}, ' if omega else ''}λ = 1, η = {eta:g}"
            cases.append(Case(setting, published, exact, corrected, simulate, True, eta))
    return cases + (_full_levels() if omega else [])


def _full_levels() -> list[Case]:
    """One coordinate of two is sent, and H turns them into one another."""
    H, eta, N = np.array([[2.0, 1.0], [1.0, 1.5]]), 0.05, 2
    published = eta / N * np.linalg.inv(H) @ np.linalg.inv(np.eye(2) - eta / (2 * N) * H)
    exact = second_moment(H, [np.eye(2)] * N, one_of(2), eta).stationary()
    corrected = distributed.stationary_covariance(
        Quadratic(H), np.ones(2), eta, discrete, agents=N, omega=1.0, fixed_count=True
    )
    agents = agents_of(H, np.ones(N), 1.0, exactly=True)
    return [
        Case(
            f"entry {name}, H = [[2, 1], [1, 1.5]], k = 1 of 2, N = 2, η = {eta:g}",
            float(published[entry]), float(exact[entry]), float(corrected[entry]),
            run(optimizers.dcsgd, agents, eta, np.zeros(2), 400, observable), False,
        )
        for name, entry, observable in [
            ("(1, 1)", (0, 0), first_square), ("(1, 2)", (0, 1), product),
        ]
    ]  # fmt: skip


def largest_steps() -> list[Case]:
    """η at which the second moment ceases to be stable."""
    cases = []
    for N, omega, lam in [(1, 3.0, 1.0), (4, 3.0, 1.0), (4, 15.0, 2.0)]:
        exact = _chains.root(
            lambda eta, N=N, omega=omega, lam=lam: _one(lam, np.ones(N), omega, eta).radius() - 1,
            1e-3, 10.0,
        )  # fmt: skip
        published, corrected = (
            distributed.largest_learning_rate(lam, agents=N, omega=omega, law=law) for law in FORMS
        )
        cases.append(Case(f"N = {N}, ω = {omega:g}, λ = {lam:g}", published, exact, corrected))
    return cases
