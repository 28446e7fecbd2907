"""The command: which cases, how many steps; then the files."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import jaxsde
from benchmarks.agents import measure, report
from benchmarks.agents.cases import AGENTS, CASES, FULL, SIZES
from benchmarks.throughput import report as throughput
from benchmarks.throughput.__main__ import RESULTS, measure_machine, progress
from jaxsde import InputError, _checks


def parser() -> argparse.ArgumentParser:
    """The command line."""
    known = "; ".join(f"{name}: {case.means}" for name, case in CASES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.agents",
        description=f"Ensembles of {AGENTS} agents against their random words alone, their SDEs, "
        "and hand-written loops in JAX and, where it is installed, PyTorch.",
        epilog=f"cases: {known}.",
    )
    size = parser.add_mutually_exclusive_group()
    full = f"10,000 steps, of {', '.join(FULL)} by default"
    size.add_argument("--full", dest="size", action="store_const", const="full", help=full)
    size.add_argument(
        "--quick", dest="size", action="store_const", const="quick", help="to see it work"
    )
    parser.set_defaults(size="rates")
    add = parser.add_argument
    add("--cases", nargs="+", metavar="CASE", help="all by default")
    add("--repeats", type=int, help="default: 5, of full size 3")
    add("--add", action="store_true", help="keep the other cases that today's files hold")
    add("--out", type=Path, default=RESULTS, help="folder (default: benchmarks/results)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes; the files are whole after every case."""
    options = parser().parse_args(arguments)
    size, names = SIZES[options.size], options.cases
    names = dict.fromkeys(names or (FULL if options.size == "full" else CASES))
    try:
        for name in names:
            _checks.known("case", name, CASES)
        if options.repeats is not None:
            size = size._replace(repeats=_checks.at_least("--repeats", options.repeats, 1))
    except InputError as error:
        raise SystemExit(f"python -m benchmarks.agents: {error}") from None
    jaxsde.use_all_cores()  # before JAX computes anything
    load = os.getloadavg()[0]
    with progress() as tell:
        tell("the machine's limits")
        machine = measure_machine(options.size == "quick")
        machine |= {"load_before": load, "nice": os.nice(0)}
        suffix = "" if options.size == "rates" else f"-{options.size}"
        stem = throughput.stem(machine).replace("throughput", "agents", 1) + suffix
        base = options.out / stem
        rows = report.earlier(base, names) if options.add else []
        for name in names:
            now = {key: machine[key] for key in ("date", "flags", "load_before", "nice")}
            rows += [row | now for row in measure.measured(name, size, tell)]
            report.write(rows, machine, base)
    print(report.markdown(rows, machine))
    print(f"{base}.jsonl, .md")


if __name__ == "__main__":
    main()
