"""diffrax, as its documentation has it: one solve under `vmap`, or one solve of the whole array."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax as lx

from benchmarks.throughput.cases import OPTIMIZERS, Case
from benchmarks.throughput.peers import formulas, moments
from benchmarks.throughput.peers.with_jax import device as device

PACKAGES = ("diffrax", "equinox", "lineax", "jax", "jaxlib", "numpy")


def terms(equation: formulas.Equation, brownian: Any) -> diffrax.MultiTerm:
    """The SDE for `diffeqsolve`."""

    def diffusion(t, y, args):
        return lx.FunctionLinearOperator(lambda dW: equation.diffuse(t, y, dW), brownian.shape)

    drift = diffrax.ODETerm(lambda t, y, args: equation.drift(t, y))
    return diffrax.MultiTerm(drift, diffrax.ControlTerm(diffusion, brownian))


def build(case: Case, variant: str) -> Callable | None:
    """A jitted solve; `variant` is `unsafe`, `joint` or `tree`."""
    if case.equation in OPTIMIZERS:
        return None
    joint = variant == "joint"
    layout = formulas.LAYOUTS["last" if joint else "first"]
    shape = layout.shape(case) if joint else (case.d,)
    equation = formulas.equation(case, layout)
    struct = jax.ShapeDtypeStruct(formulas.noise_shape(case, shape), jnp.float32)

    def solve(key, t1):
        if variant == "tree":
            path = diffrax.VirtualBrownianTree(0.0, t1, case.dt / 2, struct, key)
        else:
            path = diffrax.UnsafeBrownianPath(struct, key)
        solution = diffrax.diffeqsolve(
            terms(equation, path),
            diffrax.Euler(),
            t0=0.0,
            t1=t1,
            dt0=case.dt,
            y0=equation.start(layout.x0(case, shape)),
            saveat=diffrax.SaveAt(t1=True),
            stepsize_controller=diffrax.ConstantStepSize(),
            adjoint=diffrax.ForwardMode(),
            max_steps=None,
            throw=False,
        )
        return equation.loss(jax.tree.map(lambda leaf: leaf[0], solution.ys))

    @jax.jit
    def final_loss(key, t1):
        if joint:
            return solve(key, t1)
        return jax.vmap(solve, (0, None))(jax.random.split(key, case.paths), t1)

    return lambda steps, seed: moments(final_loss(jax.random.key(seed), steps * case.dt))
