"""Methods for games against their exact laws, through the engine."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde import OptimizerProcess, SDEProcess, optimizers, sdes, simulate, theory
from jaxsde.oracles import FullBatch, GaussianNoise, MultiplicativeNoise
from jaxsde.problems import BilinearGame, Forsaken, Players, QuadraticGame
from jaxsde.theory import minimax

ETA, SIGMA = 0.02, 0.5
METHODS = {  # optimizer, its options beside ρ, the law
    "sgda": (optimizers.sgda, sdes.SGDA, {}, lambda rho: minimax.sgda()),
    "seg": (optimizers.seg, sdes.SEG, {}, minimax.seg),
    "seg-independent": (
        optimizers.seg, sdes.SEG, {"independent": True}, lambda rho: minimax.seg(rho, True)
    ),
    "shgd-one": (optimizers.shgd, sdes.SHGD, {"batches": 1}, lambda rho: minimax.shgd(1)),
    "shgd-two": (optimizers.shgd, sdes.SHGD, {"batches": 2}, lambda rho: minimax.shgd(2)),
}  # fmt: skip
GAMES = [  # curvatures and couplings of two pairs, and SEG's ρ
    ((2.0, 0.5), (1.0, 1.0), 0.3),
    ((3.0, 3.0), (1.0, 2.0), -0.5),
    ((-1.0, -0.5), (2.0, 1.0), 1.0),
    ((0.0, 0.0), (2.0, 1.0), 0.5),
    ((0.3, 0.0), (0.0, 1.0), -0.2),
]
Z0 = Players(np.array([0.5, -0.4], np.float32), np.array([0.3, 0.6], np.float32))


def squares(z):
    """u of every pair."""
    return (z.x**2 + z.y**2) / 2


def arguments(name, rho, **more):
    return {**({"rho": rho} if name.startswith("seg") else {}), **METHODS[name][2], **more}


def optimizer(name, oracle, eta, rho, **more):
    values = arguments(name, rho, **more)
    data = {key: value for key, value in values.items() if isinstance(value, float)}
    fixed = {key: value for key, value in values.items() if key not in data}
    factory = METHODS[name][0]
    return OptimizerProcess(
        lambda **numbers: factory(**numbers, **fixed), {"learning_rate": eta, **data}, oracle
    )


def run(process, key, steps, paths=8000, z0=Z0):
    return simulate(
        process, z0, steps=steps, paths=paths, key=key, records=[steps // 5, steps],
        observables={"u": squares},
    )  # fmt: skip


def z_scores(found, known):
    return np.abs(found.mean("u") - known) / found.standard_error("u")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("sde", [False, True])
def test_five_games_follow_the_exact_laws(name, sde, key):
    """u of every pair, converging and diverging, against the chain's own law.

    5 games of 2 times of 2 pairs: |z| > 5 somewhere with probability below 1.2e-5.
    """
    for curvature, coupling, rho in GAMES:
        oracle = GaussianNoise(QuadraticGame(coupling, curvature), SIGMA)
        process, law, steps = optimizer(name, oracle, ETA, rho), theory.discrete, 150
        if sde:
            solved = METHODS[name][1](oracle, ETA, **arguments(name, rho))
            process, law, steps = SDEProcess(solved, ETA / 4), theory.em(ETA / 4), 600
        found = run(process, key, steps)
        known = minimax.pair_half_square(
            squares(Z0), found.time.round(6), ETA, law,
            curvature=np.array(curvature), coupling=np.array(coupling), sigma=SIGMA,
            method=METHODS[name][3](rho),
        )  # fmt: skip
        assert z_scores(found, known).max() < 5, (curvature, coupling, rho)


@pytest.mark.parametrize(("name", "rho"), [("seg", 1.0), ("shgd-one", 0.0)])
def test_schedules_follow_the_exact_recursion(name, rho, key):
    """ψ(k) = (1 + ηk)^-p on a bilinear game; of 3 x 2 x 2 numbers one beyond 5 with 7e-6."""
    coupling = np.array([2.0, 1.0])
    oracle = GaussianNoise(BilinearGame(coupling), SIGMA)
    for power in (0.5, 1.0, 2.0):
        psi = minimax.power_law(power, ETA)
        found = run(optimizer(name, oracle, ETA, rho, schedule=psi), key, 200)
        known = [
            minimax.scheduled_half_square(
                start, found.time.round(6), ETA, theory.discrete, curvature=0.0, coupling=lam,
                sigma=SIGMA, method=METHODS[name][3](rho), schedule=psi,
            )
            for start, lam in zip(squares(Z0), coupling, strict=True)
        ]  # fmt: skip
        assert z_scores(found, np.stack(known, -1)).max() < 5


def test_a_schedule_of_rho_follows_the_exact_recursion(key):
    oracle, slow = GaussianNoise(BilinearGame([2.0, 2.0]), SIGMA), minimax.power_law(0.2, ETA)
    fast, rho = minimax.power_law(0.6, ETA), 1.0
    found = run(optimizer("seg", oracle, ETA, rho, schedule=fast, rho_schedule=slow), key, 200)
    for pair in (0, 1):
        known = minimax.scheduled_half_square(
            squares(Z0)[pair], found.time.round(6), ETA, theory.discrete, curvature=0.0,
            coupling=2.0, sigma=SIGMA, method=minimax.seg(rho), schedule=fast, rho_schedule=slow,
        )  # fmt: skip
        assert z_scores(found, known[:, None])[:, pair].max() < 5


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"shgd-one"}))  # whose draw biases it
def test_multiplicative_noise_has_no_floor(name, key):
    """u's exact rate, which is the SDE's give or take order η; two pairs of one law."""
    rho, sigma, eta = 0.5, 1.0, 0.01
    oracle = MultiplicativeNoise(BilinearGame([2.0, 2.0]), sigma)
    found = run(optimizer(name, oracle, eta, rho), key, 60)
    known = minimax.multiplicative_half_square(
        squares(Z0), found.time.round(6), eta, theory.discrete, coupling=2.0, sigma=sigma,
        method=METHODS[name][3](rho),
    )  # fmt: skip
    assert z_scores(found, known).max() < 5
    sde = METHODS[name][1](oracle, eta, **arguments(name, rho))
    solved = run(SDEProcess(sde, eta), key, 60)
    apart = np.abs(solved.mean("u") - known) / known
    assert np.all(apart < 5 * solved.standard_error("u") / known + 0.05)


def test_any_rho_converges_in_the_sde_but_not_in_the_algorithm():
    """Extragradient on a bilinear game without noise, η = 0.1: 2ρ > η (1 + ρ² λ²) decides."""
    eta, z0 = 0.1, Players(np.ones(1, np.float32), np.ones(1, np.float32))
    oracle = FullBatch(BilinearGame([1.0]))
    ratios = []
    for rho in (0.03, 0.049, 0.052, 0.08):
        sde = SDEProcess(sdes.SEG(oracle, eta, rho), eta / 100)
        repaired = SDEProcess(sdes.SEG(oracle, eta, rho - eta / 2), eta / 100)
        runs = (optimizer("seg", oracle, eta, rho), 200), (sde, 20_000), (repaired, 20_000)
        u = [run(process, jnp.zeros(2, jnp.uint32), steps, 1, z0) for process, steps in runs]
        ratios.append([float(found.mean("u")[-1, 0]) for found in u])
        stable = 2 * rho > eta * (1 + rho**2)
        assert (
            minimax.pair_is_stable(
                eta, theory.discrete, curvature=0.0, coupling=1.0, method=minimax.seg(rho)
            )
            == stable
        )
        assert (ratios[-1][0] < 1) == stable
        assert ratios[-1][1] < 0.6  # e^(-2 ρ t), t = 20, and the solver's own order
    converged = np.array(ratios) < 1
    np.testing.assert_array_equal(converged[:, 0], [False, False, True, True])
    assert converged[:, 1].all()
    np.testing.assert_array_equal(converged[[0, 3], 2], converged[[0, 3], 0])


@pytest.mark.parametrize("name", METHODS)
def test_a_nonlinear_game_to_order_of_the_step(name, key):
    """E z and E |z|² of Forsaken: the SDE's error falls with η, 0.05 at most here at η = 0.02."""
    oracle, rho, z0 = (
        GaussianNoise(Forsaken(), 0.2),
        0.1,
        Players(np.float32([1.0]), np.float32([0.5])),
    )
    means = []
    for process, steps in (
        (optimizer(name, oracle, ETA, rho), 200),
        (SDEProcess(METHODS[name][1](oracle, ETA, **arguments(name, rho)), ETA / 4), 800),
    ):
        found = simulate(
            process, z0, steps=steps, paths=8000, key=key, records=[steps],
            observables={"z": lambda z: jnp.concatenate([z.x, z.y, z.x**2, z.y**2])},
        )  # fmt: skip
        means.append((found.mean("z")[-1], found.standard_error("z")[-1]))
    (a, error_a), (b, error_b) = means
    assert np.all(np.abs(a - b) < 5 * np.hypot(error_a, error_b) + 0.05)
