import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsde import InputError, OptimizerProcess, optimizers
from jaxsde.oracles import Agents, GaussianNoise
from jaxsde.problems import Quadratic, Rosenbrock

ETA, RHO, SCALE = 0.1, 0.2, 0.5
X, XI = np.array([0.5, -1.2]), [np.array([0.3, -0.8]), np.array([-1.1, 0.4])]
PROBLEM = Rosenbrock(3.0)


def g(x):
    a, b = x
    return np.array([-12 * a * (b - a**2) - 2 * (1 - a), 6 * (b - a**2)])


def one_step(optimizer, slots=1):
    oracle = GaussianNoise(PROBLEM, SCALE)
    process = OptimizerProcess(optimizer, oracle, ETA)
    x, draws = jnp.asarray(X), tuple(map(jnp.asarray, XI[:slots]))
    noise = process.noise(x)
    draw = draws[0] if slots == 1 else type(noise)(draws)
    return np.asarray(process.step(0, process.init(x, None), draw).x)


def unit(v):
    return v / np.linalg.norm(v)


def test_the_perturbed_gradient_is_of_the_same_draw(x64):
    Z = SCALE * XI[0]
    cases = [
        (optimizers.usam(ETA, RHO), g(X) + Z),
        (optimizers.dnsam(ETA, RHO), (g(X) + Z) / np.linalg.norm(g(X))),
        (optimizers.sam(ETA, RHO), unit(g(X) + Z)),
        (optimizers.usam(ETA, RHO, full_perturbation=True), g(X)),
        (optimizers.sam(ETA, RHO, full_perturbation=True), unit(g(X))),
        (optimizers.dnsam(ETA, RHO, floor=50.0), (g(X) + Z) / 50),
        (optimizers.sam(ETA, RHO, floor=50.0), (g(X) + Z) / 50),
    ]
    for optimizer, p in cases:
        known = X - ETA * (g(X + RHO * p) + Z)
        np.testing.assert_allclose(one_step(optimizer), known, rtol=1e-13)


def test_every_micro_batch_has_its_own_perturbation(x64):
    Z = [SCALE * xi for xi in XI]
    for factory, p in ((optimizers.usam, lambda v: v), (optimizers.sam, unit)):
        mean = sum(g(X + RHO * p(g(X) + z)) + z for z in Z) / 2
        found = one_step(factory(ETA, RHO, micro_batches=2), 2)
        np.testing.assert_allclose(found, X - ETA * mean, rtol=1e-13)


def test_any_optimizer_may_follow(x64):
    Z = SCALE * XI[0]
    perturbed = g(X + RHO * unit(g(X) + Z)) + Z
    found = one_step(optimizers.sharpness_aware(optax.sign_sgd(ETA), RHO))
    np.testing.assert_allclose(found, X - ETA * np.sign(perturbed), rtol=1e-13)
    sam = optax.contrib.sam(  # optax's own, on one draw
        optax.sgd(ETA), optax.chain(optax.contrib.normalize(), optax.sgd(RHO)), opaque_mode=True
    )
    np.testing.assert_allclose(one_step(sam), X - ETA * perturbed, rtol=1e-13)


def test_without_noise_and_radius_it_is_gradient_descent(x64):
    for factory in (optimizers.usam, optimizers.dnsam, optimizers.sam):
        np.testing.assert_allclose(
            one_step(factory(ETA, 0.0)), X - ETA * (g(X) + SCALE * XI[0]), rtol=1e-13
        )


def test_at_a_critical_point_the_step_is_finite(x64):
    oracle = GaussianNoise(Quadratic([1.0, -1.0]), SCALE)
    for factory in (optimizers.dnsam, optimizers.sam):
        process = OptimizerProcess(factory(ETA, RHO), oracle, ETA)
        for xi in (jnp.zeros(2), jnp.ones(2)):
            after = process.step(0, process.init(jnp.zeros(2), None), xi)
            assert np.all(np.isfinite(after.x))


def test_bad_input():
    for factory in (optimizers.usam, optimizers.dnsam, optimizers.sam):
        with pytest.raises(InputError, match="rho must be finite and not negative"):
            factory(ETA, -0.1)
        with pytest.raises(InputError, match="micro_batches must be a whole number"):
            factory(ETA, RHO, micro_batches=0)
    with pytest.raises(InputError, match="floor must be positive"):
        optimizers.sam(ETA, RHO, floor=0.0)
    with pytest.raises(InputError, match="norm must be None, 'full' or 'batch'"):
        optimizers.sharpness_aware(optax.sgd(ETA), RHO, "l2")
    with pytest.raises(InputError, match="into its `optimizer`, not around it"):
        one_step(optax.chain(optax.clip(1.0), optimizers.sam(ETA, RHO)))
    agents = Agents([GaussianNoise(PROBLEM, SCALE)] * 3)
    process = OptimizerProcess(optimizers.sam(ETA, RHO), agents, ETA)
    with pytest.raises(InputError, match="takes one oracle's gradients, not those of Agents"):
        process.noise(jnp.asarray(X, jnp.float32))
