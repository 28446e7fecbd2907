"""Networks' paths in jaxsde and in loops by hand: `python -m benchmarks.networks`.

RMSprop under injected noise or mini-batches, and its SDE. Every engine runs a case in a process of
its own, in which its memory is measured; the engines take turns within a repeat.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxsde
from benchmarks.throughput import report
from benchmarks.throughput.__main__ import RESULTS, measure_machine, progress
from benchmarks.throughput.process import ROOT
from benchmarks.throughput.worker import peak_memory
from jaxsde import InputError, _checks, _files, families
from jaxsde.oracles import GaussianNoise, MinibatchNoise
from jaxsde.problems import Network, breast_cancer_mlp, cross_entropy, digits_cnn

ETA, DECAY, EPS, SIGMA = 1e-3, 0.999, 1e-3, 0.01
SUBSTEPS = 2
LIMIT = 900.0  # seconds of an engine on a case
EXPLANATION = (
    "A path-step is one optimizer step of one path, warm, by the median repeat; where the SDE runs "
    f"too it takes {SUBSTEPS} steps beside it. The ratio is an engine's time over that of jaxsde's "
    "optimizer alone. Memory is the process's peak above what it held after the imports and the "
    "data. jax: a loop over steps of `vmap` over paths, `jax.random.normal`, all else equal. "
    "jax-conv: the same with `equinox.nn.Conv2d`. torch: one path after the other, modules and "
    "`torch.optim.RMSprop`, on all cores."
)


class Case(NamedTuple):
    """A network, paths, the size of a mini-batch (None: all data and injected noise), in words."""

    problem: Callable[[], Network]
    paths: int
    batch: int | None
    about: str


CASES = {
    "mlp": Case(breast_cancer_mlp, 64, None, "breast-cancer MLP, 4,022 parameters, all 569 rows"),
    "cnn": Case(
        lambda: digits_cnn(images=512), 64, None, "digits CNN, 7,290 parameters, 512 images"
    ),
    "cnn-minibatch": Case(digits_cnn, 64, 64, "digits CNN, batches of 64 of 1,797 images"),
}


class OfConv2d(eqx.Module):
    """The digits CNN of equinox's own convolutions."""

    layers: eqx.nn.Sequential

    def __init__(self, key):
        first, second, wide, last = jax.random.split(key, 4)
        relu, pool = eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2)
        self.layers = eqx.nn.Sequential([
            eqx.nn.Conv2d(1, 16, 3, padding=1, key=first), relu, pool,
            eqx.nn.Conv2d(16, 16, 3, padding=1, key=second), relu, pool,
            eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(64, 64, key=wide), relu,
            eqx.nn.Linear(64, 10, key=last),
        ])  # fmt: skip

    def __call__(self, image):
        """Logits."""
        return self.layers(jnp.moveaxis(image, -1, 0))


def of_jaxsde(case: Case, pair: bool = False) -> Callable[[int], Any]:
    """`simulate` of the optimizer, or of it and its SDE."""
    problem = case.problem()
    oracle = GaussianNoise(problem, SIGMA)
    if case.batch is not None:
        oracle = MinibatchNoise(problem, case.batch)
    every = None if case.batch is None else 10
    both = families.family("rmsprop").pair(
        oracle, ETA, SUBSTEPS, {"decay": DECAY, "eps": EPS}, variance_every=every if pair else None
    )
    process = both if pair else both.optimizer

    def run(steps):
        return jaxsde.simulate(
            process, problem.x0, steps=steps, paths=case.paths, key=jax.random.key(0), records=1,
            observables={"loss": problem.loss},
        )  # fmt: skip

    return run


def of_jax(case: Case, conv: bool = False) -> Callable[[int], Any]:
    """A scan of a vmap."""
    problem = case.problem()
    if conv:
        model = OfConv2d(jax.random.key(0))
        problem = Network(model, cross_entropy, problem.inputs, problem.targets)
    optimizer = optax.rmsprop(ETA, DECAY, EPS, eps_in_sqrt=False)

    def step(x, inner, key):
        if case.batch is None:
            xi = optax.tree.random_like(key, x)
            g = jax.tree.map(lambda g, z: g + SIGMA * z, problem.gradient(x), xi)
        else:
            rows = jax.random.randint(key, (case.batch,), 0, problem.count)
            g = problem.part(rows).gradient(x)
        updates, inner = optimizer.update(g, inner, x)
        return optax.apply_updates(x, updates), inner

    def body(carry, k):
        keys = jax.vmap(jax.random.fold_in, (0, None))(
            jax.random.split(jax.random.key(0), case.paths), k
        )
        return jax.vmap(step)(*carry, keys), None

    @jax.jit
    def scan(x, steps):
        return jax.lax.fori_loop(0, steps, lambda k, carry: body(carry, k)[0], (x, inner))

    stacked = jax.tree.map(lambda a: jnp.stack([a] * case.paths), problem.x0)
    inner = jax.vmap(optimizer.init)(stacked)
    return lambda steps: jax.block_until_ready(scan(stacked, steps))


def of_torch(case: Case) -> Callable[[int], Any]:
    """One path after the other."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    problem = case.problem()
    targets = torch.tensor(np.asarray(problem.targets), dtype=torch.long)
    inputs = torch.tensor(np.asarray(problem.inputs))
    convolves = inputs.ndim == 4
    if convolves:
        inputs = inputs.permute(0, 3, 1, 2).contiguous()
    nn = torch.nn

    def network():
        if not convolves:
            widths = [30, *[20] * 9, 2]
            layers = [[nn.Linear(a, b), nn.ReLU()] for a, b in itertools.pairwise(widths)]
            return nn.Sequential(*[layer for both in layers for layer in both][:-1])
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip

    def run(steps):
        for path in range(case.paths):
            torch.manual_seed(path)
            model = network()
            optimizer = torch.optim.RMSprop(model.parameters(), ETA, DECAY, EPS)
            for _ in range(steps):
                a, y = inputs, targets
                if case.batch is not None:
                    rows = torch.randint(len(inputs), (case.batch,))
                    a, y = inputs[rows], targets[rows]
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(a), y).backward()
                if case.batch is None:
                    for parameter in model.parameters():
                        parameter.grad += SIGMA * torch.randn_like(parameter)
                optimizer.step()

    return run


ENGINES: dict[str, Callable[[Case], Callable[[int], Any]]] = {
    "jaxsde": of_jaxsde,
    "jaxsde, with the SDE": lambda case: of_jaxsde(case, pair=True),
    "jax": of_jax,
    "jax-conv": lambda case: of_jax(case, conv=True),
    "torch": of_torch,
}


def child(case: str, engine: str, steps: int, repeats: int) -> None:
    """Runs one engine on one case and prints a row as JSON."""
    jaxsde.use_all_cores()
    chosen = CASES[case]
    before = peak_memory()
    try:
        run = ENGINES[engine](chosen)
    except ImportError as error:
        print(json.dumps({"case": case, "engine": engine, "missing": str(error)}))
        return
    began = time.perf_counter()
    run(steps)
    first = time.perf_counter() - began
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run(steps)
        seconds.append(time.perf_counter() - began)
    row = {
        "case": case, "engine": engine, "paths": chosen.paths, "steps": steps,
        "first_call": first, "seconds": seconds, "memory": peak_memory() - before,
        "path_step": statistics.median(seconds) / (steps * chosen.paths),
    }  # fmt: skip
    print(json.dumps(row))


def measure(case: str, engine: str, steps: int, repeats: int) -> dict[str, Any]:
    """A row from a process of its own."""
    words = ["--child", case, engine, str(steps), str(repeats)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.networks", *words], cwd=ROOT, timeout=LIMIT,
            stdout=subprocess.PIPE, check=True, text=True,
        )  # fmt: skip
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        return {"case": case, "engine": engine, "missing": type(error).__name__}
    return json.loads(done.stdout.splitlines()[-1])


def _cells(row: dict[str, Any], base: float | None) -> tuple[str, ...]:
    if "missing" in row:
        return row["engine"], row["missing"], "", "", "", ""
    thousand = row["path_step"] * row["paths"] * 1000
    return (
        row["engine"], f"{row['path_step'] * 1e3:.3g}",
        "" if base is None else f"{row['path_step'] / base:.2f}",
        f"{thousand:.0f}", f"{row['first_call']:.0f}", f"{row['memory'] / 2**20:.0f}",
    )  # fmt: skip


def write(rows: Sequence[dict[str, Any]], machine: dict[str, Any], base: Path) -> None:
    """The JSON lines and the tables beside each other."""
    head = (
        "engine", "ms a path-step", "times jaxsde's", "s for 1,000 steps of all paths",
        "first call, s", "memory, MiB",
    )  # fmt: skip
    parts = [
        f"# Networks, {machine['date']}",
        f"{machine['devices']} x {machine['device']} ({machine['processor']}, {machine['cores']} "
        f"cores), float32, jax {machine['jax']}, load before the run {machine['load_before']:.1f}.",
        EXPLANATION,
    ]
    for name, case in CASES.items():
        own = [row for row in rows if row["case"] == name]
        if own:
            ours = next((r.get("path_step") for r in own if r["engine"] == "jaxsde"), None)
            parts += [f"## {name}: {case.about}, {case.paths} paths"]
            parts += [report.table(head, [_cells(row, ours) for row in own])]
    lines = "".join(json.dumps(line) + "\n" for line in ({"machine": machine}, *rows))
    for suffix, content in ((".jsonl", lines), (".md", "\n\n".join(parts) + "\n")):
        with _files.atomic(f"{base}{suffix}") as temporary:
            temporary.write_text(content, encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.networks",
        description="Paths of networks in jaxsde and in loops by hand; those of packages that are "
        "not installed are skipped by name.",
        epilog=f"cases: {', '.join(CASES)}. engines: {'; '.join(ENGINES)}.",
    )
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="all by default")
    parser.add_argument("--engines", nargs="+", metavar="ENGINE", help="all by default")
    parser.add_argument("--steps", type=int, default=20, help="of a repeat (default: 20)")
    parser.add_argument("--repeats", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder (default: benchmarks/results)"
    )
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes."""
    options = parser().parse_args(arguments)
    if options.child:
        case, engine, steps, repeats = options.child
        return child(case, engine, int(steps), int(repeats))
    names, engines = list(options.cases or CASES), list(options.engines or ENGINES)
    try:
        for name in names:
            _checks.known("case", name, CASES)
        for engine in engines:
            _checks.known("engine", engine, ENGINES)
        for name in ("steps", "repeats"):
            _checks.at_least(f"--{name}", getattr(options, name), 1)
    except InputError as error:
        raise SystemExit(f"python -m benchmarks.networks: {error}") from None
    load, rows = os.getloadavg()[0], []
    with progress() as tell:
        tell("the machine's limits")
        machine = measure_machine(quick=True) | {"load_before": load}
        base = options.out / report.stem(machine).replace("throughput", "networks", 1)
        for name in names:
            for engine in engines:
                if engine == "jax-conv" and name == "mlp":
                    continue
                tell(f"{name}: {engine}")
                rows.append(measure(name, engine, options.steps, options.repeats))
        write(rows, machine, base)
    print(f"rows: {base}.jsonl\ntable: {base}.md")


if __name__ == "__main__":
    main()
