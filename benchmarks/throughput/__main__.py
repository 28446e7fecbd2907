"""The command: which cases, which peers, how often; then the files."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.throughput import cases, figure, measure, report
from benchmarks.throughput.peers import PEERS, Peer
from benchmarks.throughput.process import ROOT
from jaxsde import InputError, _checks

RESULTS = ROOT / "benchmarks" / "results"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description="The same ensembles in jaxsde and in its peers, in one run with interleaved "
        "repeats, each peer in a process of its own; those not installed are skipped by name.",
        epilog=f"cases: {', '.join(cases.BY_NAME)}. peers: {', '.join(PEERS)}.",
    )
    add = parser.add_argument
    own = "NAME=MODULE adds your own, a module like those in benchmarks/throughput/peers"
    regime = "throughput, latency: sizes at which jaxsde alone is set against the device's limits"
    add("--cases", nargs="+", metavar="CASE", help="all ordinary ones by default")
    add("--peers", nargs="+", metavar="PEER", help=f"all by default; {own}")
    add("--regime", nargs="+", metavar="REGIME", help=regime)
    add("--repeats", type=int, default=5, help="default: 5")
    add("--seconds", type=float, help="that a repeat should take (default: 1)")
    add("--limit", type=float, default=900, help="seconds of a peer on a case (default: 900)")
    add("--quick", action="store_true", help="small cases and short repeats, to see it work")
    add("--out", type=Path, default=RESULTS, help="folder (default: benchmarks/results)")
    add(
        "--python", nargs="+", default=[], metavar="PEER=INTERPRETER",
        help="run a peer under another interpreter",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes."""
    options = parser().parse_args(arguments)
    try:
        names, peers, pythons = _checked(options)
    except InputError as error:
        raise SystemExit(f"python -m benchmarks.throughput: {error}") from None
    seconds = (0.02 if options.quick else 1.0) if options.seconds is None else options.seconds
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    rows = []
    with progress() as tell:
        tell("the machine's limits")
        machine = measure_machine(options.quick) | {"load_before": load}
        stem = "-".join([report.stem(machine), *(options.regime or ())])
        base = options.out / stem
        for name in names:
            case = cases.find(name, options.quick)
            wanted = [peer for peer in peers if _meet(peer, case)]
            rows += measure.measure(
                case, wanted, pythons, repeats=options.repeats, seconds=seconds,
                limit=options.limit, quick=options.quick, tell=tell,
            )  # fmt: skip
            report.write(rows, machine, base)
    title = f"The same work, interleaved in one run ({stem.removeprefix('throughput-')})"
    if any(row["status"] == "ok" for row in rows):
        figure.draw(rows, Path(f"{base}.png"), title)
    print(report.markdown(rows, machine))
    print(f"{base}.jsonl, .md, .png")


def _checked(options: argparse.Namespace) -> tuple[list[str], list[Peer], dict[str, str]]:
    for name in options.regime or ():
        _checks.known("regime", name, cases.REGIMES)
    names = cases.chosen(options.cases, options.regime)
    for name in names:
        _checks.known("case", name, cases.BY_NAME)
    peers = [_peer(name) for name in dict.fromkeys(options.peers or PEERS)]
    _checks.at_least("--repeats", options.repeats, 1)
    _checks.positive_number("--limit", options.limit)
    _checks.positive_number("--seconds", 1.0 if options.seconds is None else options.seconds)
    pythons = {}
    for given in options.python:
        name, _, interpreter = given.partition("=")
        _checks.known("peer", name, [peer.name for peer in peers])
        if shutil.which(interpreter) is None:
            raise InputError(f"--python {name}: {interpreter or 'nothing'} is no interpreter")
        pythons[name] = interpreter
    return names, peers, pythons


def _meet(peer: Peer, case: cases.Case) -> bool:
    wanted = not case.only or peer.name in case.only
    return wanted and (not peer.equations or case.equation in peer.equations)


def _peer(given: str) -> Peer:
    name, own, module = given.partition("=")
    if own:
        return Peer(name, module, settings=f"module {module}")
    _checks.known("peer", name, PEERS)
    return PEERS[name]


def measure_machine(quick: bool) -> dict:
    """The machine's limits, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.throughput.machine", *["--quick"][: int(quick)]]
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A line that says what runs: rich's if there is rich and a terminal, else plain ones."""
    if not sys.stderr.isatty():
        yield lambda text: print(text, file=sys.stderr, flush=True)
        return
    try:
        from rich.console import Console
    except ImportError:
        yield lambda text: print(text, file=sys.stderr, flush=True)
        return
    with Console(stderr=True).status("starting") as status:
        yield status.update


if __name__ == "__main__":
    main()
