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
# # Minimax games: descent ascent, extragradient, Hamiltonian descent and their SDEs
#
# Player $x$ descends $f(x, y)$ and $y$ climbs it. With $z = (x, y)$, the field
# $F = (\partial_x f, -\partial_y f)$, its Jacobian $J$, and $F_c$ the field on a batch $c$,
#
# $$z^+ = z - \eta F_c(z),\qquad
# z^+ = z - \eta F_{c_1}(z - \rho F_{c_2}(z)),\qquad
# z^+ = z - \tfrac{\eta}{2}(J_{c_1}^\top F_{c_2} + J_{c_2}^\top F_{c_1})$$
#
# are descent ascent (SGDA), extragradient (SEG, with one batch $c_1 = c_2$ or two) and Hamiltonian
# descent (SHGD). Compagnoni et al. 2024 ([arXiv 2402.12508](https://arxiv.org/abs/2402.12508)) give
# each an SDE, of drift $-F$, $-F + \rho JF$ and $-J^\top F$, and solve them on games that fall into
# pairs $f = a x^2/2 + \lambda xy - a y^2/2$. Here are the settings of their figures 1 to 7, with
# thousands of paths for 3 to 20, and with the laws of both the SDE and the algorithm itself.
#
# In all figures a filled circle is the simulated algorithm and a solid line its exact law; an open
# triangle is the simulated SDE and a dotted line the SDE's law, the published closed form. Bars are
# two standard errors, most of them smaller than the marker. Of a pair, $u = E(x^2 + y^2)/2$ is
# plotted. Time is $t = k\eta$ after $k$ steps. Every ensemble that has an exact law is held against
# it at all its records: the algorithm's (`discrete`), or that of its SDE as Euler-Maruyama solves
# it (`em`). SGDA runs as SEG with $\rho = 0$.

# %%
import itertools
import os
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy.special

import jaxsde
from jaxsde import OptimizerProcess, Paired, SDEProcess, optimizers, problems, sdes, theory
from jaxsde.oracles import GaussianNoise, MultiplicativeNoise
from jaxsde.plotting import LAW, OPTIMIZER, SDE
from jaxsde.problems import BilinearGame, Players, QuadraticGame
from jaxsde.theory import minimax

SMALL = os.environ.get("JAXSDE_SMALL") == "1"  # a quick run of every cell, with noisy numbers
jaxsde.use_all_cores()
if SMALL:
    jax.config.update("jax_disable_most_optimizations", True)  # compiles faster, runs slower

keys = (jax.random.fold_in(jax.random.key(2402), i) for i in itertools.count())  # one an ensemble
RECORDS = 8 if SMALL else 49
LAWS = ((theory.discrete, "-"), (theory.sde, ":"))  # and how they are drawn
summary, misses = [], []
plt.rcParams |= {
    "figure.dpi": 80, "figure.constrained_layout.use": True, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
    "legend.fontsize": 9, "axes.titlesize": 11,
}  # fmt: skip
BLACK, GREEN, PINK, ORANGE, SKY = "black", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"


class Power(eqx.Module):
    """The schedule (1 + η k)^-p = (1 + t)^-p; its numbers are data, others compile nothing new."""

    power: jax.Array = eqx.field(converter=jnp.float32)
    eta: jax.Array = eqx.field(converter=jnp.float32)

    def __call__(self, k):
        return (1 + self.eta * k) ** -self.power


def contestants(method, oracle, eta, p=0.0, q=0.0):
    """The optimizer and the SDE of a method of `theory.minimax`; η and ρ fall as t^-p, t^-q."""
    psi = {"schedule": Power(p, eta)}
    if method.rho is None:
        batches = 1 + method.independent
        values = {"learning_rate": eta, "batches": batches} | psi
        process = OptimizerProcess(optimizers.shgd, values, oracle)
        return process, sdes.SHGD(oracle, eta, batches, **psi)
    psi |= {"independent": method.independent, "rho_schedule": Power(q, eta)}
    values = {"learning_rate": eta, "rho": method.rho} | psi
    process = OptimizerProcess(optimizers.seg, values, oracle)
    return process, sdes.SEG(oracle, eta, method.rho, **psi)


def half_squares(z):
    """(x² + y²)/2, pair by pair."""
    return (z.x**2 + z.y**2) / 2


watched = {
    "u": half_squares, "z": jnp.concatenate,
    "norms": lambda z: jnp.linalg.norm(z.x) + jnp.linalg.norm(z.y),
}  # fmt: skip


def simulate(process, start, d, steps, paths, records, observables):
    """An ensemble with a key of its own; in chunks of one size, which is compiled once."""
    z0 = Players(*np.full((2, d), start, np.float32))
    return jaxsde.simulate(
        process, z0, steps=steps, paths=128 if SMALL else paths, key=next(keys), records=records,
        observables=observables, chunk=2_000,
    )  # fmt: skip


def stops(steps):
    """Which steps to record: denser at the start."""
    share = np.linspace(0, 1, RECORDS) ** 1.5
    return np.maximum(np.rint(steps * share), np.arange(RECORDS)).astype(int)


def pooled(run):
    """E u of a pair and its standard error, from two pairs alike."""
    error = run.standard_error("u")
    return np.mean(run.mean("u"), axis=1), np.sqrt(np.sum(error**2, axis=1)) / 2


class Runs(NamedTuple):
    """The algorithm and its SDE on two pairs alike, at the same times, with the law of their u."""

    algorithm: jaxsde.Ensemble
    sde: jaxsde.Ensemble | None
    time: np.ndarray
    start: float
    eta: float
    pair: dict
    powers: tuple

    def law(self, form, **changes):
        args, pair = (self.start**2, self.time, self.eta, form), self.pair | changes
        if not any(self.powers):
            return minimax.pair_half_square(*args, **pair)
        psi = [minimax.power_law(power, self.eta) for power in self.powers]
        rest = {} if self.powers[1] == 0 else {"rho_schedule": psi[1]}
        return minimax.scheduled_half_square(*args, **pair, schedule=psi[0], **rest)

    def last(self):
        """u at the end: the algorithm's and its error, its law, the SDE's law."""
        mean, error = pooled(self.algorithm)
        return mean[-1], error[-1], self.law(theory.discrete)[-1], self.law(theory.sde)[-1]


def hold(off, error):
    """Insists on 4.5 standard errors at every record but the start."""
    misses.append(np.max(np.abs(off)[1:] / error[1:]))
    assert misses[-1] < 4.5


def twice(a, lam):
    """A game of two pairs alike, for two samples of the pair a path."""
    return QuadraticGame(np.full(2, lam), np.full(2, a))


def race(method, a, lam, sigma, eta, start, steps, paths, substeps=4, spacing=stops, powers=(0, 0)):
    """The algorithm and its SDE at dt = η/substeps; if SMALL, short, and without that of SHGD."""
    optimizer, equation = contestants(method, GaussianNoise(twice(a, lam), sigma), eta, *powers)
    steps = steps // 20 if SMALL else steps
    records, dt = spacing(steps), eta / substeps
    algorithm, sde = simulate(optimizer, start, 2, steps, paths, records, watched), None
    if not (SMALL and method.rho is None):
        process = SDEProcess(equation, dt)
        sde = simulate(process, start, 2, steps * substeps, paths, records * substeps, watched)
    pair = {"curvature": a, "coupling": lam, "sigma": sigma, "method": method}
    runs = Runs(algorithm, sde, records * eta, start, eta, pair, powers)
    for run, form in ((algorithm, theory.discrete), (sde, theory.em(dt))):
        if run is not None:
            mean, error = pooled(run)
            hold(mean - runs.law(form), error)
    return runs


def level(method, a, lam, eta, form=theory.discrete):
    """Where u settles, in units of η σ²."""
    pair = {"curvature": a, "coupling": lam, "sigma": 1.0, "method": method}
    return float(minimax.pair_level(eta, form, **pair)) / eta


def settled(method, a, lam, eta, form, paths):
    """`level` as simulated from 0 for a time 3/r, after which 0.2 % are missing; and its error."""
    optimizer, equation = contestants(method, GaussianNoise(twice(a, lam), 1.0), eta)
    dt = form.step or eta
    process = optimizer if form == theory.discrete else SDEProcess(equation, dt)
    rate = minimax.pair_rate(eta, form, curvature=a, coupling=lam, method=method)
    steps = max(RECORDS, int(3 / rate / dt) + 1)
    mean, error = pooled(simulate(process, 0.0, 2, steps, paths, stops(steps), watched))
    mean, error, law = mean[-1] / eta, error[-1] / eta, level(method, a, lam, eta, form)
    assert abs(mean - law) < 4.5 * error + 0.003 * law
    return mean, error


def points(panel, x, mean, error, color, kind, every=1, skip=0):
    """Means ± 2 standard errors: circles of the algorithm, triangles of the SDE."""
    look = {"fmt": "o", "ms": 4} if kind == "algorithm" else {"fmt": "^", "ms": 5, "mfc": "white"}
    x, mean, error = (np.atleast_1d(values)[skip::every] for values in (x, mean, error))
    panel.errorbar(x, mean, 2 * error, color=color, lw=1, **look)


def curves(panel, runs, color, label, every=8):
    """u of the algorithm and of its SDE, over their laws."""
    points(panel, runs.time, *pooled(runs.algorithm), color, "algorithm", every, 1)
    if runs.sde is not None:
        points(panel, runs.time, *pooled(runs.sde), color, "sde", every, 1 + every // 2)
    for (form, style), name in zip(LAWS, (label, None), strict=True):
        panel.plot(runs.time, runs.law(form), style, color=color, lw=1.4, label=name)


def note(published, measured, here):
    summary.append((published, measured, here))


def plain(name):
    """A label for print."""
    return name.replace("$", "").replace("\\", "")


def pm(value, error):
    """value ± standard error, to the error's first digit."""
    digits = max(0, -int(np.floor(np.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


# %% [markdown]
# ## 1. The extra step trades speed for variance (figure 1)
#
# One pair, $a = 2$, $\lambda = 1$, with $\eta = 0.01$, $\sigma = 1$ from $(1, 1)$. The SDE of SEG
# decays at the rate $r = a + \rho(\lambda^2 - a^2)$ under the noise
# $\eta\sigma^2((1 - \rho a)^2 + \rho^2\lambda^2)$.

# %%
a, lam, eta = 2.0, 1.0, 0.01
ladder = {
    "SGDA": (0.0, BLACK), r"$\rho = \eta$": (eta, GREEN),
    r"$\rho = \sqrt{\eta}$": (np.sqrt(eta), OPTIMIZER),
    r"$\rho = 1/(a + \lambda)$": (1 / (a + lam), PINK), r"$\rho = -1$": (-1.0, SDE),
}  # fmt: skip
raced = {
    name: race(minimax.seg(rho), a, lam, 1.0, eta, 1.0, 500, 10_000)
    for name, (rho, _) in ladder.items()
}

figure, axes = plt.subplots(1, 3, figsize=(14.5, 4.4))
x, y = np.meshgrid(*[np.linspace(-0.25, 1.15, 60)] * 2)
payoff = a * x**2 / 2 + lam * x * y - a * y**2 / 2
axes[0].contour(x, y, payoff, 14, colors="#dddddd", linestyles="-", linewidths=1, zorder=0)
for name, (rho, color) in ladder.items():
    runs = raced[name]
    for run, style in ((runs.algorithm, "-"), (runs.sde, "--")):
        z = run.mean("z").reshape(-1, 2, 2).mean(axis=2)
        axes[0].plot(*z.T, style, color=color, lw=1.5)
    rate = 2 * minimax.pair_rate(eta, curvature=a, coupling=lam, method=minimax.seg(rho))
    for run, kind in ((runs.algorithm, "algorithm"), (runs.sde, "sde")):
        mean, error = (values[-1] / eta for values in pooled(run))
        points(axes[2], rate, mean, error, color, kind)
    if name != r"$\rho = \eta$":
        curves(axes[1], runs, color, name)
        axes[2].annotate(name, (rate, mean), (9, -6), textcoords="offset points", fontsize=9)
rhos = np.linspace(-1.5, 0.6, 200)
for form, style in LAWS:
    levels = [level(minimax.seg(rho), a, lam, eta, form) for rho in rhos]
    axes[2].plot(2 * (a + rhos * (lam**2 - a**2)), levels, style, color=LAW, lw=1.4)
axes[0].plot(0, 0, "+", color=BLACK, ms=10)
axes[0].set(xlabel="$x$", ylabel="$y$", title="mean paths: algorithm (solid), SDE (dashed)")
axes[0].grid(visible=False)
axes[1].set(yscale="log", xlabel="time $t$", ylabel="$u$", title="solid: exact; dotted: SDE")
axes[1].legend()
axes[2].set(xlim=(1, 13.5), ylim=(0, 1.4), title=r"the trade-off, over $\rho$")
axes[2].set(xlabel="rate $2r$ of the SDE", ylabel=r"level of $u$ / $\eta\sigma^2$")
plt.show()

print(f"{'u at t = 5':24s}{'measured':24s}exact     law of the SDE / exact - 1")
for name, runs in raced.items():
    mean, error, exact, published = runs.last()
    print(f"{plain(name):24s}{pm(mean, error):24s}{exact:.6f}  {published / exact - 1:+.1%}")
one = np.std(raced["SGDA"].algorithm.sample["u"][-1]) / raced["SGDA"].last()[0]
print(f"standard deviation of a path / u: {one:.2f}; of a mean of 5 paths: {one / 5**0.5:.2f}")
(first, e1, law1, _), (second, e2, law2, _) = (raced[name].last() for name in list(ladder)[:2])
gap = pm(100 * (second / first - 1), 100 * np.hypot(e1, e2) / first)
print(f"u of SEG with rho = eta / u of SGDA - 1: {gap} %, exact {law2 / law1 - 1:+.1%}")
note("fig. 1: closed form of u", f"{published / exact - 1:+.0%} at rho = -1", "exact discrete law")
note("SEG with rho = eta is like SGDA", f"u differs by {gap} %", f"law {law2 / law1 - 1:+.1%}")

# %% [markdown]
# The laws hold. The published figure could not show it: a path's $(x^2 + y^2)/2$ is spread as widely
# as its mean is large, so that a mean of five is off by 44 %. With 20,000 samples (two pairs a path)
# even $\rho = \eta$, which is SGDA to first order, can be told from it. The SDE's levels are low by
# the factor $1 - \eta|B|^2/(2r)$, where $B = j - \rho j^2$ with $j = a + i\lambda$ is the drift: by 5 %
# at $\rho = -1$. On the right all $\rho$ lie on one curve. More speed, here by $\rho < 0$, costs
# variance, and $\rho = 1/(a + \lambda)$ is the quietest.
#
# ## 2. Fields (figure 2)
#
# The extra step adds $\rho JF$ to the drift. With $J = S + A$, symmetric and antisymmetric,
# $JF = (S + A)F$, where SHGD descends along $J^\top F = (S - A)F$. In a bilinear game $S = 0$, and
# $JF$ is Hamiltonian descent; where $S$ dominates it is the contrary.

# %%
grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 10)] * 2), axis=-1).reshape(-1, 2)
figure, axes = plt.subplots(2, 4, figsize=(11.5, 5.8), sharex=True, sharey=True)
for row, a, lam, rhos in zip(axes, (0.0, 3.0), (1.0, 1.0), ((1, 10), (0.25, -0.875)), strict=True):
    J = np.asarray(QuadraticGame([lam], [a]).jacobian())
    F, JF = grid @ J.T, grid @ (J @ J).T
    shown = {"$-F$": -F, "$JF$": JF}
    shown |= {rf"$-F + \rho JF$, $\rho$ = {rho:g}": -F + rho * JF for rho in rhos}
    for panel, (name, field) in zip(row, shown.items(), strict=True):
        inward = -np.sum(field * grid, axis=1) / np.sum(grid**2, axis=1)
        assert np.ptp(inward) < 1e-4 * max(1, np.max(np.abs(inward)))  # the same everywhere
        panel.quiver(*grid.T, *field.T, color=OPTIMIZER if inward[0] > -1e-6 else SDE, pivot="mid")
        panel.plot(0, 0, "o", color=BLACK, ms=4)
        panel.set(aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        panel.set_title(f"{name}: rate {inward[0] + 0.0:.3g}")
    row[0].set_ylabel(rf"$a$ = {a:g}, $\lambda$ = {lam:g}" + "\n$y$")
for panel in axes[1]:
    panel.set_xlabel("$x$")
plt.show()

# %% [markdown]
# The rate is $-\langle\text{field}, z\rangle/|z|^2$, the same at every $z$ (orange: outward). That
# of SEG is $\rho\lambda^2$ in the bilinear game and $a + \rho(\lambda^2 - a^2)$ in general. But the
# algorithm makes finite steps, and a finite step along a field that turns leads outward.
#
# ## 3. Bilinear games: the SDE converges for every $\rho > 0$, the algorithm does not
#
# $f = \lambda xy$ with $\lambda = 1$. The SDE of SEG has the rate $\rho\lambda^2 > 0$. The algorithm
# multiplies $u$ by $|1 - \eta B|^2$, which is below 1 only if $2\rho > \eta(1 + \rho^2\lambda^2)$:
# from about $\eta/2$ up to about $2/(\eta\lambda^2)$. With $\eta = 0.1$, $\rho$ must exceed 0.0501. The
# SDE is solved at $dt = \eta/32$; at $dt = \eta$ Euler-Maruyama is the algorithm again.

# %%
lam, eta, sigma = 1.0, 0.1, 0.1
low, high = minimax.stable_rho(eta, theory.discrete, curvature=0.0, coupling=lam)
near = {rho: (5_000, 2_000, 32) for rho in (0.03, 0.049, 0.052, 0.08)}
near |= {rho: (400, 2_000, 64) for rho in (0.0, -eta / 2)}
edge = {
    rho: race(minimax.seg(rho), 0.0, lam, sigma, eta, 1.0, *sizes) for rho, sizes in near.items()
}
forms = {"algorithm": theory.discrete, "sde": theory.em(eta / 32)}
found = {
    (rho, kind): settled(minimax.seg(rho), 0.0, lam, eta, form, 8_000)
    for rho in ((0.3,) if SMALL else (0.06, 0.1, 0.3, 1.0, 3.0, 10.0))
    for kind, form in forms.items()
}

figure = plt.figure(figsize=(15, 7))
axes = figure.subplot_mosaic([list("abcd"), list("eeff")])
for name, (rho, runs) in zip("abcde", edge.items(), strict=False):
    panel, mended = axes[name], runs.law(theory.sde, method=minimax.seg(rho - eta / 2))
    points(panel, runs.time, *pooled(runs.algorithm), OPTIMIZER, "algorithm", 3, 1)
    points(panel, runs.time, *pooled(runs.sde), SDE, "sde", 3, 1)
    panel.plot(runs.time, runs.law(theory.discrete), color=OPTIMIZER, label="algorithm")
    panel.plot(runs.time, runs.law(theory.sde), ":", color=SDE, label="its SDE")
    panel.plot(runs.time, mended, "--", color=BLACK, lw=1, label=r"SDE of $\rho - \eta/2$")
    verb = "converges" if low < rho < high else "diverges"
    panel.set(yscale="log", title=rf"$\rho$ = {rho}: SEG {verb}", xlabel="time $t$")
axes["a"].set_ylabel("$u$")
axes["a"].legend()
points(axes["e"], edge[0.0].time, *pooled(edge[-eta / 2].sde), BLACK, "sde", 3, 2)
title = r"SGDA ($\rho$ = 0) grows as $e^{\eta\lambda^2 t}$, its SDE as $u_0 + \eta\sigma^2 t$"
axes["e"].set(ylabel="$u$", title=title)
fine = np.geomspace(low * 1.003, high * 0.997, 400)
for form, shift, style, color in (
    (theory.discrete, 0.0, "-", OPTIMIZER), (theory.sde, 0.0, ":", SDE),
    (theory.sde, eta / 2, "--", BLACK),
):  # fmt: skip
    levels = [level(minimax.seg(rho - shift), 0.0, lam, eta, form) for rho in fine]
    axes["f"].plot(fine, levels, style, color=color, lw=1.4)
for (rho, kind), (mean, error) in found.items():
    points(axes["f"], rho, mean, error, OPTIMIZER if kind == "algorithm" else SDE, kind)
for end in (low, high):
    axes["f"].axvline(end, color=BLACK, lw=0.8)
axes["f"].set(xscale="log", yscale="log", ylim=(0.3, 300), xlabel=r"$\rho$")
axes["f"].set_ylabel(r"level of $u$ / $\eta\sigma^2$")
axes["f"].set_title("stationary level; the algorithm has one between the bars")
plt.show()

print(f"stable: the SDE for rho > 0, the algorithm for {low:.4f} < rho < {high:.1f}")
for rho, runs in list(edge.items())[:4]:
    (mean, error, exact, published), its = runs.last(), [v[-1] for v in pooled(runs.sde)]
    print(f"rho = {rho:5}, u at t = {runs.time[-1]:.0f}: algorithm {mean:.4g} ± {error:.1g}, exact "
          f"{exact:.4g}; SDE {its[0]:.4f} ± {its[1]:.4f}, its law {published:.4f}")  # fmt: skip
(mean, error, exact, _), time = edge[0.0].last(), edge[0.0].time[-1]
mended = np.log(edge[-eta / 2].last()[3]) / time
growth = pm(np.log(mean) / time, error / mean / time)
print(f"SGDA's rate of growth: {growth}, exact {np.log(exact) / time:.4f}, mended {mended:.4f}")
print("level / (eta sigma^2)  algorithm, exact           SDE, its law           mended")
for rho in dict.fromkeys(rho for rho, _ in found):
    line, pair = f"rho = {rho:5g}    ", (0.0, lam, eta)
    for kind, (form, _) in zip(forms, LAWS, strict=True):
        line += f"{pm(*found[rho, kind]):>16s}, {level(minimax.seg(rho), *pair, form):6.3f}   "
    print(f"{line}{level(minimax.seg(rho - eta / 2), *pair, theory.sde):6.3f}")
interval = f"{low:.4f} < rho < {high:.1f}"
note("bilinear: SEG converges for rho > 0", "at 0.03, 0.049 only the SDE does", interval)
note("bilinear: SGDA grows linearly", f"at the rate {growth}", "(1 + eta^2 lambda^2)^k")

# %% [markdown]
# Algorithms and SDEs sit on their laws, and the laws disagree: for $\rho$ between 0 and 0.0501 the SDE
# converges and the algorithm diverges, and towards the ends of the stable interval the levels differ
# without bound. (SGDA's SDE lies above its law by the error of its solver, at $dt = \eta/64$.) What the
# SDE leaves out is the drift $-(\eta/2)JF$, an extra step of $-\eta/2$: with $\rho - \eta/2$ in the
# place of $\rho$ (dashed, black) it has the bound $\eta/2$ and the exponential growth. This does not
# mend $\rho \gg \sqrt\eta$, for which the SDE was not made.
#
# ## 4. Quadratic games (figures 4 and 6), and the table of closed forms
#
# Two pairs alike, with $a = 3$, $\lambda = 1$, where the curvature dominates, and with $a = -1$,
# $\lambda = 2$, where SGDA diverges. At $\rho^H$ SEG is as fast as SHGD, and $\rho^V = 1/(a + \lambda)$
# has the lowest level. The paper plots $|x| + |y|$, not squared; its law is Rice's, as $x$ and $y$
# are Gaussian. SEG and SHGD use one batch.

# %%
arena = {(3.0, 1.0): (0.01, 1_000, -5.0, 8), (-1.0, 2.0): (0.001, 2_000, -1.0, 4)}
contest = {}
for (a, lam), (eta, steps, other, substeps) in arena.items():
    fast, quiet = float(minimax.matching_rho(eta, curvature=a, coupling=lam)), 1 / (a + lam)
    methods = {
        "SGDA": minimax.sgda(), rf"SEG, $\rho^V$ = {quiet:g}": minimax.seg(quiet),
        rf"SEG, $\rho^H$ = {fast:g}": minimax.seg(fast),
        rf"SEG, $\rho$ = {other:g}": minimax.seg(other), "SHGD": minimax.shgd(),
    }  # fmt: skip
    for name, method in methods.items():
        runs = race(method, a, lam, 0.1, eta, 1.0, steps, 4_000, substeps)
        contest[a, lam, name] = runs
tried = {(3.0, 1.0): (-0.4, -0.1155, 0.1, 0.25), (-1.0, 2.0): (0.6, 0.8911, 1.0, 1.5)}
found = {
    (a, rho, two): settled(minimax.seg(rho, two), a, lam, 0.01, theory.discrete, 40_000)
    for (a, lam), rhos in tried.items()
    for rho in rhos[: 1 if SMALL else None]
    for two in (False, True)[: 1 if SMALL else 2]
}


def mean_norms(runs, form):
    """E|x| + E|y|: √(πv/2) ((1 + s) I₀(s/2) + s I₁(s/2)) e^(-s/2), x ~ N(m, v I₂), s = |m|²/(2v)."""
    a, lam, sigma, method = runs.pair.values()
    args = (twice(a, lam), np.full(4, sigma**2), runs.eta, np.ones(4), runs.time[1:], form)
    law = minimax.moments(*args, method=method)
    v = law.covariance[:, [0, 2], [0, 2]]
    s = np.sum(law.mean.reshape(-1, 2, 2) ** 2, axis=2) / (2 * v)
    rice = (1 + s) * scipy.special.i0e(s / 2) + s * scipy.special.i1e(s / 2)
    return np.sum(np.sqrt(np.pi * v / 2) * rice, axis=1)


# %%
figure, axes = plt.subplots(2, 3, figsize=(14, 7.4))
rows = dict(zip(arena, axes, strict=True))
tones = dict(zip(arena, [[BLACK, OPTIMIZER, GREEN, SDE, PINK] for _ in arena], strict=True))
print("law of u at the end, SDE / algorithm - 1")
for (a, lam, name), runs in contest.items():
    left, middle, _ = rows[a, lam]
    color = tones[a, lam].pop(0)
    for run, kind, skip in ((runs.algorithm, "algorithm", 1), (runs.sde, "sde", 5)):
        if run is not None:
            mean, error = run.mean("norms"), run.standard_error("norms")
            points(left, runs.time, mean, error, color, kind, 8, skip)
        if kind == "algorithm":
            hold(mean[1:] - mean_norms(runs, theory.discrete), error[1:])
    for form, style in LAWS:
        left.plot(runs.time[1:], mean_norms(runs, form), style, color=color, lw=1.4)
    curves(middle, runs, color, name)
    bias = runs.last()[3] / runs.last()[2] - 1
    print(f"a = {a:2g}, {plain(name):20s}{bias:+.1%}")
    if "-5" in name:
        note("figs. 4, 6: closed forms", f"{bias:+.0%} at rho = -5", "exact discrete law")
reach = {(3.0, 1.0): (-0.6, 0.35), (-1.0, 2.0): (0.38, 2.2)}
for (a, lam), (left, middle, right) in rows.items():
    left.set(yscale="log", ylabel=rf"$a$ = {a:g}, $\lambda$ = {lam:g}" + "\n$E(|x| + |y|)$")
    left.set_title("what is plotted in the paper")
    middle.set(yscale="log", ylabel="$u$ of a pair", title="solid: exact; dotted: SDE")
    middle.legend(fontsize=8, loc="upper right" if a > 0 else "upper left")
    fine = np.linspace(*reach[a, lam], 200)
    for two, color, label in ((False, OPTIMIZER, "one batch"), (True, GREEN, "two batches")):
        for (form, style), name in zip(LAWS, (label, None), strict=True):
            levels = [level(minimax.seg(rho, two), a, lam, 0.01, form) for rho in fine]
            right.plot(fine, levels, style, color=color, lw=1.4, label=name)
        best = minimax.least_variance_rho(0.01, curvature=a, coupling=lam, independent=two)
        right.axvline(best, color=color, lw=1.2, ls="--")
        for rho in tried[a, lam]:
            if (a, rho, two) in found:
                points(right, rho, *found[a, rho, two], color, "algorithm")
    right.set(yscale="log", ylabel=r"level of $u$ / $\eta\sigma^2$")
    right.set_title(r"SEG, $\eta$ = 0.01; dashed: the best $\rho$")
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter("")
    right.legend()
axes[0, 0].set_ylim(4e-3, 4)
axes[1, 0].set_ylim(4e-3, 1e3)
axes[1, 1].set_ylim(2e-6, 1e5)
axes[1, 2].set(ylim=(1.2, 12), yticks=(2, 5, 10))
for panel, label in zip(axes[1], ("time $t$", "time $t$", r"$\rho$"), strict=True):
    panel.set_xlabel(label)
plt.show()

if not SMALL:
    (there, e1), (here, e2) = found[3.0, 0.25, True], found[3.0, -0.1155, True]
    gain = pm(there / here, there / here * np.hypot(e1 / there, e2 / here))
    note("rho^V has the lowest level", f"two batches: x {gain}", "rho = -0.1155 for 0.25")

# %% [markdown]
# Simulation and exact law agree throughout. At $\rho = -5$, $\eta|B|^2/(2r) = 0.33$ and the SDE's level
# is 33 % low. $\rho^V$ is the quietest only if one batch serves both fields of a step, whose noises
# then cancel in part. With two batches the best $\rho$ has the other sign at $a = 3$, where the level
# at $\rho^V$ is 5.5 times as high.
#
# The table: five games $(a, \lambda)$ and five methods, SEG at $\rho^V$, with $\eta = 0.02$,
# $\sigma = 1$, from $(1, 1)$ to $t = 4$.

# %%
games = ((2.0, 1.0), (3.0, 1.0), (-1.0, 2.0), (0.0, 2.0), (1.0, 1.0))[: 2 if SMALL else 5]
table = {
    "SGDA": lambda rho: minimax.sgda(), "SEG, one batch": minimax.seg,
    "SEG, two batches": lambda rho: minimax.seg(rho, True),
    "SHGD, one batch": lambda rho: minimax.shgd(), "SHGD, two batches": lambda rho: minimax.shgd(2),
}  # fmt: skip
if SMALL:
    table = {name: method for name, method in table.items() if "two" not in name}
ends = {
    (name, game): race(method(1 / sum(game)), *game, 1.0, 0.02, 1.0, 200, 20_000)
    for name, method in table.items()
    for game in games
}
print("u against its exact law, in standard errors; the SDE's law / the exact one - 1")
print(f"{'':18s}" + "".join(f"{f'({a:g}, {lam:g})':>16s}" for a, lam in games))
for name in table:
    cells = [ends[name, game].last() for game in games]
    texts = (f"{(m - law) / e:+.1f}  {sde / law - 1:+6.1%}" for m, e, law, sde in cells)
    print(f"{name:18s}" + "".join(f"{text:>16s}" for text in texts))
biases = [runs.last()[3] / runs.last()[2] - 1 for runs in ends.values()]
print(f"all records of the {len(misses)} ensembles up to here: within {max(misses):.1f} s.e.")
spread = f"{min(biases):+.0%} to {max(biases):+.1%}"
note("table of closed forms, eta = 0.02", spread, f"exact: within {max(misses):.1f} s.e.")
if not SMALL:
    shgd = [[ends[name, game].last()[:2] for game in games] for name in list(table)[3:]]
    (one, e1), (two, e2) = np.mean(shgd, axis=1)
    ratio = pm(two / one, two / one * np.hypot(e1 / one, e2 / two) / np.sqrt(len(games)))
    print(f"SHGD, u with two batches / with one: {ratio}")
    note("SHGD's noise, simulated with one batch", f"two batches: x {ratio}", "1/2")

# %% [markdown]
# Every entry is the algorithm's law within its Monte Carlo error. The SDE's law is first order in
# $\eta$: off by a few percent in most entries, 10 % for SHGD at $(3, 1)$, 20 % for SGDA and SEG at
# $(-1, 2)$, 27 % for SGDA on the bilinear game. Two batches halve the noise of SHGD.
#
# ## 5. Schedules (figures 3 and 5)
#
# A bilinear pair, $\lambda = 2$, with $\eta_k = \eta(1 + t)^{-p}$, $\eta = 0.01$,
# $\sigma = 10^{-3}$, from $(0.1, 0.1)$; SEG at $\rho = 5$. The SDE's $u$ has closed forms for
# $p = 0, 1/2, 1$, the algorithm's is a recursion. On the right $\rho_k = \rho(1 + t)^{-q}$ falls too
# ($\lambda = 1$, $\eta = 0.1$, $\rho = 0.5$, $\sigma = 0.1$), where $u \to 0$ asks for
# $q < p$ and $p + q \le 1$. Dotted there: the level at the present $\eta$ and $\rho$.

# %%
both = {"SEG, $\\rho$ = 5": minimax.seg(5.0), "SHGD": minimax.shgd()}
timed = {
    (name, p): race(method, 0.0, 2.0, 1e-3, 0.01, 0.1, 2_000, 4_000, 4, powers=(p, 0.0))
    for name, method in both.items()
    for p in (0.0, 0.5, 1.0)
}


def geometric(steps):
    """Which steps to record: evenly in log t."""
    return np.insert(np.geomspace(10, steps, RECORDS - 1).astype(int), 0, 0)


faded = {
    powers: race(minimax.seg(0.5), 0.0, 1.0, 0.1, 0.1, 0.1, 8_000, 2_000, 4, geometric, powers)
    for powers in ((0.6, 0.0), (0.6, 0.2), (0.4, 0.4), (0.4, 0.5))[2 if SMALL else 0 :]
}

figure, axes = plt.subplots(1, 3, figsize=(15, 4.6))
print("1e9 u at t = 20, exact recursion; closed form / exact - 1")
for (name, p), runs in timed.items():
    panel, color = axes[int(name == "SHGD")], {0.0: OPTIMIZER, 0.5: GREEN, 1.0: SDE}[p]
    curves(panel, runs, color, f"$p$ = {p:g}")
    panel.set(yscale="log", title=rf"{name}, $\lambda$ = 2", xlabel="time $t$", ylim=(1e-10, 2e-2))
    panel.legend()
    mean, error, exact, _ = runs.last()
    args = (runs.start**2, runs.time[-1:], runs.eta)
    closed = minimax.power_law_half_square(*args, power=p, **runs.pair)[0] / exact - 1
    found = f"{pm(1e9 * mean, 1e9 * error):>14s}, {1e9 * exact:6.3f}"
    print(f"{plain(name):13s}p = {p:3g}: {found}; {closed:+.1%}")
    if p == 0:
        note(f"figs. 3, 5: {plain(name)}", f"{closed:+.0%} at p = 0", "exact recursion")
axes[0].set_ylabel("$u$")
print("rho falls too, 1e6 u at t = 800, exact; / level at present; / u at t = 80")
for ((p, q), runs), color in zip(faded.items(), (OPTIMIZER, GREEN, PINK, SDE), strict=False):
    psi = [minimax.power_law(power, runs.eta) for power in (p, q)]
    verdict = "converges" if minimax.power_law_converges(p, q) else "stalls" if p == q else "grows"
    psi = {"schedule": psi[0], "rho_schedule": psi[1]}
    still = minimax.quasi_static_half_square(runs.time, runs.eta, **runs.pair, **psi)
    points(axes[2], runs.time, *pooled(runs.algorithm), color, "algorithm", 4, 1)
    points(axes[2], runs.time, *pooled(runs.sde), color, "sde", 4, 3)
    exact = runs.law(theory.discrete)
    label = f"$p$ = {p:g}, $q$ = {q:g}: {verdict}"
    axes[2].plot(runs.time, exact, color=color, lw=1.4, label=label)
    axes[2].plot(runs.time, still, ":", color=color, lw=1.4)
    mean, error, *_ = runs.last()
    early = np.interp(runs.time[-1] / 10, runs.time, exact)
    ratios = f"{pm(mean / still[-1], error / still[-1])}; {pm(mean / early, error / early)}"
    print(f"p = {p}, q = {q}: {pm(1e6 * mean, 1e6 * error)}, {1e6 * exact[-1]:.1f}; {ratios}")
axes[2].set(xscale="log", yscale="log", xlabel="time $t$", ylim=(2e-5, 1e-2))
axes[2].set_title(r"SEG, $\rho$ falls too")
axes[2].legend()
plt.show()
note("schedules of eta", "of rho too: q = p stalls, q > p grows", "u -> 0 for q < p, p + q <= 1")

# %% [markdown]
# At constant $\eta$ the closed form of SEG is 10 % low, $\eta|B|^2/(2r)$ at $\rho = 5$; as $\eta_k$
# falls, so does the gap. When $\rho$ falls as fast as $\eta$ the level stays, and when it falls faster
# the level grows: $\rho$ must fall strictly slower, if at all.
#
# ## 6. Noise in the coupling (figure 7)
#
# $F_c = ((\lambda + \sigma\zeta)\,y, -(\lambda + \sigma\zeta)\,x)$, $\zeta \sim N(0, 1)$, with
# $\lambda = 2$, $\sigma = 1$, $\eta = 0.01$, from $(0.1, 0.1)$ and two batches a step. The noise
# vanishes at the solution and $u = b e^{-\kappa t}$ has no floor. The SDE has
#
# $$\kappa = 2\rho\lambda^2 - \eta\sigma^2(1 + \rho^2(2\lambda^2 + \sigma^2))\quad\text{(SEG)},\qquad
# \kappa = 2\lambda^2 - \eta\sigma^2(2\lambda^2 + \sigma^2)\quad\text{(SHGD)},$$
#
# the algorithm less by $\eta|B|^2$, so that SEG's interval $\kappa > 0$ of $\rho$ is shorter at both
# ends. With noise in every entry of a $d \times d$ coupling one expects $d\sigma^2$ for $\sigma^2$.

# %%
lam, eta, sigma = 2.0, 0.01, 1.0
whole = {"u": lambda z: jnp.sum(half_squares(z))}


def rate_law(form, method, d=1, sigma=sigma):
    """κ."""
    constants = {"coupling": lam, "sigma": sigma, "method": method, "dimension": d}
    return float(minimax.multiplicative_rate(eta, form, **constants))


def decay(method, steps, paths, substeps=0, d=1, records=RECORDS - 1):
    """An ensemble, its κ of u⁺ = (1 - dt κ) u from start to end, the error of that, the law.

    Of the algorithm for 0 substeps, of its SDE otherwise.
    """
    oracle = MultiplicativeNoise(BilinearGame(np.full(d, lam)), sigma, matrix=d > 1)
    optimizer, equation = contestants(method, oracle, eta)
    dt = eta / (substeps or 1)
    process = SDEProcess(equation, dt) if substeps else optimizer
    run = simulate(process, 0.1, d, steps, paths, records, whole)
    mean, error = run.mean("u"), run.standard_error("u")
    shrink = (mean[-1] / mean[0]) ** (1 / steps)
    kappa, law = (1 - shrink) / dt, rate_law(theory.em(dt), method, d)
    error = shrink * error[-1] / mean[-1] / (steps * dt)
    assert abs(kappa - law) < 4.5 * error
    return run, kappa, error, law


cases = {rf"SEG, $\rho$ = {rho:g}": minimax.seg(rho, True) for rho in (0.5, 1.0, 2.0)}
cases |= {} if SMALL else {"SHGD": minimax.shgd(2)}
fading = {
    (name, substeps): decay(method, 200 * (substeps or 1), 20_000, substeps)
    for name, method in cases.items()
    for substeps in ((0,) if SMALL else (0, 4))
}
swept = {}
for rho in () if SMALL else (0.003, 0.03, 0.3, 3.0, 10.0, 20.0, 28.0, 40.0):
    for substeps in (0, 64):  # while u changes by e: later few paths carry it
        method, dt = minimax.seg(rho, True), eta / (substeps or 1)
        steps = int(np.clip(1 / (dt * abs(rate_law(theory.em(dt), method))), 1, 500 * eta / dt))
        paths = 2_000 if rho < 0.1 else 20_000
        swept[rho, substeps] = decay(method, steps, paths, substeps, records=[0, steps])
sizes = {"SGDA": minimax.seg(0.0, True), r"SEG, $\rho$ = 1": minimax.seg(1.0, True)}
sizes |= {} if SMALL else {"SHGD": minimax.shgd(2)}
full = {
    (name, d): decay(method, 400 if name == "SGDA" else 50, 100_000, d=d)
    for name, method in sizes.items()
    for d in ((1,) if SMALL else (1, 2, 3))
}

figure, axes = plt.subplots(1, 3, figsize=(15, 4.6))
print("kappa           algorithm, exact            SDE as solved, its law      SDE")
tones = dict(zip(cases, (OPTIMIZER, GREEN, SDE, PINK), strict=False))
for name, method in cases.items():
    line = f"{plain(name):16s}"
    for substeps, kind, skip in ((0, "algorithm", 1), (4, "sde", 3))[: 1 if SMALL else 2]:
        run, *kappa, law = fading[name, substeps]
        time, color = run.time, tones[name]
        points(axes[0], time, run.mean("u"), run.standard_error("u"), color, kind, 4, skip)
        line += f"{pm(*kappa):>16s}, {law:6.3f}   "
    time = fading[name, 0][0].step * eta
    for (form, style), label in zip(LAWS, (name, None), strict=True):
        constants = {"coupling": lam, "sigma": sigma, "method": method}
        law = minimax.multiplicative_half_square(0.01, time, eta, form, **constants)
        width = 3.5 if name.endswith("= 1") else 1.4  # SHGD covers it
        axes[0].plot(time, law, style, color=color, lw=width, label=label)
    exact, published = (rate_law(form, method) for form, _ in LAWS)
    print(f"{line}{published:6.3f}")
    if name.endswith("2"):
        note("fig. 7: kappa", f"{published / exact - 1:+.1%} at rho = 2", "less by eta |B|^2")
axes[0].set(yscale="log", xlabel="time $t$", ylabel="$u$", title="solid: exact; dotted: SDE")
axes[0].legend()
fine, ends = np.geomspace(1e-3, 100, 400), {}
for (form, style), label in zip(LAWS, ("algorithm", "SDE"), strict=True):
    law = [rate_law(form, minimax.seg(rho, True)) for rho in fine]
    axes[1].plot(fine, law, style, color=LAW, lw=1.4, label=label)
    constants = {"coupling": lam, "sigma": sigma, "independent": True}
    ends[label] = minimax.multiplicative_stable_rho(eta, form, **constants)
    for end in ends[label]:
        axes[1].axvline(end, color=BLACK, lw=0.8, ls=style)
    ends[label] = "{:.5f} < rho < {:.1f}".format(*ends[label])
    print(f"SEG, {label}: converges for {ends[label]}")
for (rho, substeps), (_, *kappa, law) in swept.items():
    color, kind = (SDE, "sde") if substeps else (OPTIMIZER, "algorithm")
    points(axes[1], rho, *kappa, color, kind)
    print(f"rho = {rho:5g}, {kind:9s}  kappa {pm(*kappa):>18s}, law {law:.4g}")
axes[1].axhline(0, color=BLACK, lw=0.8)
axes[1].set(xscale="log", xlabel=r"$\rho$", title=r"$\kappa$ of SEG; vertical: its zeros")
axes[1].set_yscale("symlog", linthresh=0.1)
axes[1].set_ylim(-300, 300)
axes[1].legend(loc="lower center")
print("noise d x d: kappa, exact; from d = 1 by d sigma^2, off by")
for (name, method), color in zip(sizes.items(), (BLACK, OPTIMIZER, PINK), strict=False):
    laws = [rate_law(theory.discrete, method, d) for d in (1, 2, 3)]
    guess = [rate_law(theory.discrete, method, sigma=np.sqrt(d) * sigma) for d in (1, 2, 3)]
    axes[2].plot((1, 2, 3), laws[0] - np.array(laws), color=color, lw=1.4, label=name)
    axes[2].plot((1, 2, 3), laws[0] - np.array(guess), ":", color=color, lw=2)
    for d in (1,) if SMALL else (1, 2, 3):
        _, kappa, error, law = full[name, d]
        points(axes[2], d, laws[0] - kappa, error, color, "algorithm")
        off = f"{(kappa - guess[d - 1]) / error:+.1f} s.e."
        found = f"{pm(kappa, error):>21s}, {law:.4f}; {guess[d - 1]:.4f}, {off}"
        print(f"{plain(name):14s}d = {d}: {found}")
axes[2].set(xlabel="$d$", ylabel=r"$\kappa(1) - \kappa(d)$", xticks=(1, 2, 3))
axes[2].set_title(r"noise $d \times d$; dotted: $d\sigma^2$ for $\sigma^2$")
axes[2].legend()
plt.show()
note(f"fig. 7: SEG for {ends['SDE']}", "at 0.003 and 40 only the SDE does", ends["algorithm"])
note("(expected: d sigma^2 for d x d noise)", f"SHGD at d = 3: {off}", "x (d + 1)/(2d) for SHGD")

# %% [markdown]
# The closed forms are first order again: $\kappa$ is 4.5 % high at $\rho = 2$. At $\rho = 0.003$ and at
# $\rho = 40$ the SDE converges and the algorithm diverges. $d\sigma^2$ is right for SGDA and for SEG with
# two batches. SHGD has $(d + 1)/(2d)$ of that noise: for $d = 1$ the two halves of its estimate are
# equal, for $d > 1$ they average.
#
# ## 7. Three games that are not quadratic
#
# `AlmostBilinear`, `Forsaken` and `DegreeEight`, with $\sigma = 0.3$, $\rho = \sqrt\eta$, from $(0.6, 0.6)$. A
# game with one of them in each coordinate has each method compiled once. The algorithm $z$ and the SDE $Z$ see one noise (`Paired`), which leaves
# their difference little variance, and Heun's rule for the drift keeps the error of the SDE's solver
# out of it, which is of order $\eta$ too for Euler-Maruyama.


# %%
class Together(problems.Game):
    """Σᵢ fᵢ(xᵢ, yᵢ), a game in each coordinate."""

    games: tuple

    def payoff(self, z):
        alone = [Players(z.x[i : i + 1], z.y[i : i + 1]) for i in range(len(self.games))]
        return sum(game.payoff(one) for game, one in zip(self.games, alone, strict=True))


class Heun(jaxsde.engine.Scheme):
    """z + (b(z) + b(z')) dt/2 + s(z) √dt ξ with Euler-Maruyama's z'."""

    weak_order = 2.0  # but for terms dt η σ², small beside the order η that is looked for
    strong_order = 0.5

    def noise(self, brownian):
        return jaxsde.EulerMaruyama().noise(brownian)

    def step(self, sde, t, y, dt, draw):
        ahead = jaxsde.EulerMaruyama().step(sde, t, y, dt, draw)
        here, there = sde.drift(t, y, None), sde.drift(t + dt, ahead, None)
        return jax.tree.map(lambda z, b0, b1: z + dt / 2 * (b1 - b0), ahead, here, there)


games = (problems.AlmostBilinear(0.01), problems.Forsaken(), problems.DegreeEight())
games = games[: 1 if SMALL else 3]
names = [type(game).__name__ for game in games]


def together(method, eta, stride):
    """The algorithm and its SDE, moved by one noise, recorded every `stride` steps."""
    optimizer, equation = contestants(method, GaussianNoise(Together(games), 0.3), eta)
    process, records = Paired(optimizer, SDEProcess(equation, eta, Heun())), np.arange(RECORDS + 2)
    followed = {"u": half_squares, "z": jnp.concatenate}
    return simulate(
        process, 0.6, len(games), stride * records[-1], 20_000, stride * records, followed
    )


etas = (0.1, 0.05) if SMALL else (0.1, 0.05, 0.025, 0.0125)
tones = dict(zip(table, (BLACK, OPTIMIZER, SKY, PINK, ORANGE), strict=False))
entrants = ("SGDA", "SEG, one batch") if SMALL else tuple(table)
met = {
    (name, eta): together(table[name](np.sqrt(eta)), eta, round(0.1 / eta))
    for name in entrants
    for eta in etas
}
long = {name: together(table[name](np.sqrt(0.05)), 0.05, 4) for name in entrants}  # to t = 10

figure, axes = plt.subplots(2, 3, figsize=(12.5, 8))
side = np.linspace(-1.6, 1.6, 24)
x, y = np.meshgrid(side, side)
everywhere = Players(*(v.reshape(-1, 1).astype(np.float32) for v in (x, y)))
for i, (game, column) in enumerate(zip(games, axes.T, strict=False)):
    F = jax.jit(jax.vmap(lambda z, game=game: game.gradient(z)))(everywhere)
    flow = [-np.asarray(part).reshape(x.shape) for part in F]
    look = {"color": "#cccccc", "linewidth": 0.6, "arrowsize": 0.6, "density": 0.7, "zorder": 0}
    column[0].streamplot(x, y, *flow, **look)
    for panel in column:
        panel.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xlabel="$x$")
    for name in [name for name in entrants if "two" not in name]:
        for part, style in (("optimizer", "-"), ("sde", "--")):
            mean = long[name].mean(f"{part}.z")
            label = name.split(",")[0] if part == "optimizer" else None
            column[0].plot(
                *mean[:, i :: len(games)].T, style, color=tones[name], lw=1.6, label=label
            )
        for part in ("sde", "optimizer") if name == "SGDA" else ("optimizer",):
            cloud = long[name].sample[f"{part}.z"][-1, i :: len(games), :1000]
            color, label = (SDE, "SGDA's SDE") if part == "sde" else (tones[name], name)
            column[1].plot(*cloud, ".", ms=2, color=color, alpha=0.5, label=label)
    column[0].set_title(f"{names[i]}: mean paths to t = 10")
    column[1].set_title("1,000 paths at t = 10")
for row, place in zip(axes, ("lower left", "upper left"), strict=True):
    row[0].set_ylabel("$y$")
    row[0].legend(loc=place, frameon=True, markerscale=5)
plt.show()

read, run = (jaxsde.Ensemble.mean, jaxsde.Ensemble.standard_error), long["SGDA"]
u, U = (pm(*(of(run, f"{side}.u")[-1, 0] for of in read)) for side in ("optimizer", "sde"))
print(f"AlmostBilinear, SGDA: u from {0.6**2:.2f} to {u} at t = {run.time[-1]:.3g}, its SDE to {U}")
note("AlmostBilinear: SDE of SGDA", f"{U} for u = {u}", "-(eta/2) JF in the drift")
if not SMALL:
    run = long["SEG, two batches"]
    lost = [run.diverged(f"{side}.u")[-1] for side in ("optimizer", "sde")]
    share = pm(100 * lost[1] / run.paths, 100 * np.sqrt(lost[1]) / run.paths)
    print(f"SEG, two batches: {lost[0]} paths explode, and {lost[1]} of its SDE, {share} %")
    note("Forsaken: SDE of SEG, two batches", f"{share} % explode", "steep: drift as |z|^9")

figure, axes = plt.subplots(1, 3, figsize=(14.5, 4.4), sharey=True)
print("at t = 1; eta = 0.05: u, algorithm - SDE; |E z - E Z|; its order in eta, from the last two")
orders, parts = [], ("optimizer.u", "difference.u")
for name in entrants:
    runs = [met[name, eta] for eta in etas]
    at = np.argmin(np.abs(runs[0].time - 1))
    assert not any(run.diverged("difference.u")[at] for run in runs)
    gap, errors = (np.array([of(r, "difference.z")[at] for r in runs]) for of in read)
    gap, errors = (v.reshape(len(etas), 2, -1) for v in (gap, errors))
    size = np.linalg.norm(gap, axis=1)
    error = np.linalg.norm(gap * errors, axis=1) / size
    octaves = np.log(etas[-2] / etas[-1])
    order = np.log(size[-2] / size[-1]) / octaves
    spread = np.linalg.norm((error / size)[-2:], axis=0) / octaves
    orders.extend(order)
    look = {"fmt": "o-", "ms": 4, "lw": 1.2, "color": tones[name], "label": name}
    for i, game in enumerate(names):
        axes[i].errorbar(etas, size[:, i], 2 * error[:, i], **look)
        u, off = (pm(*(of(runs[1], part)[at, i] for of in read)) for part in parts)
        found = f"{u:>18s}, {off:>21s}; {pm(size[1, i], error[1, i]):>19s}"
        print(f"{name:18s}{game:15s}{found}; {pm(order[i], spread[i])}")
for panel, game in zip(axes, names, strict=False):
    panel.plot(etas, 0.1 * np.array(etas), ":", color=BLACK, label=r"$\propto \eta$")
    panel.set(xscale="log", yscale="log", xlabel=r"$\eta$", title=game)
    panel.set_xticks(etas, [f"{eta:g}" for eta in etas])
    panel.minorticks_off()
axes[0].set_ylabel("$|E z - E Z|$ at $t$ = 1")
axes[0].legend(loc="lower right", fontsize=8)
plt.show()
print("\nSGDA: " + jaxsde.compare(met["SGDA", 0.05]).verdict.splitlines()[0])
note("weak order 1", f"orders {min(orders):.2f} to {max(orders):.2f}", "rho = sqrt(eta)")

# %% [markdown]
# In Forsaken SGDA and SEG end on a cycle and SHGD at the stationary point, and so do their SDEs. In
# AlmostBilinear SGDA spirals outward, against the pull of the origin: the lost drift, $\eta/2 = 0.025$,
# outweighs $\varepsilon = 0.01$, and its SDE stays where it is but for the noise. All SDEs are
# first order in $\eta$, that of SEG from below, as its next terms are of order $\eta^{3/2}$. In $Ez$
# one batch and two hardly differ.
#
# With two batches SEG's SDE explodes on some paths in Forsaken: beyond $|s| \approx 1.3$ its drift
# $-F + \rho JF$ points outward, and it grows as $|z|^9$. Theorems on weak approximation ask for
# coefficients that grow at most linearly.
#
# ## Published, measured, here

# %%
print(f"{'published':44s}{'measured':40s}here")
for row in summary:
    print("{:44s}{:40s}{}".format(*row))
