"""Weak errors against independent runs of equal time: `python -m benchmarks.weak_error`.

Every case is one study by `jaxsde.analysis.weak_error`. Beside its order stands what a run of the
optimizer and one of the SDE with noise of their own would have given in the time of its final run.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxsde
from benchmarks.throughput import report
from benchmarks.throughput.__main__ import RESULTS, measure_machine, progress
from jaxsde import InputError, OptimizerProcess, SDEProcess, _checks, _files, optimizers, sdes
from jaxsde.analysis import WeakError, weak_error
from jaxsde.analysis.weak_error import _study
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import LogisticRegression, Quadratic
from jaxsde.problems.regression import breast_cancer_data
from jaxsde.sdes import SDE

STEPS = (10, 14, 20, 28, 40, 56)  # to a case's time
PATHS = 2**15  # of the independent runs
EXPLANATION = (
    "The order is p of e(h) = C hᵖ (1 + a h + ...) with its 95 % interval, and so is every other "
    "interval. `seconds` is the whole study, compilation and pilot included. A gain is the "
    "standard error of independent runs of the optimizer and of the SDE at the study's finest "
    "step, over the study's: `equal steps` counts steps of either side, `equal seconds` is by the "
    "clock, the study's final run (surrogates included) against warm independent runs, at the "
    "smallest learning rate. `common noise` is the gain by steps without controls."
)


class Case(NamedTuple):
    """An optimizer and its SDE as functions of η, the SDE's weak order, its start, and the time."""

    optimizer: Callable[[float], OptimizerProcess]
    sde: Callable[[float], SDE]
    order: int
    x0: np.ndarray
    about: str
    time: float = 1.0


def tumours() -> LogisticRegression:
    """100 tumours, four features and a constant."""
    features, labels = breast_cancer_data()
    return LogisticRegression(
        np.column_stack([features[:100, :4], np.ones(100)]), labels[:100], 0.1
    )


def _sgd(problem: Any, d: int, order: int, about: str, time: float = 1.0) -> Case:
    oracle = GaussianNoise(problem, 0.5)

    def optimizer(eta):
        return OptimizerProcess(optax.sgd, {"learning_rate": eta}, oracle)

    return Case(
        optimizer, lambda eta: sdes.SGD(oracle, eta, order=order), order, np.ones(d), about, time
    )


def _rmsprop() -> Case:
    oracle = GaussianNoise(Quadratic(np.array([1.0, 2.0])), 0.5)

    def values(eta):
        return {"decay": 1 - 2 * eta, "eps": 1e-3, "initial_second_moment": 1.0}

    def optimizer(eta):
        return OptimizerProcess(optimizers.rmsprop, {"learning_rate": eta, **values(eta)}, oracle)

    return Case(
        optimizer, lambda eta: sdes.RMSprop(oracle, eta, **values(eta)), 1, np.ones(2),
        "RMSprop, 1 - β = 2 η, v₀ = 1, quadratic with curvatures 1 and 2, σ = 0.5",
    )  # fmt: skip


def _sign() -> Case:
    oracle = GaussianNoise(Quadratic(np.array([1.0])), 1.0)
    return Case(
        lambda eta: OptimizerProcess(optax.sign_sgd, {"learning_rate": eta}, oracle),
        lambda eta: sdes.SignSGD(oracle, eta), 1, np.array([1.5]), "SignSGD, x²/2, σ = 1",
    )  # fmt: skip


LOGISTIC = "SGD, logistic regression on 100 tumours, d = 5, σ = 0.5, SDE of order"
QUADRATIC = "SGD, quadratic with curvatures 1 and 2, σ = 0.5, SDE of order"
CASES: dict[str, Callable[[], Case]] = {
    "quadratic-1": lambda: _sgd(Quadratic(np.array([1.0, 2.0])), 2, 1, f"{QUADRATIC} 1"),
    "quadratic-2": lambda: _sgd(Quadratic(np.array([1.0, 2.0])), 2, 2, f"{QUADRATIC} 2"),
    "logistic-1": lambda: _sgd(tumours(), 5, 1, f"{LOGISTIC} 1", 3.0),
    "logistic-2": lambda: _sgd(tumours(), 5, 2, f"{LOGISTIC} 2", 3.0),
    "rmsprop": _rmsprop,
    "sign": _sign,
}


def measure(name: str, case: Case, paths: int) -> dict[str, Any]:
    """One row."""
    began = time.monotonic()
    levels = case.order + 2
    study = weak_error(
        case.optimizer, case.sde, case.x0, time=case.time, levels=levels,
        paths=paths, learning_rates=[case.time / k for k in STEPS], key=jax.random.key(0),
    )  # fmt: skip
    seconds = time.monotonic() - began
    found = study.errors["loss"]
    apart, apart_seconds = _independent(case, study, 2 ** (levels - 1))
    own_seconds = _final(case, study, levels)
    row = {
        "case": name, "about": case.about, "seconds": seconds, "paths": study.paths.tolist(),
        "error": found.error.tolist(), "standard_error": found.standard_error.tolist(),
        "bias": found.bias.tolist(), "learning_rate": study.learning_rate.tolist(),
        "gain_steps": [found.gain.min(), found.gain.max()],
        "gain_common_noise": [found.gain_by_pairing.min(), found.gain_by_pairing.max()],
        "gain_seconds": apart * np.sqrt(apart_seconds)
        / (found.standard_error[-1] * np.sqrt(own_seconds)),
        "verdict": study.verdict,
    }  # fmt: skip
    if found.order is not None:
        row["order"] = [found.order.value, found.order.lower, found.order.upper]
    return row


def _independent(case: Case, study: WeakError, substeps: int) -> tuple[float, float]:
    """Standard error of two runs with noise of their own at the smallest learning rate, seconds."""
    eta, steps = study.learning_rate[-1], int(study.steps[-1])
    optimizer = case.optimizer(eta)
    sides = (
        (optimizer, steps),
        (SDEProcess(case.sde(eta), optimizer.dt / substeps), steps * substeps),
    )
    variance, took = 0.0, 0.0
    for seed, (process, count) in enumerate(sides):
        for _ in range(2):  # the second is warm
            began = time.monotonic()
            ensemble = jaxsde.simulate(
                process, case.x0, steps=count, paths=PATHS, records=[count],
                key=jax.random.key(seed), observables=optimizer.observables(),
            )  # fmt: skip
            last = time.monotonic() - began
        took += last
        variance += float(ensemble.standard_error("loss")[0]) ** 2
    return float(np.sqrt(variance)), took


def _final(case: Case, study: WeakError, levels: int) -> float:
    """Seconds of the study's final run at the smallest learning rate, warm."""
    eta, steps = study.learning_rate[-1], int(study.steps[-1])
    chain = _study._chain(case.optimizer, case.sde, eta, case.time, 1, levels, None)
    x0, keys = jax.numpy.asarray(case.x0), jax.random.split(jax.random.key(1), 3)
    run = _study._case(chain, x0, steps, steps, keys, _study._functions(chain, None))
    bar, took = _study._Bar(None, 0), 0.0
    for i in range(2):
        began = time.monotonic()
        _study._run(run, x0, int(study.paths[-1]), i, bar)
        took = time.monotonic() - began
    return took


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    steps, noise = (
        "{:,.3g} to {:,.3g}".format(*row[name]) for name in ("gain_steps", "gain_common_noise")
    )
    order = "{:.3f} ({:.3f} to {:.3f})".format(*row["order"]) if "order" in row else "none"
    clock = f"{row['gain_seconds']:,.3g}"
    return row["about"], order, f"{row['seconds']:.0f}", steps, noise, clock


def write(rows: Sequence[dict[str, Any]], machine: dict[str, Any], base: Path) -> None:
    """The JSON lines and a table beside each other."""
    head = (
        "case", "order", "seconds", "gain at equal steps", "by common noise",
        "gain at equal seconds",
    )  # fmt: skip
    text = "\n\n".join(
        [
            f"# Weak errors, {machine['date']}",
            f"{machine['devices']} x {machine['device']} ({machine['processor']}, "
            f"{machine['cores']} cores), float64, jax {machine['jax']}, load before the run "
            f"{machine['load_before']:.1f}.",
            EXPLANATION,
            report.table(head, [_row(row) for row in rows]),
        ]
    )
    lines = "".join(json.dumps(line) + "\n" for line in ({"machine": machine}, *rows))
    for suffix, content in ((".jsonl", lines), (".md", text + "\n")):
        with _files.atomic(f"{base}{suffix}") as temporary:
            temporary.write_text(content, encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.weak_error",
        description="Weak errors and orders, and by how much their standard errors are below those "
        "of independent runs.",
        epilog=f"cases: {', '.join(CASES)}.",
    )
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="all by default")
    parser.add_argument("--paths", type=int, default=2**16, help="at a learning rate, at most")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder (default: benchmarks/results)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes."""
    options = parser().parse_args(arguments)
    names = dict.fromkeys(options.cases or CASES)
    try:
        for name in names:
            _checks.known("case", name, CASES)
    except InputError as error:
        raise SystemExit(f"python -m benchmarks.weak_error: {error}") from None
    jaxsde.use_all_cores()
    load, rows = os.getloadavg()[0], []
    with progress() as tell:
        tell("the machine's limits")
        machine = measure_machine(quick=True) | {"load_before": load}
        jax.config.update("jax_enable_x64", True)
        for name in names:
            tell(name)
            rows.append(measure(name, CASES[name](), options.paths))
    base = options.out / report.stem(machine).replace("throughput", "weak-error", 1)
    write(rows, machine, base)
    for row in rows:
        print(f"{row['about']}: {row['seconds']:.0f} s\n{row['verdict']}")
    print(f"rows: {base}.jsonl\ntable: {base}.md")


if __name__ == "__main__":
    main()
