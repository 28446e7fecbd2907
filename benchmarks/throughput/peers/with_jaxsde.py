"""jaxsde through its public functions, timed whole."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import optax

import jaxsde
from benchmarks.throughput.cases import Case
from benchmarks.throughput.peers import formulas, with_diffrax
from benchmarks.throughput.peers.with_jax import device as device

jaxsde.use_all_cores()  # before JAX computes anything
SHARPNESS_AWARE = {
    "usam": jaxsde.sdes.USAM, "dnsam": jaxsde.sdes.DNSAM, "sam": jaxsde.sdes.SAM
}  # fmt: skip
PACKAGES = ("jaxsde", "diffrax", "equinox", "optax", "jax", "jaxlib", "numpy")


def build(case: Case, variant: str) -> Callable:
    """`jaxsde.simulate` of the case's process, its loss recorded at the end."""
    chain, loss = process(case)
    x0, observables = jnp.asarray(case.x0), {"loss": loss}

    def run(steps, seed):
        ensemble = jaxsde.simulate(
            chain, x0, steps=steps, paths=case.paths, key=jax.random.key(seed), records=1,
            observables=observables,
        )  # fmt: skip
        return float(ensemble.mean("loss")[-1]), float(ensemble.variance("loss")[-1])

    return run


def process(case: Case) -> tuple[Any, Callable]:
    """The case's process and its loss."""
    if case.equation in ("gbm", "adamw"):
        return _from_diffrax(case)
    p, eta = case.parameters, case.dt
    if case.equation == "dense":
        problem = jaxsde.problems.Quadratic(p.H)
        oracle = jaxsde.oracles.GaussianNoise(problem, covariance=p.covariance)
        return jaxsde.SDEProcess(jaxsde.sdes.SGD(oracle, eta), eta), problem.loss
    if case.equation in ("rmsprop", "rmsprop-order-2"):
        return _rmsprop(case)
    if case.equation in SHARPNESS_AWARE:
        problem = jaxsde.problems.Quadratic(p.H)
        oracle = jaxsde.oracles.GaussianNoise(problem, scale=p.sigma)
        sde = SHARPNESS_AWARE[case.equation](oracle, eta, p.rho)
        return jaxsde.SDEProcess(sde, eta), problem.loss
    problem = jaxsde.problems.Quadratic(p.h)
    oracle = jaxsde.oracles.GaussianNoise(problem, scale=p.sigma)
    if case.equation == "sign":
        return jaxsde.SDEProcess(jaxsde.sdes.SignSGD(oracle, eta), eta), problem.loss
    if case.equation == "adam-order-2":
        sde = jaxsde.sdes.Adam(oracle, eta, p.b1, p.b2, p.eps, order=2)
        return jaxsde.SDEProcess(sde, eta), problem.loss
    optimizer, hyperparameters = optax.sign_sgd, {"learning_rate": eta}
    if case.equation == "adamw-optimizer":
        optimizer = optax.adamw
        hyperparameters |= {
            "b1": p.b1, "b2": p.b2, "eps": p.eps, "weight_decay": p.weight_decay
        }  # fmt: skip
    return jaxsde.OptimizerProcess(optimizer, hyperparameters, oracle), problem.loss


def _rmsprop(case: Case) -> tuple[Any, Callable]:
    p, eta = case.parameters, case.dt
    problem = jaxsde.problems.Quadratic(p.H)
    noise = {"scale": p.root} if p.root.ndim == 1 else {"covariance": p.root @ p.root.T}
    sde = jaxsde.sdes.RMSprop(
        jaxsde.oracles.GaussianNoise(problem, **noise), eta, 1 - p.rho * eta, p.eps,
        v_timing="old", order=2 if case.equation.endswith("order-2") else 1,
    )  # fmt: skip
    return jaxsde.SDEProcess(sde, eta), problem.loss


def _from_diffrax(case: Case) -> tuple[Any, Callable]:
    """The terms of the diffrax peer, as they stand."""
    equation = formulas.equation(case, formulas.LAYOUTS["first"])
    shape = jax.ShapeDtypeStruct((case.d,), jnp.float32)
    path = diffrax.UnsafeBrownianPath(shape, jax.random.key(0))  # it only gives the shape
    sde = jaxsde.sdes.from_diffrax(
        with_diffrax.terms(equation, path), initial=equation.start, position=lambda y: y
    )
    return jaxsde.SDEProcess(sde, case.dt), equation.loss
