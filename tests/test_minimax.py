"""Methods for games against their exact laws, through the engine."""

import equinox as eqx
import jax
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
    values = {"learning_rate": eta, **arguments(name, rho, **more)}
    return OptimizerProcess(METHODS[name][0], values, oracle)


class PowerLaw(eqx.Module):
    """ψ(k) = (1 + ηk)^-p of which p is data, so that one program has all powers."""

    power: jax.Array = eqx.field(converter=jnp.asarray)

    def __call__(self, k):
        return (1 + ETA * k) ** -self.power


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


def sides(name, oracle, eta, rho, **more):
    """The algorithm and its SDE finely solved: a process, its law and the steps of a time of η."""
    solved = SDEProcess(METHODS[name][1](oracle, eta, **arguments(name, rho, **more)), eta / 4)
    return [
        (optimizer(name, oracle, eta, rho, **more), theory.discrete, 1),
        (solved, theory.em(eta / 4), 4),
    ]


@pytest.mark.parametrize(("name", "rho"), [("seg", 1.0), ("shgd-one", 0.0)])
def test_schedules_follow_the_exact_recursion(name, rho, key):
    """ψ(k) = (1 + ηk)^-p on a bilinear game, and ψ_ρ for SEG.

    3 x 2 runs of 2 x 2 numbers: one beyond 5 standard errors with probability 1.4e-5.
    """
    coupling = np.array([2.0, 1.0])
    oracle = GaussianNoise(BilinearGame(coupling), SIGMA)
    for powers in ((0.5, 0.0), (1.0, 0.0), (0.6, 0.2)):
        names = ("schedule", "rho_schedule")[: 2 if name == "seg" else 1]
        data, schedules = {}, {}
        for which, power in zip(names, powers, strict=False):
            data[which], schedules[which] = PowerLaw(power), minimax.power_law(power, ETA)
            k = jnp.arange(150)
            np.testing.assert_allclose(jax.jit(schedules[which])(k), data[which](k), rtol=1e-6)
        for process, law, substeps in sides(name, oracle, ETA, rho, **data):
            found = run(process, key, 150 * substeps)
            known = [
                minimax.scheduled_half_square(
                    start, found.time.round(6), ETA, law, curvature=0.0, coupling=lam,
                    sigma=SIGMA, method=METHODS[name][3](rho), **schedules,
                )
                for start, lam in zip(squares(Z0), coupling, strict=True)
            ]  # fmt: skip
            assert z_scores(found, np.stack(known, -1)).max() < 5, (powers, law)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"shgd-one"}))  # whose draw biases it
def test_multiplicative_noise_has_no_floor(name, key):
    """u's exact rates, two pairs of one law: 2 runs of 2 x 2 numbers, beyond 5 with 4.6e-6."""
    rho, sigma, eta = 0.5, 1.0, 0.01
    oracle = MultiplicativeNoise(BilinearGame([2.0, 2.0]), sigma)
    for process, law, substeps in sides(name, oracle, eta, rho):
        found = run(process, key, 60 * substeps)
        known = minimax.multiplicative_half_square(
            squares(Z0), found.time.round(6), eta, law, coupling=2.0, sigma=sigma,
            method=METHODS[name][3](rho),
        )  # fmt: skip
        assert z_scores(found, known).max() < 5, law


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
    """E z, E z² and the variance of Forsaken, apart by the order of η = 0.02 and the errors.

    4 means within 5 standard errors and 0.05, two variances (3 % errors) within a quarter: chance
    alone raises an alarm with probability below 1e-5.
    """
    oracle, rho = GaussianNoise(Forsaken(), 0.2), 0.1
    z0 = Players(np.float32([1.0]), np.float32([0.5]))

    def both(z):
        return jnp.concatenate([z.x, z.y, z.x**2, z.y**2])

    optimized, solved = (
        simulate(
            process, z0, steps=200 * substeps, paths=8000, key=key, records=1,
            observables={"z": both},
        )
        for process, _, substeps in sides(name, oracle, ETA, rho)
    )  # fmt: skip
    error = np.hypot(*(found.standard_error("z")[-1] for found in (optimized, solved)))
    apart = np.abs(optimized.mean("z")[-1] - solved.mean("z")[-1])
    assert np.all(apart < 5 * error + 0.05)
    ratio = solved.variance("z")[-1, :2] / optimized.variance("z")[-1, :2]
    np.testing.assert_allclose(ratio, 1, atol=0.25)
