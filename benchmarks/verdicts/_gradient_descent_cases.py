"""The settings of `gradient_descent`: published and corrected forms beside exact laws."""

import numpy as np
import optax
import scipy.stats

from benchmarks.verdicts import _weak
from benchmarks.verdicts._simulated import first, of_position, square
from benchmarks.verdicts._verdict import Case
from jaxsde import OptimizerProcess, sdes, theory
from jaxsde.oracles import GaussianNoise, StudentTNoise
from jaxsde.problems import Quadratic
from jaxsde.sdes import HeavyBall, Nesterov
from jaxsde.sdes._sde import State
from jaxsde.sdes.gradient_descent import MomentumState
from jaxsde.theory import gradient_descent as gd

ETAS = (0.1, 0.05, 0.025, 0.0125)
LAMBDA, SIGMA, X0, TIME = 1.0, 1.0, 2.0, 1.0
ONE = Quadratic(np.array([LAMBDA]))


def _sgd(eta, oracle=GaussianNoise, **law):
    noise = oracle(Quadratic(np.array([LAMBDA], np.float32)), SIGMA, **law)
    return OptimizerProcess(optax.sgd, {"learning_rate": eta}, noise)


def _moments(eta, law):
    found = gd.moments(ONE, [SIGMA**2], eta, [X0], TIME, law)
    return float(found.mean[0]), float(found.covariance[0, 0])


def mean_cases() -> list[Case]:
    """E x after λ t = 1."""
    return [
        Case(
            f"η λ = {eta:g}, λ t = 1", X0 * np.exp(-LAMBDA * TIME), mean,
            X0 * (1 - eta * LAMBDA) ** (TIME / eta),
            of_position(_sgd(eta), [X0], round(TIME / eta), first), small=eta,
        )
        for eta in ETAS
        for mean in [_moments(eta, theory.discrete)[0]]
    ]  # fmt: skip


def covariance_cases() -> list[Case]:
    """Var x after λ t = 1."""
    cases = []
    for eta in ETAS:
        mean, exact = _moments(eta, theory.discrete)
        q = (1 - eta * LAMBDA) ** 2
        simulate = of_position(_sgd(eta), [X0], round(TIME / eta), square, offset=mean**2)
        cases.append(
            Case(
                f"η λ = {eta:g}, λ t = 1",
                eta / 2 * SIGMA**2 / LAMBDA * (1 - np.exp(-2 * LAMBDA * TIME)), exact,
                eta * SIGMA**2 * (1 - q ** (TIME / eta)) / (LAMBDA * (2 - eta * LAMBDA)),
                simulate, small=eta,
            )
        )  # fmt: skip
    return cases


def _stationary(eta, setting, published, process, variance=SIGMA**2, **options):
    """A case of the stationary variance at λ = 1, simulated to e⁻¹⁶ of its start."""
    exact = gd.stationary_covariance(ONE, [variance], eta, theory.discrete)[0, 0]
    corrected = eta * variance / (LAMBDA * (2 - eta * LAMBDA))
    simulate = of_position(process, [0.0], round(8 / eta), square)
    return Case(setting, published, float(exact), corrected, simulate, **options)


def stationary_cases() -> list[Case]:
    """Var x at rest; outside, near the edge of stability."""
    cases = [
        _stationary(eta, f"η λ = {eta:g}", eta / 2 * SIGMA**2 / LAMBDA, _sgd(eta), small=eta)
        for eta in ETAS
    ]
    variance, nu, eta = float(gd.student_t_covariance(SIGMA, 6.0)), 6.0, 0.05
    student = _sgd(eta, oracle=StudentTNoise, degrees_of_freedom=nu)
    cases.append(
        _stationary(
            eta, "η λ = 0.05, Student-t noise, ν = 6", eta / 2 * variance, student, variance
        )
    )
    cases.append(_stationary(1.5, "η λ = 1.5", 1.5 / 2, _sgd(1.5), inside=False))
    return cases


CURVATURES = np.array([2.0, 0.5])
START = np.array([1.0, -3.0])


def _expected_loss(eta, law, order=1):
    problem = Quadratic(CURVATURES)
    moments = gd.moments(problem, CURVATURES**2, eta, START, TIME, law, order)
    return float(theory.expected_loss(problem, moments))


def _loss(x):
    """f on the two curvatures."""
    return (CURVATURES[0] * x[0] ** 2 + CURVATURES[1] * x[1] ** 2) / 2


def _sampled_loss(eta):
    noise = GaussianNoise(Quadratic(CURVATURES.astype(np.float32)), CURVATURES.astype(np.float32))
    process = OptimizerProcess(optax.sgd, {"learning_rate": eta}, noise)
    return of_position(process, START, round(TIME / eta), _loss)


def first_order_loss_cases() -> list[Case]:
    """E f of SGD by the order-1 SDE."""
    decay = np.exp(-2 * CURVATURES * TIME)

    def printed(eta):
        return np.sum(CURVATURES * START**2 * decay / 2 + eta / 4 * CURVATURES**2 * (1 - decay))

    return [
        Case(
            f"H = diag(2, 0.5), t = 1, η = {eta:g}", float(printed(eta)),
            _expected_loss(eta, theory.discrete), simulate=_sampled_loss(eta), small=eta,
        )
        for eta in ETAS
    ]  # fmt: skip


def second_order_loss_cases() -> list[Case]:
    """E f of SGD by the order-2 SDE, as printed and without the slip."""

    def printed(eta):
        rate = CURVATURES * (2 + eta * CURVATURES)
        noise = eta / 2 * CURVATURES / (2 + eta * CURVATURES) * (1 - np.exp(-rate * TIME))
        return np.sum(CURVATURES * START**2 * np.exp(-rate * TIME) / 2 + noise)

    return [
        Case(
            f"H = diag(2, 0.5), t = 1, η = {eta:g}", float(printed(eta)),
            _expected_loss(eta, theory.discrete), _expected_loss(eta, theory.sde, 2),
            _sampled_loss(eta), small=eta,
        )
        for eta in ETAS
    ]  # fmt: skip


NOISE = 0.7
STEPS = (8, 16, 32)


def _line() -> _weak.Grid:
    return _weak.Grid(
        State, lambda y, z, tau: y - tau * (_weak.wavy_gradient(y) + NOISE * z), (1.0,),
        {"x": (1,), "x²": (2,)}, [(-3.0, 3.0)], 24,
    )  # fmt: skip


def weak_cases(order: int) -> list[Case]:
    """The SDE of that order on a loss that is not quadratic."""
    oracle = GaussianNoise(_weak.Wavy(), NOISE)

    def simulate(tau, n):
        process = OptimizerProcess(optax.sgd, {"learning_rate": tau}, oracle)
        return {"x²": of_position(process, [1.0], n, square)}

    return _weak.cases(
        _line(), lambda tau: sdes.SGD(oracle, tau, order), STEPS,
        lambda n: (f"f' = 0.6 x + 0.3 sin x, t = 1, η = 1/{n}", 1 / n), simulate=simulate,
    )  # fmt: skip


FRICTION = 0.8


def _momentum_grid(nesterov: bool) -> _weak.Grid:
    def update(y, z, h):
        x, v = y.T
        ahead = x + h * (1 - FRICTION * h) * v if nesterov else x
        v = v - h * (FRICTION * v + _weak.wavy_gradient(ahead) + NOISE * z)
        return np.stack([x + h * v, v], axis=-1)

    observables = {"x²": (2, 0), "x v": (1, 1), "v²": (0, 2)}
    domain = [(-2.0, 2.0), (-2.0, 2.0)]
    return _weak.Grid(MomentumState, update, (1.0, 0.0), observables, domain, 11)


def momentum_cases(nesterov: bool, order: int) -> list[Case]:
    """The same with momentum."""
    oracle, kind = GaussianNoise(_weak.Wavy(), NOISE), Nesterov if nesterov else HeavyBall

    def simulate(h, n):
        settings = {"learning_rate": h**2, "momentum": 1 - FRICTION * h}
        process = OptimizerProcess(optax.sgd, settings, oracle)
        return {} if nesterov else {"x²": of_position(process, [1.0], n, square)}

    return _weak.cases(
        _momentum_grid(nesterov), lambda h: kind(oracle, h**2, 1 - FRICTION * h, order), STEPS,
        lambda n: (f"f' = 0.6 x + 0.3 sin x, μ = 0.8, t = 1, √η = 1/{n}", 1 / n),
        simulate=simulate,
    )  # fmt: skip


def bound_cases() -> list[Case]:
    """The SDE inside, the algorithm outside."""
    eta, start = 0.01, 5.0
    cases = []
    for name, curvatures in (("isotropic", [1.0, 1, 1]), ("diag(1, 2, 5)", [1.0, 2, 5])):
        lam = np.array(curvatures)
        problem, x0 = Quadratic(lam), np.sqrt(2 * start / lam / 3)
        for sigma, time in ((1.0, 1.0), (1.0, 10.0), (10.0, 10.0)):
            for law, inside in ((theory.sde, True), (theory.discrete, False)):
                found = gd.moments(problem, np.full(3, sigma**2), eta, x0, time, law)
                cases.append(
                    Case(
                        f"{name}, σ = {sigma:g}, t = {time:g}"
                        + ("" if inside else ", the algorithm"),
                        _printed_bound(eta, lam, sigma, start, time),
                        float(theory.expected_loss(problem, found)), inside=inside,
                    )
                )  # fmt: skip
    return cases


def _printed_bound(eta, lam, sigma, start, time):
    """S₀ e^(-2μt) + (1 - e^(-2μt)) η L d σ² / (4 μ B), B = 1."""
    return float(
        gd.loss_bound(
            start, time, learning_rate=eta, mu=lam.min(), hessian_trace=lam.max() * len(lam),
            sigma_max=sigma,
        )
    )  # fmt: skip


def student_cases() -> list[Case]:
    """P(x_K ≤ x) against known laws: K = 1 is a scaled t, ν = 1 a Cauchy law; ν = 3 by sampling."""
    cases = []
    for nu, K, x in ((1.0, 1, 0.6), (2.0, 1, 0.4), (3.0, 1, 0.8), (1.0, 50, 1.0), (1.0, 400, -2.0)):
        eta, q = 0.1, 0.9
        found = gd.student_t_cdf(
            x, curvature=1.0, scale=1.0, degrees_of_freedom=nu, learning_rate=eta, x0=1.0, steps=K
        )
        scale = eta * (1 - q**K) / (1 - q)
        exact = scipy.stats.t.cdf((x - q**K) / scale, nu)
        cases.append(Case(f"ν = {nu:g}, K = {K}, x = {x:g}", float(found), float(exact)))
    return cases + _sampled_student_cases()


def _below(x):
    """Whether x₁ ≤ 0.5."""
    return (x[0] <= 0.5).astype(x.dtype)


def _sampled_student_cases() -> list[Case]:
    cases = []
    for nu in (1.5, 3.0):
        found = gd.student_t_cdf(
            0.5,
            curvature=1.0,
            scale=1.0,
            degrees_of_freedom=nu,
            learning_rate=0.1,
            x0=1.0,
            steps=20,
        )
        process = _sgd(0.1, oracle=StudentTNoise, degrees_of_freedom=nu)
        simulate = of_position(process, [1.0], 20, _below)
        cases.append(Case(f"ν = {nu:g}, K = 20, x = 0.5", float(found), None, simulate=simulate))
    return cases
