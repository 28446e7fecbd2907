"""Plain JAX: a loop over the ensemble's array, and for optimizers a hand-written optax loop."""

from collections.abc import Callable

import jax
import numpy as np
import optax

from benchmarks.throughput.cases import OPTIMIZERS, Case
from benchmarks.throughput.peers import formulas, moments

PACKAGES = ("jax", "jaxlib", "optax", "numpy")


def build(case: Case, variant: str) -> Callable:
    """A jitted loop, `variant` being where the paths are: first or last."""
    layout = formulas.LAYOUTS[variant]
    shape = layout.shape(case)
    noise_shape = formulas.noise_shape(case, shape)
    start, step, loss = (_optimizer if case.equation in OPTIMIZERS else _euler)(case, layout)

    @jax.jit
    def final_loss(key, steps):
        def body(k, y):
            return step(k, y, jax.random.normal(jax.random.fold_in(key, k), noise_shape))

        return loss(jax.lax.fori_loop(0, steps, body, start(layout.x0(case, shape))))

    return lambda steps, seed: moments(final_loss(jax.random.key(seed), steps))


def device() -> tuple[str, int | None]:
    """The devices JAX runs on, and the most memory used of the first."""
    devices = jax.devices()
    peak = (devices[0].memory_stats() or {}).get("peak_bytes_in_use")
    return f"{len(devices)} x {devices[0].device_kind}", peak


def _euler(case: Case, layout: formulas.Layout) -> tuple[Callable, Callable, Callable]:
    equation, dt = formulas.equation(case, layout), case.dt
    root_dt = np.float32(np.sqrt(dt))

    def step(k, y, xi):
        t = k * dt
        drift, noise = equation.drift(t, y), equation.diffuse(t, y, root_dt * xi)
        return jax.tree.map(lambda y, b, s: y + b * dt + s, y, drift, noise)

    return equation.start, step, equation.loss


def _transformation(case: Case) -> optax.GradientTransformation:
    p = case.parameters
    if case.equation == "sign-optimizer":
        return optax.sign_sgd(case.dt)
    return optax.adamw(case.dt, p.b1, p.b2, p.eps, weight_decay=p.weight_decay)


def _optimizer(case: Case, layout: formulas.Layout) -> tuple[Callable, Callable, Callable]:
    """Paths first: one path's code under `vmap`. Paths last: optax on the whole array."""
    transformation, p = _transformation(case), case.parameters
    h, loss = layout.along(p.h), formulas.quadratic_loss(case, layout)

    def start(x):
        return x, transformation.init(x)

    def step(y, xi):
        x, inner = y
        updates, inner = transformation.update(h * x + p.sigma * xi, inner, x)
        return optax.apply_updates(x, updates), inner

    if not layout.paths_last:
        start, step = jax.vmap(start), jax.vmap(step)
    return start, lambda k, y, xi: step(y, xi), lambda y: loss(y[0])
