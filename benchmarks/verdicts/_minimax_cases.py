"""The settings of `minimax`: published and corrected forms beside the algorithms' own moments.

One pair is f = a x²/2 + λ x y - a y²/2 with noise of variance σ² in both gradients, and
u = E(x² + y²)/2.
"""

import numpy as np

from benchmarks.verdicts import _chains
from benchmarks.verdicts._players import (
    SIGMA,
    START,
    after,
    game_of,
    level,
    multiplicative_growth,
    radius,
    run,
)
from benchmarks.verdicts._verdict import Case
from jaxsde.problems import BilinearGame, QuadraticGame
from jaxsde.theory import discrete, minimax, sde
from jaxsde.theory.minimax import Method, seg, sgda, shgd

ETAS = (0.04, 0.02, 0.01)
B = float(START @ START) / 2  # u(0)
FORMS = (sde, discrete)  # published and corrected


def _pair(method: Method, a: float, lam: float) -> dict:
    return {"curvature": a, "coupling": lam, "method": method}


def _named(method: Method, a: float, lam: float, eta: float, *more: str) -> str:
    """The setting in words."""
    name = "SHGD" if method.rho is None else f"SEG, ρ = {method.rho:g}" if method.rho else "SGDA"
    batches = ["two batches"] if method.independent else []
    return ", ".join([name, *batches, f"a = {a:g}, λ = {lam:g}", *more, f"η = {eta:g}"])


def curve(method: Method, a: float, lam: float, t: float, etas=ETAS, inside=True) -> list[Case]:
    """u(t) from START at falling η."""
    game, pair, cases = game_of(a, lam), {**_pair(method, a, lam), "sigma": SIGMA}, []
    for eta in etas:
        published, corrected = (
            float(minimax.pair_half_square(B, t, eta, law, **pair)) for law in FORMS
        )
        steps = round(t / eta)
        exact = float(minimax.mean_half_square(after(method, game, eta, steps)))
        simulate, small = run(method, game, eta, steps), eta if inside else None
        setting = _named(method, a, lam, eta, f"t = {t:g}")
        cases.append(Case(setting, published, exact, corrected, simulate, inside, small))
    return cases


def levels(method: Method, a: float, lam: float, taken_for: Method | None = None) -> list[Case]:
    """u as t → ∞ at falling η, or at one by the formula of another method."""
    game, pair = game_of(a, lam), {**_pair(method, a, lam), "sigma": SIGMA}
    taken, inside = {**pair, "method": taken_for or method}, taken_for is None
    time = 8 / minimax.pair_rate(ETAS[0], discrete, **_pair(method, a, lam))
    return [
        Case(
            _named(method, a, lam, eta),
            float(minimax.pair_level(eta, **taken)),
            level(method, game, eta),
            float(minimax.pair_level(eta, discrete, **pair)),
            run(method, game, eta, round(time / eta)),
            inside,
            eta if inside else None,
        )
        for eta in (ETAS if inside else ETAS[1:2])
    ]


def game_levels() -> list[Case]:
    """Players with curvatures of their own, which do not commute with the coupling: no pairs."""
    game = QuadraticGame([[1.0, 0.5], [-0.5, 2.0]], [2.0, 0.5], [1.0, 1.5])
    noise, cases = np.full(4, SIGMA**2), []
    for name, method in [("SEG, ρ = 0.25", seg(0.25)), ("SHGD", shgd())]:
        for eta in ETAS:
            published, corrected = (
                np.trace(minimax.stationary_covariance(game, noise, eta, law, method=method)) / 2
                for law in FORMS
            )
            simulate = run(method, game, eta, round(12 / eta), start=np.zeros(4))
            exact = level(method, game, eta)
            cases.append(
                Case(f"{name}, η = {eta:g}", published, exact, corrected, simulate, True, eta)
            )
    return cases


def rates() -> list[Case]:
    """-ln of the spectral radius of a step, over η."""
    cases = []
    for method, a, lam in [(sgda(), 2, 1), (seg(1.0), 0, 2), (shgd(), 0, 2)]:
        for eta in ETAS:
            published, corrected = (
                float(minimax.pair_rate(eta, law, **_pair(method, a, lam))) for law in FORMS
            )
            exact = -float(np.log(radius(method, game_of(a, lam), eta))) / eta
            cases.append(
                Case(_named(method, a, lam, eta), published, exact, corrected, None, True, eta)
            )
    return cases


def _edge(a: float, lam: float, eta: float, low: float, high: float) -> float:
    """The ρ between these at which SEG's step begins or ceases to be stable."""
    return _chains.root(lambda rho: radius(seg(rho), game_of(a, lam), eta) - 1, low, high)


def least_rho() -> list[Case]:
    """The lower end where a < 0."""
    pair, cases = {"curvature": -1, "coupling": 2}, []
    for eta in ETAS:
        published, corrected = (minimax.stable_rho(eta, law, **pair)[0] for law in FORMS)
        exact = _edge(-1, 2, eta, 0, 1)
        cases.append(
            Case(f"a = -1, λ = 2, η = {eta:g}", published, exact, corrected, None, True, eta)
        )
    return cases


def bilinear_rho() -> list[Case]:
    """Both ends."""
    cases = []
    for lam, eta in [(2, 0.04), (2, 0.01), (1, 0.04)]:
        between = 0, 1 / lam, 10 / (eta * lam**2)
        for i, end in enumerate(("least", "largest")):
            published, corrected = (
                minimax.stable_rho(eta, law, curvature=0, coupling=lam)[i] for law in FORMS
            )
            exact = _edge(0, lam, eta, *between[i : i + 2])
            cases.append(Case(f"{end} ρ, λ = {lam:g}, η = {eta:g}", published, exact, corrected))
    return cases


def largest_steps() -> list[Case]:
    """Where the spectral radius of a step reaches 1."""
    cases = []
    for method, a, lam in [(sgda(), 2, 1), (shgd(), 0, 2), (shgd(), 1, 1)]:
        game, square = game_of(a, lam), a**2 + lam**2
        exact = _chains.root(lambda eta: radius(method, game, eta) - 1, 0.01 / square, 10)  # noqa: B023
        corrected = (2 if method.rho is None else 2 * a) / square
        name = "SGDA" if method == sgda() else "SHGD"
        cases.append(Case(f"{name}, a = {a:g}, λ = {lam:g}", np.inf, exact, corrected))
    return cases


def quietest_rho() -> list[Case]:
    """The paper's ρ^V, at two steps; outside, with two batches a step."""
    cases = []
    for independent in (False, True):
        for a, lam in [(3, 1), (-1, 2)]:
            for eta in ETAS[::2]:

                def noise(rho, a=a, lam=lam, eta=eta, independent=independent):
                    return level(seg(rho, independent), game_of(a, lam), eta)

                pair = {"curvature": a, "coupling": lam}
                published = minimax.least_variance_rho(eta, **pair)
                best = minimax.least_variance_rho(eta, discrete, **pair, independent=independent)
                exact = _chains.root(
                    lambda rho, noise=noise: _chains.slope(noise, rho), best - 0.05, best + 0.06
                )
                batches = "two batches" if independent else "one batch"
                setting = f"{batches}, a = {a:g}, λ = {lam:g}, η = {eta:g}"
                corrected = best if independent else None
                cases.append(Case(setting, published, exact, corrected, None, not independent))
    return cases


def matching_rho() -> list[Case]:
    """Where SEG's spectral radius is SHGD's."""
    cases = []
    for a, lam, etas in [(3, 1, ETAS), (-1, 2, (0.004, 0.002, 0.001))]:
        for eta in etas:
            published, corrected = (
                minimax.matching_rho(eta, law, curvature=a, coupling=lam) for law in FORMS
            )
            game = game_of(a, lam)
            goal = radius(shgd(), game, eta)
            exact = _chains.root(
                lambda rho, game=game, eta=eta, goal=goal: radius(seg(rho), game, eta) - goal,
                published - 0.3, published + 0.5,
            )  # fmt: skip
            setting = f"a = {a:g}, λ = {lam:g}, η = {eta:g}"
            cases.append(Case(setting, published, exact, corrected, None, True, eta))
    return cases


def multiplied(method: Method, taken_for: Method | None = None) -> list[Case]:
    """u(t) at λ = 2, σ = 1, falling η; or at one by the formula of another method."""
    lam, sigma, t, inside = 2.0, 1.0, 0.4, taken_for is None
    pair = {"coupling": lam, "sigma": sigma}
    cases = []
    for eta in ETAS if inside else ETAS[1:2]:
        steps = round(t / eta)
        published, corrected = (
            float(minimax.multiplicative_half_square(B, t, eta, law, **pair, method=each))
            for law, each in zip(FORMS, (taken_for or method, method), strict=True)
        )
        exact = B * multiplicative_growth(method, lam, sigma, eta) ** steps
        simulate = run(method, game_of(0, lam), eta, steps, multiplicative=sigma)
        batches = "two batches" if method.independent else "one batch"
        rho = f"ρ = {method.rho:g}, " if method.rho else ""
        setting = f"{rho}{batches}, λ = 2, σ = 1, t = {t:g}, η = {eta:g}"
        cases.append(
            Case(setting, published, exact, corrected, simulate, inside, eta if inside else None)
        )
    return cases


def multiplied_rho() -> list[Case]:
    """Both ends of SEG's interval, two batches a step."""
    cases = []
    for i, end in enumerate(("least", "largest")):
        for eta in ETAS:
            published, corrected = (
                minimax.multiplicative_stable_rho(
                    eta, law, coupling=2, sigma=1, independent=True
                )[i]
                for law in FORMS
            )  # fmt: skip
            best = minimax.multiplicative_best_rho(
                eta, discrete, coupling=2, sigma=1, independent=True
            )
            exact = _chains.root(
                lambda rho, eta=eta: multiplicative_growth(seg(rho, True), 2, 1, eta) - 1,
                *((0, best), (best, 3 * best))[i],
            )
            setting = f"{end} ρ, λ = 2, σ = 1, η = {eta:g}"
            cases.append(Case(setting, published, exact, corrected, None, True, eta))
    return cases


def scheduled(power: float) -> list[Case]:
    """u(t) on a bilinear pair under ψ = (1 + t)^(-p)."""
    cases = []
    for method, lam, t in [(seg(2.0), 1, 0.8), (shgd(), 1, 4.0)]:
        game, pair = game_of(0, lam), {**_pair(method, 0, lam), "sigma": SIGMA}
        for eta in ETAS:
            psi = minimax.power_law(power, eta)
            published = float(minimax.power_law_half_square(B, t, eta, power=power, **pair))
            exact = after(method, game, eta, round(t / eta), psi=psi)
            corrected = minimax.scheduled_half_square(B, t, eta, discrete, schedule=psi, **pair)
            simulate = run(method, game, eta, round(t / eta), schedule=psi) if eta == 0.04 else None
            setting = _named(method, 0, lam, eta, f"t = {t:g}")
            truth = float(minimax.mean_half_square(exact))
            cases.append(Case(setting, published, truth, float(corrected), simulate, True, eta))
    return cases


def tails(power: float, settings: list[tuple[Method, float]]) -> list[Case]:
    """At growing t, η = 0.04."""
    eta, cases = 0.04, []
    psi = minimax.power_law(power, eta)
    for method, lam in settings:
        pair = {**_pair(method, 0, lam), "sigma": SIGMA}
        for t in (10, 40, 160):
            tail = float(minimax.power_law_tail(B, t, eta, power=power, **pair))
            exact = after(method, game_of(0, lam), eta, round(t / eta), psi=psi)
            setting = _named(method, 0, lam, eta, f"t = {t:g}")
            truth = float(minimax.mean_half_square(exact))
            cases.append(Case(setting, tail, truth, None, None, True, 1 / (1 + t)))
    return cases


_COUPLINGS = (((2.0, 2.0), 0.2), ((2.0, 2.0), 4.0), ((2.0, 1.0), 4.0))  # of two pairs, and t


def _hamiltonian_bound(lam: np.ndarray, eta: float, t: float) -> float:
    """As published, from START in both pairs."""
    initial = float(np.sum(lam**2)) * B
    trace = 2 * SIGMA**2 * float(np.sum(lam**4))
    mu = float(np.min(lam)) ** 2
    bound = minimax.hamiltonian_bound(initial, t, learning_rate=eta, mu=mu, noise_trace=trace)
    return float(bound)


def sde_hamiltonian_bounds() -> list[Case]:
    """Two pairs of one λ, and of two, under SHGD's SDE: u' = -2λ² u + η σ² λ²."""
    cases, eta = [], 0.02
    for couplings, t in _COUPLINGS:
        lam = np.array(couplings)
        exact = sum(h * _chains.relaxed(B, eta * SIGMA**2 * h, 2 * h, t) for h in lam**2)
        published = _hamiltonian_bound(lam, eta, t)
        cases.append(Case(f"λ = {couplings}, t = {t:g}, η = {eta:g}", published, float(exact)))
    return cases


def hamiltonian_bounds() -> list[Case]:
    """The same under SHGD."""
    cases, eta = [], 0.02
    for couplings, t in _COUPLINGS:
        lam = np.array(couplings)
        game, start, steps = BilinearGame(lam), np.repeat(START, 2), round(t / eta)
        slowed = np.min(lam) ** 2 * (1 - eta * np.max(lam) ** 2 / 2)
        decay = (1 - 2 * eta * slowed) ** steps
        floor = eta * 2 * SIGMA**2 * np.sum(lam**4) / (4 * slowed)
        corrected = float(decay * np.sum(lam**2) * B + (1 - decay) * floor)
        exact = minimax.mean_hamiltonian(game, after(shgd(), game, eta, steps, start))
        simulate = run(shgd(), game, eta, steps, game.loss, start=start)
        published = _hamiltonian_bound(lam, eta, t)
        setting = f"λ = {couplings}, t = {t:g}, η = {eta:g}"
        cases.append(Case(setting, published, float(exact), corrected, simulate))
    return cases
