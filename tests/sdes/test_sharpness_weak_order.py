"""Weak orders of USAM's SDE and of SGD's for it, without sampling."""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsde import OptimizerProcess, optimizers
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Problem
from jaxsde.sdes import SGD, USAM
from jaxsde.theory.transfer_operator import chain_expectation, diffusion_expectation


@eqx.filter_jit
def coefficients(sde, x):
    """Drift, and the diffusion's square over η."""
    y = sde.initial(x)
    diffusion = sde.diffusion(0.0, y, None)
    unit = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), diffusion.in_structure())
    flat, unravel = jax.flatten_util.ravel_pytree(unit)
    G = jax.jacrev(lambda w: diffusion.mv(unravel(w)).X)(flat)
    return sde.drift(0.0, y, None).X, G @ G.T / sde.learning_rate


class Bent(Problem):
    """f' = x + 0.3 x³."""

    def loss(self, x):
        return jnp.sum(x**2 / 2 + 0.3 * x**4 / 4)


def weak_errors(radius, SDE, options, steps=(16, 32, 64)):
    """The error of USAM's SDE in x and x² at time 1, root mean square over starts, without noise.

    The chain has three-point noise, which has the normal's first five moments.
    """
    sigma, starts = 0.4, np.linspace(-1, 1, 9)[:, None]

    def moments(x):
        return np.stack([x[:, 0], x[:, 0] ** 2], -1)

    errors = []
    for K in steps:
        eta = 1 / K
        oracle, rho = GaussianNoise(Bent(), sigma), radius(eta)
        process = OptimizerProcess(optimizers.usam(eta, rho), oracle, eta)

        def update(x, xi, process=process):
            def one(x):
                return process.step(0, process.init(x, None), jnp.asarray([xi])).x

            return np.asarray(jax.vmap(one)(jnp.asarray(x)))

        sde = SDE(oracle, eta, rho, **options) if SDE is USAM else SDE(oracle, eta)
        at = jax.vmap(lambda x, sde=sde: coefficients(sde, x))
        domain = [(-3.0, 3.0)]
        chain = chain_expectation(
            update, np.sqrt(3) * np.array([-1.0, 0, 1]), np.array([1, 4, 1]) / 6, moments, starts,
            K, domain, 28,
        )  # fmt: skip
        solved = diffusion_expectation(
            lambda x, at=at: np.asarray(at(jnp.asarray(x))[0]),
            lambda x, at=at, eta=eta: eta * np.asarray(at(jnp.asarray(x))[1]),
            moments, starts, 1.0, domain, 28,
        )  # fmt: skip
        errors.append(np.sqrt(np.mean((chain - solved) ** 2)))
    return np.log2(np.divide(errors[:-1], errors[1:]))


ROOT, SMALL = (lambda eta: 0.5 * np.sqrt(eta)), (lambda eta: 0.5 * eta)


@pytest.mark.parametrize(
    ("radius", "SDE", "options", "order"),
    [
        (ROOT, USAM, {}, 1.0),
        (ROOT, USAM, {"covariance": "sgd"}, 1.0),
        (ROOT, SGD, {}, 0.5),
        (SMALL, USAM, {}, 1.0),
        (SMALL, SGD, {}, 1.0),
    ],
)
def test_weak_orders(radius, SDE, options, order, x64):
    """ρ = √η/2 needs the drift's correction for order 1, ρ = η/2 does not; the noise's never."""
    slopes = weak_errors(radius, SDE, options)
    assert abs(slopes[-1] - order) < 0.06, slopes
