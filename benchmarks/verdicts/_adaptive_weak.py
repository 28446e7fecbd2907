"""The settings of `adaptive` on the way: SDEs beside the chains that they approximate."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from benchmarks.verdicts import _weak
from benchmarks.verdicts._simulated import first, of_position, square
from benchmarks.verdicts._verdict import Case
from jaxsde import OptimizerProcess, optimizers, sdes
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic
from jaxsde.sdes.adaptive import (
    AdamState,
    BatchEquivalentAdamState,
    BatchEquivalentRMSpropState,
    RMSpropState,
)
from jaxsde.theory import adaptive

SCALE, EPS, C1, C2 = 0.7, 0.2, 1.0, 0.5
STEPS = (16, 32, 64)
WAVE = "f' = 0.6 x + 0.3 sin x, t = 1"


def _rmsprop_step(y, z, tau):
    x, v = y.T
    g = _weak.wavy_gradient(x) + SCALE * z
    return np.stack([x - tau * g / (np.sqrt(v) + EPS), v + C2 * tau * (g**2 - v)], axis=-1)


def _adam_step(y, z, tau):
    x, m, v = y.T
    g = _weak.wavy_gradient(x) + SCALE * z
    m, new = m + C1 * tau * (g - m), v + C2 * tau * (g**2 - v)
    return np.stack([x - tau * m / (np.sqrt(v) + EPS), m, new], axis=-1)


def _scaled_rmsprop_step(y, z, tau):
    x, u = y.T
    hg = tau * _weak.wavy_gradient(x) + np.sqrt(tau) * SCALE * z
    new = u + C2 * (hg**2 / SCALE**2 - tau * u)
    return np.stack([x - hg / (SCALE * np.sqrt(u) + EPS), new], axis=-1)


def _scaled_adam_step(y, z, tau):
    x, m, u = y.T
    hg = tau * _weak.wavy_gradient(x) + np.sqrt(tau) * SCALE * z
    m, new = m + C1 * (hg - tau * m), u + C2 * (hg**2 / SCALE**2 - tau * u)
    return np.stack([x - tau * m / (SCALE * np.sqrt(u) + EPS), m, new], axis=-1)


_PLANE = {"x²": (2, 0), "v": (0, 1), "x² v": (2, 1)}
_SPACE = {"x²": (2, 0, 0), "m²": (0, 2, 0), "v": (0, 0, 1)}
_RMSPROP = _weak.Grid(
    RMSpropState, _rmsprop_step, (1.0, 1.0), _PLANE, [(-2.0, 2.0), (0.25, 3.0)], 10
)
_ADAM = _weak.Grid(
    AdamState, _adam_step, (1.0, 0.5, 1.0), _SPACE, [(-1.6, 1.6), (-1.7, 1.7), (0.25, 2.5)], 8
)
SCALED_RMSPROP = _weak.Grid(
    BatchEquivalentRMSpropState, _scaled_rmsprop_step, (1.0, 0.7), _PLANE,
    [(-3.0, 3.0), (0.3, 2.5)], 9,
)  # fmt: skip
_SCALED_ADAM = _weak.Grid(
    BatchEquivalentAdamState, _scaled_adam_step, (1.0, 0.5, 0.7), _SPACE,
    [(-1.7, 1.7), (-2.5, 2.5), (0.3, 2.2)], (7, 7, 6),
)  # fmt: skip


def weak_rmsprop_cases(order: int) -> list[Case]:
    """RMSprop's SDE of that order at fixed noise."""
    oracle = GaussianNoise(_weak.Wavy(), SCALE)

    def sde(tau):
        return sdes.RMSprop(oracle, tau, 1 - C2 * tau, EPS, v_timing="old", order=order)

    def simulate(tau, n):
        settings = {"learning_rate": tau, "decay": 1 - C2 * tau, "eps": EPS}
        settings |= {"initial_second_moment": 1.0, "v_timing": "old"}
        process = OptimizerProcess(optimizers.rmsprop, settings, oracle)
        return {"x²": of_position(process, [1.0], n, square)}

    return _weak.cases(
        _RMSPROP, sde, STEPS, lambda n: (f"{WAVE}, η = 1/{n}", 1 / n), simulate=simulate
    )


def weak_adam_cases(order: int) -> list[Case]:
    """Adam's SDE of that order at fixed noise."""
    oracle = GaussianNoise(_weak.Wavy(), SCALE)

    def sde(tau):
        return sdes.Adam(
            oracle, tau, 1 - C1 * tau, 1 - C2 * tau, EPS, bias_correction=False, v_timing="old",
            order=order,
        )  # fmt: skip

    return _weak.cases(_ADAM, sde, STEPS, lambda n: (f"{WAVE}, η = 1/{n}", 1 / n))


def _scaled(tau):
    eta = tau**0.5
    return GaussianNoise(_weak.Wavy(), SCALE / eta), eta, {
        "eps": EPS / eta, "noise_scale": SCALE / eta
    }  # fmt: skip


def scaled_rmsprop(tau: float, order: int = 1) -> sdes.BatchEquivalentRMSprop:
    """The batch-equivalent SDE at the step τ = η²."""
    oracle, eta, settings = _scaled(tau)
    return sdes.BatchEquivalentRMSprop(oracle, eta, 1 - C2 * tau, **settings, order=order)


def scaled_weak_rmsprop_cases() -> list[Case]:
    """RMSprop's SDE at noise of order 1/η; outside, at small noise."""

    def simulate(tau, n):
        oracle, eta, _ = _scaled(tau)
        settings = {"learning_rate": eta, "decay": 1 - C2 * tau, "eps": EPS / eta}
        settings |= {"initial_second_moment": 0.7 * SCALE**2 / tau, "v_timing": "old"}
        process = OptimizerProcess(optimizers.rmsprop, settings, oracle)
        return {"x²": of_position(process, [1.0], n, square)}

    cases = _weak.cases(
        SCALED_RMSPROP, scaled_rmsprop, STEPS, lambda n: (f"{WAVE}, η² = 1/{n}", 1 / n),
        simulate=simulate,
    )  # fmt: skip
    return cases + _descent_cases()


def _descent_cases() -> list[Case]:
    """The same SDE where the gradient is ten times the noise: v forgets it in 20 steps."""
    eta, sigma, decay, start, cases = 0.01, 0.1, 0.95, 1.01, []
    grid = _weak.Grid(
        BatchEquivalentRMSpropState,
        lambda y, z, tau: _quadratic_step(y, z, eta, sigma, decay), (1.0, start), {"x": (1, 0)},
        [(0.2, 1.2), (0.1, 1.5)], 16,
    )  # fmt: skip
    for steps in (20, 40):
        published = adaptive.batch_equivalent_rmsprop_moments(
            Quadratic(np.ones(1)),
            sigma**2,
            eta,
            [1.0],
            steps * eta**2,
            decay=decay,
            initial_second_moment=start,
        )
        exact = float(grid.of_chain(eta, steps)[0])
        settings = {"learning_rate": eta, "decay": decay, "eps": 0.0, "v_timing": "old"}
        settings |= {"initial_second_moment": start}
        noise = GaussianNoise(Quadratic(np.ones(1, np.float32)), sigma)
        process = OptimizerProcess(optimizers.rmsprop, settings, noise)
        cases.append(
            Case(
                f"E x, f = x²/2, ∇f = 10 σ at the start, {steps} steps",
                float(published.mean[0]), exact, None, of_position(process, [1.0], steps, first),
                inside=False,
            )
        )  # fmt: skip
    return cases


def _quadratic_step(y, z, eta, sigma, decay):
    """RMSprop with the old v on x²/2."""
    x, v = y.T
    g = x + sigma * z
    return np.stack([x - eta * g / np.sqrt(v), decay * v + (1 - decay) * g**2], axis=-1)


def scaled_weak_adam_cases() -> list[Case]:
    """Adam's SDE at noise of order 1/η."""

    def sde(tau):
        oracle, eta, settings = _scaled(tau)
        betas = (1 - C1 * tau, 1 - C2 * tau)
        return sdes.BatchEquivalentAdam(oracle, eta, *betas, **settings, v_timing="old")

    return _weak.cases(_SCALED_ADAM, sde, STEPS, lambda n: (f"{WAVE}, η² = 1/{n}", 1 / n))


def scaled_second_order_cases() -> list[Case]:
    """The SDE of order 2, and the generator with the third cumulant that no SDE has."""

    def update(t, y, z, h):
        hg = h * _weak.Wavy().gradient(y.theta) + SCALE * z
        u = y.u + C2 * h**2 * (hg**2 / SCALE**2 - y.u)
        return BatchEquivalentRMSpropState(y.theta - h * hg / (SCALE * jnp.sqrt(y.u) + EPS), u)

    equation = sdes.modified_equation(
        update, STEPS[0] ** -0.5, regime="batch-equivalent", noise=jnp.zeros(1)
    )

    @eqx.filter_jit
    def cumulants(points):
        state = lambda p: BatchEquivalentRMSpropState(*p[:, None])  # noqa: E731
        return eqx.filter_vmap(lambda p: equation.excess_third_cumulant(0.0, state(p)))(points)

    grid = SCALED_RMSPROP._replace(observables={"x²": (2, 0), "x² v": (2, 1)})

    def corrected(tau):
        return grid.of_sde(
            scaled_rmsprop(tau, 2), lambda y: tau * np.asarray(cumulants(jnp.asarray(y)))
        )

    return _weak.cases(
        grid, lambda tau: scaled_rmsprop(tau, 2), STEPS,
        lambda n: (f"{WAVE}, η² = 1/{n}", 1 / n), corrected,
    )  # fmt: skip
