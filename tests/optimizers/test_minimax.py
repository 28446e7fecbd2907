import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsde import InputError, OptimizerProcess, optimizers
from jaxsde.oracles import GaussianNoise, MultiplicativeNoise
from jaxsde.problems import BilinearGame, Players

ETA, RHO, SIGMA, LAM = 0.1, 0.3, 0.5, 2.0
Z = np.array([0.7, -0.4])
ZETA = np.array([0.9, -1.3])


def process_of(optimizer, **options):
    oracle = MultiplicativeNoise(BilinearGame([LAM]), SIGMA)
    return OptimizerProcess(optimizer, {"learning_rate": ETA, **options}, oracle)


def walk(process, steps, two):
    """The point after steps on the draws ZETA, of which a step uses one or two."""
    z = Players(*(jnp.asarray(Z[i : i + 1]) for i in (0, 1)))
    state = process.init(z, None)
    draws = tuple(jnp.asarray(ZETA[i : i + 1]) for i in (0, 1))
    draw = type(process.noise(z))(draws) if two else draws[0]
    for k in range(steps):
        state = process.step(k, state, draw)
    return np.concatenate(state.x)


def J(i):
    """Of the draw i: F_c = J_c z."""
    coupling = LAM + SIGMA * ZETA[i]
    return np.array([[0, coupling], [-coupling, 0]])


def test_one_step_of_each(x64):
    cases = [
        (optimizers.sgda, {}, J(0) @ Z),
        (optimizers.seg, {"rho": RHO}, J(0) @ (Z - RHO * J(0) @ Z)),
        (optimizers.seg, {"rho": -RHO}, J(0) @ (Z + RHO * J(0) @ Z)),
        (optimizers.seg, {"rho": RHO, "independent": True}, J(1) @ (Z - RHO * J(0) @ Z)),
        (optimizers.shgd, {"batches": 1}, J(0).T @ J(0) @ Z),
        (optimizers.shgd, {}, (J(0).T @ J(1) + J(1).T @ J(0)) @ Z / 2),
    ]
    for factory, options, field in cases:
        two = options.get("independent", False) or options == {}
        two = two and factory is not optimizers.sgda
        found = walk(process_of(factory, **options), 1, two)
        np.testing.assert_allclose(found, Z - ETA * field, rtol=1e-13)


def test_schedules_of_both_step_sizes(x64):
    def psi(k):
        return 1 / (1.0 + k)

    def slow(k):
        return (1 + k) ** -0.5

    z = Z
    for k in range(3):
        z = z - ETA * psi(k) * J(0) @ (z - RHO * slow(k) * J(0) @ z)
    process = process_of(optimizers.seg, rho=RHO, schedule=psi, rho_schedule=slow)
    np.testing.assert_allclose(walk(process, 3, False), z, rtol=1e-13)
    for factory, field in ((optimizers.sgda, J(0)), (optimizers.shgd, J(0).T @ J(0))):
        z = Z
        for k in range(3):
            z = z - ETA * psi(k) * field @ z
        options = {"batches": 1} if factory is optimizers.shgd else {}
        found = walk(process_of(factory, schedule=psi, **options), 3, False)
        np.testing.assert_allclose(found, z, rtol=1e-13)


def test_any_optimizer_may_follow(x64):
    oracle = GaussianNoise(BilinearGame([LAM]), SIGMA)
    z = Players(jnp.asarray(Z[:1]), jnp.asarray(Z[1:]))
    xi = Players(jnp.array([0.2]), jnp.array([-0.6]))
    A, noise = np.array([[0, LAM], [-LAM, 0]]), SIGMA * np.array([0.2, -0.6])
    F = A @ Z + noise
    for optimizer, field in (
        (optimizers.extragradient(optax.sign_sgd(ETA), RHO), A @ (Z - RHO * F) + noise),
        (optimizers.hamiltonian(optax.sign_sgd(ETA), 1), A.T @ F),
    ):
        process = OptimizerProcess(optimizer, oracle, ETA)
        after = process.step(0, process.init(z, None), xi).x
        np.testing.assert_allclose(np.concatenate(after), Z - ETA * np.sign(field), rtol=1e-13)


@pytest.mark.parametrize("factory", [optimizers.sgda, optimizers.seg, optimizers.shgd])
def test_bad_input(factory):
    options = {"rho": RHO} if factory is optimizers.seg else {}
    for schedule in (lambda k: -1.0, lambda k: 1 - 0.5 * k, lambda k: np.nan):
        with pytest.raises(InputError, match="schedule must be one positive number, or 0, got"):
            factory(ETA, schedule=schedule, **options)
    with pytest.raises(InputError, match="schedule must be positive somewhere"):
        factory(ETA, schedule=lambda k: 0.0, **options)
    with pytest.raises(InputError, match="schedule must be a function of the step"):
        factory(ETA, schedule=0.1, **options)
    for schedule in (optax.linear_schedule(0.0, 1.0, 9), optax.cosine_decay_schedule(1.0, 9)):
        factory(ETA, schedule=schedule, **options)  # from 0, or down to it
    if factory is optimizers.seg:
        with pytest.raises(InputError, match="rho_schedule must be one positive"):
            factory(ETA, RHO, rho_schedule=lambda k: -1.0)
        with pytest.raises(InputError, match="rho must be finite"):
            factory(ETA, np.inf)
        with pytest.raises(InputError, match="rho must be one number"):
            factory(ETA, [0.1, 0.2])
    if factory is optimizers.shgd:
        with pytest.raises(InputError, match="batches must be 1 or 2"):
            factory(ETA, 3)
    if factory is not optimizers.sgda:
        with pytest.raises(InputError, match="not around it"):
            walk(
                process_of(lambda **hp: optax.chain(factory(**hp), optax.clip(1.0)), **options),
                1,
                0,
            )
