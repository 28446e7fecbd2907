"""The settings of `sharpness`: published and corrected forms beside the algorithms' own laws."""

import functools

import jax.numpy as jnp
import numpy as np

import jaxsde
from benchmarks.verdicts import _chains
from benchmarks.verdicts._perturbed import (
    KINDS,
    Additive,
    Terms,
    X,
    capture_radius,
    sam_stationary_variance,
    step_covariance,
    usam_step,
)
from benchmarks.verdicts._verdict import Case
from jaxsde import optimizers
from jaxsde.oracles import GaussianNoise, MinibatchNoise, Oracle
from jaxsde.problems import Quadratic
from jaxsde.theory import discrete, sde, sharpness

ETAS = (0.05, 0.025, 0.0125)
RHOS = (0.1, 0.05, 0.025)
SIGMA = 0.5
FORMS = (sde, discrete)  # published and corrected
_OPTIMIZERS = dict(zip(KINDS, (optimizers.usam, optimizers.sam, optimizers.dnsam), strict=True))
_FULL = functools.partial(optimizers.usam, full_perturbation=True)


def first(x):
    """x₁."""
    return x[0]


def first_square(x):
    """x₁²."""
    return x[0] ** 2


def last_square(x):
    """The square of the last coordinate."""
    return x[-1] ** 2


def half_squares(x):
    """(x₁² + 4 x₂²)/2, the loss for H = diag(1, 4)."""
    return (x[0] ** 2 + 4 * x[1] ** 2) / 2


def product(x):
    """x₁ x₂."""
    return x[0] * x[1]


def _process(optimizer, eta: float, rho: float, oracle: Oracle) -> jaxsde.OptimizerProcess:
    return jaxsde.OptimizerProcess(optimizer, {"learning_rate": eta, "rho": rho}, oracle)


def _usam(H, eta: float, rho: float, covariance=None) -> jaxsde.OptimizerProcess:
    """On a quadratic, with noise of that covariance, or σ² I."""
    noise = {"scale": SIGMA} if covariance is None else {"covariance": covariance}
    return _process(optimizers.usam, eta, rho, GaussianNoise(Quadratic(jnp.asarray(H)), **noise))


def usam_moments(part: str) -> list[Case]:
    """The mean or the variance at t = 1 of one direction, λ = 2, from x = 1."""
    lam, t, cases = 2.0, 1.0, []
    for rho in (0.1, 0.5):
        for eta in ETAS:
            steps, H = round(t / eta), np.array([[lam]])
            found = _chains.moments(usam_step(H, eta, rho), [SIGMA**2], [1.0], steps)
            published, corrected = (
                sharpness.usam_moments(Quadratic([lam]), [SIGMA**2], eta, rho, [1.0], t, law)
                for law in FORMS
            )
            forms = [
                float(np.ravel(getattr(each, part))[0]) for each in (published, found, corrected)
            ]
            process, x0 = _usam([lam], eta, rho), jnp.ones(1)
            if part == "mean":
                simulate = _chains.simulated(process, x0, steps, first)
            else:
                shift = -float(found.mean[0] ** 2)
                simulate = _chains.simulated(process, x0, steps, first_square, shift=shift)
            setting = f"λ = 2, ρ = {rho:g}, t = 1, η = {eta:g}"
            cases.append(Case(setting, *forms, simulate, True, eta))
    return cases


def usam_levels() -> list[Case]:
    """Of the last coordinate: of a minimum, of a captured saddle; outside, Σ with correlations."""
    cases = []
    for H, rho in [([1.0, 4.0], 0.5), ([1.0, -1.0], 2.0)]:
        for eta in ETAS:
            published, corrected = (
                sharpness.usam_stationary_covariance(Quadratic(H), [SIGMA**2] * 2, eta, rho, law)
                for law in FORMS
            )
            exact = _chains.stationary(usam_step(np.diag(H), eta, rho), [SIGMA**2] * 2, 2)
            forms = [float(each[1, 1]) for each in (published, exact, corrected)]
            simulate = _chains.simulated(
                _usam(H, eta, rho), jnp.zeros(2), round(8 / eta), last_square
            )
            setting = f"λ = {H[1]:g}, ρ = {rho:g}, η = {eta:g}"
            cases.append(Case(setting, *forms, simulate, True, eta))
    return cases + _correlated_levels()


def _correlated_levels() -> list[Case]:
    H, covariance = np.array([1.0, 4.0]), SIGMA**2 * np.array([[1.0, 0.6], [0.6, 1.0]])
    eta, rho = ETAS[-1], 0.5
    args = Quadratic(H), covariance, eta, rho
    published = sharpness.usam_published_stationary_covariance(*args)
    corrected = sharpness.usam_stationary_covariance(*args, discrete)
    exact = _chains.stationary(usam_step(np.diag(H), eta, rho), covariance, 2)
    process = _usam(H, eta, rho, covariance)
    simulate = _chains.simulated(process, jnp.zeros(2), round(8 / eta), product)
    return [
        Case(
            f"entry {name} of H = diag(1, 4), correlation 0.6, ρ = 0.5, η = {eta:g}",
            float(published[entry]), float(exact[entry]), float(corrected[entry]), simulate, False,
        )
        for name, entry in [("(1, 2)", (0, 1)), ("(2, 1)", (1, 0))]
    ]  # fmt: skip


def usam_losses() -> list[Case]:
    """E f as t → ∞ at H = diag(1, 4)."""
    H, cases = np.array([1.0, 4.0]), []
    for rho in (0.1, 1.0):
        for eta in ETAS:
            published = eta * SIGMA**2 / 4 * (len(H) + rho * np.sum(H))
            kappa = 1 + rho * H
            corrected = float(np.sum(eta * SIGMA**2 * kappa / (2 - eta * H * kappa)) / 2)
            V = _chains.stationary(usam_step(np.diag(H), eta, rho), [SIGMA**2] * 2, 2)
            exact = float(np.sum(H * np.diag(V)) / 2)
            simulate = _chains.simulated(
                _usam(H, eta, rho), jnp.zeros(2), round(8 / eta), half_squares
            )
            setting = f"H = diag(1, 4), ρ = {rho:g}, η = {eta:g}"
            cases.append(Case(setting, float(published), exact, corrected, simulate, True, eta))
    return cases


def capture_rhos() -> list[Case]:
    """Where the spectral radius of a step falls below 1."""
    cases = []
    for name, H in [
        ("λ = -2", np.diag([-2.0])),
        ("H = diag(1, -0.5, -2)", np.diag([1.0, -0.5, -2.0])),
        ("H = [[1, 2], [2, -1]]", np.array([[1.0, 2.0], [2.0, -1.0]])),
    ]:
        eta, d = 0.1, len(H)
        exact = _chains.root(
            lambda rho, H=H, d=d, eta=eta: (
                _chains.spectral_radius(usam_step(H, eta, rho), d, d) - 1
            ),
            0.05, 2.5,
        )  # fmt: skip
        cases.append(Case(f"{name}, η = {eta:g}", sharpness.usam_capture_rho(Quadratic(H)), exact))
    return cases


def _drift(
    kind: str, rho: float, published: float, mean: float, oracle: Oracle, setting: str,
    corrected: float | None = None, inside: bool = True, optimizer=None,
) -> Case:  # fmt: skip
    """The first coordinate of a step's mean over η, from X."""
    process = _process(optimizer or _OPTIMIZERS[kind], 1.0, rho, oracle)
    simulate = _chains.simulated(process, jnp.asarray(X), 1, first, shift=-float(X[0]))
    return Case(f"{setting}, ρ = {rho:g}", published, -mean, corrected, simulate, inside, rho)


def _descent(loss) -> float:
    """-∂₁ of a function of x at X."""
    return -_chains.slope(lambda first: loss(np.array([first, X[1]])), float(X[0]))


def usam_drifts(batch_size: int, full: bool = False) -> list[Case]:
    """Against all batches of three non-quadratic terms."""
    terms, cases = Terms(batch_size), []
    single = Terms()
    for rho in RHOS:

        def modified(x, rho=rho):
            g = single.gradients(x)
            trace = 0.0 if full else float(np.sum(np.var(g, axis=0)))
            extra = sharpness.usam_regularizer(
                np.mean(g, axis=0), trace, rho, batch_size=batch_size
            )
            return terms.loss(x) + float(extra)

        mean = float(terms.mean_gradient("USAM", rho, full)[0])
        oracle = MinibatchNoise(terms.problem(), batch_size)
        setting = "full gradient" if full else f"m = {batch_size}"
        optimizer = _FULL if full else None
        cases.append(
            _drift("USAM", rho, _descent(modified), mean, oracle, setting, optimizer=optimizer)
        )
    return cases


def sam_drifts() -> list[Case]:
    """Three terms, and one term with Gaussian noise."""
    terms, noisy, cases = Terms(), Additive(SIGMA), []
    for rho in RHOS:

        def modified(x, rho=rho):
            return terms.loss(x) + float(sharpness.sam_regularizer(terms.gradients(x), rho))

        mean, oracle = float(terms.mean_gradient("SAM", rho)[0]), MinibatchNoise(terms.problem())
        cases.append(_drift("SAM", rho, _descent(modified), mean, oracle, "finite sum"))
    for rho in RHOS:

        def modified(x, rho=rho):
            g = noisy.gradient(x)
            return noisy.loss(x) + float(sharpness.sam_gaussian_regularizer(g, SIGMA, rho))

        mean, oracle = (
            float(noisy.mean_gradient("SAM", rho)[0]),
            GaussianNoise(noisy.problem(), SIGMA),
        )
        cases.append(
            _drift("SAM", rho, _descent(modified), mean, oracle, f"Gaussian, σ = {SIGMA:g}")
        )
    return cases


def dnsam_drifts() -> list[Case]:
    """Additive noise; outside, noise that depends on x."""
    terms, noisy, cases = Terms(), Additive(SIGMA), []
    for rho in RHOS:

        def modified(x, rho=rho):
            return noisy.loss(x) + float(sharpness.dnsam_regularizer(noisy.gradient(x), rho))

        mean, oracle = (
            float(noisy.mean_gradient("DNSAM", rho)[0]),
            GaussianNoise(noisy.problem(), SIGMA),
        )
        cases.append(
            _drift("DNSAM", rho, _descent(modified), mean, oracle, f"Gaussian, σ = {SIGMA:g}")
        )
    norm = float(np.linalg.norm(np.mean(terms.gradients(X), axis=0)))
    for rho in RHOS:

        def modified(x, rho=rho):
            g = np.mean(terms.gradients(x), axis=0)
            return terms.loss(x) + float(sharpness.dnsam_regularizer(g, rho))

        def corrected(x, rho=rho):
            squares = np.mean(np.sum(terms.gradients(x) ** 2, axis=-1))
            return terms.loss(x) + rho / (2 * norm) * float(squares)

        mean, oracle = float(terms.mean_gradient("DNSAM", rho)[0]), MinibatchNoise(terms.problem())
        cases.append(
            _drift(
                "DNSAM", rho, _descent(modified), mean, oracle, "finite sum",
                _descent(corrected), inside=False,
            )
        )  # fmt: skip
    return cases


def first_order_covariances() -> list[Case]:
    """The first entry of the covariance of a step over η², on quadratics; outside, at a saddle."""
    H, cases = np.array([2.0, 1.0]), []
    for rho in RHOS:
        kappa = 1 + rho * H[0]
        G = _chains.affine(usam_step(np.diag(H), 1.0, rho), 2, 2)[1]
        exact = float((G @ G.T)[0, 0]) * SIGMA**2
        published = SIGMA**2 * (1 + 2 * rho * H[0])
        setting = f"USAM, λ = 2, ρ = {rho:g}"
        cases.append(Case(setting, published, exact, SIGMA**2 * kappa**2, None, True, rho))
    for g in (np.zeros(2), np.array([SIGMA, SIGMA / 2]), np.array([2.0, 1.0])):
        for rho in RHOS:
            cases.append(_sam_covariance(H, g, SIGMA, rho))
    return [*cases, _sam_covariance(np.array([-2.0, 1.0]), np.zeros(2), 0.1, 0.2, inside=False)]


def _sam_covariance(H, g, sigma: float, rho: float, inside: bool = True) -> Case:
    published, corrected = (
        float(sharpness.sam_covariance(H, g, sigma, rho, first_order=first_order)[0, 0])
        for first_order in (True, False)
    )
    exact = float(step_covariance(np.diag(H), g, sigma, rho)[0, 0])
    place = "0" if not np.any(g) else f"{np.linalg.norm(g) / sigma:.3g} σ"
    setting = f"SAM, λ = {H[0]:g}, norm of ∇f = {place}, σ = {sigma:g}, ρ = {rho:g}"
    return Case(setting, published, exact, corrected, None, inside, rho if inside else None)


def sam_levels() -> list[Case]:
    """One dimension at falling η, and a saddle that captures."""
    cases, lam = [], 1.0
    for rho in (0.1, 0.5):
        for eta in ETAS:
            published, corrected = (
                float(sharpness.sam_stationary_covariance(
                    Quadratic([lam]), SIGMA, eta, rho, law, first_order=first_order
                )[0, 0])
                for law, first_order in ((sde, True), (discrete, False))
            )  # fmt: skip
            exact = sam_stationary_variance(lam, SIGMA, eta, rho)
            simulate = _sam([lam], SIGMA, eta, rho)
            setting = f"d = 1, λ = 1, σ = {SIGMA:g}, ρ = {rho:g}, η = {eta:g}"
            cases.append(Case(setting, published, exact, corrected, simulate, True, eta))
    return [*cases, _captured_level()]


def _sam(H, sigma: float, eta: float, rho: float):
    oracle = GaussianNoise(Quadratic(jnp.asarray(H)), sigma)
    process = _process(optimizers.sam, eta, rho, oracle)
    return _chains.simulated(process, jnp.zeros(len(H)), round(12 / eta), last_square)


def _captured_level() -> Case:
    H, sigma, eta, rho = [1.0, -1.0], 0.1, 0.025, 0.5
    corrected = sharpness.sam_stationary_covariance(Quadratic(H), sigma, eta, rho, discrete)[1, 1]
    radius = float(sharpness.effective_rho(rho, sigma, 2))
    published = eta * sigma**2 * (1 - 2 * radius) / (2 * (radius - 1))
    setting = f"a saddle, H = diag(1, -1), λ = -1, σ = {sigma:g}, ρ = {rho:g}, η = {eta:g}"
    return Case(setting, published, None, float(corrected), _sam(H, sigma, eta, rho))


def capture_radii() -> list[Case]:
    """On the axis of the least negative eigenvalue, where it is attained, and elsewhere."""
    rho, cases = 0.3, []
    for H, direction in [
        ([1.0, -1.0], [0.0, 1.0]),
        ([1.0, -1.0], [1.0, 1.0]),
        ([-2.0, -1.0], [1.0, 0.0]),
        ([-2.0, -1.0], [1.0, 1.0]),
    ]:
        for eta in (0.1, 0.02):
            exact = capture_radius(np.diag(H), np.array(direction), eta, rho)
            published = sharpness.sam_capture_radius(Quadratic(H), rho)
            setting = f"H = diag({H[0]:g}, {H[1]:g}) along ({direction[0]:g}, {direction[1]:g})"
            cases.append(Case(f"{setting}, ρ = {rho:g}, η = {eta:g}", published, exact))
    return cases
