"""The settings of `sign`: published and corrected forms beside exact laws, mostly by lattices."""

from collections.abc import Callable

import numpy as np
import optax
import scipy.special
import scipy.stats

from benchmarks.verdicts._simulated import first, of_position, square
from benchmarks.verdicts._verdict import Case
from jaxsde import OptimizerProcess, theory
from jaxsde.oracles import GaussianNoise, StudentTNoise
from jaxsde.problems import Quadratic
from jaxsde.theory import backward_equation, sign

INF = float("inf")
ONE = Quadratic(np.ones(1))


def law_name(nu: float) -> str:
    """The noise in words."""
    return "Gaussian" if nu == INF else f"Student-t, ν = {nu:g}"


def noise_cdf(nu: float, sigma: float = 1.0) -> Callable[[np.ndarray], np.ndarray]:
    """F of the noise, by scipy and not by the theory that is judged."""
    if nu == INF:
        return lambda z: scipy.stats.norm.cdf(z, scale=sigma)
    return lambda z: scipy.stats.t.cdf(z, nu, scale=sigma)


def sign_sgd(eta: float, nu: float = INF, sigma: float = 1.0) -> OptimizerProcess:
    """SignSGD on x²/2."""
    problem = Quadratic(np.ones(1, np.float32))
    noise = GaussianNoise(problem, sigma) if nu == INF else StudentTNoise(problem, sigma, float(nu))
    return OptimizerProcess(optax.sign_sgd, {"learning_rate": eta}, noise)


def lattice(
    eta: float,
    cdf: Callable[[np.ndarray], np.ndarray],
    x0: float,
    steps: int,
    curvature: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """E x and E x² after 0 .. `steps` steps on λ x²/2, exactly."""
    found = sign.lattice_moments(
        lambda x: curvature * x, cdf, eta, x0, steps, {"x": lambda x: x, "x²": lambda x: x**2}
    )
    return found["x"], found["x²"]


def stationary(eta: float, cdf: Callable[[np.ndarray], np.ndarray]) -> float:
    """E x² of SignSGD as t → ∞ on x²/2: the mean over both parities and the start's offset."""
    steps, nodes = (round(16 / eta) + 10, 4) if eta < 1 else (100, 64)
    nodes, weights = np.polynomial.legendre.leggauss(nodes)
    offsets = eta * (nodes + 1) / 2
    seconds = [np.mean(lattice(eta, cdf, u, steps)[1][-2:]) for u in offsets]
    return float(np.array(seconds) @ weights / 2)


def xi_cases() -> list[Case]:
    """Ξ_ν by ₂F₁, as printed, against scipy's distribution."""
    cases = []
    for nu in (1.0, 2.0, 5.0, 30.0):
        for x in (0.1, 1.0, 3.0):
            hypergeometric = scipy.special.hyp2f1(0.5, (nu + 1) / 2, 1.5, -(x**2) / nu)
            constant = scipy.special.gamma((nu + 1) / 2) / scipy.special.gamma(nu / 2)
            printed = x * constant / np.sqrt(np.pi * nu) * hypergeometric
            exact = scipy.stats.t.cdf(x, nu) - 0.5
            cases.append(Case(f"ν = {nu:g}, x = {x:g}", float(printed), float(exact)))
    return cases


def weak_cases() -> list[Case]:
    """The SDE of Theorem 3.2 by the backward equation, SignSGD by its lattice."""
    x0, time, cases = 1.5, 1.5, []
    for nu in (INF, 1.0):
        F = noise_cdf(nu)
        for name, phi in (("x", lambda x: x), ("x²", lambda x: x**2)):
            for n in (10, 20, 40, 80):
                eta = 1 / n
                drift = lambda x, F=F: -(1 - 2 * F(-x))  # noqa: E731
                spread = lambda x, F=F, e=eta: np.sqrt(e * 4 * F(x) * F(-x))  # noqa: E731
                sde = backward_equation.expectation(
                    phi, drift, spread, x0, time, domain=(-3.0, 4.5), tolerance=1e-7
                )
                steps = round(time * n)
                exact = dict(zip(("x", "x²"), lattice(eta, F, x0, steps), strict=True))[name][-1]
                simulate = of_position(
                    sign_sgd(eta, nu), [x0], steps, first if name == "x" else square
                )
                cases.append(
                    Case(
                        f"E {name}, f = x²/2, t = 1.5, η = 1/{n}, {law_name(nu)}", float(sde),
                        float(exact), simulate=simulate, small=eta,
                    )
                )  # fmt: skip
    return cases


def _drift(y: float) -> float:
    """Erf(y) by the normal distribution."""
    return float(2 * scipy.stats.norm.cdf(np.sqrt(2) * y) - 1)


def phase1_cases() -> list[Case]:
    """The drift 1 that is printed, and Erf(y)."""
    return [Case(f"y = {y:g}", 1.0, _drift(y), inside=y >= 1.5) for y in (1.5, 1.75, 2.0, 3.0, 1.0)]


def phase3_drift_cases() -> list[Case]:
    """The linear drift, and Erf(y)."""
    return [
        Case(f"y = {y:g}", 2 / np.sqrt(np.pi) * y, _drift(y), float(scipy.special.erf(y)), small=y)
        for y in (1.0, 0.5, 0.25, 0.125)
    ]


def phase3_diffusion_cases() -> list[Case]:
    """The variance of a step, over η."""
    return [
        Case(
            f"y = {y:g}", 1 - 4 / np.pi * y**2, 1 - _drift(y) ** 2,
            float(scipy.special.erfc(y) * (1 + scipy.special.erf(y))), small=y,
        )
        for y in (1.0, 0.5, 0.25, 0.125)
    ]  # fmt: skip


def phase2_drift_cases(upper: bool) -> list[Case]:
    """The chord, or the tangent parallel to it."""
    m = sign.CHORD_SLOPE
    q = sign.TANGENT_INTERCEPT if upper else sign.CHORD_INTERCEPT
    return [
        Case(f"y = {y:g}", m * y + q, _drift(y), inside=1 <= y <= 1.5)
        for y in (1.0, 1.125, sign.TANGENT_POINT, 1.375, 1.5, 0.5, 2.0)
    ]


def concentration_cases() -> list[Case]:
    """P(|x - E x|² > a) in phase 2 on λ x²/2, σ = 1, by the lattice; y falls from 3/2."""
    eta, cases = 0.25, []
    for slowness, time in ((2.0, 0.5), (20.0, 2.5), (200.0, 25.0)):
        lam = 1 / slowness
        x0, steps = 1.5 * np.sqrt(2) / lam, round(time / eta)
        positions, chances = sign.lattice_law(
            lambda x, c=lam: c * x, noise_cdf(INF), eta, x0, steps
        )
        deviation = (positions - positions @ chances) ** 2
        y = lam * (positions @ chances) / np.sqrt(2)
        for spreads in (2.0, 4.0):
            a = spreads * float(deviation @ chances)
            bounds = [
                float(
                    sign.phase2_concentration(
                        a, np.array([y]), time, learning_rate=eta, published=published
                    )
                )
                for published in (True, False)
            ]
            setting = f"η = 0.25, t = {time:g}, a = {spreads:g} Var x, y from 1.5 to {y:.3g}"
            cases.append(Case(setting, bounds[0], float(chances[deviation > a].sum()), bounds[1]))
    return cases


CURVATURES = np.array([1.0, 1.5, 2.0, 3.0])


def _flow_loss(x0: np.ndarray, time: float) -> float:
    """f of dx = -sign(∇f) dt: every coordinate walks to 0 at unit speed."""
    return float(CURVATURES @ np.maximum(np.abs(x0) - time, 0) ** 2 / 2)


def phase1_loss_cases() -> list[Case]:
    """Two starts, one of them along the flattest direction, where the bound is sharp."""
    cases = []
    for name, x0 in (
        ("x₀ = (2, 2, 2, 2)", np.full(4, 2.0)),
        ("x₀ = (3, 0, 0, 0)", np.eye(4)[0] * 3),
    ):
        start = _flow_loss(x0, 0.0)
        for share in (0.2, 0.5, 0.8):
            time = share * float(np.max(x0))
            bounds = [
                float(sign.phase1_loss_bound(start, time, mu=1.0, published=published))
                for published in (True, False)
            ]
            setting = f"H = diag(1, 1.5, 2, 3), {name}, t = {time:g}"
            cases.append(Case(setting, bounds[0], _flow_loss(x0, time), bounds[1]))
    return cases


def phase1_end_cases() -> list[Case]:
    """When the last coordinate arrives."""
    cases = []
    for name, x0 in (("(2, 2, 2, 2)", np.full(4, 2.0)), ("(3, 0, 0, 0)", np.eye(4)[0] * 3)):
        ends = [
            sign.phase1_end(_flow_loss(x0, 0.0), mu=1.0, published=published)
            for published in (True, False)
        ]
        cases.append(
            Case(f"H = diag(1, 1.5, 2, 3), x₀ = {name}", ends[0], float(np.max(x0)), ends[1])
        )
    return cases


def phase2_loss_cases() -> list[Case]:
    """Coordinates of one σ, each started at y = 3/2 and watched while y ≥ 1, by lattices."""
    eta, sigma, cases = 0.01, 0.1, []
    for lam in (np.array([0.1]), np.array([0.1, 0.12, 0.15])):
        x0, F = 1.5 * np.sqrt(2) * sigma / lam, noise_cdf(INF, sigma)
        start = float(lam @ x0**2 / 2)
        for time in (0.1, 0.3, 0.45):
            steps = round(time / eta)
            seconds = [lattice(eta, F, x, steps, c)[1][-1] for x, c in zip(x0, lam, strict=True)]
            bound = sign.phase2_loss_bound(
                start, time, learning_rate=eta, mu=lam.min(), hessian_trace=lam.sum(),
                sigma_max=sigma, dimension=len(lam),
            )  # fmt: skip
            hessian = ", ".join(f"{c:g}" for c in lam)
            cases.append(
                Case(
                    f"λ = {hessian}, σ = 0.1, η = 0.01, t = {time:g}", float(bound),
                    float(lam @ seconds / 2),
                )
            )  # fmt: skip
    return cases


def phase3_loss_cases() -> list[Case]:
    """The linearised SDE inside; the algorithm from y = 1 on, and at rest, outside."""
    eta, sigma, cases = 0.01, 1.0, []
    for name, lam in (("isotropic", np.ones(3)), ("diag(1, 2, 3)", np.array([1.0, 2, 3]))):
        x0 = 0.5 * np.sqrt(2) * sigma / lam
        start, problem = float(lam @ x0**2 / 2), Quadratic(lam)
        for time in (0.5, 2.0, 10.0):
            found = sign.moments(problem, sigma, eta, x0, time)
            exact = float(theory.expected_loss(problem, found))
            bound = _phase3_bound(start, time, eta, lam, sigma)
            cases.append(Case(f"{name}, y₀ = 0.5, t = {time:g}", bound, exact))
    start = np.sqrt(2) * sigma
    for time in (0.5, 1.0, 10.0):
        second = lattice(eta, noise_cdf(INF, sigma), start, round(time / eta))[1][-1]
        bound = _phase3_bound(start**2 / 2, time, eta, np.ones(1), sigma)
        simulate = of_position(sign_sgd(eta), [start], round(time / eta), _half_square)
        setting = f"λ = 1, y₀ = 1, t = {time:g}, the algorithm"
        cases.append(Case(setting, bound, float(second / 2), None, simulate, inside=False))
    return cases


def _half_square(x):
    """x₁²/2."""
    return x[0] ** 2 / 2


def _phase3_bound(start, time, eta, lam, sigma):
    return float(
        sign.phase3_loss_bound(
            start, time, learning_rate=eta, mu=lam.min(), hessian_trace=lam.sum(), sigma_max=sigma
        )
    )


def poster_level_cases() -> list[Case]:
    """E S as t → ∞ under the SDE of the poster's equation 1, isotropic f, η λ √B/σ = 10⁻⁴."""
    cases = []
    for sigma, B, d in ((1.0, 1, 1), (1.0, 16, 3), (5.0, 4, 3)):
        scale = sigma / np.sqrt(B)
        eta = 1e-4 * scale
        constants = {"learning_rate": eta, "mu": 1.0, "hessian_trace": d, "sigma": sigma}
        levels = [
            float(sign.loss_level(**constants, batch_size=B, published=published))
            for published in (True, False)
        ]
        variance = sign.stationary_variance(Quadratic(np.ones(d)), scale, eta, linearised=True)
        exact = float(np.sum(variance) / 2)
        cases.append(Case(f"σ = {sigma:g}, B = {B}, d = {d}", levels[0], exact, levels[1]))
    return cases


def poster_decay_cases() -> list[Case]:
    """E S on its way under the same SDE; the printed rate has no 1/σ."""
    cases, start = [], 0.01
    for sigma, B in ((0.5, 1), (1.0, 1), (4.0, 1), (4.0, 4)):
        scale = sigma / np.sqrt(B)
        eta, x0 = 1e-3 * scale, np.full(2, np.sqrt(start) * scale)
        time = 1.5 * scale
        S0 = start * scale**2
        printed, corrected = (
            sign.phase3_leading_loss_bound(
                S0, time, learning_rate=eta, mu=1.0, smoothness=1.0, sigma_max=sigma, dimension=2,
                batch_size=B, published=published,
            )
            for published in (True, False)
        )  # fmt: skip
        problem = Quadratic(np.ones(2))
        exact = theory.expected_loss(problem, sign.moments(problem, scale, eta, x0, time))
        setting = f"σ = {sigma:g}, B = {B}, t = 1.5 σ/√B"
        cases.append(Case(setting, float(printed), float(exact), float(corrected)))
    return cases


RATIOS = (0.4, 0.2, 0.1, 0.05)  # η λ/σ


def moment_cases(covariance: bool) -> list[Case]:
    """Lemma 3.7 on its way, from two stationary standard deviations, at a t = 1/2."""
    cases = []
    for nu in (INF, 1.0):
        for eta in RATIOS:
            a = sign.slope(nu)
            steps = max(round(0.5 / a / eta), 1)
            x0 = 2 * np.sqrt(eta / (2 * a))
            mean, second = (part[-1] for part in lattice(eta, noise_cdf(nu), x0, steps))
            found = sign.moments(ONE, 1.0, eta, [x0], steps * eta, degrees_of_freedom=nu)
            process, setting = sign_sgd(eta, nu), f"η λ/σ = {eta:g}, {law_name(nu)}"
            if covariance:
                simulate = of_position(process, [x0], steps, square, offset=mean**2)
                published, exact = found.covariance[0, 0], second - mean**2
            else:
                simulate = of_position(process, [x0], steps, first)
                published, exact = found.mean[0], mean
            cases.append(Case(setting, float(published), float(exact), None, simulate, small=eta))
    return cases


def stationary_cases() -> list[Case]:
    """Var x at rest, by the lattice."""
    cases = []
    for nu in (INF, 3.0, 1.0):
        for eta in RATIOS:
            published, corrected = (
                float(sign.stationary_variance(ONE, 1.0, eta, law, nu, linearised=linearised)[0])
                for law, linearised in ((theory.sde, True), (theory.discrete, False))
            )
            simulate = of_position(sign_sgd(eta, nu), [0.0], round(12 / eta), square)
            cases.append(
                Case(
                    f"η λ/σ = {eta:g}, {law_name(nu)}", published, stationary(eta, noise_cdf(nu)),
                    corrected, simulate, small=eta,
                )
            )  # fmt: skip
    return cases


def floor_cases() -> list[Case]:
    """Var x at rest where the noise is small beside a step."""
    cases = []
    for ratio in (10.0, 20.0, 40.0, 80.0):
        eta, sigma = 1.0, 1 / ratio
        published = sign.stationary_variance(ONE, sigma, eta, linearised=True)[0]
        cases.append(
            Case(
                f"η λ/σ = {ratio:g}", float(published), stationary(eta, noise_cdf(INF, sigma)),
                sign.noiseless_variance(eta) + sigma**2,
            )
        )  # fmt: skip
    return cases
