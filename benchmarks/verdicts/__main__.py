"""The command: which families, with or without simulations; then the page."""

import argparse
import datetime
import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

import jaxsde
from benchmarks.throughput.__main__ import RESULTS, progress
from benchmarks.throughput.process import ROOT
from benchmarks.verdicts import _judge, _page
from benchmarks.verdicts._verdict import Formula
from jaxsde import InputError, _checks

FAMILIES = tuple(_page.TITLES)
PACKAGES = ("jaxsde", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.verdicts",
        description="Every published formula of jaxsde.theory against its exact law and, where the "
        "grid says so, against simulation. Exit status 1 where those disagree, or a correction "
        "does not correct.",
        epilog=f"families: {', '.join(FAMILIES)}.",
    )
    add = parser.add_argument
    add("--families", nargs="+", metavar="FAMILY", help="all by default")
    add("--quick", action="store_true", help="exact laws only, no simulations: seconds")
    add("--seed", type=int, default=0, help="of the simulations (default: 0)")
    add(
        "--out", type=Path, default=ROOT / "docs" / "verdicts.md",
        help="the page (default: docs/verdicts.md)",
    )  # fmt: skip
    add("--results", type=Path, default=RESULTS, help="folder of the JSON lines")
    return parser


def formulas(family: str) -> Sequence[Formula]:
    """Those of a family."""
    return importlib.import_module(f"benchmarks.verdicts.{family}").FORMULAS


def main(arguments: Sequence[str] | None = None) -> None:
    """Judges and writes."""
    options = parser().parse_args(arguments)
    families = list(dict.fromkeys(options.families or FAMILIES))
    try:
        for name in families:
            _checks.known("family", name, FAMILIES)
    except InputError as error:
        raise SystemExit(f"python -m benchmarks.verdicts: {error}") from None
    jax.config.update("jax_enable_x64", True)  # weak errors of order 2 need it
    jaxsde.use_all_cores()
    key = None if options.quick else jax.random.key(options.seed)
    wanted = {family: formulas(family) for family in families}
    run, found = _run(options), {}
    record = _page.record(run, options.results)
    with progress() as tell:
        for family, stated in wanted.items():
            found[family] = []
            for formula in stated:
                tell(f"{family}: {formula.name}")
                found[family].append(_judge.judged(formula, key, tell))
            _page.write(found, run, options.out, record)  # whole after every family
    print(_summary(found))
    print(options.out, record, sep="\n")
    if problems := _problems(found):
        sys.exit("\n".join(["", "ALARM: exact law, correction or code is wrong", *problems]))


def _run(options: argparse.Namespace) -> dict[str, Any]:
    """What the page says of its making."""
    command = "python -m benchmarks.verdicts"
    if options.families:
        command += " --families " + " ".join(options.families)
    command += " --quick" if options.quick else ""
    command += f" --seed {options.seed}" if options.seed else ""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": options.seed,
        "simulated": not options.quick,
        "versions": {"python": platform.python_version()} | versions,
    }


def _summary(found: dict[str, list[_judge.Judgement]]) -> str:
    """A line a formula."""
    width = max(len(j.formula.name) for judgements in found.values() for j in judgements)
    return "\n".join(
        f"{family:16} {j.formula.name:{width}}  {j.published.word} {j.published.detail}"
        for family, judgements in found.items()
        for j in judgements
    )


def _problems(found: dict[str, list[_judge.Judgement]]) -> list[str]:
    return [
        f"{family}, {j.formula.name}: {problem}"
        for family, judgements in found.items()
        for j in judgements
        for problem in j.problems
    ]


if __name__ == "__main__":
    main()
