"""The study: surrogates, a pilot that allocates the paths, the run that gives the intervals."""

import time as clock
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Float, PRNGKeyArray, PyTree

from jaxsde import _checks
from jaxsde.analysis.weak_error import _surrogate
from jaxsde.analysis.weak_error._controlled import Controlled, Seen
from jaxsde.analysis.weak_error._order import Order, fit_order, paths_for
from jaxsde.analysis.weak_error._result import ObservableError, WeakError
from jaxsde.engine import Progress, RandomStart, simulate, with_covariance
from jaxsde.engine.inputs import cast, start_point, struct
from jaxsde.engine.observables import as_observable
from jaxsde.processes import OptimizerProcess, Refined
from jaxsde.sdes import SDE

FIT = 2048  # paths of the surrogates' fit
BLOCK = 4096  # paths of the pilot, and of which a final run has a whole number: one compilation
MARGIN = 0.8  # of the width asked for that the pilot aims at
RELATIVE = 0.05  # standard error aimed at where the pilot can fit no order
SHOWN = 3  # errors from which an order can be read


class Case(NamedTuple):
    """One learning rate: its process and what is seen of it after `steps`."""

    process: Controlled
    seen: dict[str, Seen]
    steps: int
    keys: PRNGKeyArray


class Sample(NamedTuple):
    """What `Seen` gives: means and covariance over the n paths used, values of the first ones."""

    mean: Float[np.ndarray, " v"]
    covariance: Float[np.ndarray, "v v"]
    n: int
    values: Float[np.ndarray, "v s"]


class Coefficients(NamedTuple):
    """Of everything seen, in the error and in the integrator's last correction."""

    error: Float[np.ndarray, " v"]
    correction: Float[np.ndarray, " v"]


def weak_error(
    optimizer: Callable[[float], OptimizerProcess],
    sde: Callable[[float], SDE],
    x0: PyTree | RandomStart,
    *,
    learning_rates: Sequence[float],
    time: float,
    key: PRNGKeyArray,
    observables: Mapping[str, Callable] | None = None,
    substeps: int = 1,
    levels: int = 3,
    warm_up: float | None = None,
    width: float = 0.1,
    paths: int = 2**16,
    confidence: float = 0.95,
    progress: Callable[[Progress], None] | None = None,
) -> WeakError:
    """Measures E g(x_k) - E g(X_t) at t = t0 + k dt for several learning rates, and its order.

    The SDE is solved by Euler-Maruyama at the steps h = dt/substeps, h/2, ..., h/2^(levels - 1) and
    extrapolated to step 0 (Richardson; Talay and Tubaro 1990), so that the integrator's error is of
    order h^levels; its last correction is reported. Optimizer and levels share one Brownian motion
    where they can (`Paired`), and each side has a linear surrogate driven by its own noise whose
    exactly known moments are control variates. A pilot fits the surrogates, the controls'
    coefficients and the paths each learning rate needs for an order's interval of `width`. The
    final run has noise of its own and alone gives estimates and intervals, so these are unbiased.

    Args:
        optimizer: maps a learning rate to the optimizer's process. Averages must keep their time:
            decay = 1 - ρ dt with ρ fixed.
        sde: maps a learning rate to the SDE.
        x0: the start, in float64.
        learning_rates: η, at least two, and three for an order, each with `time` a multiple of its
            dt; results are ordered from the largest on.
        time: after t0, in the SDE's clock.
        key: of the noise.
        observables: functions g of the position; those of the problem by default. The components of
            an array count as observables of their own. Controls need g to be smooth.
        substeps: of the coarsest level.
        levels: of the extrapolation. With two more than the SDE's order the integrator's error is
            two orders in h below the one that is measured.
        warm_up: time for which the SDE's side is the optimizer, as in `Paired`.
        width: of the order's interval, aimed at.
        paths: at a learning rate, at most; at least 4,096.
        confidence: of every interval, one by one.
        progress: called while it runs.

    Returns:
        Errors with intervals, the fitted orders (`fit_order`), and a verdict in words.

    Raises:
        InputError: JAX not in float64, a time that is no multiple of a step, fewer than two
            learning rates or levels, an observable of the state, numbers out of range, paths of the
            pilot that diverge.
    """
    rates = _checked(learning_rates, time, warm_up, levels, width, paths, confidence)
    began = clock.monotonic()
    if not isinstance(x0, RandomStart):
        x0 = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), x0)
    x0, dtype = start_point(x0)
    chains = [
        cast(_chain(optimizer, sde, eta, time, substeps, levels, warm_up), dtype) for eta in rates
    ]
    steps = [_whole("time", time, chain.dt, eta) for chain, eta in zip(chains, rates, strict=True)]
    bar = _Bar(progress, sum(steps) * BLOCK)
    watched = _functions(chains[0], observables)
    cases = [
        _case(chain, x0, k, max(steps), own, watched)
        for chain, k, own in zip(chains, steps, jax.random.split(key, (len(rates), 3)), strict=True)
    ]
    h = np.array([float(chain.dt) for chain in chains])
    coefficients, needed = _pilot(cases, x0, h, levels, width, confidence, bar)
    n = BLOCK * np.clip(np.ceil(needed / BLOCK), 1, paths // BLOCK).astype(int)
    bar.total += int(np.sum(n * steps))
    finals = [_run(case, x0, int(m), 2, bar) for case, m in zip(cases, n, strict=True)]
    counts = [substeps * 2**j for j in range(levels)]
    errors = {
        name: _errors(
            [final[name] for final in finals], [c[name] for c in coefficients], h, counts, n,
            confidence,
        )
        for name in finals[0]
    }  # fmt: skip
    used = np.array([min(sample.n for sample in final.values()) for final in finals]) / n
    end = float(chains[0].t0) + time
    return WeakError(
        rates, h, np.array(steps), n, used, end, confidence, counts[-1], errors,
        clock.monotonic() - began,
    )  # fmt: skip


def _checked(
    learning_rates, time, warm_up, levels, width, paths, confidence
) -> Float[np.ndarray, " L"]:
    """The learning rates from the largest on."""
    if jnp.result_type(float) != np.float64:
        raise _checks.InputError(
            "weak errors need float64: call jax.config.update('jax_enable_x64', True) first"
        )
    rates = np.unique(np.asarray(learning_rates, float))[::-1]
    _checks.positive("learning_rates", rates)
    if len(rates) < 2 or len(rates) < np.size(learning_rates):
        raise _checks.InputError("learning_rates must be at least two, all different")
    for name, value in (("time", time), ("width", width)):
        _checks.positive_number(name, value)
    if warm_up is not None and not 0 < warm_up < time:
        raise _checks.InputError(f"warm_up must lie between 0 and time, got {warm_up!r}")
    if not 0 < confidence < 1:
        raise _checks.InputError(f"confidence must lie between 0 and 1, got {confidence!r}")
    _checks.at_least("levels", levels, 2)
    _checks.at_least("paths", paths, BLOCK)
    return rates


def _pilot(
    cases: list[Case], x0, h, levels: int, width: float, confidence: float, bar: "_Bar"
) -> tuple[list[dict[str, Coefficients]], Float[np.ndarray, " L"]]:
    """The controls' coefficients, and the paths that each learning rate needs."""
    pilots = [_run(case, x0, BLOCK, 1, bar) for case in cases]
    for step, pilot in zip(h, pilots, strict=True):
        if not all(np.all(np.isfinite(sample.covariance)) for sample in pilot.values()):
            raise _checks.InputError(
                f"paths diverge at the step {step:g}, and what is left of them has no finite "
                "variance: choose smaller learning rates"
            )
    coefficients = [
        {
            name: Coefficients(
                _controls(sample, _difference(levels)), _controls(sample, _correction(levels))
            )
            for name, sample in pilot.items()
        }
        for pilot in pilots
    ]
    steps = np.array([case.steps for case in cases])
    return coefficients, _allocate(pilots, coefficients, h, steps, width, confidence)


class _Bar:
    """Progress over several runs."""

    def __init__(self, progress: Callable[[Progress], None] | None, total: int):
        self.progress, self.total, self.done, self.began = progress, total, 0, clock.monotonic()

    def __call__(self, run: Progress) -> None:
        if self.progress is not None:
            elapsed = clock.monotonic() - self.began
            self.progress(Progress(self.done + run.done, self.total, elapsed))
        if run.done == run.total:
            self.done += run.total


def _chain(optimizer, sde, eta: float, time, substeps, levels, warm_up) -> Refined:
    process = optimizer(float(eta))
    k0 = None if warm_up is None else _whole("warm_up", warm_up, process.dt, eta)
    chain = Refined(process, sde(float(eta)), substeps, levels, k0)
    _whole("time", time, chain.dt, eta)
    return chain


def _whole(name: str, time: float, dt: Any, eta: float) -> int:
    """The number of steps in a time."""
    dt = float(dt)
    k = max(int(np.rint(time / dt)), 1)
    if abs(time / dt - k) > 1e-6 * k:
        raise _checks.InputError(
            f"{name} {time:g} is no multiple of the step {dt:g} at learning rate {eta:g}: choose "
            f"learning rates with steps {time:g}/k, such as {time / k:g}"
        )
    return k


def _functions(chain: Refined, observables: Mapping[str, Callable] | None) -> dict[str, Callable]:
    """Those given, or the problem's; of the position all of them."""
    given = chain.pairs[0].observables() if observables is None else observables
    marked = {name: as_observable(fn) for name, fn in given.items()}
    for name, observable in marked.items():
        if observable.of_state:
            raise _checks.InputError(f"observable {name!r} is of the state: give one of x")
    return {name: observable.fn for name, observable in marked.items()}


def _case(chain: Refined, x0, steps: int, longest: int, keys, watched) -> Case:
    x = struct(x0, jnp.result_type(float))
    surrogates = _surrogate.fit(chain, x0, steps, longest, FIT, keys[0])
    seen = {}
    for name, fn in watched.items():
        shape = jax.eval_shape(fn, x).shape
        for i in range(int(np.prod(shape))):
            of = Seen.of(fn, i, chain, x, surrogates)
            seen[f"{name}[{i}]" if shape else name] = of
    return Case(Controlled.of(chain, surrogates), seen, steps, keys)


def _run(case: Case, x0, paths: int, key: int, bar: _Bar) -> dict[str, Sample]:
    ensemble = simulate(
        case.process, x0, steps=case.steps, paths=paths, chunk=BLOCK, records=[case.steps],
        key=case.keys[key], progress=bar,
        observables={name: with_covariance(seen) for name, seen in case.seen.items()},
    )  # fmt: skip
    return {
        name: Sample(
            ensemble.mean(name)[0],
            ensemble.covariance(name)[0],
            int(ensemble.used(name)[0]),
            ensemble.sample[name][0],
        )
        for name in case.seen
    }


def extrapolation(levels: int) -> Float[np.ndarray, " levels"]:
    """w with Σ w = 1 and Σ w_j 2^(-j m) = 0 for m = 1, ..., levels - 1: Richardson's weights."""
    powers = 0.5 ** np.outer(np.arange(levels), np.arange(levels))  # row m, column j
    return np.linalg.solve(powers, np.eye(levels)[0])


def _difference(levels: int) -> Float[np.ndarray, " sides"]:
    """Coefficients of the sides in the error: the optimizer less the extrapolated SDE."""
    return np.concatenate([[1.0], -extrapolation(levels)])


def _correction(levels: int) -> Float[np.ndarray, " sides"]:
    """Coefficients of the sides in the extrapolation less that without the coarsest level."""
    return np.concatenate([[0.0], extrapolation(levels)]) - np.concatenate(
        [[0.0, 0.0], extrapolation(levels - 1)]
    )


def _controls(sample: Sample, of_sides: Float[np.ndarray, " sides"]) -> Float[np.ndarray, " v"]:
    """Coefficients of everything seen: those given of the sides, less what controls know of it.

    With u what is seen, w the sides' coefficients and c the controls, two of each side: that of a
    perfect surrogate is a₀ = (w, -w, -w), least squares correct it to a₀ - β with
    β = Cov(c)⁺ Cov(c, a₀ᵀ u), and whichever of a₀, a₀ - β and w alone has the least aᵀ Cov(u) a.
    """
    levels = len(of_sides) - 1
    base = np.concatenate([of_sides, -np.repeat(of_sides, 2)])
    C = sample.covariance[levels + 1 :, levels + 1 :]
    scale = np.sqrt(np.diag(C))
    unit = 1 / np.where(scale > 0, scale, 1)
    inverse = np.linalg.pinv(C * np.outer(unit, unit), rcond=1e-9, hermitian=True)
    beta = unit * (inverse @ (unit * (sample.covariance[levels + 1 :] @ base)))
    better = np.concatenate([of_sides, base[levels + 1 :] - beta])
    plain = np.concatenate([of_sides, np.zeros(len(beta))])
    return min((plain, base, better), key=lambda a: a @ sample.covariance @ a)


def _estimate(sample: Sample, a: np.ndarray, paths: int | None = None) -> tuple[float, float]:
    """aᵀ mean and √(aᵀ Cov a / n), which is at least rounding."""
    n = sample.n if paths is None else paths
    sides = np.abs(a[: len(a) // 3] * sample.mean[: len(a) // 3])
    rounding = 64 * np.finfo(float).eps * np.sum(sides) + np.finfo(float).tiny  # never 0
    variance = max(float(a @ sample.covariance @ a), 0.0)
    return float(a @ sample.mean), float(np.hypot(np.sqrt(variance / max(n, 1)), rounding))


def _allocate(pilots, coefficients, h, steps, width, confidence) -> Float[np.ndarray, " L"]:
    """Paths for the width asked for, of the observable that needs most."""
    needed = np.zeros(len(h))
    for name in pilots[0]:
        samples = [
            (pilot[name], c[name].error) for pilot, c in zip(pilots, coefficients, strict=True)
        ]
        e, s = np.array([_estimate(*sample) for sample in samples]).T
        deviation = np.array([_estimate(*sample, 1)[1] for sample in samples])
        if _order(h, e, s, confidence) is None:
            needed = np.maximum(needed, (deviation / (RELATIVE * np.maximum(np.abs(e), s))) ** 2)
        else:
            n = paths_for(MARGIN * width, h, e, deviation, steps, confidence)
            needed = np.maximum(needed, n)
    return needed


def _order(h, e, s, confidence) -> Order | None:
    """The fit, where three errors are shown and all have one sign."""
    shown = np.abs(e) > s * scipy.stats.norm.isf((1 - confidence) / 2)
    if shown.sum() < SHOWN or len(np.unique(np.sign(e[shown]))) > 1:
        return None
    return fit_order(h, e, s, confidence)


def _errors(
    samples: list[Sample], coefficients: list[Coefficients], h: np.ndarray, counts: list[int],
    paths: np.ndarray, confidence: float,
) -> ObservableError:  # fmt: skip
    levels, weights = len(counts), extrapolation(len(counts))
    plain, rows = _plain(_difference(levels)), []
    for sample, own, n in zip(samples, coefficients, paths, strict=True):
        a = own if sample.n == n else Coefficients(*(_plain(c[: levels + 1]) for c in own))
        error, s = _estimate(sample, a.error)
        correction, correction_error = _estimate(sample, a.correction)
        row = (error, s, sample.mean[0], sample.mean[1 : levels + 1] @ weights, correction)
        apart = _independent(sample, counts)
        paired = _estimate(sample, plain)[1]
        rows.append((*row, correction_error, apart / s, apart / paired))
    e, s, optimizer, sde, bias, bias_error, gain, by_pairing = np.array(rows).T
    s = np.where(np.isfinite(s), s, np.inf)
    reach = s * scipy.stats.norm.isf((1 - confidence) / 2)
    heaviest = max(_heaviest(sample, levels + 1) for sample in samples)
    return ObservableError(
        e, s, e - reach, e + reach, optimizer, sde, bias, bias_error, gain, by_pairing, heaviest,
        _order(h, e, s, confidence),
    )  # fmt: skip


def _plain(of_sides: np.ndarray) -> Float[np.ndarray, " v"]:
    """Without controls, whose mean over survivors is not known."""
    return np.concatenate([of_sides, np.zeros(2 * len(of_sides))])


def _independent(sample: Sample, counts: list[int]) -> float:
    """Standard error of independent runs at as many steps, split between the sides at best.

    With costs 1 and s of a path of the optimizer and of the SDE at s substeps, and variances v, V,
    the least variance at the cost c is (√v + √(s V))²/c.
    """
    variance, levels = np.diag(sample.covariance), len(counts)
    best = (np.sqrt(variance[0]) + np.sqrt(counts[-1] * variance[levels])) ** 2
    return float(np.sqrt(best / (max(sample.n, 1) * (1 + sum(counts)))))


def _heaviest(sample: Sample, sides: int) -> float:
    """The share of a side's sampled variance that one path carries."""
    values = sample.values[:sides, np.all(np.isfinite(sample.values), axis=0)]
    squares = (values - np.median(values, axis=1, keepdims=True)) ** 2 if values.size else values
    total = np.sum(squares, axis=1)
    shares = np.max(squares, axis=1, initial=0)[total > 0] / total[total > 0]
    return float(np.max(shares, initial=0))
