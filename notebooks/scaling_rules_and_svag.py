# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The batch-equivalent SDEs: scaling rules, SVAG, and the order of the weak error
#
# Malladi, Lyu, Panigrahi and Arora ([2205.10287](https://arxiv.org/abs/2205.10287)) model RMSprop and
# Adam where gradient noise dominates: the noise grows as $\sigma = \sigma_0/\eta$, averages forget at
# $1 - \beta = c\,\eta^2$, and time is $t = k\eta^2$. Three claims follow, and each is tested here with
# error bars:
#
# 1. **The square-root rule.** A batch $\kappa$ times as large with $\eta\sqrt\kappa$,
#    $1-\beta \to \kappa(1-\beta)$ and $\epsilon/\sqrt\kappa$ has the same SDE, so the same loss curve.
# 2. **Weak order 1 in** $\eta^2$: expectations of the optimizer and of the SDE differ by $O(\eta^2)$.
# 3. **SVAG.** The optimizer on amplified noise approaches the SDE as $1/l^2$, without solving it.
#
# The last section shows what stands in the way of order 2.

# %%
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxsde
from jaxsde import optimizers, sdes, theory
from jaxsde.oracles import SVAG, GaussianNoise, StudentTNoise
from jaxsde.problems import Quadratic
from jaxsde.sdes import modified_equation
from jaxsde.sdes.adaptive import BatchEquivalentRMSpropState
from jaxsde.theory import scaling
from jaxsde.theory.transfer_operator import chain_expectation, diffusion_expectation

jaxsde.use_all_cores()
jax.config.update("jax_enable_x64", True)  # weak errors are smaller than float32's rounding

SMALL = os.environ.get("JAXSDE_SMALL") == "1"  # the size at which the tests run this
plt.rcParams.update({"figure.dpi": 100, "axes.spines.top": False, "axes.spines.right": False})


def scaled_oracle(problem, values):
    """Noise of standard deviation 1 a sample, and the hyperparameters without the batch size."""
    values = dict(values)
    return GaussianNoise(problem, 1.0, batch_size=values.pop("batch_size")), values


# %% [markdown]
# ## 1. The square-root rule keeps the loss curve
#
# Logistic regression on the breast cancer data, with Gaussian gradient noise of covariance
# $\sigma^2/B$. `scaling.square_root` maps a record of hyperparameters; `scaling.to_scaled` shows what
# it keeps.

# %%
problem = jaxsde.problems.breast_cancer()
base = {"learning_rate": 2e-3, "b1": 0.998, "b2": 0.999, "eps": 1e-6, "batch_size": 1}
factors = (1, 16) if SMALL else (1, 4, 16)
records = {factor: scaling.square_root(base, factor) for factor in factors}
for factor, record in records.items():
    kept = scaling.to_scaled(record, sigma=1.0)
    print(
        f"B x {factor:2d}: eta = {record['learning_rate']:.0e}, b1 = {record['b1']:.3f}, "
        f"b2 = {record['b2']:.3f}  keeps  sigma_0 = {kept.sigma_0:.3g}, c_1 = {kept.c_1:.4g}, "
        f"c_2 = {kept.c_2:.4g}, eps_0 = {kept.eps_0:.1e}"
    )
try:
    scaling.square_root(base, 600)
except jaxsde.InputError as error:
    print("B x 600:", error)

# %%
steps = 800 if SMALL else 8000
paths = 50 if SMALL else 1000


def curve(record, key):
    """E f at 20 times, the same numbers of samples for every batch size."""
    oracle, values = scaled_oracle(problem, record)
    process = jaxsde.OptimizerProcess(optimizers.adam, values, oracle)
    count = round(steps / record["batch_size"])
    return jaxsde.simulate(
        process, np.zeros(31), steps=count, paths=paths, key=jax.random.key(key),
        records=np.arange(1, 21) * count // 20, observables={"loss": problem.loss},
    )  # fmt: skip


samples = np.arange(1, 21) * steps / 20
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
final = {}
for axis, (name, rule) in zip(
    axes,
    {"square root (Malladi et al.)": scaling.square_root,
     "1 - β by √δ (Compagnoni et al.)": scaling.bound_preserving}.items(),
    strict=True,
):  # fmt: skip
    for factor, color in zip(factors, ("k", "tab:blue", "tab:red"), strict=False):
        run = curve(rule(base, factor), factor)
        mean, error = run.mean("loss"), run.standard_error("loss")
        axis.plot(samples, mean, color=color, label=f"B × {factor}")
        axis.fill_between(samples, mean - 2 * error, mean + 2 * error, color=color, alpha=0.3, lw=0)
        final[name, factor] = mean, error
    axis.set(xlabel="samples seen", title=name)
axes[0].set_ylabel("expected loss")
axes[0].legend(frameon=False)
figure.tight_layout()
plt.show()
for (name, factor), (mean, error) in final.items():
    if factor > 1:
        reference = final[name, 1][0]
        off, band = mean / reference - 1, 2 * error / reference
        late = 5 + np.argmax(np.abs(off[5:]))
        print(
            f"{name}, B x {factor}: {off[0]:+.1%} (± {band[0]:.1%}) off the base run at first, "
            f"then at most {off[late]:+.1%} (± {band[late]:.1%}), at {samples[late]:.0f} samples"
        )

# %% [markdown]
# The first gap is the price of large steps: at $\kappa = 16$ the first record is 25 steps old, and the
# theorem speaks of times after a fixed $t_0 > 0$ only. From there on the square-root rule keeps the
# curve. Scaling $1 - \beta$ by $\sqrt\delta$ lets momentum remember $\sqrt\delta$ times as many samples,
# and the curves part.

# %% [markdown]
# ## 2. Weak order 1 in $\eta^2$
#
# RMSprop with the old $v$ on $f = \theta^2/2$, at $\sigma_0 = 0.7$, $\epsilon_0 = 0.2$, $c = 0.5$, to
# $T = 1$. The SDE's moments are known exactly, so what is left is the optimizer's Monte Carlo error.
# It is made small by a control variate: the SDE's Euler-Maruyama chain driven by the same noise, whose
# moments are known exactly too.

# %%
SCALED = scaling.Scaled(learning_rate=1.0, sigma_0=0.7, eps_0=0.2, c=0.5)
parabola, start, u0 = Quadratic([1.0]), np.array([1.0]), 1.5
taus = np.array([0.1, 0.05, 0.025, 0.0125])[: 3 if SMALL else 4]
paths = 20_000 if SMALL else 2_000_000


def moments(law):
    return np.array([law.mean[0, 0], law.mean[0, 0] ** 2 + law.covariance[0, 0, 0]])


def weak_error(tau, key):
    """E of (θ, θ²) of the optimizer less the SDE's, at T = 1, with standard errors."""
    record = scaling.from_scaled(SCALED._replace(learning_rate=np.sqrt(tau)), sigma=1.0)
    oracle, values = scaled_oracle(parabola, record)
    eta, variance = values["learning_rate"], 1 / record["batch_size"]
    second = {"initial_second_moment": u0 * variance}
    optimizer = jaxsde.OptimizerProcess(
        optimizers.rmsprop, values | second | {"v_timing": "old"}, oracle, tau
    )
    sde = jaxsde.SDEProcess(sdes.BatchEquivalentRMSprop(oracle, **values, **second), tau)
    steps = round(1 / tau)
    run = jaxsde.simulate(
        jaxsde.Paired(optimizer, sde), start, steps=steps, paths=paths, records=[steps],
        key=jax.random.key(key), observables={"powers": lambda x: jnp.stack([x[0], x[0] ** 2])},
    )  # fmt: skip
    exact = [
        moments(
            theory.adaptive.batch_equivalent_rmsprop_moments(
                parabola, variance, eta, start, [1.0], law, decay=values["decay"],
                eps=values["eps"], **second,
            )
        )
        for law in (theory.em(tau), theory.sde)
    ]  # fmt: skip
    error = run.mean("difference.powers")[-1] + exact[0] - exact[1]
    return error, run.standard_error("difference.powers")[-1]


def slope(x, error, spread, *corrections):
    """The p of |error| = C x^p exp(corrections), weighted, and its 95 % interval's half-width."""
    weights = np.abs(error) / spread
    design = np.stack([np.log(x), np.ones_like(x), *corrections], axis=1) * weights[:, None]
    covariance = np.linalg.inv(design.T @ design)
    fit = covariance @ design.T @ (weights * np.log(np.abs(error)))
    return fit[0], 1.96 * np.sqrt(covariance[0, 0])


errors, spreads = map(
    np.array, zip(*(weak_error(tau, k) for k, tau in enumerate(taus)), strict=True)
)
print("   tau     E theta            E theta^2")
for tau, error, spread in zip(taus, errors, spreads, strict=True):
    print(
        f"{tau:7.4f}"
        + "".join(f"  {e:.6f} ± {1.96 * s:.6f}" for e, s in zip(error, spread, strict=True))
    )
for name, error, spread in zip(("E theta", "E theta^2"), errors.T, spreads.T, strict=True):
    order, half = slope(taus, error, spread, taus)  # C τ^p (1 + a τ): the next order too
    print(f"order of the error of {name}: {order:.3f} ± {half:.3f} in eta^2")

# %% [markdown]
# ## 3. SVAG
#
# With two independent gradients at one point, $\hat g = r_1 g_1 + r_2 g_2$ has the mean gradient and
# $l^2$ times the noise: `SVAG(oracle, l**2)`. Its hyperparameters are the square-root rule run
# backwards, `scaling.svag`. Here the noise is Student-t with 5 degrees of freedom, so nothing is
# Gaussian but the limit.

# %%
nu, tau = 5.0, 0.1
record = scaling.from_scaled(SCALED._replace(learning_rate=np.sqrt(tau)), sigma=1.0)
levels = (1, 2, 4) if SMALL else (1, 2, 4, 8)
paths = 20_000 if SMALL else 2_000_000
times = np.arange(0, 11) * tau
variance = 1 / record["batch_size"]


def svag_run(level, key):
    """The optimizer on l² times the noise, at ten times."""
    values = scaling.svag(record, level, scaling.square_root)
    del values["batch_size"]
    noise = StudentTNoise(parabola, np.sqrt(variance * (nu - 2) / nu), nu)
    start_v = {"initial_second_moment": u0 * variance * level**2, "v_timing": "old"}
    process = jaxsde.OptimizerProcess(
        optimizers.rmsprop, values | start_v, SVAG(noise, level**2), values["learning_rate"] ** 2
    )
    return jaxsde.simulate(
        process, start, steps=10 * level**2, paths=paths, key=jax.random.key(key),
        records=np.arange(0, 11) * level**2, observables={"theta": lambda x: x[0]},
    )  # fmt: skip


exact = theory.adaptive.batch_equivalent_rmsprop_moments(
    parabola, variance, record["learning_rate"], start, times,
    decay=record["decay"], eps=record["eps"], initial_second_moment=u0 * variance,
).mean[:, 0]  # fmt: skip
runs = {level: svag_run(level, 10 + level) for level in levels}

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
for level, run in runs.items():
    mean, spread = run.mean("theta"), run.standard_error("theta")
    axes[0].errorbar(
        times, mean - exact, 1.96 * spread, fmt="o-", ms=3, lw=1, label=f"SVAG, l = {level}"
    )
axes[0].axhline(0, color="k", ls="--", lw=1)
axes[0].set(xlabel="time t = k η²", ylabel="E θ - the SDE's, 95 %")
axes[0].legend(frameon=False)
error = np.array([run.mean("theta")[-1] - exact[-1] for run in runs.values()])
spread = np.array([run.standard_error("theta")[-1] for run in runs.values()])
inverse = 1 / np.array(levels, float) ** 2
axes[1].errorbar(inverse, np.abs(error), 1.96 * spread, fmt="o", label="SVAG, 95 %")
axes[1].plot(inverse, np.abs(error[0]) * inverse, "k:", label="slope 1")
axes[1].set(xscale="log", yscale="log", xlabel="1/l²", ylabel="|E θ - the SDE's| at t = 1")
axes[1].legend(frameon=False)
figure.tight_layout()
plt.show()
order, half = slope(inverse, error, spread)
print(f"order of SVAG's error: {order:.3f} ± {half:.3f} in 1/l^2")

# %% [markdown]
# SVAG also *makes* the low skewness that the theorem assumes. With noise of fixed skewness, simply
# rescaled to $\sigma_0/\eta$, the error falls as $\eta$ only; under SVAG it falls as $\eta^2$. For
# noise of two values this needs no sampling: on a grid, the chain's backward operator and the SDE's
# generator are matrices (`theory.transfer_operator`).

# %%
sigma_0, eps_0, c = SCALED.sigma_0, SCALED.eps_0, SCALED.c
grid = {"domain": [(-1.3, 1.6), (0.4, 2.0)], "degree": (6, 10)}  # lower ones agree to 1 %
starts = np.array([(x, u) for x in (-0.6, 0.4, 1.0) for u in (0.7, 1.5)])


def observables(y):
    theta, u = y.T
    return np.stack([theta, theta**2, u, theta**2 * u], axis=-1)


NAMES = ("θ", "θ²", "u", "θ² u")


def rmsprop_step(y, noise, tau):
    """RMSprop with the old v in (θ, u) on f = θ²/2, noise of variance 1."""
    theta, u = y.T
    scaled = tau * theta + np.sqrt(tau) * sigma_0 * noise
    theta = theta - scaled / (sigma_0 * np.sqrt(u) + eps_0)
    return np.stack([theta, u + c * (scaled**2 / sigma_0**2 - tau * u)], axis=-1)


def chain(tau, atoms, weights):
    return chain_expectation(
        lambda y, z: rmsprop_step(y, z, tau), atoms, weights, observables, starts,
        round(1 / tau), **grid,
    )  # fmt: skip


def batch_equivalent(tau, order):
    """The package's SDE at this τ."""
    eta, oracle = np.sqrt(tau), GaussianNoise(parabola, sigma_0 / np.sqrt(tau))
    return sdes.BatchEquivalentRMSprop(
        oracle, eta, 1 - c * tau, eps_0 / eta, noise_scale=sigma_0 / eta, order=order
    )


@eqx.filter_jit
def coefficients(sde, points):
    """Its drift and covariance at points (θ, u)."""

    def at(point):
        y = BatchEquivalentRMSpropState(point[:1], point[1:])
        root = sde.diffusion(0.0, y, None).as_matrix()
        return jnp.concatenate(sde.drift(0.0, y, None)), root @ root.T

    return jax.vmap(at)(points)


def diffusion(tau, order, third_cumulant=None):
    sde = batch_equivalent(tau, order)
    return diffusion_expectation(
        lambda y: coefficients(sde, y)[0], lambda y: coefficients(sde, y)[1], observables, starts,
        1.0, **grid, third_cumulant=third_cumulant,
    )  # fmt: skip


def orders(errors):
    """From each τ to its half: the error's root mean square over the starts."""
    size = np.sqrt(np.mean(np.square(errors), axis=1))
    return np.log2(size[:-1] / size[1:])


def show(title, errors):
    print(title)
    for halving, row in zip(taus[1:], orders(errors), strict=True):
        print(
            f"  to tau = {halving:.4f}: "
            + "  ".join(f"{n} {o:.3f}" for n, o in zip(NAMES, row, strict=True))
        )


p = 0.2  # two values of mean 0 and variance 1, skewness (1 - 2p)/√(p(1 - p)) = 1.5
values, chances = np.array([np.sqrt((1 - p) / p), -np.sqrt(p / (1 - p))]), np.array([p, 1 - p])
limit = diffusion(taus[0], 1)


def amplified(F):
    """SVAG's noise in units of √F, as atoms: all pairs of two draws."""
    r1, r2 = map(float, SVAG(GaussianNoise(parabola, 1.0), F).weights)
    pairs = (r1 * values[:, None] + r2 * values[None, :]) / np.sqrt(F)
    return pairs.ravel(), np.outer(chances, chances).ravel()


show("rescaled noise of fixed skewness:", [chain(tau, values, chances) - limit for tau in taus])
show(
    "the same noise under SVAG, l^2 = 0.1/tau:",
    [chain(tau, *amplified(taus[0] / tau)) - limit for tau in taus],
)

# %% [markdown]
# ## 4. What stands in the way of order 2
#
# `order=2` adds the next terms to drift and diffusion. $E\,\theta$ and $E\,u$ become second order, but
# $E\,\theta^2$ does not: the step in $\theta$ holds $z$ and the step in $v$ holds $z^2$, so their third
# cumulant is of order $\tau^2$, where a diffusion has none. Adding the third-order operator, which
# belongs to no process, to the generator restores order 2: that is all that is missing.

# %%
normal = np.sqrt(3) * np.array([-1.0, 0.0, 1.0]), np.array([1, 4, 1]) / 6  # five moments of N(0, 1)


def update(t, y, z, eta):
    """RMSprop's step again, in the form that `modified_equation` expands."""
    scaled = eta**2 * y.theta + eta * sigma_0 * z
    theta = y.theta - scaled / (sigma_0 * jnp.sqrt(y.u) + eps_0)
    return BatchEquivalentRMSpropState(theta, y.u + c * (scaled**2 / sigma_0**2 - eta**2 * y.u))


@eqx.filter_jit
def excess(equation, points):
    def at(point):
        y = BatchEquivalentRMSpropState(point[:1], point[1:])
        return equation.tau * equation.excess_third_cumulant(0.0, y)

    return jax.vmap(at)(points)


def theta(y):
    return y.theta


def third_cumulant(tau):
    equation = modified_equation(update, np.sqrt(tau), regime="batch-equivalent", position=theta)
    return lambda points: excess(equation, points)


chains = [chain(tau, *normal) for tau in taus]
errors = {
    "order 1": [found - limit for found in chains],
    "order 2": [found - diffusion(tau, 2) for tau, found in zip(taus, chains, strict=True)],
    "order 2 and the third cumulant": [
        found - diffusion(tau, 2, third_cumulant(tau))
        for tau, found in zip(taus, chains, strict=True)
    ],
}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
for axis, index in zip(axes, (0, 1), strict=True):
    for (name, error), marker in zip(errors.items(), "osD", strict=True):
        size = np.sqrt(np.mean(np.square(error), axis=1))[:, index]
        axis.loglog(taus, size, marker + "-", label=name)
    axis.set(xlabel="τ = η²", title=f"error of E {NAMES[index]}")
    axis.set_xticks(taus, [f"{tau:g}" for tau in taus])
    axis.minorticks_off()
axes[1].legend(frameon=False, loc="lower right")
figure.tight_layout()
plt.show()
for name, error in errors.items():
    show(name + ":", error)

# %% [markdown]
# | claim | found |
# |---|---|
# | square-root rule | the loss curves of three batch sizes coincide after the first steps; with $1-\beta$ scaled by $\sqrt\delta$ instead, momentum remembers more samples and the curves part |
# | weak order 1 in $\eta^2$ | confirmed, with a confidence interval from Monte Carlo and without sampling |
# | SVAG, $1/l^2$ | confirmed; it also repairs noise that is too skewed for the theorem |
# | order 2 | up to the third cumulant: $E\,\theta$ and $E\,u$ yes, $E\,\theta^2$ no |
