"""The closed forms of many agents, sharpness-aware methods and games, to 1e-6.

Where a form is of leading order in η it is compared at η = 1e-7 or so, where what it leaves out is
below 1e-6, or in the regime that its docstring names. One case a family runs always, all with
-m slow: most of their time is compilation.
"""

import jax
import numpy as np
import pytest

from jaxsde import InputError, OptimizerProcess, SDEProcess, optimizers, sdes, theory
from jaxsde.analysis import linearize
from jaxsde.oracles import (
    Agents,
    BernoulliK,
    GaussianNoise,
    RandomK,
)
from jaxsde.problems import Players, Quadratic, QuadraticGame

pytestmark = pytest.mark.usefixtures("x64")


def slow(*values):
    """A case for -m slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


H, SIGMA = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, 0.3], [0.3, 0.5]])
LAM = np.array([2.0, 0.7])
X0 = np.array([0.8, -0.5])
TINY = 1e-7
with jax.enable_x64(True):
    FULL = Quadratic(H, [1.0, -2.0])
    DIAGONAL = Quadratic(LAM)
    CORRELATED = GaussianNoise(FULL, covariance=SIGMA)
LAWS = {"discrete": theory.discrete, "em": theory.em(0.02), "sde": theory.sde}


def optimizer(factory, oracle, learning_rate, **values):
    return OptimizerProcess(factory, {"learning_rate": learning_rate, **values}, oracle)


def close(covariance, expected, rtol=1e-6):
    """In units of the deviations."""
    expected = np.atleast_2d(expected)
    deviation = np.sqrt(np.diag(expected))
    assert np.all(np.abs(covariance - expected) <= rtol * np.outer(deviation, deviation))


def form(law, process, sde, em_dt=0.02):
    """The chain or SDE that a law is of."""
    return {"discrete": lambda: process, "em": lambda: SDEProcess(sde, em_dt), "sde": lambda: sde}[
        law
    ]()


# many agents


def agents(compressor=None, problem=FULL):
    oracles = [GaussianNoise(problem, covariance=s * SIGMA) for s in (0.5, 1.0, 2.0)]
    return Agents(oracles, compressor)


@pytest.mark.slow
def test_distributed():
    covariances = np.stack([s * SIGMA for s in (0.5, 1.0, 2.0)])
    found = linearize(optimizer(optimizers.dsgd, agents(), 0.1), X0)
    expected = theory.distributed.stationary_covariance(
        FULL, covariances, 0.1, theory.discrete, agents=3
    )
    close(found.covariance, expected, 1e-10)
    largest = theory.distributed.largest_learning_rate(
        np.linalg.eigvalsh(H)[-1], agents=3, law=theory.discrete
    )
    for eta in (0.999 * largest, 1.001 * largest):
        process = optimizer(optimizers.dsgd, agents(), eta)
        stable = theory.distributed.is_stable(FULL, eta, theory.discrete, agents=3)
        assert linearize(process, X0).stable == stable == (eta < largest)


@pytest.mark.parametrize(
    ("compressor", "fixed_count"), [slow(BernoulliK(1.0), False), slow(RandomK(1), True)]
)
def test_compressed(compressor, fixed_count):
    """To leading order: compression makes noise of the gradient, 0 at the minimiser."""
    sde = sdes.DCSGD(agents(compressor), TINY)
    covariances = np.stack([s * SIGMA for s in (0.5, 1.0, 2.0)])
    expected = theory.distributed.stationary_covariance(
        FULL, covariances, TINY, agents=3, omega=1.0, fixed_count=fixed_count
    )
    close(linearize(sde, X0).covariance, expected)


@pytest.mark.slow
def test_compressed_level():
    sigma, mu = 1.3, 0.8
    oracles = [GaussianNoise(Quadratic(mu * np.eye(2)), covariance=sigma**2 * np.eye(2))] * 3
    found = linearize(sdes.DCSGD(Agents(oracles, BernoulliK(1.0)), TINY), X0)
    level = theory.distributed.loss_level(
        learning_rate=TINY, mu=mu, smoothness=mu, sigma=sigma, agents=3, omega=1.0,
        hessian_trace=2 * mu,
    )  # fmt: skip
    np.testing.assert_allclose(found.expected(oracles[0].problem.loss), level, rtol=1e-6)


@pytest.mark.parametrize("majority_vote", [slow(False), True])
def test_distributed_signs(majority_vote):
    """All 2³ signs a coordinate, of unequal agents where they do not vote."""
    sigma = np.full(3, 1.2) if majority_vote else np.array([0.6, 1.2, 2.0])
    many = Agents([GaussianNoise(DIAGONAL, [s, s]) for s in sigma])
    process = optimizer(optimizers.dsign_sgd, many, TINY, majority_vote=majority_vote)
    found = linearize(process, X0)
    expected = theory.distributed.sign_stationary_variance(
        DIAGONAL, sigma, TINY, theory.discrete, agents=3, majority_vote=majority_vote
    )
    close(found.covariance, np.diag(expected))
    steeper = theory.distributed.vote_slope(3) if majority_vote else 1
    pull = steeper * theory.sign.slope() * LAM / theory.distributed.harmonic_mean(sigma)
    np.testing.assert_allclose(1 / found.relaxation_times, np.sort(pull), rtol=1e-6)


@pytest.mark.slow
def test_distributed_sign_level():
    sigma, mu, eta = np.array([0.6, 1.2, 2.0]), 0.8, 0.1
    problem = Quadratic([mu, mu])
    sde = sdes.DSignSGD(Agents([GaussianNoise(problem, [s, s]) for s in sigma]), eta)
    level = theory.distributed.sign_loss_level(
        learning_rate=eta, mu=mu, hessian_trace=2 * mu, sigma=sigma, agents=3
    )
    np.testing.assert_allclose(linearize(sde, X0).expected(problem.loss), level, rtol=1e-6)


# sharpness-aware methods


@pytest.mark.parametrize(
    "variant", [slow({}), slow({"full_perturbation": True}), slow({"micro_batches": 2})]
)
def test_usam(variant):
    """The algorithm, or for its variants the Euler chain at dt = η, which has its two moments."""
    eta, rho = 0.1, 0.3
    sde = sdes.USAM(CORRELATED, eta, rho, **variant)
    process = optimizer(optimizers.usam, CORRELATED, eta, rho=rho)
    for chain, law in [
        (SDEProcess(sde, eta) if variant else process, theory.discrete), (sde, theory.sde)
    ]:  # fmt: skip
        expected = theory.sharpness.usam_stationary_covariance(
            FULL, SIGMA, eta, rho, law, **variant
        )
        close(linearize(chain, X0).covariance, expected, 1e-10)


@pytest.mark.slow
def test_usam_of_isotropic_noise():
    eta, rho = 0.1, 0.3
    found = linearize(sdes.USAM(GaussianNoise(FULL, covariance=np.eye(2)), eta, rho), X0)
    published = theory.sharpness.usam_published_stationary_covariance(FULL, np.eye(2), eta, rho)
    close(found.covariance, published, 1e-10)
    level = eta / 4 * (2 + rho * np.trace(H))
    np.testing.assert_allclose(np.sum(H * found.covariance) / 2, level, rtol=1e-10)


@pytest.mark.slow
def test_usam_captures():
    """The saddle is stable from `usam_capture_rho` on, under the SDE and under the algorithm."""
    saddle = Quadratic(np.array([[1.0, 0.0], [0.0, -0.5]]), [1.0, -2.0])
    oracle = GaussianNoise(saddle, covariance=SIGMA)
    threshold = theory.sharpness.usam_capture_rho(saddle)
    for rho in (0.99 * threshold, 1.01 * threshold):
        stable = theory.sharpness.usam_is_stable(saddle, 0.1, rho)
        found = linearize(sdes.USAM(oracle, 0.1, rho), saddle.minimizer)
        assert found.stable == stable == (rho > threshold)
    with pytest.raises(InputError, match=r"no stationary law.*eigenvalue .*real part"):
        _ = linearize(sdes.USAM(oracle, 0.1, 0.9 * threshold), saddle.minimizer).covariance


@pytest.mark.parametrize("first_order", [slow(False), slow(True)])
def test_sam(first_order):
    """The SDE, and its Euler chain at dt = η, whose mean and covariance are a SAM step's."""
    eta, rho, sigma = 0.1, 0.3, 0.9
    oracle = GaussianNoise(DIAGONAL, sigma)
    kind = "first-order" if first_order else "full"
    sde = sdes.SAM(oracle, eta, rho, covariance=kind)
    stationary = theory.sharpness.sam_stationary_covariance
    expected = stationary(DIAGONAL, sigma, eta, rho, first_order=first_order)
    close(linearize(sde, X0).covariance, expected)
    if not first_order:
        expected = stationary(DIAGONAL, sigma, eta, rho, theory.discrete)
        close(linearize(SDEProcess(sde, eta), X0).covariance, expected)
        saddle = GaussianNoise(Quadratic([1.0, -0.5]), sigma)
        threshold = theory.sharpness.sam_capture_rho(saddle.problem, sigma)
        for near in (0.99 * threshold, 1.01 * threshold):
            found = linearize(
                sdes.SAM(saddle, eta, near, covariance=kind), X0,
                fixed_point=sdes.State(np.array([1e-6, 1e-6])),
            )  # fmt: skip
            assert found.stable == (near > threshold)


# games


with jax.enable_x64(True):
    GAME = QuadraticGame(
        [[1.0, 0.4], [-0.2, 1.5]], [[0.8, 0.1], [0.1, 0.6]], [[0.5, 0.0], [0.0, 0.9]]
    )
NOISE4 = np.diag([1.0, 0.5, 0.8, 1.2]) + 0.2
Z0 = Players(np.array([1.0, 0.5]), np.array([-0.5, 1.0]))
METHODS = {
    "sgda": (optimizers.sgda, sdes.SGDA, {}, lambda rho: theory.minimax.sgda()),
    "seg": (optimizers.seg, sdes.SEG, {"independent": False}, theory.minimax.seg),
    "seg-2": (
        optimizers.seg, sdes.SEG, {"independent": True},
        lambda rho: theory.minimax.seg(rho, independent=True),
    ),
    "shgd-1": (optimizers.shgd, sdes.SHGD, {"batches": 1}, lambda rho: theory.minimax.shgd(1)),
    "shgd-2": (optimizers.shgd, sdes.SHGD, {"batches": 2}, lambda rho: theory.minimax.shgd(2)),
}  # fmt: skip


def on_game(name, game, noise, eta, rho, law):
    """The chain or SDE, and the theory's method."""
    factory, sde, fixed, method = METHODS[name]
    values = {**fixed, **({"rho": rho} if name.startswith("seg") else {})}
    oracle = GaussianNoise(game, covariance=noise)
    if law == theory.sde:
        return sde(oracle, eta, **values), method(rho)
    if name in ("seg", "shgd-2"):
        return optimizer(factory, oracle, eta, **values), method(rho)
    return SDEProcess(sde(oracle, eta, **values), eta), method(rho)  # the same two moments


def pairs_game(curvature, coupling):
    """Two equal pairs, in the shapes of GAME."""
    return QuadraticGame(coupling * np.eye(2), curvature * np.eye(2))


@pytest.mark.parametrize(
    ("name", "law"),
    [("seg", "sde")]
    + [slow(name, law) for name in METHODS for law in ("discrete", "sde")
       if (name, law) != ("seg", "sde")],
)  # fmt: skip
def test_minimax(name, law):
    eta, rho, law = 0.1, 0.2, LAWS[law]
    chain, method = on_game(name, GAME, NOISE4, eta, rho, law)
    found = linearize(chain, Z0)
    expected = theory.minimax.stationary_covariance(GAME, NOISE4, eta, law, method=method)
    close(found.covariance, expected)
    assert theory.minimax.is_stable(GAME, eta, law, method=method)
    if (name, law) == ("seg", theory.sde):
        moments = theory.Moments(np.zeros(4), expected)
        level = theory.minimax.mean_hamiltonian(GAME, moments)
        np.testing.assert_allclose(found.expected(GAME.loss), level, rtol=1e-6)
    a, lam, sigma = 0.7, 1.5, 0.9
    chain, _ = on_game(name, pairs_game(a, lam), sigma**2 * np.eye(4), eta, rho, law)
    pair, found = {"curvature": a, "coupling": lam, "method": method}, linearize(chain, Z0)
    level = theory.minimax.pair_level(eta, law, sigma=sigma, **pair)
    close(found.covariance, level * np.eye(4))
    rate = theory.minimax.pair_rate(eta, law, **pair)
    np.testing.assert_allclose(found.relaxation_times, 1 / rate, rtol=1e-6)
    turning = (
        np.angle(found.eigenvalues) / eta if law == theory.discrete else found.eigenvalues.imag
    )
    frequency = theory.minimax.pair_frequency(eta, law, **pair)
    np.testing.assert_allclose(np.abs(turning), frequency, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("law", ["discrete", "sde"])
def test_minimax_stability(law):
    """SEG on bilinear pairs between and beyond the ends of `stable_rho`, SGDA and SHGD too."""
    eta, lam, law = 0.3, 1.2, LAWS[law]
    low, high = theory.minimax.stable_rho(eta, law, curvature=0.0, coupling=lam)
    ends = [low * 0.99, low * 1.01, high * 0.99, high * 1.01]
    cases = [("seg", rho) for rho in ends if 0 < rho < np.inf]
    for name, rho in [*cases, ("sgda", 0.0), ("shgd-1", 0.0)]:
        for size in (1.0, 1.6):
            eta = 0.3 * size**4 if name == "shgd-1" else 0.3
            chain, method = on_game(name, pairs_game(0.0, lam), np.eye(4), eta, rho, law)
            stable = theory.minimax.pair_is_stable(
                eta, law, curvature=0.0, coupling=lam, method=method
            )
            assert linearize(chain, Z0).stable == stable


@pytest.mark.slow
def test_minimax_levels():
    eta, lam, sigma = 0.1, 1.5, 0.9
    chain, _ = on_game("shgd-1", pairs_game(0.0, lam), sigma**2 * np.eye(4), eta, 0.0, theory.sde)
    game = pairs_game(0.0, lam)
    level = theory.minimax.hamiltonian_level(
        learning_rate=eta, mu=lam**2, noise_trace=2 * 2 * lam**4 * sigma**2
    )
    np.testing.assert_allclose(linearize(chain, Z0).expected(game.loss), level, rtol=1e-6)
    game = pairs_game(0.7, lam)
    chain, _ = on_game("sgda", game, sigma**2 * np.eye(4), eta, 0.0, theory.sde)
    level = theory.minimax.half_square_level(
        learning_rate=eta, monotonicity=0.7, additive_noise=2 * sigma**2
    )
    np.testing.assert_allclose(linearize(chain, Z0).expected(game.half_square), level, rtol=1e-6)
